"""Ingest: counts, running again, changes, duplicates, bad pictures, and the order of storing and acknowledging."""

import io
import json

import pytest
from PIL import Image

from vrag.errors import BackendError, UsageError
from vrag.knowledge import drafting
from vrag.knowledge.sources import SourcePicture
from vrag.media.header import ImageLimits
from vrag.testing import FakeClock, FakeEmbedder, FakeStorage, FakeVectorStore
from vrag.values.assets import CaptionSource, Rights
from vrag.values.vectors import Is

NAMES = [
    "brown-dog-on-grass",
    "dog-with-ball",
    "two-dogs-running",
    "red-tulips",
    "black-cat",
    "white-horse",
    "city-skyline-at-night",
    "mountain-lake",
    "RedShoes",
    "coffee_cup",
    "blue-bicycle_02",
    "old-lighthouse",
    "chocolate-cake",
    "hot-air-balloon",
    "sailing-boat",
]


def test_a_folder_of_large_photographs_named_by_what_they_show(tmp_path, jpeg, local_kb):
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed, name in enumerate(NAMES):
        (photos / f"{name}.jpg").write_bytes(jpeg(seed, (4000, 3000)))
    kb = local_kb(tmp_path)
    seen = []
    report = kb.ingest(photos, progress=lambda *step: seen.append(step))
    assert (report.new, report.taken, report.ok, report.partial) == (15, 15, True, False)
    assert [(done, total) for done, total, _ in seen] == [(n, 15) for n in range(1, 16)]
    assert kb.search("dog").refusal is not None  # nobody has approved anything yet
    assert kb.approve_all(by="ann") == 15
    assert kb.approve_all(by="ann") == 0

    dogs = kb.search("dog")
    assert [hit.asset.caption for hit in dogs.hits[:3]] != []
    assert {hit.asset.caption for hit in dogs.hits} == {"brown dog on grass", "dog with ball", "two dogs running"}
    assert kb.search("dogs").hits[0].asset.caption == "two dogs running"
    assert kb.search("a photo of red shoes").hits[0].asset.file_name == "RedShoes.jpg"
    assert kb.search("bicycle").hits[0].asset.caption == "blue bicycle"
    assert kb.search("violin").refusal is not None
    shoes = kb.search("red shoes").hits[0].asset
    assert (shoes.original.width_px, shoes.original.height_px, shoes.caption_source) == (4000, 3000, "file name")
    with Image.open(io.BytesIO(kb.thumbnail(shoes.id))) as small:
        assert small.size == (320, 240)
    with kb.open(shoes.original) as stream:
        assert stream.read() == (photos / "RedShoes.jpg").read_bytes()

    again = kb.ingest(photos)
    assert (again.new, again.updated, again.unchanged) == (0, 0, 15)


def test_running_again_costs_nothing_and_a_change_costs_one(tmp_path, jpeg, fake_kb, monkeypatch):
    embedder = FakeEmbedder()
    monkeypatch.setattr(FakeEmbedder, "modalities", frozenset({"text"}))
    store, clock = FakeVectorStore(), FakeClock()
    kb = fake_kb(store=store, embedder=embedder, clock=clock)
    for seed, name in enumerate(("dog", "cat", "IMG_1")):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(seed))
    report = kb.ingest(tmp_path, approve_by="ann")
    assert (report.new, report.approved, report.uncaptioned, report.uncaptioned_examples) == (3, 3, 1, ("IMG_1.jpg",))
    assert "photo.txt" in str(report)
    assert [len(call.arguments["items"]) for call in embedder.calls] == [2]
    (bare,) = (record for record in store.scan() if record.text == "")
    assert bare.vector is None

    def writes():
        return sum(call.name == "upsert" for call in store.calls)

    before = list(store.scan())
    clock.advance(1000)
    wrote = writes()
    report = kb.ingest(tmp_path, approve_by="ann")
    assert (report.unchanged, report.new, report.updated, report.approved) == (3, 0, 0, 0)
    assert list(store.scan()) == before
    assert (len(embedder.calls), writes()) == (1, wrote)

    # A caption and a tag change; nothing is decoded for them.
    monkeypatch.setattr(drafting, "load_image", None)
    (tmp_path / "IMG_1.txt").write_text("A parrot on a swing")
    (tmp_path / "cat.json").write_text('{"tags": ["pet"]}')
    report = kb.ingest(tmp_path)
    assert (report.unchanged, report.updated, report.uncaptioned) == (1, 2, 0)
    assert [item.text for item in embedder.calls[-1].arguments["items"]] == ["A parrot on a swing"]
    assert kb.count(Is(field="tags", value="pet")) == 1
    assert kb.count(Is(field="review", value="approved")) == 3
    assert {asset.ingested_at for asset in kb.assets()} == {"2026-01-01T00:00:00.000000Z"}


