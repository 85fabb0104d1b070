"""How a knowledge base learns what a good answer is, when it learns it anew, and what it does before."""

import json
from datetime import timedelta

import pytest

from vrag.backends.local.storage import FolderStorage
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.knowledge.calibration import FEWEST_PICTURES, MODELS, Calibrator, bank, calibrate, known_model
from vrag.knowledge.rows import record_of
from vrag.knowledge.sources import SourcePicture
from vrag.media.ref import MediaRef
from vrag.testing import FakeClock, FakeEmbedder, FakeStorage, FakeVectorStore
from vrag.values.assets import Asset, asset_id
from vrag.values.vectors import Item

COLOURS = ("red", "blue", "green", "white", "black", "brown", "grey", "yellow")
THINGS = ("dog", "puppy", "spaniel", "terrier", "hound", "poodle", "retriever", "collie")
PLACES = ("on grass", "in snow", "by a fence", "on a sofa")


def captions(count):
    return [f"a {COLOURS[n % 8]} {THINGS[n // 8 % 8]} {PLACES[n // 64 % 4]}, number {n}" for n in range(count)]


def fill(store, embedder, count, start=0, at="2020-01-01T00:00:00.000000Z"):
    texts = captions(start + count)[start:]
    vectors = embedder.embed([Item(kind="text", text=text) for text in texts], "index")
    rows = []
    for number, (text, vector) in enumerate(zip(texts, vectors, strict=True), start=start):
        digest = f"{number:064x}"
        original = MediaRef(sha256=digest, media_type="image/jpeg", size_bytes=1, width_px=10, height_px=10)
        asset = Asset(
            id=asset_id("dogs", digest),
            knowledge_base="dogs",
            original=original,
            file_name="a",
            caption=text,
            ingested_at=at,
        )
        rows.append(record_of(asset, vector, "approved"))
    store.upsert(rows)


@pytest.fixture
def store(tmp_path, wordllama):
    store = LocalVectorStore(tmp_path / "index", wordllama.space)
    yield store
    store.close()


def test_the_bank_is_large_mixed_and_clean():
    assert len(bank()) >= 200
    assert len(set(bank())) == len(bank())
    assert sum(len(text.split()) > 5 for text in bank()) >= 50


def test_a_library_below_fifty_is_not_calibrated_and_says_so(tmp_path, local_kb, jpeg):
    kb = local_kb(tmp_path)
    kb.ingest(
        [SourcePicture.from_bytes(f"{n}.jpg", jpeg(n), caption=c) for n, c in enumerate(captions(14))], approve_by="ann"
    )
    assert kb.calibrate() is None
    settings = kb.search("red dog").settings
    assert settings["thresholds"] == "prior of the embedding model: fewer than 50 pictures"
    assert settings["needed"] == MODELS["wordllama"].thresholds.needed_for(2, known=0.5)


def test_larger_libraries_ask_for_more_and_keep_what_they_learnt(store, wordllama):
    storage, clock = FakeStorage(), FakeClock()
    fill(store, wordllama, FEWEST_PICTURES - 1)
    assert Calibrator(storage, clock).current(store, wordllama) is None
    fill(store, wordllama, 1, start=FEWEST_PICTURES - 1)
    first = Calibrator(storage, clock).current(store, wordllama)
    assert first.pictures == FEWEST_PICTURES
    assert 100 <= first.queries <= len(bank())
    assert list(storage.list("calibration/")) == ["calibration/000000.json"]
    # Another process finds it; a few more pictures change nothing.
    assert Calibrator(storage, clock).current(store, wordllama) == first
    fill(store, wordllama, 5, start=FEWEST_PICTURES, at="2030-01-01T00:00:00.000000Z")
    assert Calibrator(storage, clock).current(store, wordllama) == first
    # A tenth more does.
    fill(store, wordllama, 145, start=FEWEST_PICTURES + 5, at="2030-01-01T00:00:00.000000Z")
    clock.advance(timedelta(days=1).total_seconds())
    second = Calibrator(storage, clock).current(store, wordllama)
    assert second.pictures == 200
    assert second.at > first.at
    assert len(list(storage.list("calibration/"))) == 2
    with storage.open("calibration/000001.json") as stream:
        assert json.load(stream)["pictures"] == 200


def test_a_model_that_nobody_measured_learns_from_the_first_picture_on():
    embedder = FakeEmbedder()
    store, calibrator = FakeVectorStore(embedder.space), Calibrator(FakeStorage(), FakeClock())
    assert calibrator.current(store, embedder) is None
    for count in (1, 2):
        fill(store, embedder, 1, start=count, at="2030-01-01T00:00:00.000000Z")
        assert calibrator.current(store, embedder).pictures == count


