"""Which counter counts for which order."""

import pytest

from dnsblock._engine import Answer, Rule
from dnsblock.policy.order_counters import MOST, OrderCounters


def test_each_order_of_each_issuer_has_its_own_counter():
    """For the life of the process; 0 is of no order."""
    counters = OrderCounters()
    numbers = [counters.number(issuer, number) for issuer in ("a", "b") for number in ("1", "2")]
    assert numbers == [1, 2, 3, 4]
    assert counters.number("b", "1") == 3
    expected = {("a", "1"): 0, ("a", "2"): 0, ("b", "1"): 17, ("b", "2"): 0}
    assert list(counters.blocked({3: 17}).items()) == list(expected.items())
    assert counters.blocked_by("b", "1", {3: 17}) == 17
    assert counters.blocked_by("b", "2", {3: 17}) == 0
    assert counters.blocked_by("c", "1", {3: 17}) is None


def test_when_all_counters_are_in_use_later_orders_have_none():
    """The orders before them keep theirs."""
    counters = OrderCounters(most=2)
    assert [counters.number("a", number) for number in "12332"] == [1, 2, 0, 0, 2]
    assert counters.blocked({0: 5, 1: 1, 2: 2}) == {("a", "1"): 1, ("a", "2"): 2}
    assert counters.blocked_by("a", "3", {0: 5}) is None


def test_the_engine_has_as_many_counters():
    """It refuses a number that it does not have."""
    answer = Answer("nxdomain", ttl=1)
    Rule(answer, "order", counter=MOST)
    with pytest.raises(ValueError, match=str(MOST + 1)):
        Rule(answer, "order", counter=MOST + 1)
