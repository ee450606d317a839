"""The Merkle tree of RFC 6962, section 2.1, over SHA-256. Its leaves are the records of the ledger.

An inclusion proof shows that a record is in the tree, a consistency proof that one tree extends another.
Both have one hash for each level of the tree. They need nothing else of the ledger.
"""

import hashlib
from collections.abc import Iterable, Sequence

from dnsblock._engine import tree_parents

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()  # of a tree without leaves
MAX_PROOF = 64  # hashes; a tree of 2^63 leaves has no more levels


class InvalidProof(Exception):  # noqa: N818
    """A proof does not prove its claim; the message says why."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf. The prefix differs from that of a node, so neither can pass for the other."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """A tree that only grows. It keeps all complete nodes: 64 bytes for each leaf.

    An `append` computes one node on average. A root or a proof takes one step for each level. One thread may
    read while another one appends.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[bytearray] = [bytearray()]  # the complete nodes of each height, in order
        self.size = 0  # the number of leaves
        for leaf in leaves:
            self.append(leaf)

    @classmethod
    def of_hashes(cls, leaves: bytearray) -> "Tree":
        """A tree of leaves whose hashes are given, one after the other. Faster than adding each."""
        tree = cls()
        tree.size, tree._levels = len(leaves) // HASH_BYTES, [leaves]
        while parents := tree_parents(bytes(tree._levels[-1])):
            tree._levels.append(bytearray(parents))
        return tree

    def append(self, leaf: bytes) -> None:
        """Adds the data of a leaf."""
        self.append_hash(leaf_hash(leaf))

    def append_hash(self, leaf: bytes) -> None:
        """Adds the hash of a leaf."""
        self._add(leaf)
        self.size += 1  # last, since it says which nodes are complete

    def _add(self, node: bytes) -> None:
        index = self.size
        for level in self._levels:
            level.extend(node)
            if index % 2 == 0:
                return
            node = node_hash(bytes(level[-2 * HASH_BYTES : -HASH_BYTES]), node)
            index //= 2
        self._levels.append(bytearray(node))

    def until(self, size: int) -> "Tree":
        """A tree of the first `size` leaves."""
        tree = Tree()
        tree.size = self._checked(size)
        tree._levels = [level[: (size >> height) * HASH_BYTES] for height, level in enumerate(self._levels)]
        return tree

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` leaves; of all by default."""
        size = self._checked(size)
        return self._subtree(0, size) if size else EMPTY_ROOT

    def leaf(self, index: int) -> bytes:
        """The hash of a leaf, counted from 0."""
        return self._subtree(index, index + 1)

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """The proof that a leaf, counted from 0, is among the first `size` leaves (RFC 6962, 2.1.1)."""
        begin, end = 0, self._checked(size)
        if not 0 <= index < end:
            raise ValueError(f"no leaf {index} among {end}")
        path: list[bytes] = []
        while end - begin > 1:
            middle = begin + _split(end - begin)
            if index < middle:
                path.append(self._subtree(middle, end))
                end = middle
            else:
                path.append(self._subtree(begin, middle))
                begin = middle
        return tuple(reversed(path))

    def consistency(self, old: int, size: int | None = None) -> tuple[bytes, ...]:
        """The proof that the first `size` leaves begin with the first `old` ones (RFC 6962, 2.1.2)."""
        begin, end = 0, self._checked(size)
        if not 0 <= old <= end:
            raise ValueError(f"no {old} leaves among {end}")
        if old in (0, end):
            return ()
        path: list[bytes] = []
        while old != end:
            middle = begin + _split(end - begin)
            if old <= middle:
                path.append(self._subtree(middle, end))
                end = middle
            else:
                path.append(self._subtree(begin, middle))
                begin = middle
        if begin:  # else the old root is this node, and the verifier has it
            path.append(self._subtree(begin, end))
        return tuple(reversed(path))

    def _checked(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise ValueError(f"no {size} leaves among {self.size}")
        return size

    def _subtree(self, begin: int, end: int) -> bytes:
        """The hash of the leaves `begin` to `end`, which are a node of the tree."""
        length = end - begin
        if length & (length - 1) == 0:
            height = length.bit_length() - 1
            place = (begin >> height) * HASH_BYTES
            return bytes(self._levels[height][place : place + HASH_BYTES])
        middle = begin + _split(length)
        return node_hash(self._subtree(begin, middle), self._subtree(middle, end))


def _split(length: int) -> int:
    """The largest power of two below a number of leaves: the size of the left subtree."""
    return 1 << (length - 1).bit_length() - 1


# ------- Verification -------


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verifies that the hash of a leaf is in a tree (RFC 9162, section 2.1.3.2). Raises `InvalidProof`."""
    if not 0 <= index < size:
        raise InvalidProof(f"a tree of {size} leaves has no leaf {index}")
    _, found = _climb(index, size - 1, leaf, leaf, proof)
    if found != root:
        raise InvalidProof("the proof leads to another root")


def verify_consistency(old: int, size: int, proof: Sequence[bytes], old_root: bytes, root: bytes) -> None:
    """Verifies that a tree extends an older one (RFC 9162, section 2.1.4.2). Raises `InvalidProof`."""
    if not 0 <= old <= size:
        raise InvalidProof(f"a tree of {size} leaves does not extend one of {old}")
    if old in (0, size):
        if proof:
            raise InvalidProof("the proof is too long")
        if old_root != (EMPTY_ROOT if old == 0 else root):
            raise InvalidProof("the roots differ")
        return
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        raise InvalidProof("the proof is too short")
    node, last = old - 1, size - 1
    while node % 2:
        node, last = node >> 1, last >> 1
    found_old, found = _climb(node, last, path[0], path[0], path[1:])
    if found_old != old_root:
        raise InvalidProof("the proof does not lead to the old root")
    if found != root:
        raise InvalidProof("the proof does not lead to the new root")


def _climb(node: int, last: int, old: bytes, new: bytes, siblings: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The roots above a node, whose place on its level is `node`; the last place there is `last`.

    The older root has the siblings on the left only: those on the right came later.
    """
    for sibling in siblings:
        if last == 0:
            raise InvalidProof("the proof is too long")
        if node % 2 == 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while node % 2 == 0 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise InvalidProof("the proof is too short")
    return old, new
