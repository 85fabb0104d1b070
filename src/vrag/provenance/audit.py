"""The check of a whole ledger or workspace: everything is computed again, and the first thing that is wrong is named.

| check | what is looked at |
| --- | --- |
| `order` | entries are numbered from 0 without gaps |
| `signature`, `statement`, `leaf`, `index`, `texts` | every entry: envelope, form and digest, leaf, lineage, words |
| `signer` | every signer is trusted, or follows a trusted one by a stated change of the key |
| `tree` | the stored Merkle tree is the one over the entries |
| `checkpoints` | every signed checkpoint in the workspace is one of this ledger |
| `outside` | so are those kept outside; without one, cutting back cannot be excluded |
| `receipts` | every receipt in the table says what its signed entry says |
| `journal` | every step that is recorded or delivered has its entry, about the file that it delivered |
| `media` | every picture and video that a record names is kept, byte for byte |
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Final, TypeVar

from attrs import asdict, field, frozen

from vrag.errors import VerificationError, VRAGError
from vrag.media.ref import MediaRef, OpenMedia
from vrag.provenance.audit_signers import check_signers
from vrag.provenance.audit_workspace import MEDIA, check_journal, check_media, check_receipts
from vrag.provenance.checkpoints import NEVER_CUT, CheckpointKeeper, origin_of, verify_checkpoint
from vrag.provenance.checks import Checks, Verdict
from vrag.provenance.merkle import MemoryTree
from vrag.provenance.ranges import PROMISES, Made, RangeResult, Told, check_in_file, check_notes, check_range
from vrag.provenance.signing import load_public_key
from vrag.values.canonical import JSON
from vrag.workspace import Workspace
from vrag.workspace.ledger import Ledger

__all__ = ["LedgerVerification", "verify_ledger", "verify_workspace"]

TREE: Final = "The tree is that of the entries: none was exchanged, moved, added or taken out"
CHECKPOINTS: Final = "Every checkpoint is one of this ledger"

_RANGE: Final = 2000
_T = TypeVar("_T")


@frozen(kw_only=True)
class LedgerVerification(Verdict):
    """What the check of a ledger found."""

    size: int
    """How many entries were checked."""
    root: str
    """Root of the Merkle tree over them, hexadecimal."""
    keyids: tuple[str, ...]
    """The keys that signed, in the order of their first entry."""
    trusted: bool
    """Whether trusted keys were given and all signers are among them, or follow from one of them."""
    excludes_cutting: bool
    """Whether a checkpoint from outside was compared. Without one, an older copy of the whole ledger looks sound."""

    def to_json(self) -> dict[str, JSON]:
        """All of it as JSON."""
        return {"ok": self.ok, **asdict(self)}


@frozen(kw_only=True)
class _Whole:
    size: int
    tree: MemoryTree = field(repr=False)
    signers: tuple[tuple[int, str], ...]
    keys: dict[str, bytes]
    made: dict[str, Made] = field(repr=False)
    receipts: tuple[Told, ...] = field(repr=False)
    media: dict[str, tuple[int, MediaRef, bool]] = field(repr=False)


class _Pool:
    """Runs functions over many arguments, in this process or in others."""

    def __init__(self, workers: int) -> None:
        # Not forked: a database connection, and whatever else the caller has open, must not be carried over.
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(workers, mp_context=context) if workers > 1 else None

    def map(self, work: Callable[..., _T], *arguments: Sequence[object]) -> Iterator[_T]:
        return (map if self._executor is None else self._executor.map)(work, *arguments)

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)


def verify_ledger(
    ledger: Ledger,
    *,
    trusted_keys: Sequence[bytes] = (),
    keepers: Sequence[CheckpointKeeper] = (),
    workers: int = 1,
) -> LedgerVerification:
    """Check every entry, the tree, every checkpoint, those kept outside, and every receipt.

    Args:
        ledger: What is checked; entries that are added meanwhile are left out.
        trusted_keys: Public keys (PEM or DER). With none, the signers need only follow from the first one.
        keepers: Where checkpoints are kept outside the workspace.
        workers: Processes that share the work. More than one are started afresh, so a script that asks for them needs
            the usual `if __name__ == "__main__"`.

    Returns:
        Every check, in order. Nothing is raised for a check that fails.

    Raises:
        FormatVersionError: A newer release wrote an entry.
        UsageError: A trusted key cannot be read.
    """
    return _verify(ledger, trusted_keys, keepers, workers, journal=False, open_media=None)


def verify_workspace(
    workspace: Workspace,
    *,
    trusted_keys: Sequence[bytes] = (),
    keepers: Sequence[CheckpointKeeper] = (),
    open_media: OpenMedia | None = None,
    workers: int = 1,
) -> LedgerVerification:
    """`verify_ledger`, and that the journal agrees and that every picture and video is kept.

    Args:
        workspace: What is checked.
        trusted_keys: As in `verify_ledger`.
        keepers: As in `verify_ledger`.
        open_media: Opens the bytes that records name, those of the knowledge bases too.
        workers: As in `verify_ledger`.

    Raises:
        FormatVersionError: A newer release wrote an entry.
        UsageError: A trusted key cannot be read.
        BackendError: A storage did not answer.
    """
    return _verify(workspace.ledger, trusted_keys, keepers, workers, journal=True, open_media=open_media)


def _verify(
    ledger: Ledger,
    trusted_keys: Sequence[bytes],
    keepers: Sequence[CheckpointKeeper],
    workers: int,
    *,
    journal: bool,
    open_media: OpenMedia | None,
) -> LedgerVerification:
    trusted = {keyid: der for keyid, _, der in map(load_public_key, trusted_keys)}
    # Read before the entries: what is kept outside is then never ahead of an honest ledger.
    outside = [(keeper.place, *_newest(keeper, ledger.id)) for keeper in keepers]
    checks = Checks()
    pool = _Pool(workers if ledger.size() > _RANGE else 1)
    try:
        whole = _check_entries(checks, ledger, pool, workers, media=open_media is not None)
        accepted, is_trusted = check_signers(
            checks,
            signers=whole.signers,
            size=whole.size,
            known=whole.keys,
            receipts=whole.receipts,
            trusted=trusted,
        )
        _check_tree(checks, ledger, whole.tree)
        _check_checkpoints(checks, ledger, whole, accepted, pool)
    finally:
        pool.close()
    excludes = _check_outside(checks, ledger, whole, accepted, outside)
    check_receipts(checks, ledger, whole.receipts)
    if journal:
        check_journal(checks, ledger, whole.made)
        if open_media is None:
            checks.skip("media", MEDIA, "no storage was given")
        else:
            check_media(checks, whole.media, open_media)
    return LedgerVerification(
        checks=tuple(checks.done),
        size=whole.size,
        root=whole.tree.root().hex(),
        keyids=tuple(dict.fromkeys(keyid for _, keyid in whole.signers)),
        trusted=is_trusted,
        excludes_cutting=excludes,
    )


def _newest(keeper: CheckpointKeeper, ledger_id: str) -> tuple[str | None, VRAGError | None]:
    try:
        return keeper.newest(ledger_id), None
    except VRAGError as error:
        return None, error


def _check_entries(checks: Checks, ledger: Ledger, pool: _Pool, workers: int, *, media: bool) -> _Whole:
    size = ledger.size()
    starts = range(0, size, _RANGE)
    stops = [min(start + _RANGE, size) for start in starts]

    def here(start: int, stop: int) -> RangeResult:
        return check_range(ledger, start, stop, media=media)

    if workers > 1 and size > _RANGE:
        results = pool.map(partial(check_in_file, ledger.path, media=media), starts, stops)
    else:
        results = map(here, starts, stops)
    tree, signers = MemoryTree(), list[tuple[int, str]]()
    keys: dict[str, bytes] = {}
    made: dict[str, Made] = {}
    receipts: list[Told] = []
    listed: dict[str, tuple[int, MediaRef, bool]] = {}
    faults: dict[str, tuple[int, str]] = {}
    for result in results:
        for leaf in result.leaves:
            tree.append(leaf)
        fresh = result.signers
        signers += fresh[1:] if signers and fresh and signers[-1][1] == fresh[0][1] else fresh
        keys |= result.keys
        made |= result.made
        receipts += result.receipts
        for name, fault in result.faults.items():
            faults.setdefault(name, (fault.seq, fault.detail))
        for sha256, (seq, ref, is_made) in result.media.items():
            known = listed.get(sha256)
            listed[sha256] = (seq, ref, is_made) if known is None else (known[0], known[1], known[2] or is_made)
    for name, promise in PROMISES.items():
        if name in faults:
            seq, detail = faults[name]
            checks.add(name, promise, detail, ok=False, seq=seq)
        else:
            checks.add(name, promise, f"{size} entries", ok=True)
    strays = ledger.strays()
    if strays and "index" not in faults:
        checks.add("index", PROMISES["index"], f"{strays} rows of the index belong to no entry", ok=False)
    return _Whole(
        size=size,
        tree=tree,
        signers=tuple(signers),
        keys=keys,
        made=made,
        receipts=tuple(receipts),
        media=listed,
    )


def _check_tree(checks: Checks, ledger: Ledger, tree: MemoryTree) -> None:
    stored = 0
    for level, position, found in ledger.tree_rows():
        if level == 0:
            stored += 1
        seq = position << level
        if seq + (1 << level) > tree.size:
            why = f"the tree has an entry {max(seq, tree.size)}, and the ledger ends before it: entries were taken from its end"
            checks.add("tree", TREE, why, ok=False, seq=max(seq, tree.size))
            return
        if tree.node(level, position) != found:
            why = (
                f"entry {seq} is not the one that was recorded there"
                if level == 0
                else f"the node {position} at level {level} is not that of the entries below it"
            )
            checks.add("tree", TREE, why, ok=False, seq=seq)
            return
    if stored == tree.size:
        checks.add("tree", TREE, f"{tree.size} leaves, root {tree.root().hex()}", ok=True)
    elif stored:
        why = f"the tree ends before entry {stored}: it was not added by recording"
        checks.add("tree", TREE, why, ok=False, seq=stored)
    else:
        checks.skip("tree", TREE, "an older release stored none; the next record makes it")


def _check_checkpoints(checks: Checks, ledger: Ledger, whole: _Whole, keys: dict[str, bytes], pool: _Pool) -> None:
    kept = [(one.size, one.note) for one in ledger.checkpoints()]
    parts = [[note for _, note in kept[at : at + _RANGE]] for at in range(0, len(kept), _RANGE)]
    many = len(parts)
    found = [one for part in pool.map(check_notes, parts, [keys] * many, [origin_of(ledger.id)] * many) for one in part]
    for (size, _), one in zip(kept, found, strict=True):
        wrong = (
            one
            if isinstance(one, str)
            else f"the checkpoint listed for {size} entries is one for {one[0]}"
            if one[0] != size
            else _against(whole.tree, one[0], one[1])
        )
        if wrong is not None:
            checks.add("checkpoints", CHECKPOINTS, wrong, ok=False, seq=min(size, whole.size))
            return
    if not kept:
        checks.skip("checkpoints", CHECKPOINTS, "there is none")
        return
    newest = kept[-1][0]
    later = "" if newest == whole.size else f"; {whole.size - newest} entries are newer than the last"
    checks.add("checkpoints", CHECKPOINTS, f"{len(kept)} of them{later}", ok=True)


def _against(tree: MemoryTree, size: int, root: bytes) -> str | None:
    if size > tree.size:
        return (
            f"the ledger has {tree.size} entries and a checkpoint of it {size}: it was cut back, or an older copy was put in "
            "its place"
        )
    if tree.root(size) != root:
        return f"the first {size} entries are not those of the checkpoint over them: the ledger was rewritten"
    return None


def _check_outside(
    checks: Checks,
    ledger: Ledger,
    whole: _Whole,
    keys: dict[str, bytes],
    outside: Sequence[tuple[str, str | None, VRAGError | None]],
) -> bool:
    compared: list[str] = []
    unread: list[str] = []
    for place, note, error in outside:
        wrong = error.message if isinstance(error, VerificationError) else None
        if note is not None:
            try:
                checkpoint, _ = verify_checkpoint(note, keys, origin=origin_of(ledger.id))
                wrong = _against(whole.tree, checkpoint.size, checkpoint.root)
                compared.append(f"{checkpoint.size} entries in {place}")
            except VerificationError as found:
                wrong = found.message
        elif error is not None:
            unread.append(f"{place} cannot be read")
        if wrong is not None:
            checks.add("outside", NEVER_CUT, f"{wrong} (checkpoint kept in {place})", ok=False)
            return True
    if compared:
        checks.add("outside", NEVER_CUT, "; ".join([*compared, *unread]), ok=True)
        return True
    why = "; ".join(["no checkpoint is kept outside the workspace", *unread])
    checks.skip(
        "outside", NEVER_CUT, f"ROLL-BACK CANNOT BE EXCLUDED: {why}. An older copy of all of it would look the same"
    )
    return False
