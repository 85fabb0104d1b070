"""Merkle trees and their proofs: that an entry is in a tree, and that a tree grew out of a smaller one.

Sources: RFC 6962, section 2.1 (tree and proofs), and RFC 9162, sections 2.1.3.2 and 2.1.4.2 (how proofs are checked); both
checked 2026-11-20.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from vrag.errors import UsageError
from vrag.workspace.tree import NodeAt, climb, leaf_hash, node_hash

__all__ = [
    "EMPTY_ROOT",
    "MemoryTree",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root_at",
    "verify_consistency",
    "verify_inclusion",
]

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


class MemoryTree:
    """A tree in memory; it keeps the hash of every complete subtree, so every smaller tree is in it too."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self.levels: list[list[bytes]] = [[]]
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self.levels[0])

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash at the end."""
        for level, _position, found in climb(self.size, leaf, self.node):
            if level == len(self.levels):
                self.levels.append([])
            self.levels[level].append(found)

    def node(self, level: int, position: int) -> bytes:
        """The hash of a complete subtree."""
        return self.levels[level][position]

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` leaves; None is all."""
        return root_at(self.size if size is None else size, self.node)


def root_at(size: int, node: NodeAt) -> bytes:
    """The root of the first `size` leaves."""
    return _range(0, size, node) if size else EMPTY_ROOT


def inclusion_proof(seq: int, size: int, node: NodeAt) -> list[bytes]:
    """The hashes that lead from leaf `seq` to the root of the first `size` leaves, lowest first.

    Raises:
        UsageError: There is no such leaf.
    """
    if not 0 <= seq < size:
        raise UsageError(f"A tree of {size} leaves has no leaf {seq}.")
    start, end, found = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if seq < middle:
            found.append(_range(middle, end, node))
            end = middle
        else:
            found.append(_range(start, middle, node))
            start = middle
    return found[::-1]


def consistency_proof(old: int, new: int, node: NodeAt) -> list[bytes]:
    """The hashes that show that the tree of `new` leaves begins with that of `old`; none where one of them says it all.

    Raises:
        UsageError: `old` is larger than `new`.
    """
    if not 0 <= old <= new:
        raise UsageError(f"A tree of {new} leaves has no beginning of {old}.")
    if old in {0, new}:
        return []
    start, end, complete, found = 0, new, True, []
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            found.append(_range(middle, end, node))
            end = middle
        else:
            found.append(_range(start, middle, node))
            start, complete = middle, False
    return [*([] if complete else [_range(start, end, node)]), *found[::-1]]


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _range(start: int, end: int, node: NodeAt) -> bytes:
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return node(level, start >> level)
    middle = start + _split(count)
    return node_hash(_range(start, middle, node), _range(middle, end, node))


def verify_inclusion(leaf: bytes, seq: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` leads from the leaf hash at `seq` to the root of `size` leaves."""
    if not 0 <= seq < size:
        return False
    at, last, found = seq, size - 1, leaf
    for sister in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(sister, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, sister)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the tree of `new` leaves begins with that of `old` leaves."""
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    if not 0 < old < new:
        return False
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    older = newer = path[0]
    for sister in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            older, newer = node_hash(sister, older), node_hash(sister, newer)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            newer = node_hash(newer, sister)
        at, last = at >> 1, last >> 1
    return last == 0 and older == old_root and newer == new_root
