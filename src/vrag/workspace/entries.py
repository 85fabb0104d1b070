"""What the ledger takes and gives: drafts, entries, receipts, lineage, and the words behind keyed digests."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping

from attrs import field, frozen, validators

from vrag.values.canonical import JSON

__all__ = [
    "Draft",
    "Entry",
    "Indexed",
    "KeptCheckpoint",
    "LedgerReceipt",
    "Lineage",
    "LineageInput",
    "RecordedStep",
    "SignReceipt",
    "Signed",
    "Text",
]


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
    record_id: str | None = None
    """Its signed entry in the ledger; None for one that was kept before receipts were entries."""


@frozen(kw_only=True)
class Signed:
    """A draft in its envelope, with the public key (DER) of its signer."""

    draft: Draft
    envelope: bytes = field(repr=False)
    public_key: bytes = field(repr=False)


SignReceipt = Callable[[LedgerReceipt], Signed]
"""Makes the signed entry of a receipt. It is called inside the transaction that writes both."""


@frozen(kw_only=True)
class KeptCheckpoint:
    """A checkpoint as it was written down."""

    size: int
    """How many entries it covers."""
    note: str
    """A signed note; see `vrag.provenance.checkpoints`."""
    at: str


@frozen(kw_only=True)
class Indexed:
    """An entry beside what other tables say of it."""

    entry: Entry
    subjects: tuple[tuple[str, str], ...]
    """Name and SHA-256."""
    inputs: tuple[LineageInput, ...]
    texts: tuple[tuple[str, str, bytes, str], ...]
    """Kind, value, key and keyed digest, as they stand there: what somebody may have changed is no `Text` yet."""


@frozen(kw_only=True)
class RecordedStep:
    """What the journal says of a step that has a record."""

    step_id: str
    state: str
    """`recorded`, `delivered` or `withheld`."""
    record_id: str | None
    delivered_sha256: str | None
