"""A knowledge base moves whole: folder and tar, local and fakes, without an embedder; and nothing hostile comes in."""

import io
import itertools
import json
import shutil
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vrag.errors import (
    AlreadyExistsError,
    FormatVersionError,
    GateError,
    NotFoundError,
    SpaceMismatchError,
    UsageError,
    VerificationError,
    VRAGError,
)
from vrag.knowledge.sources import SourcePicture
from vrag.media.header import ImageLimits
from vrag.media.ref import sha256_hex
from vrag.testing import FAKE_SPACE, FakeEmbedder, FakeStorage, FakeVectorStore
from vrag.values.assets import ReviewState, Rights
from vrag.values.canonical import canonical_json

HEADER = "vrag-knowledge-base.json"
NUMBERS = itertools.count(1)


def fill(kb, jpeg):
    rights = Rights(licence="CC0-1.0", holder="Ann", expires_on="2030-12-31", releases=("model 7",))
    kb.ingest(
        [
            SourcePicture.from_bytes(
                "red-shoes.jpg", jpeg(1), tags=["赤い", "sale"], rights=rights, metadata={"a": [1]}
            ),
            SourcePicture.from_bytes("brown-dog.jpg", jpeg(2)),
            SourcePicture.from_bytes("IMG_1.jpg", jpeg(3)),
            SourcePicture.from_bytes("lake.jpg", jpeg(4)),
            SourcePicture.from_bytes("old-bridge.jpg", jpeg(5)),
        ],
        approve_by="ann",
    )
    by_name = {asset.file_name: asset.id for asset in kb.assets()}
    kb.review(by_name["brown-dog.jpg"], ReviewState.REJECTED, by="bob", reason="blurred")
    kb.revoke(by_name["lake.jpg"], by="zoe", reason="sold")
    kb.revoke(by_name["old-bridge.jpg"], by="zoe", reason="sold")
    kb.erase_media(by_name["old-bridge.jpg"], by="zoe", reason="asked to")
    kb.revoke_digest("f" * 64, by="zoe", reason="never again")
    return by_name


def documents(storage):
    found = {}
    for name in storage.list():
        with storage.open(name) as stream:
            found[name] = stream.read()
    return found


def everything(kb):
    """All that a knowledge base holds, to be compared."""
    rows = {row.key: row for row in kb._store.scan()}
    media = {}
    for asset in kb.assets():
        if asset.erased_at is None:
            with kb.open(asset.original) as stream:
                media[asset.id] = stream.read()
    kept = {name: data for name, data in documents(kb._storage).items() if not name.startswith("calibration/")}
    return rows, kept, media  # a calibration is learnt, not moved


def test_a_look_alike_is_folded_and_a_vanished_file_is_told_after_an_import_too(tmp_path, fake_kb):
    def photo(quality):
        out = io.BytesIO()
        places = np.random.default_rng(1).integers(0, 256, (9, 10, 3), dtype=np.uint8)
        Image.fromarray(places).resize((200, 200)).save(out, "JPEG", quality=quality)
        return out.getvalue()

    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "dog.jpg").write_bytes(photo(90))
    source = fake_kb()
    source.ingest(folder, approve_by="ann")
    source.export_to(tmp_path / "export")
    there = fake_kb()
    there.import_from(tmp_path / "export")
    again = [SourcePicture.from_bytes("dog-small.jpg", photo(60))]
    (near,) = there.ingest(again, near_duplicates="fold").near_duplicates
    assert (near.like, near.folded, there.count()) == ("dog.jpg", True, 1)
    (folder / "dog.jpg").unlink()
    (folder / "cat.jpg").write_bytes(photo(30)[:-1] + b"x")
    assert [one.name for one in there.ingest(folder).vanished] == ["dog.jpg"]


