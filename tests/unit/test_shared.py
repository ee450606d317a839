"""Mappings that share what did not change (dnsblock/orders/shared.py)."""

from hypothesis import given
from hypothesis import strategies as st

from dnsblock.orders.shared import Lineage, SharedDict

KEYS = st.integers(0, 300)
STEPS = st.lists(
    st.tuples(st.sampled_from(["set", "delete", "copy", "back"]), KEYS, st.integers(0, 3)), max_size=400
)


def assert_same(shared: SharedDict[int, int], plain: dict[int, int]) -> None:
    assert list(shared) == list(plain)
    assert list(shared.items()) == list(plain.items())
    assert list(shared.values()) == list(plain.values())
    assert len(shared) == len(plain)
    assert shared == plain


@given(st.dictionaries(KEYS, st.integers(0, 3)), STEPS)
def test_copies_of_a_shared_dict_are_those_of_a_dict(
    content: dict[int, int], steps: list[tuple[str, int, int]]
):
    """The naive twin is a dict that is copied completely."""
    versions = [(SharedDict(content), dict(content))]
    shared, plain = versions[0]
    for what, key, value in steps:
        if what == "set":
            shared[key] = plain[key] = value
        elif what == "delete" and key in plain:
            del shared[key]
            del plain[key]
        elif what == "copy":
            versions.append((shared, plain))
            shared, plain = shared.copy(), dict(plain)
        elif what == "back":
            versions.append((shared, plain))
            shared, plain = versions[key % len(versions)]
            shared, plain = shared.copy(), dict(plain)
        assert shared.get(key, 7) == plain.get(key, 7)
        assert (key in shared) == (key in plain)
    for one, other in [*versions, (shared, plain)]:
        assert dict(one) == other
        assert len(one) == len(other)


def test_a_shared_dict_keeps_the_sequence_of_its_keys():
    """Orders are shown in the sequence of the ledger."""
    shared, plain = SharedDict(dict.fromkeys(range(1000), 0)), dict.fromkeys(range(1000), 0)
    for number in (1001, 5, 1000, 999):
        shared = shared.copy()
        shared[number] = plain[number] = 1
        assert_same(shared, plain)
    del shared[5], plain[5]
    assert_same(shared, plain)


@given(st.lists(st.tuples(st.integers(0, 20), st.sets(st.sampled_from("abcdef"))), max_size=20))
def test_two_versions_differ_at_most_in_what_was_touched_since_their_last_common_one(
    steps: list[tuple[int, set[str]]],
):
    """Versions branch: a draft, and what the ledger has recorded instead."""
    versions: list[tuple[Lineage, dict[str, int]]] = [(Lineage(), dict.fromkeys("abcdef", 0))]
    for number, (base, touched) in enumerate(steps, 1):
        lineage, content = versions[base % len(versions)]
        changed = content | dict.fromkeys(touched, number)
        versions.append((lineage.then(frozenset(touched)), changed))
    for one, own in versions:
        for two, other in versions:
            differing = {key for key in own if own[key] != other[key]}
            assert differing <= (one.between(two) or set())
            assert one.between(two) is not None


def test_versions_without_a_known_common_one_are_compared_completely():
    """Another ledger, or very many steps."""
    first = Lineage()
    assert first.between(Lineage()) is None
    latest = first
    for _ in range(2 * Lineage._KEPT):
        latest = latest.then(frozenset("a"))
    assert latest.between(first) is None
    assert latest.between(latest) == set()
