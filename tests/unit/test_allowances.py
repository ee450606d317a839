"""Names that the operator exempts from lists: what the facts in the ledger mean together."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dnsblock.orders.allowances import NO_ALLOWANCES, Allowances, Recorded
from dnsblock.orders.facts import Allowed

from .registry import OPERATOR

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MATCHES = ("exact", "subtree")


def hour(number: float) -> datetime:
    return NOON + timedelta(hours=number)


def fact(name: str, at: float, until: float, match: str = "subtree") -> Recorded:
    """An allowance, or its end if `until` is not after `at`."""
    return Allowed(name, match, hour(until).isoformat(), "ticket 17"), hour(at), OPERATOR


HOURS = st.integers(0, 6)
FACTS = st.lists(st.builds(fact, st.sampled_from("ab"), HOURS, HOURS, st.sampled_from(MATCHES)), max_size=8)


def allowed(facts: list[Recorded], when: datetime) -> set[tuple[str, str]]:
    """The names that are allowed: the last fact about each decides. A naive equivalent."""
    last = {(one.name, one.match): (at, datetime.fromisoformat(one.until)) for one, at, _ in facts}
    return {key for key, (since, until) in last.items() if since < until and when < until}


def in_force(allowances: Allowances, when: datetime) -> set[tuple[str, str]]:
    return {one.key for one in allowances.in_force(when)}


@given(FACTS, st.integers(0, 8), HOURS)
def test_the_last_fact_about_a_name_decides_whatever_the_clock_did(facts, cut: int, now: int):
    """Read at once, as a startup does, or in two parts, as a running daemon does."""
    both = NO_ALLOWANCES.with_facts(facts[:cut]).with_facts(facts[cut:])
    assert both == NO_ALLOWANCES.with_facts(facts)
    assert in_force(both, hour(now)) == allowed(facts, hour(now))
    assert len(both.all) == len(facts)


def test_an_exception_that_was_ended_does_not_come_back_when_the_clock_is_set_back():
    """Neither it nor the record of its end opens the name again."""
    ended = NO_ALLOWANCES.with_facts([fact("a", 0, 24), fact("a", 5, 5)])
    for when in (0, 3, 5, 6):
        assert not ended.in_force(hour(when))
    assert [one.until for one in ended.at(hour(3))] == [hour(5)]
    again = ended.with_facts([fact("a", 2, 4)])
    assert in_force(again, hour(3)) == {("a", "subtree")}