def test_what_a_source_does_not_state_stays(jpeg, fake_kb):
    kb = fake_kb()
    rights = Rights(licence="CC0-1.0", expires_on="2030-01-01")
    kb.ingest([SourcePicture.from_bytes("a.jpg", jpeg(1), caption="Red shoes", tags=["shoe"], rights=rights)])
    (asset,) = kb.assets()
    report = kb.ingest([SourcePicture.from_bytes("brown-boots.jpg", jpeg(1))])
    (renamed,) = kb.assets()
    assert (report.updated, renamed.file_name, renamed.id) == (1, "brown-boots.jpg", asset.id)
    assert (renamed.caption, renamed.tags, renamed.rights) == ("Red shoes", ("shoe",), rights)
    kb.ingest([SourcePicture.from_bytes("brown-boots.jpg", jpeg(1), caption="Brown boots", tags=[])])
    (changed,) = kb.assets()
    assert (changed.caption, changed.tags, changed.rights) == ("Brown boots", (), rights)


def test_the_same_bytes_under_two_names_are_one_asset_with_the_better_words(jpeg, fake_kb):
    kb = fake_kb()
    source = [
        SourcePicture.from_bytes("IMG_1.jpg", jpeg(1)),
        SourcePicture.from_bytes("red-shoes.jpg", jpeg(1)),
        SourcePicture.from_bytes("blue-hat.jpg", jpeg(1)),
        SourcePicture.from_bytes("dog.jpg", jpeg(2)),
    ]
    for turn in range(3):
        report = kb.ingest(source)
        assert (report.new, report.unchanged, report.updated) == ((2, 0, 0) if turn == 0 else (0, 2, 0))
        assert [(one.name, one.same_as) for one in report.duplicates] == [
            ("red-shoes.jpg", "IMG_1.jpg"),
            ("blue-hat.jpg", "IMG_1.jpg"),
        ]
        assert report.uncaptioned == 0
        assert sorted((asset.file_name, asset.caption, asset.caption_source) for asset in kb.assets()) == [
            ("IMG_1.jpg", "red shoes", CaptionSource.FILE_NAME),
            ("dog.jpg", "dog", CaptionSource.FILE_NAME),
        ]


def test_one_bad_file_is_named_once_with_its_reason_and_the_rest_goes_on(tmp_path, jpeg, fake_kb):
    good = jpeg(1)
    (tmp_path / "good-dog.jpg").write_bytes(good)
    (tmp_path / "cut-in-half.jpg").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"not a picture")
    (tmp_path / "big.jpg").write_bytes(jpeg(2, (400, 400)))
    (tmp_path / "script.svg").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "moving.gif").write_bytes(b"GIF89a" + b"\0" * 50)
    (tmp_path / "last-cat.jpg").write_bytes(jpeg(3))
    (tmp_path / "notes.docx").write_bytes(b"x")
    kb = fake_kb(limits=ImageLimits(max_pixels=100_000))
    report = kb.ingest(tmp_path, approve_by="ann")
    assert (report.new, report.ok, report.partial) == (2, False, True)
    assert sorted(one.name for one in report.rejected) == [
        *("big.jpg", "cut-in-half.jpg", "empty.jpg", "moving.gif", "script.svg", "text.png"),
    ]
    codes = {one.name: one.code for one in report.rejected}
    assert codes["big.jpg"] == "too_many_pixels"
    assert codes["cut-in-half.jpg"] in {"truncated", "undecodable"}
    assert [one.name for one in report.skipped] == ["notes.docx"]
    assert sorted(hit.asset.caption for hit in (*kb.search("dog").hits, *kb.search("cat").hits)) == [
        "good dog",
        "last cat",
    ]
    assert json.loads(json.dumps(report.to_json()))["rejected"][0].keys() == {"name", "code", "reason"}
    assert str(report).count("cut-in-half.jpg: ") == 1


