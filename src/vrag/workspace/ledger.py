"""The ledger: signed envelopes in the order they were made, what they tell of lineage, and the words behind their digests.

Entries are only ever added, at 0, 1, 2 …; `leaf` is the RFC 6962 leaf hash of the envelope's bytes, so a Merkle tree over
the ledger needs nothing that is not here. Words live in a table of their own, where they can be erased.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping

from attrs import asdict, field, frozen, validators

from vrag.clock import Clock, SystemClock, rfc3339
from vrag.errors import NotFoundError, ProvenanceError, UsageError
from vrag.values.canonical import JSON, canonical_json
from vrag.workspace.db import Database

__all__ = ["Draft", "Entry", "Ledger", "LedgerReceipt", "Lineage", "LineageInput", "Text", "leaf_hash"]


def leaf_hash(envelope: bytes) -> bytes:
    """SHA-256 of a zero byte and the envelope: the leaf hash of RFC 6962, section 2.1."""
    return hashlib.sha256(b"\0" + envelope).digest()


@frozen(kw_only=True)
class Text:
    """Words behind a keyed digest, with the key that opens it. Without key and words the digest tells nothing."""

    kind: str
    """What the words are: `prompt`, `caption`, `file name` …; part of what is digested."""
    value: str
    key: bytes = field(repr=False, validator=[validators.min_len(32), validators.max_len(32)])
    """32 random bytes, drawn for this text alone."""
    keyed_digest: str
    """HMAC-SHA256 under `key` of kind, a zero byte and value; hexadecimal."""


@frozen(kw_only=True)
class LineageInput:
    """One thing that a step was given."""

    sha256: str
    role: str
    asset_id: str | None = None
    """None for an artefact of another step, or a picture that was fitted."""
    knowledge_base: str | None = None


@frozen(kw_only=True)
class Lineage:
    """What a record is about and what that was made from: one node of the graph, with its edges."""

    subjects: Mapping[str, str]
    """SHA-256 by name: `raw`, `delivered` …"""
    inputs: tuple[LineageInput, ...] = ()


@frozen(kw_only=True)
class Draft:
    """A record that is ready to be signed and kept."""

    record_id: str
    payload: bytes = field(repr=False)
    """The statement: what is signed."""
    lineage: Lineage
    texts: tuple[Text, ...] = ()
    """The words behind its keyed digests."""


@frozen(kw_only=True)
class Entry:
    """One place in the ledger."""

    seq: int
    """Position, from 0, without gaps."""
    record_id: str
    statement_sha256: str
    """SHA-256 of the statement, which is the payload of the envelope."""
    envelope: bytes = field(repr=False)
    leaf: bytes = field(repr=False)
    public_key: bytes = field(repr=False)
    """Of the key that signed, SubjectPublicKeyInfo in DER: it stays when the workspace gets another key."""
    recorded_at: str
    """When the row was written, RFC 3339 UTC; not part of the leaf."""

    @property
    def statement(self) -> JSON:
        """The statement, read without checking its signature; `vrag.provenance.verify` checks."""
        return json.loads(base64.b64decode(json.loads(self.envelope)["payload"]))


@frozen(kw_only=True)
class LedgerReceipt:
    """One act beside the records that must be remembered: an erasure, a revocation."""

    seq: int
    kind: str
    subject: str
    by: str
    reason: str
    at: str
    body: str
    """Canonical JSON."""


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
            ProvenanceError: The id is taken by a record with other bytes.
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
            seq=connection.execute("select coalesce(max(seq) + 1, 0) from entry").fetchone()[0],
            record_id=draft.record_id,
            statement_sha256=hashlib.sha256(draft.payload).hexdigest(),
            envelope=envelope,
            leaf=leaf_hash(envelope),
            public_key=public_key,
            recorded_at=rfc3339(self._clock.now()),
        )
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
        return tuple(
            Text(kind=row["kind"], value=row["value"], key=row["key"], keyed_digest=row["keyed_digest"]) for row in rows
        )

    def erase_text(self, record_id: str, *, by: str, reason: str) -> int:
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
                self._receive(connection, "erasure", record_id, by, reason, body)
        self._database.forget()
        return len(rows)

    def add_receipt(self, *, kind: str, subject: str, by: str, reason: str, body: JSON = None) -> int:
        """Remember an act; receipts are never changed.

        Returns:
            Its number.

        Raises:
            UsageError: `by` or `reason` is empty: an act without a person and a reason is no evidence.
        """
        with self._database.transaction() as connection:
            return self._receive(connection, kind, subject, by, reason, body)

    def _receive(
        self, connection: sqlite3.Connection, kind: str, subject: str, by: str, reason: str, body: JSON
    ) -> int:
        if not by.strip() or not reason.strip():
            raise UsageError(f"A receipt of '{kind}' names who did it and why; one of them is empty.")
        seq: int = connection.execute("select coalesce(max(seq) + 1, 0) from receipt").fetchone()[0]
        written = canonical_json({} if body is None else body).decode()
        connection.execute(
            "insert into receipt(seq, kind, subject, by, reason, at, body) values(?, ?, ?, ?, ?, ?, ?)",
            (seq, kind, subject, by, reason, rfc3339(self._clock.now()), written),
        )
        return seq

    def receipts(self, subject: str | None = None) -> tuple[LedgerReceipt, ...]:
        """All receipts, or those about one subject, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "select seq, kind, subject, by, reason, at, body from receipt where :subject is null or subject = :subject order by seq",
                {"subject": subject},
            ).fetchall()
        return tuple(LedgerReceipt(**dict(row)) for row in rows)


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(**dict(row))
