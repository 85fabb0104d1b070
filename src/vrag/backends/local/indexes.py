"""The indexes of one knowledge base in a folder: the one in use, and the one that is made to take its place."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from typing_extensions import override

from vrag.backends.local.index_pointer import active_folder, active_number, folder_of, set_active
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.errors import BackendError, UsageError
from vrag.interfaces import VectorStore
from vrag.knowledge.reindex import Indexes
from vrag.values.canonical import from_json
from vrag.values.vectors import EmbeddingSpace

__all__ = ["LocalIndexes"]


class LocalIndexes(Indexes):
    """Indexes of `LocalVectorStore`, each in a folder of its own; see `vrag.backends.local.index_pointer`.

    An index that was replaced stays until the next reindexing, for processes that still read it; they cannot write to it.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder

    @contextmanager
    @override
    def claim(self) -> Iterator[None]:
        self._root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._root / "reindex.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UsageError(f"Another process is reindexing '{self._root}'.", hint="wait for its end") from None
        try:
            yield
        finally:
            lock.release()

    @override
    def active(self) -> LocalVectorStore:
        folder = active_folder(self._root)
        if not (folder / "store.sqlite3").is_file():
            raise UsageError(f"There is no index in '{folder}'.", hint="vrag ingest FOLDER")
        return LocalVectorStore(folder, _stored_space(folder))

    @override
    def beside(self, space: EmbeddingSpace | None) -> LocalVectorStore:
        number = active_number(self._root)
        for retired in range(1, number):
            _remove(folder_of(self._root, retired), keep_folder=retired == 1)
        folder = folder_of(self._root, number + 1)
        if (folder / "store.sqlite3").is_file() and _stored_space(folder) != space:
            shutil.rmtree(folder)  # begun for another embedder, and never finished
        return LocalVectorStore(folder, space)

    @override
    def switch(self, old: VectorStore, last_look: Callable[[], None]) -> None:
        if not isinstance(old, LocalVectorStore):
            raise UsageError("Only an index of this folder can be replaced.")
        with old.holding_writers():
            last_look()
            set_active(self._root, active_number(self._root) + 1)


def _stored_space(folder: Path) -> EmbeddingSpace | None:
    """What the vectors in `folder` can be compared with; None for words only."""
    path = (folder / "store.sqlite3").absolute()
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
            row = connection.execute("select space from store").fetchone()
    except sqlite3.Error as error:
        raise BackendError(
            f"The index in '{folder}' cannot be read: {error}.", backend="local", operation="open"
        ) from error
    return None if row is None or row[0] is None else from_json(EmbeddingSpace, json.loads(row[0]))


def _remove(folder: Path, *, keep_folder: bool) -> None:
    if not keep_folder:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in (*folder.glob("vectors-*.f32"), *folder.glob("store.sqlite3*")):
        with suppress(OSError):  # Windows keeps a file that is being read
            path.unlink()
