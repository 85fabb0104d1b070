"""The check of a range of entries, one by one: signature, statement, digest, leaf, index and texts. Runs in any process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from attrs import field, frozen

from vrag.errors import FormatVersionError, UsageError, VerificationError
from vrag.media.ref import MediaRef
from vrag.provenance.checkpoints import verify_checkpoint
from vrag.provenance.receipt import ReadReceipt, read_receipt
from vrag.provenance.signing import load_public_key, verify_envelope
from vrag.provenance.statement import Statement, keyed_digest, read_statement
from vrag.workspace.db import Database
from vrag.workspace.ledger import Indexed, Ledger, leaf_hash

__all__ = ["PROMISES", "Fault", "Made", "RangeResult", "Told", "check_in_file", "check_notes", "check_range"]

PROMISES: Final = {
    "order": "Entries are numbered from 0 without gaps: none was taken out",
    "signature": "Every record is what its signer signed",
    "statement": "Every record says what a record must say",
    "leaf": "The ledger's leaves are those of its entries",
    "index": "Lineage is what the records say",
    "texts": "The words kept beside a record are the words recorded",
}
"""What is checked of each entry, in this order."""

_BATCH: Final = 200


@frozen(kw_only=True)
class Fault:
    """The first entry of a range that something is wrong with."""

    seq: int
    detail: str


@frozen(kw_only=True)
class Made:
    """What an entry says was made."""

    seq: int
    kind: str
    subjects: dict[str, str]


@frozen(kw_only=True)
class Told:
    """A receipt as its entry tells it."""

    seq: int
    record_id: str
    receipt: ReadReceipt
    envelope: bytes = field(repr=False)


@frozen(kw_only=True)
class RangeResult:
    """What a range of entries is."""

    leaves: tuple[bytes, ...] = field(repr=False)
    """Computed from the envelopes."""
    faults: dict[str, Fault]
    """By name of the check."""
    signers: tuple[tuple[int, str], ...]
    """Where the signer changes: the first place of each run, and the key id."""
    keys: dict[str, bytes]
    """Public keys, DER by key id."""
    made: dict[str, Made]
    """By record id."""
    receipts: tuple[Told, ...]
    media: dict[str, tuple[int, MediaRef, bool]] = field(repr=False)
    """By SHA-256: the first entry that names it, the bytes, and whether a step made them; empty unless it was asked for."""


def check_in_file(path: Path, start: int, stop: int, *, media: bool) -> RangeResult:
    """`check_range` of the ledger in a file; for another process."""
    database = Database(path)
    try:
        return check_range(Ledger(database), start, stop, media=media)
    finally:
        database.close()


def check_range(ledger: Ledger, start: int, stop: int, *, media: bool) -> RangeResult:
    """Check the entries from `start` to before `stop`; nothing is raised for what is wrong.

    Raises:
        FormatVersionError: A newer release wrote one.
    """
    found = _Range(media=media)
    at = start
    while at < stop:
        rows = [one for one in ledger.indexed(at, min(_BATCH, stop - at)) if one.entry.seq < stop]
        if not rows:
            break
        for one in rows:
            if one.entry.seq != at:
                found.fault("order", at, f"there is no entry {at}; the next one is {one.entry.seq}")
            found.check(one)
            at = one.entry.seq + 1
    if at < stop:
        found.fault("order", at, f"there is no entry {at}, nor any after it below {stop}")
    return found.result()


class _Range:
    def __init__(self, *, media: bool) -> None:
        self._with_media = media
        self._leaves: list[bytes] = []
        self._faults: dict[str, Fault] = {}
        self._signers: list[tuple[int, str]] = []
        self._keys: dict[str, bytes] = {}
        self._keyids: dict[bytes, str] = {}
        self._made: dict[str, Made] = {}
        self._receipts: list[Told] = []
        self._media: dict[str, tuple[int, MediaRef, bool]] = {}

    def fault(self, name: str, seq: int, detail: str) -> None:
        self._faults.setdefault(name, Fault(seq=seq, detail=detail))

    def result(self) -> RangeResult:
        return RangeResult(
            leaves=tuple(self._leaves),
            faults=self._faults,
            signers=tuple(self._signers),
            keys=self._keys,
            made=self._made,
            receipts=tuple(self._receipts),
            media=self._media,
        )

    def _try(self, name: str, seq: int, work: Callable[[], None]) -> bool:
        try:
            work()
        except FormatVersionError:
            raise
        except (VerificationError, UsageError) as error:
            self.fault(name, seq, f"entry {seq}: {error.message}")
            return False
        return True

    def check(self, row: Indexed) -> None:
        entry = row.entry
        seq, leaf = entry.seq, leaf_hash(entry.envelope)
        self._leaves.append(leaf)
        if entry.leaf != leaf:
            self.fault("leaf", seq, f"entry {seq}: its leaf is not that of its envelope")
        payloads: list[bytes] = []
        read: list[Statement] = []

        def signed() -> None:
            keyid = self._keyid(entry.public_key)
            payloads.append(verify_envelope(entry.envelope, {keyid: self._keys[keyid]}))
            if not self._signers or self._signers[-1][1] != keyid:
                self._signers.append((seq, keyid))

        def stated() -> None:
            (payload,) = payloads
            statement = read_statement(payload)
            if statement.record_id != entry.record_id:
                raise VerificationError("it is listed under the id of another record", promise=PROMISES["statement"])
            if hashlib.sha256(payload).hexdigest() != entry.statement_sha256:
                raise VerificationError("it is listed under another digest", promise=PROMISES["statement"])
            if statement.kind == "receipt":
                self._receipts.append(
                    Told(
                        seq=seq,
                        record_id=entry.record_id,
                        receipt=read_receipt(statement),
                        envelope=entry.envelope,
                    )
                )
            read.append(statement)

        if self._try("signature", seq, signed) and self._try("statement", seq, stated):
            self._look(row, read[0])

    def _keyid(self, public_key: bytes) -> str:
        if public_key not in self._keyids:
            keyid, _, der = load_public_key(public_key)
            self._keyids[public_key] = keyid
            self._keys[keyid] = der
        return self._keyids[public_key]

    def _look(self, row: Indexed, statement: Statement) -> None:
        seq, lineage = row.entry.seq, statement.lineage
        if dict(row.subjects) != dict(lineage.subjects) or len(row.subjects) != len(lineage.subjects):
            self.fault("index", seq, f"entry {seq}: the index lists other things as made than the record")
        if row.inputs != lineage.inputs and sorted(row.inputs, key=str) != sorted(lineage.inputs, key=str):
            self.fault("index", seq, f"entry {seq}: the index lists other inputs than the record")
        for kind, value, key, digest in row.texts:
            if keyed_digest(key, kind, value) != digest:
                self.fault("texts", seq, f"entry {seq}: a text kept beside it ({kind[:40]!a}) was changed")
            elif digest not in statement.keyed_digests:
                self.fault("texts", seq, f"entry {seq}: a text kept beside it ({kind[:40]!a}) is not in the record")
        self._made[row.entry.record_id] = Made(seq=seq, kind=statement.kind, subjects=dict(lineage.subjects))
        if self._with_media and statement.kind != "receipt":
            self._list_media(seq, statement)

    def _list_media(self, seq: int, statement: Statement) -> None:
        content = statement.content
        dependencies = content["predicate"]["buildDefinition"]["resolvedDependencies"]
        for listed, made in ((content["subject"], True), (dependencies, False)):
            for one in listed:
                sha256 = one["digest"]["sha256"]
                try:
                    ref = MediaRef(
                        sha256=sha256, media_type=one["mediaType"], size_bytes=one["annotations"]["size_bytes"]
                    )
                except (KeyError, TypeError, ValueError):
                    self.fault("statement", seq, f"entry {seq}: the bytes {sha256} are not described soundly")
                    continue
                known = self._media.setdefault(sha256, (seq, ref, made))
                if made and not known[2]:
                    self._media[sha256] = (known[0], known[1], True)


def check_notes(notes: list[str], keys: dict[str, bytes], origin: str) -> list[tuple[int, bytes, str] | str]:
    """Size, root and key id of each checkpoint that holds; what is wrong with it where it does not."""
    found: list[tuple[int, bytes, str] | str] = []
    for note in notes:
        try:
            checkpoint, keyid = verify_checkpoint(note, keys, origin=origin)
        except VerificationError as error:
            found.append(error.message)
        else:
            found.append((checkpoint.size, checkpoint.root, keyid))
    return found