@pytest.mark.parametrize("form", ["export", "export.tar"])
@pytest.mark.parametrize("target", ["local", "fake"])
def test_there_and_back_is_the_same_and_asks_no_embedder(form, target, tmp_path, jpeg, local_kb, fake_kb):
    source = local_kb(tmp_path / "one", embedder=FakeEmbedder())
    names = fill(source, jpeg)
    seen = []
    out = source.export_to(tmp_path / form, progress=lambda *one: seen.append(one[:2]))
    assert (out.pictures, out.documents, out.vectors) == (5, 10, 4)
    assert seen[-1] == (5, 5)
    embedder = FakeEmbedder()
    there = local_kb(tmp_path / "two", embedder=embedder) if target == "local" else fake_kb(embedder=embedder)
    report = there.import_from(tmp_path / form)
    assert (report.new, report.kept, report.reviews, report.ok) == (5, 0, 9, True)
    assert embedder.calls == ()
    assert everything(there) == everything(source)
    assert there.search("shoes").hits[0].asset == source.search("shoes").hits[0].asset
    with pytest.raises(GateError, match="sold"):
        there.gate(names["lake.jpg"])
    assert there.ingest([SourcePicture.from_bytes("x.jpg", jpeg(5))], approve_by="eve").approved == 0
    # And back, into a third one; the bytes of the export are the same but for the time in its header.
    there.export_to(tmp_path / f"back-{form}")
    home = local_kb(tmp_path / "three", embedder=FakeEmbedder())
    home.import_from(tmp_path / f"back-{form}")
    assert everything(home) == everything(source)
    if form == "export":
        for name in ("assets.jsonl", "documents.jsonl", "vectors.f32"):
            assert (tmp_path / form / name).read_bytes() == (tmp_path / f"back-{form}" / name).read_bytes()
    # Once more changes nothing.
    again = home.import_from(tmp_path / form)
    assert (again.new, again.kept, again.reviews, again.ok) == (0, 5, 0, True)
    assert everything(home) == everything(source)


def test_an_export_is_whole_or_is_not_there(tmp_path, jpeg, local_kb):
    kb = local_kb(tmp_path, embedder=None)
    fill(kb, jpeg)
    for form in ("export", "export.tar"):
        kb.export_to(tmp_path / form)
        with pytest.raises(AlreadyExistsError):
            kb.export_to(tmp_path / form)
    asset = next(asset for asset in kb.assets() if asset.erased_at is None)
    path = Path(kb._storage._object(asset.original.sha256))
    good = path.read_bytes()
    before = sorted(one.name for one in tmp_path.iterdir())
    path.write_bytes(good[:-1] + b"x")
    for form in ("bad", "bad.tar"):
        with pytest.raises(VerificationError):
            kb.export_to(tmp_path / form)
    path.unlink()
    with pytest.raises(NotFoundError):
        kb.export_to(tmp_path / "bad")
    assert sorted(one.name for one in tmp_path.iterdir()) == before
    kb._storage.delete(f"reviews/{asset.original.sha256}/000000.json")
    kb._storage.put_named(f"reviews/{asset.original.sha256}/000001.json", io.BytesIO(b"{}"))
    path.write_bytes(good)
    with pytest.raises(VerificationError):
        kb.export_to(tmp_path / "bad")


def test_another_space_or_name_or_format_is_refused_with_the_remedy(tmp_path, jpeg, fake_kb):
    fill(fake_kb(embedder=FakeEmbedder()), jpeg)
    kb = fake_kb(embedder=FakeEmbedder())
    fill(kb, jpeg)
    kb.export_to(tmp_path / "export")
    with pytest.raises(SpaceMismatchError, match="fake-words") as caught:
        fake_kb().import_from(tmp_path / "export")
    assert "vrag kb reindex --kb brand" in caught.value.hint
    with pytest.raises(UsageError, match="'brand', not of 'other'"):
        fake_kb("other", embedder=FakeEmbedder()).import_from(tmp_path / "export")
    header = json.loads((tmp_path / "export" / HEADER).read_text())
    (tmp_path / "export" / HEADER).write_text(json.dumps({"format": 2, "anything": header}))
    with pytest.raises(FormatVersionError, match="format 2"):
        fake_kb(embedder=FakeEmbedder()).import_from(tmp_path / "export")
    with pytest.raises(NotFoundError):
        kb.import_from(tmp_path / "nothing")


