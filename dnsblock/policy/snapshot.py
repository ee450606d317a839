"""Builds a snapshot from the orders in force at a time and from the lists, in configured zone order.

`read` does the input and may refuse it. `build` is then a pure function of a draft and the time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType

from dnsblock._engine import PlacedZone, PolicyZone, Progress, Rules, Snapshot
from dnsblock.access import ApiAccess
from dnsblock.config import Config
from dnsblock.config_zones import Zone
from dnsblock.errors import Problem, Refused
from dnsblock.lists.lists import NONE, Lists
from dnsblock.lists.transfer.keys import transferred_zones
from dnsblock.orders.context import Context
from dnsblock.orders.facts import Allowed, Decision
from dnsblock.orders.intake import NOTHING, Intake, RefusedDocument, examine, judge_all
from dnsblock.orders.life import Life, Part
from dnsblock.orders.order import Order
from dnsblock.orders.orders import EMPTY, Orders
from dnsblock.orders.references import References, read_references
from dnsblock.orders.state import Entries, State, derive
from dnsblock.policy.allowed import AllowedNames, compile_allowed, zone_of
from dnsblock.policy.engine_settings import engine_rules, nat64_prefixes, prefixes_of, read_secrets
from dnsblock.policy.referenced import Contents, contents_of
from dnsblock.policy.serials import Serials
from dnsblock.policy.zones import ListZone, OrderZone, compile_lists, compile_orders
from dnsblock.principal import DAEMON, Principal

NO_REFERENCES = References()
NO_FILES: Contents = MappingProxyType({})
NO_LISTS: Mapping[str, ListZone] = MappingProxyType({})
NO_ORDERS: Mapping[str, OrderZone] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Draft:
    """Validated input of a publish, not enforced yet."""

    config: Config
    lists: Lists
    rules: Rules
    new: tuple[Order, ...]  # not in the ledger yet
    notes: tuple[str, ...] = ()
    has_read_lists: bool = True
    signed: tuple[Order, ...] = ()  # orders in the ledger that somebody else has signed, too
    judged_in: Context | None = None  # what these were judged by
    accepted: tuple[Order, ...] = ()  # new orders that are in the ledger now
    refused: tuple[RefusedDocument, ...] | None = None  # by the inbox; None: it was not read
    decisions: tuple[Decision, ...] = ()  # not in the ledger yet
    allowed: tuple[Allowed, ...] = ()  # not in the ledger yet
    references: References = NO_REFERENCES  # by which orders are judged
    secrets: tuple[bytes, ...] = ()  # of cookies; empty: they were not read
    access: Mapping[str, ApiAccess] = field(default_factory=dict)  # of `api` and `console`, if there are any
    problems: tuple[Problem, ...] = ()  # of files whose previous content stays in force
    files: Contents | None = None  # files that the configuration refers to; None: they were not read
    restart_needed: tuple[str, ...] = ()  # options whose new values need a restart
    list_zones: Mapping[str, ListZone] = field(default_factory=dict)  # compiled when the lists were read
    by: Principal = DAEMON  # who publishes
    keeps_list_zones: bool = False  # the zones of lists stay as they are in force: no list was read

    def with_access(self, access: Mapping[str, ApiAccess]) -> "Draft":
        """This draft with the credentials of the issuers' API and of the console, by option."""
        files = {name: file for one in access.values() for name, file in one.files.items()}
        return replace(self, access=access, files={**(self.files or {}), **files})

    def after(self, known: Orders, now: datetime) -> "Draft":
        """This draft, updated if other orders of the same issuers have been accepted since it was read.

        All others stay as they were judged: a million entries would delay the publish by seconds.
        """
        context, before = Context(self.config, self.references, known, now), self.judged_in

        def stays(order: Order) -> bool:
            return before is not None and before.judges_alike(order.issuer, context)

        if all(map(stays, (*self.new, *self.signed))):
            return self
        again = [order for order in self.new if not stays(order) and order.sha256 not in known.by_digest]
        again += [order for order in self.signed if not stays(order)]
        judged = judge_all(again, self.refused or (), context)
        return replace(
            self,
            new=(*filter(stays, self.new), *judged.new),
            signed=(*filter(stays, self.signed), *judged.signed),
            refused=None if self.refused is None else judged.refused,
        )

    def orders(self, known: Orders, now: datetime) -> Orders:
        """All orders with the changes of this draft. Raises `Refused` for a decision without an order."""
        decided = known.decided(self.decisions, now, self.by)
        return decided.with_all((*self.signed, *self.new)).allowing(self.allowed, now, self.by)


