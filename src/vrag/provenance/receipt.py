"""Receipts as signed entries of the ledger: take-downs, erasures, decisions, and a change of the key.

The words of a receipt (who, why) stand in its entry as keyed digests, like the words of every record. The table of receipts
keeps them readable, and `read_receipt` shows that entry and row say the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Final, Literal

from attrs import frozen

from vrag.clock import Clock, SystemClock
from vrag.errors import UsageError, VerificationError
from vrag.interfaces import Signer
from vrag.provenance.drafting import Run, draft
from vrag.provenance.signing import sign_envelope
from vrag.provenance.statement import Statement
from vrag.provenance.wording import Commit, Commitments, plain
from vrag.values.canonical import JSON, canonical_json
from vrag.workspace.ledger import Ledger, LedgerReceipt, Signed

__all__ = ["KEY_ROTATION", "RECEIPTS", "ReadReceipt", "ReceiptSigner", "read_receipt", "rotate_key", "row_text"]

KEY_ROTATION: Final = "key rotation"
"""A receipt about the id of a new key, signed by the old one and by the new one."""

RECEIPTS: Final = "Every receipt is signed, and says what was signed"

_DIGEST: Final = re.compile(r"(?:.*/)?([0-9a-f]{64})", re.DOTALL)
# Ids, digests and times say nothing of a person; any other text of a body might.
_SAYS_NO_WORDS: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?/)?[0-9a-f]{64}"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,15}Z"
)
_OPEN_KEYS: Final = frozenset({"state", "decision", "operation", "note", "token"})


class ReceiptSigner:
    """Makes the signed entry of a receipt; give it to `Ledger.add_receipt` and `Ledger.erase_text` as `sign`."""

    def __init__(
        self,
        signer: Signer,
        *,
        library_version: str,
        text: Literal["keyed", "text"] = "keyed",
        clock: Clock | None = None,
        second: Signer | None = None,
    ) -> None:
        """Sign with `signer`, and with `second` too where one is given; `text` is that of `Policy`."""
        self._signer = signer
        self._second = second
        self._version = library_version
        self._text: Literal["keyed", "text"] = text
        self._clock = clock or SystemClock()

    def __call__(self, receipt: LedgerReceipt) -> Signed:
        """The receipt as a statement in its envelope."""
        commit = Commitments(self._clock, policy=self._text)
        body = json.loads(receipt.body)
        match = _DIGEST.fullmatch(receipt.subject)
        sha256 = match[1] if match else hashlib.sha256(receipt.subject.encode()).hexdigest()
        record_id = f"receipt-{self._clock.token_bytes(16).hex()}"
        made = draft(
            kind="receipt",
            record_id=record_id,
            subjects=[{"name": receipt.subject, "digest": {"sha256": sha256}}],
            asked={
                "receipt": receipt.kind,
                "by": commit("receipt by", receipt.by),
                "reason": commit("receipt reason", receipt.reason),
                "body": _guarded(plain(body, scrub=True), commit),
                # Opens with the text that the row has, so that no member of the row can change alone.
                "row": commit("receipt row", row_text(receipt)),
            },
            made={"number": receipt.seq},
            inputs=[],
            run=Run(invocation=record_id, started_at=receipt.at, finished_at=receipt.at, library_version=self._version),
            commit=commit,
        )
        envelope = sign_envelope(made.payload, self._signer)
        if self._second is not None:
            envelope = _both(envelope, sign_envelope(made.payload, self._second))
        return Signed(draft=made, envelope=envelope, public_key=self._signer.public_key)


def _both(first: bytes, second: bytes) -> bytes:
    whole = json.loads(first)
    return canonical_json({**whole, "signatures": whole["signatures"] + json.loads(second)["signatures"]})


def row_text(receipt: LedgerReceipt) -> str:
    """The text whose keyed digest the entry of a receipt holds."""
    return canonical_json(
        {
            "number": receipt.seq,
            "kind": receipt.kind,
            "subject": receipt.subject,
            "by": receipt.by,
            "reason": receipt.reason,
            "at": receipt.at,
            "body": receipt.body,
        }
    ).decode()


def _guarded(value: JSON, commit: Commit, *, stays: bool = False) -> JSON:
    if isinstance(value, str):
        return value if stays or _SAYS_NO_WORDS.fullmatch(value) else commit("receipt body", value)
    if isinstance(value, dict):
        return {key: _guarded(one, commit, stays=key in _OPEN_KEYS) for key, one in value.items()}
    return [_guarded(one, commit) for one in value] if isinstance(value, list) else value


@frozen(kw_only=True)
class ReadReceipt:
    """What the entry of a receipt says openly."""

    number: int
    kind: str
    subject: str
    at: str
    body: JSON
    row_digest: str
    """Keyed digest over the row of the table."""


def read_receipt(statement: Statement) -> ReadReceipt:
    """The open part of a receipt's entry.

    Raises:
        VerificationError: It is none, or not in its form.
    """
    try:
        build = statement.content["predicate"]["buildDefinition"]
        asked, made = build["externalParameters"], build["internalParameters"]
        found = ReadReceipt(
            number=made["number"],
            kind=asked["receipt"],
            subject=statement.content["subject"][0]["name"],
            at=statement.content["predicate"]["runDetails"]["metadata"]["finishedOn"],
            body=asked["body"],
            row_digest=asked["row"]["hmac-sha256"],
        )
    except (KeyError, TypeError, IndexError) as error:
        raise VerificationError("The entry is not in the form of a receipt.", promise=RECEIPTS) from error
    texts = (found.kind, found.subject, found.at, found.row_digest)
    if statement.kind != "receipt" or type(found.number) is not int or not all(isinstance(one, str) for one in texts):
        raise VerificationError("The entry is not in the form of a receipt.", promise=RECEIPTS)
    return found


def rotate_key(
    ledger: Ledger, old: Signer, new: Signer, *, by: str, reason: str, library_version: str, clock: Clock | None = None
) -> int:
    """State in the ledger, by a receipt under both keys, that `new` signs from here on.

    Returns:
        Number of the receipt.

    Raises:
        UsageError: Both are one key, or `by` or `reason` is empty.
    """
    if old.keyid == new.keyid:
        raise UsageError("The old and the new key are the same; there is nothing to state.")
    body = {"old": old.keyid, "new": new.keyid}
    sign = ReceiptSigner(old, second=new, library_version=library_version, clock=clock)
    return ledger.add_receipt(kind=KEY_ROTATION, subject=new.keyid, by=by, reason=reason, body=body, sign=sign)
