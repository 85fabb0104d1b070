"""The SQLite side of the embedded vector store: its schema, its connections, and filters as SQL."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import asdict
from filelock import FileLock

from vrag.backends.local.word_index import WORDS_FORMAT, rebuild
from vrag.errors import BackendError, FormatVersionError, SpaceMismatchError, UsageError, VRAGError
from vrag.values.vectors import AllOf, AnyOf, Between, EmbeddingSpace, FieldKind, Filter, Is, IsIn, Not, check_filter
from vrag.workspace.db import use_safest_journal

__all__ = ["RowDatabase", "count_write", "filter_sql", "is_storable", "remove_rows"]

MIGRATIONS: Final = (
    """
    create table store(space text, words_format integer not null) strict;
    -- `generation` names the vector file, `slots` is how many of its rows count, `deaths` how many of those are dead
    create table state(generation integer not null, slots integer not null, deaths integer not null,
      writes integer not null) strict;
    insert into state values(0, 0, 0, 0);
    create table entry(id integer primary key, key text not null unique, slot integer unique, inverse_norm real,
      text text not null, fields text not null, payload text not null) strict;
    create table death(number integer primary key, slot integer not null) strict;
    create table field(name text not null, value any not null, entry integer not null,
      primary key(name, value, entry)) strict, without rowid;
    create index field_entry on field(entry);
    """,
)
"""Step n brings a file from schema n to n + 1. Steps are only ever added."""

CACHE_KIB: Final = 512
"""Of each connection. The system keeps the file in its own memory; what SQLite keeps beside it grows with the store."""

MAX_FILTER_VALUES: Final = 10_000

_abandoned: list[object] = []  # connections inherited over a fork: using or closing them here could harm the parent's


class RowDatabase:
    """Connections to one file: as many as threads read at once, one writer at a time, new ones in a forked child."""

    def __init__(self, folder: Path, space: EmbeddingSpace | None) -> None:
        """Open or create `folder`; see `LocalVectorStore` for what is raised."""
        self._folder = folder
        self._space = space
        self._closed = False
        self._begin_process()
        with self._connection("open"):
            pass

    @contextmanager
    def reading(self, operation: str) -> Iterator[sqlite3.Connection]:
        """One consistent view of the file. Writers wait for its end with their commit: keep it short."""
        with self._connection(operation) as connection:
            connection.execute("begin")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("rollback")

    @contextmanager
    def writing(self, operation: str) -> Iterator[sqlite3.Connection]:
        """A transaction of the only writer, in this process and among all: all of the block is kept, or nothing."""
        with self._connection(operation) as connection, self._turn:
            connection.execute("begin immediate")
            try:
                yield connection
                connection.execute("commit")
            except BaseException:
                # On a full disk SQLite has rolled back already; a second rollback would hide the cause.
                if connection.in_transaction:
                    connection.execute("rollback")
                raise

    def close(self) -> None:
        """Close every connection; one that is in use closes when its operation ends."""
        if self._pid != os.getpid():
            self._begin_process()
        with self._guard:
            self._closed = True
            while self._idle:
                self._idle.pop().close()

    def refuse_if_closed(self) -> None:
        """Raise `UsageError` after `close`."""
        if self._closed:
            raise UsageError(f"The vector store '{self._folder}' is closed.", hint="open it again")

    def _begin_process(self) -> None:
        if getattr(self, "_idle", None):
            _abandoned.append(self._idle)
        self._guard = threading.Lock()
        self._turn = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._pid = os.getpid()

    @contextmanager
    def _connection(self, operation: str) -> Iterator[sqlite3.Connection]:
        """A connection that no other thread uses meanwhile; errors of SQLite and of the disk come out as ours."""
        if self._pid != os.getpid():
            self._begin_process()
        connection = None
        try:
            with self._guard:
                self.refuse_if_closed()
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self._connect()
            yield connection
        except VRAGError:
            raise
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
            raise BackendError(
                f"The vector store '{self._folder}' could not {operation}: {reason}.",
                backend="local",
                operation=operation,
                retryable=not damaged,
                hint="restore the folder from a copy, or ingest again into a new one" if damaged else None,
            ) from error
        finally:
            if connection is not None:
                with self._guard:
                    if self._closed:
                        connection.close()
                    else:
                        self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True)
        # `pragma journal_mode` does not wait for other processes that open the file, so they take turns.
        with FileLock(self._folder / "store.lock"):
            connection = sqlite3.connect(
                self._folder / "store.sqlite3", timeout=60, isolation_level=None, check_same_thread=False
            )
            try:
                use_safest_journal(connection, self._folder / "store.sqlite3")
                connection.execute(f"pragma cache_size=-{CACHE_KIB}")
                self._migrate(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("pragma user_version").fetchone()
        if version > len(MIGRATIONS):
            raise FormatVersionError(
                f"The vector store '{self._folder}' has schema {version}; this release reads up to {len(MIGRATIONS)}.",
                hint="pip install --upgrade vrag",
            )
        for number in range(version, len(MIGRATIONS)):
            # executescript commits what is open before it starts, so the transaction is part of the script.
            connection.executescript(f"begin immediate; {MIGRATIONS[number]} pragma user_version={number + 1}; commit;")
        mine = None if self._space is None else json.dumps(asdict(self._space), sort_keys=True)
        row = connection.execute("select space, words_format from store").fetchone()
        if row is None:
            row = (mine, 0)
            connection.execute("insert into store values(?, ?)", row)
        stored, words_format = row
        if words_format > WORDS_FORMAT:
            raise FormatVersionError(
                f"The words of '{self._folder}' have format {words_format}; this release reads up to {WORDS_FORMAT}.",
                hint="pip install --upgrade vrag",
            )
        if stored != mine:
            shown = "no space (words only)" if stored is None else EmbeddingSpace(**json.loads(stored))
            raise SpaceMismatchError(
                f"The vector store '{self._folder}' was made for {shown}, not for {self._space or 'words only'}.",
                hint="vrag kb reindex --kb NAME, or configure the embedder that it was made with",
            )
        if words_format < WORDS_FORMAT:
            rebuild(connection)


def filter_sql(condition: Filter | None, fields: Mapping[str, FieldKind]) -> tuple[str, list[str | float]]:
    """A filter as SQL text made from constants, and the values that its placeholders stand for.

    Raises:
        UsageError: A field is not in `fields`, or a value does not fit its field.
    """
    if condition is None:
        return "1", []
    check_filter(condition, fields)
    values: list[str | float] = []
    sql = _compiled(condition, values)
    if len(values) > MAX_FILTER_VALUES:
        raise UsageError(f"A filter compares at most {MAX_FILTER_VALUES} values, not {len(values)}.")
    if not all(is_storable(value) for value in values if isinstance(value, str)):
        raise UsageError("A value of the filter is not text that can be written as UTF-8.")
    # An integer beyond SQLite's is beyond every stored one too.
    return sql, [math.inf * (1 if v > 0 else -1) if isinstance(v, int) and not is_storable(v) else v for v in values]


def _compiled(condition: Filter, values: list[str | float]) -> str:
    match condition:
        case AllOf(all_of=parts):
            return f"({' and '.join(['1', *(_compiled(part, values) for part in parts)])})"
        case AnyOf(any_of=parts):
            return f"({' or '.join(['0', *(_compiled(part, values) for part in parts)])})"
        case Not(negated=part):
            return f"(not {_compiled(part, values)})"
        case Is(field=name, value=value):
            tests, given = "value = ?", [name, value]
        case IsIn(field=name, values=several):
            tests, given = f"value in ({', '.join('?' * len(several))})", [name, *several]
        case Between(field=name, low=low, high=high):
            tests = " and ".join(["1", *(["value >= ?"] * (low is not None)), *(["value <= ?"] * (high is not None))])
            given = [name, *(bound for bound in (low, high) if bound is not None)]
    values += given
    return f"entry.id in (select entry from field where name = ? and {tests})"  # noqa: S608  # constants, values bound


def is_storable(value: str | float) -> bool:
    """Whether SQLite keeps this value as it is: text without lone surrogates, a finite number of 64 bits."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return math.isfinite(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def remove_rows(connection: sqlite3.Connection, keys: Iterable[str]) -> int:
    """Take rows away with their words and fields, and mark their vectors dead; how many there were."""
    asked = [key for key in dict.fromkeys(keys) if is_storable(key)]
    rows = [connection.execute("select id, slot from entry where key = ?", (key,)).fetchone() for key in asked]
    ids = [(row[0],) for row in rows if row is not None]
    dead = [row[1] for row in rows if row is not None and row[1] is not None]
    for sql in (
        "delete from words where rowid = ?",
        "delete from field where entry = ?",
        "delete from entry where id = ?",
    ):
        connection.executemany(sql, ids)
    (already,) = connection.execute("select deaths from state").fetchone()
    connection.executemany("insert into death values(?, ?)", enumerate(dead, start=already + 1))
    connection.execute("update state set deaths = deaths + ?", (len(dead),))
    return len(ids)


def count_write(connection: sqlite3.Connection) -> str:
    """Note that something was written, and name it."""
    return str(connection.execute("update state set writes = writes + 1 returning writes").fetchone()[0])