def read(
    config: Config,
    known: Orders,
    lists: Lists,
    now: datetime,
    progress: Progress | None = None,
    *,
    reads_lists: bool = True,
    former_secrets: tuple[bytes, ...] = (),
    former_files: Contents = NO_FILES,
    former_references: References = NO_REFERENCES,
) -> Draft:
    """Reads inbox, lists and secrets. Raises `Refused` with every problem of every file.

    Without `reads_lists`, only lists without an enforced version are read. These do not raise:

    * a rejected list with an enforced version (see `Lists.rejections`)
    * a refused order document or an unreadable inbox (see `Draft.refused`)
    * an invalid file of secrets, if previous ones are in force
    * an invalid file of an issuer's keys, of a key of zone transfer, or of popular names
    """
    problems: list[Problem] = []
    references, unusable = read_references(config, former_references)
    context = Context(config, references, known, now)
    intake: Intake = NOTHING if config.orders is None else examine(config.orders, context)
    fresh = lists
    problems.extend(missing_answers(config, known, now))
    try:
        fresh = lists.read(config, now, progress, only=None if reads_lists else NONE)
    except Refused as err:
        problems.extend(err.problems)
    tolerated = list(unusable)
    notes = (*intake.notes, *fresh.notes)
    secrets = former_secrets
    try:
        secrets = tuple(read_secrets(config.cookies.secrets))
    except Refused as err:
        if former_secrets:
            tolerated.extend(err.problems)
            notes = (*notes, f"{config.cookies.secrets}: the previous secrets stay in force")
        else:
            problems.extend(err.problems)
    if problems:
        raise Refused([*intake.problems, *problems])
    transferred, unreadable_keys = transferred_zones(config)
    tolerated.extend(unreadable_keys)
    rules = engine_rules(config, secrets, transferred)
    return Draft(
        *(config, fresh, rules, intake.new, notes, reads_lists),
        signed=intake.signed,
        judged_in=context,
        refused=intake.refused,
        references=references,
        secrets=secrets,
        problems=tuple(tolerated),
        files=contents_of(config, secrets, references, former_files),
    )


def missing_answers(config: Config, known: Orders, now: datetime) -> Iterator[Problem]:
    """Answer profiles missing from the configuration that current or future orders refer to."""
    configured = config.answer_names
    for order in known:
        missing_here = order.answers - configured
        if not missing_here:
            continue
        state, _ = known.of(order.issuer).lives[order.sha256].state(now)
        if state in ("lifted", "superseded", "revoked", "expired", "annulled", "refused"):
            continue
        for missing in sorted(missing_here):
            reason = f"order {order.order_id} of {order.issuer} needs this answer profile: put it back"
            yield Problem(str(config.path), None, missing, reason)


@dataclass(frozen=True, slots=True)
class Policy:
    """The enforced policy, with the orders and lists behind it."""

    snapshot: Snapshot
    placed: tuple[PlacedZone, ...]  # the zones of the snapshot
    state: State
    at: datetime
    nat64: Sequence[tuple[IPv6Address, int]] = ()  # the NAT64 prefixes of the snapshot
    lists: Mapping[str, ListZone] = field(default_factory=dict)  # the zones of lists, by name
    orders: Mapping[str, OrderZone] = field(default_factory=dict)  # the zones of orders, by name
    plan: tuple["Placement", ...] = ()  # how the zones are placed
    allowed: AllowedNames | None = None  # that no list blocks

    @property
    def zones(self) -> tuple[PolicyZone, ...]:
        """The zones in configured order."""
        return tuple(placed.zone for placed in self.placed)

    @property
    def issuers(self) -> frozenset[str]:
        """The issuers whose orders are enforced: not those of shadow zones only."""
        zones = (zone.options[0] for zone in self.orders.values())
        return frozenset(zone.issuer for zone in zones if zone.issuer is not None and not zone.is_shadow)

    def with_serial(self, serial: int) -> "Policy":
        """The same content under another serial."""
        snapshot = Snapshot(self.placed, serial, self.nat64, zone_of(self.allowed))
        return replace(self, snapshot=snapshot)


