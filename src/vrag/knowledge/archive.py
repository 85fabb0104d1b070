"""Files in a fixed order, as a folder or as one tar: written whole or not at all, read without trust.

A tar is read header by header with its sizes held against the file itself, so nothing is unpacked, no name is joined to
a path, and no declared size costs memory. Only plain files with the expected names, in the expected order, are taken.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Protocol, Self

from typing_extensions import Buffer, override

from vrag.errors import AlreadyExistsError, NotFoundError, UsageError, VerificationError
from vrag.media.files import publish_once, sync_folder
from vrag.media.names import shown

__all__ = ["Archive", "Staging", "check_digest", "copy_checked", "open_archive", "staging"]

_BLOCK: Final = tarfile.BLOCKSIZE
_COPY_BYTES: Final = 1 << 18
_PLAIN: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE})


class _Window(io.RawIOBase):
    """A part of an open file, with a position of its own."""

    def __init__(self, file: BinaryIO, start: int, size_bytes: int) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._at = 0
        self.size_bytes = size_bytes

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, min(len(view), self.size_bytes - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


class Archive(Protocol):
    """Files of an archive, asked for in the order in which they were written."""

    __slots__ = ()

    def file(self, name: str) -> tuple[BinaryIO, int]:
        """The next file, which must have this name, and its size in bytes; the stream can seek.

        Raises:
            UsageError: The next file is another one, no plain file, or longer than the archive.
        """
        ...

    def finish(self) -> None:
        """Raise `UsageError` if something follows that nobody asked for."""
        ...


class _Folder:
    """Only the files that are asked for are looked at; no link is followed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: BinaryIO | None = None
        self._kept: list[BinaryIO] = []

    def file(self, name: str) -> tuple[BinaryIO, int]:
        path = self._path / name
        if path.parent.is_symlink():
            raise UsageError(f"'{shown(str(path.parent))}' is a link, and none is followed.")
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            number = os.open(path, flags)
        except OSError as error:
            raise UsageError(
                f"The export '{shown(str(self._path))}' has no readable '{name}': {error.strerror or error}."
            ) from None
        stream = os.fdopen(number, "rb")
        if not stat.S_ISREG(os.fstat(number).st_mode):
            stream.close()
            raise UsageError(f"'{name}' of the export '{shown(str(self._path))}' is no plain file.")
        # The few files at the top are read side by side; of the many pictures one is open at a time.
        if "/" in name:
            if self._last is not None:
                self._last.close()
            self._last = stream
        else:
            self._kept.append(stream)
        return stream, os.fstat(number).st_size

    def finish(self) -> None:
        """Other files of the folder are not ours to judge."""

    def close(self) -> None:
        for stream in (*self._kept, *([self._last] if self._last else [])):
            stream.close()


