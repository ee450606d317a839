"""Events that the ledger records after a publish: effects of orders, and refused documents."""

from collections.abc import Container, Iterable, Iterator
from pathlib import PurePath

from dnsblock.errors import shown, without_folders
from dnsblock.orders.facts import Activated, Expired, Lifted, Refusal
from dnsblock.orders.intake import RefusedDocument
from dnsblock.orders.order import Order
from dnsblock.orders.orders import Orders
from dnsblock.orders.state import OrderState, State

MAX_REASONS = 5  # of one refused document
Effect = Activated | Lifted | Expired
_OPENED = frozenset({"lifted", "partially lifted", "revoked", "superseded", "annulled"})


def refusals_of(refused: Iterable[RefusedDocument], recorded: Container[str]) -> Iterator[Refusal]:
    """The refused documents that the ledger does not have yet."""
    for one in refused:
        if one.sha256 is not None and one.sha256 not in recorded:
            # Others read the ledger, too: in proofs and as events.
            texts = (without_folders(problem.reason) for problem in one.problems[:MAX_REASONS])
            reasons = tuple(shown(text) for text in texts)
            file = shown(PurePath(one.file).name)
            yield Refusal(file, one.issuer, one.order_id, one.sha256, reasons)


def effects_of(state: State, former: State | None, known: Orders, serial: int) -> Iterator[Effect]:
    """The effects that are in force by a state and that the ledger does not have yet.

    `former`: only what differs from it is looked at. None: everything, since a kill may have lost an event.
    """
    for issuer, own in state.by_issuer.items():
        then = None if former is None else former.by_issuer.get(issuer)
        before = {} if then is None else then.states
        for sha256 in own.changed_since(then):
            now = own.states[sha256]
            order = known.by_digest.get(sha256)
            if before.get(sha256) is now or order is None:
                continue
            # A record has the number only. It means the latest order: an annulled one may have lost it.
            latest = known.of(issuer).latest(now.order_id)
            if latest is not None and latest.order.sha256 == sha256:
                yield from _effects(now, order, serial)


def _effects(state: OrderState, order: Order, serial: int) -> Iterator[Effect]:
    facts = (state.issuer, state.order_id)
    is_lifting = state.action in ("unblock", "revoke") and state.state in ("active", "verified")
    if state.in_force:
        lifted = order.enforceable - state.in_force
        if order.enforced_at is not None and order.ended_at is None and lifted > order.lifted:
            yield Lifted(*facts, lifted - order.lifted, serial)
        # Lifted entries take effect again if the unblock is annulled.
        if not _is_recorded(order) or lifted < order.lifted:
            yield Activated(*facts, state.in_force, serial)
    elif is_lifting:
        if not _is_recorded(order):
            yield Activated(*facts, state.entries, serial)
    elif order.enforced_at is not None and order.ended_at is None:
        rest = state.entries - order.lifted
        if state.state == "expired":
            yield Expired(*facts, rest, serial)
        elif state.state in _OPENED:
            yield Lifted(*facts, rest, serial)


def _is_recorded(order: Order) -> bool:
    """Whether the ledger has that all its entries took effect, those that were released later too."""
    if order.activated_at is None or order.ended_at is not None:
        return False
    return all(one.at <= order.activated_at for one in order.judgement.releases)
