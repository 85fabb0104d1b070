"""The Merkle tree over the ledger, as rows: the hash of every complete subtree, so that an append writes two rows on average.

Level 0 holds the leaves by their place in the ledger; the node at (level, position) covers the 2**level leaves from
position * 2**level on. Source: RFC 6962, section 2.1 (checked 2026-11-20). Proofs are in `vrag.provenance.merkle`.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator

from attrs import field, frozen

from vrag.errors import VerificationError

__all__ = ["NodeAt", "TreeView", "climb", "grow", "leaf_hash", "node_hash", "tree_size", "view"]

NodeAt = Callable[[int, int], bytes]
"""The hash of the complete subtree at a level and a position."""


def leaf_hash(envelope: bytes) -> bytes:
    """SHA-256 of a zero byte and the envelope: the leaf hash of RFC 6962, section 2.1."""
    return hashlib.sha256(b"\0" + envelope).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of a one byte and two hashes: the node hash of RFC 6962, section 2.1."""
    return hashlib.sha256(b"\1" + left + right).digest()


@frozen(kw_only=True)
class TreeView:
    """A tree at one moment."""

    size: int
    """How many leaves it has."""
    node: NodeAt = field(repr=False)


def climb(position: int, leaf: bytes, node: NodeAt) -> Iterator[tuple[int, int, bytes]]:
    """The subtrees that the leaf at `position` completes: level, position and hash, from the leaf up."""
    level, found = 0, leaf
    yield level, position, found
    while position & 1:
        found = node_hash(node(level, position - 1), found)
        level, position = level + 1, position >> 1
        yield level, position, found


def tree_size(connection: sqlite3.Connection) -> int:
    """How many leaves the stored tree has."""
    (last,) = connection.execute("select max(position) from tree where level = 0").fetchone()
    return 0 if last is None else last + 1


def grow(connection: sqlite3.Connection, start: int, leaves: Iterable[bytes]) -> None:
    """Add leaves at the end, which is `start`."""
    for position, leaf in enumerate(leaves, start):
        # Each row is written before the next level reads it, so the whole climb sees its left sisters.
        for row in climb(position, leaf, _node(connection)):
            connection.execute("insert into tree(level, position, hash) values(?, ?, ?)", row)


def view(connection: sqlite3.Connection) -> TreeView:
    """The stored tree as this connection's transaction sees it."""
    return TreeView(size=tree_size(connection), node=_node(connection))


def _node(connection: sqlite3.Connection) -> NodeAt:
    def node(level: int, position: int) -> bytes:
        row = connection.execute("select hash from tree where level = ? and position = ?", (level, position)).fetchone()
        if row is None:
            raise VerificationError(
                f"The ledger's tree lacks its node {position} at level {level}: somebody removed it.",
                promise="The tree is that of the entries",
                hint="vrag verify",
            )
        return bytes(row[0])

    return node
