"""Annulments by the operator, and their effect."""

from datetime import UTC, datetime, timedelta

import pytest

from dnsblock.errors import Refused
from dnsblock.orders.facts import Annulment, Judged
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.order import Order
from dnsblock.orders.orders import fold
from dnsblock.orders.records import Record
from dnsblock.orders.state import derive
from dnsblock.principal import Principal

from .helpers import accept, append, block, known, orders, sha256, unblock

ALICE = Principal("local", 1000, "alice")
START = datetime(2026, 1, 1, tzinfo=UTC)


def hour(number: int) -> datetime:
    return START + timedelta(hours=number)


def state(facts: list[Order | Annulment], at: datetime | None = None) -> list[tuple[str, str, int]]:
    """Each fact is recorded an hour after the one before it. An order is accepted at once."""
    when = at or hour(len(facts) + 1)
    found: list[Record] = []
    for number, fact in enumerate(facts, 1):
        found.append(Record(len(found) + 1, hour(number), ALICE, fact))
        if isinstance(fact, Order):
            accepted = Judged(fact.issuer, fact.order_id, fact.sha256, fact.judgement)
            found.append(Record(len(found) + 1, hour(number), ALICE, accepted))
    then = fold(record for record in found if record.at <= when)
    return [(row.order_id, row.state, row.in_force) for row in derive(then, when).orders]


def test_an_annulled_order_is_in_force_until_then():
    """An annulment changes the present, not the past."""
    records = [*orders(block("b-1", "t.me")), Annulment("a", "b-1", "wrong")]
    assert state(records, hour(1)) == [("b-1", "active", 1)]
    assert state(records, hour(2) - timedelta(seconds=1)) == [("b-1", "active", 1)]
    assert state(records, hour(2)) == [("b-1", "annulled", 0)]


def test_an_annulment_applies_to_the_order_before_it():
    """A later order with the same number is not affected."""
    wrong, right = orders(block("b-1", "t.me"), block("b-1", "c.example"))
    records = [wrong, Annulment("a", "b-1", "wrong"), right]
    assert state(records) == [("b-1", "annulled", 0), ("b-1", "active", 1)]
    assert state([*records, Annulment("a", "b-1", "as well")]) == [
        ("b-1", "annulled", 0),
        ("b-1", "annulled", 0),
    ]


def test_an_annulment_of_another_issuer_changes_nothing():
    """Order numbers are unique within an issuer only."""
    assert state([*orders(block("b-1", "t.me")), Annulment("b", "b-1", "x")]) == [("b-1", "active", 1)]


def test_an_annulled_first_order_gives_its_number_to_another():
    """The corrected order has the number that the authority printed on the letter."""
    first = block("b-1", "t.me", seq=1)
    second = block("b-2", "c.example", seq=2, prev=sha256(first))
    corrected = block("b-1", "right.example", seq=1)
    third = block("b-3", "d.example", seq=3, prev=sha256(second))
    records = [*orders(first, second), Annulment("a", "b-1", "wrong"), *orders(corrected, third)]
    assert state(records) == [
        ("b-1", "annulled", 0),
        ("b-2", "active", 1),
        ("b-1", "active", 1),
        ("b-3", "active", 1),
    ]


def test_an_unblock_of_an_annulled_order_does_not_affect_the_corrected_one():
    """It meant the order that had the number when it came."""
    records = [
        *orders(block("b-1", "t.me"), unblock("u-1", "b-1")),
        Annulment("a", "b-1", "wrong"),
        *orders(block("b-1", "t.me", "c.example")),
    ]
    assert state(records) == [("b-1", "annulled", 0), ("u-1", "active", 0), ("b-1", "active", 2)]
    lifted = [*records, *orders(unblock("u-2", "b-1"))]
    assert state(lifted)[2:] == [("b-1", "lifted", 0), ("u-2", "active", 0)]


def test_an_annulment_without_an_order_is_refused():
    """A typing error must not be recorded for ever."""
    orders_known = known(block("b-1", "t.me"))
    with pytest.raises(Refused, match="no order with this order_id"):
        orders_known.decided([Annulment("a", "b-2", "x")], START, ALICE)
    once = orders_known.decided([Annulment("a", "b-1", "x")], START, ALICE)
    with pytest.raises(Refused, match="no order with this order_id"):
        once.decided([Annulment("a", "b-1", "x")], START, ALICE)


def test_the_ledger_keeps_an_annulment(tmp_path):
    """It is read back after a restart."""
    with Ledger.open(tmp_path) as ledger:
        accept(ledger, *orders(block("b-1", "t.me")))
        append(ledger, [Annulment("a", "b-1", "wrong")])
        assert next(iter(ledger.orders)).annulled is not None
    with Ledger.open(tmp_path) as ledger:
        assert [(order.order_id, order.annulled and order.annulled.reason) for order in ledger.orders] == [
            ("b-1", "wrong")
        ]
