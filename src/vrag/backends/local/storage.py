"""Bytes in a folder: media by their digest, small documents by name, all created once and complete or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from heapq import merge
from pathlib import Path
from typing import BinaryIO, Final, cast

from typing_extensions import Buffer, override

from vrag.errors import AlreadyExistsError, BackendError, NotFoundError, UsageError, VerificationError, VRAGError
from vrag.interfaces import Storage
from vrag.media.files import publish_once, sync_folder
from vrag.media.ref import MediaRef

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed and so needs no lock against sweeping
    fcntl = None  # type: ignore[assignment]

__all__ = ["FolderStorage"]

_RETRYABLE: Final = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EIO}
_COPY_BYTES: Final = 1 << 18
_NAME: Final = re.compile(r"[A-Za-z0-9._/-]{1,512}")
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_CHUNK_CHARS: Final = 100
_SPELLED: Final = re.compile(r"[a-z0-9._+-]+")


class FolderStorage(Storage):
    """A folder with `objects/ab/abcd…` by SHA-256, `named/…` by name and `incoming/` for what is being written.

    Everything is written to a new file, brought to the disk and then given its name by a hard link, which exactly one
    writer can do; so a name holds all of its bytes or does not exist, whoever dies when. What dead writers left in
    `incoming/` is removed when a store is opened.

    Names are spelled so that they stay different on disks that ignore case and are valid on Windows: a capital `X` is
    `+x`, a folder ends in `+`, reserved words such as `con` begin with `+_`, and parts longer than 100 characters go on in
    a folder that ends in `++`. No symbolic link below the folder is followed.

    Readers need no lock. One object may be used by many threads, many processes and over a fork.

    Paths are text inside: `pathlib` keeps every part of a path in a table of the process, and tables of a hundred
    thousand digests, copied by one thread after the other as they grow, are memory that is never given back.
    """

    def __init__(self, folder: Path) -> None:
        """Use `folder`, and make it if needed."""
        with _translated("open", str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
        self._root = folder.resolve()
        self._numbers = itertools.count()
        self._sweep()

    @override
    def put(self, stream: BinaryIO, media_type: str) -> MediaRef:
        try:
            MediaRef(sha256="0" * 64, media_type=media_type, size_bytes=0)
        except (ValueError, TypeError):
            raise UsageError(f"'{media_type}' is no media type; one looks like 'image/jpeg'.") from None
        with (
            self._incoming(stream) as (temporary, sha256, size_bytes),
            _translated("put", media_type),
            suppress(FileExistsError),
        ):
            self._create(temporary, self._object(sha256))
        return MediaRef(sha256=sha256, media_type=media_type, size_bytes=size_bytes)

    @override
    def put_named(self, name: str, stream: BinaryIO) -> None:
        path = self._named(name)
        with self._incoming(stream) as (temporary, _, _), _translated("put", name):
            try:
                self._create(temporary, path)
            except FileExistsError:
                raise AlreadyExistsError(f"The name '{name}' is taken; what is stored is never changed.") from None

    @override
    def open(self, key: MediaRef | str, offset: int = 0) -> BinaryIO:
        """Open bytes for reading from `offset`; see `Storage.open`.

        The stream can seek. A read from the start is checked against the ref as it goes on, also in pieces and over
        seeks that come back; one that leaves bytes out cannot be, and neither can an `offset` above 0.
        """
        if offset < 0:
            raise UsageError(f"The offset {offset} is below 0.")
        path, shown = self._path(key)
        with _translated("open", shown):
            try:
                self._refuse_links(_above(path))
                descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR}:
                    raise NotFoundError(f"There is no '{shown}' in the storage '{self._root}'.") from None
                raise
        raw = io.FileIO(descriptor) if isinstance(key, str) or offset else _CheckedFile(descriptor, key)
        stream = io.BufferedReader(raw, _COPY_BYTES)
        if offset:
            stream.seek(offset)
        return cast("BinaryIO", stream)

    @override
    def exists(self, key: MediaRef | str) -> bool:
        path, shown = self._path(key)
        with _translated("exists", shown):
            return os.path.isfile(path) and not os.path.islink(path) and _inside(_above(path))  # noqa: PTH113, PTH114

    @override
    def list(self, prefix: str = "") -> Iterator[str]:
        # Whole parts of the prefix are folders: only what lies below them is read.
        above, slash, _ = prefix.rpartition("/")
        try:
            folder = _above(self._named(f"{above}/x")) if slash else os.path.join(self._root, "named")  # noqa: PTH118
        except UsageError:
            return  # no name begins so
        self._refuse_links(folder)
        with _translated("list", prefix):
            yield from _names(folder, above + slash, prefix)

    @override
    def delete(self, key: MediaRef | str) -> None:
        path, shown = self._path(key)
        with _translated("delete", shown), suppress(FileNotFoundError, NotADirectoryError):
            self._refuse_links(_above(path))
            os.unlink(path)  # noqa: PTH108
            sync_folder(_above(path))

    @override
    def uri(self, key: MediaRef | str) -> str:
        return Path(self._path(key)[0]).as_uri()

    def _path(self, key: MediaRef | str) -> tuple[str, str]:
        return (self._named(key), key) if isinstance(key, str) else (self._object(key.sha256), key.sha256)

    def _object(self, sha256: str) -> str:
        return os.path.join(self._root, "objects", sha256[:2], sha256)  # noqa: PTH118

    def _named(self, name: str) -> str:
        parts = name.split("/")
        if not _NAME.fullmatch(name) or any(part in {"", ".", ".."} for part in parts):
            raise UsageError(
                f"{name[:80]!a} is no name to store under: 1 to 512 of a-z A-Z 0-9 . _ - /, without empty, '.' or '..' "
                "parts."
            )
        folders = [entry for part in parts[:-1] for entry in (*_spelled(part)[:-1], _spelled(part)[-1] + "+")]
        return os.path.join(self._root, "named", *folders, *_spelled(parts[-1]))  # noqa: PTH118

    @contextmanager
    def _incoming(self, stream: BinaryIO) -> Iterator[tuple[str, str, int]]:
        """All bytes of `stream` in a new file that is on the disk, locked against sweeping, and removed at the end.

        What `stream` raises comes out as it is.
        """
        with _translated("write", "incoming"):
            path, file = self._claim()
        try:
            digest, size_bytes = hashlib.sha256(), 0
            while chunk := stream.read(_COPY_BYTES):
                digest.update(chunk)
                with _translated("write", "incoming"):
                    file.write(chunk)
                size_bytes += len(chunk)
            with _translated("write", "incoming"):
                file.flush()
                os.fsync(file.fileno())
            yield path, digest.hexdigest(), size_bytes
        finally:
            with suppress(OSError):  # a full disk may fail here again; the first error is the one to tell
                file.close()
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108

    def _claim(self) -> tuple[str, BinaryIO]:
        folder = self._root / "incoming"
        self._refuse_links(folder)
        folder.mkdir(exist_ok=True)
        for number in self._numbers:
            path = os.path.join(folder, f"{os.getpid()}-{number}.part")  # noqa: PTH118
            try:
                file = open(path, "xb")  # noqa: PTH123, SIM115
            except FileExistsError:  # of another machine or container with the same process number
                continue
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return path, file
            file.close()  # swept between its creation and its lock
        raise AssertionError  # pragma: no cover  # the numbers never end

    def _sweep(self) -> None:
        """Remove what dead writers left: files that nobody has locked. A folder that cannot be written is left alone."""
        folder = self._root / "incoming"
        for path in folder.glob("*.part") if _inside(folder) else ():
            with suppress(OSError), path.open("rb") as file:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    def _create(self, temporary: str, path: str) -> None:
        """Give the finished file its name; `FileExistsError` if there is one."""
        above = _above(path)
        self._refuse_links(above)
        new, folder = [], above
        while not os.path.exists(folder):  # noqa: PTH110
            new.append(folder)
            folder = _above(folder)
        os.makedirs(above, exist_ok=True)  # noqa: PTH103
        try:
            publish_once(temporary, path, lock=self._root / "create.lock")
        except FileExistsError:
            sync_folder(above)  # its writer may not have come to this yet, and we are about to vouch for it
            raise
        for changed in (above, *map(_above, new)):
            sync_folder(changed)

    def _refuse_links(self, folder: Path | str) -> None:
        if not _inside(folder):
            raise BackendError(
                f"'{folder}' leads through a symbolic link, and this storage follows none.",
                backend="local",
                operation="open",
                hint=f"remove the link below '{self._root}'",
            )


class _CheckedFile(io.FileIO):
    """A file that is compared with its ref while it is read."""

    def __init__(self, descriptor: int, ref: MediaRef) -> None:
        super().__init__(descriptor)
        self._ref = ref
        self._digest = hashlib.sha256()
        self._checked_bytes = 0

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        position = self.tell()
        count = super().readinto(view)
        self._check(position, view[:count], at_end=count == 0 and len(view) > 0)
        return count

    @override
    def readall(self) -> bytes:
        position = self.tell()
        data = super().readall()
        self._check(position, memoryview(data), at_end=True)
        return data

    def _check(self, position: int, data: memoryview, *, at_end: bool) -> None:
        skip = self._checked_bytes - position
        if 0 <= skip <= len(data):
            self._digest.update(data[skip:])
            self._checked_bytes = position + len(data)
        ended = at_end and position + len(data) == self._checked_bytes
        expected = self._ref.size_bytes
        wrong = self._checked_bytes > expected or (ended and self._checked_bytes < expected)
        if self._checked_bytes == expected and not wrong:
            wrong = self._digest.hexdigest() != self._ref.sha256
        if wrong:
            raise VerificationError(
                f"The stored bytes of {self._ref.sha256} are not those that were put: the file was changed or cut.",
                promise="media",
                hint="delete it from the storage and put the original again",
            )


def _above(path: str) -> str:
    return os.path.dirname(path)  # noqa: PTH120


def _inside(folder: Path | str) -> bool:
    """Whether no link was planted on the way to `folder`, which need not exist; its root was resolved."""
    return os.path.realpath(folder) == os.fspath(folder)


def _spelled(part: str) -> list[str]:
    """The file names of one part of a name: all but the last are folders."""
    chunks = [part[start : start + _CHUNK_CHARS] for start in range(0, len(part), _CHUNK_CHARS)]
    spelled = [re.sub("[A-Z]", lambda capital: "+" + capital[0].lower(), chunk) for chunk in chunks]
    spelled = [f"+_{chunk}" if _RESERVED.fullmatch(chunk) else chunk for chunk in spelled]
    last = spelled[-1] + "+-" if spelled[-1].endswith(".") else spelled[-1]  # Windows drops a dot at the end
    return [*(f"{chunk}++" for chunk in spelled[:-1]), last]


def _read_spelling(entry: str) -> str:
    """What `_spelled` made this from: a part, a part and `/` for a folder, or the beginning of a part."""
    plain, end = entry, ""
    if entry.endswith("++"):
        plain = entry[:-2]
    elif entry.endswith("+"):
        plain, end = entry[:-1], "/"
    plain = plain.removeprefix("+_").removesuffix("+-")
    return re.sub(r"\+([a-z])", lambda capital: capital[1].upper(), plain) + end


def _names(folder: str, above: str, prefix: str) -> Iterator[str]:
    """Names below `folder` in order; folders that cannot hold one with `prefix` are not entered."""
    try:
        with os.scandir(folder) as entries:
            # Only what a name could have made: a file that somebody else put here is not one of ours.
            found = [
                (above + _read_spelling(entry.name), entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if _SPELLED.fullmatch(entry.name)
                and not entry.is_symlink()
                and entry.is_dir() == entry.name.endswith("+")
            ]
    except FileNotFoundError:
        return
    # "/" sorts after "-" and ".": a long part that goes on and a folder of the same beginning are read side by side.
    for _, group in itertools.groupby(sorted(found), key=lambda entry: entry[0].removesuffix("/")):
        streams: list[Iterator[str]] = []
        for name, entry, is_folder in group:
            if not is_folder:
                streams.append(iter((name,) if name.startswith(prefix) else ()))
            elif name.startswith(prefix) or prefix.startswith(name):
                streams.append(_names(os.path.join(folder, entry), name, prefix))  # noqa: PTH118
        yield from merge(*streams)


@contextmanager
def _translated(operation: str, shown: str) -> Iterator[None]:
    try:
        yield
    except VRAGError:
        raise
    except OSError as error:
        raise BackendError(
            f"The storage could not {operation} '{shown}': {error.strerror or type(error).__name__}.",
            backend="local",
            operation=operation,
            retryable=error.errno in _RETRYABLE,
        ) from error
