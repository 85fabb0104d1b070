"""A knowledge base: a named, isolated set of vetted pictures that can be ingested, found, reviewed and taken down."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from datetime import tzinfo
from pathlib import Path
from threading import RLock
from typing import BinaryIO, Final, Literal

from vrag.clock import Clock, SystemClock
from vrag.errors import (
    NotFoundError,
    SpaceMismatchError,
    UsageError,
)
from vrag.interfaces import Captioner, Embedder, Storage, VectorStore
from vrag.knowledge.calibration import Calibration, Calibrator
from vrag.knowledge.embeddings import Questions
from vrag.knowledge.erasure import Erasure, open_or_erased
from vrag.knowledge.importing import import_parts
from vrag.knowledge.ingest import ApproveCost, Ingest, Progress, asset_of
from vrag.knowledge.likeness import search_like
from vrag.knowledge.owner import check_owner
from vrag.knowledge.portability import Exported, Imported, export_parts
from vrag.knowledge.report import IngestEstimate, IngestReport
from vrag.knowledge.retrieval import RetrievalSettings, search
from vrag.knowledge.review import Decision, ReviewReport
from vrag.knowledge.rights import UsePolicy, time_zone_of
from vrag.knowledge.selection import Selection
from vrag.knowledge.sources import Source, open_source
from vrag.knowledge.vetting import Vetting, check_by, check_reason
from vrag.media.header import ImageLimits
from vrag.media.image import thumbnail
from vrag.media.ref import MediaRef
from vrag.values.assets import Asset, Review, ReviewState, check_knowledge_base_name
from vrag.values.vectors import Filter, SearchResult, VectorRecord, check_filter

__all__ = ["KnowledgeBase"]

_APPROVED: Final = frozenset({ReviewState.APPROVED})
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{8,64}")
_BATCH: Final = 64


class KnowledgeBase:
    """The pictures of one department, brand or film: its own index, its own storage, its own reviews.

    Which knowledge base is meant is decided here, by the objects it is made of, and never by a value in a query. The
    first ingest writes the name into the storage; a storage or index of another knowledge base is refused.

    Safe to call from many threads. Several processes may ingest and review at once.
    """

    def __init__(
        self,
        name: str,
        *,
        store: VectorStore,
        storage: Storage,
        embedder: Embedder | None = None,
        clock: Clock | None = None,
        limits: ImageLimits | None = None,
        retrieval: RetrievalSettings | None = None,
        policy: UsePolicy | None = None,
        time_zone: str = "UTC",
    ) -> None:
        """Join the parts; nothing is read or written yet.

        Args:
            name: 1 to 63 of `a-z 0-9 _ -`, first and last a letter or digit.
            store: The index, of this knowledge base alone.
            storage: Original pictures and reviews, of this knowledge base alone.
            embedder: Makes the vectors of `store`; None with a store that is searched by words only.
            clock: Time of ingest and review.
            limits: Which pictures are taken.
            retrieval: How pictures are ranked and when none is good enough.
            policy: What may be used of what was approved.
            time_zone: Whose midnight ends the last day of rights, such as `Europe/Berlin`.

        Raises:
            UsageError: The name is none, or there is no such time zone.
            SpaceMismatchError: The embedder makes other vectors than the store holds.
        """
        self._name = check_knowledge_base_name(name)
        space = embedder.space if embedder else None
        if space != store.space:
            raise SpaceMismatchError(
                f"The index of '{name}' holds vectors of {store.space or 'no space (words only)'}, "
                f"and its embedder makes {space or 'none'}; they cannot be compared.",
                hint=f"vrag kb reindex --kb {name}, or use the embedder that the index was made with",
            )
        self._store = store
        self._storage = storage
        self._embedder = embedder
        self._questions = None if embedder is None else Questions(name, embedder)
        self._clock = clock or SystemClock()
        self._limits = limits or ImageLimits()
        self._retrieval = retrieval or RetrievalSettings()
        self._calibrator = Calibrator(storage, self._clock)
        self._owned = False
        # A row is changed by reading it and writing it back.
        self._writing = RLock()
        self._zone = time_zone_of(time_zone)
        self._vetting = Vetting(
            name,
            store=store,
            storage=storage,
            clock=self._clock,
            policy=policy or UsePolicy(),
            zone=self._zone,
            writing=self._writing,
        )

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def retrieval(self) -> RetrievalSettings:
        """How pictures are ranked and when none is good enough."""
        return self._retrieval

    @property
    def policy(self) -> UsePolicy:
        """What may be used of what was approved."""
        return self._vetting.policy

    @property
    def zone(self) -> tzinfo:
        """Whose midnight ends the last day of rights."""
        return self._zone

    def ingest(
        self,
        source: Path | str | Source,
        *,
        captioner: Captioner | None = None,
        approve_by: str | None = None,
        approve_cost: ApproveCost | None = None,
        near_duplicates: Literal["report", "fold"] = "report",
        prune: bool = False,
        in_flight: int = 32,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Take in pictures: a folder, a manifest (`.csv`, `.jsonl`), one file, or `SourcePicture`s.

        Running it again changes nothing, embeds nothing and pays nothing; a changed caption or tag updates the index
        without decoding the picture again. What a source does not state (tags, rights, a caption as good) stays as it is.

        Args:
            source: Where the pictures are.
            captioner: Describes pictures that have no better words than their file name, each once.
            approve_by: Who approves each picture of the source that nobody has decided about; None leaves them proposed.
            approve_cost: Is shown what the ingest would cost before anything is sent, and says whether it may. Needed
                where the captioner or the embedder is not known to be free and there is something to buy.
            near_duplicates: New pictures that look like another one are taken and reported, or left out (`fold`).
            prune: Take pictures that have vanished from the folder or prefix out of the index; bytes and reviews stay.
            in_flight: At most so many calls of captioner, embedder and storage at once.
            progress: Called after each picture, when it can no longer be lost.

        Returns:
            Counts, and every picture that was not taken with the reason. Bad pictures do not raise.

        Raises:
            NotFoundError: Nothing is at that path.
            UsageError: It would cost something, and that was not approved; nothing was sent.
            BackendError: The index, the storage or a model failed. What was acknowledged stays; ingest again.
        """
        self._own(claim=True)
        run = self._ingest(captioner, approve_by, near_duplicates, prune, in_flight, progress)
        return run.run(open_source(source), approve_cost=approve_cost)

    def estimate_ingest(self, source: Path | str | Source, *, captioner: Captioner | None = None) -> IngestEstimate:
        """What an ingest of `source` would do and cost: every picture is read, and nothing is sent or written.

        Raises:
            NotFoundError: Nothing is at that path.
        """
        self._own()
        return self._ingest(captioner).estimate(open_source(source))

    def _ingest(
        self,
        captioner: Captioner | None,
        approve_by: str | None = None,
        near_duplicates: Literal["report", "fold"] = "report",
        prune: bool = False,
        in_flight: int = 32,
        progress: Progress | None = None,
    ) -> Ingest:
        return Ingest(
            self._name,
            store=self._store,
            storage=self._storage,
            embedder=self._embedder,
            reviews=self._vetting.reviews,
            clock=self._clock,
            limits=self._limits,
            captioner=captioner,
            approve_by=approve_by,
            near_duplicates=near_duplicates,
            prune=prune,
            in_flight=in_flight,
            progress=progress,
            writing=self._writing,
        )

    def search(
        self,
        text: str,
        *,
        top_k: int = 10,
        filter: Filter | None = None,
        states: frozenset[ReviewState] = _APPROVED,
        selection: Selection | None = None,
    ) -> SearchResult:
        """Find pictures for the words of a person: hits, best first, or a refusal with reasons; never both.

        Args:
            text: What should be visible, such as "red shoes"; what the camera does is no part of it.
            top_k: At most so many hits.
            filter: Which pictures are looked at.
            states: Review states of the pictures that may be hits. The reviews themselves are read, not the index.
            selection: Which of those that suit are not offered again, how much alike they may be, and a reranker.

        Raises:
            UsageError: The text is empty, or the filter names a field that there is not.
        """
        if not isinstance(text, str) or not text.strip():
            raise UsageError("A search needs words, such as 'red shoes'.")
        _check_search(top_k, filter)
        self._own()
        return search(
            text,
            knowledge_base=self._name,
            store=self._store,
            embedder=self._embedder,
            questions=self._questions,
            state_of=self._vetting.state_of,
            settings=self._retrieval,
            states=frozenset(states),
            now=self._clock.now(),
            calibrator=self._calibrator,
            condition=filter,
            selection=selection,
            top_k=top_k,
        )

    def search_picture(
        self,
        picture: str | bytes,
        *,
        media_type: str = "image/jpeg",
        top_k: int = 10,
        filter: Filter | None = None,
        states: frozenset[ReviewState] = _APPROVED,
        selection: Selection | None = None,
    ) -> SearchResult:
        """Find pictures like another one: by pixels if the embedder takes pictures, else by their captions.

        Args:
            picture: An asset id of this knowledge base, or an encoded picture. A text embedder knows only those whose
                bytes are in the knowledge base.
            media_type: Of the bytes.
            top_k: As for `search`, like the others.
            filter: See there.
            states: See there.
            selection: See there.

        Raises:
            UnsupportedRequestError: There is nothing to compare it by.
            NotFoundError: There is no picture with that id.
            UsageError: The filter names a field that there is not.
        """
        _check_search(top_k, filter)
        self._own()
        row: VectorRecord | bytes
        if isinstance(picture, bytes):
            known = self._store.get([f"{self._name}/{hashlib.sha256(picture).hexdigest()}"])
            row = known[0] if known and known[0].vector is not None else picture
        else:
            row = self._record(picture)
        return search_like(
            row,
            media_type=media_type,
            knowledge_base=self._name,
            store=self._store,
            embedder=self._embedder,
            state_of=self._vetting.state_of,
            states=frozenset(states),
            now=self._clock.now(),
            condition=filter,
            selection=selection,
            top_k=top_k,
        )

    def calibrate(self) -> Calibration | None:
        """Learn how much in common is enough, with an embedder that costs money too; `search` does it for free ones.

        None with fewer than 50 pictures if the model has thresholds of its own, or without an embedder for text.
        """
        self._own()
        return None if self._embedder is None else self._calibrator.current(self._store, self._embedder, spend=True)

    def asset(self, asset_id: str) -> Asset:
        """The picture with this id (`brand/9f86d0…`), digest, or beginning of a digest (8 digits or more).

        Raises:
            NotFoundError: There is none.
            UsageError: It is no id, an id of another knowledge base, or the beginning of several.
        """
        return asset_of(self._record(asset_id))

    def assets(self, filter: Filter | None = None) -> Iterator[Asset]:
        """Every picture that fulfils the filter, in order of id."""
        if filter is not None:
            check_filter(filter)
        self._own()
        rows = self._store.scan(filter)
        # A row of another knowledge base is never looked at, however it came into this index.
        return (asset_of(row) for row in rows if row.key.startswith(f"{self._name}/"))

    def count(self, filter: Filter | None = None) -> int:
        """How many pictures fulfil the filter. The field `review` is a hint, and says nothing about expiry."""
        if filter is not None:
            check_filter(filter)
        self._own()
        return self._store.count(filter)

    def review(
        self, ids: str | Iterable[str], state: ReviewState, *, by: str, reason: str | None = None
    ) -> tuple[Review, ...]:
        """Decide about pictures; saying again what holds already changes nothing.

        Raises:
            NotFoundError: One of them is not there; nothing was decided.
            UsageError: `by` is empty, or `state` may not follow the state of one of them: those before it are decided.
        """
        records = [self._record(one) for one in ([ids] if isinstance(ids, str) else ids)]
        return self._vetting.decide(records, ReviewState(state), by=by, reason=reason)

    def review_csv(self, data: bytes | str, *, by: str) -> ReviewReport:
        """Decide as a table says: columns `id`, `state` and, if wanted, `reason`.

        A row that cannot be carried out is reported with its line, and the others hold. Two rows that say different
        things about one picture are both left out.

        Raises:
            UsageError: `by` is empty, or this is no such table; then nothing was decided.
        """
        return self._vetting.decide_table(data, by=by, find=self._record)

    def review_matching(
        self,
        text: str,
        state: ReviewState,
        *,
        by: str,
        reason: str | None = None,
        filter: Filter | None = None,
        at_most: int = 100,
    ) -> ReviewReport:
        """Decide about every picture that `search` finds for `text`, whatever its state, but for revoked ones.

        Raises:
            UsageError: `by` is empty, or more than `at_most` pictures were found; then nothing was decided.
        """
        check_by(by)
        states = frozenset(ReviewState) - {ReviewState.REVOKED}
        hits = self.search(text, top_k=at_most + 1, filter=filter, states=states).hits
        if len(hits) > at_most:
            raise UsageError(
                f"More than {at_most} pictures suit '{text[:80]}': nothing was decided.",
                hint=f'vrag search "{text[:80]}" --kb {self._name}, and say how many you mean',
            )
        rows = [
            (Decision(line=0, asset_id=hit.asset.id, state=ReviewState(state), reason=reason), hit.asset.id)
            for hit in hits
        ]
        return self._vetting.decide_many([(row, self._record(key)) for row, key in rows], by=by)

    def approve_all(self, *, by: str) -> int:
        """Approve every picture that nobody has decided about yet; how many these were.

        Raises:
            UsageError: `by` is empty.
            VerificationError: The reviews of a picture cannot be read; the others are approved.
        """
        check_by(by)
        self._own()
        return self._vetting.approve_all(by=by)

    def review_of(self, asset_id: str) -> Review:
        """What holds for a picture now: its last review, `expired` when its rights have ended.

        Raises:
            NotFoundError: There is no such picture.
            VerificationError: Its reviews cannot be read; then it may not be used.
            FormatVersionError: They were written by a newer release.
        """
        return self._vetting.held(self.asset(asset_id))

    def history(self, asset_id: str) -> tuple[Review, ...]:
        """Every decision about a picture, oldest first."""
        return self._vetting.reviews.history(self.asset(asset_id))

    def gate(self, asset_id: str) -> Review:
        """The review that allows the use of a picture now, read from the storage.

        Raises:
            GateError: It is not approved, its rights have ended or do not allow this use, or its reviews cannot be read.
            NotFoundError: There is no such picture.
        """
        return self._vetting.gate(self.asset(asset_id))

    def revoke(self, asset_id: str, *, by: str, reason: str) -> Review:
        """Take a picture down: it is never used again, and what was made from it stays traceable. This is final.

        Raises:
            NotFoundError: There is no such picture.
            UsageError: `by` or `reason` is empty.
        """
        check_reason(reason, "revocation")
        (review,) = self._vetting.decide([self._record(asset_id)], ReviewState.REVOKED, by=by, reason=reason)
        return review

    def revoke_digest(self, sha256: str, *, by: str, reason: str) -> Review:
        """Take down the picture with these bytes, whether it is here or not: ingested later, it is revoked already.

        Raises:
            UsageError: It is no SHA-256, or `by` or `reason` is empty.
        """
        check_reason(reason, "revocation")
        if not isinstance(sha256, str) or not _DIGEST.fullmatch(sha256):
            shown = f"'{sha256[:80]}'" if isinstance(sha256, str) else f"a {type(sha256).__name__}"
            raise UsageError(f"A digest is a SHA-256 of 64 lower-case hexadecimal digits, not {shown}.")
        self._own(claim=True)
        key = f"{self._name}/{sha256}"
        if self._store.get([key]):
            return self.revoke(key, by=by, reason=reason)
        return self._vetting.reviews.add_for_bytes(key, ReviewState.REVOKED, by=by, reason=reason)

    def erase_media(self, asset_id: str, *, by: str, reason: str) -> Erasure:
        """Delete the bytes of a revoked picture, its words and its vector. Its id, its rights and its history stay.

        Saying it again ends what a killed run began. Copies that were fitted for a video, and the videos, are not
        reached: `VRAGPipeline.where_used` lists them.

        Raises:
            NotFoundError: There is no such picture.
            UsageError: It is not revoked, or `by` or `reason` is empty.
        """
        return self._vetting.erase_media(self.asset(asset_id), by=by, reason=reason)

    def export_to(self, path: Path | str, *, progress: Progress | None = None) -> Exported:
        """Write everything into a new folder, or one `.tar` file: pictures, reviews, words and vectors, with digests.

        Raises:
            AlreadyExistsError: Something is at `path`.
            VerificationError: A picture or a review is not as it was stored; nothing is left at `path`.
            NotFoundError: The bytes of a picture are missing, and nobody decided that.
        """
        self._own()
        return export_parts(
            self._name, store=self._store, storage=self._storage, path=Path(path), clock=self._clock, progress=progress
        )

    def import_from(self, path: Path | str, *, progress: Progress | None = None) -> Imported:
        """Take in what `export_to` wrote, without an embedder; running it again does what is left to do.

        Every picture is checked against its digest before it is kept. Nothing revoked becomes usable by it: where both
        sides have decided about a picture, the longer history holds, and a revocation on either side holds always.

        Raises:
            SpaceMismatchError: Its vectors are of another embedding space.
            UsageError: It is not such a folder or file, or that of another knowledge base.
            VerificationError: Something in it does not fit its digest.
            FormatVersionError: A newer release wrote it.
        """
        self._own(claim=True)
        return import_parts(
            self._name,
            store=self._store,
            storage=self._storage,
            reviews=self._vetting.reviews,
            limits=self._limits,
            path=Path(path),
            writing=self._writing,
            progress=progress,
        )

    def open(self, ref: MediaRef) -> BinaryIO:
        """The bytes of a picture of this knowledge base, as they were ingested (`asset.original`).

        Raises:
            NotFoundError: They are not in its storage.
            ErasedError: They were deleted by decision.
        """
        return open_or_erased(self._storage, ref)

    def thumbnail(self, asset_id: str, *, max_side_px: int = 320) -> bytes:
        """A small JPEG of a picture, upright and without metadata."""
        asset = self.asset(asset_id)
        with self.open(asset.original) as stream:
            return thumbnail(stream.read(), asset.file_name, max_side_px=max_side_px, limits=self._limits)

    def close(self) -> None:
        """Close the index; closing twice is fine."""
        self._store.close()

    def _record(self, asset_id: str) -> VectorRecord:
        self._own()
        if not isinstance(asset_id, str):
            raise UsageError(f"A picture is named by its id, not by a {type(asset_id).__name__}.")
        owner, _, digest = asset_id.rpartition("/")
        if owner not in {"", self._name}:
            raise UsageError(f"'{asset_id[:150]}' is no picture of the knowledge base '{self._name}'.")
        if not _PREFIX.fullmatch(digest):
            raise UsageError(
                f"'{asset_id[:150]}' is no id of a picture: it is '{self._name}/' and a SHA-256, or 8 or more of its first digits."
            )
        if len(digest) == 64:
            found = list(self._store.get([f"{self._name}/{digest}"]))
        else:
            key = f"{self._name}/{digest}"
            found = [record for record in self._store.scan() if record.key.startswith(key)]
        if not found:
            raise NotFoundError(
                f"There is no picture '{asset_id[:150]}' in the knowledge base '{self._name}'.",
                hint=f"vrag search WORDS --kb {self._name}",
            )
        if len(found) > 1:
            raise UsageError(f"'{asset_id[:150]}' begins the ids of {len(found)} pictures; give more digits.")
        return found[0]

    def _own(self, *, claim: bool = False) -> None:
        if not self._owned:
            self._owned = check_owner(self._name, store=self._store, storage=self._storage, claim=claim)


def _check_search(top_k: int, condition: Filter | None) -> None:
    if top_k < 1:
        raise UsageError(f"A search gives at least 1 hit, not {top_k}.")
    if condition is not None:
        check_filter(condition)
