"""Folders, manifests, sidecars; links, pipes, hostile names."""

import json
import os
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest

from vrag.errors import NotFoundError, UsageError
from vrag.knowledge import ordering
from vrag.knowledge.sources import FolderSource, ManifestSource, NotTaken, SourcePicture, open_source
from vrag.values.assets import CaptionSource, Rights


def listed(source):
    entries = list(source)
    pictures = {entry.name: entry for entry in entries if isinstance(entry, SourcePicture)}
    rest = {entry.name: entry for entry in entries if isinstance(entry, NotTaken)}
    assert len(pictures) + len(rest) == len(entries)
    return pictures, rest


def test_a_folder_is_read_in_order_without_links_out_of_it_and_hidden_files(tmp_path, jpeg):
    root, outside = tmp_path / "photos", tmp_path / "outside"
    for folder in (root / "b" / "deep", root / ".hidden", root / "__MACOSX", outside):
        folder.mkdir(parents=True)
    for path in (
        *("z.jpg", "a.JPG", "b/c.png", "b/deep/d.webp", ".secret.jpg", ".hidden/h.jpg", "__MACOSX/m.jpg"),
        *("notes.pdf", "z.txt", "a.json", ".DS_Store", "Thumbs.db", "README"),
    ):
        (root / path).write_bytes(b"{}" if path == "a.json" else b"x")
    (outside / "secret.jpg").write_bytes(b"s")
    (root / "link-in.jpg").symlink_to(root / "z.jpg")
    (root / "link-out.jpg").symlink_to(outside / "secret.jpg")
    (root / "folder-out").symlink_to(outside, target_is_directory=True)
    (root / "ring.jpg").symlink_to(root / "ring.jpg")
    (root / "gone.jpg").symlink_to(root / "nothing.jpg")

    source = open_source(root)
    pictures, rest = listed(source)
    assert list(pictures) == ["a.JPG", "gone.jpg", "link-in.jpg", "ring.jpg", "z.jpg", "b/c.png", "b/deep/d.webp"]
    assert len(source) == len(pictures)
    assert {name: (entry.code, entry.skipped) for name, entry in rest.items()} == {
        "folder-out": ("symlink", True),
        "link-out.jpg": ("symlink", True),
        "README": ("unknown_suffix", True),
        "notes.pdf": ("unknown_suffix", True),
    }
    assert pictures["z.jpg"].caption == "x"
    assert pictures["z.jpg"].caption_source is CaptionSource.SIDECAR
    for broken in ("gone.jpg", "ring.jpg"):
        with pytest.raises(OSError):
            pictures[broken].open()


def test_a_link_that_takes_the_place_of_a_picture_is_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "dog.jpg").write_bytes(b"dog")
    (tmp_path / "secret").write_bytes(b"secret")
    (picture,) = FolderSource(tmp_path / "in")
    (tmp_path / "in" / "dog.jpg").unlink()
    (tmp_path / "in" / "dog.jpg").symlink_to(tmp_path / "secret")
    with pytest.raises(PermissionError):
        picture.open()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "dog.jpg")
    (picture,) = FolderSource(tmp_path)
    with pytest.raises(PermissionError):
        picture.open()