def test_both_sides_decided_and_no_revocation_is_lost(tmp_path, jpeg, fake_kb):
    def one(state=None, **more):
        kb = fake_kb(storage=FakeStorage())
        kb.ingest([SourcePicture.from_bytes("dog.jpg", jpeg(1))])
        if state:
            kb.review(next(kb.assets()).id, state, by="ann", reason="r", **more)
        return kb

    approved, rejected, revoked = (one(state) for state in ("approved", "rejected", "revoked"))
    rejected.review(next(rejected.assets()).id, "approved", by="bob")
    for name, kb in (("approved", approved), ("rejected", rejected), ("revoked", revoked)):
        kb.export_to(tmp_path / name)
    sha = next(approved.assets()).original.sha256
    # Theirs goes on where ours ends: it is followed.
    approved.revoke(sha, by="zoe", reason="sold")
    approved.export_to(tmp_path / "approved then revoked")
    fresh = one("approved")
    assert fresh.import_from(tmp_path / "approved then revoked").reviews == 1
    assert fresh.review_of(sha).state is ReviewState.REVOKED
    # Ours goes on: nothing changes.
    assert approved.import_from(tmp_path / "approved").ok
    assert approved.review_of(sha).state is ReviewState.REVOKED
    # They contradict each other: ours holds, and a revocation of either.
    report = revoked.import_from(tmp_path / "rejected")
    assert report.conflicts == (f"brand/{sha}",)
    assert not report.ok
    assert revoked.review_of(sha).state is ReviewState.REVOKED
    report = rejected.import_from(tmp_path / "revoked")
    assert report.conflicts == (f"brand/{sha}",)
    assert rejected.review_of(sha).state is ReviewState.REVOKED
    assert rejected.review_of(sha).reason == "r"


def test_an_import_deletes_nothing_and_a_tombstone_here_stays(tmp_path, jpeg, fake_kb):
    erased, whole = fake_kb(), fake_kb()
    for kb in (erased, whole):
        kb.ingest([SourcePicture.from_bytes("dog.jpg", jpeg(1))], approve_by="ann")
    whole.export_to(tmp_path / "whole")
    asset = next(erased.assets())
    erased.revoke(asset.id, by="zoe", reason="sold")
    erased.erase_media(asset.id, by="zoe", reason="asked to")
    erased.export_to(tmp_path / "erased")
    whole.import_from(tmp_path / "erased")
    assert whole.review_of(asset.id).state is ReviewState.REVOKED
    assert whole.asset(asset.id).erased_at is None
    with whole.open(asset.original) as stream:
        assert stream.read() == jpeg(1)
    erased.import_from(tmp_path / "whole")
    assert erased.asset(asset.id).erased_at is not None
    assert not erased._storage.exists(asset.original)


def test_a_picture_that_the_limits_refuse_is_named_and_the_others_come(tmp_path, jpeg, fake_kb):
    source = fake_kb()
    source.ingest([SourcePicture.from_bytes(f"dog-{n}.jpg", jpeg(n, (80 + 40 * n, 80))) for n in range(3)])
    source.export_to(tmp_path / "export")
    target = fake_kb(limits=ImageLimits(max_pixels=100 * 80))
    report = target.import_from(tmp_path / "export")
    assert report.new == 1
    assert {one.name for one in report.rejected} == {"dog-1.jpg", "dog-2.jpg"}
    assert target._storage.object_count == 1


# -- hostile ones


