"""Orders as documents and as facts, for the unit tests of dnsblock/orders."""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from dnsblock.orders.accepted import facts_of
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.order import Order, parse
from dnsblock.orders.orders import EMPTY, Orders
from dnsblock.orders.records import Fact
from dnsblock.principal import DAEMON, Principal

JULY_14 = "2017-07-14T11:30:00+07:00"
AUGUST_10 = "2017-08-10T10:46:00+07:00"


LINEAR = 9.0  # of `growth`: more is not linear


def growth(work: Callable[[int], object], size: int) -> float:
    """How many times as long four times the work takes: 4 if it is linear, 16 if it is quadratic.

    The least of a few tries: another process may disturb one, but cannot make quadratic work linear.
    """

    def seconds(amount: int) -> float:
        began = time.process_time()
        work(amount)
        return time.process_time() - began

    found = seconds(4 * size) / seconds(size)
    for _ in range(4):
        if found < LINEAR:
            break
        found = min(found, seconds(4 * size) / seconds(size))
    return found


def document(
    order_id: str,
    action: str = "block",
    *,
    issuer: str = "a",
    issued_at: str = JULY_14,
    entries: Iterable[str] = (),
    targets: Iterable[str] = (),
    **fields: object,
) -> str:
    """A document in YAML; entries and targets are written as they are given."""
    lines = [
        "schema: dnsblock.order/1",
        f"issuer: {issuer}",
        f"order_id: {order_id}",
        f"action: {action}",
        f"issued_at: {issued_at}",
        *(f"{key}: {value}" for key, value in fields.items()),
    ]
    for key, items in (("entries", list(entries)), ("targets", list(targets))):
        if items:
            lines += [f"{key}:", *(f"  - {item}" for item in items)]
    return "\n".join([*lines, f"end: {order_id}"]) + "\n"


def with_lines(text: str, *lines: str) -> str:
    """A document with more lines, before the one that ends it."""
    *first, end = text.splitlines()
    return "\n".join([*first, *lines, end]) + "\n"


def block(order_id: str, *entries: str, **fields: object) -> str:
    return document(order_id, "block", entries=entries, **fields)


def exempt(order_id: str, *entries: str, **fields: object) -> str:
    return document(order_id, "exempt", entries=entries, **fields)


def unblock(order_id: str, target: str, *entries: str, **fields: object) -> str:
    """Lifts the entries of the target; none given: all."""
    named = f"[{', '.join(entries)}]" if entries else "all"
    return document(order_id, "unblock", targets=[f"{{order_id: {target}, entries: {named}}}"], **fields)


def orders(*documents: str) -> list[Order]:
    return [parse(f"{number}.yaml", text.encode()) for number, text in enumerate(documents)]


def known(*documents: str | Order) -> Orders:
    """The accepted orders of a ledger, without anything that happened to them later."""
    read = (orders(one)[0] if isinstance(one, str) else one for one in documents)
    return EMPTY.plus(read)


def append(ledger: Ledger, facts: Sequence[Fact], by: Principal = DAEMON) -> None:
    ledger.append(facts, by, datetime.now(UTC))


def accept(ledger: Ledger, *new: Order) -> None:
    """Writes all records of accepted orders."""
    append(ledger, list(facts_of(new, (), ledger.orders)))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
