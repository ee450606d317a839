"""The time spans in which this instance enforced entries for a name, and will by the orders known now.

Used by `history` and `why`. An order is never in force before it was received, released or approved here.
That is the difference to `state.derive`, which tells the law. tests/unit/test_spans.py compares the two.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dnsblock.orders.chain import Chain
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.life import End, Life
from dnsblock.orders.order import Entry, Order

_Window = tuple[datetime, datetime]
NEVER = datetime.max.replace(tzinfo=UTC)
_ALWAYS = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Span:
    """A time span in which an entry is in force: from `start` (inclusive) to `end` (exclusive)."""

    order: Order
    entry: Entry
    start: datetime
    end: datetime | None  # None: no known end
    ended_by: tuple[str, ...]  # the orders that end it; empty: it expires, or is annulled

    @property
    def why_ended(self) -> str:
        """The cause of the end, in words."""
        if self.ended_by:
            return f"order {', '.join(self.ended_by)}, of {self.order.order_id}"
        is_expired = self.end == self.order.expires_at
        return f"order {self.order.order_id}, {'expired' if is_expired else 'annulled'}"


def spans_of(orders: IssuerOrders, names: Collection[str]) -> list[Span]:
    """The spans of one issuer's entries for these names, past and scheduled."""
    asked = set(names)
    lives = [life for life in orders.lives.values() if _is_about(life.order, asked)]
    if not lives:
        return []
    windows = _windows(orders)
    found: dict[tuple[str, int], list[Span]] = {}
    for life in lives:
        order = life.order
        expires = order.expires_at or NEVER
        for index, entry in enumerate(order.entries):
            if entry.name not in asked:
                continue
            free = _free_from(order, index)
            starts = max(order.effective_at, free)
            base = [(max(start, starts), min(end, expires)) for start, end in windows[order.sha256]]
            ends = (*life.whole, *life.ends.get(index, ()))
            cuts = [cut for end in ends for cut in _cuts(end, order, entry, windows)]
            found[order.sha256, index] = list(_without(order, entry, base, cuts))
    return [span for spans in found.values() for span in spans]


def _is_about(order: Order, names: set[str]) -> bool:
    return order.action in ("block", "supersede", "exempt") and any(
        one.name in names for one in order.entries
    )


def _free_from(order: Order, index: int) -> datetime:
    """When an entry was no longer held; `NEVER` if it is."""
    judgement = order.judgement
    if index in judgement.idle:
        return NEVER
    free = [one.at for one in judgement.releases if one.entries is not None and index in one.entries]
    if any(one.index == index for one in judgement.verdicts):
        free += [one.at for one in judgement.releases if one.entries is None]
    return min(free, default=_ALWAYS)


def _cuts(
    end: End, order: Order, entry: Entry, windows: dict[str, list[_Window]]
) -> Iterator[tuple[datetime, datetime, str]]:
    """The times at which an end applies."""
    own = windows[end.by.sha256]
    is_reopened = any((one.name, one.match) == (entry.name, entry.match) for one in end.by.entries)
    if order.action != "exempt" and not is_reopened:
        # The part of a held order that opens names applies at once.
        begin = max(end.by.received_at or _ALWAYS, end.by.judgement.approved_at or _ALWAYS)
        own = [(begin, NEVER if end.until is None else end.until)]
    for start, stop in own:
        yield max(start, end.at), stop, end.by.order_id


def _without(
    order: Order, entry: Entry, base: Sequence[_Window], cuts: Sequence[tuple[datetime, datetime, str]]
) -> Iterator[Span]:
    """The parts of `base` that no cut covers."""
    real = sorted(cut for cut in cuts if cut[0] < cut[1])
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


# ------- When each order was enforced -------


def _windows(orders: IssuerOrders) -> dict[str, list[_Window]]:
    """For each order: when it was enforced, considering its `seq`, annulments and approvals."""
    lives = list(orders.lives.values())
    windows: dict[str, list[_Window]] = {life.order.sha256: [] for life in lives}
    numbered = [life for life in lives if life.order.seq is not None and not orders.is_never_held(life.order)]
    for life in lives:
        if life.order.seq is None or orders.is_never_held(life.order):
            _add(windows, life.order, _ALWAYS, NEVER)
    followed: dict[int | None, list[tuple[str, _Window]]] = {}  # by seq
    if numbered:
        for sha256, start, end in _followed([life for life in lives if life.order.seq is not None]):
            order = orders.lives[sha256].order
            followed.setdefault(order.seq, []).append((sha256, (start, end)))
            if not orders.is_never_held(order):
                _add(windows, order, start, end)
    for life in numbered:
        for release in life.order.judgement.releases:
            if release.entries is None:
                # Approved although an earlier order is missing, unless another order has its number.
                own, same = life.order.sha256, followed.get(life.order.seq, ())
                others = [window for sha256, window in same if sha256 != own]
                windows[own] += _outside((release.at, _end_of(life.order)), others)
    return {sha256: _joined(own) for sha256, own in windows.items()}


def _outside(window: _Window, others: Iterable[_Window]) -> list[_Window]:
    """The parts of a window that are in none of the others."""
    parts = [window]
    for begin, end in others:
        parts = [part for at, until in parts for part in ((at, min(until, begin)), (max(at, end), until))]
    return parts


def _add(windows: dict[str, list[_Window]], order: Order, start: datetime, end: datetime) -> None:
    judgement = order.judgement
    if judgement.is_proposed or order.action == "notice":
        return
    begin = max(start, order.received_at or _ALWAYS, judgement.approved_at or _ALWAYS)
    windows[order.sha256].append((begin, min(end, _end_of(order))))


def _end_of(order: Order) -> datetime:
    return NEVER if order.annulled is None else order.annulled.at


def _joined(windows: Sequence[_Window]) -> list[_Window]:
    """The same times without overlaps."""
    found: list[_Window] = []
    for start, end in sorted(window for window in windows if window[0] < window[1]):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _followed(lives: Sequence[Life]) -> Iterator[tuple[str, datetime, datetime]]:
    """When each numbered order followed the previous ones: its digest, the start and the end."""
    events: list[tuple[datetime, int, Life]] = []
    for life in lives:
        events.append((life.order.received_at or _ALWAYS, 1, life))
        if life.order.annulled is not None:
            events.append((life.order.annulled.at, 0, life))
    events.sort(key=lambda one: one[:2])
    begun: dict[str, datetime] = {}
    came: list[Order] = []
    chain = Chain()
    for at, kind, life in events:
        if kind == 1:
            is_annulled = life.order.is_annulled(at)
            came.append(life.order if is_annulled else replace(life.order, annulled=None))
            touched = chain.add(came[-1])
        else:
            came = [life.order if one.sha256 == life.order.sha256 else one for one in came]
            chain = Chain()
            for one in came:
                chain.add(one)
            touched = came
        for one in touched:
            follows = one.annulled is None and chain.verdict(one) is None
            if follows:
                begun.setdefault(one.sha256, at)
            elif one.sha256 in begun:
                yield one.sha256, begun.pop(one.sha256), at
    for sha256, start in begun.items():
        yield sha256, start, NEVER
