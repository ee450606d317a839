"""The checks of a new order that depend on earlier orders: used numbers, targets, notices, keys."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dnsblock.errors import Problem
from dnsblock.orders.chain import Chain
from dnsblock.orders.order import MAY_END, Order, RefusedEntry, Target
from dnsblock.orders.orders import Orders


@dataclass(slots=True)
class _Own:
    """The orders of one issuer: those in the ledger, and those accepted before this one."""

    chain: Chain
    is_numbered: bool | None  # None: no order yet
    rotations: list[Order]


class Together:
    """The orders known so far. Each accepted order is added, so that later ones may refer to it."""

    def __init__(self, known: Orders) -> None:
        self._known = known
        self._new: dict[tuple[str, str], Order] = {}
        self._issuers: dict[str, _Own] = {}
        self._names: dict[tuple[str, str], set[tuple[str, str | None]]] = {}

    def accept(self, order: Order) -> None:
        """Adds an accepted order."""
        own = self._own(order.issuer)
        self._new[order.issuer, order.order_id] = order
        if own.is_numbered is None and not order.is_lifting:
            own.is_numbered = order.seq is not None
        own.chain.add(order)
        if order.keys is not None and not order.judgement.is_proposed:
            own.rotations.append(order)

    def rotations(self, issuer: str) -> list[Order]:
        """The rotations of an issuer's keys, without those that a gap holds."""
        own = self._own(issuer)
        return [one for one in own.rotations if one.judgement.passes_gap or own.chain.verdict(one) is None]

    def follows(self, order: Order) -> bool:
        """Whether a numbered order has the next number of its issuer and the correct `prev`."""
        return order.seq is not None and self._own(order.issuer).chain.fits(order)

    def with_entries(self, order: Order) -> Order:
        """A block that only refers to a notice has the entries of that notice: they are judged again."""
        notice = None if order.notice is None else self.find(order.issuer, order.notice)
        return order if notice is None or not order.borrows else replace(order, entries=notice.entries)

    def find(self, issuer: str, order_id: str) -> Order | None:
        """The order with a number, unless it was annulled."""
        return self._new.get((issuer, order_id)) or self._known.of(issuer).order(order_id)

    def aims(self, order: Order) -> list[Order | None]:
        """The orders that an order ends; None for one that is not known."""
        return [self.find(order.issuer, target.order_id) for target in order.targets]

    def _own(self, issuer: str) -> _Own:
        if issuer not in self._issuers:
            orders = self._known.of(issuer)
            # An order that opens names may have a wrong number, and applies anyway.
            # An annulled order without a number was a mistake. Those with one keep their numbers.
            first = next((one for one in orders.orders if _shows_numbering(one)), None)
            is_numbered = None if first is None else first.seq is not None
            self._issuers[issuer] = _Own(orders.chain.copy(), is_numbered, orders.rotations)
        return self._issuers[issuer]

    # ------- Problems -------

    def problems(self, order: Order) -> Iterator[Problem]:
        """The conflicts of an order with accepted ones. Numbers never refuse an order that opens names."""
        first = self.find(order.issuer, order.order_id)
        if first is not None:
            reason = f"REUSED: this order_id was used already, for other bytes (sha256:{first.sha256})"
            yield order.problem(("order_id",), order.order_id, reason)
            return
        for place, value, reason in () if order.is_lifting else self._wrong_numbers(order):
            yield order.problem(place, value, f"WRONG_SEQ: {reason}")
        if order.notice is not None:
            notice = self.find(order.issuer, order.notice)
            if notice is None or notice.action != "notice":
                reason = "UNKNOWN_ORDER: no notice of this issuer has this order_id"
                yield order.problem(("notice",), order.notice, reason)
            elif notice.judgement.is_proposed and not order.entries:
                reason = "UNKNOWN_ORDER: this notice is only proposed: an officer must sign it first"
                yield order.problem(("notice",), order.notice, reason)

    def notes(self, order: Order) -> Iterator[str]:
        """Wrong numbers of an order that opens names: it applies anyway."""
        for _, value, reason in self._wrong_numbers(order) if order.is_lifting else ():
            yield f"WRONG_SEQ: {value}: {reason}; the order applies anyway"

    def _wrong_numbers(self, order: Order) -> Iterator[tuple[tuple[str], str, str]]:
        own = self._own(order.issuer)
        if own.is_numbered is not None and own.is_numbered != (order.seq is not None):
            reason = "an issuer numbers all of its orders with seq, or none"
            yield ("seq",), "" if order.seq is None else str(order.seq), reason
        taken = None if order.seq is None else own.chain.followed.get(order.seq)
        if taken is not None:
            yield ("seq",), str(order.seq), f"this seq is that of order {taken.order_id}"

    # ------- Targets -------

    def aimed(self, order: Order) -> tuple[Order, list[Problem]]:
        """The order without targets that do not exist, and the problems with these.

        After a gap, a target may be in the missing orders. Then it is kept: it ends that order when it comes.
        """
        order = replace(
            order, refused=tuple(one for one in order.refused if not one.code.startswith("UNKNOWN"))
        )
        refused: list[RefusedEntry] = []
        ignored: list[str] = []
        unknown: list[tuple[str, tuple[str, ...]]] = []
        left = 0
        for number, target in enumerate(order.targets):
            found = list(self._wrong(order, number, target))
            refused.extend(one for one, _ in found)
            if any(is_whole for _, is_whole in found):
                ignored.append(target.order_id)
                continue
            if found:
                unknown.append((target.order_id, tuple(one.value for one, _ in found)))
            if target.entries is None or len(found) < len(target.entries):
                left += 1
        problems = [Problem(order.file, one.line, one.value, f"{one.code}: {one.reason}") for one in refused]
        if refused and not left:
            return order, problems
        # Also without any: it may have been judged before another order was accepted.
        judgement = replace(order.judgement, ignored=tuple(ignored), unknown=tuple(unknown))
        return replace(order, judgement=judgement, refused=(*order.refused, *refused)), []

    def _wrong(self, order: Order, number: int, target: Target) -> Iterator[tuple[RefusedEntry, bool]]:
        """The problems of a target, and whether all of it is wrong."""

        def refused(place: tuple[str | int, ...], value: str, code: str, reason: str) -> RefusedEntry:
            line = order.problem(("targets", number, *place), value, reason).line
            return RefusedEntry(line, value, "UNKNOWN_ORDER" if code == "ORDER" else "UNKNOWN_ENTRY", reason)

        aimed = self.find(order.issuer, target.order_id)
        if aimed is None:
            if target.order_id == order.order_id or not self._is_after_gap(order):
                reason = f"no order of {order.issuer} with this order_id was accepted before this one"
                yield refused(("order_id",), target.order_id, "ORDER", reason), True
            return
        if aimed.action not in MAY_END[order.action]:
            other = ": use revoke" if order.action == "unblock" and aimed.action in MAY_END["revoke"] else ""
            only = ", ".join(MAY_END[order.action])
            reason = f"is an order to {aimed.action}: {order.action} ends only {only}{other}"
            yield refused(("order_id",), target.order_id, "ORDER", reason), True
            return
        names = self._names_of(aimed)
        for index, wanted in enumerate(target.entries or ()):
            if (wanted.name, wanted.match) not in names:
                what = wanted.name if wanted.match is None else f"{wanted.name} ({wanted.match})"
                reason = f"the order {target.order_id} has no such entry"
                yield refused(("entries", index), what, "ENTRY", reason), False

    def _is_after_gap(self, order: Order) -> bool:
        """Whether an earlier order of the issuer is missing."""
        chain = self._own(order.issuer).chain
        if order.seq is None:
            return chain.gap is not None
        return not chain.fits(order) and order.seq not in chain.followed

    def _names_of(self, order: Order) -> set[tuple[str, str | None]]:
        key = (order.issuer, order.order_id)
        if key not in self._names:
            exactly = {(entry.name, entry.match) for entry in order.entries}
            self._names[key] = {*exactly, *((entry.name, None) for entry in order.entries)}
        return self._names[key]


def _shows_numbering(order: Order) -> bool:
    return not order.is_lifting and (order.annulled is None or order.seq is not None)


def wrong_links(orders: Orders) -> Iterator[Problem]:
    """The orders that are held only because of their `prev`, each with the correct one."""
    for order in orders:
        own = orders.of(order.issuer)
        expected = own.chain.expected_prev(order) if order.annulled is None else None
        if expected is not None and own.lives[order.sha256].standing is not None:
            reason = (
                f"prev: is not the sha256 of the order with seq {(order.seq or 0) - 1}: it should be "
                f"sha256:{expected}; the order is held until one with this prev is accepted"
            )
            yield order.problem(("prev",), order.prev or "", reason)