class _Tar:
    def __init__(self, path: Path) -> None:
        self._shown = shown(str(path))
        self._file: BinaryIO = path.open("rb")
        self._size_bytes = os.fstat(self._file.fileno()).st_size
        self._next = 0

    def file(self, name: str) -> tuple[BinaryIO, int]:
        found = self._header()
        if found is None:
            raise UsageError(f"The export '{self._shown}' ends before '{name}'.")
        if found.name != name or found.type not in _PLAIN or found.size < 0:
            raise UsageError(
                f"The export '{self._shown}' has {found.name[:100]!a} where the plain file '{name}' belongs: "
                "this library did not write it.",
                hint="unpack a tar that was packed again, and import the folder",
            )
        start = self._next
        if start + found.size > self._size_bytes:
            raise UsageError(f"'{name}' is said to have {found.size} bytes, and '{self._shown}' ends before that.")
        self._next = start + -(-found.size // _BLOCK) * _BLOCK
        return io.BufferedReader(_Window(self._file, start, found.size), _COPY_BYTES), found.size

    def finish(self) -> None:
        found = self._header()
        if found is not None:
            raise UsageError(f"The export '{self._shown}' has {found.name[:100]!a} after its end.")

    def close(self) -> None:
        self._file.close()

    def _header(self) -> tarfile.TarInfo | None:
        self._file.seek(self._next)
        block = self._file.read(_BLOCK)
        if not block.strip(b"\0"):
            return None
        self._next += _BLOCK
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise UsageError(f"'{self._shown}' is no tar file, or a damaged one: {error}.") from None


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The folder or tar file at `path`.

    Raises:
        NotFoundError: Nothing is there.
        UsageError: It cannot be read.
    """
    if not path.exists():
        raise NotFoundError(f"There is no export '{shown(str(path))}'.", hint="vrag kb export")
    try:
        archive = _Folder(path) if path.is_dir() else _Tar(path)
    except OSError as error:
        raise UsageError(f"The export '{shown(str(path))}' cannot be read: {error.strerror or error}.") from None
    try:
        yield archive
    finally:
        archive.close()


def check_digest(stream: BinaryIO, name: str, sha256: str) -> None:
    """Read all of `stream` and go back to its start.

    Raises:
        VerificationError: It is not what was written.
    """
    digest = hashlib.sha256()
    while chunk := stream.read(_COPY_BYTES):
        digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise VerificationError(f"'{name}' has not the bytes that its digest names.", promise="export")
    stream.seek(0)


def copy_checked(source: BinaryIO, target: BinaryIO, *, sha256: str, size_bytes: int) -> None:
    """Copy all of `source`.

    Raises:
        VerificationError: It has not this size or digest.
    """
    digest, count = hashlib.sha256(), 0
    while chunk := source.read(_COPY_BYTES):
        digest.update(chunk)
        count += len(chunk)
        if count > size_bytes:
            break
        target.write(chunk)
    if count != size_bytes or digest.hexdigest() != sha256:
        raise VerificationError(f"The bytes stored as {sha256} are not those: nothing was exported.", promise="media")


class Staging:
    """A hidden folder beside the target, and its files in the order in which they are to be."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.folder = folder
        self._path = path
        self._tar: BinaryIO | None = None
        if path.suffix == ".tar":
            self._tar = (folder / "all.tar").open("xb")

    def begin(self, *names: str) -> Self:
        """Put these files of `folder` first; nothing for a folder, where they are already."""
        for name in names if self._tar else ():
            with (self.folder / name).open("rb") as stream:
                self._add(name, os.fstat(stream.fileno()).st_size, partial(shutil.copyfileobj, stream))
        return self

    def add(self, name: str, stream: BinaryIO, *, sha256: str, size_bytes: int) -> None:
        """Add a file with these bytes.

        Raises:
            VerificationError: `stream` has others.
        """

        def copy(out: BinaryIO) -> None:
            copy_checked(stream, out, sha256=sha256, size_bytes=size_bytes)

        if self._tar is not None:
            self._add(name, size_bytes, copy)
            return
        target = self.folder / name
        target.parent.mkdir(exist_ok=True)
        with target.open("xb") as out:
            copy(out)
            out.flush()
            os.fsync(out.fileno())

    def publish(self) -> None:
        """Give the whole its name.

        Raises:
            AlreadyExistsError: Something has it by now.
        """
        if self._tar is not None:
            self._tar.write(bytes(2 * _BLOCK))
            self._tar.flush()
            os.fsync(self._tar.fileno())
            self._tar.close()
            try:
                publish_once(self.folder / "all.tar", self._path, lock=self.folder / "lock")
            except FileExistsError:
                raise _taken(self._path) from None
        elif os.path.lexists(self._path):
            raise _taken(self._path)
        else:
            sync_folder(self.folder)
            self.folder.rename(self._path)
        sync_folder(self._path.parent)

    def close(self) -> None:
        """Remove what was not published."""
        if self._tar is not None:
            self._tar.close()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _add(self, name: str, size_bytes: int, write: Callable[[BinaryIO], object]) -> None:
        assert self._tar is not None  # both callers looked
        info = tarfile.TarInfo(name)
        info.size = size_bytes
        info.mode = 0o644
        # GNU: sizes past 8 GiB; `frombuf`, GNU tar and bsdtar read them.
        self._tar.write(info.tobuf(tarfile.GNU_FORMAT))
        write(self._tar)
        self._tar.write(bytes(-size_bytes % _BLOCK))


@contextmanager
def staging(path: Path) -> Iterator[Staging]:
    """A place to make an export that gets the name `path` only when it is whole.

    Raises:
        AlreadyExistsError: Something is at `path`, or another export is being made there.
    """
    if os.path.lexists(path):
        raise _taken(path)
    folder = path.with_name(f".{path.name[:80]}.export-part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        raise AlreadyExistsError(
            f"'{shown(str(folder))}' is there: another export is being made, or one was killed.",
            hint="remove it if no export is running",
        ) from None
    made = Staging(path, folder)
    try:
        yield made
        made.publish()
    finally:
        made.close()


def _taken(path: Path) -> AlreadyExistsError:
    return AlreadyExistsError(f"'{shown(str(path))}' exists already.", hint="export to another name")
