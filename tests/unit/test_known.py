"""The orders about a name at a time, by the law and as they were known here (dnsblock/orders/known.py)."""

from collections.abc import Iterable
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dnsblock.orders import known, name_index
from dnsblock.orders.facts import Judged
from dnsblock.orders.known import about, known_about
from dnsblock.orders.order import Order
from dnsblock.orders.orders import EMPTY, Orders, fold
from dnsblock.orders.records import Record
from dnsblock.orders.spans import scheduled_spans, spans_of
from dnsblock.orders.state import derive
from dnsblock.orders.verdict import ACCEPTED
from dnsblock.principal import DAEMON

from .helpers import AUGUST_10, block, orders, unblock
from .ledgers import BEGIN, LAST, NAMES, Naive, hour, in_force, ledgers, replayed, times

ISSUERS = ("a", "b")
HOURS = st.integers(-1, 2 * LAST).map(lambda number: hour(number / 2))
ASKED = st.sets(st.sampled_from(NAMES), min_size=1)


def of_names(found: set, names: set[str]) -> set:
    return {(sha256, entry) for sha256, entry in found if entry.name in names}


def naive(records: list[Record], issuer: str, at: datetime) -> set:
    return Naive(replayed(records), issuer).in_force(at)


@settings(deadline=None, max_examples=300)
@given(ledgers(issuers=ISSUERS), HOURS, ASKED)
def test_the_law_is_that_of_all_orders_whenever_they_came(
    records: list[Record], at: datetime, names: set[str]
):
    """`why --at T`: an order of 2017 that came in 2026 is law in 2017."""
    law = about(fold(records), names)
    for issuer in ISSUERS:
        found = of_names(in_force(law, issuer, at), names)
        assert found == of_names(naive(records, issuer, at), names)


@settings(deadline=None, max_examples=300)
@given(ledgers(issuers=ISSUERS), HOURS, HOURS, ASKED)
def test_the_law_as_it_was_known_is_that_of_the_records_up_to_then(
    records: list[Record], at: datetime, when: datetime, names: set[str]
):
    """`why --at T --known-at K`: a replay of the ledger as it was at K gives the same."""
    law = known_about(records, fold(records), names, when)
    then = [record for record in records if record.at <= when]
    for issuer in ISSUERS:
        found = of_names(in_force(law, issuer, at), names)
        assert found == of_names(naive(then, issuer, at), names)


@settings(deadline=None, max_examples=100)
@given(ledgers(), ASKED)
def test_spans_are_the_entries_in_force_at_each_time(records: list[Record], names: set[str]):
    """`history NAME`: at each time by the records up to then, and later by all records."""
    spans = spans_of(records, fold(records), "a", names)
    for at in times():
        then = [record for record in records if record.at <= at]
        found = [
            (span.order.sha256, span.entry)
            for span in spans
            if span.start <= at and (span.end is None or at < span.end)
        ]
        assert len(found) == len(set(found))
        assert set(found) == of_names(naive(then, "a", at), names), at
    for span in spans:
        assert span.end is None or span.start < span.end


@settings(deadline=None, max_examples=100)
@given(ledgers(), ASKED, HOURS)
def test_scheduled_spans_are_the_entries_in_force_from_now_on(
    records: list[Record], names: set[str], now: datetime
):
    """The future by the orders that are known now."""
    spans = scheduled_spans(fold(records).of("a"), names, now)
    for at in (time for time in times() if time >= now):
        found = {
            (span.order.sha256, span.entry)
            for span in spans
            if span.start <= at and (span.end is None or at < span.end)
        }
        assert found == of_names(naive(records, "a", at), names)


@settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(ledgers(issuers=ISSUERS), ASKED, st.data())
def test_an_index_of_names_finds_the_same_orders(
    monkeypatch: pytest.MonkeyPatch, records: list[Record], names: set[str], data: st.DataObject
):
    """It is made in the background. Later orders are not in it, nor those of a draft."""
    monkeypatch.setattr(name_index, "WORTH_IT", 0)
    monkeypatch.setattr("dnsblock.orders.state.MANY", data.draw(st.sampled_from([0, name_index.MANY])))
    ends = [n for n in range(len(records) + 1) if n == 0 or not isinstance(records[n - 1].fact, Order)]
    middle = data.draw(st.sampled_from(ends))
    first = fold(records[:middle])
    state = derive(first, hour(3))
    if data.draw(st.booleans()):
        first.index_names()
    whole = fold(records[middle:], first)
    state = derive(whole, hour(LAST / 2), data.draw(st.sampled_from([None, state])))
    without = fold(records)
    for issuer in ISSUERS:
        assert whole.of(issuer).about(names) == without.of(issuer).about(names)
        every = state.entries_of(issuer)
        found = sorted(str(item) for item in every if item.entry.name in names)
        assert sorted(map(str, every.named(names))) == sorted(map(str, every.only(names))) == found
        assert every.having(names) == names & {item.entry.name for item in every}


@settings(deadline=None, max_examples=200)
@given(ledgers(issuers=ISSUERS), HOURS, HOURS, st.data())
def test_the_names_of_changed_entries_are_those_that_differ(
    records: list[Record], at: datetime, later: datetime, data: st.DataObject
):
    """Only these are compiled again, and counted as added or removed."""
    ends = [n for n in range(len(records) + 1) if n == 0 or not isinstance(records[n - 1].fact, Order)]
    middle = data.draw(st.sampled_from(ends))
    known = fold(records[:middle])
    former = derive(known, at)
    state = derive(fold(records[middle:], known), later, data.draw(st.sampled_from([None, former])))
    for issuer in ISSUERS:
        before, now = set(former.entries_of(issuer)), set(state.entries_of(issuer))
        gone, come = ({item.entry.name for item in items} for items in (before - now, now - before))
        assert state.entries_of(issuer).changed_since(former.entries_of(issuer)) == (gone, come)


def test_a_question_about_one_name_combines_only_its_orders(monkeypatch: pytest.MonkeyPatch):
    """Ten thousand orders must not be combined again for one name."""
    combined: list[str] = []

    def noted(records: Iterable[Record], base: Orders = EMPTY) -> Orders:
        own = list(records)
        combined.extend(record.fact.order_id for record in own)
        return fold(own, base)

    documents = [
        *(block(f"b-{n}", f"n{n}.example", seq=n, prev="ab" * 32) for n in range(2, 50)),
        block("b-1", "a.example", seq=1),
        block("c-1", "a.example", issuer="x"),
        unblock("u-1", "b-1", effective_at=AUGUST_10),
    ]
    facts = [fact for order in orders(*documents) for fact in (order, accepted(order))]
    records = [Record(n, BEGIN, DAEMON, fact) for n, fact in enumerate(facts, 1)]
    whole = fold(records)
    monkeypatch.setattr(known, "fold", noted)
    assert known.known_about(records, whole, {"b.example"}, BEGIN).issuers == {}
    assert combined == []
    assert set(known.known_about(records, whole, {"a.example"}, BEGIN).issuers) == {"a", "x"}
    assert set(combined) == {"b-1", "u-1", "c-1"}


def accepted(order: Order) -> Judged:
    return Judged(order.issuer, order.order_id, order.sha256, ACCEPTED)
