"""The tree and its proofs agree with an independent implementation, and no other proof passes."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree, InvalidProof, verify_consistency, verify_inclusion

from vrag.errors import UsageError
from vrag.provenance import merkle
from vrag.provenance.merkle import EMPTY_ROOT, MemoryTree, consistency_proof, inclusion_proof, leaf_hash

SIZES = [*range(1, 34), 63, 64, 65, 100, 127, 128, 130]
DATA = [f"entry {number}".encode() for number in range(max(SIZES))]
PEER = InmemoryTree(algorithm="sha256")
for one in DATA:
    PEER.append_entry(one)
OURS = MemoryTree(map(leaf_hash, DATA))


def path(proof):
    return [bytes.fromhex(one) for one in proof.serialize()["path"]]


@pytest.mark.parametrize("size", [0, *SIZES])
def test_roots_are_those_of_the_peer(size):
    assert OURS.root(size) == (PEER.get_root(size) if size else EMPTY_ROOT)
    assert MemoryTree(map(leaf_hash, DATA[:size])).root() == OURS.root(size)


@pytest.mark.parametrize("size", SIZES)
def test_inclusion_proofs_pass_at_the_peer_and_its_at_ours(size):
    root = OURS.root(size)
    for seq in range(0, size, max(1, size // 17)):
        leaf = leaf_hash(DATA[seq])
        proof = PEER.prove_inclusion(seq + 1, size)  # it counts from 1
        ours = inclusion_proof(seq, size, OURS.node)
        assert sorted(path(proof)) == sorted([leaf, *ours])  # it has the leaf in its path, in an order of its own
        verify_inclusion(leaf, root, proof)
        assert merkle.verify_inclusion(leaf, seq, size, ours, root)


@pytest.mark.parametrize("new", SIZES)
def test_the_roots_of_the_peer_are_consistent_by_our_proofs_and_by_its(new):
    for old in range(1, new, max(1, new // 17)):
        proof = consistency_proof(old, new, OURS.node)
        verify_consistency(PEER.get_root(old), PEER.get_root(new), PEER.prove_consistency(old, new))
        assert merkle.verify_consistency(old, new, PEER.get_root(old), PEER.get_root(new), proof)
        with pytest.raises(InvalidProof):
            verify_consistency(b"\0" * 32, PEER.get_root(new), PEER.prove_consistency(old, new))


def rfc_consistency(old, leaves, *, complete=True):
    """SUBPROOF of RFC 6962, section 2.1.2, word for word."""
    new = len(leaves)
    if old == new:
        return [] if complete else [rfc_root(leaves)]
    split = 1 << ((new - 1).bit_length() - 1)
    if old <= split:
        return [*rfc_consistency(old, leaves[:split], complete=complete), rfc_root(leaves[split:])]
    return [*rfc_consistency(old - split, leaves[split:], complete=False), rfc_root(leaves[:split])]


def rfc_root(leaves):
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + rfc_root(leaves[:split]) + rfc_root(leaves[split:])).digest()


@pytest.mark.parametrize("new", SIZES)
def test_consistency_proofs_are_those_of_the_rfc(new):
    leaves = [leaf_hash(one) for one in DATA[:new]]
    for old in range(1, new + 1):
        assert consistency_proof(old, new, OURS.node) == rfc_consistency(old, leaves)


@given(data=st.data())
def test_no_changed_proof_passes(data):
    size = data.draw(st.integers(2, 130))
    seq = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(seq, size, OURS.node)
    leaf, root = leaf_hash(DATA[seq]), OURS.root(size)
    at = data.draw(st.integers(0, len(proof) - 1))
    assert not merkle.verify_inclusion(leaf, seq, size, [*proof[:at], b"\0" * 32, *proof[at + 1 :]], root)
    assert not merkle.verify_inclusion(leaf, seq, size, proof[:at] + proof[at + 1 :], root)
    assert not merkle.verify_inclusion(leaf, seq, size, [*proof, b"\0" * 32], root)
    assert not merkle.verify_inclusion(leaf_hash(b"other"), seq, size, proof, root)
    other = data.draw(st.integers(0, size - 1))
    assert merkle.verify_inclusion(leaf, other, size, proof, root) == (other == seq)


@given(data=st.data())
def test_no_changed_history_passes(data):
    new = data.draw(st.integers(2, 130))
    old = data.draw(st.integers(1, new - 1))
    proof = consistency_proof(old, new, OURS.node)
    changed = MemoryTree([*map(leaf_hash, DATA[: old - 1]), leaf_hash(b"other")]).root()
    assert merkle.verify_consistency(old, new, OURS.root(old), OURS.root(new), proof)
    assert not merkle.verify_consistency(old, new, changed, OURS.root(new), proof)
    assert not merkle.verify_consistency(old, new, OURS.root(old), changed, proof)
    assert not merkle.verify_consistency(old, new, OURS.root(old), OURS.root(new), proof[:-1])
    assert not merkle.verify_consistency(old, new, OURS.root(old), OURS.root(new), [*proof, b"\0" * 32])


def test_a_tree_begins_with_nothing_and_with_itself():
    assert merkle.verify_consistency(0, 5, EMPTY_ROOT, OURS.root(5), [])
    assert merkle.verify_consistency(5, 5, OURS.root(5), OURS.root(5), [])
    assert not merkle.verify_consistency(5, 5, OURS.root(5), OURS.root(4), [])
    assert not merkle.verify_consistency(6, 5, OURS.root(6), OURS.root(5), [])
    assert not merkle.verify_inclusion(OURS.node(0, 0), 0, 0, [], EMPTY_ROOT)
    assert merkle.verify_inclusion(OURS.node(0, 0), 0, 1, [], OURS.root(1))
    with pytest.raises(UsageError):
        inclusion_proof(5, 5, OURS.node)
    with pytest.raises(UsageError):
        consistency_proof(6, 5, OURS.node)
