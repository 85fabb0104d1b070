"""Captions that are bought, look-alikes, sources that change, two ingests at once, progress, overlap."""

import io
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from vrag.backends.local.storage import FolderStorage
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.errors import BackendError, UsageError
from vrag.knowledge.duplicates import Looks
from vrag.knowledge.report import paced
from vrag.knowledge.sources import FolderSource, ManifestSource, SourcePicture
from vrag.knowledge.stages import Calls, Room, Stages
from vrag.media.fingerprint import fingerprint
from vrag.media.ref import sha256_hex
from vrag.testing import FakeCaptioner, FakeClock, FakeEmbedder, FakeStorage, FakeVectorStore
from vrag.values.assets import CaptionSource, Rights


def noise(seed, size=(96, 96), quality=90):
    places = np.random.default_rng(seed).integers(0, 256, (9, 10, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(places).resize((400, 400), Image.Resampling.BICUBIC).resize(size).save(out, "JPEG", quality=quality)
    return out.getvalue()


class TextEmbedder(FakeEmbedder):
    modalities = frozenset({"text"})


def test_nothing_is_bought_before_it_was_estimated_and_approved(fake_kb):
    captioner, embedder = FakeCaptioner(usd_micros=2000), TextEmbedder(usd_micros=30)
    kb = fake_kb(embedder=embedder, store=FakeVectorStore(embedder.space))
    source = [
        SourcePicture.from_bytes("IMG_1.jpg", noise(1)),
        SourcePicture.from_bytes("red-shoes.jpg", noise(2)),
        SourcePicture.from_bytes("told.jpg", noise(3), caption="A told one"),
        SourcePicture.from_bytes("IMG_1-copy.jpg", noise(1)),
        SourcePicture.from_bytes("broken.jpg", noise(4)[:100]),
    ]
    estimate = kb.estimate_ingest(source, captioner=captioner)
    assert (estimate.pictures, estimate.captions, estimate.embeddings, estimate.usd_micros) == (3, 2, 3, 4090)
    assert "$0.00" in str(estimate)
    with pytest.raises(UsageError, match="approve"):
        kb.ingest(source, captioner=captioner)
    with pytest.raises(UsageError, match="not approved"):
        kb.ingest(source, captioner=captioner, approve_cost=lambda _: False)
    with pytest.raises(UsageError, match="only once"):
        kb.ingest(iter(source), captioner=captioner, approve_cost=lambda _: True)
    assert not captioner.calls
    assert not embedder.calls
    assert kb.count() == 0

    shown = []
    report = kb.ingest(source, captioner=captioner, approve_cost=lambda one: shown.append(one) or True)
    assert shown == [estimate]
    assert (report.new, report.captioned, len(report.duplicates)) == (3, 2, 1)
    assert (len(captioner.calls), len(embedder.calls)) == (2, 3)
    assert {asset.file_name: asset.caption_source for asset in kb.assets()} == {
        "IMG_1.jpg": CaptionSource.CAPTIONER,
        "red-shoes.jpg": CaptionSource.CAPTIONER,
        "told.jpg": CaptionSource.MANIFEST,
    }
    # Nothing is left to buy, so nobody is asked.
    assert kb.ingest(source, captioner=captioner).unchanged == 3
    assert (len(captioner.calls), len(embedder.calls)) == (2, 3)


def test_a_caption_is_paid_once_also_for_another_index_and_a_refusal_is_kept(fake_kb):
    data = [noise(seed) for seed in range(3)]
    captioner = FakeCaptioner(refuse={sha256_hex(data[0])}, usd_micros=None)
    storage = FakeStorage()
    source = [SourcePicture.from_bytes(f"IMG_{n}.jpg", one) for n, one in enumerate(data)]
    first = fake_kb(storage=storage).ingest(
        source, captioner=captioner, approve_cost=lambda one: one.usd_micros is None
    )
    assert (first.captioned, first.uncaptioned) == (2, 1)
    assert [(one.name, one.code) for one in first.refused] == [("IMG_0.jpg", "caption_refused")]
    asked = len(captioner.calls)
    again = fake_kb(storage=storage).ingest(source, captioner=captioner)
    assert (again.new, again.captioned, len(again.refused)) == (3, 2, 1)
    assert len(captioner.calls) == asked


def test_a_captioner_that_fails_loses_no_caption_that_was_paid(fake_kb):
    captioner = FakeCaptioner()
    captioner.faults.on("caption", error=BackendError("down"), after=5, times=None)
    kb = fake_kb()
    source = [SourcePicture.from_bytes(f"IMG_{n}.jpg", noise(n)) for n in range(12)]
    with pytest.raises(BackendError):
        kb.ingest(source, captioner=captioner, in_flight=2)
    captioner = FakeCaptioner()
    assert kb.ingest(source, captioner=captioner).new == 12
    assert len(captioner.calls) == 7


def test_a_cut_off_caption_ends_with_a_whole_word(fake_kb):
    kb = fake_kb()
    kb.ingest([SourcePicture.from_bytes("IMG_1.jpg", noise(1))], captioner=FakeCaptioner(max_chars=12))
    assert [asset.caption for asset in kb.assets()] == ["A square"]


@pytest.mark.parametrize("mode", ["report", "fold"])
def test_look_alikes_are_reported_or_folded(fake_kb, mode):
    storage = FakeStorage()
    kb = fake_kb(storage=storage)
    kb.ingest([SourcePicture.from_bytes("first.jpg", noise(1))])
    source = [
        SourcePicture.from_bytes("small-copy.jpg", noise(1, size=(70, 70), quality=50)),
        SourcePicture.from_bytes("other.jpg", noise(2)),
        SourcePicture.from_bytes("other-copy.jpg", noise(2, quality=40)),
    ]
    report = kb.ingest(source, near_duplicates=mode)
    folded = mode == "fold"
    assert [(one.name, one.like, one.folded) for one in report.near_duplicates] == [
        ("small-copy.jpg", "first.jpg", folded),
        ("other-copy.jpg", "other.jpg", folded),
    ]
    assert report.new == (1 if folded else 3)
    assert kb.count() == storage.object_count == (2 if folded else 4)
    assert kb.ingest(source, near_duplicates=mode).new == 0
    assert json.dumps(report.to_json())
    with pytest.raises(UsageError, match="report"):
        kb.ingest([], near_duplicates="maybe")


def test_the_search_for_look_alikes_is_exact():
    generator = np.random.default_rng(3)
    looks, all_bits = Looks(), []
    for number in range(3000):
        bits = int(generator.integers(0, 2**63)) if number % 3 else all_bits[-1] ^ (1 << number % 60) if all_bits else 5
        all_bits.append(bits)
        looks.add(f"{bits:016x}", f"{number * 256:064x}")
    for number in range(0, 3000, 7):
        near = [
            (other, (bits ^ all_bits[number]).bit_count())
            for other, bits in enumerate(all_bits)
            if other != number and (bits ^ all_bits[number]).bit_count() <= 6
        ]
        found = looks.nearest(f"{all_bits[number]:016x}", f"{number * 256:064x}")
        best = min(near, key=lambda one: one[1], default=None)
        assert found == (None if best is None else (f"{best[0] * 256:064x}", best[1]))
    looks.close()
    assert fingerprint(Image.new("RGB", (100, 100), "white")) is None


def test_a_folder_that_changes_renames_vanishes_and_is_pruned_only_when_it_is_whole(tmp_path, fake_kb):
    folder, other = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    other.mkdir()
    for name, seed in (("dog", 1), ("cat", 2), ("bird", 3)):
        (folder / f"{name}.jpg").write_bytes(noise(seed))
    (other / "cat.jpg").write_bytes(noise(2))
    kb = fake_kb()
    kb.ingest(folder, approve_by="ann")
    kb.ingest(other)
    (folder / "dog.jpg").rename(folder / "brown-dog.jpg")
    (folder / "bird.jpg").unlink()
    (folder / "cat.jpg").unlink()
    report = kb.ingest(folder)
    assert [(one.name, one.was) for one in report.renamed] == [("brown-dog.jpg", "dog.jpg")]
    assert [(one.name, one.pruned) for one in sorted(report.vanished, key=lambda one: one.name)] == [
        ("bird.jpg", False),
        ("cat.jpg", False),
    ]
    assert kb.count() == 3

    (folder / "bad.jpg").write_bytes(noise(5))
    (folder / "bad.json").write_text("{")
    kept = kb.ingest(folder, prune=True)
    assert not any(one.pruned for one in kept.vanished)
    assert "Nothing was pruned" in str(kept)
    (folder / "bad.json").unlink()
    (folder / "bad.jpg").unlink()
    bird = next(asset for asset in kb.assets() if asset.file_name == "bird.jpg")
    assert sum(one.pruned for one in kb.ingest(folder, prune=True).vanished) == 2
    # The cat is in the other folder too, so it stays; the bytes and the review of the bird stay.
    assert sorted(asset.file_name for asset in kb.assets()) == ["brown-dog.jpg", "cat.jpg"]
    with kb.open(bird.original) as stream:
        assert stream.read() == noise(3)
    kb.ingest([SourcePicture.from_bytes("bird.jpg", noise(3))])
    assert kb.review_of(bird.id).by == "ann"
    assert not kb.ingest(folder, prune=True).vanished


def test_columns_of_a_manifest_mean_what_the_caller_says(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(noise(1))
    (tmp_path / "liste.csv").write_text(
        "Datei,Beschreibung,Caption,Rechte\na.jpg,Rote Schuhe,x,Haus\n", encoding="utf-8"
    )
    columns = {"Datei": "file", "Beschreibung": "caption", "rechte": "holder"}
    (picture,) = ManifestSource(tmp_path / "liste.csv", columns=columns)
    assert (picture.caption, picture.rights, picture.metadata) == (
        "Rote Schuhe",
        Rights(holder="Haus"),
        {"Caption": "x"},
    )
    with pytest.raises(UsageError, match="caption"):
        ManifestSource(tmp_path / "liste.csv", columns={"x": "colour"})


TWICE = """
import sys
from pathlib import Path
from vrag.backends.local.storage import FolderStorage
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.knowledge.knowledge_base import KnowledgeBase
from vrag.testing import FakeClock, FakeEmbedder
folder, embedder = Path(sys.argv[1]), FakeEmbedder()
kb = KnowledgeBase("brand", store=LocalVectorStore(folder / "index", embedder.space),
                   storage=FolderStorage(folder / "media"), embedder=embedder, clock=FakeClock())
print("ready", flush=True)
sys.stdin.readline()
print(kb.ingest(sys.argv[2], approve_by="ann", near_duplicates="fold").taken)
"""


def test_two_ingests_of_one_folder_at_once_give_the_index_of_one(tmp_path, fake_kb):
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(150):
        (photos / f"IMG_{seed}.jpg").write_bytes(noise(seed % 140, quality=90 if seed < 140 else 60))

    def start(folder):
        command = [sys.executable, "-c", TWICE, str(tmp_path / folder), str(photos)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        return child

    def rows(folder):
        store = LocalVectorStore(tmp_path / folder / "index", FakeEmbedder().space)
        found = [(row.key, row.text, dict(row.fields), row.payload, row.vector.tobytes()) for row in store.scan()]
        store.close()
        return found

    children = [start("two"), start("two"), start("one")]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        assert child.communicate(timeout=100)[0].strip() == "140"
    assert rows("two") == rows("one")
    assert len(list(FolderStorage(tmp_path / "two" / "media").list("reviews/"))) == 140


def test_progress_has_rate_and_time_left():
    clock, seen = FakeClock(), []
    progress = paced(seen.append, clock)
    progress(1, 10, "a.jpg")
    assert (seen[-1].rate_per_s, seen[-1].eta_s) == (None, None)
    for done in range(2, 6):
        clock.advance(2)
        progress(done, 10, "b.jpg")
    assert seen[-1].rate_per_s == pytest.approx(5 / 8)
    assert seen[-1].eta_s == pytest.approx(8)
    progress(6, None, "c.jpg")
    assert seen[-1].eta_s is None


def test_stages_overlap_keep_the_order_and_stay_bounded():
    both = threading.Barrier(2, timeout=30)
    started, lead = [], []

    def first(number):
        started.append(number)
        if number == 1:
            both.wait()
        return number

    def second(number):
        if number == 0:
            both.wait()  # only passed if the first stage is at 1 meanwhile
        return number * 10

    with Stages() as stages:
        results = stages.stage(second, stages.stage(first, range(100)), workers=3)
        for result in results:
            lead.append(len(started) - result // 10)
            if result == 500:
                break
    assert max(lead) <= 12
    assert len(started) < 70
    assert not [t for t in threading.enumerate() if t.name.startswith("vrag-")]


def test_an_error_comes_after_the_results_before_it_and_stops_all():
    def work(number):
        if number == 5:
            raise ValueError("five")
        return number

    with Stages() as stages:
        got = []
        with pytest.raises(ValueError, match="five"):
            got.extend(stages.stage(work, range(1000), workers=4))
    calls = Calls(3)
    with pytest.raises(ValueError, match="five"):
        calls.map(work, range(20))
    assert calls.map(work, [1, 2, 3]) == [1, 2, 3]
    calls.close()
    room = Room(10)
    room.take(100)  # nobody holds anything: one that is larger than the room passes alone
    room.give(100)


def test_a_source_that_raises_stops_cleanly(fake_kb):
    def source():
        yield SourcePicture.from_bytes("a.jpg", noise(1))
        raise BackendError("the list broke off")

    with pytest.raises(BackendError, match="broke off"):
        fake_kb().ingest(source())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vrag-")]
    assert FolderSource(".", only="x.jpg").source_id is None
