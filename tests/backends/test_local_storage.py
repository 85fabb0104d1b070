"""Folder storage: its contract, its names on disk, links that lead out, and what is left when a writer is killed."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrag.backends.local import storage as storage_module
from vrag.backends.local.storage import FolderStorage
from vrag.errors import AlreadyExistsError, BackendError, NotFoundError, UsageError, VerificationError
from vrag.media.ref import MediaRef
from vrag.testing.contracts import StorageContract


class TestFolderStorage(StorageContract):
    def make(self, tmp_path):
        return FolderStorage(tmp_path / "media")

    def tamper(self, backend, ref, data):
        (backend._root / "objects" / ref.sha256[:2] / ref.sha256).write_bytes(data)

    def object_count(self, backend):
        return sum(path.is_file() for path in (backend._root / "objects").rglob("*"))


@pytest.fixture
def storage(tmp_path):
    return FolderStorage(tmp_path / "media")


def put(storage, data):
    return storage.put(io.BytesIO(data), "image/png")


def files(storage):
    return sorted(path.relative_to(storage._root).as_posix() for path in storage._root.rglob("*") if path.is_file())


# names

_PART = st.text(alphabet="aAbBzZ09._-", min_size=1, max_size=8).filter(lambda part: part not in {".", ".."})
_LONG = st.integers(95, 210).map(lambda length: "aB-./0"[:3] + "x" * (length - 3))
_NAMES = (
    st.lists(
        st.one_of(
            _PART, _LONG, st.sampled_from(["con", "CON", "nul.txt", "com1", "Lpt9.x.y", "a.", "A.", "...", "con."])
        ),
        min_size=1,
        max_size=4,
    )
    .map("/".join)
    .filter(lambda name: len(name) <= 512)
)


@given(st.sets(_NAMES, max_size=25), st.text(alphabet="aAbBx./", max_size=3))
@settings(max_examples=60, deadline=None)
def test_names_come_back_in_order_and_stay_apart_where_case_is_ignored(tmp_path_factory, names, prefix):
    storage = FolderStorage(tmp_path_factory.mktemp("names"))
    for name in names:
        storage.put_named(name, io.BytesIO(name.encode()))
    assert list(storage.list()) == sorted(names)
    assert list(storage.list(prefix)) == sorted(name for name in names if name.startswith(prefix))
    for name in names:
        with storage.open(name) as stream:
            assert stream.read().decode() == name
    on_disk = [path.relative_to(storage._root).as_posix() for path in storage._root.rglob("*")]
    assert len({path.casefold() for path in on_disk}) == len(on_disk)
    for path in on_disk:
        for part in path.split("/"):
            assert len(part) <= 255
            assert not part.endswith((".", " "))
            assert part.split(".")[0] not in {"con", "nul", "prn", "aux", "com1", "lpt9"}


def test_a_long_part_and_a_folder_of_the_same_beginning_are_listed_in_order(storage):
    long = "p" * 100
    names = [long, f"{long}-x", f"{long}/a", f"{long}0", f"{long}.y", f"{long}/b/c", "p", "q" * 512]
    for name in names:
        storage.put_named(name, io.BytesIO(b""))
    assert list(storage.list()) == sorted(names)
    assert list(storage.list(long + "/")) == [f"{long}/a", f"{long}/b/c"]


def test_a_name_may_also_be_the_folder_of_another(storage):
    storage.put_named("a", io.BytesIO(b"1"))
    storage.put_named("a/b", io.BytesIO(b"2"))
    storage.put_named("A", io.BytesIO(b"3"))
    assert list(storage.list()) == ["A", "a", "a/b"]


def test_foreign_files_are_not_listed(storage):
    storage.put_named("mine", io.BytesIO(b"1"))
    for name in (".DS_Store", "Thumbs.db", "foto copy.txt"):
        (storage._root / "named" / name).write_bytes(b"x")
    (storage._root / "named" / "plainfolder").mkdir()
    assert list(storage.list()) == ["mine"]


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", "..", "a/../b", ".", "a\\b", "a\0b", "ä", "a b", "C:x", "x" * 513]
)
def test_bad_names_are_refused(storage, name):
    for use in (
        storage.open,
        storage.exists,
        storage.delete,
        storage.uri,
        lambda n: storage.put_named(n, io.BytesIO()),
    ):
        with pytest.raises(UsageError, match="no name to store under"):
            use(name)


# links


def test_planted_links_lead_nowhere(storage, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    storage.put_named("kept/a", io.BytesIO(b"a"))
    named = storage._root / "named"
    (named / "folder+").symlink_to(outside)
    (named / "file").symlink_to(outside / "secret")
    (named / "dangling").symlink_to(outside / "new")
    with pytest.raises(NotFoundError):
        storage.open("file")
    with pytest.raises(BackendError, match="symbolic link"):
        storage.open("folder/secret")
    for name in ("folder/new", "folder/deep/new"):
        with pytest.raises(BackendError, match="symbolic link"):
            storage.put_named(name, io.BytesIO(b"x"))
    with pytest.raises(BackendError, match="symbolic link"):
        storage.delete("folder/secret")
    for name in ("file", "dangling"):
        with pytest.raises(AlreadyExistsError):
            storage.put_named(name, io.BytesIO(b"x"))
    assert not storage.exists("folder/secret")
    assert not storage.exists("file")
    assert list(storage.list()) == ["kept/a"]
    assert [path.name for path in outside.iterdir()] == ["secret"]
    (storage._root / "objects").symlink_to(outside)
    with pytest.raises(BackendError, match="symbolic link"):
        put(storage, b"picture")
    assert (outside / "secret").read_bytes() == b"secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_opening_sweeps_nothing_behind_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "other.part").write_bytes(b"not ours")
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "incoming").symlink_to(outside)
    FolderStorage(tmp_path / "media")
    assert (outside / "other.part").exists()


# reading


def read_all(stream, size):
    while stream.read(size):
        pass


@given(
    st.integers(0, 3000),
    st.lists(st.one_of(st.integers(1, 700), st.tuples(st.integers(0, 3000))), max_size=8),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_a_checked_stream_is_a_file_and_finds_every_change(tmp_path_factory, size, moves, change):
    storage = FolderStorage(tmp_path_factory.mktemp("read"))
    data = np.random.default_rng(size).bytes(size)
    ref = put(storage, data)
    path = storage._root / "objects" / ref.sha256[:2] / ref.sha256
    if change:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if data else b"x")
    plain = io.BytesIO(data)

    def play():
        with storage.open(ref) as stream:
            for move in moves:
                if isinstance(move, int):
                    assert stream.read(move) == plain.read(move)
                else:
                    assert stream.seek(move[0]) == plain.seek(move[0])
                    assert stream.tell() == plain.tell()
            stream.seek(0)
            assert stream.read() == data

    if change:
        with storage.open(ref) as stream, pytest.raises(VerificationError):
            read_all(stream, 100)
    else:
        play()


@pytest.mark.parametrize("wrong", [b"", b"cut", b"a" * 1_000_000 + b"longer", b"b" * 1_000_000])
def test_cut_and_longer_files_are_told(storage, wrong):
    ref = put(storage, b"a" * 1_000_000)
    (storage._root / "objects" / ref.sha256[:2] / ref.sha256).write_bytes(wrong)
    with storage.open(ref) as stream, pytest.raises(VerificationError) as caught:
        read_all(stream, 1000)
    assert caught.value.promise == "media"


def test_pictures_open_from_it(storage):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(buffer, "PNG")
    ref = put(storage, buffer.getvalue())
    with storage.open(ref) as stream, Image.open(stream) as picture:
        picture.load()
        assert picture.size == (400, 300)


# writing


def test_bad_media_types_are_refused_before_reading(storage):
    stream = io.BytesIO(b"abc")
    with pytest.raises(UsageError, match="media type"):
        storage.put(stream, "PNG")
    assert stream.tell() == 0


def test_nothing_is_left_behind(storage):
    put(storage, b"one")
    put(storage, b"one")
    storage.put_named("n", io.BytesIO(b"two"))
    with pytest.raises(AlreadyExistsError):
        storage.put_named("n", io.BytesIO(b"two"))
    assert files(storage) == sorted(
        ["named/n", f"objects/{hashlib.sha256(b'one').hexdigest()[:2]}/{hashlib.sha256(b'one').hexdigest()}"]
    )


def test_a_disk_without_hard_links_still_creates_once(storage, monkeypatch):
    def refused(*_args, **_options):
        raise OSError(storage_module.errno.EPERM, "no links here")

    monkeypatch.setattr(storage_module.os, "link", refused)
    ref = put(storage, b"picture")
    assert put(storage, b"picture") == ref
    storage.put_named("n", io.BytesIO(b"first"))
    with pytest.raises(AlreadyExistsError):
        storage.put_named("n", io.BytesIO(b"second"))
    with storage.open("n") as stream:
        assert stream.read() == b"first"


def test_a_full_disk_is_told_and_leaves_nothing(storage, monkeypatch):
    def full(_descriptor):
        raise OSError(storage_module.errno.ENOSPC, os.strerror(storage_module.errno.ENOSPC))

    monkeypatch.setattr(storage_module.os, "fsync", full)
    with pytest.raises(BackendError, match="No space left") as caught:
        put(storage, b"picture")
    assert caught.value.retryable
    assert files(storage) == []


def test_opening_sweeps_what_the_dead_left_and_spares_the_living(storage):
    class Slow(io.BytesIO):
        def read(self, size=-1):
            (storage._root / "incoming" / "99999-0.part").write_bytes(b"of a dead writer")
            FolderStorage(storage._root)
            return super().read(size)

    ref = storage.put(Slow(b"a slow picture"), "image/png")
    with storage.open(ref) as stream:
        assert stream.read() == b"a slow picture"
    assert [path for path in files(storage) if path.startswith("incoming")] == []


_VICTIM = """
import io, sys
import numpy as np
from pathlib import Path
from vrag.backends.local.storage import FolderStorage
storage = FolderStorage(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 10**6):
    rng = np.random.default_rng(number)
    data = rng.bytes(int(rng.integers(300_000)))
    ref = storage.put(io.BytesIO(data), "image/png")
    storage.put_named(f"log/{number}", io.BytesIO(ref.sha256.encode()))
    print(number, ref.sha256, ref.size_bytes, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kill_loses_no_acknowledged_bytes(tmp_path, request):
    kills = 50 if request.config.getoption("markexpr") == "slow" else 6
    rng = np.random.default_rng(7)
    acknowledged = []
    start = 0
    for _ in range(kills):
        command = [sys.executable, "-c", _VICTIM, str(tmp_path), str(start)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
            lines = [victim.stdout.readline() for _ in range(int(rng.integers(1, 12)))]
            with pytest.raises(subprocess.TimeoutExpired):
                victim.wait(timeout=float(rng.uniform(0, 0.01)))
            victim.kill()
            lines += [line for line in victim.stdout if line.endswith("\n")]
        acknowledged += [line.split() for line in lines]
        storage = FolderStorage(Path(tmp_path))
        assert not [path for path in files(storage) if path.startswith("incoming")]
        for number, sha256, size_bytes in acknowledged:
            ref = MediaRef(sha256=sha256, media_type="image/png", size_bytes=int(size_bytes))
            with storage.open(ref) as stream:
                assert len(stream.read()) == ref.size_bytes
            with storage.open(f"log/{number}") as stream:
                assert stream.read().decode() == sha256
        for path in (storage._root / "objects").rglob("*"):
            assert path.is_dir() or hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        start = max((int(name.removeprefix("log/")) for name in storage.list("log/")), default=-1) + 1
    print(f"{kills} kills, {len(acknowledged)} acknowledged puts, none lost")
