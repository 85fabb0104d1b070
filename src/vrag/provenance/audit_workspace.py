"""The check of what stands beside the entries of a ledger: receipts, journal, pictures and videos."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import BinaryIO, Final

from vrag.errors import ErasedError, NotFoundError, VerificationError
from vrag.media.ref import MediaRef, OpenMedia
from vrag.provenance.checks import Checks
from vrag.provenance.ranges import Made, Told
from vrag.provenance.receipt import RECEIPTS, row_text
from vrag.provenance.statement import keyed_digest
from vrag.workspace.ledger import Ledger, LedgerReceipt, RecordedStep

__all__ = ["MEDIA", "check_journal", "check_media", "check_receipts"]

JOURNAL: Final = "Every delivered video has exactly one record, and it is about the file that was delivered"
MEDIA: Final = "Pictures and videos are kept byte for byte"


def check_receipts(checks: Checks, ledger: Ledger, receipts: Sequence[Told]) -> None:
    """Every row of the table says what its entry says, and every entry of a receipt has its row."""
    told = {one.record_id: one for one in receipts}
    unsigned = count = 0
    for row in ledger.receipts():
        count += 1
        if row.record_id is None:
            unsigned += 1
            continue
        entry = told.pop(row.record_id, None)
        if entry is None:
            why = (
                f"receipt {row.seq} ({row.kind}) names an entry that the ledger has not, or that another receipt names"
            )
            checks.add("receipts", RECEIPTS, why, ok=False)
            return
        if not _same(ledger, row, entry):
            why = f"receipt {row.seq} ({row.kind}) says something else than its entry {entry.seq}"
            checks.add("receipts", RECEIPTS, why, ok=False, seq=entry.seq)
            return
    if told:
        first = min(told.values(), key=lambda one: one.seq)
        why = f"the receipt at entry {first.seq} ({first.receipt.kind[:40]!a}) was taken out of the table"
        checks.add("receipts", RECEIPTS, why, ok=False, seq=first.seq)
    elif unsigned:
        checks.skip("receipts", RECEIPTS, f"{unsigned} of {count} are not signed: nothing would show a change of them")
    else:
        checks.add("receipts", RECEIPTS, f"{count} receipts", ok=True)


def _same(ledger: Ledger, row: LedgerReceipt, entry: Told) -> bool:
    said = entry.receipt
    if (said.number, said.kind, said.subject, said.at) != (row.seq, row.kind, row.subject, row.at):
        return False
    opened = next((text for text in ledger.texts(entry.record_id) if text.keyed_digest == said.row_digest), None)
    # Erased words open nothing any more; what the entry says openly still holds.
    return opened is None or keyed_digest(opened.key, opened.kind, row_text(row)) == said.row_digest


def check_journal(checks: Checks, ledger: Ledger, made: Mapping[str, Made]) -> None:
    """Every step that is recorded, delivered or withheld has one sound entry of its own, about what it made."""
    count = 0
    owners: dict[str, str] = {}
    for step in ledger.recorded_steps():
        count += 1
        entry = made.get(step.record_id or "")
        wrong = _wrong(step, entry, owners)
        if wrong is not None:
            checks.add("journal", JOURNAL, wrong, ok=False, seq=None if entry is None else entry.seq)
            return
    checks.add("journal", JOURNAL, f"{count} steps", ok=True)


def _wrong(step: RecordedStep, entry: Made | None, owners: dict[str, str]) -> str | None:
    if entry is None or step.record_id is None:
        return f"the step {step.step_id} is {step.state}, and the ledger has no sound record of it"
    owner = owners.setdefault(step.record_id, step.step_id)
    if owner != step.step_id:
        return f"the steps {owner} and {step.step_id} claim one record"
    if step.state == "withheld":
        withheld = "delivered" not in entry.subjects
        return None if withheld else f"the step {step.step_id} is withheld; its record says that it was delivered"
    if step.delivered_sha256 is not None and step.delivered_sha256 not in entry.subjects.values():
        about = entry.subjects.get("delivered", "other bytes")
        return f"the step {step.step_id} delivered {step.delivered_sha256}; its record is about {about}"
    return None


def check_media(checks: Checks, media: Mapping[str, tuple[int, MediaRef, bool]], open_media: OpenMedia) -> None:
    """Everything that a record names is there, with the bytes that it names, or gone by decision."""
    erased = 0
    for sha256, (seq, ref, made) in sorted(media.items(), key=lambda one: one[1][0]):
        what = f"entry {seq}: the bytes {sha256} that were {'made' if made else 'given'}"
        try:
            with open_media(ref) as stream:
                found = _sha256(stream)
        except ErasedError:
            erased += 1
            continue
        except (NotFoundError, VerificationError) as error:
            checks.add("media", MEDIA, f"{what} are not kept: {error.message}", ok=False, seq=seq)
            return
        if found != sha256:
            checks.add("media", MEDIA, f"{what} are now {found}", ok=False, seq=seq)
            return
    gone = f"; {erased} gone by decision" if erased else ""
    checks.add("media", MEDIA, f"{len(media) - erased} pictures and videos{gone}", ok=True)


def _sha256(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
