"""Remarks on accepted orders, shown by `check`, `reload` and `order submit`.

A remark has the form of a `Problem`, with a place and a reason, but does not refuse the order.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from dnsblock.errors import printable
from dnsblock.orders.order import Order
from dnsblock.orders.places import Places
from dnsblock.orders.spelling import remarks as remarks_on_name

MAX_NAMES = 10  # reported per order
MAX_LOOKED_AT = 100_000  # non-ASCII names; an entries file may contain millions
FAR = timedelta(days=3653)


def remarks(order: Order, now: datetime) -> Iterator[str]:
    """Possible mistakes of the author."""
    yield from _on_names(order)
    yield from _on_times(order, now)


def _on_names(order: Order) -> Iterator[str]:
    unusual = [(place, entry.name) for place, entry in enumerate(order.entries) if "xn--" in entry.name]
    # Deceptive names come first, so that none of them is only counted.
    found = [(list(remarks_on_name(name)), place) for place, name in unusual[:MAX_LOOKED_AT]]
    found.sort(key=lambda one: (-len(one[0]), one[1]))
    places = Places(order)
    for texts, place in found[:MAX_NAMES]:
        for text in texts:
            yield str(places.problem(place, "", text))
    if (rest := len(unusual) - MAX_NAMES) > 0:
        yield f"{printable(order.file)}: {rest:,} more names in other scripts than ASCII"


def _on_times(order: Order, now: datetime) -> Iterator[str]:
    for key in ("effective_at", "deadline_at", "expires_at", "review_at"):
        time: datetime | None = getattr(order, key)
        if time is None:
            continue
        if time - max(now, order.issued_at) > FAR:
            yield str(
                order.problem((key,), order.written(key), f"FAR_YEAR: {key} is more than 10 years ahead")
            )
        elif order.issued_at - time > FAR:
            reason = f"FAR_YEAR: {key} is more than 10 years before issued_at"
            yield str(order.problem((key,), order.written(key), reason))
    if order.issued_at - now > FAR:
        reason = "FAR_YEAR: issued_at is more than 10 years ahead"
        yield str(order.problem(("issued_at",), order.written("issued_at"), reason))
