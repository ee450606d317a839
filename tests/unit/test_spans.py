"""When an entry is in force, for all times at once (dnsblock/orders/spans.py)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from dnsblock.orders.order import Annulled, Entry, Order, Target, TargetEntry
from dnsblock.orders.spans import spans_of
from dnsblock.orders.state import derive
from dnsblock.principal import DAEMON

from .helpers import block, orders

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("a.example", "b.example")
(BLOCK,) = orders(block("b", *NAMES))


def at(day: int) -> datetime:
    return BEGIN + timedelta(days=day)


@st.composite
def ledgers(draw: st.DrawFn) -> list[tuple[datetime, Order]]:
    """Orders as an intake may accept them: a number or an id is used again only after it was annulled."""
    received: list[tuple[datetime, Order]] = []
    day = 0
    for place in range(draw(st.integers(1, 9))):
        day += draw(st.integers(0, 2))
        used = {one.order_id for _, one in received if not one.is_annulled(at(day))}
        free = [name for name in "uvwxyz123456" if name not in used]
        action = draw(st.sampled_from(["block", "block", "unblock", "unblock", "exempt"]))
        seq = draw(st.sampled_from([None, 1, 2, 3]))
        before = [one.sha256 for _, one in received if seq and one.seq == seq - 1]
        starts = draw(st.integers(0, 12))
        entries = tuple(
            Entry(name, draw(st.sampled_from(["exact", "subtree"])))
            for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2))
        )
        wanted = (None, (TargetEntry(NAMES[0], None),), (TargetEntry(NAMES[1], "exact"),))
        target = st.builds(Target, st.sampled_from("uvwxyz"), st.sampled_from(wanted))
        order = replace(
            BLOCK,
            order_id=draw(st.sampled_from(free)),
            action=action,
            sha256=f"{place:064}",
            twins=(),
            seq=seq,
            prev=draw(st.sampled_from([None, *before, "wrong"])),
            effective_at=at(starts),
            expires_at=draw(st.sampled_from([None, at(starts + 1), at(starts + 4)])),
            entries=() if action == "unblock" else entries,
            targets=tuple(draw(st.lists(target, min_size=1, max_size=2))) if action == "unblock" else (),
            annulled=draw(
                st.sampled_from(
                    [None, None, Annulled(at(day + 1), DAEMON, "x"), Annulled(at(day + 4), DAEMON, "x")]
                )
            ),
        )
        if action == "unblock":
            order = replace(order, expires_at=None)
        received.append((at(day), order))
    return received


@settings(deadline=None, max_examples=300)
@given(ledgers())
def test_spans_are_what_is_in_force_at_each_time(received: list[tuple[datetime, Order]]):
    """The naive twin: the state is derived once for each time, from the orders that were known then."""
    spans = spans_of(received, {NAMES[0]})
    for day in range(24):
        time = at(day)
        known = [order for came, order in received if came <= time]
        expected = {
            (item.order_id, item.entry.name, item.entry.match)
            for item in derive(known, time).in_force.get("a", ())
            if item.entry.name == NAMES[0]
        }
        in_force = [span for span in spans if span.start <= time and (span.end is None or time < span.end)]
        assert {(one.order.order_id, one.entry.name, one.entry.match) for one in in_force} == expected, day
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

    received = [
        (at(day), replace(BLOCK, order_id=f"b{day}", sha256=f"{day:064}", entries=Counted(BLOCK.entries)))
        for day in range(1300)
    ]
    assert len(spans_of(received, NAMES)) == 2600
    assert Counted.looks <= 3 * len(received)
