"""The changes that can be published, and the results. `Publisher.publish` makes them."""

from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Literal

from dnsblock.errors import Problem, Refused
from dnsblock.orders.approval import check_still_held
from dnsblock.orders.context import Context
from dnsblock.orders.facts import Allowed, Annulment, Decision
from dnsblock.orders.order import Order
from dnsblock.orders.orders import Orders
from dnsblock.policy.changes import Changes
from dnsblock.policy.zones import ListZone
from dnsblock.principal import DAEMON, Principal

Scope = Literal["all", "lists", "ledger"]  # what a change reads again


@dataclass(frozen=True, slots=True)
class Reload:
    """Configuration, orders and lists are read again."""

    by: Principal
    reason: str = "reload"
    scope: Scope = "all"


@dataclass(frozen=True, slots=True)
class ListsChanged:
    """Lists are read again: the list of one zone, or all."""

    by: Principal
    reason: str
    zone: str | None = None
    scope: Scope = "lists"


@dataclass(frozen=True, slots=True)
class RecordsChanged:
    """Records of one policy zone have changed since it was compiled (`advance.py`). Nothing is read."""

    by: Principal
    reason: str
    zone: str
    before: ListZone
    after: ListZone
    scope: Scope = "lists"


@dataclass(frozen=True, slots=True)
class ClockTick:
    """Only the time has changed. Nothing is read: nothing broken or slow can keep a block beyond its end."""

    by: Principal = DAEMON
    reason: str = "clock"
    scope: Scope = "ledger"


@dataclass(frozen=True, slots=True)
class LedgerEntries:
    """New facts for the ledger: submitted orders, or decisions of the operator. Nothing else is read."""

    by: Principal
    reason: str
    new: tuple[Order, ...] = ()
    notes: tuple[str, ...] = ()
    signed: tuple[Order, ...] = ()  # orders in the ledger, with more signatures
    judged_in: Context | None = None  # what these were judged by
    decisions: tuple[Decision, ...] = ()
    allowed: tuple[Allowed, ...] = ()  # names that the operator exempts from lists
    decided: tuple[Order, ...] = ()  # the orders that the decisions mean
    scope: Scope = "ledger"

    def check(self, known: Orders) -> None:
        """Raises `Refused` if other decisions about the same orders or entries were recorded since.

        Another order may have the number of one that was annulled.
        """
        for order in self.decided:
            now = known.of(order.issuer).order(order.order_id)
            if now is None or now.sha256 != order.sha256:
                why = "was annulled in the meantime: look at the order that has this number now"
                raise Refused([Problem(f"issuer {order.issuer}", None, order.order_id, why)])
        for one in self.decisions:
            order_now = known.of(one.issuer).order(one.order_id)
            if order_now is not None and not isinstance(one, Annulment):
                check_still_held(one, order_now)


@dataclass(frozen=True, slots=True)
class RollBack:
    """The lists of an earlier serial come back, as a new version."""

    by: Principal
    serial: int
    why: str
    scope: Scope = "lists"

    @property
    def reason(self) -> str:
        """The change in a few words."""
        return f"rollback to serial {self.serial}"

    @property
    def note(self) -> str:
        """The note on the new versions in the history."""
        return f"by {self.by}: {self.why}"


Change = Reload | ListsChanged | RecordsChanged | ClockTick | LedgerEntries | RollBack


@dataclass(frozen=True, slots=True)
class LastPublish:
    """How the latest attempt to publish ended."""

    ok: bool
    at: datetime
    reason: str
    scope: Scope
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """The result of a publish."""

    serial: int
    digest: str
    entries: int
    changed: bool
    restart_needed: tuple[str, ...]  # options whose new values need a restart
    notes: tuple[str, ...]  # warnings
    problems: tuple[Problem, ...]  # options that keep their previous values, since the new ones are unusable
    changes: Changes
    time_zone: str  # in which times are shown

    def facts(self) -> dict[str, Any]:
        """The same as JSON, for the control API."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "problems"}
        return own | {"changes": self.changes.as_json()}

    def then(self, next_one: "Served") -> "Served":
        """Both publishes of one call."""
        changed, notes = self.changed or next_one.changed, (*self.notes, *next_one.notes)
        changes = self.changes.then(next_one.changes)
        return replace(next_one, changed=changed, notes=notes, changes=changes)
