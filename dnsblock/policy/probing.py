"""The expectations of a scheduled probe where other orders of the same issuer decide."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dnsblock._engine import Covering
from dnsblock.config import Config, Zone
from dnsblock.orders.life import Life
from dnsblock.policy.snapshot import Policy
from dnsblock.probe.checks import Check, Ordered
from dnsblock.probe.expectation import Answer, Blocked, Expectation, NotBlockedBy, Open


def zone_of(issuer: str, config: Config) -> Zone | None:
    """The zone that enforces the orders of an issuer."""
    return next((zone for zone in config.zones if zone.issuer == issuer and not zone.is_shadow), None)


def adjusted(
    checks: Sequence[Check], order: Ordered, life: Life, policy: Policy, config: Config
) -> Iterator[Check]:
    """The checks, as far as no other order of the same issuer decides.

    Other zones change nothing: a name that an allow list or another issuer decides is a miss.
    """
    zone = zone_of(order.issuer, config)
    own: set[tuple[str, str]] = {
        (entry.name, entry.match) for entry in order.entries if entry.effect == "in force"
    }
    for check in checks:
        expectation: Expectation | None = check.expectation
        decides = _deciding(check.question.name, zone, policy)
        if decides is not None and isinstance(expectation, Blocked):
            expectation = _blocked(expectation, decides, own, order, config)
        elif decides is not None and isinstance(expectation, Open) and decides.action is not None:
            expectation = None if _is_later(decides, life, policy) else expectation
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


def _is_later(decides: Covering, life: Life, policy: Policy) -> bool:
    """Whether an order that took effect after this one blocks the name again."""
    entries = policy.state.entries_of(life.order.issuer).named({decides.entry})
    return any(item.kind == "block" and item.effective_at >= life.order.effective_at for item in entries)


def answer_of(config: Config, name: str) -> Answer:
    """An answer profile of the configuration."""
    profile = config.answer(name)
    ipv4, ipv6 = tuple(map(str, profile.ipv4)), tuple(map(str, profile.ipv6))
    return Answer(profile.action, ipv4, ipv6, profile.target)