def test_pictures_that_came_and_went_count_though_their_number_is_the_same(store, wordllama):
    storage, clock = FakeStorage(), FakeClock()
    fill(store, wordllama, 60)
    first = Calibrator(storage, clock).current(store, wordllama)
    store.delete([row.key for row in store.scan()][:30])
    fill(store, wordllama, 30, start=100, at="2030-01-01T00:00:00.000000Z")
    assert store.count() == 60
    clock.advance(60)
    assert Calibrator(storage, clock).current(store, wordllama).at > first.at


def test_queries_whose_subject_the_library_has_are_left_out(store, wordllama):
    fill(store, wordllama, 60)
    before = calibrate(store, wordllama, "now", 60)
    asked = [text for text in bank() if "volcano" in text]
    assert asked
    original = MediaRef(sha256="f" * 64, media_type="image/jpeg", size_bytes=1)
    asset = Asset(
        id=asset_id("dogs", "f" * 64),
        knowledge_base="dogs",
        original=original,
        file_name="v",
        caption="a volcano",
        ingested_at="x",
    )
    store.upsert([record_of(asset, wordllama.embed([Item(kind="text", text="a volcano")], "index")[0], "approved")])
    assert calibrate(store, wordllama, "now", 61).queries < before.queries


def test_an_embedder_that_costs_money_is_asked_only_on_demand(tmp_path):
    paid = FakeEmbedder(usd_micros=20)
    store = FakeVectorStore(paid.space)
    fill(store, paid, 60)
    sent = len(paid.calls)
    calibrator = Calibrator(FakeStorage(), FakeClock())
    assert calibrator.current(store, paid) is None
    assert len(paid.calls) == sent
    made = calibrator.current(store, paid, spend=True)
    assert made is not None
    assert len(paid.calls) == sent + 1
    assert calibrator.current(store, paid) == made
    assert len(paid.calls) == sent + 1


def test_another_embedder_or_a_damaged_document_is_calibrated_anew(store, wordllama, tmp_path):
    storage = FolderStorage(tmp_path / "storage")
    fill(store, wordllama, 60)
    first = Calibrator(storage, FakeClock()).current(store, wordllama)
    storage.delete("calibration/000000.json")
    from io import BytesIO

    storage.put_named("calibration/000000.json", BytesIO(b'{"format": 1, "key": []'))
    again = Calibrator(storage, FakeClock()).current(store, wordllama)
    assert again.thresholds == first.thresholds
    assert list(storage.list("calibration/")) == ["calibration/000000.json", "calibration/000001.json"]


def test_limits_of_a_model_are_known_before_it_is_used(wordllama):
    assert "English" in known_model(wordllama.space.model).limits
    assert known_model("something-else") is None


def test_a_calibrated_library_refuses_what_it_has_not_and_answers_what_it_has(store, wordllama, tmp_path):
    from vrag.knowledge.knowledge_base import KnowledgeBase

    fill(store, wordllama, 200)
    kb = KnowledgeBase("dogs", store=store, storage=FakeStorage(), embedder=wordllama, clock=FakeClock())
    everything = frozenset({"proposed", "approved"})
    answered = kb.search("red poodle in the snow", states=everything)
    assert answered.hits
    assert answered.settings["thresholds"].startswith("learnt from 200 pictures and ")
    for query in ("red shoes", "a violin on a table", "green tea", "snow leopard", "sofa cushion in yellow"):
        assert kb.search(query, states=everything).refusal, query


def test_the_words_that_a_library_has_bring_no_query_without_its_subject_nearer(store, wordllama):
    from vrag.knowledge.knowledge_base import KnowledgeBase

    fill(store, wordllama, 200)
    kb = KnowledgeBase("dogs", store=store, storage=FakeStorage(), embedder=wordllama, clock=FakeClock())
    everything = frozenset({"proposed", "approved"})
    some, none = (kb.search(text, states=everything) for text in ("red camel in the snow", "striped camel in the rain"))
    weights = MODELS["wordllama"].weights
    assert (some.settings["words_known"], none.settings["words_known"]) == (pytest.approx(2 / 3), 0)
    more = some.settings["needed"] - none.settings["needed"]
    assert more == pytest.approx(weights.needed_for_known * 2 / 3)
    # What is needed is what the refusal says, and the record has the numbers without the words.
    assert f"needs {some.settings['needed']:.2f}" in some.refusal.reasons[0]
    assert some.candidates[0].excluded.endswith(f"needs {some.settings['needed']:.2f}")
    assert none.refusal
