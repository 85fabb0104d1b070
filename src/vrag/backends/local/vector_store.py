"""The embedded vector store: exact, in one folder, with SQLite for rows and words and a plain file for vectors."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray
from typing_extensions import override

from vrag.backends.local.index_pointer import is_replaced
from vrag.backends.local.vector_rows import RowDatabase, count_write, filter_sql, is_storable, remove_rows
from vrag.backends.local.vector_scan import CHUNK_ROWS, Snapshot, VectorFile, nearest
from vrag.backends.local.word_index import add_words, ranked_keys
from vrag.errors import SpaceMismatchError, UsageError
from vrag.interfaces import VectorStore
from vrag.media.files import sync_folder
from vrag.values.vectors import (
    ASSET_FIELDS,
    EmbeddingSpace,
    FieldKind,
    Filter,
    IsIn,
    Match,
    Receipt,
    VectorQuery,
    VectorRecord,
    check_filter,
)

__all__ = ["LocalVectorStore"]

COMPACT_SLOTS: Final = 256
"""Fewer dead slots than this are left alone."""

PAGE_ROWS: Final = 1000
"""`scan` holds this many rows in memory."""

_COLUMNS: Final = "key, slot, text, fields, payload"
_Stored = tuple[str, int | None, str, str, str]


@frozen(kw_only=True, eq=False)
class _Row:
    """A record that was checked and is ready to be written."""

    record: VectorRecord
    fields: str
    values: tuple[tuple[str, str | float], ...]
    vector: NDArray[np.float32] | None = field(repr=False)
    inverse_norm: float | None


class LocalVectorStore(VectorStore):
    """Vectors, words, fields and payloads in a folder; every search is exact.

    A write appends its vectors to a file and brings them to the disk, then commits its rows in SQLite: a process that
    dies between the two leaves a tail that no row names. Replaced vectors stay until more than half of the file is dead;
    then the living ones move to a new file, and one commit switches over. Any number of processes may read while one
    writes; writers take turns; what was written is seen by the next search of every process. After a fork the child
    opens connections of its own.

    Words are found by FTS5 with English stems, best first by BM25, rows with all words of the query before rows with
    some; see `vrag.backends.local.word_index` for how text is cut. The folder must be on a local disk: SQLite's locks do
    not hold on network file systems (sqlite.org/faq.html, checked 2026-11-20).
    """

    def __init__(
        self, folder: Path, space: EmbeddingSpace | None, *, fields: Mapping[str, FieldKind] = ASSET_FIELDS
    ) -> None:
        """Open the store in `folder`, or make one for vectors of `space` (None: words only).

        Args:
            folder: Is made if needed.
            space: What all vectors of the store are compared in; it is stored, and never changes.
            fields: The allow-list of what records may carry and filters may name.

        Raises:
            SpaceMismatchError: The store was made for another space.
            FormatVersionError: A newer release wrote it.
            BackendError: The folder cannot be written, or its files are damaged.
        """
        self._folder = folder
        self._space = space
        self._fields = dict(fields)
        self._snapshot: Snapshot | None = None
        self._rows = RowDatabase(folder, space)
        self._compact()
        self._sweep()

    @property
    @override
    def space(self) -> EmbeddingSpace | None:
        return self._space

    @override
    def upsert(self, records: Sequence[VectorRecord]) -> Receipt:
        self._rows.refuse_if_closed()
        rows = list({record.key: self._checked_row(record) for record in records}.values())
        vectors = [row.vector for row in rows if row.vector is not None]
        with self._rows.writing("upsert") as connection:
            self._refuse_if_replaced()
            generation, slots = connection.execute("select generation, slots from state").fetchone()
            if vectors:
                self._vector_file(generation).write(slots, np.stack(vectors))
                if slots == 0:
                    sync_folder(self._folder)
            remove_rows(connection, [row.record.key for row in rows])
            (last,) = connection.execute("select coalesce(max(id), 0) from entry").fetchone()
            numbered = list(enumerate(rows, start=last + 1))
            slot = iter(range(slots, slots + len(vectors)))
            connection.executemany(
                "insert into entry values(?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        number,
                        row.record.key,
                        None if row.vector is None else next(slot),
                        row.inverse_norm,
                        row.record.text,
                        row.fields,
                        row.record.payload,
                    )
                    for number, row in numbered
                ),
            )
            connection.executemany(
                "insert or ignore into field values(?, ?, ?)",
                ((name, value, number) for number, row in numbered for name, value in row.values),
            )
            add_words(connection, ((number, row.record.text) for number, row in numbered))
            connection.execute("update state set slots = slots + ?", (len(vectors),))
            receipt = Receipt(id=count_write(connection), count=len(rows))
        self._compact()
        return receipt

    @override
    def delete(self, keys: Sequence[str]) -> Receipt:
        with self._rows.writing("delete") as connection:
            self._refuse_if_replaced()
            count = remove_rows(connection, keys)
            receipt = Receipt(id=count_write(connection), count=count)
        self._compact()
        return receipt

    @override
    def settled(self, receipt: Receipt) -> bool:
        """Whether searches see that write: always, once `upsert` or `delete` has returned."""
        with self._rows.reading("look") as connection:
            (writes,) = connection.execute("select writes from state").fetchone()
        return receipt.id.isdecimal() and int(receipt.id) <= writes

    @override
    def search(self, query: VectorQuery) -> Sequence[Match]:
        self._rows.refuse_if_closed()
        condition, values = filter_sql(query.filter, self._fields)
        if query.vector is None and query.words is None:
            raise UsageError("A search needs a vector, words, or both.")
        if query.space is not None and query.space != self._space:
            raise SpaceMismatchError(
                f"The query is in {query.space}, and the store '{self._folder}' holds {self._space or 'words only'}.",
                hint="embed the query with the embedder that the store was filled with",
            )
        vector = None if query.vector is None else self._checked_vector(query.vector, "The query")[0]
        cosines: dict[str, float] = {}
        keys: Sequence[str] = ()
        with self._reading("search") as (connection, snapshot):
            if vector is not None:
                among = None
                if query.filter is not None:
                    sql = f"select slot from entry where slot is not null and {condition}"  # noqa: S608  # values bound
                    among = _integers(connection.execute(sql, values))
                best = [
                    (-cosine, connection.execute("select key from entry where slot = ?", (slot,)).fetchone()[0])
                    for cosine, slot in nearest(snapshot, vector, query.top_k, among)
                ]
                cosines = {key: -negative for negative, key in sorted(best)[: query.top_k]}
            if query.words is not None:
                keys = ranked_keys(connection, query.words, query.top_k, condition, values)
        ranks = {key: rank for rank, key in enumerate(keys, start=1)}
        matches = (Match(key=key, cosine=cosines.get(key), word_rank=ranks.get(key)) for key in {**cosines, **ranks})
        return sorted(matches, key=_order)

    @override
    def get(self, keys: Sequence[str]) -> Sequence[VectorRecord]:
        sql = f"select {_COLUMNS} from entry where key = ?"  # noqa: S608  # a constant, values bound

        def asked(connection: sqlite3.Connection) -> list[_Stored]:
            rows = (connection.execute(sql, (key,)).fetchone() for key in keys if is_storable(key))
            return [row for row in rows if row is not None]

        return self._records("get", asked)

    @override
    def scan(self, filter: Filter | None = None) -> Iterator[VectorRecord]:
        """Every row that fulfils the filter, in order of key; a write that is made meanwhile may be seen or not."""
        self._rows.refuse_if_closed()
        return self._pages(*filter_sql(filter, self._fields))

    @override
    def count(self, filter: Filter | None = None) -> int:
        condition, values = filter_sql(filter, self._fields)
        sql = f"select count(*) from entry where {condition}"  # noqa: S608  # made from constants, values bound
        with self._rows.reading("count") as connection:
            (count,) = connection.execute(sql, values).fetchone()
        return int(count)

    @override
    def close(self) -> None:
        self._rows.close()
        self._snapshot = None

    @contextmanager
    def holding_writers(self) -> Iterator[None]:
        """Let nobody write, in no process, for the length of the block; reading goes on."""
        with self._rows.writing("hold"):
            yield

    def _refuse_if_replaced(self) -> None:
        if is_replaced(self._folder):
            raise UsageError(
                f"Another index has taken the place of '{self._folder}'; nothing was written.",
                hint="open the knowledge base again, with the embedder that it was reindexed for",
            )

    def _pages(self, condition: str, values: Sequence[str | float]) -> Iterator[VectorRecord]:
        sql = f"select {_COLUMNS} from entry where key > ? and {condition} order by key limit {PAGE_ROWS}"  # noqa: S608  # values bound
        after, more = "", True
        while more:
            page = self._records("scan", partial(_page, sql, (after, *values)))
            yield from page
            more = len(page) == PAGE_ROWS
            after = page[-1].key if page else after

    def _checked_row(self, record: VectorRecord) -> _Row:
        for what, text in (("key", record.key), ("text", record.text), ("payload", record.payload)):
            if not is_storable(text):
                raise UsageError(f"The {what} of {record.key!a} is not text that can be written as UTF-8.")
        values: list[tuple[str, str | float]] = []
        for name, value in record.fields.items():
            several = value if isinstance(value, tuple) else (value,)
            check_filter(IsIn(field=name, values=several), self._fields)
            if isinstance(value, tuple) and self._fields[name] is not FieldKind.KEYWORD:
                raise UsageError(f"The field '{name}' of {record.key!a} takes one value, not several.")
            for one in several:
                if not is_storable(one):
                    raise UsageError(f"The field '{name}' of {record.key!a} cannot hold {one!a}.")
                values.append((name, one))
        vector, inverse_norm = None, None
        if record.vector is not None:
            vector, inverse_norm = self._checked_vector(record.vector, f"The vector of {record.key!a}")
        fields = json.dumps(dict(record.fields), ensure_ascii=False)
        return _Row(record=record, fields=fields, values=tuple(values), vector=vector, inverse_norm=inverse_norm)

    def _checked_vector(self, vector: object, what: str) -> tuple[NDArray[np.float32], float]:
        """The vector as float32, and 1 / its length."""
        if self._space is None:
            raise SpaceMismatchError(
                f"{what} cannot be used: the store '{self._folder}' has no embedding space, only words find its rows.",
                hint="open a new folder with the space of your embedder",
            )
        array = np.asarray(vector)
        if array.shape != (self._space.dimension,) or array.dtype.kind not in "fiu":
            raise UsageError(
                f"{what} has shape {array.shape} and type {array.dtype}; the space {self._space} takes shape "
                f"({self._space.dimension},) of float32."
            )
        single = array.astype(np.float32)
        length = float(np.linalg.norm(single.astype(np.float64)))
        if not abs(length - 1) <= 1e-3:  # not "> 1e-3": a NaN must fail too
            raise UsageError(f"{what} has the length {length:.6g}; it must be 1 (to 0.001): divide it by its length.")
        return single, 1 / length

    @contextmanager
    def _reading(self, operation: str) -> Iterator[tuple[sqlite3.Connection, Snapshot]]:
        """One consistent view of rows and vectors."""
        with self._rows.reading(operation) as connection:
            try:
                snapshot = self._fresh(connection)
            except FileNotFoundError:
                # Only with WAL: a compaction switched files between our first look and our opening the old one.
                connection.execute("rollback")
                connection.execute("begin")
                snapshot = self._fresh(connection)
            yield connection, snapshot

    def _records(self, operation: str, asked: Callable[[sqlite3.Connection], list[_Stored]]) -> list[VectorRecord]:
        """The rows that `asked` finds, with their vectors; memory holds no more than these, however large the store is."""
        with self._rows.reading(operation) as connection:
            try:
                return self._with_vectors(connection, asked(connection))
            except FileNotFoundError:  # as in `_reading`
                connection.execute("rollback")
                connection.execute("begin")
                return self._with_vectors(connection, asked(connection))

    def _with_vectors(self, connection: sqlite3.Connection, rows: list[_Stored]) -> list[VectorRecord]:
        slots = [row[1] for row in rows if row[1] is not None]
        (generation,) = connection.execute("select generation from state").fetchone()
        vectors = iter(self._vector_file(generation).read(slots) if slots else ())
        return [_record(row, None if row[1] is None else next(vectors)) for row in rows]

    def _fresh(self, connection: sqlite3.Connection) -> Snapshot:
        """The vectors as this transaction sees them: the last snapshot, and what has changed since."""
        generation, slots, deaths = connection.execute("select generation, slots, deaths from state").fetchone()
        last = self._snapshot
        # One with more than this transaction sees is another thread's, which began later.
        if last is None or last.generation != generation or len(last.inverse_norms) > slots or len(last.dead) > deaths:
            last = Snapshot.empty(generation)
        known = len(last.inverse_norms)
        if known == slots and len(last.dead) == deaths:
            return last
        added = np.ones(slots - known, np.float32)
        for slot, inverse_norm in connection.execute("select slot, inverse_norm from entry where slot >= ?", (known,)):
            added[slot - known] = inverse_norm
        buried = connection.execute("select slot from death where number > ? order by number", (len(last.dead),))
        self._snapshot = snapshot = Snapshot(
            generation=generation,
            vectors=last.vectors if len(last.vectors) >= slots else self._vector_file(generation).map(slots),
            inverse_norms=np.concatenate([last.inverse_norms, added]),
            dead=np.concatenate([last.dead, _integers(buried)]),
        )
        return snapshot

    def _compact(self) -> None:
        """Move living vectors to a new file when more than half of the old one is dead."""
        with self._rows.reading("compact") as connection:
            if not _wasteful(connection):
                return
        with self._rows.writing("compact") as connection:
            if not _wasteful(connection):
                return
            generation, slots = connection.execute("select generation, slots from state").fetchone()
            living = connection.execute("select id, slot from entry where slot is not null order by slot").fetchall()
            source, target = self._vector_file(generation).map(slots), self._vector_file(generation + 1)
            for start in range(0, len(living), CHUNK_ROWS):
                target.write(start, source[[slot for _, slot in living[start : start + CHUNK_ROWS]]])
            sync_folder(self._folder)
            # In rising order every row moves down or stays, so none takes a slot that another still has.
            moves = ((slot, number) for slot, (number, _) in enumerate(living))
            connection.executemany("update entry set slot = ? where id = ?", moves)
            connection.execute("delete from death")
            connection.execute("update state set generation = generation + 1, slots = ?, deaths = 0", (len(living),))
        self._sweep()

    def _sweep(self) -> None:
        """Remove vector files of other generations: outdated ones, and what a compaction that died left."""
        if len(list(self._folder.glob("vectors-*.f32"))) < 2:
            return
        with self._rows.writing("sweep") as connection:
            (generation,) = connection.execute("select generation from state").fetchone()
            for path in self._folder.glob("vectors-*.f32"):
                if path != self._vector_file(generation).path:
                    with suppress(OSError):  # Windows keeps a file that is being read; the next opening removes it
                        path.unlink()

    def _vector_file(self, generation: int) -> VectorFile:
        dimension = 1 if self._space is None else self._space.dimension
        return VectorFile(self._folder / f"vectors-{generation}.f32", dimension)


def _wasteful(connection: sqlite3.Connection) -> bool:
    slots, deaths = connection.execute("select slots, deaths from state").fetchone()
    return bool(deaths >= COMPACT_SLOTS and 2 * deaths > slots)


def _integers(rows: Iterable[tuple[int]]) -> NDArray[np.int64]:
    return np.fromiter(chain.from_iterable(rows), np.int64)


def _page(sql: str, values: Sequence[str | float], connection: sqlite3.Connection) -> list[_Stored]:
    return connection.execute(sql, values).fetchall()


def _record(row: _Stored, vector: NDArray[np.float32] | None) -> VectorRecord:
    key, _, text, fields, payload = row
    values: dict[str, Any] = json.loads(fields)
    return VectorRecord(
        key=key,
        vector=vector,
        text=text,
        fields={name: tuple(value) if isinstance(value, list) else value for name, value in values.items()},
        payload=payload,
    )


def _order(match: Match) -> tuple[float, float, str]:
    """By cosine, best first; then by word rank; then by key. Rows without one come after those with it."""
    return (
        2.0 if match.cosine is None else -match.cosine,
        float("inf") if match.word_rank is None else match.word_rank,
        match.key,
    )