def test_acknowledged_is_after_indexed_is_after_stored(jpeg, fake_kb):
    log = []

    class Storage(FakeStorage):
        def put(self, stream, media_type):
            ref = super().put(stream, media_type)
            log.append(("stored", ref.sha256))
            return ref

    class Store(FakeVectorStore):
        def upsert(self, records):
            receipt = super().upsert(records)
            log.extend(("indexed", record.key[-64:]) for record in records)
            return receipt

    storage = Storage()
    kb = fake_kb(store=Store(None), storage=storage)
    pictures = [SourcePicture.from_bytes(f"{n}.jpg", jpeg(n), caption=f"number {n}") for n in range(70)]
    kb.ingest(pictures, progress=lambda _done, _total, name: log.append(("told", name)))
    ids = {asset.file_name: asset.original.sha256 for asset in kb.assets()}
    assert len(ids) == 70
    for name, digest in ids.items():
        assert log.index(("stored", digest)) < log.index(("indexed", digest)) < log.index(("told", name))
    # in chunks, so that memory is bounded: the first are told before the last are stored
    assert log.index(("told", "0.jpg")) < log.index(("stored", ids["69.jpg"]))


@pytest.mark.parametrize("part", ["upsert", "embed", "put"])
def test_a_backend_that_fails_loses_nothing_that_was_told(jpeg, fake_kb, part):
    store, storage, embedder = FakeVectorStore(), FakeStorage(), FakeEmbedder()
    owner = {"upsert": store, "embed": embedder, "put": storage}[part]
    owner.faults.on(part, error=BackendError("down"), after=1 if part != "put" else 65)
    kb = fake_kb(store=store, storage=storage, embedder=embedder)
    pictures = [SourcePicture.from_bytes(f"{n}.jpg", jpeg(n), caption=f"number {n}") for n in range(70)]
    told = []
    with pytest.raises(BackendError):
        kb.ingest(pictures, progress=lambda _done, _total, name: told.append(name))
    assert len(told) == 64
    assert {asset.file_name for asset in kb.assets()} == set(told)
    report = kb.ingest(pictures)
    assert (report.unchanged, report.new, kb.count()) == (64, 6, 70)


def test_pictures_are_embedded_as_pictures_where_the_embedder_can(jpeg, fake_kb):
    embedder = FakeEmbedder()
    kb = fake_kb(embedder=embedder)
    kb.ingest([SourcePicture.from_bytes("IMG_1.jpg", jpeg(1))])
    kb.ingest([SourcePicture.from_bytes("red-shoes.jpg", jpeg(1))])
    assert [[item.kind for item in call.arguments["items"]] for call in embedder.calls] == [["image"]]


def test_metadata_that_cannot_be_kept_and_nameless_approval_are_refused(jpeg, fake_kb):
    kb = fake_kb()
    report = kb.ingest([SourcePicture.from_bytes("a.jpg", jpeg(1), caption="A", metadata={"x": float("nan")})])
    assert [one.code for one in report.rejected] == ["bad_metadata"]
    with pytest.raises(UsageError, match="who approves"):
        kb.ingest([], approve_by=" ")
    assert str(kb.ingest([])).startswith("Knowledge base 'brand': 0 pictures")
