"""The Merkle tree: the vectors of Certificate Transparency, and proofs that prove nothing."""

import hashlib
from collections.abc import Sequence

import pytest

from dnsblock.orders.transparency.merkle import (
    InvalidProof,
    Tree,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

# From google/certificate-transparency (merkle_tree_test, merkletree) and transparency-dev/merkle.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        bytes(range(0x60, 0x70)).hex(),
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAF_1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
LEAF_4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
NODE_2_3 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
NODE_4_5 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
NODE_6_7 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
NODE_4_7 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
INCLUSIONS = [  # index, size, proof
    (0, 1, []),
    (0, 2, [LEAF_1]),
    (1, 2, [ROOTS[1]]),
    (2, 3, [ROOTS[2]]),
    (1, 5, [ROOTS[1], NODE_2_3, LEAF_4]),
    (0, 8, [LEAF_1, NODE_2_3, NODE_4_7]),
    (5, 8, [LEAF_4, NODE_6_7, ROOTS[4]]),
]
CONSISTENCIES = [  # old size, size, proof
    (0, 8, []),
    (1, 1, []),
    (8, 8, []),
    (1, 8, [LEAF_1, NODE_2_3, NODE_4_7]),
    (2, 5, [NODE_2_3, LEAF_4]),
    (6, 8, [NODE_4_5, NODE_6_7, ROOTS[4]]),
]
# A certificate in a log of 3,630,887 (the same source): its hash, its index, the proof and the root.
BIG_LEAF, BIG_INDEX, BIG_SIZE = (
    "7a395c866d5ecdb0cccb623e011dbc392cd348d1d1d72776174e127a24b09c78",
    848049,
    3630887,
)
BIG_ROOT = "78316a05c9bcf14a3a4548f5b854a9adfcd46a4c034401b3ce7eb7ac2f1d0ecb"
BIG_PATH = bytes.fromhex("""
1a208aeebcd1b39fe2de247ee8db9454e1e93a312d206b87f6ca9cc6ec6f1ddd
0a1b78b383f580856f433c01a5741e160d451c185910027f6cc9f828687a40c4
3d1745789bc63f2da15850de1c12a5bf46ed81e1cc90f086148b1662e79aab3d
9095b61e14d8990acf390905621e62b1714fb8e399fbb71de5510e0aef45affe
0a332b91b8fab564e6afd1dd452449e04619b18accc0ff9aa8393cd4928451f2
2336f0181d264aed6d8f3a6507ca14a8d3b3c3a23791ac263e845d208c1ee330
b4ce56e300590500360c146c6452edbede25d4ed83919278749ee5dbe178e048
933f6ddc848ea562e4f9c5cfb5f176941301dad0c6fdb9d1fbbe34fac1be6966
b95a6222958a86f74c030be27c44f57dbe313e5e7c7f4ffb98bcbd3a03bb52f2
daeeb3ce5923defd0faeb8e0c210b753b85b809445d7d3d3cd537a9aabaa9c45
7fadd0a13e9138a2aa6c3fdec4e2275af233b94812784f66bcca9aa8e989f2bc
1864e6ba3e32878610546539734fb5eeae2529991f130c575c73a7e25a2a7c56
12842d1202b1dc6828a17ab253c02e7ce9409b5192430feba44189f39cc02d66
29af64b16fa3053c13d02ac63aa75b23aa468506e44c3a2315edc85d2dc22b11
b527b99934a0bd9edd154e449b0502e2c499bba783f3bc3dfe23364b6b532009
4584db8ae8e351ace08e01f306378a92bfd43611714814f3d834a2842d69faa8
86a9a41573b0d6e4292f01e93243d6cc65b30f06606fc6fa57390e7e90ed580f
a88b98fbe84d4c6aae8db9d1605dfac059d9f03fe0fcb0d5dff1295dacba09e6
06326dc617a6d1f7021dc536026dbfd5fffc6f7c5531d48ef6ccd1ed1569f2a1
f41fe8fdc3a2e4e8345e30216e7ebecffee26ff266eeced208a6c2a3cf08f960
40cf5bde8abb76983f3e98ba97aa36240402975674e120f234b3448911090f8d
b3222dc8658538079883d980d7fdc2bef9285344ea34338968f736b04aeb387a
""")
BIG_PROOF = [BIG_PATH[place : place + 32].hex() for place in range(0, len(BIG_PATH), 32)]


def of_hex(hashes: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(map(bytes.fromhex, hashes))


def test_roots_are_those_of_certificate_transparency():
    """RFC 6962, section 2.1, while the tree grows and afterwards."""
    tree = Tree()
    assert tree.root().hex() == ROOTS[0]
    for size, leaf in enumerate(LEAVES, start=1):
        tree.append(leaf)
        assert (tree.size, tree.root().hex()) == (size, ROOTS[size])
    assert [tree.root(size).hex() for size in range(9)] == ROOTS


def test_the_hashes_of_leaves_and_nodes_have_different_prefixes():
    """Vectors of certificate-transparency."""
    assert leaf_hash(bytes(range(16, 32))).hex().startswith("3bfb960453ebaebf")
    left, right = bytes(range(32)), bytes(range(32, 64))
    assert node_hash(left, right).hex().startswith("1a378704c17da31e")


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSIONS)
def test_an_inclusion_proof_is_that_of_certificate_transparency(index: int, size: int, proof: list[str]):
    """RFC 6962, section 2.1.1."""
    tree = Tree(LEAVES)
    assert tree.inclusion(index, size) == of_hex(proof)
    verify_inclusion(leaf_hash(LEAVES[index]), index, size, of_hex(proof), bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "size", "proof"), CONSISTENCIES)