@dataclass(frozen=True, slots=True)
class OrdersAt:
    """The state of all orders at a time, and their compiled zones by name."""

    state: State
    zones: Mapping[str, OrderZone]


def compile_orders_at(
    config: Config, orders: Orders, now: datetime, former: OrdersAt | None = None, *, is_served: bool = True
) -> OrdersAt:
    """Derives the state of the orders at a time, and compiles their zones.

    `former`: any other one. Its zones are used where they are the same, so the result does not depend on it.
    `is_served`: as for `compile_orders`.
    """
    state = derive(orders, now, None if former is None else former.state)
    before = {} if former is None else former.zones
    return OrdersAt(state, _order_zones(config, state.entries_of, before, is_served=is_served))


def _order_zones(
    config: Config,
    entries_of: Callable[[str], Entries],
    before: Mapping[str, OrderZone],
    *,
    is_served: bool = True,
) -> dict[str, OrderZone]:
    return {
        zone.name: compile_orders(
            zone, config, entries_of(zone.issuer), before.get(zone.name), is_served=is_served
        )
        for zone in config.zones
        if zone.issuer is not None
    }


def compile_parsed(config: Config, orders: Sequence[Order], now: datetime) -> OrdersAt:
    """The zones of orders, if nothing but these documents said what is in force.

    Only for `former`, and only if the ledger has these documents. It may hold or annul some of the orders.
    """
    targets = ((one.issuer, target) for one in orders for target in one.targets)
    ended = {(issuer, target.order_id) for issuer, target in targets if target.entries is None}
    parts: dict[str, dict[str, Part]] = {}
    for order in orders:
        part = Life(order).in_force(now)
        if part is not None and (order.issuer, order.order_id) not in ended:
            parts.setdefault(order.issuer, {})[order.sha256] = part
    zones = _order_zones(config, lambda issuer: Entries(parts.get(issuer, {})), NO_ORDERS)
    return OrdersAt(State(EMPTY, now), zones)


@dataclass(frozen=True, slots=True)
class Placement:
    """A compiled zone, and its options in a snapshot."""

    zone: PolicyZone
    due: int | None  # Unix time of its next scheduled change
    judges_targets: bool
    is_shadow: bool
    is_list: bool
    clients: tuple[IPv4Network | IPv6Network, ...] | None  # None: all

    def place(self) -> PlacedZone:
        """The same for the engine."""
        clients = None if self.clients is None else prefixes_of(self.clients)
        return PlacedZone(
            self.zone,
            next_change_at=self.due,
            judges_targets=self.judges_targets,
            is_shadow=self.is_shadow,
            is_list=self.is_list,
            clients=clients,
        )


