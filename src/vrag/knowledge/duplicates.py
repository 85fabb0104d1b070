"""Which pictures of an ingest came before: the same bytes (on disk, in order), and those that look the same."""

from __future__ import annotations

import sqlite3
from threading import Lock
from typing import TYPE_CHECKING, Final

import numpy as np

from vrag.media.fingerprint import NEAR_BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Looks", "Seen"]

_CACHE_KIB: Final = 512


class Seen:
    """The keys that one run came across. They lie in a temporary file, so that a million of them take no memory."""

    def __init__(self) -> None:
        self._database = _temporary(
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

    All are compared: a count of bits over 100 000 takes less than a tree or bands of bits would (0.1 ms; see
    `benchmarks/ingest.py`), and needs 8 bytes a picture. Whose they are is asked only of those that are near, and lies in
    a temporary file.
    """

    def __init__(self) -> None:
        self._count = 0
        self._bits: NDArray[np.uint64] = np.zeros(1024, np.uint64)
        self._owners = _temporary("create table owner(place integer primary key, sha256 text)")
        self._lock = Lock()

    def __len__(self) -> int:
        return self._count

    def add(self, fingerprint: str, sha256: str) -> None:
        """Remember what the picture with this digest looks like."""
        with self._lock:
            if self._count == len(self._bits):
                self._bits = np.concatenate([self._bits, np.zeros_like(self._bits)])
            self._bits[self._count] = int(fingerprint, 16)
            self._owners.execute("insert into owner values(?, ?)", (self._count, sha256))
            self._count += 1

    def nearest(self, fingerprint: str, sha256: str, *, within: int = NEAR_BITS) -> tuple[str, int] | None:
        """Digest of the nearest other picture and in how many bits it differs, if within `within`; the first of equals."""
        with self._lock:
            differing = np.bitwise_count(self._bits[: self._count] ^ np.uint64(int(fingerprint, 16)))
            places = np.flatnonzero(differing <= within)
            for place in places[np.argsort(differing[places], kind="stable")].tolist():
                (owner,) = self._owners.execute("select sha256 from owner where place = ?", (place,)).fetchone()
                if owner != sha256:
                    return owner, int(differing[place])
        return None

    def close(self) -> None:
        """Remove the file."""
        self._owners.close()


def _temporary(schema: str) -> sqlite3.Connection:
    # "" is a private file that SQLite removes when it is closed, and when the process dies.
    database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    database.execute(f"pragma cache_size=-{_CACHE_KIB}")
    database.execute(schema)
    return database
