"""Files that are there whole or not at all: the one place that renames."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from vrag.errors import AlreadyExistsError

__all__ = ["sync_folder", "write_new"]


def write_new(path: Path, chunks: Iterable[bytes], *, overwrite: bool = False) -> None:
    """Write `chunks` to `path` so that a crash leaves either the whole file or none; the folder is made.

    Raises:
        AlreadyExistsError: `path` exists and `overwrite` is not set; of several writers at once exactly one succeeds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not overwrite and os.path.lexists(path):
        raise AlreadyExistsError(f"'{path}' exists already.", hint="choose another name, or say overwrite")
    number, temporary = _temporary(path)
    try:
        with os.fdopen(number, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            Path(temporary).replace(path)
        else:
            _publish_once(temporary, path)
    finally:
        if os.path.lexists(temporary):
            Path(temporary).unlink()
    sync_folder(path.parent)


def _temporary(path: Path) -> tuple[int, str]:
    # Not `tempfile`: its files are private, and a saved video belongs to whoever the umask says.
    for count in itertools.count():
        name = str(path.with_name(f".{path.name[:80]}.{os.getpid()}.{threading.get_ident()}.{count}.part"))
        try:
            return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), name
        except FileExistsError:
            continue
    raise AssertionError


def _publish_once(temporary: str, path: Path) -> None:
    try:
        # A hard link is the one portable rename that fails when the name is taken.
        os.link(temporary, path)
    except FileExistsError:
        raise AlreadyExistsError(f"'{path}' exists already.") from None
    except OSError:
        # File systems without hard links (FAT, some network shares): O_EXCL reserves the name, then it is replaced.
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            raise AlreadyExistsError(f"'{path}' exists already.") from None
        Path(temporary).replace(path)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut, where the system can."""
    if os.name != "posix":  # Windows cannot open a folder, and writes its directory entries itself
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
