"""The checks for an order by the policy in force, for scheduled probes and for `dnsblock probe`."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dnsblock._engine import Covering
from dnsblock.config import Config
from dnsblock.config_zones import Zone
from dnsblock.names import above
from dnsblock.orders.entry import Entry
from dnsblock.orders.life import Life
from dnsblock.orders.order import Order, TargetEntry
from dnsblock.orders.state import State
from dnsblock.policy.snapshot import Policy
from dnsblock.probe.checks import Check, Effect, Ordered, OrderedEntry, Plan, checks_of, choose
from dnsblock.probe.expectation import Answer, Blocked, Expectation, NotBlockedBy, Open


def zone_of(issuer: str, config: Config) -> Zone | None:
    """The zone that enforces the orders of an issuer."""
    return next((zone for zone in config.zones if zone.issuer == issuer and not zone.is_shadow), None)


@dataclass(frozen=True, slots=True)
class Known:
    """The policy in force at a time."""

    state: State  # with the events since the publish
    policy: Policy
    config: Config
    now: datetime


def plan_of(
    life: Life,
    known: Known,
    *,
    most: int,
    popular: Collection[str],
    also: Collection[str] = (),
) -> tuple[Ordered, Plan]:
    """The order and its checks: of at most `most` names, of popular ones, and of those in `also`.

    An order may have millions of entries, so only those that cover a chosen name are copied.
    """
    order, config, own = life.order, known.config, known.state.by_issuer[life.order.issuer]
    aims = [(target.entries, aimed) for target, aimed in own.orders.targets_of(order)]
    aimed_at = [(aimed, _names_of(entries)) for entries, aimed in aims]
    sources = [(life, None), *aimed_at]
    chosen, total = choose(lambda: (entry.name for _, _, entry in _entries(sources)), most, popular, also)
    wanted = {higher for name in chosen for higher in (name, *above(name))}
    entries = tuple(
        OrderedEntry(
            entry.name, entry.match, _answers(one.order, entry, config), _effect(one, index, known.now)
        )
        for one, index, entry in _entries(sources)
        if entry.name in wanted
    )
    ordered = Ordered(order.issuer, order.order_id, order.action, own.states[order.sha256].state, entries)
    checks = checks_of(ordered, chosen, configured_answers(config))
    checks = tuple(_adjusted(checks, ordered, life, known))
    return ordered, Plan(checks, total, len(chosen))


def configured_answers(config: Config) -> tuple[Answer, ...]:
    """The answer profiles in the configuration, without the built-in ones."""
    return tuple(answer_of(config, name) for name in config.answers)


_Named = Collection[tuple[str, str | None]] | None  # names and matches of a target; None: everything


def _names_of(entries: Sequence[TargetEntry] | None) -> _Named:
    return None if entries is None else {(one.name, one.match) for one in entries}


def _entries(sources: Sequence[tuple[Life, _Named]]) -> Iterator[tuple[Life, int, Entry]]:
    """The entries of an order, and those that it ends."""
    for life, named in sources:
        for index, entry in enumerate(life.order.entries):
            if named is None or (entry.name, None) in named or (entry.name, entry.match) in named:
                yield life, index, entry


def _answers(order: Order, entry: Entry, config: Config) -> tuple[Answer, ...]:
    """The answer of a blocking entry."""
    zone = zone_of(order.issuer, config)
    if zone is None or order.action == "exempt":
        return ()
    return (answer_of(config, entry.answer if entry.answer in config.answer_names else zone.answer),)


def _effect(life: Life, index: int, now: datetime) -> Effect:
    if life.is_in_force(index, now):
        return "in force"
    return "none" if index in life.order.judgement.idle else "ended"


# ------- Other orders of the issuer -------


def _adjusted(checks: Sequence[Check], order: Ordered, life: Life, known: Known) -> Iterator[Check]:
    """The checks, as far as no other order of the same issuer decides.

    Other zones change nothing: a name that an allow list or another issuer decides is a miss.
    """
    zone = zone_of(order.issuer, known.config)
    own: set[tuple[str, str]] = {
        (entry.name, entry.match) for entry in order.entries if entry.effect == "in force"
    }
    for check in checks:
        expectation: Expectation | None = check.expectation
        decides = _deciding(check.question.name, zone, known.policy)
        if decides is not None and isinstance(expectation, Blocked):
            expectation = _blocked(expectation, decides, own, order, known.config)
        elif decides is not None and isinstance(expectation, Open) and decides.action is not None:
            expectation = None if _is_later(decides, life, known.state) else expectation
        if expectation is not None:
            yield replace(check, expectation=expectation)


def _deciding(name: str, zone: Zone | None, policy: Policy) -> Covering | None:
    """The entry of the zone that decides about a name: the one with the longest match."""
    covering = () if zone is None else policy.snapshot.covering(name)
    return next((one for one in covering if zone is not None and one.zone == zone.name), None)


def _blocked(
    expectation: Blocked, decides: Covering, own: set[tuple[str, str]], order: Ordered, config: Config
) -> Expectation:
    """An exemption, or the answer of another order, may decide about the name."""
    if decides.action is None:
        return NotBlockedBy(order.order_id, expectation.answers)
    is_own = (decides.entry, decides.scope) in own
    if is_own and any(answer.action == decides.action for answer in expectation.answers):
        return expectation
    answers = (answer_of(config, name) for name in sorted(config.answer_names))
    return Blocked(tuple(answer for answer in answers if answer.action == decides.action))


def _is_later(decides: Covering, life: Life, state: State) -> bool:
    """Whether an order that came or took effect after this one blocks the name again."""
    order, own = life.order, state.known.of(life.order.issuer)
    targets = {target.order_id for target in order.targets}
    for item in state.entries_of(order.issuer).named({decides.entry}):
        other = own.latest(item.order_id)
        if item.kind != "block" or item.order_id in targets or other is None:
            continue
        if item.effective_at > order.effective_at:
            return True
        times = (other.order.received_at, order.received_at)
        if times[0] is not None and times[1] is not None and times[0] >= times[1]:
            return True
    return False


def answer_of(config: Config, name: str) -> Answer:
    """An answer profile of the configuration."""
    profile = config.answer(name)
    ipv4, ipv6 = tuple(map(str, profile.ipv4)), tuple(map(str, profile.ipv6))
    return Answer(profile.action, ipv4, ipv6, profile.target)
