"""Each clause bites: a backend that is broken in one way fails the clause that forbids it.

The table is made by `@breaks(suite, clause)` on a broken backend; a test asserts that no clause is without one.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import pickle
import threading
from collections import defaultdict
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np
import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from PIL import Image

from vrag.errors import (
    AlreadyExistsError,
    BackendError,
    ContentRejectedError,
    NotFoundError,
    UnsupportedRequestError,
    UsageError,
    VRAGError,
)
from vrag.testing import (
    FAKE_SPACE,
    FakeCaptioner,
    FakeEmbedder,
    FakeInpainter,
    FakeSigner,
    FakeStorage,
    FakeVectorStore,
    FakeVideoGenerator,
    FakeVideoRenderer,
    SampleMedia,
)
from vrag.testing.contracts import fakes
from vrag.values.jobs import JobStatus
from vrag.values.requests import CaptionResult, EditResult, Estimate, ModelRef, Problem
from vrag.values.vectors import Match, Receipt

FAKES = {
    fakes.FakeEmbedderSuite: FakeEmbedder,
    fakes.FakeVectorStoreSuite: FakeVectorStore,
    fakes.FakeStorageSuite: FakeStorage,
    fakes.FakeVideoGeneratorSuite: FakeVideoGenerator,
    fakes.FakeVideoRendererSuite: FakeVideoRenderer,
    fakes.FakeInpainterSuite: FakeInpainter,
    fakes.FakeCaptionerSuite: FakeCaptioner,
    fakes.FakeSignerSuite: FakeSigner,
}
BROKEN = defaultdict(list)


def breaks(suite, clause):
    def note(backend):
        BROKEN[suite, clause].append(backend)
        return backend

    return note


def run(suite_class, clause, backend_class, tmp_path):
    """Run one clause on backends of this class."""

    class Suite(suite_class):
        patience_s = 0.4
        waived = MappingProxyType({})

        def make(self, tmp_path, *arguments, **options):
            if suite_class is fakes.FakeVideoGeneratorSuite:
                options["recovery"] = "list"
            if suite_class is KeptSuite:
                options["folder"] = tmp_path
            return backend_class(*arguments, **options)

    suite = Suite()
    method = getattr(suite, clause)
    wanted = inspect.signature(method).parameters
    with suite.opened(tmp_path / "one") as backend:
        given = {"backend": backend, "tmp_path": tmp_path / "one"}
        method(**{name: given[name] for name in wanted})


# Clauses of all suites: the same three mistakes and a missing member, made in each fake.


def members(suite):
    return [name for name in vars(suite.seam) if not name.startswith("_")]


def guarded(fake, names, check):
    """A subclass whose members work only while `check(self)` holds."""

    class Guarded(fake):
        newest = None

        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.thread, self.process = threading.get_ident(), os.getpid()
            type(self).newest = self

        def __getattribute__(self, name):
            if name in names and not check(self):
                raise RuntimeError("not here")
            return super().__getattribute__(name)

    return Guarded


for suite, fake in FAKES.items():
    names = frozenset(members(suite)) - {"close"}
    first = members(suite)[0]

    class Lacking(fake):
        def __getattribute__(self, name, first=first):
            if name == first:
                raise AttributeError(name)
            return super().__getattribute__(name)

    breaks(suite, "test_it_has_every_member_of_the_protocol")(Lacking)
    breaks(suite, "test_32_threads_get_the_serial_result")(
        guarded(fake, names, lambda backend: threading.get_ident() == backend.thread)
    )
    breaks(suite, "test_use_after_fork_works_or_is_refused")(
        guarded(fake, names, lambda backend: os.getpid() == backend.process)
    )
    breaks(suite, "test_two_objects_do_not_disturb_each_other")(
        guarded(fake, names, lambda backend: type(backend).newest is backend)
    )

    class Nameless(fake):
        model = None

    if "model" in members(suite):
        breaks(suite, "test_model__names_itself")(Nameless)

# Embedder

EMBEDDER = fakes.FakeEmbedderSuite


@breaks(EMBEDDER, "test_space__of_every_vector_and_never_changes")
class DriftingSpace(FakeEmbedder):
    def embed(self, items, purpose, media=None):
        rows = super().embed(items, purpose, media)
        self._space = evolve(self._space, revision="2")
        return rows


@breaks(EMBEDDER, "test_modalities__are_the_kinds_that_embed_takes")
class BoastingModalities(FakeEmbedder):
    def embed(self, items, purpose, media=None):
        return super().embed([item for item in items if item.kind == "text" or purpose == "index"], purpose, media)


class SendingEstimate:
    def estimate(self, *arguments):
        with self.faults.at(self.faults._names[0]):
            return super().estimate(*arguments)


@breaks(EMBEDDER, "test_estimate__sends_nothing")
class SendingEmbedder(SendingEstimate, FakeEmbedder):
    pass


@breaks(EMBEDDER, "test_embed__in_order")
class Backwards(FakeEmbedder):
    def embed(self, items, purpose, media=None):
        return super().embed(items, purpose, media)[::-1]


@breaks(EMBEDDER, "test_embed__one_row_an_item")
class Deduplicating(FakeEmbedder):
    def embed(self, items, purpose, media=None):
        return super().embed(list(dict.fromkeys(items)), purpose, media)


@breaks(EMBEDDER, "test_embed__one_row_an_item")
class FlatWhenEmpty(FakeEmbedder):
    def embed(self, items, purpose, media=None):
        return super().embed(items, purpose, media) if items else np.zeros(0, np.float32)


@breaks(EMBEDDER, "test_embed__rows_are_float32_finite_and_unit")
class Longer(FakeEmbedder):
    def embed(self, items, purpose, media=None):
        return super().embed(items, purpose, media) * np.float32(1.01)


@breaks(EMBEDDER, "test_embed__rows_are_float32_finite_and_unit")
class Wider(FakeEmbedder):
    def embed(self, items, purpose, media=None):
        return super().embed(items, purpose, media).astype(np.float64)


@breaks(EMBEDDER, "test_embed__rows_are_float32_finite_and_unit")
class NanForEmpty(FakeEmbedder):
    def embed(self, items, purpose, media=None):
        rows = super().embed(items, purpose, media)
        rows[[item.text == "" for item in items]] = np.nan
        return rows


@breaks(EMBEDDER, "test_embed__same_item_same_row")
class BatchDependent(FakeEmbedder):
    def embed(self, items, purpose, media=None):
        rows = super().embed(items, purpose, media)
        rows = rows + 1e-3 * rows.sum(axis=0) if len(rows) else rows
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@breaks(EMBEDDER, "test_embed__refuses_an_unknown_kind")
class TakesAnything(FakeEmbedder):
    def embed(self, items, purpose, media=None):
        return super().embed([item for item in items if item.kind in self.modalities], purpose, media)


@breaks(EMBEDDER, "test_embed__refuses_an_unknown_kind")
class SendsBeforeRefusing(FakeEmbedder):
    def embed(self, items, purpose, media=None):
        with self.faults.at("embed"):
            return super().embed(items, purpose, media)


# VectorStore

STORE = fakes.FakeVectorStoreSuite


@breaks(STORE, "test_two_objects_do_not_disturb_each_other")
class SharedRows(FakeVectorStore):
    rows = {}  # noqa: RUF012  # that is what is wrong with it

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._rows = self.rows
        self.publish()


@breaks(STORE, "test_space__is_that_of_its_vectors")
class Spaceless(FakeVectorStore):
    space = None


@breaks(STORE, "test_upsert__replaces_whole")
class Merging(FakeVectorStore):
    def upsert(self, records):
        old = {row.key: row.fields for row in self.get([row.key for row in records])}
        return super().upsert([evolve(row, fields={**old.get(row.key, {}), **row.fields}) for row in records])


@breaks(STORE, "test_upsert__all_or_none")
class OneByOne(FakeVectorStore):
    def upsert(self, records):
        receipts = [super(OneByOne, self).upsert([record]) for record in records]
        return Receipt(id=receipts[-1].id, count=len(receipts))


@breaks(STORE, "test_upsert__last_of_a_key_wins")
class FirstWins(FakeVectorStore):
    def upsert(self, records):
        return super().upsert(records[::-1])


@breaks(STORE, "test_upsert__refuses_a_bad_vector")
class TakesAnyVector(FakeVectorStore):
    def _checked(self, record):
        super()._checked(evolve(record, vector=None))
        return record


@breaks(STORE, "test_upsert__refuses_vectors_without_a_space")
class DropsVectors(FakeVectorStore):
    def _checked(self, record):
        return super()._checked(evolve(record, vector=record.vector if self._space else None))


@breaks(STORE, "test_upsert__refuses_an_unknown_field")
class DropsFields(FakeVectorStore):
    def _checked(self, record):
        return super()._checked(evolve(record, fields={k: v for k, v in record.fields.items() if k != "colour"}))


class KeptStore(FakeVectorStore):
    """A store on disk, so that there is something to lose."""

    def __init__(self, space=FAKE_SPACE, *, folder):
        super().__init__(space)
        self.file = folder / "rows"
        self.turn = threading.Lock()
        if self.file.exists():
            self._rows = pickle.loads(self.file.read_bytes())

    def keep(self):
        with self.turn:
            # A copy: pickling calls Python code, and another thread may write meanwhile.
            self.file.write_bytes(pickle.dumps(dict(self._rows)))

    def upsert(self, records):
        receipt = super().upsert(records)
        self.keep()
        return receipt


class KeptSuite(fakes.FakeVectorStoreSuite):
    waived = MappingProxyType({})

    def make(self, tmp_path, space=FAKE_SPACE):
        return KeptStore(space, folder=tmp_path)


class TestKeptStore(KeptSuite):
    pass


@breaks(KeptSuite, "test_upsert__survives_a_kill")
class KeepsAtClose(KeptStore):
    def upsert(self, records):
        return FakeVectorStore.upsert(self, records)

    def close(self):
        self.keep()


@breaks(STORE, "test_delete__unknown_key_is_no_error")
class CountsWhatWasAsked(FakeVectorStore):
    def delete(self, keys):
        return evolve(super().delete(keys), count=len(keys))


@breaks(STORE, "test_delete__unknown_key_is_no_error")
class StrictDelete(FakeVectorStore):
    def delete(self, keys):
        if len(self.get(keys)) < len(keys):
            raise NotFoundError("No such row.")
        return super().delete(keys)


@breaks(STORE, "test_settled__answers_at_once_and_truly")
class ClaimsSettled(FakeVectorStore):
    def __init__(self, space=FAKE_SPACE):
        super().__init__(space, delayed=True)

    def settled(self, receipt):
        return True


@breaks(STORE, "test_settled__answers_at_once_and_truly")
class WaitsToSettle(FakeVectorStore):
    def settled(self, receipt):
        threading.Event().wait(0.8)
        return super().settled(receipt)


@breaks(STORE, "test_search__by_vector_by_words_or_both")
class VectorHidesWords(FakeVectorStore):
    def search(self, query):
        return super().search(query if query.vector is None else evolve(query, words=None))


@breaks(STORE, "test_search__at_most_top_k_by_each")
class CutsAfterMerging(FakeVectorStore):
    def search(self, query):
        return super().search(query)[: query.top_k]


@breaks(STORE, "test_search__at_most_top_k_by_each")
class TwiceWhenBoth(FakeVectorStore):
    def search(self, query):
        return [
            part
            for match in super().search(query)
            for part in (evolve(match, word_rank=None), Match(key=match.key, word_rank=match.word_rank))
            if part.cosine is not None or part.word_rank is not None
        ]


@breaks(STORE, "test_search__cosines_and_ranks")
class ScaledScores(FakeVectorStore):
    def search(self, query):
        return [
            match if match.cosine is None else evolve(match, cosine=(1 + match.cosine) / 2)
            for match in super().search(query)
        ]


@breaks(STORE, "test_search__cosines_and_ranks")
class RanksFromZero(FakeVectorStore):
    def search(self, query):
        return [
            match if match.word_rank is None else evolve(match, word_rank=match.word_rank - 1)
            for match in super().search(query)
        ]


@breaks(STORE, "test_search__sorted_with_ties_by_key")
class TiesAsTheyCome(FakeVectorStore):
    def search(self, query):
        found = sorted(super().search(query), key=lambda match: match.key, reverse=True)
        return sorted(found, key=lambda match: (-(match.cosine or -2), match.word_rank or 0))


@breaks(STORE, "test_search__filter_is_exact")
class FiltersAfterwards(FakeVectorStore):
    def search(self, query):
        allowed = {row.key for row in self.scan(query.filter)}
        return [match for match in super().search(evolve(query, filter=None)) if match.key in allowed]


@breaks(STORE, "test_search__refuses_a_filter_on_an_unknown_field")
class LenientFilter(FakeVectorStore):
    def search(self, query):
        try:
            return super().search(query)
        except UsageError:
            return []


@breaks(STORE, "test_search__refuses_a_foreign_space")
class ComparesDimensions(FakeVectorStore):
    def search(self, query):
        return super().search(evolve(query, space=None))


@breaks(STORE, "test_search__words_are_plain_text")
class StarIsAnOperator(FakeVectorStore):
    def search(self, query):
        return super().search(evolve(query, words=(query.words or "").replace("ot*", "otter")))


@breaks(STORE, "test_get__unchanged_in_the_order_asked")
class GetsInOrderOfKey(FakeVectorStore):
    def get(self, keys):
        return super().get(sorted(keys))


@breaks(STORE, "test_get__unchanged_in_the_order_asked")
class TidiesPayload(FakeVectorStore):
    def get(self, keys):
        return [evolve(row, payload=row.payload.replace(",", ", ")) for row in super().get(keys)]


@breaks(STORE, "test_scan__in_order_of_key_each_once")
class ScansAsWritten(FakeVectorStore):
    def scan(self, filter=None):  # the name in the interface
        return iter(self._fulfilling(filter))


@breaks(STORE, "test_count__rows_that_fulfil_the_filter")
class CountsAll(FakeVectorStore):
    def count(self, filter=None):  # the name in the interface
        return super().count()


class ClosesOnce:
    closed = False

    def close(self):
        if self.closed:
            raise BackendError("It is closed.")
        self.closed = True


@breaks(STORE, "test_close__twice_is_fine")
class StoreClosesOnce(ClosesOnce, FakeVectorStore):
    pass


@breaks(STORE, "test_close__twice_is_fine")
class StoreLeaksAFile(FakeVectorStore):
    def close(self):
        os.dup(0)


# Storage

STORAGE = fakes.FakeStorageSuite


@breaks(STORAGE, "test_two_objects_do_not_disturb_each_other")
class SharedDocuments(FakeStorage):
    documents = {}  # noqa: RUF012  # as above

    def __init__(self):
        super().__init__()
        self._documents = self.documents


@breaks(STORAGE, "test_put__stores_from_where_the_stream_stands")
class Rewinds(FakeStorage):
    def put(self, stream, media_type):
        stream.seek(0)
        return super().put(stream, media_type)


@breaks(STORAGE, "test_put__ref_has_digest_type_and_size")
class ForgetsType(FakeStorage):
    def put(self, stream, media_type):
        return evolve(super().put(stream, media_type), media_type="application/octet-stream")


@breaks(STORAGE, "test_put__same_bytes_once")
class PutsOnce(FakeStorage):
    def put(self, stream, media_type):
        count = self.object_count
        ref = super().put(stream, media_type)
        if self.object_count == count:
            raise AlreadyExistsError("It is there.")
        return ref


@breaks(STORAGE, "test_put__same_bytes_once")
class KeepsCopies(FakeStorage):
    def put(self, stream, media_type):
        ref = super().put(stream, media_type)
        self._objects[f"{ref.sha256}-{len(self._objects)}"] = b""
        return ref


@breaks(STORAGE, "test_put__broken_stream_leaves_nothing")
class KeepsHalf(FakeStorage):
    def put(self, stream, media_type):
        data = b""
        try:
            while part := stream.read(4):
                data += part
        except OSError:
            super().put(io.BytesIO(data), media_type)
            raise
        return super().put(io.BytesIO(data), media_type)


@breaks(STORAGE, "test_put_named__keeps_what_exists")
class Overwrites(FakeStorage):
    def put_named(self, name, stream):
        data = stream.read()
        if self.exists(name):
            self._documents[name] = data
        super().put_named(name, io.BytesIO(data))


@breaks(STORAGE, "test_put_named__one_writer_wins")
class LooksThenWrites(FakeStorage):
    def put_named(self, name, stream):
        if self.exists(name):
            raise AlreadyExistsError("It is there.")
        threading.Event().wait(0.02)
        self._documents[name] = stream.read()


@breaks(STORAGE, "test_put_named__refuses_other_names")
class TidiesNames(FakeStorage):
    def put_named(self, name, stream):
        super().put_named(name.strip("/") if name else name, stream)


@breaks(STORAGE, "test_put_named__refuses_other_names")
class RefusesLongNames(FakeStorage):
    def put_named(self, name, stream):
        if len(name) > 255:
            raise UsageError("Too long.")
        super().put_named(name, stream)


@breaks(STORAGE, "test_open__from_offset_and_missing_is_typed")
class IgnoresOffset(FakeStorage):
    def open(self, key, offset=0):
        return super().open(key)


@breaks(STORAGE, "test_open__from_offset_and_missing_is_typed")
class MissingIsEmpty(FakeStorage):
    def open(self, key, offset=0):
        return super().open(key, offset) if self.exists(key) else io.BytesIO()


@breaks(STORAGE, "test_open__bytes_unchanged")
class TextMode(FakeStorage):
    def open(self, key, offset=0):
        return io.BytesIO(super().open(key, offset).read().replace(b"\r\n", b"\n"))


@breaks(STORAGE, "test_open__changed_bytes_are_found")
class Trusting(FakeStorage):
    def open(self, key, offset=0):
        return super().open(key, offset) if isinstance(key, str) else io.BytesIO(self._objects[key.sha256][offset:])


@breaks(STORAGE, "test_exists__as_open_would_find")
class EverythingExists(FakeStorage):
    def exists(self, key):
        return True


@breaks(STORAGE, "test_list__names_with_the_prefix_sorted")
class ListsDigests(FakeStorage):
    def list(self, prefix=""):
        return iter(sorted([*super().list(prefix), *self._objects]))


@breaks(STORAGE, "test_list__names_with_the_prefix_sorted")
class ListsFolders(FakeStorage):
    def list(self, prefix=""):
        return super().list(prefix.rstrip("/") + "/" if prefix else "")


@breaks(STORAGE, "test_delete__missing_is_no_error")
class StrictStorageDelete(FakeStorage):
    def delete(self, key):
        if not self.exists(key):
            raise NotFoundError("It is not there.")
        super().delete(key)


@breaks(STORAGE, "test_uri__holds_no_secret")
class Presigns(FakeStorage):
    def uri(self, key):
        return super().uri(key) + "?X-Signature=4f"


# VideoGenerator

GENERATOR = fakes.FakeVideoGeneratorSuite


@breaks(GENERATOR, "test_capabilities__never_change")
class ShrinkingGenerator(FakeVideoGenerator):
    @property
    def capabilities(self):
        return evolve(super().capabilities, max_shots=6 - len(self.charges))


@breaks(GENERATOR, "test_recovery__a_lost_job_is_found")
class FindsOwnOnly(FakeVideoGenerator):
    def find(self, tokens, since):
        return super().find(tokens, since) if any(call.name == "start" for call in self.calls) else {}


class OverlooksCodec:
    def validate(self, request):
        return tuple(problem for problem in super().validate(request) if problem.field != "codec")


class SendingValidation:
    def validate(self, request):
        with self.faults.at(self.faults._names[0]):
            return super().validate(request)


@breaks(GENERATOR, "test_validate__names_what_it_will_not_do")
class GeneratorOverlooksCodec(OverlooksCodec, FakeVideoGenerator):
    pass


@breaks(GENERATOR, "test_validate__names_what_it_will_not_do")
class GeneratorSendsValidation(SendingValidation, FakeVideoGenerator):
    pass


@breaks(GENERATOR, "test_validate__empty_within_capabilities")
class AlwaysUnmet(FakeVideoGenerator):
    def validate(self, request):
        return (*super().validate(request), Problem(kind="unmet", field="seed", message="No seeds."))


@breaks(GENERATOR, "test_estimate__sends_nothing")
class GeneratorSendsEstimate(SendingEstimate, FakeVideoGenerator):
    pass


@breaks(GENERATOR, "test_start__does_not_wait")
class StartWaits(FakeVideoGenerator):
    def start(self, request, media, token):
        threading.Event().wait(0.8)
        return super().start(request, media, token)


@breaks(GENERATOR, "test_start__refuses_before_sending")
class SendsThenRefuses(FakeVideoGenerator):
    def start(self, request, media, token):
        with self.faults.at("start"):
            return super().start(request, media, token)


@breaks(GENERATOR, "test_start__same_token_same_job")
class BuysAgain(FakeVideoGenerator):
    def start(self, request, media, token):
        if token in self.charges:
            self.forget(token)
        return super().start(request, media, token)


@breaks(GENERATOR, "test_start__same_token_other_request")
class ConflictIsSuccess(FakeVideoGenerator):
    def start(self, request, media, token):
        try:
            return super().start(request, media, token)
        except UnsupportedRequestError:
            raise
        except UsageError:
            return next(job.handle for job in self._provider.jobs.values() if job.token == token)


@breaks(GENERATOR, "test_status__does_not_wait")
class StatusWaits(FakeVideoGenerator):
    def status(self, handles):
        threading.Event().wait(0.8)
        return super().status(handles)


@breaks(GENERATOR, "test_status__left_out_means_no_news")
class TellsOfAll(FakeVideoGenerator):
    def status(self, handles):
        return super().status([job.handle for job in self._provider.jobs.values()])


@breaks(GENERATOR, "test_status__success_names_a_video")
class NamesAShot(FakeVideoGenerator):
    def status(self, handles):
        return {
            handle: evolve(status, outputs=tuple(evolve(one, role="shot") for one in status.outputs))
            for handle, status in super().status(handles).items()
        }


@breaks(GENERATOR, "test_status__success_names_a_video")
class WrongDigest(FakeVideoGenerator):
    def status(self, handles):
        return {
            handle: evolve(status, outputs=tuple(evolve(one, sha256="0" * 64) for one in status.outputs))
            for handle, status in super().status(handles).items()
        }


@breaks(GENERATOR, "test_status__an_end_is_for_good")
class CancelsTheDead(FakeVideoGenerator):
    def cancel(self, handle):
        asked = super().cancel(handle)
        self._provider.jobs[handle.id].ended = JobStatus(state="cancelled")
        return asked


@breaks(GENERATOR, "test_find__jobs_with_these_tokens_since")
class FindsAnyTime(FakeVideoGenerator):
    def find(self, tokens, since):
        return super().find(tokens, self._clock.now())


@breaks(GENERATOR, "test_find__jobs_with_these_tokens_since")
class FindsAll(FakeVideoGenerator):
    def find(self, tokens, since):
        return super().find(self.charges, since)


@breaks(GENERATOR, "test_find__raises_if_it_could_not_look_completely")
class SwallowsAPage(FakeVideoGenerator):
    def find(self, tokens, since):
        try:
            return super().find(tokens, since)
        except BackendError:
            return {}


@breaks(GENERATOR, "test_fetch__same_bytes_from_an_offset")
class FetchesFromTheStart(FakeVideoGenerator):
    def fetch(self, handle, output, offset=0):
        return super().fetch(handle, output)


@breaks(GENERATOR, "test_fetch__missing_is_typed")
class FetchesNothing(FakeVideoGenerator):
    def fetch(self, handle, output, offset=0):
        try:
            return super().fetch(handle, output, offset)
        except NotFoundError:
            return io.BytesIO()


@breaks(GENERATOR, "test_cancel__false_after_the_end")
class CancelIsAlwaysTrue(FakeVideoGenerator):
    def cancel(self, handle):
        super().cancel(handle)
        return True


@breaks(GENERATOR, "test_cancel__twice_is_fine")
class CancelsOnce(FakeVideoGenerator):
    def cancel(self, handle):
        if self._provider.jobs[handle.id].ended is not None:
            raise BackendError("The job is not running.")
        return super().cancel(handle)


@breaks(GENERATOR, "test_close__jobs_run_on")
class CloseCancels(FakeVideoGenerator):
    def close(self):
        for job in self._provider.jobs.values():
            self.cancel(job.handle)


@breaks(GENERATOR, "test_close__twice_is_fine")
class GeneratorClosesOnce(ClosesOnce, FakeVideoGenerator):
    pass


# VideoRenderer

RENDERER = fakes.FakeVideoRendererSuite


@breaks(RENDERER, "test_model__names_itself")
class NoVersion(FakeVideoRenderer):
    model = ModelRef(provider="fake", id="renderer")


@breaks(RENDERER, "test_capabilities__never_change")
class ShrinkingRenderer(FakeVideoRenderer):
    @property
    def capabilities(self):
        return evolve(super().capabilities, max_shots=6 - len(self.calls))


@breaks(RENDERER, "test_validate__names_what_it_will_not_do")
class RendererOverlooksCodec(OverlooksCodec, FakeVideoRenderer):
    pass


@breaks(RENDERER, "test_estimate__price_is_usually_zero")
class PaysYou(FakeVideoRenderer):
    def estimate(self, request):
        return Estimate(usd_micros=-1, video_s=request.duration_s)


class ChangedRender(FakeVideoRenderer):
    def render(self, request, media, out, progress, stopped):
        return super().render(
            self.changed(request),
            media,
            out,
            lambda done: self.tell(progress, done),
            lambda: self.is_stopped(stopped),
        )

    def changed(self, request):
        return request

    def tell(self, progress, done):
        progress(done)

    def is_stopped(self, stopped):
        return stopped()


@breaks(RENDERER, "test_render__writes_an_mp4_and_reports")
class ClosesTheFile(FakeVideoRenderer):
    def render(self, request, media, out, progress, stopped):
        report = super().render(request, media, out, progress, stopped)
        out.close()
        return report


@breaks(RENDERER, "test_render__writes_an_mp4_and_reports")
class ReportsATuple(FakeVideoRenderer):
    def render(self, request, media, out, progress, stopped):
        return super().render(request, media, out, progress, stopped) | {"size_px": (1, 2)}


@breaks(RENDERER, "test_render__refuses_before_writing")
class WritesThenRefuses(FakeVideoRenderer):
    def render(self, request, media, out, progress, stopped):
        out.write(b"\x00")
        out.seek(0)
        return super().render(request, media, out, progress, stopped)


@breaks(RENDERER, "test_render__size_rate_and_length")
class RoundsTheRate(ChangedRender):
    def changed(self, request):
        return evolve(request, fps=float(round(request.fps)))


@breaks(RENDERER, "test_render__size_rate_and_length")
class AlwaysLandscape(ChangedRender):
    def changed(self, request):
        width_px, height_px = sorted((request.width_px, request.height_px), reverse=True)
        return evolve(request, width_px=width_px, height_px=height_px)


@breaks(RENDERER, "test_render__same_request_same_bytes")
class DatesItsFiles(FakeVideoRenderer):
    def render(self, request, media, out, progress, stopped):
        report = super().render(request, media, out, progress, stopped)
        out.write(str(len(self.calls)).encode())
        return report


@breaks(RENDERER, "test_render__progress_rises_to_one")
class NeverDone(ChangedRender):
    def tell(self, progress, done):
        progress(done * 0.99)


@breaks(RENDERER, "test_render__progress_rises_to_one")
class FallsBack(ChangedRender):
    def tell(self, progress, done):
        progress(done if done == 1 else 1 - done)


@breaks(RENDERER, "test_render__stops_soon")
class NeverStops(ChangedRender):
    def is_stopped(self, stopped):
        return False


# Inpainter

INPAINTER = fakes.FakeInpainterSuite


@breaks(INPAINTER, "test_capabilities__never_change")
class ShrinkingInpainter(FakeInpainter):
    @property
    def capabilities(self):
        return evolve(super().capabilities, max_images=4 - len(self.calls))


@breaks(INPAINTER, "test_validate__names_what_it_will_not_do")
class OverlooksCount(FakeInpainter):
    def validate(self, request):
        return super().validate(evolve(request, count=1))


@breaks(INPAINTER, "test_validate__names_what_it_will_not_do")
class InpainterSendsValidation(SendingValidation, FakeInpainter):
    pass


@breaks(INPAINTER, "test_estimate__sends_nothing")
class InpainterSendsEstimate(SendingEstimate, FakeInpainter):
    pass


@breaks(INPAINTER, "test_edit__one_call")
class ACallAPicture(FakeInpainter):
    def edit(self, request, media):
        results = [super(ACallAPicture, self).edit(evolve(request, count=1), media) for _ in range(request.count)]
        return evolve(results[0], images=tuple(data for result in results for data in result.images))


@breaks(INPAINTER, "test_edit__refuses_before_sending")
class EditsThenRefuses(FakeInpainter):
    def edit(self, request, media):
        with self.faults.at("edit"):
            return super().edit(request, media)


@breaks(INPAINTER, "test_edit__mask_of_another_size")
class IgnoresOddMasks(FakeInpainter):
    def edit(self, request, media):
        try:
            return super().edit(request, media)
        except UnsupportedRequestError:
            raise
        except UsageError:
            return EditResult(images=(media(request.image).read(),))


def changed_pictures(result, change):
    pictures = []
    for data in result.images:
        out = io.BytesIO()
        change(Image.open(io.BytesIO(data))).save(out, "PNG")
        pictures.append(out.getvalue())
    return evolve(result, images=tuple(pictures))


@breaks(INPAINTER, "test_edit__keeps_the_size")
class Halves(FakeInpainter):
    def edit(self, request, media):
        return changed_pictures(super().edit(request, media), lambda picture: picture.reduce(2))


@breaks(INPAINTER, "test_edit__white_changes_and_the_rest_does_not")
class BlackIsRepainted(FakeInpainter):
    def edit(self, request, media):
        if request.mask is None:
            return super().edit(request, media)
        own = SampleMedia()
        turned = np.asarray(Image.open(media(request.mask))) ^ 255
        mask = own._encode(Image.fromarray(turned), "image/png")
        return super().edit(evolve(request, mask=mask), lambda ref: own(ref) if ref == mask else media(ref))


@breaks(INPAINTER, "test_edit__white_changes_and_the_rest_does_not")
class ChangesNothing(FakeInpainter):
    def edit(self, request, media):
        return evolve(super().edit(request, media), images=(media(request.image).read(),))


@breaks(INPAINTER, "test_edit__moderation_is_typed")
class HidesRejections(FakeInpainter):
    def edit(self, request, media):
        return evolve(super().edit(request, media), rejected=())


@breaks(INPAINTER, "test_edit__moderation_is_typed")
class EmptyWhenRejected(FakeInpainter):
    def edit(self, request, media):
        try:
            return super().edit(request, media)
        except ContentRejectedError:
            return EditResult(images=(), rejected=("violence",))


# Captioner

CAPTIONER = fakes.FakeCaptionerSuite


@breaks(CAPTIONER, "test_estimate__sends_nothing")
class CaptionerSendsEstimate(SendingEstimate, FakeCaptioner):
    pass


@breaks(CAPTIONER, "test_caption__a_sentence_and_tags")
class BreaksLines(FakeCaptioner):
    def caption(self, image, media):
        result = super().caption(image, media)
        return evolve(result, text=result.text.replace(" ", "\n"))


@breaks(CAPTIONER, "test_caption__a_sentence_and_tags")
class RepeatsTags(FakeCaptioner):
    def caption(self, image, media):
        result = super().caption(image, media)
        return evolve(result, tags=result.tags * 2)


@breaks(CAPTIONER, "test_caption__marks_what_was_cut_off")
class HidesTheCut(FakeCaptioner):
    def caption(self, image, media):
        return evolve(super().caption(image, media), truncated=False)


@breaks(CAPTIONER, "test_caption__refusal_is_typed")
class RefusesInWords(FakeCaptioner):
    def caption(self, image, media):
        try:
            return super().caption(image, media)
        except ContentRejectedError:
            return CaptionResult(text="I cannot describe this picture.")


# Signer

SIGNER = fakes.FakeSignerSuite


@breaks(SIGNER, "test_keyid__is_the_digest_of_the_key")
class ShoutsItsId(FakeSigner):
    @property
    def keyid(self):
        return super().keyid.upper()


@breaks(SIGNER, "test_algorithm__is_one_of_two")
class OwnWord(FakeSigner):
    algorithm = "Ed25519"


@breaks(SIGNER, "test_public_key__is_der")
class RawKey(FakeSigner):
    @property
    def public_key(self):
        return self._key.public_key().public_bytes_raw()


@breaks(SIGNER, "test_public_key__is_der")
class PemKey(FakeSigner):
    @property
    def public_key(self):
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@breaks(SIGNER, "test_sign__verifies_with_the_public_key")
class SignsTheDigest(FakeSigner):
    def sign(self, message):
        return super().sign(hashlib.sha256(message).digest())


@breaks(SIGNER, "test_sign__verifies_with_the_public_key")
class SignsNothing(FakeSigner):
    def sign(self, message):
        return super().sign(b"")


class EcdsaSigner(FakeSigner):
    algorithm = "ecdsa-p256-sha256"

    def __init__(self):
        super().__init__()
        self._key = ec.derive_private_key(7, ec.SECP256R1())

    def sign(self, message):
        return self._key.sign(message, ec.ECDSA(SHA256()))


class TestEcdsaSigner(fakes.FakeSignerSuite):
    def make(self, tmp_path):
        return EcdsaSigner()


@breaks(SIGNER, "test_sign__ecdsa_is_der")
class RawEcdsa(EcdsaSigner):
    def sign(self, message):
        return b"".join(number.to_bytes(32) for number in decode_dss_signature(super().sign(message)))


# The table


def test_every_clause_has_a_backend_that_breaks_it():
    covered = {(suite.seam, clause) for suite, clause in BROKEN}
    assert covered == {(suite.seam, clause) for suite in FAKES for clause in suite.clauses}


@contextmanager
def bites():
    """The block fails as a broken promise does: by an assertion or by an error of ours, and not by a slip of the test."""
    try:
        yield
    except (AssertionError, VRAGError):
        return
    pytest.fail("The clause did not notice.")


@pytest.mark.parametrize(
    ("suite", "clause", "backend"),
    [(suite, clause, one) for (suite, clause), several in BROKEN.items() for one in several],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_the_clause_bites(suite, clause, backend, tmp_path):
    with bites():
        run(suite, clause, backend, tmp_path)


@pytest.mark.parametrize("suite", FAKES, ids=lambda suite: suite.__name__)
def test_the_fake_itself_is_not_bitten(suite, tmp_path):
    for clause in suite.clauses.keys() - suite.waived.keys():
        run(suite, clause, FAKES[suite], tmp_path / clause)
