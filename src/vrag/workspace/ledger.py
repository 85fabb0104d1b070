"""The ledger: signed envelopes in the order they were made, what they tell of lineage, and the words behind their digests.

Entries are only ever added, at 0, 1, 2 …; `leaf` is the RFC 6962 leaf hash of the envelope's bytes, and the Merkle tree over
the leaves grows in the same transaction. Words live in a table of their own, where they can be erased.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import asdict, evolve

from vrag.clock import Clock, SystemClock, rfc3339
from vrag.errors import NotFoundError, ProvenanceError, UsageError
from vrag.values.canonical import JSON, canonical_json
from vrag.workspace.db import Database
from vrag.workspace.entries import (
    Draft,
    Entry,
    Indexed,
    KeptCheckpoint,
    LedgerReceipt,
    Lineage,
    LineageInput,
    RecordedStep,
    Signed,
    SignReceipt,
    Text,
)
from vrag.workspace.tree import TreeView, grow, leaf_hash, tree_size, view

__all__ = [
    "Draft",
    "Entry",
    "Indexed",
    "KeptCheckpoint",
    "Ledger",
    "LedgerReceipt",
    "Lineage",
    "LineageInput",
    "RecordedStep",
    "SignReceipt",
    "Signed",
    "Text",
    "leaf_hash",
]


class Ledger:
    """The ledger of a workspace."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    def append(self, connection: sqlite3.Connection, draft: Draft, envelope: bytes, *, public_key: bytes) -> Entry:
        """Add a record inside the caller's transaction. The same record again changes nothing and gives its entry.

        A statement has random keys, so it is never made twice: after a crash, look with `get` before drafting again.

        Args:
            connection: From `Database.transaction`.
            draft: What was signed, its lineage and its texts.
            envelope: The draft's payload in its envelope.
            public_key: Of the signer, DER.

        Raises:
            ProvenanceError: The id is taken by a record with other bytes, or entries were removed from the end.
            VerificationError: A node was removed from the tree.
        """
        row = connection.execute("select * from entry where record_id=?", (draft.record_id,)).fetchone()
        if row is not None:
            if row["envelope"] != envelope:
                raise ProvenanceError(
                    f"The record '{draft.record_id}' is in the ledger already with other bytes, at {row['seq']}; "
                    "a record is never replaced.",
                    hint="use the recorded envelope, or record under another id",
                )
            return _entry(row)
        entry = Entry(
            seq=_size(connection),
            record_id=draft.record_id,
            statement_sha256=hashlib.sha256(draft.payload).hexdigest(),
            envelope=envelope,
            leaf=leaf_hash(envelope),
            public_key=public_key,
            recorded_at=rfc3339(self._clock.now()),
        )
        self._grow(connection, entry)
        connection.execute(
            "insert into entry(seq, record_id, statement_sha256, envelope, leaf, public_key, recorded_at)"
            " values(:seq, :record_id, :statement_sha256, :envelope, :leaf, :public_key, :recorded_at)",
            asdict(entry),
        )
        connection.executemany(
            "insert into subject values(?, ?, ?)",
            [(entry.seq, sha256, name) for name, sha256 in draft.lineage.subjects.items()],
        )
        connection.executemany(
            "insert into lineage values(?, ?, ?, ?, ?)",
            [(entry.seq, one.sha256, one.asset_id, one.knowledge_base, one.role) for one in draft.lineage.inputs],
        )
        connection.executemany(
            "insert into text values(?, ?, ?, ?, ?)",
            [(text.keyed_digest, text.key, text.kind, text.value, draft.record_id) for text in draft.texts],
        )
        return entry

    @staticmethod
    def _grow(connection: sqlite3.Connection, entry: Entry) -> None:
        size = tree_size(connection)
        if size > entry.seq:
            raise ProvenanceError(
                f"The ledger's tree has {size} entries and the ledger {entry.seq}: entries were removed from its end, and "
                "nothing is recorded on top of that.",
                hint="vrag verify",
            )
        # A ledger of an older release has entries without a tree; the first append builds it.
        kept = connection.execute("select leaf from entry where seq >= ? order by seq", (size,)).fetchall()
        grow(connection, size, [*(row["leaf"] for row in kept), entry.leaf])

    @property
    def id(self) -> str:
        """Names this ledger to others, 32 hexadecimal digits; it tells nothing of the secret id of the workspace."""
        return hashlib.sha256(f"vrag-ledger\0{self._database.workspace_id}".encode()).hexdigest()[:32]

    @property
    def path(self) -> Path:
        """The file that it is in."""
        return self._database.path

    def size(self) -> int:
        """How many entries there are: one more than the last place."""
        with self._database.read() as connection:
            return _size(connection)

    @contextmanager
    def tree(self) -> Iterator[TreeView]:
        """The stored tree, as of one moment."""
        with self._database.read() as connection:
            found = view(connection)
            if found.size >= _size(connection):
                yield found
                return
        with self._database.transaction() as connection:  # a ledger of an older release
            size = tree_size(connection)
            kept = connection.execute("select leaf from entry where seq >= ? order by seq", (size,)).fetchall()
            grow(connection, size, [row["leaf"] for row in kept])
        with self._database.read() as connection:
            yield view(connection)

    def tree_rows(self) -> Iterator[tuple[int, int, bytes]]:
        """Every stored node: level, position and hash, in that order."""
        level, position = -1, 0
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    "select level, position, hash from tree where (level, position) > (?, ?)"
                    " order by level, position limit 10000",
                    (level, position),
                ).fetchall()
            if not rows:
                return
            yield from ((row["level"], row["position"], row["hash"]) for row in rows)
            level, position = rows[-1]["level"], rows[-1]["position"]

    def add_checkpoint(self, size: int, note: str) -> None:
        """Write a checkpoint down; the first one of a size stays."""
        with self._database.transaction() as connection:
            connection.execute(
                "insert into checkpoint(size, note, at) values(?, ?, ?) on conflict(size) do nothing",
                (size, note, rfc3339(self._clock.now())),
            )

    def checkpoints(self, *, start: int = 0) -> Iterator[KeptCheckpoint]:
        """The checkpoints of `start` entries and more, smallest first."""
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    "select size, note, at from checkpoint where size >= ? order by size limit 1000", (start,)
                ).fetchall()
            if not rows:
                return
            yield from (KeptCheckpoint(**dict(row)) for row in rows)
            start = rows[-1]["size"] + 1

    def last_checkpoint(self) -> KeptCheckpoint | None:
        """The largest checkpoint."""
        with self._database.read() as connection:
            row = connection.execute("select size, note, at from checkpoint order by size desc limit 1").fetchone()
        return None if row is None else KeptCheckpoint(**dict(row))

    def indexed(self, start: int, limit: int) -> list[Indexed]:
        """At most `limit` entries from `start`, each beside its rows in the index."""
        with self._database.read() as connection:
            rows = connection.execute(
                "select * from entry where seq >= ? order by seq limit ?", (start, limit)
            ).fetchall()
            if not rows:
                return []
            ends = (rows[0]["seq"], rows[-1]["seq"])
            subjects: dict[int, list[tuple[str, str]]] = {}
            inputs: dict[int, list[LineageInput]] = {}
            texts: dict[int, list[tuple[str, str, bytes, str]]] = {}
            for seq, name, sha256 in connection.execute(
                "select seq, name, sha256 from subject where seq between ? and ?", ends
            ):
                subjects.setdefault(seq, []).append((name, sha256))
            for seq, sha256, role, asset_id, knowledge_base in connection.execute(
                "select seq, input_sha256, role, asset_id, knowledge_base from lineage where seq between ? and ?", ends
            ):
                inputs.setdefault(seq, []).append(
                    LineageInput(sha256=sha256, role=role, asset_id=asset_id, knowledge_base=knowledge_base)
                )
            for seq, kind, value, key, digest in connection.execute(
                "select seq, kind, value, key, keyed_digest from entry join text using(record_id) where seq between ? and ?",
                ends,
            ):
                texts.setdefault(seq, []).append((kind, value, key, digest))
        return [
            Indexed(
                entry=_entry(row),
                subjects=tuple(subjects.get(row["seq"], ())),
                inputs=tuple(inputs.get(row["seq"], ())),
                texts=tuple(texts.get(row["seq"], ())),
            )
            for row in rows
        ]

    def recorded_steps(self) -> Iterator[RecordedStep]:
        """What the journal, in the same file, says of steps that have a record."""
        last = ""
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    "select id, state, record_id, delivered from step"
                    " where state in ('recorded', 'delivered', 'withheld') and id > ? order by id limit 1000",
                    (last,),
                ).fetchall()
            if not rows:
                return
            for row in rows:
                delivered = None if row["delivered"] is None else json.loads(row["delivered"])
                yield RecordedStep(
                    step_id=row["id"],
                    state=row["state"],
                    record_id=row["record_id"],
                    delivered_sha256=None if delivered is None else delivered["sha256"],
                )
            last = rows[-1]["id"]

    def strays(self) -> int:
        """How many rows of the index belong to no entry."""
        with self._database.read() as connection:
            return int(
                connection.execute(
                    "select (select count(*) from subject where seq not in (select seq from entry))"
                    " + (select count(*) from lineage where seq not in (select seq from entry))"
                ).fetchone()[0]
            )

    def get(self, record_id: str) -> Entry:
        """The entry of a record.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.read() as connection:
            row = connection.execute("select * from entry where record_id=?", (record_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"No record '{record_id[:80]}' in this workspace.")
        return _entry(row)

    def entries(self, start: int = 0) -> Iterator[Entry]:
        """All entries from `start`, in order; each is read when it is asked for."""
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    "select * from entry where seq>=? order by seq limit 256", (start,)
                ).fetchall()
            if not rows:
                return
            yield from map(_entry, rows)
            start = rows[-1]["seq"] + 1

    def by_artefact(self, sha256: str) -> tuple[Entry, ...]:
        """The records about these bytes, oldest first; more than one where two steps made the same bytes."""
        with self._database.read() as connection:
            rows = connection.execute(
                "select * from entry where seq in (select seq from subject where sha256=?) order by seq", (sha256,)
            ).fetchall()
        return tuple(map(_entry, rows))

    def used_in(self, key: str) -> tuple[str, ...]:
        """Ids of the records that used an input, directly or through other records, oldest first.

        Args:
            key: An asset id, or the SHA-256 of an original, a fitted picture or an artefact.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                """
                with recursive used(seq) as (
                  select seq from lineage where input_sha256=:key or asset_id=:key
                  union
                  select lineage.seq from used join subject using(seq) join lineage on input_sha256=subject.sha256
                )
                select record_id from entry where seq in used order by seq
                """,
                {"key": key},
            ).fetchall()
        return tuple(row["record_id"] for row in rows)

    def texts(self, record_id: str) -> tuple[Text, ...]:
        """The words of a record that have not been erased, in the order they stand in it."""
        with self._database.read() as connection:
            rows = connection.execute("select * from text where record_id=? order by rowid", (record_id,)).fetchall()
        return tuple(map(_text, rows))

    def with_texts(self, record_ids: Iterable[str]) -> list[tuple[Entry, tuple[Text, ...]]]:
        """Entries of many records with their words, as `get` and `texts` give them, oldest first; unknown ids are left out."""
        wanted = json.dumps(list(record_ids))
        with self._database.read() as connection:
            rows = connection.execute(
                "select * from entry where record_id in (select value from json_each(?)) order by seq", (wanted,)
            ).fetchall()
            texts: dict[str, list[Text]] = {}
            for row in connection.execute(
                "select * from text where record_id in (select value from json_each(?)) order by rowid", (wanted,)
            ):
                texts.setdefault(row["record_id"], []).append(_text(row))
        return [(_entry(row), tuple(texts.get(row["record_id"], ()))) for row in rows]

    def erase_text(self, record_id: str, *, by: str, reason: str, sign: SignReceipt | None = None) -> int:
        """Delete the words and keys of a record and leave a receipt; the record itself stays and still verifies.

        Copies elsewhere are not reached: sidecars handed out, backups, and the journal of a step not yet delivered.

        Returns:
            How many texts were deleted; 0 leaves no receipt.

        Raises:
            NotFoundError: There is no such record.
        """
        self.get(record_id)
        with self._database.transaction() as connection:
            rows = connection.execute(
                "delete from text where record_id=? returning keyed_digest", (record_id,)
            ).fetchall()
            if rows:
                body = {"keyed_digests": sorted(row["keyed_digest"] for row in rows)}
                self._receive(connection, "erasure", record_id, by, reason, body, sign)
        self._database.forget()
        return len(rows)

    def add_receipt(
        self, *, kind: str, subject: str, by: str, reason: str, body: JSON = None, sign: SignReceipt | None = None
    ) -> int:
        """Remember an act; receipts are never changed.

        Args:
            kind: `revocation`, `erasure`, `media erasure`, `decision` …
            subject: The id of what it is about.
            by: Who decided.
            reason: Why.
            body: What there is to say beside that.
            sign: Makes its entry in the ledger, such as `vrag.provenance.receipt.ReceiptSigner`. Without one it stands
                in the table alone, where nothing would show a change.

        Returns:
            Its number.

        Raises:
            UsageError: `by` or `reason` is empty: an act without a person and a reason is no evidence.
        """
        with self._database.transaction() as connection:
            return self._receive(connection, kind, subject, by, reason, body, sign)

    def _receive(
        self,
        connection: sqlite3.Connection,
        kind: str,
        subject: str,
        by: str,
        reason: str,
        body: JSON,
        sign: SignReceipt | None,
    ) -> int:
        if not by.strip() or not reason.strip():
            raise UsageError(f"A receipt of '{kind}' names who did it and why; one of them is empty.")
        receipt = LedgerReceipt(
            seq=connection.execute("select coalesce(max(seq) + 1, 0) from receipt").fetchone()[0],
            kind=kind,
            subject=subject,
            by=by,
            reason=reason,
            at=rfc3339(self._clock.now()),
            body=canonical_json({} if body is None else body).decode(),
        )
        if sign is not None:
            made = sign(receipt)
            entry = self.append(connection, made.draft, made.envelope, public_key=made.public_key)
            receipt = evolve(receipt, record_id=entry.record_id)
        connection.execute(
            "insert into receipt(seq, kind, subject, by, reason, at, body, record_id)"
            " values(:seq, :kind, :subject, :by, :reason, :at, :body, :record_id)",
            asdict(receipt),
        )
        return receipt.seq

    def receipts(self, subject: str | None = None) -> tuple[LedgerReceipt, ...]:
        """All receipts, or those about one subject, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "select seq, kind, subject, by, reason, at, body, record_id from receipt"
                " where :subject is null or subject = :subject order by seq",
                {"subject": subject},
            ).fetchall()
        return tuple(LedgerReceipt(**dict(row)) for row in rows)


def _size(connection: sqlite3.Connection) -> int:
    # One step in the index, where a count would read it all.
    return int(connection.execute("select coalesce(max(seq) + 1, 0) from entry").fetchone()[0])


def _text(row: sqlite3.Row) -> Text:
    return Text(kind=row["kind"], value=row["value"], key=row["key"], keyed_digest=row["keyed_digest"])


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(**dict(row))