@pytest.fixture
def export(tmp_path, jpeg, fake_kb):
    """A good one as a folder, and `spoilt(change)`: what an import says after a change to a copy of it."""
    kb = fake_kb(embedder=FakeEmbedder())
    fill(kb, jpeg)
    folder = tmp_path / "good"
    kb.export_to(folder)
    kb.export_to(tmp_path / "good.tar")

    def attempt(path):
        storage, store = FakeStorage(), FakeVectorStore(FAKE_SPACE)
        target = fake_kb(storage=storage, store=store, embedder=FakeEmbedder())
        with pytest.raises((UsageError, VerificationError)) as caught:
            target.import_from(path)
        assert "0x" not in str(caught.value)
        # Whatever came in before it was noticed is whole and true.
        for asset in target.assets():
            if asset.erased_at is None:
                with target.open(asset.original) as stream:
                    assert sha256_hex(stream.read()) == asset.original.sha256
        return str(caught.value), target

    def spoilt(change, *, sign=True):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        change(copy)
        if sign:  # the attacker makes the digests fit
            header = json.loads((copy / HEADER).read_text())
            for name in header["files"]:
                data = (copy / name).read_bytes()
                header["files"][name] = {"size_bytes": len(data), "sha256": sha256_hex(data)}
            (copy / HEADER).write_bytes(canonical_json(header))
        return attempt(copy)

    spoilt.folder, spoilt.tar, spoilt.attempt = folder, tmp_path / "good.tar", attempt
    return spoilt


def edited(name, work):
    def change(folder):
        lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        (folder / name).write_bytes(b"".join(canonical_json(row) + b"\n" for row in work(lines)))

    return change


def first_picture(rows, **changes):
    row = next(row for row in rows if "erased_at" not in row["asset"])
    row["asset"]["original"] |= changes.pop("original", {})
    row["asset"] |= changes
    return rows


@pytest.mark.parametrize(
    "change",
    [
        edited("assets.jsonl", lambda rows: rows[::-1]),
        edited("assets.jsonl", lambda rows: [rows[0], *rows]),
        edited("assets.jsonl", lambda rows: [[1], *rows]),
        edited("assets.jsonl", lambda rows: first_picture(rows, knowledge_base="other")),
        edited("assets.jsonl", lambda rows: first_picture(rows, id="brand/../../x")),
        edited("assets.jsonl", lambda rows: first_picture(rows, original={"sha256": "../../../etc/passwd"})),
        edited("assets.jsonl", lambda rows: first_picture(rows, original={"size_bytes": 2**50})),
        edited("assets.jsonl", lambda rows: first_picture(rows, original={"size_bytes": -1})),
        edited("assets.jsonl", lambda rows: first_picture(rows, original={"width_px": 7})),
        edited("assets.jsonl", lambda rows: first_picture(rows, original={"media_type": "image/png"})),
        edited("assets.jsonl", lambda rows: first_picture(rows, rights={"expires_on": "some day"})),
        edited("assets.jsonl", lambda rows: first_picture(rows, unknown=1)),
        edited("assets.jsonl", lambda rows: [{**row, "vector": True} for row in rows]),
        edited("assets.jsonl", lambda rows: [{**row, "vector": False} for row in rows]),
        edited("assets.jsonl", lambda rows: [{**row, "vector": "yes"} for row in rows]),
        edited("assets.jsonl", lambda rows: [{**row, "sources": "a"} for row in rows]),
        lambda folder: (folder / "assets.jsonl").write_bytes(b"[" * 500_000),
        lambda folder: (folder / "assets.jsonl").write_bytes(b'{"asset":"' + b"a" * (2 << 20)),
        lambda folder: (folder / "vectors.f32").write_bytes((folder / "vectors.f32").read_bytes()[:-4]),
        lambda folder: (folder / "vectors.f32").write_bytes(b"\xff" * (folder / "vectors.f32").stat().st_size),
        lambda folder: (folder / "vectors.f32").write_bytes(bytes((folder / "vectors.f32").stat().st_size)),
        edited("documents.jsonl", lambda rows: rows[::-1]),
        edited("documents.jsonl", lambda rows: [{**row, "name": "../" + row["name"]} for row in rows]),
        edited("documents.jsonl", lambda rows: [{**rows[0], "name": "knowledge-base.json"}]),
        edited("documents.jsonl", lambda rows: [row for row in rows if "000000" not in row["name"]]),
        edited("documents.jsonl", lambda rows: [{**row, "document": {"format": 1}} for row in rows]),
        edited("documents.jsonl", lambda rows: [{**row, "document": None} for row in rows]),
        lambda folder: (folder / "documents.jsonl").unlink() or (folder / "documents.jsonl").write_bytes(b"\0"),
        lambda folder: next((folder / "media").iterdir()).write_bytes(b"other"),
        lambda folder: next((folder / "media").iterdir()).unlink(),
    ],
    ids=lambda _: str(next(NUMBERS)),
)  # fmt: skip
def test_an_export_that_lies_is_refused(export, change):
    message, _ = export(change)
    assert len(message) < 2000


