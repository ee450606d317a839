"""When an entry is enforced, for all times at once (dnsblock/orders/spans.py)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings

from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.orders import fold
from dnsblock.orders.records import Record
from dnsblock.orders.spans import spans_of

from .helpers import block, orders
from .ledgers import NAMES, in_force, ledgers, times

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
(BLOCK,) = orders(block("b", *NAMES))


def at(day: int) -> datetime:
    return BEGIN + timedelta(days=day)


@settings(deadline=None, max_examples=300)
@given(ledgers())
def test_spans_are_what_is_in_force_at_each_time(records: list[Record]):
    """The naive twin: the state is derived once for each time, from the records that were known then."""
    spans = spans_of(fold(records).of("a"), {NAMES[0]})
    for time in times():
        known = fold(record for record in records if record.at <= time)
        expected = {(sha256, one) for sha256, one in in_force(known, "a", time) if one.name == NAMES[0]}
        found = [span for span in spans if span.start <= time and (span.end is None or time < span.end)]
        assert {(one.order.sha256, one.entry) for one in found} == expected, time
    for span in spans:
        assert span.end is None or span.start < span.end


def test_each_of_a_thousand_orders_for_one_name_is_checked_once():
    """Blocked and unblocked for two years: the work must grow linearly with the orders."""

    class Counted(tuple):
        """Entries that count how often they are gone through."""

        looks = 0

        def __iter__(self):
            Counted.looks += 1
            return super().__iter__()

    same = replace(BLOCK, entries=Counted(BLOCK.entries))
    received = [
        replace(same, order_id=f"b{day}", sha256=f"{day:064}", received_at=at(day)) for day in range(1300)
    ]
    assert len(spans_of(IssuerOrders.of(received), NAMES)) == 3900
    assert Counted.looks <= 3 * len(received)
