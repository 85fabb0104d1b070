"""Which pictures of an ingest came before: the same bytes (on disk, in order), and those that look the same."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final

import numpy as np

from vrag.knowledge.ordering import temporary_database
from vrag.media.fingerprint import NEAR_BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Looks", "Seen"]

_BLOCK: Final = 8192
"""Fingerprints that are compared at once: 64 KiB, which stay in the cache of the processor."""


class Seen:
    """The keys that one run came across. They lie in a temporary file, so that a million of them take no memory."""

    def __init__(self) -> None:
        self._database = temporary_database(
            "create table seen(key text primary key, name text, uncaptioned integer) without rowid"
        )
        self._lock = Lock()

    def __contains__(self, key: str) -> bool:
        return self.first_name(key) is not None

    def first_name(self, key: str) -> str | None:
        """The name under which `key` came first, or None."""
        with self._lock:
            row = self._database.execute("select name from seen where key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def add(self, key: str, name: str) -> None:
        """`key` came, under `name`; a later name of it changes nothing."""
        with self._lock:
            self._database.execute("insert or ignore into seen values(?, ?, 0)", (key, name))

    def mark(self, key: str, *, uncaptioned: bool) -> None:
        """Whether `key` is without words now."""
        with self._lock:
            self._database.execute("update seen set uncaptioned = ? where key = ?", (uncaptioned, key))

    def uncaptioned(self, examples: int) -> tuple[int, tuple[str, ...]]:
        """How many are without words, and the names of some."""
        with self._lock:
            (number,) = self._database.execute("select count(*) from seen where uncaptioned").fetchone()
            rows = self._database.execute("select name from seen where uncaptioned order by name limit ?", (examples,))
            return int(number), tuple(name for (name,) in rows)

    def close(self) -> None:
        """Remove the file."""
        self._database.close()


class Looks:
    """Fingerprints and whose they are, searched exactly.

    All are compared: a count of bits over 100 000 takes less than a tree or bands of bits would (see
    `benchmarks/ingest.py`), and needs 8 bytes a picture. They lie in blocks of one size, and what a comparison needs is
    kept for the next: arrays that grow with the number of pictures, made anew for each of them, leave holes in the heap
    that are never given back. Whose they are is asked only of those that are near, and lies in a temporary file.
    """

    def __init__(self) -> None:
        self._count = 0
        self._blocks: list[NDArray[np.uint64]] = []
        self._unlike = np.empty(_BLOCK, np.uint64)
        self._bits = np.empty(_BLOCK, np.uint8)
        self._owners = temporary_database("create table owner(place integer primary key, sha256 text)")
        self._lock = Lock()

    def __len__(self) -> int:
        return self._count

    def add(self, fingerprint: str, sha256: str) -> None:
        """Remember what the picture with this digest looks like."""
        with self._lock:
            block, place = divmod(self._count, _BLOCK)
            if block == len(self._blocks):
                self._blocks.append(np.zeros(_BLOCK, np.uint64))
            self._blocks[block][place] = int(fingerprint, 16)
            self._owners.execute("insert into owner values(?, ?)", (self._count, sha256))
            self._count += 1

    def nearest(self, fingerprint: str, sha256: str, *, within: int = NEAR_BITS) -> tuple[str, int] | None:
        """Digest of the nearest other picture and in how many bits it differs, if within `within`; the first of equals."""
        wanted = np.uint64(int(fingerprint, 16))
        near: list[tuple[int, int]] = []
        with self._lock:
            for number, block in enumerate(self._blocks):
                used = min(_BLOCK, self._count - number * _BLOCK)
                np.bitwise_xor(block, wanted, out=self._unlike)
                np.bitwise_count(self._unlike, out=self._bits)
                places = np.flatnonzero(self._bits[:used] <= within).tolist()
                near += [(int(self._bits[place]), number * _BLOCK + place) for place in places]
            for differing, place in sorted(near):
                (owner,) = self._owners.execute("select sha256 from owner where place = ?", (place,)).fetchone()
                if owner != sha256:
                    return owner, differing
        return None

    def close(self) -> None:
        """Remove the file."""
        self._owners.close()