def test_hostile_names_are_shown_safely(tmp_path):
    for name in (b"a\nb.jpg", "evil\u202egpj.jpg".encode(), b"caf\xe9.jpg", b"\x1b[31mred.jpg", b"n" * 240 + b".jpg"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    pictures, _ = listed(FolderSource(tmp_path))
    assert len(pictures) == 5
    for name, picture in pictures.items():
        assert name.isprintable()
        assert len(name) <= 210
        name.encode()
        with picture.open() as stream:
            assert stream.read() == b"x"


def test_one_file_is_a_source_and_a_missing_one_is_named(tmp_path, jpeg):
    (tmp_path / "dog.jpg").write_bytes(jpeg(1))
    (tmp_path / "cat.jpg").write_bytes(jpeg(2))
    assert [one.name for one in open_source(str(tmp_path / "dog.jpg"))] == ["dog.jpg"]
    with pytest.raises(NotFoundError, match="nowhere"):
        open_source(tmp_path / "nowhere")


def test_sidecars_carry_words_and_rights_and_a_broken_one_stops_its_picture(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a.json").write_text(
        json.dumps(
            {
                "caption": "Red\nshoes",
                "tags": "shoe; red;shoe",
                "license": "CC0-1.0",
                "expires_on": "2027-01-31",
                "shelf": 4,
            }
        )
    )
    (tmp_path / "b.jpg.json").write_text('{"description": "from an export"}')
    (tmp_path / "c.json").write_text("{broken")
    (tmp_path / "d.json").write_text('{"caption": "x", "expires_on": "2027-02-30"}')
    (tmp_path / "e.txt").write_bytes(b"\xff\xfe")
    pictures, rest = listed(FolderSource(tmp_path))
    assert pictures["a.jpg"].caption == "Red shoes"
    assert pictures["a.jpg"].tags == ("shoe", "red")
    assert pictures["a.jpg"].rights == Rights(licence="CC0-1.0", expires_on="2027-01-31")
    assert pictures["a.jpg"].metadata == {"shelf": 4}
    assert pictures["b.jpg"].caption == "from an export"
    assert {name: entry.code for name, entry in rest.items()} == dict.fromkeys(
        ("c.jpg", "d.jpg", "e.jpg"), "bad_sidecar"
    )
    assert "2027-02-30" in rest["d.jpg"].reason
    assert not any(entry.skipped for entry in rest.values())


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_manifest_lists_pictures_and_a_bad_row_never_stops_the_others(tmp_path, kind):
    (tmp_path / "m").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"s")
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "m" / name).write_bytes(b"x")
    rows = [
        {
            "File": "a.jpg",
            "Caption": "Red shoes",
            "Keywords": "shoe;red",
            "Licence": "CC0-1.0",
            "Holder": "Brand",
            "Shelf": "4",
        },
        {"File": "../secret.jpg", "Caption": "x"},
        {"File": "missing.jpg", "Caption": "x"},
        {"File": "", "Caption": "x"},
        {"File": "/etc/passwd", "Caption": "x"},
        {"File": "b.jpg", "Caption": "Über", "Expires": "soon"},
        {"File": "b.jpg", "Caption": "Blue hat"},
    ]
    path = tmp_path / "m" / f"list.{kind}"
    if kind == "csv":
        header = list(dict.fromkeys(key for row in rows for key in row))
        lines = [",".join(header), *(",".join(row.get(key, "") for key in header) for row in rows)]
        path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    else:
        broken = ["{not json", "[1]", "[" * 100_000, '{"file": "b.jpg", "caption": ["a"]}']
        path.write_text("\n".join([*map(json.dumps, rows), "", *broken]))
    source = ManifestSource(path)
    entries = list(source)
    good = [entry for entry in entries if isinstance(entry, SourcePicture)]
    assert len(source) == len(entries) == len(rows) + (4 if kind == "jsonl" else 0)
    assert [(entry.name, entry.caption) for entry in good] == [("a.jpg", "Red shoes"), ("b.jpg", "Blue hat")]
    assert good[0].tags == ("shoe", "red")
    assert good[0].rights == Rights(licence="CC0-1.0", holder="Brand")
    assert good[0].metadata == {"Shelf": "4"}
    assert {entry.code for entry in entries if isinstance(entry, NotTaken)} == {"bad_row"}
    reasons = " ".join(entry.reason for entry in entries if isinstance(entry, NotTaken))
    assert "outside the folder" in reasons
    assert "'soon'" in reasons
    assert str(tmp_path) not in reasons


def test_pictures_in_memory_and_their_day_of_expiry_is_checked_at_once():
    picture = SourcePicture.from_bytes("dog", b"bytes", caption="A dog", tags=["pet"])
    with picture.open() as stream:
        assert stream.read() == b"bytes"
    for day in ("2027-13-01", "20270101", "2027-1-1", "tomorrow", "9999-12-31", "\uff12027-01-01"):
        with pytest.raises(UsageError):
            SourcePicture.from_bytes("dog", b"x", rights=Rights(expires_on=day))


def test_a_folder_of_any_size_is_read_in_order_and_in_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(ordering, "_FEW", 100)
    names = [f"{number * 79 % 300:06d}-{'ж' * (number % 3)}.jpg" for number in range(300)]
    odd = os.fsdecode(b"\xff\xfe.jpg")
    assert list(ordering.in_order([*names[:50], odd])) == sorted([*names[:50], odd])
    assert sorted(ordering.in_order([*names, odd, *names])) == sorted([*names, odd])
    for name in names:
        (tmp_path / name).touch()
    assert [one.name for one in FolderSource(tmp_path)] == sorted(names)
    tracemalloc.start()
    try:
        many = ordering.in_order(f"{number:0200d}" for number in range(20_000))
        assert sum(one < other for one, other in pairwise(many)) == 19_999
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
