"""The facts that the ledger records when orders are accepted."""

from collections.abc import Iterable, Iterator

from dnsblock.orders.facts import Held, Judged, SignatureVerified, unreadable_in
from dnsblock.orders.order import Order
from dnsblock.orders.orders import Orders
from dnsblock.orders.parsed import entries_sha256, parsed_sha256
from dnsblock.orders.records import Fact


def facts_of(new: Iterable[Order], signed: Iterable[Order], known: Orders) -> Iterator[Fact]:
    """The facts of new orders, and of known orders with more signatures.

    `accepted` comes last: if the process is killed before it is written, the order is not accepted.
    """
    for order in new:
        yield order
        yield from _judged(order)
    for order in signed:
        yield from _judged(order)
    yield from _held(list(new), known)


def _judged(order: Order) -> Iterator[Fact]:
    judgement = order.judgement
    if judgement.signers and order.source is not None and order.source.signatures is not None:
        signers = tuple(f"{one.principal} {one.fingerprint}" for one in judgement.signers)
        armour = order.source.signatures.decode("ascii", "replace")
        yield SignatureVerified(order.issuer, order.order_id, order.sha256, signers, armour)
    names = (order.issuer, order.order_id, order.sha256)
    digests = (entries_sha256(order.own), parsed_sha256(order))
    yield Judged(*names, judgement, order.acks, *digests, unreadable_in(order))


def _held(new: list[Order], known: Orders) -> Iterator[Fact]:
    """The new orders that are held, completely or in part."""
    after = known.plus(new) if new else known
    for order in new:
        life = after.of(order.issuer).lives[order.sha256]
        codes = sorted({one.code for one in order.judgement.held})
        if life.standing is not None and life.standing.state == "held":
            yield Held(order.issuer, order.order_id, len(order.entries), ("GAP", *codes))
        elif codes:
            yield Held(order.issuer, order.order_id, order.judgement.count("held"), tuple(codes))
