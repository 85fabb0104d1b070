"""Names in order, however many there are, in little memory."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Final

__all__ = ["in_order", "temporary_database"]

_CACHE_KIB: Final = 512
_FEW: Final = 4096
"""So many names are sorted in memory."""


def temporary_database(schema: str) -> sqlite3.Connection:
    """A private file that SQLite removes when it is closed, and when the process dies; it takes 0.5 MiB of memory."""
    database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    database.execute(f"pragma cache_size=-{_CACHE_KIB}")
    database.execute(schema)
    return database


def in_order(names: Iterable[str]) -> Iterator[str]:
    """File names, each once, sorted. All are read before the first is given; more than a few wait on the disk."""
    rest = iter(names)
    first = list(islice(rest, _FEW + 1))
    if len(first) <= _FEW:
        yield from sorted(set(first))
        return
    database = temporary_database("create table name(name blob primary key) without rowid")
    try:
        database.execute("begin")
        # As bytes: a name need not be text that UTF-8 can write.
        rows = ((os.fsencode(name),) for name in chain(first, rest))
        database.executemany("insert or ignore into name values(?)", rows)
        first.clear()
        for (name,) in database.execute("select name from name order by name"):
            yield os.fsdecode(name)
    finally:
        database.close()
