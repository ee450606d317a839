"""The time spans in which entries for a name are in force: the same rules as `state.derive`, for all times.

Used by `history` and `why`. Each order is examined once, so that a thousand orders are fast.
tests/unit/test_spans.py compares the result with `derive` at each time.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dnsblock.orders.chain import Chain
from dnsblock.orders.order import Entry, Order, Target

Received = Sequence[
    tuple[datetime, Order]
]  # orders with the times at which they were accepted, in their order
_Window = tuple[datetime, datetime]
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Span:
    """A time span in which an entry is in force: from `start` (inclusive) to `end` (exclusive)."""

    order: Order
    entry: Entry
    start: datetime
    end: datetime | None  # None: no known end
    ended_by: tuple[str, ...]  # the unblock orders that end it; empty: it expires, or is annulled

    @property
    def why_ended(self) -> str:
        """The cause of the end, in words."""
        if self.ended_by:
            return f"order {', '.join(self.ended_by)}, of {self.order.order_id}"
        is_expired = self.end == self.order.expires_at
        return f"order {self.order.order_id}, {'expired' if is_expired else 'annulled'}"


def spans_of(received: Received, names: Collection[str]) -> list[Span]:
    """The spans of one issuer's entries for these names, past and scheduled."""
    asked = set(names)
    places = [place for place, (_, order) in enumerate(received) if _is_about(order, asked)]
    if not places:
        return []
    windows = _windows(received)
    lifting = _liftings(received)
    freed: dict[str, datetime] = {}
    for _, order in received:
        if order.annulled is not None:
            freed[order.order_id] = min(order.annulled.at, freed.get(order.order_id, NEVER))
    found: dict[tuple[str, str, str], list[Span]] = {}
    for place in places:
        order = received[place][1]
        expires = order.expires_at or NEVER
        for entry in order.entries:
            if entry.name not in asked:
                continue
            cuts: list[tuple[datetime, datetime, str]] = []
            for other, target in lifting.get(order.order_id, ()):
                if not _ends(target, entry):
                    continue
                unblock = received[other][1]
                # It refers to the order that had the number then, not to a later one that took it.
                limit = NEVER if place < other else freed.get(order.order_id, NEVER)
                cuts += [
                    (max(start, unblock.effective_at), min(end, limit), unblock.order_id)
                    for start, end in windows[other]
                ]
            base = [(max(start, order.effective_at), min(end, expires)) for start, end in windows[place]]
            # A duplicate entry in an order counts once.
            found[order.sha256, entry.name, str(entry.match)] = list(_without(order, entry, base, cuts))
    return [span for spans in found.values() for span in spans]


def _is_about(order: Order, names: set[str]) -> bool:
    return order.action != "unblock" and any(entry.name in names for entry in order.entries)


def _liftings(received: Received) -> dict[str, list[tuple[int, Target]]]:
    """The unblock orders that target a block, as their places, by the block's order_id."""
    found: dict[str, list[tuple[int, Target]]] = {}
    for place, (_, order) in enumerate(received):
        for target in order.targets if order.action == "unblock" else ():
            found.setdefault(target.order_id, []).append((place, target))
    return found


def _ends(target: Target, entry: Entry) -> bool:
    return target.entries is None or any(
        wanted.name == entry.name and wanted.match in (None, entry.match) for wanted in target.entries
    )


def _without(
    order: Order, entry: Entry, base: Sequence[_Window], cuts: Sequence[tuple[datetime, datetime, str]]
) -> Iterator[Span]:
    """The parts of `base` that no cut covers."""
    # Only a block can be lifted.
    real = sorted(cut for cut in cuts if cut[0] < cut[1]) if order.action == "block" else []
    for start, until in base:
        at = start
        for cut_start, cut_end, _ in real:
            if cut_end <= at or cut_start >= until:
                continue
            if at < cut_start:
                by = tuple(dict.fromkeys(name for begin, _, name in real if begin == cut_start))
                yield Span(order, entry, at, cut_start, by)
            at = max(at, cut_end)
        if at < until:
            yield Span(order, entry, at, None if until == NEVER else until, ())


def _windows(received: Received) -> list[list[_Window]]:
    """For each order: when it is enforced, considering its `seq` and annulments."""
    windows: list[list[_Window]] = [[] for _ in received]
    begun: dict[int, datetime] = {}
    came: dict[datetime, list[int]] = {}
    annulled: dict[datetime, list[int]] = {}
    for place, (at, order) in enumerate(received):
        came.setdefault(at, []).append(place)
        if order.annulled is not None:
            annulled.setdefault(max(at, order.annulled.at), []).append(place)
    numbered: list[int] = []
    waiting: set[int] = set()
    chain = Chain(())
    for time in sorted(came.keys() | annulled.keys()):
        for place in annulled.get(time, ()):
            if place in begun:
                windows[place].append((begun.pop(place), time))
        new = [place for place in came.get(time, ()) if not received[place][1].is_annulled(time)]
        begun |= {place: time for place in new if received[place][1].seq is None}
        numbered += [place for place in came.get(time, ()) if received[place][1].seq is not None]
        if time in annulled:
            orders = [received[place][1] for place in sorted(numbered)]
            chain = Chain(
                (one for one in orders if not one.is_annulled(time)),
                (one for one in orders if one.is_annulled(time)),
            )
            followed = {place for place in numbered if _is_followed(chain, received[place][1])}
            for place in [place for place in begun if place in numbered and place not in followed]:
                windows[place].append((begun.pop(place), time))
            waiting = set(numbered) - followed
            begun |= {place: time for place in followed if place not in begun}
            continue
        before = len(chain.followed)
        for place in new:
            if received[place][1].seq is not None:
                chain.add(received[place][1])
                waiting.add(place)
        if len(chain.followed) > before:
            followed = {place for place in waiting if _is_followed(chain, received[place][1])}
            waiting -= followed
            begun |= dict.fromkeys(followed, time)
    for place, start in begun.items():
        windows[place].append((start, NEVER))
    return windows


def _is_followed(chain: Chain, order: Order) -> bool:
    return order.seq is not None and chain.followed.get(order.seq) is order
