"""Files that are there whole or not at all: the one place that renames."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from filelock import FileLock

from vrag.errors import AlreadyExistsError

__all__ = ["publish_once", "sync_folder", "write_new"]

_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def write_new(path: Path, chunks: Iterable[bytes], *, overwrite: bool = False) -> None:
    """Write `chunks` to `path` so that a crash leaves either the whole file or none; the folder is made.

    Raises:
        AlreadyExistsError: `path` exists and `overwrite` is not set; of several writers at once exactly one succeeds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number, temporary = _temporary(path)
    try:
        with os.fdopen(number, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            publish_once(temporary, path, lock=path.parent / ".vrag.lock")
    except FileExistsError:
        raise AlreadyExistsError(f"'{path}' exists already.", hint="choose another name, or say overwrite") from None
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _temporary(path: Path) -> tuple[int, Path]:
    # Not `tempfile`: its files are private, and a saved video belongs to whoever the umask says.
    for count in itertools.count():
        name = path.with_name(f".{path.name[:80]}.{os.getpid()}.{threading.get_ident()}.{count}.part")
        try:
            return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), name
        except FileExistsError:
            continue
    raise AssertionError


def publish_once(temporary: Path | str, path: Path | str, *, lock: Path) -> None:
    """Give a finished file its name. The one place that knows how to do that exactly once.

    Raises:
        FileExistsError: The name is taken; of several writers at once exactly one succeeds.
    """
    try:
        # A hard link is the portable rename that fails when the name is taken.
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LINKS:
            raise
        # A disk without hard links: our writers take turns, so that none replaces the file of another.
        with FileLock(lock):
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, "exists") from None
            os.rename(temporary, path)  # noqa: PTH104  # text or Path


def sync_folder(folder: Path | str) -> None:
    """Make renames in `folder` survive a power cut, where the system can."""
    if os.name != "posix":  # Windows cannot open a folder, and writes its directory entries itself
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
