"""Records that are added step by step, and the naive model of the orders in force."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dnsblock.orders.facts import Annulment, Approval, EntriesRefused, Judged
from dnsblock.orders.order import Order
from dnsblock.orders.orders import EMPTY, Orders, fold
from dnsblock.orders.records import Record
from dnsblock.orders.state import State, derive

from .ledgers import LAST, Naive, hour, in_force, ledgers, replayed

HOURS = st.integers(-1, 2 * LAST).map(lambda number: hour(number / 2))


@settings(deadline=None, max_examples=500)
@given(ledgers(), HOURS)
def test_the_orders_in_force_are_those_of_a_naive_model(records: list[Record], at: datetime):
    """In force: effective_at <= t < expires_at, neither held, refused nor annulled, and not ended."""
    assert in_force(fold(records), "a", at) == Naive(replayed(records), "a").in_force(at)


def shown(state: State) -> Iterator[tuple[Any, ...]]:
    """Everything in a state that people see. NOT_BLOCKED says what was known when the order came."""
    for one in state.orders:
        notes = [note for note in one.notes if not note.startswith("NOT_BLOCKED")]
        yield (one.sha256, one.state, one.in_force, one.held, one.entries, notes)
    for issuer, entries in sorted(state.in_force.items()):
        yield (issuer, sorted(map(str, entries)), state.next_change_of(issuer))


def appends_end(records: list[Record], done: int) -> list[int]:
    """Where an append may have ended: an order and its acceptance are written together."""
    ends = range(done + 1, len(records) + 1)
    return [end for end in ends if not isinstance(records[end - 1].fact, Order)]


@settings(deadline=None, max_examples=500)
@given(ledgers(issuers=("a", "b")), st.data())
def test_any_increments_give_what_all_records_give(records: list[Record], data: st.DataObject):
    """A daemon that has run for a year enforces what it would enforce after a restart."""
    orders: Orders = EMPTY
    state: State | None = None
    done = 0
    while done < len(records):
        end = data.draw(st.sampled_from(appends_end(records, done)))
        orders, done = fold(records[done:end], orders), end
        at = data.draw(HOURS)
        state = derive(orders, at, state)
        whole = fold(records[:done])
        assert list(shown(state)) == list(shown(derive(whole, at)))
        assert [order.sha256 for order in orders] == [order.sha256 for order in whole]
        for issuer in ("a", "b"):
            assert orders.of(issuer).chain.gap == whole.of(issuer).chain.gap
            assert set(orders.of(issuer)._boundaries) == set(whole.of(issuer)._boundaries)
            assert list(orders.of(issuer)._boundaries) == sorted(set(orders.of(issuer)._boundaries))
        assert orders.by_digest == whole.by_digest


@settings(deadline=None, max_examples=300)
@given(ledgers(), st.data())
def test_a_ledger_that_was_cut_anywhere_has_the_orders_that_it_accepts(
    records: list[Record], data: st.DataObject
):
    """A crash may come between any two records. An order that was only received is not accepted."""
    cut = records[: data.draw(st.integers(0, len(records)))]
    orders, known, at = fold(cut), replayed(cut), data.draw(HOURS)
    assert [order.sha256 for order in orders] == [one.order.sha256 for one in known]
    assert in_force(orders, "a", at) == Naive(known, "a").in_force(at)


@settings(deadline=None, max_examples=300)
@given(ledgers(), st.data())
def test_before_it_is_recorded_a_decision_has_the_effect_that_it_has_afterwards(
    records: list[Record], data: st.DataObject
):
    """The snapshot is compiled first, and served when the record is durable."""
    orders: Orders = EMPTY
    done = 0
    while done < len(records):
        end = appends_end(records, done)[0]
        batch, done = records[done:end], end
        before, orders = orders, fold(batch, orders)
        at = max(data.draw(HOURS), batch[0].at)
        assert in_force(drafted(before, batch), "a", at) == in_force(orders, "a", at)


def drafted(orders: Orders, batch: list[Record]) -> Orders:
    """The orders with the facts of one append, as a publish combines them before that."""
    first, *rest = batch
    match first.fact:
        case Order() as order:
            (judged,) = rest
            return orders.plus([replace(order, judgement=judged.fact.judgement)])
        case Annulment() | Approval() | EntriesRefused() as fact:
            return orders.decided([fact], first.at, first.by)
        case Judged(sha256=sha256, judgement=now):
            known = orders.by_digest[sha256]
            signed = replace(known.judgement, signers=now.signers, is_proposed=now.is_proposed)
            return orders.with_all([replace(known, judgement=signed.with_verdicts(now.verdicts))])
    return orders


@settings(deadline=None, max_examples=300)
@given(ledgers(issuers=("a", "b")), st.data())
def test_a_state_does_not_depend_on_the_former_one(records: list[Record], data: st.DataObject):
    """The former state may be of a longer or a shorter ledger, or of a draft: it only saves work."""
    ends = st.sampled_from([0, *appends_end(records, 0)])
    shared = fold(records[: data.draw(ends)])
    former = derive(shared, data.draw(HOURS))
    for _ in range(3):
        end = data.draw(ends)
        orders = data.draw(st.sampled_from([fold(records[:end]), fold(records[end:], shared), shared]))
        at = data.draw(HOURS)
        state = derive(orders, at, former)
        alone = derive(orders, at)
        assert list(shown(state)) == list(shown(alone))
        for issuer, own in state.by_issuer.items():
            assert len(own.in_force) == len(alone.by_issuer[issuer].in_force)
            assert own.in_force.answers == alone.by_issuer[issuer].in_force.answers
            assert own.held == alone.by_issuer[issuer].held
        former = data.draw(st.sampled_from([state, former]))


@settings(deadline=None, max_examples=300)
@given(ledgers(), HOURS)
def test_answers_stay_the_same_until_the_next_change_of_answers(records: list[Record], at):
    """TTLs end there: a cache must not keep an answer longer than it is right."""
    orders = fold(records)
    change = derive(orders, at).next_change_of("a")
    before = in_force(orders, "a", at)
    later = (hour(half / 2) for half in range(-1, 2 * LAST))
    for time in (time for time in later if time > at and (change is None or time < change)):
        assert in_force(orders, "a", time) == before
