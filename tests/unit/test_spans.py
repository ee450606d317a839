"""When entries for a name were in force here, for all times at once (dnsblock/orders/spans.py).

tests/unit/test_known.py compares the spans with a naive model.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dnsblock.orders.facts import Annulment, Approval, Judged
from dnsblock.orders.order import Order
from dnsblock.orders.orders import fold
from dnsblock.orders.records import Fact, Record
from dnsblock.orders.spans import Span, scheduled_spans, spans_of
from dnsblock.orders.verdict import ACCEPTED, EntryVerdict
from dnsblock.principal import DAEMON

from .helpers import block, orders, unblock

BEGIN = datetime(2017, 7, 14, tzinfo=UTC)
NAME = "t.me"


def day(number: int) -> datetime:
    return BEGIN + timedelta(days=number)


def shown(number: int) -> str:
    return day(number).isoformat()


def records(*facts: tuple[int, Fact]) -> list[Record]:
    """Records of these days. An order is accepted at once, and its entries are, too."""
    found: list[Record] = []
    for number, fact in facts:
        found.append(Record(len(found) + 1, day(number), DAEMON, fact))
        if isinstance(fact, Order):
            judged = Judged(fact.issuer, fact.order_id, fact.sha256, fact.judgement)
            found.append(Record(len(found) + 1, day(number), DAEMON, judged))
    return found


def spans(*facts: tuple[int, Fact]) -> list[tuple[int, int | None, str]]:
    """The first day, the day after the last one, and why it ended."""
    ledger = records(*facts)
    return [_days(span) for span in spans_of(ledger, fold(ledger), "a", {NAME})]


def _days(span: Span) -> tuple[int, int | None, str]:
    end = None if span.end is None else (span.end - BEGIN).days
    return (span.start - BEGIN).days, end, span.why_ended


BLOCK, UNBLOCK, OTHER = orders(
    block("b", NAME, effective_at=shown(1), expires_at=shown(20), issued_at=shown(0)),
    unblock("u", "b", effective_at=shown(9), issued_at=shown(0)),
    block("c", NAME, issued_at=shown(0)),
)


def test_an_order_is_in_force_here_from_its_arrival():
    """By the law it began before: that is another question."""
    assert spans((5, BLOCK)) == [(5, 20, "order b, expired")]
    assert spans((0, BLOCK)) == [(1, 20, "order b, expired")]
    assert spans((30, BLOCK)) == []


def test_a_span_ends_with_the_order_that_ended_it():
    """Whichever comes later: the time of the unblock, or its arrival."""
    assert spans((0, BLOCK), (3, UNBLOCK)) == [(1, 9, "order u, of b")]
    assert spans((0, BLOCK), (12, UNBLOCK)) == [(1, 12, "order u, of b")]


def test_an_entry_returns_when_the_order_that_ended_it_is_annulled():
    """An erroneous unblock."""
    facts = (0, BLOCK), (3, UNBLOCK), (11, Annulment("a", "u", "wrong")), (13, Annulment("a", "b", "wrong"))
    assert spans(*facts) == [(1, 9, "order u, of b"), (11, 13, "order b, annulled")]


def test_a_held_entry_begins_with_its_release():
    """POPULAR: the operator has approved it."""
    verdicts = (EntryVerdict(0, "held", "POPULAR", "is popular"),)
    held = replace(OTHER, judgement=ACCEPTED.with_verdicts(verdicts))
    assert spans((2, held)) == []
    assert spans((2, held), (4, Approval("a", "c", (0,), "by phone"))) == [(4, None, "")]


def test_scheduled_spans_begin_now():
    """By the orders that are known now."""
    own = fold(records((0, BLOCK), (3, UNBLOCK))).of("a")
    assert [_days(span) for span in scheduled_spans(own, {NAME}, day(4))] == [(4, 9, "order u, of b")]
    assert [_days(span) for span in scheduled_spans(own, {NAME}, day(0))] == [(1, 9, "order u, of b")]
    assert scheduled_spans(own, {NAME}, day(9)) == []


def test_each_of_a_thousand_orders_for_one_name_is_checked_once():
    """Blocked and unblocked for two years: the work must not grow with the square of the orders."""

    class Counted(tuple):
        """Entries that count how often they are gone through."""

        looks = 0

        def __iter__(self):
            Counted.looks += 1
            return super().__iter__()

    same = replace(OTHER, entries=Counted(OTHER.entries))
    ledger = records(*((n, replace(same, order_id=f"b{n}", sha256=f"{n:064}")) for n in range(700)))
    assert len(spans_of(ledger, fold(ledger), "a", {NAME})) == 700
    assert Counted.looks <= 6 * 700
