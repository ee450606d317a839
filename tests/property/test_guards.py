"""The guards for orders equal a naive model that compares the names one by one."""

from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList

from dnsblock.orders.entry import Entry
from dnsblock.orders.guards import GuardContext, is_covered, judge, released_by_acks
from dnsblock.orders.order import Order
from dnsblock.orders.popular import NameSet, shipped
from dnsblock.suffixes import icann_suffixes, private_suffix, private_suffixes, public_suffix

START = datetime(2026, 1, 1, tzinfo=UTC)
DEPTH = 3
# Every name of up to three labels below `example`, and one more label: what an entry with `below` covers.
UNIVERSE = [
    ".".join([*labels, "example"])
    for count in range(DEPTH + 2)
    for labels in product(["a", "b", "www"], repeat=count)
]
NAMES = st.sampled_from([name for name in UNIVERSE if 0 < name.count(".") <= DEPTH])
ENTRIES = st.builds(Entry, NAMES, st.sampled_from(["exact", "subtree", "below"]))
SETS = st.lists(NAMES, max_size=4, unique=True)
ICANN = PublicSuffixList(only_icann=True)
BOTH = PublicSuffixList()


def ordered(entries: list[Entry], action: str = "block") -> Order:
    return Order("1.yaml", "0" * 64, "a", "b-1", action, START, START, entries=tuple(entries))


def is_at_or_below(name: str, other: str) -> bool:
    return name == other or name.endswith(f".{other}")


def covers(entry: Entry, name: str) -> bool:
    """Whether a query for this name would be blocked."""
    if entry.match == "exact":
        return name == entry.name
    return is_at_or_below(name, entry.name) and (entry.match == "subtree" or name != entry.name)


def expected_code(entry: Entry, protected: list[str], popular: list[str]) -> str | None:
    blocked = [name for name in UNIVERSE if covers(entry, name)]
    if any(is_at_or_below(name, own) for name in blocked for own in protected):
        return "PROTECTED"
    is_listed = entry.name in popular or entry.name in [f"www.{name}" for name in popular]
    return "POPULAR" if is_listed or set(blocked) & set(popular) else None


@given(st.lists(ENTRIES, min_size=1, max_size=6), SETS, SETS)
def test_verdicts_equal_those_of_a_model_that_lists_all_blocked_names(entries, protected, popular):
    """No entry that blocks a protected name, or a name below one, is ever accepted."""
    context = GuardContext(NameSet.of(protected), NameSet.of(popular))
    found = {one.index: one.code for one in judge(ordered(entries), context)}
    codes = {at: expected_code(entry, protected, popular) for at, entry in enumerate(entries)}
    assert found == {at: code for at, code in codes.items() if code}


@given(
    st.lists(ENTRIES, min_size=1, max_size=6),
    st.lists(NAMES, min_size=1, max_size=4, unique=True),
    SETS,
    st.lists(st.sampled_from(["PROTECTED", "POPULAR", "BULK"]), max_size=3),
    st.booleans(),
)
def test_only_the_role_override_opens_a_protected_name(entries, protected, popular, acks, may_override):
    """No ack does, whatever the number of signatures."""
    context = GuardContext(NameSet.of(protected), NameSet.of(popular), may_override=may_override)
    judged = judge(ordered(entries), context)
    refused = {one.index for one in released_by_acks(judged, acks, 9, 1) if one.verdict == "refused"}
    for index, entry in enumerate(entries):
        blocked = [name for name in UNIVERSE if covers(entry, name)]
        is_hit = any(is_at_or_below(name, own) for name in blocked for own in protected)
        assert (index in refused) is (is_hit and not may_override)


@given(
    st.lists(ENTRIES, min_size=1, max_size=6), SETS, SETS, st.sampled_from(["unblock", "revoke", "exempt"])
)
def test_lifting_is_never_held_or_refused(entries, protected, popular, action):
    """Whatever it names."""
    assert judge(ordered(entries, action), GuardContext(NameSet.of(protected), NameSet.of(popular))) == ()


@given(st.lists(ENTRIES, min_size=1, max_size=6), st.lists(ENTRIES, max_size=6))
def test_an_entry_is_noted_as_blocked_if_one_in_force_covers_all_of_its_names(entries, former):
    """The names of several entries in force together are not compared: the note is a hint."""
    in_force = {(entry.name, entry.match) for entry in former}
    found = [entry.name for entry in entries if is_covered(entry.name, entry.match, in_force)]
    assert found == [
        entry.name
        for entry in entries
        if any(all(covers(one, name) for name in UNIVERSE if covers(entry, name)) for one in former)
    ]


@given(st.permutations(range(6)), st.lists(ENTRIES, min_size=6, max_size=6), SETS, SETS)
def test_the_sequence_of_the_entries_changes_no_verdict(permutation, entries, protected, popular):
    """Each entry is judged alone."""
    context = GuardContext(NameSet.of(protected), NameSet.of(popular))
    moved = judge(ordered([entries[at] for at in permutation]), context)
    assert sorted((permutation[one.index], one.code) for one in moved) == [
        (one.index, one.code) for one in judge(ordered(entries), context)
    ]


# ------- Suffixes, compared with the package publicsuffixlist -------

RULES = sorted(
    {
        *(name for section in (icann_suffixes(), private_suffixes()) for name in section.names),
        *(name for section in (icann_suffixes(), private_suffixes()) for name in section.parents),
        *(f"x.{name}" for section in (icann_suffixes(), private_suffixes()) for name in section.parents),
        *(name for section in (icann_suffixes(), private_suffixes()) for name in section.exceptions),
    }
)


@given(st.sampled_from(RULES), st.lists(st.sampled_from(["a", "www", "city"]), max_size=2))
def test_a_suffix_is_what_the_public_suffix_list_calls_one(rule, labels):
    """publicsuffix.org/list: the algorithm, for names at, below and above every rule."""
    name = ".".join([*labels, rule])
    for one in (name, name.partition(".")[2], name.partition(".")[2].partition(".")[2]):
        if not one:
            continue
        assert (public_suffix(one, is_wide=False) is not None) is ICANN.is_public(one)
        if public_suffix(one, is_wide=False) is None:
            assert (private_suffix(one, is_wide=False) is not None) is BOTH.is_public(one)


@given(st.sampled_from(RULES))
def test_an_entry_above_a_suffix_is_never_accepted(rule):
    """Half a name may be what is left of a line: whatever covers a suffix covers strangers."""
    context = GuardContext(NameSet.of(()), NameSet.of(()))
    higher = rule
    while higher := higher.partition(".")[2]:
        for match in ("subtree", "below"):
            codes = [one.code for one in judge(ordered([Entry(higher, match)]), context)]
            assert codes in (["PUBLIC_SUFFIX"], ["PRIVATE_SUFFIX"])


@given(st.sampled_from(sorted(shipped().names.names)), st.sampled_from(["exact", "subtree", "below"]))
def test_no_popular_name_of_the_package_is_ever_accepted(name, match):
    """Without a release, that is."""
    context = GuardContext(NameSet.of(()), shipped().names)
    assert judge(ordered([Entry(name, match)]), context)
    higher = name.partition(".")[2]
    assume(match != "exact")
    assert judge(ordered([Entry(higher, match)]), context)


@pytest.mark.parametrize("rule", ["*.kawasaki.jp", "*.compute.amazonaws.com"])
def test_the_rules_with_a_wildcard_are_among_those_that_are_compared(rule: str):
    """They are the ones whose parents are no suffixes themselves."""
    assert rule.replace("*", "x") in RULES
