"""Builds a snapshot from the orders in force at a time and from the lists, in configured zone order.

`read` does the input and may refuse it. `build` is then a pure function of a draft and the time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import IPv6Address
from types import MappingProxyType

from dnsblock._engine import PlacedZone, PolicyZone, Progress, Rules, Snapshot
from dnsblock.config import Config, Zone
from dnsblock.errors import Problem, Refused
from dnsblock.lists.lists import NONE, Lists
from dnsblock.orders.annulments import annul
from dnsblock.orders.intake import NOTHING, Intake, RefusedDocument, examine, judge_all
from dnsblock.orders.order import Order
from dnsblock.orders.records import Annulment
from dnsblock.orders.state import State, derive
from dnsblock.policy.engine_settings import engine_rules, nat64_prefixes, read_secrets
from dnsblock.policy.referenced import Contents, contents_of
from dnsblock.policy.serials import Serials
from dnsblock.policy.zones import ListZone, OrderZone, compile_lists, compile_orders
from dnsblock.principal import DAEMON, Principal

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
    accepted: tuple[Order, ...] = ()  # new orders that are in the ledger now
    refused: tuple[RefusedDocument, ...] | None = None  # by the inbox; None: it was not read
    annulments: tuple[Annulment, ...] = ()  # not in the ledger yet
    secrets: tuple[bytes, ...] = ()  # of cookies; empty: they were not read
    problems: tuple[Problem, ...] = ()  # of files whose previous content stays in force
    files: Contents | None = None  # files that the configuration refers to; None: they were not read
    restart_needed: tuple[str, ...] = ()  # options whose new values need a restart
    list_zones: Mapping[str, ListZone] = field(default_factory=dict)  # compiled when the lists were read
    by: Principal = DAEMON  # who publishes
    keeps_list_zones: bool = False  # the zones of lists stay as they are in force: no list was read

    def after(self, known: Sequence[Order], now: datetime) -> "Draft":
        """This draft, updated if other orders have been accepted since it was read."""
        if not self.new:
            return self
        seen = {digest for order in known for digest in order.digests}
        new = [order for order in self.new if order.sha256 not in seen]
        judged = judge_all(new, self.refused or (), known, self.config, now)
        return replace(self, new=judged.new, refused=None if self.refused is None else judged.refused)

    def orders(self, known: Sequence[Order], now: datetime) -> tuple[Order, ...]:
        """All orders including the new ones. Raises `Refused` for an annulment without an order."""
        return (*annul(known, self.annulments, now, self.by), *self.new)


def read(
    config: Config,
    known: Sequence[Order],
    lists: Lists,
    now: datetime,
    progress: Progress | None = None,
    *,
    reads_lists: bool = True,
    former_secrets: tuple[bytes, ...] = (),
    former_files: Contents = NO_FILES,
) -> Draft:
    """Reads inbox, lists and secrets. Raises `Refused` with every problem of every file.

    Without `reads_lists`, only lists without an enforced version are read. These do not raise:

    * a rejected list with an enforced version (see `Lists.rejections`)
    * a refused order document or an unreadable inbox (see `Draft.refused`)
    * an invalid file of secrets, if previous ones are in force
    """
    problems: list[Problem] = []
    intake: Intake = NOTHING if config.orders is None else examine(config.orders, known, config, now)
    fresh = lists
    problems.extend(missing_answers(config, known, now))
    try:
        fresh = lists.read(config, now, progress, only=None if reads_lists else NONE)
    except Refused as err:
        problems.extend(err.problems)
    secret_problems: tuple[Problem, ...] = ()
    notes = (*intake.notes, *fresh.notes)
    secrets = former_secrets
    try:
        secrets = tuple(read_secrets(config.cookies.secrets))
    except Refused as err:
        if former_secrets:
            secret_problems = err.problems
            notes = (*notes, f"{config.cookies.secrets}: the previous secrets stay in force")
        else:
            problems.extend(err.problems)
    if problems:
        raise Refused([*intake.problems, *problems])
    rules = engine_rules(config, secrets)
    return Draft(
        *(config, fresh, rules, intake.new, notes, reads_lists),
        refused=intake.refused,
        secrets=secrets,
        problems=secret_problems,
        files=contents_of(config, secrets, former_files),
    )


def missing_answers(config: Config, known: Sequence[Order], now: datetime) -> Iterator[Problem]:
    """Answer profiles missing from the configuration that current or future orders refer to."""
    for order, state in zip(known, derive(known, now).orders, strict=True):
        if state.state in ("lifted", "expired", "annulled"):
            continue
        named = {entry.answer for entry in order.entries}
        for missing in sorted(answer for answer in named if answer and answer not in config.answer_names):
            reason = f"order {state.order_id} of {state.issuer} needs this answer profile: put it back"
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

    @property
    def zones(self) -> tuple[PolicyZone, ...]:
        """The zones in configured order."""
        return tuple(placed.zone for placed in self.placed)

    def with_serial(self, serial: int) -> "Policy":
        """The same content under another serial."""
        return replace(self, snapshot=Snapshot(self.placed, serial, self.nat64))


def build(
    config: Config,
    lists: Lists,
    orders: Sequence[Order],
    now: datetime,
    serials: Serials,
    *,
    former: Mapping[str, ListZone] = NO_LISTS,
    keeps_former: bool = False,
    former_orders: Mapping[str, OrderZone] = NO_ORDERS,
) -> Policy:
    """Compiles the snapshot for `now`. It gets a higher serial if its content differs from the last one.

    `former`, `former_orders`: zones that need not be compiled again, or only in part.
    """
    state = derive(orders, now)
    list_zones = compile_lists(config, lists, former, keeps_former=keeps_former)
    order_zones: dict[str, OrderZone] = {}
    placed: list[PlacedZone] = []
    for zone in config.zones:
        due: int | None = None
        if zone.issuer is None:
            compiled = list_zones[zone.name].compiled
        else:
            change = state.next_change_by_issuer.get(zone.issuer)
            due = None if change is None else int(change.timestamp())
            before = former_orders.get(zone.name)
            order_zone = compile_orders(zone, config, state.in_force.get(zone.issuer, ()), before)
            order_zones[zone.name], compiled = order_zone, order_zone.compiled
        placed.append(place(zone, compiled, due))
    nat64 = nat64_prefixes(config)
    serial = serials.next(Snapshot.digest_of(placed, nat64))
    snapshot = Snapshot(placed, serial, nat64)
    return Policy(snapshot, tuple(placed), state, now, nat64, list_zones, order_zones)


def place(zone: Zone, compiled: PolicyZone, due: int | None) -> PlacedZone:
    """A compiled zone with its options. `due`: the Unix time of its next scheduled change."""
    return PlacedZone(
        compiled,
        next_change_at=due,
        judges_targets=zone.judges_targets,
        is_shadow=zone.is_shadow,
    )


def standing_notes(policy: Policy, config: Config, new: Sequence[Order]) -> tuple[str, ...]:
    """Permanent remarks: orders that are held, and orders that no zone enforces any more.

    The intake has already reported on `new` orders.
    """
    said = {(order.issuer, order.order_id) for order in new}
    held = [
        f"order {order.order_id} of {order.issuer}: {note}"
        for order in policy.state.orders
        if order.state == "held" and (order.issuer, order.order_id) not in said
        for note in order.notes
    ]
    issuers = {zone.issuer for zone in config.zones if not zone.is_shadow}
    unenforced = [
        f"{len(entries):,} entries of {issuer} are in force by its orders, and no zone enforces them"
        for issuer, entries in policy.state.in_force.items()
        if entries and issuer not in issuers
    ]
    return (*held, *unenforced)
