"""Exact nearest neighbours over a file of float32 rows: one pass at the speed of memory, then float64 for the best few."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from vrag.errors import BackendError

__all__ = ["Snapshot", "VectorFile", "nearest"]

GATHER_SHARE: Final = 0.1
"""Below this share of rows a filter's rows are read one by one; above it the whole file is read in order."""

CHUNK_ROWS: Final = 1024
"""Rows that are copied at once: few enough to stay in the processor's cache."""

SLACK: Final = 1e-5
"""More than float32 can be wrong about a cosine: rows this close to the last place are computed again in float64."""

GROW_BYTES: Final = 1 << 20


class VectorFile:
    """Rows of little-endian float32, one after the other.

    The file is longer than what is written (a hole that takes no room on disk), so that readers need not map it anew for
    every row. How many rows count is known to the database; what lies behind them is left over from a writer that died,
    and is written over.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        self.path = path
        self._dimension = dimension
        self._row_bytes = 4 * dimension

    def write(self, start: int, rows: NDArray[np.float32]) -> None:
        """Write `rows` from row number `start` on; when it returns they are on the disk."""
        end = (start + len(rows)) * self._row_bytes
        with self.path.open("r+b" if start else "w+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size < end:
                file.truncate(end + max(GROW_BYTES, end // 4) // self._row_bytes * self._row_bytes)
            file.seek(start * self._row_bytes)
            file.write(np.ascontiguousarray(rows, dtype="<f4").data)
            file.flush()
            os.fsync(file.fileno())

    def read(self, slots: Sequence[int]) -> list[NDArray[np.float32]]:
        """These rows, copied: pages of a mapped file that were touched count as memory of the process, these do not.

        Raises:
            BackendError: The file is too short.
            FileNotFoundError: It is not there (any more).
        """
        rows: list[NDArray[np.float32]] = []
        with self.path.open("rb", buffering=0) as file:
            for slot in slots:
                file.seek(slot * self._row_bytes)
                data = file.read(self._row_bytes)
                if len(data) < self._row_bytes:
                    raise self._too_short(os.fstat(file.fileno()).st_size // self._row_bytes, slot + 1)
                rows.append(np.frombuffer(data, "<f4").astype(np.float32))
        return rows

    def map(self, count: int) -> NDArray[np.float32]:
        """At least `count` rows, read from the disk as they are touched.

        Raises:
            BackendError: The file is shorter than that.
            FileNotFoundError: It is not there (any more).
        """
        with self.path.open("rb") as file:
            rows = os.fstat(file.fileno()).st_size // self._row_bytes
            if rows < count:
                raise self._too_short(rows, count)
            mapped = mmap.mmap(file.fileno(), rows * self._row_bytes, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, dtype="<f4").reshape(rows, self._dimension)

    def _too_short(self, rows: int, wanted: int) -> BackendError:
        return BackendError(
            f"'{self.path}' holds {rows} vectors and should hold {wanted}: it was cut or changed.",
            backend="local",
            operation="open",
            hint="restore the folder from a copy, or ingest the pictures again into a new one",
        )


@frozen(kw_only=True, eq=False)
class Snapshot:
    """The vectors of one moment. Slots are row numbers of the file; a slot that was replaced or deleted is dead."""

    generation: int
    """Which vector file; compaction begins a new one."""
    vectors: NDArray[np.float32] = field(repr=False)
    """(at least len(inverse_norms), dimension)."""
    inverse_norms: NDArray[np.float32] = field(repr=False)
    """(slots,): a row may be off unit length by 1e-3, its cosine may not."""
    dead: NDArray[np.int64] = field(repr=False)
    """The slots that no row has any more, in the order they died."""

    @classmethod
    def empty(cls, generation: int) -> Snapshot:
        """Before anything was read."""
        nothing = np.empty((0, 0), np.float32)
        return cls(generation=generation, vectors=nothing, inverse_norms=nothing.reshape(0), dead=np.empty(0, np.int64))


def nearest(
    snapshot: Snapshot, query: NDArray[Any], top_k: int, among: NDArray[np.int64] | None = None
) -> list[tuple[float, int]]:
    """(cosine, slot) of the rows closest to `query`, best first; all that tie with number `top_k` come too.

    `among` limits the search to these live slots, in any order. Equal vectors have equal cosines to the last bit, wherever
    they lie in the file and however they were found.
    """
    count = len(snapshot.inverse_norms)
    if count == 0 or (among is not None and len(among) == 0):
        return []
    if among is not None:
        among = np.sort(among)
        if len(among) < GATHER_SHARE * count:
            scores = _gathered(snapshot, query, among)
        else:
            scores = _scanned(snapshot, query, count)[among]
        positions = _leading(scores, top_k)
        slots = among[positions]
    else:
        scores = _scanned(snapshot, query, count)
        scores[snapshot.dead] = -np.inf
        slots = _leading(scores, top_k)
    cosines = _cosines(snapshot.vectors, slots, query)
    if len(cosines) > top_k:
        keep = cosines >= np.partition(cosines, -top_k)[-top_k]
        slots, cosines = slots[keep], cosines[keep]
    order = np.argsort(-cosines, kind="stable")
    return list(zip(cosines[order].tolist(), slots[order].tolist(), strict=True))


def _scanned(snapshot: Snapshot, query: NDArray[Any], count: int) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = snapshot.vectors[:count] @ query.astype(np.float32)
    scores *= snapshot.inverse_norms
    return scores


def _gathered(snapshot: Snapshot, query: NDArray[Any], slots: NDArray[np.int64]) -> NDArray[np.float32]:
    scores = np.empty(len(slots), np.float32)
    single = query.astype(np.float32)
    for start in range(0, len(slots), CHUNK_ROWS):
        part = slots[start : start + CHUNK_ROWS]
        scores[start : start + CHUNK_ROWS] = snapshot.vectors[part] @ single
    scores *= snapshot.inverse_norms[slots]
    return scores


def _leading(scores: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    """Positions of every score that may belong to the best `top_k`, in rising order.

    The `top_k` best of the maxima of disjoint groups are `top_k` scores, so the worst of them is a floor; to find it takes
    a tenth of the time of a partition of all scores.
    """
    width = min(256, len(scores) // (4 * top_k))
    if width >= 4:
        groups = len(scores) // width
        maxima = scores[: groups * width].reshape(width, groups).max(axis=0)
        positions = np.flatnonzero(scores >= np.partition(maxima, -top_k)[-top_k] - SLACK)
    else:
        positions = np.arange(len(scores))
    if len(positions) > top_k:
        left = scores[positions]
        positions = positions[left >= np.partition(left, -top_k)[-top_k] - SLACK]
    return positions[scores[positions] > -np.inf]


def _cosines(vectors: NDArray[np.float32], slots: NDArray[np.int64], query: NDArray[Any]) -> NDArray[np.float64]:
    exact = query.astype(np.float64)
    exact /= np.sqrt((exact * exact).sum())
    cosines = np.empty(len(slots), np.float64)
    for start in range(0, len(slots), CHUNK_ROWS):
        rows = vectors[slots[start : start + CHUNK_ROWS]].astype(np.float64)
        cosines[start : start + CHUNK_ROWS] = (rows * exact).sum(axis=1) / np.sqrt((rows * rows).sum(axis=1))
    return np.clip(cosines, -1.0, 1.0)
