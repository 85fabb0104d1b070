"""The contract of `Storage`."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import BinaryIO, ClassVar, Final
from urllib.parse import urlsplit

from typing_extensions import override

from vrag.errors import AlreadyExistsError, NotFoundError, UsageError, VerificationError, VRAGError
from vrag.interfaces import Storage
from vrag.media.ref import MediaRef, sha256_hex
from vrag.testing.contracts.clauses import Contract, refuses

__all__ = ["StorageContract"]

_DATA: Final = bytes(range(256)) * 1000 + "end ж".encode()


class _Broken(io.RawIOBase):
    """Gives some bytes, then fails."""

    def __init__(self, data: bytes) -> None:
        self._parts = [data]

    @override
    def readable(self) -> bool:
        return True

    @override
    def read(self, size: int = -1) -> bytes:
        if self._parts and size >= 0:
            return self._parts.pop()
        raise ConnectionResetError("the sender went away")

    @override
    def readinto(self, buffer: object) -> int:
        raise ConnectionResetError("the sender went away")


class StorageContract(Contract, suite=True):
    """Hooks: `make`, `tamper`, `object_count`; `secrets` where the backend has some."""

    seam: ClassVar[type] = Storage
    secrets: ClassVar[tuple[str, ...]] = ()
    """What the backend of the test was made with and must never show: keys, tokens, passwords."""

    def tamper(self, backend: Storage, ref: MediaRef, data: bytes) -> None:
        """Change stored bytes around the interface: in the file, in the bucket."""
        raise NotImplementedError(f"{type(self).__name__} needs `tamper(self, backend, ref, data)`.")

    def object_count(self, backend: Storage) -> int:
        """How many objects lie there by digest, counted around the interface."""
        raise NotImplementedError(f"{type(self).__name__} needs `object_count(self, backend)`.")

    @override
    def sent(self, backend: Storage) -> int:
        return 0

    @override
    def held(self, backend: Storage) -> int:
        return len(list(backend.list())) + self.object_count(backend)

    @override
    def work(self, backend: Storage, number: int) -> object:
        data = f"{number} ".encode() * 5000
        ref = backend.put(io.BytesIO(data), "application/octet-stream")
        with suppress(AlreadyExistsError):
            backend.put_named(f"work/{number}/note", io.BytesIO(data[:10]))
        return (
            ref.sha256,
            self._read(backend, ref) == data,
            self._read(backend, f"work/{number}/note"),
            list(backend.list(f"work/{number}/")),
        )

    @staticmethod
    def _read(backend: Storage, key: MediaRef | str, offset: int = 0) -> bytes:
        with backend.open(key, offset) as stream:
            return stream.read()

    @staticmethod
    def _put(backend: Storage, data: bytes = _DATA) -> MediaRef:
        return backend.put(io.BytesIO(data), "application/octet-stream")

    def test_put__stores_from_where_the_stream_stands(self, backend: Storage) -> None:
        """Store all bytes of `stream` (from where it stands) under their SHA-256.

        When it fails: never seek to the start; read until the stream is empty.
        """
        stream = io.BytesIO(b"skipped" + _DATA)
        stream.seek(7)
        ref = backend.put(stream, "application/octet-stream")
        assert ref.sha256 == sha256_hex(_DATA)
        assert self._read(backend, ref) == _DATA
        empty = self._put(backend, b"")
        assert empty.sha256 == sha256_hex(b"")
        assert self._read(backend, empty) == b""

    def test_put__ref_has_digest_type_and_size(self, backend: Storage) -> None:
        """The ref has digest, media type and size in bytes; the caller adds pixels and seconds.

        When it fails: pixels and seconds stay None; the media type is the one that was given.
        """
        ref = backend.put(io.BytesIO(_DATA), "image/png")
        assert ref == MediaRef(sha256=sha256_hex(_DATA), media_type="image/png", size_bytes=len(_DATA))

    def test_put__same_bytes_once(self, backend: Storage) -> None:
        """Putting the same bytes again is no error and stores them once.

        When it fails: the digest is the key; an object that is there need not be written.
        """
        before = self.object_count(backend)
        first, second = self._put(backend), self._put(backend)
        assert first == second
        assert self.object_count(backend) == before + 1
        assert self._read(backend, second) == _DATA

    def test_put__broken_stream_leaves_nothing(self, backend: Storage) -> None:
        """A stream that raises leaves nothing behind that can be opened.

        When it fails: write to a temporary name and rename when all is there; let the stream's error rise.
        """
        before = self.object_count(backend)
        stream: BinaryIO = _Broken(b"half")  # type: ignore[assignment]  # a file by its methods
        try:
            backend.put(stream, "application/octet-stream")
        except (OSError, VRAGError):
            pass
        else:
            raise AssertionError("`put` returned, though the stream had failed.")
        half = MediaRef(sha256=sha256_hex(b"half"), media_type="application/octet-stream", size_bytes=4)
        assert not backend.exists(half)
        assert self.object_count(backend) == before

    def test_put_named__keeps_what_exists(self, backend: Storage) -> None:
        """Store all bytes under `name`; a name that exists raises `AlreadyExistsError` and keeps its bytes.

        When it fails: create exclusively (`O_EXCL`, `link`, `If-None-Match: *`), not by looking first.
        """
        stream = io.BytesIO(b"skipped" + _DATA)
        stream.seek(7)
        backend.put_named("reviews/brand/1.json", stream)
        with refuses(AlreadyExistsError, "A name that exists"):
            backend.put_named("reviews/brand/1.json", io.BytesIO(b"other"))
        assert self._read(backend, "reviews/brand/1.json") == _DATA

    def test_put_named__one_writer_wins(self, backend: Storage) -> None:
        """Of several writers of one name at once exactly one succeeds.

        When it fails: between looking and writing another writer came; create exclusively.
        """
        for attempt in range(8):
            name, start = f"race/{attempt}", Barrier(8)

            def write(number: int, name: str = name, start: Barrier = start) -> bytes | None:
                start.wait()
                data = f"{number}".encode() * 4000
                try:
                    backend.put_named(name, io.BytesIO(data))
                except AlreadyExistsError:
                    return None
                return data

            with ThreadPoolExecutor(8) as pool:
                winners = [data for data in pool.map(write, range(8)) if data is not None]
            assert len(winners) == 1, f"{len(winners)} writers of one name succeeded."
            assert self._read(backend, name) == winners[0]

    def test_put_named__refuses_other_names(self, backend: Storage) -> None:
        """A name is 1 to 512 characters of `a-z A-Z 0-9 . _ - /`, without empty, `.` or `..` parts; others raise
        `UsageError`, so no name escapes the root.

        When it fails: check with `re.fullmatch` (`$` takes a line break at the end), and each part of the path.
        """  # noqa: D205  # the sentence as it stands in the interface
        good = ("a", "a/b.c/_-", "A" * 512, "..a/b..", "...")
        bad = ("", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "a/./b", "a\n", "a b", "ж", "a\\b", "a\x00",
               "C:a", "~", "a" * 513, "%2e%2e/a", "a?b")  # fmt: skip
        for name in bad:
            with refuses(UsageError, f"The name {name!r}"):
                backend.put_named(name, io.BytesIO(b"x"))
        for name in bad:
            with refuses(UsageError, f"Opening the name {name!r}"):
                backend.open(name).close()
        assert list(backend.list()) == []
        for name in good:
            backend.put_named(name, io.BytesIO(name.encode()))
            assert self._read(backend, name) == name.encode()

    def test_open__from_offset_and_missing_is_typed(self, backend: Storage) -> None:
        """Open bytes for reading from `offset`; a missing key raises `NotFoundError`.

        When it fails: the error comes from `open`, not from the first read; an offset at the end gives no bytes.
        """
        ref = self._put(backend)
        backend.put_named("note", io.BytesIO(b"0123456789"))
        assert self._read(backend, ref, 100_000) == _DATA[100_000:]
        assert self._read(backend, ref, len(_DATA)) == b""
        assert self._read(backend, "note", 4) == b"456789"
        absent = MediaRef(sha256=sha256_hex(b"absent"), media_type="image/png", size_bytes=6)
        for key in ("absent", absent):
            with refuses(NotFoundError, "A key that is not there"):
                backend.open(key).close()

    def test_open__bytes_unchanged(self, backend: Storage) -> None:
        """The bytes come back unchanged.

        When it fails: open files in binary mode; decode no content encoding.
        """
        for data in (b"", b"\r\n\x00\x1a", _DATA, b"\x1f\x8b\x08 not gzip"):
            assert self._read(backend, self._put(backend, data)) == data
            name = f"n{sha256_hex(data)}"
            backend.put_named(name, io.BytesIO(data))
            assert self._read(backend, name) == data

    def test_open__changed_bytes_are_found(self, backend: Storage) -> None:
        """Bytes of a `MediaRef` that changed in the store raise `VerificationError` by the end of a read from the start.

        When it fails: hash while reading and compare at the end of the file; `read()` without a size ends it too.
        """
        ref = self._put(backend)
        for changed in (_DATA[:-1] + b"?", _DATA[:1000], _DATA + b"more"):
            self.tamper(backend, ref, changed)
            with refuses(VerificationError, "Reading changed bytes at once"):
                self._read(backend, ref)
            with refuses(VerificationError, "Reading changed bytes in parts"), backend.open(ref) as stream:
                while stream.read(65_536):
                    pass

    def test_exists__as_open_would_find(self, backend: Storage) -> None:
        """Whether `open` would find it.

        When it fails: digests and names are two rooms: a name never finds an object.
        """
        ref = self._put(backend)
        backend.put_named("note", io.BytesIO(b"x"))
        assert backend.exists(ref)
        assert backend.exists("note")
        assert not backend.exists("other")
        assert not backend.exists("not")
        assert not backend.exists(ref.sha256)
        assert not backend.exists(MediaRef(sha256="0" * 64, media_type="image/png", size_bytes=1))

    def test_list__names_with_the_prefix_sorted(self, backend: Storage) -> None:
        """The names that were given to `put_named` and begin with `prefix`, sorted; digests are not listed.

        When it fails: a prefix is text, not a folder: `rev` finds `reviews/1`; leave out temporary files.
        """
        self._put(backend)
        names = ["b/2", "a/1", "b/10", "b-side", "B", "b/c/d"]
        for name in names:
            backend.put_named(name, io.BytesIO(b"x"))
        assert list(backend.list()) == sorted(names)
        assert list(backend.list("b/")) == ["b/10", "b/2", "b/c/d"]
        assert list(backend.list("b")) == ["b-side", "b/10", "b/2", "b/c/d"]
        assert list(backend.list("zebra")) == []

    def test_delete__missing_is_no_error(self, backend: Storage) -> None:
        """Remove it; a missing key is no error.

        When it fails: afterwards `open` raises `NotFoundError`, and the name can be given again.
        """
        ref = self._put(backend)
        backend.put_named("note", io.BytesIO(b"x"))
        for key in (ref, "note"):
            for _ in range(2):
                backend.delete(key)
            assert not backend.exists(key)
            with refuses(NotFoundError, "A deleted key"):
                backend.open(key).close()
        assert list(backend.list()) == []
        backend.put_named("note", io.BytesIO(b"new"))
        assert self._read(backend, "note") == b"new"

    def test_uri__holds_no_secret(self, backend: Storage) -> None:
        """Where it lies, for people and records; it holds no secret and no signature.

        When it fails: give `s3://bucket/key` or `file:///…`, never a presigned URL.
        """
        ref = self._put(backend)
        backend.put_named("note", io.BytesIO(b"x"))
        places = [backend.uri(ref), backend.uri("note")]
        assert places == [backend.uri(ref), backend.uri("note")]
        assert len(set(places)) == 2
        for place in places:
            parts = urlsplit(place)
            assert parts.scheme, f"'{place}' is no URI."
            assert not parts.query, f"'{place}' has a query, where signatures are."
            assert parts.username is None, f"'{place}' names a user."
            assert not any(secret in place for secret in self.secrets), "The URI holds a secret."
