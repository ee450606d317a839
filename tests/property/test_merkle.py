"""The Merkle tree equals the recursive definition of RFC 6962, section 2.1, at every size."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsblock.orders.transparency.merkle import (
    InvalidProof,
    Tree,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)

SIZES = st.one_of(st.integers(0, 70), st.sampled_from([127, 128, 129, 255, 256, 257, 300]))
Hashes = list[bytes]


def leaves(size: int) -> Hashes:
    return [number.to_bytes(2, "big") for number in range(size)]


def split(size: int) -> int:
    half = 1
    while half * 2 < size:
        half *= 2
    return half


def root(data: Hashes) -> bytes:
    """MTH of RFC 6962."""
    if len(data) < 2:
        return hashlib.sha256(b"\0" + data[0] if data else b"").digest()
    k = split(len(data))
    return hashlib.sha256(b"\1" + root(data[:k]) + root(data[k:])).digest()


def path(m: int, data: Hashes) -> Hashes:
    """PATH of RFC 6962."""
    if len(data) == 1:
        return []
    k = split(len(data))
    return [*path(m, data[:k]), root(data[k:])] if m < k else [*path(m - k, data[k:]), root(data[:k])]


def subproof(m: int, data: Hashes, *, is_root: bool) -> Hashes:
    """SUBPROOF of RFC 6962."""
    if m == len(data):
        return [] if is_root else [root(data)]
    k = split(len(data))
    if m <= k:
        return [*subproof(m, data[:k], is_root=is_root), root(data[k:])]
    return [*subproof(m - k, data[k:], is_root=False), root(data[:k])]


@given(SIZES, st.data())
def test_roots_and_proofs_equal_the_definition(size: int, data: st.DataObject):
    """Of the whole tree, and of an earlier state of it."""
    tree = Tree(leaves(size))
    now = data.draw(st.integers(0, size))
    assert tree.root(now) == root(leaves(now))
    if now:
        index, old = data.draw(st.integers(0, now - 1)), data.draw(st.integers(1, now))
        proof = tree.inclusion(index, now)
        assert list(proof) == path(index, leaves(now))
        verify_inclusion(leaf_hash(leaves(now)[index]), index, now, proof, tree.root(now))
        proof = tree.consistency(old, now)
        assert list(proof) == subproof(old, leaves(now), is_root=True)
        verify_consistency(old, now, proof, tree.root(old), tree.root(now))


@given(st.integers(1, 70), st.data())
def test_a_tree_with_another_leaf_is_never_proved(size: int, data: st.DataObject):
    """No proof of the true tree holds for the other one, and none of the other one for the true one."""
    changed = data.draw(st.integers(0, size - 1))
    true, other = leaves(size), leaves(size)
    other[changed] = b"forged"
    tree, forged = Tree(true), Tree(other)
    with pytest.raises(InvalidProof):
        verify_inclusion(leaf_hash(b"forged"), changed, size, tree.inclusion(changed), tree.root())
    old = data.draw(st.integers(changed + 1, size))
    for proof in (tree.consistency(old), forged.consistency(old)):
        with pytest.raises(InvalidProof):
            verify_consistency(old, size, proof, tree.root(old), forged.root())
        with pytest.raises(InvalidProof):
            verify_consistency(old, size, proof, forged.root(old), tree.root())


@given(
    *(st.integers(-1, 40), st.integers(-1, 40), st.lists(st.binary(min_size=32, max_size=32), max_size=8)),
    *(st.binary(max_size=32), st.binary(max_size=32)),
)
def test_random_proofs_are_invalid(first: int, size: int, proof: Hashes, leaf: bytes, claimed: bytes):
    """Whatever is sent, verification ends with a verdict."""
    with pytest.raises(InvalidProof):
        verify_inclusion(leaf, first, size, proof, claimed + b"x")
    if not (first == 0 <= size and not proof):
        with pytest.raises(InvalidProof):
            verify_consistency(first, size, proof, leaf, leaf + claimed + b"x")
