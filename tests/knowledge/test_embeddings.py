"""Vectors are bought once: what is kept, for whom, what it saves, and what becomes of it when a picture is deleted."""

from io import BytesIO

import numpy as np
import pytest

from vrag.backends.local.indexes import LocalIndexes
from vrag.backends.local.storage import FolderStorage
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.errors import BackendError
from vrag.knowledge.embeddings import Embeddings, Questions
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.knowledge.reindex import reindex, reindex_estimate
from vrag.knowledge.sources import SourcePicture
from vrag.testing import FAKE_SPACE, FakeCaptioner, FakeClock, FakeEmbedder, FakeStorage, FakeVectorStore
from vrag.values.vectors import EmbeddingSpace, Item

OTHER = EmbeddingSpace(model="other", revision="1", dimension=32, preprocessing="x")


class TextEmbedder(FakeEmbedder):
    modalities = frozenset({"text"})


def approve(_):
    return True


def pictures(jpeg, count):
    return [SourcePicture.from_bytes(f"{n}.jpg", jpeg(n), caption=f"dog number {n}") for n in range(count)]


def kept(storage):
    return list(storage.list("embeddings/"))


@pytest.mark.parametrize("kind", [FakeEmbedder, TextEmbedder])
def test_a_picture_that_was_lost_from_the_index_is_not_paid_again(jpeg, fake_kb, kind):
    storage, embedder = FakeStorage(), kind(usd_micros=20)
    first = fake_kb(storage=storage, embedder=embedder)
    first.ingest(pictures(jpeg, 5), approve_cost=approve)
    assert (len(embedder.calls), len(kept(storage))) == (5, 5)
    again = fake_kb(storage=storage, embedder=embedder)
    estimate = again.estimate_ingest(pictures(jpeg, 5))
    assert (estimate.embeddings, estimate.usd_micros) == (0, 0)
    assert again.ingest(pictures(jpeg, 5)).new == 5  # nothing to approve
    assert len(embedder.calls) == 5
    for one, other in zip(first._store.scan(), again._store.scan(), strict=True):
        assert np.array_equal(one.vector, other.vector)


def test_what_was_paid_before_the_index_failed_is_not_paid_again(jpeg, fake_kb):
    storage, embedder, store = FakeStorage(), TextEmbedder(usd_micros=20), FakeVectorStore()
    captioner = FakeCaptioner(usd_micros=1000)
    kb = fake_kb(storage=storage, embedder=embedder, store=store)
    source = [SourcePicture.from_bytes(f"IMG_{n}.jpg", jpeg(n)) for n in range(6)]
    store.faults.on("upsert", error=BackendError("the index is down"))
    with pytest.raises(BackendError):
        kb.ingest(source, captioner=captioner, approve_cost=approve)
    assert (len(captioner.calls), len(embedder.calls)) == (6, 6)
    assert kb.estimate_ingest(source, captioner=captioner).usd_micros == 0
    report = kb.ingest(source, captioner=captioner, approve_cost=approve)
    assert (report.new, report.captioned) == (6, 6)
    assert (len(captioner.calls), len(embedder.calls)) == (6, 6)


def test_what_costs_nothing_is_not_kept(jpeg, fake_kb):
    storage = FakeStorage()
    fake_kb(storage=storage, embedder=FakeEmbedder()).ingest(pictures(jpeg, 2))
    assert kept(storage) == []


def test_another_text_or_another_space_is_another_vector():
    storage = FakeStorage()
    one, other = (Embeddings(TextEmbedder(usd_micros=1, space=space), storage) for space in (FAKE_SPACE, OTHER))
    dog, cat = (Item(kind="text", text=text) for text in ("a dog", "a cat"))
    (vector,) = one.of([("a" * 64, dog)], None)
    assert np.array_equal(one.known("a" * 64, dog), vector)
    assert one.known("a" * 64, cat) is None
    assert one.known("b" * 64, dog) is None
    assert other.known("a" * 64, dog) is None
    assert other.of([("a" * 64, dog)], None)[0].shape == (32,)