def unrevoked(rows):
    """After its revocation somebody approves the picture again: that never was."""
    revoked = next(row for row in rows if row["document"].get("review", {}).get("state") == "revoked")
    review = {**revoked["document"]["review"], "state": "approved"}
    review["sequence"] = review.get("sequence", 0) + 1
    name = revoked["name"][:-11] + f"{review['sequence']:06d}.json"
    return sorted([*rows, {"name": name, "document": {"format": 1, "review": review}}], key=lambda row: row["name"])


def test_no_revocation_is_undone_by_an_import(export):
    message, target = export(edited("documents.jsonl", unrevoked))
    assert "may not" in message or "cannot be read" in message
    assert list(target.assets()) == []


def test_a_changed_byte_anywhere_is_noticed(export):
    for name in ("assets.jsonl", "documents.jsonl", "vectors.f32"):

        def flip(folder, name=name):
            data = bytearray((folder / name).read_bytes())
            data[len(data) // 2] ^= 1
            (folder / name).write_bytes(data)

        message, _ = export(flip, sign=False)
        assert "digest" in message
    same_size = export(
        lambda folder: [path.write_bytes(bytes(path.stat().st_size)) for path in (folder / "media").iterdir()]
    )
    assert "digest" in same_size[0]


def test_links_are_not_followed(export, tmp_path):
    (tmp_path / "secret").write_text("secret")
    for name in (HEADER, "assets.jsonl", "documents.jsonl", "vectors.f32"):

        def link(folder, name=name):
            shutil.move(folder / name, tmp_path / f"moved-{name}")
            (folder / name).symlink_to(tmp_path / f"moved-{name}")

        message, _ = export(link, sign=False)
        assert "no readable" in message

    def link_pictures(folder):
        shutil.move(folder / "media", tmp_path / "media-elsewhere")
        (folder / "media").symlink_to(tmp_path / "media-elsewhere")

    assert "is a link" in export(link_pictures, sign=False)[0]


def packed(path, source, change):
    """The good tar, member by member, with `change(info, data)` giving what is written instead."""
    with tarfile.open(source) as old, tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as new:
        for member in old:
            for info, data in change(member, old.extractfile(member).read()):
                new.addfile(info, io.BytesIO(data))
    return path


def renamed(info, name, **values):
    other = tarfile.TarInfo(name)
    other.size = info.size
    for key, value in values.items():
        setattr(other, key, value)
    return other


@pytest.mark.parametrize(
    "change",
    [
        lambda info, data: [(renamed(info, "../" + info.name), data)],
        lambda info, data: [(renamed(info, "/" + info.name), data)],
        lambda info, data: [(renamed(info, "./" + info.name), data)],
        lambda info, data: [(info, data), (info, data)],
        lambda info, data: [(renamed(info, info.name, type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0), b"")],
        lambda info, data: [(renamed(info, info.name, type=tarfile.LNKTYPE, linkname="/etc/passwd", size=0), b"")],
        lambda info, data: [(renamed(info, info.name, type=tarfile.CHRTYPE, size=0), b"")],
        lambda info, data: [(renamed(info, info.name, type=tarfile.FIFOTYPE, size=0), b"")],
        lambda info, data: [(renamed(info, "dir", type=tarfile.DIRTYPE, size=0), b""), (info, data)],
        lambda info, data: [(renamed(info, "x" * 300, size=0), b""), (info, data)],
        lambda info, data: [] if info.name.startswith("media/") else [(info, data)],
        lambda info, data: [(renamed(info, info.name, size=len(data) + 5), data + b"extra")],
        lambda info, data: [(info, data), *([(renamed(info, "late", size=4), b"late")] if info.name.startswith("media") else [])],
    ],
    ids=lambda _: str(next(NUMBERS)),
)  # fmt: skip
def test_a_tar_that_lies_is_refused(export, tmp_path, change):
    export.attempt(packed(tmp_path / "bad.tar", export.tar, change))


def test_something_after_the_end_is_refused(export, tmp_path):
    with tarfile.open(export.tar) as old:
        last = old.getmembers()[-1].name
    export.attempt(
        packed(
            tmp_path / "bad.tar",
            export.tar,
            lambda info, data: [(info, data), *([(renamed(info, "more", size=1), b"x")] if info.name == last else [])],
        )
    )


@pytest.mark.parametrize("size", [10**9, 2**40, 2**62])
def test_a_declared_size_costs_no_memory(export, tmp_path, size):
    for name in (HEADER, "assets.jsonl", "vectors.f32"):
        data = bytearray(export.tar.read_bytes())
        at = next(at for at in range(0, len(data), 512) if data[at : at + 100].startswith(name.encode() + b"\0"))
        info = tarfile.TarInfo.frombuf(bytes(data[at : at + 512]), "utf-8", "strict")
        info.size = size
        data[at : at + 512] = info.tobuf(tarfile.GNU_FORMAT)
        (tmp_path / "bomb.tar").write_bytes(data)
        tracemalloc.start()
        message, _ = export.attempt(tmp_path / "bomb.tar")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "ends before that" in message
        assert peak < 8 << 20


@pytest.mark.parametrize("data", [b"", b"\0" * 2048, b"PK\x03\x04" + bytes(600), b"x" * 5000, b"\x1f\x8b" + bytes(600)])
def test_what_is_no_tar_is_refused(export, tmp_path, data):
    (tmp_path / "no.tar").write_bytes(data)
    export.attempt(tmp_path / "no.tar")


def test_every_cut_of_a_tar_is_refused(export, tmp_path):
    data = export.tar.read_bytes()
    for end in range(0, len(data) - 1024, 1999):
        (tmp_path / "cut.tar").write_bytes(data[:end])
        export.attempt(tmp_path / "cut.tar")


def test_memory_stays_flat(tmp_path, jpeg, fake_kb, local_kb):
    """A hundred times the pictures, the same memory: measured in the export and the import alone."""

    def peak(count):
        kb = local_kb(tmp_path / f"from-{count}", embedder=None)
        size = 400_000
        kb.ingest([SourcePicture.from_bytes(f"dog-{n}.jpg", jpeg(n) + bytes(size)) for n in range(count)])
        other = local_kb(tmp_path / f"to-{count}", embedder=None)
        tracemalloc.start()
        kb.export_to(tmp_path / f"{count}.tar")
        other.import_from(tmp_path / f"{count}.tar")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert other.count() == count
        return found

    small, large = peak(4), peak(100)
    assert large < small + (4 << 20)


def test_an_interrupted_import_is_ended_by_the_next(tmp_path, jpeg, fake_kb):
    source = fake_kb(embedder=FakeEmbedder())
    fill(source, jpeg)
    source.export_to(tmp_path / "export")
    storage, store = FakeStorage(), FakeVectorStore(FAKE_SPACE)
    target = fake_kb(storage=storage, store=store, embedder=FakeEmbedder())
    for what in ("put", "put_named"):
        storage.faults.on(what, error=OSError("killed"))
        with pytest.raises((OSError, VRAGError)):
            target.import_from(tmp_path / "export")
    assert target.import_from(tmp_path / "export").ok
    assert everything(target) == everything(source)
