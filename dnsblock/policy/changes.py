"""The changes of a publish: names in zones, accepted orders, options. For `reload`, the API and the log."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from dnsblock import times
from dnsblock._engine import PolicyZone
from dnsblock.config import Config
from dnsblock.config_zones import Zone
from dnsblock.errors import counted
from dnsblock.lists.lists import Lists
from dnsblock.orders.order import Order
from dnsblock.policy.referenced import Contents, files_between
from dnsblock.policy.snapshot import Policy


@dataclass(frozen=True, slots=True)
class ZoneChange:
    """How many names a zone gained and lost."""

    zone: str
    added: int
    removed: int


@dataclass(frozen=True, slots=True)
class AcceptedOrder:
    """An order that was accepted, and its state."""

    issuer: str
    order_id: str
    action: str
    state: str
    entries: int
    effective_at: datetime
    expires_at: datetime | None

    def as_json(self) -> dict[str, Any]:
        """One JSON object; times are RFC 3339 in UTC."""
        return {
            "issuer": self.issuer,
            "order_id": self.order_id,
            "action": self.action,
            "state": self.state,
            "entries": self.entries,
            "effective_at": times.utc(self.effective_at),
            "expires_at": None if self.expires_at is None else times.utc(self.expires_at),
        }


@dataclass(frozen=True, slots=True)
class Changes:
    """All changes of a publish."""

    zones: tuple[ZoneChange, ...] = ()
    orders: tuple[AcceptedOrder, ...] = ()
    options: tuple[str, ...] = ()  # such as access_control.allow

    def then(self, later: "Changes") -> "Changes":
        """These changes and later ones, combined."""
        total = {one.zone: one for one in self.zones}
        for one in later.zones:
            before = total.get(one.zone, ZoneChange(one.zone, 0, 0))
            total[one.zone] = ZoneChange(one.zone, before.added + one.added, before.removed + one.removed)
        options = tuple(dict.fromkeys([*self.options, *later.options]))
        return Changes(tuple(total.values()), (*self.orders, *later.orders), options)

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "zones": [{"zone": one.zone, "added": one.added, "removed": one.removed} for one in self.zones],
            "orders": [one.as_json() for one in self.orders],
            "options": list(self.options),
        }

    @property
    def summary(self) -> str:
        """A few words for the log."""
        parts = []
        if self.zones:
            added, removed = sum(one.added for one in self.zones), sum(one.removed for one in self.zones)
            zones = counted(len(self.zones), "zone")
            parts.append(f"{counted(added, 'name')} added, {removed:,} removed in {zones}")
        if self.orders:
            parts.append(f"{counted(len(self.orders), 'order')} accepted")
        if self.options:
            shown, more = ", ".join(self.options[:3]), len(self.options) - 3
            parts.append(f"options changed: {shown}" + (f" and {more:,} more" if more > 0 else ""))
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Enforced:
    """Everything that determines how queries are answered at a time."""

    config: Config
    lists: Lists
    policy: Policy
    files: Contents
    zones: dict[str, tuple[Zone, PolicyZone]] = field(init=False)

    def __post_init__(self) -> None:
        pairs = zip(self.config.zones, self.policy.zones, strict=True)
        object.__setattr__(self, "zones", {zone.name: (zone, compiled) for zone, compiled in pairs})


def changes_between(before: Enforced, after: Enforced, accepted: Sequence[Order]) -> Changes:
    """Compares the state before and after a publish, and adds the orders that it accepted."""
    state = after.policy.state
    orders = [state.by_issuer[order.issuer].states[order.sha256] for order in accepted]
    return Changes(
        tuple(_zones(before, after)),
        tuple(
            AcceptedOrder(
                *(one.issuer, one.order_id, one.action, one.state, one.entries),
                *(one.effective_at, one.expires_at),
            )
            for one in orders
        ),
        (*options_between(before.config, after.config), *files_between(before.files, after.files)),
    )


# ------- Names -------


def _zones(before: Enforced, after: Enforced) -> Iterator[ZoneChange]:
    for name in dict.fromkeys([*before.zones, *after.zones]):
        added, removed = _names(name, before, after)
        if added or removed:
            yield ZoneChange(name, added, removed)


def _names(name: str, before: Enforced, after: Enforced) -> tuple[int, int]:
    old, new = before.zones.get(name), after.zones.get(name)
    old_entries = 0 if old is None else old[1].entries
    new_entries = 0 if new is None else new[1].entries
    if old is None or new is None or old[0].kind != new[0].kind:
        return new_entries, old_entries
    if old[1].digest == new[1].digest:
        return 0, 0
    if old[0].issuer is not None:
        issuers = (old[0].issuer or "", new[0].issuer or "")
        was_in_force, in_force = (
            state.policy.state.entries_of(issuer)
            for state, issuer in zip((before, after), issuers, strict=True)
        )
        gone, come = in_force.changed_since(was_in_force)
        # Another order may have had, or may still have, the same name. A million others may be unchanged.
        still = in_force.having(gone) if gone - come else gone
        had = was_in_force.having(come) if come - gone else come
        return len(come - had), len(gone - still)
    was, now = before.lists.listed.get(name), after.lists.listed.get(name)
    versions = (None if one is None else one.version for one in (was, now))
    if was is None or now is None or None in (pair := tuple(versions)):
        return max(0, new_entries - old_entries), max(0, old_entries - new_entries)
    if pair[0] == pair[1] or pair[1] is None:
        return 0, 0  # the same names with another answer
    if pair[1].added is None or pair[1].removed is None:  # no difference: another list altogether
        return new_entries, old_entries
    return pair[1].added, pair[1].removed


# ------- Options -------


def options_between(before: Config, after: Config) -> Iterator[str]:
    """The options with a changed value, such as `access_control.allow` or `zones.ads.answer`."""
    for option in type(after).model_fields:
        if option == "path":
            continue
        old, new = getattr(before, option), getattr(after, option)
        if option == "zones":
            yield from _zones_between(old, new)
        else:
            yield from _values_between(option, old, new)


def _zones_between(before: Sequence[Zone], after: Sequence[Zone]) -> Iterator[str]:
    old, new = ({zone.name: zone for zone in zones} for zones in (before, after))
    for name in dict.fromkeys([*old, *new]):
        yield from _values_between(f"zones.{name}", old.get(name), new.get(name))
    sequences = [
        [zone.name for zone in zones if zone.name in old.keys() & new.keys()] for zones in (before, after)
    ]
    if sequences[0] != sequences[1]:
        yield "zones (their order)"


def _values_between(option: str, before: Any, after: Any) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, BaseModel) and type(before) is type(after):
        for name in type(before).model_fields:
            yield from _values_between(f"{option}.{name}", getattr(before, name), getattr(after, name))
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys([*before, *after]):
            yield from _values_between(f"{option}.{name}", before.get(name), after.get(name))
    else:
        yield option