@pytest.mark.parametrize("damage", [b"", b"\0" * 256, b"\xff" * 256, b"\0" * 300])
def test_a_damaged_vector_is_bought_anew_once(damage):
    storage, embedder = FakeStorage(), TextEmbedder(usd_micros=1)
    embeddings, asked = Embeddings(embedder, storage), [("a" * 64, Item(kind="text", text="a dog"))]
    (vector,) = embeddings.of(asked, None)
    (name,) = kept(storage)
    storage.delete(name)
    storage.put_named(name, BytesIO(damage))
    for _ in range(2):
        assert np.array_equal(embeddings.of(asked, None)[0], vector)
    assert len(embedder.calls) == 2


def test_deleting_a_picture_deletes_what_models_said_of_it(jpeg, fake_kb):
    storage, embedder = FakeStorage(), TextEmbedder(usd_micros=20)
    kb = fake_kb(storage=storage, embedder=embedder)
    captioner = FakeCaptioner(usd_micros=1000)
    source = [SourcePicture.from_bytes(f"IMG_{n}.jpg", jpeg(n)) for n in range(3)]
    kb.ingest(source, captioner=captioner, approve_cost=approve)
    # Under an earlier caption too.
    kb.ingest([SourcePicture.from_bytes("IMG_0.jpg", jpeg(0), caption="A told one")], approve_cost=approve)
    gone = next(asset for asset in kb.assets() if asset.caption == "A told one")
    digest = gone.original.sha256
    about = [name for name in storage.list() if digest in name]
    assert [name.partition("/")[0] for name in about] == ["captions", "embeddings", "embeddings"]
    kb.revoke(gone.id, by="ann", reason="withdrawn")
    kb.erase_media(gone.id, by="ann", reason="asked to")
    assert {name.partition("/")[0] for name in storage.list() if digest in name} == {"erased", "reviews"}
    assert len([name for name in storage.list() if name.startswith(("captions/", "embeddings/"))]) == 4


def test_reindexing_for_an_embedder_of_before_costs_nothing(tmp_path, jpeg):
    storage, paid = FolderStorage(tmp_path / "media"), FakeEmbedder(usd_micros=10)
    store = LocalVectorStore(tmp_path / "index", paid.space)
    kb = KnowledgeBase("brand", store=store, storage=storage, embedder=paid, clock=FakeClock())
    kb.ingest(pictures(jpeg, 4), approve_cost=approve)
    kb.close()
    where = {"indexes": LocalIndexes(tmp_path / "index"), "storage": storage}
    other = FakeEmbedder(space=OTHER, usd_micros=10)
    assert reindex_estimate("brand", embedder=other, **where).usd_micros == 40
    assert reindex("brand", embedder=other, approve_cost=approve, **where).embedded == 4
    assert reindex_estimate("brand", embedder=paid, **where).usd_micros == 0
    report = reindex("brand", embedder=paid, **where)
    assert (report.switched, report.pictures, report.embedded) == (True, 4, 0)
    assert len(paid.calls) == 4


def test_a_question_that_was_asked_lately_is_not_bought_again(jpeg, fake_kb):
    embedder = FakeEmbedder(usd_micros=20)
    kb = fake_kb(embedder=embedder)
    kb.ingest(pictures(jpeg, 2), approve_by="ann", approve_cost=approve)
    before = len(embedder.calls)
    answers = [kb.search("a brown dog") for _ in range(3)]
    assert len(embedder.calls) == before + 1
    assert answers[0] == answers[1] == answers[2]
    kb.search("a red dog")  # its subject was asked before
    assert [item.text for item in embedder.calls[-1].arguments["items"]] == ["a red dog"]


def test_few_questions_and_no_endless_ones_are_remembered():
    embedder = FakeEmbedder()
    questions = Questions("brand", embedder)
    for number in range(400):
        questions.vectors([f"dog {number}"])
    assert len(questions) == 256
    questions.vectors(["dog 399", "dog 200"])
    assert len(embedder.calls) == 400
    one, same, new = questions.vectors(["dog 0", "dog 0", "x" * 5000])
    assert one is same
    assert new.shape == one.shape
    assert len(embedder.calls[-1].arguments["items"]) == 2
    assert len(questions) == 256
    questions.vectors(["x" * 5000])
    assert len(embedder.calls) == 402
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 1