def build(
    config: Config,
    lists: Lists,
    orders: Orders,
    now: datetime,
    serials: Serials,
    *,
    former: Policy | None = None,
    known: OrdersAt | None = None,
    list_zones: Mapping[str, ListZone] = NO_LISTS,
    keeps_list_zones: bool = False,
) -> Policy:
    """Compiles the snapshot for `now`. It gets a higher serial if its content differs from the last one.

    `former`: any other policy. Its zones are used where they are the same, so the result does not depend
    on it. `list_zones` and `known`: the same for the zones of lists, and for those of orders.
    """
    if known is None and former is not None:
        known = OrdersAt(former.state, former.orders)
    lists_now = compile_lists(config, lists, list_zones, keeps_former=keeps_list_zones)
    orders_now = compile_orders_at(config, orders, now, known)
    state, order_zones = orders_now.state, orders_now.zones
    plan: list[Placement] = []
    for zone in config.zones:
        due: int | None = None
        if zone.issuer is None:
            compiled, is_shadow = lists_now[zone.name].compiled, lists_now[zone.name].is_shadow
        else:
            change = state.next_change_of(zone.issuer)
            due = None if change is None else int(change.timestamp())
            compiled, is_shadow = order_zones[zone.name].compiled, zone.is_shadow
        plan.append(placement(zone, compiled, due, is_shadow=is_shadow))
    nat64 = nat64_prefixes(config)
    allowed = compile_allowed(orders.allowances.in_force(now), None if former is None else former.allowed)
    facts = (state, now, nat64, lists_now, order_zones, tuple(plan), allowed)
    if former is not None and (former.plan, former.nat64, former.allowed) == (tuple(plan), nat64, allowed):
        same = Policy(former.snapshot, former.placed, *facts)
        serial = serials.next(same.snapshot.digest)
        return same if serial == same.snapshot.serial else same.with_serial(serial)
    placed = tuple(one.place() for one in plan)
    serial = serials.next(Snapshot.digest_of(placed, nat64, zone_of(allowed)))
    return Policy(Snapshot(placed, serial, nat64, zone_of(allowed)), placed, *facts)


def placement(zone: Zone, compiled: PolicyZone, due: int | None, *, is_shadow: bool) -> Placement:
    """A compiled zone with its options. `due`: the Unix time of its next scheduled change."""
    is_list = zone.issuer is None
    return Placement(compiled, due, zone.judges_targets, is_shadow, is_list, zone.clients)


def policy_at(policy: Policy, orders: Orders, at: datetime, config: Config) -> Policy:
    """The policy with these orders at a time, and with the present lists. It gets no serial of its own.

    For questions such as what an order would change. Zones of orders are compiled where they differ.
    """
    now = compile_orders_at(config, orders, at, OrdersAt(policy.state, policy.orders), is_served=False)
    placed: list[PlacedZone] = []
    for zone in config.zones:
        of_list = policy.lists.get(zone.name)
        compiled, is_shadow = (
            (now.zones[zone.name].compiled, zone.is_shadow)
            if of_list is None
            else (of_list.compiled, of_list.is_shadow)
        )
        placed.append(placement(zone, compiled, None, is_shadow=is_shadow).place())
    allowed = compile_allowed(orders.allowances.in_force(at), policy.allowed)
    snapshot = Snapshot(placed, policy.snapshot.serial, policy.nat64, zone_of(allowed))
    same = replace(policy, snapshot=snapshot, placed=tuple(placed), allowed=allowed)
    return replace(same, state=now.state, at=at, orders=now.zones)


def standing_notes(policy: Policy, config: Config, new: Sequence[Order]) -> tuple[str, ...]:
    """Permanent remarks: orders that are held, and orders that no zone enforces any more.

    The intake has already reported on `new` orders.
    """
    said = {(order.issuer, order.order_id) for order in new}
    held = [
        f"order {order.order_id} of {order.issuer}: {note}"
        for own in policy.state.by_issuer.values()
        for order in own.held.values()
        if (order.issuer, order.order_id) not in said
        for note in order.notes
    ]
    issuers = {zone.issuer for zone in config.zones if not zone.is_shadow}
    unenforced = [
        f"{len(entries):,} entries of {issuer} are in force by its orders, and no zone enforces them"
        for issuer, entries in policy.state.in_force.items()
        if entries and issuer not in issuers
    ]
    return (*held, *unenforced)


def unsigned_notes(config: Config) -> tuple[str, ...]:
    """Remarks on zones whose content nobody has signed: at each startup, and by `check`."""
    transferred = tuple(
        f"the zone {zone.name} is transferred without a key (TSIG) or TLS: "
        "anybody who can send packets in the name of its primary decides what is blocked"
        for zone in config.zones
        if zone.rpz is not None and not zone.rpz.is_authentic
    )
    return transferred + tuple(
        f"the zone {zone.name} accepts unsigned orders: everybody who can submit one decides what is blocked"
        for zone in config.zones
        if zone.accepts_unsigned
    )