def test_a_consistency_proof_is_that_of_certificate_transparency(old: int, size: int, proof: list[str]):
    """RFC 6962, section 2.1.2."""
    assert Tree(LEAVES).consistency(old, size) == of_hex(proof)
    verify_consistency(old, size, of_hex(proof), *of_hex([ROOTS[old], ROOTS[size]]))


def test_a_certificate_in_a_real_log_is_verified():
    """A proof of 22 hashes."""
    leaf, root = of_hex([BIG_LEAF, BIG_ROOT])
    verify_inclusion(leaf, BIG_INDEX, BIG_SIZE, of_hex(BIG_PROOF), root)
    with pytest.raises(InvalidProof, match="another root"):
        verify_inclusion(leaf, BIG_INDEX - 1, BIG_SIZE, of_hex(BIG_PROOF), root)


def is_node(begin: int, end: int) -> bool:
    """Whether leaves `begin` to `end` are a subtree, as draft-ietf-plants-merkle-tree-certs defines it."""
    return begin % (1 << (end - begin - 1).bit_length()) == 0


def test_all_subtrees_up_to_130_leaves_are_those_of_the_published_vectors():
    """draft-ietf-plants-merkle-tree-certs, appendix "Subtree Test Vectors": a digest over all of them."""
    hashes, proofs = hashlib.sha256(), hashlib.sha256()
    for end in range(1, 131):
        for begin in range(end):
            if is_node(begin, end):
                tree = Tree(bytes([value]) for value in range(begin, end))
                hashes.update(f"[{begin}, {end}) {tree.root().hex()}\n".encode())
                for index in range(begin, end):
                    path = "".join(f" {sibling.hex()}" for sibling in tree.inclusion(index - begin))
                    proofs.update(f"{index} [{begin}, {end}){path}\n".encode())
    assert hashes.hexdigest() == "94a95384a8c69acea9b50d035a58285b3a777cb7a724005faa5e1f1e1190007f"
    assert proofs.hexdigest() == "ac2a8f989e44d99e399db448050ff5f19757df53cfb716aa81015d3955d8163f"


# ------- Proofs that prove nothing -------


def altered(proof: Sequence[bytes], root: bytes) -> list[tuple[bytes, ...]]:
    """Proofs that differ from a valid one, as the test data of transparency-dev/merkle does."""
    whole = tuple(proof)
    flipped = [
        (*whole[:place], bytes([whole[place][0] ^ 8]) + whole[place][1:], *whole[place + 1 :])
        for place in range(len(whole))
    ]
    without = [whole[:-1], whole[1:]] if whole else []
    return [*flipped, *without, (*whole, b""), (*whole, root), (root, *whole), (b"\0" * 32, *whole)]


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSIONS)
def test_an_altered_inclusion_proof_is_invalid(index: int, size: int, proof: list[str]):
    """Another hash, one more or less, another place, another size, another root."""
    leaf, valid, root = leaf_hash(LEAVES[index]), of_hex(proof), bytes.fromhex(ROOTS[size])
    for other in altered(valid, root):
        with pytest.raises(InvalidProof):
            verify_inclusion(leaf, index, size, other, root)
    for wrong in (index - 1, index + 1, index ^ 2, size, -1):
        with pytest.raises(InvalidProof):
            verify_inclusion(leaf, wrong, size, valid, root)
    for wrong in (size * 2, size // 2, 0, -1):
        with pytest.raises(InvalidProof):
            verify_inclusion(leaf, index, wrong, valid, root)
    for wrong_root in (b"", b"\0" * 32, bytes.fromhex(ROOTS[0])):
        with pytest.raises(InvalidProof):
            verify_inclusion(leaf, index, size, valid, wrong_root)


@pytest.mark.parametrize(("old", "size", "proof"), CONSISTENCIES)
def test_an_altered_consistency_proof_is_invalid(old: int, size: int, proof: list[str]):
    """Also for equal trees and for the empty one, whose proofs are empty."""
    valid, old_root, root = of_hex(proof), bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[size])
    for other in altered(valid, root):
        with pytest.raises(InvalidProof):
            verify_consistency(old, size, other, old_root, root)
    for roots in ((b"\0" * 32, root), (root, old_root), (old_root, b"\0" * 32)):
        if roots != (old_root, root) and (old != 0 or roots[0] != old_root):
            with pytest.raises(InvalidProof):
                verify_consistency(old, size, valid, *roots)
    for sizes in ((size + 1, size), (-1, size)):
        with pytest.raises(InvalidProof):
            verify_consistency(*sizes, valid, old_root, root)


def test_leaves_and_trees_that_do_not_exist_have_no_proof():
    """Neither beyond the end nor before the beginning."""
    tree = Tree(LEAVES)
    for index, size in ((8, 8), (-1, 8), (3, 3), (0, 0), (0, 9)):
        with pytest.raises(ValueError, match="no"):
            tree.inclusion(index, size)
    for old, size in ((9, 9), (5, 4), (-1, 4)):
        with pytest.raises(ValueError, match="no"):
            tree.consistency(old, size)
    with pytest.raises(ValueError, match="no 9 leaves"):
        tree.root(9)


@pytest.mark.parametrize("size", range(18))
def test_a_tree_of_many_hashes_at_once_is_the_same_and_grows(size: int):
    """A startup makes it from the whole ledger; later records are appended."""
    leaves = [bytes([number]) for number in range(size)]
    made, grown = Tree.of_hashes(bytearray().join(map(leaf_hash, leaves))), Tree(leaves)
    for more in (b"one", b"two", b"three"):
        assert (made.size, made.root()) == (grown.size, grown.root())
        assert all(made.inclusion(index) == grown.inclusion(index) for index in range(made.size))
        assert all(made.consistency(old) == grown.consistency(old) for old in range(made.size))
        made.append(more)
        grown.append(more)
