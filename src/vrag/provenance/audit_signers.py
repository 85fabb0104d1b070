"""Who may sign a ledger, and where: keys that are trusted, and keys that one of them named as the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from vrag.errors import VerificationError
from vrag.provenance.checks import Checks
from vrag.provenance.ranges import Told
from vrag.provenance.receipt import KEY_ROTATION
from vrag.provenance.signing import verify_envelope

__all__ = ["TRUSTED", "check_signers"]

TRUSTED: Final = "Every signer is one that you trust, or was named by one that you trust"


def check_signers(
    checks: Checks,
    *,
    signers: Sequence[tuple[int, str]],
    size: int,
    known: Mapping[str, bytes],
    receipts: Sequence[Told],
    trusted: Mapping[str, bytes],
) -> tuple[dict[str, bytes], bool]:
    """Check who signed.

    Args:
        checks: Gets the check `signer`.
        signers: Where the signer changes: first entry and key id.
        size: How many entries there are.
        known: Public keys (DER) by id, of all who signed.
        receipts: Those of the ledger; a change of the key is one.
        trusted: Public keys (DER) by id; with none, all must follow from the first signer.

    Returns:
        The keys that may sign, DER by key id; and whether all signers follow from a trusted one.
    """
    keys = {**known, **trusted}
    if not signers:
        checks.skip("signer", TRUSTED, "there is no entry")
        return dict(trusted), bool(trusted)
    spans = _spans(receipts, keys, set(trusted) or {signers[0][1]}, size)
    accepted = {keyid: keys[keyid] for keyid in spans if keyid in keys}
    ends = [seq for seq, _ in signers[1:]] + [size]
    for (seq, keyid), end in zip(signers, ends, strict=True):
        start, stop = spans.get(keyid, (0, -1))
        if start <= seq and end - 1 <= stop:
            continue
        wrong = stop + 1 if start <= seq <= stop else seq
        how = "which nobody has named as a new key"
        if keyid in spans:
            how = "which was not to sign there"
        elif trusted:
            how = "which no key that you trust has named"
        checks.add("signer", TRUSTED, f"entry {wrong} is signed by {keyid}, {how}", ok=False, seq=wrong)
        return accepted, False
    shown = ", ".join(dict.fromkeys(keyid for _, keyid in signers))
    if trusted:
        checks.add("signer", TRUSTED, f"signed by {shown}", ok=True)
    else:
        checks.skip("signer", TRUSTED, f"SIGNED BY UNKNOWN KEYS {shown}: give the public key that you trust")
    return accepted, bool(trusted)


def _spans(
    receipts: Sequence[Told], keys: Mapping[str, bytes], roots: set[str], size: int
) -> dict[str, tuple[int, int]]:
    """From which entry to which a key may sign. It takes the signatures of both to hand over."""
    changes = [
        (told.seq, old, new) for told in receipts for old, new in (_change(told),) if _by_both(told, (old, new), keys)
    ]
    spans: dict[str, tuple[int, int]] = {keyid: (0, size) for keyid in roots}  # noqa: C420  # pyright reads a narrower type
    for seq, old, new in changes:
        if old in spans and spans[old][0] <= seq <= spans[old][1]:
            spans[new] = (0 if new in roots else seq + 1, size)
            spans[old] = (spans[old][0], seq)
    for seq, old, new in reversed(changes):
        if new in spans and old not in spans:
            spans[old] = (0, seq)
            spans[new] = (seq + 1, spans[new][1])
    return spans


def _change(told: Told) -> tuple[str, str]:
    body = told.receipt.body
    if told.receipt.kind != KEY_ROTATION or not isinstance(body, dict):
        return "", ""
    old, new = body.get("old"), body.get("new")
    return (old, new) if isinstance(old, str) and isinstance(new, str) else ("", "")


def _by_both(told: Told, keyids: tuple[str, str], keys: Mapping[str, bytes]) -> bool:
    try:
        for keyid in keyids:
            verify_envelope(told.envelope, {keyid: keys[keyid]})
    except (VerificationError, KeyError):
        return False
    return True
