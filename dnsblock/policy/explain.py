"""Explains why a name is or is not blocked: the zone, the entry, its orders, and other matching entries."""

from collections.abc import Mapping, Sequence, Set
from ipaddress import IPv4Address, IPv6Address
from typing import TypedDict

from dnsblock._engine import Covering
from dnsblock.config import Config
from dnsblock.lists.lists import Lists
from dnsblock.names import suffixes
from dnsblock.orders.allowances import about
from dnsblock.orders.life import InForce
from dnsblock.policy.allowed import AllowedName, shown
from dnsblock.policy.snapshot import Policy
from dnsblock.policy.zones import is_withdrawn


class CoveringEntry(TypedDict):
    """An entry that covers the name. Action `exemption`: evaluation continues with the next zone.

    Mode `shadow`: the zone does not decide; its matches are only counted. In a zone of addresses, the entry
    is a prefix, and the match is `prefix`.
    """

    zone: str
    kind: str  # of the zone: orders, list, addresses or rpz
    mode: str
    entry: str
    match: str
    action: str
    records: list[str]  # of a policy zone whose records give the answers: these, as `TTL TYPE DATA`
    orders: list[str]
    decides: bool  # over UDP
    decides_over_tcp: bool
    is_exception: bool  # in a list: an exemption, or a passthru that is not the zone's answer


class Explanation(TypedDict):
    """The result of `why`. Verdict: `blocked`, `passthru` or `not blocked`.

    Over TCP, the zones after one with the answer `truncate` decide.
    """

    name: str
    verdict: str
    serial: int
    decided_by: CoveringEntry | None
    verdict_over_tcp: str
    decided_over_tcp_by: CoveringEntry | None
    covering: list[CoveringEntry]
    allowed: list[AllowedName]  # why lists do not block it
    notes: list[str]


Address = IPv4Address | IPv6Address


def explain(
    target: str | Address,
    policy: Policy,
    config: Config,
    client: Address | None = None,
    lists: Lists | None = None,
) -> Explanation:
    """Explains a canonical name or responses with an address, using the same lookup as for queries.

    `client` is the address of the client. Without it, zones and triggers for certain clients do not count.
    With `lists`, a target that is not blocked gets a note on each list that is withdrawn.
    """
    found = explain_all([target], policy, config, client)[0]
    if lists is not None and found["verdict"] == "not blocked":
        gone = (zone.name for zone in config.zones if is_withdrawn(zone, lists))
        found["notes"] += [f"list {zone} has expired: {lists.expired[zone]}" for zone in gone]
    return found


def explain_all(
    targets: Sequence[str | Address], policy: Policy, config: Config, client: Address | None = None
) -> list[Explanation]:
    """Explains many names at once: the orders behind all of them are found in one pass."""
    found = [policy.snapshot.covering(target, client) for target in targets]
    kinds = {zone.name: zone.kind for zone in config.zones}
    limited = {zone.name for zone in config.zones if zone.clients is not None} if client is None else set()
    orders = _orders_of({(entry.zone, entry.entry) for own in found for entry in own}, policy, config)
    given = {zone.name for zone in config.zones if zone.gives_answers}
    lists = {zone.name for zone in config.zones if zone.kind == "list"} | given
    named = (zone for zone in config.zones if not zone.gives_answers)
    passing = {zone.name for zone in named if config.answer(zone.answer).is_passthru}
    return [
        {
            **_explanation(str(target), own, orders, lists - passing, policy, kinds=kinds),
            "notes": [
                f"zone {zone} applies to some clients only: `--client ADDRESS` explains it for one of them"
                for zone in sorted(limited & {entry.zone for entry in own})
            ],
        }
        for target, own in zip(targets, found, strict=True)
    ]


def _explanation(
    name: str,
    found: Sequence[Covering],
    orders: Mapping[tuple[str, str], list[InForce]],
    blocking_lists: Set[str],
    policy: Policy,
    *,
    kinds: Mapping[str, str],
) -> Explanation:
    covering: list[CoveringEntry] = [
        {
            "is_exception": entry.zone in blocking_lists and entry.action in (None, "passthru"),
            "zone": entry.zone,
            "kind": kinds[entry.zone],
            "mode": "shadow" if entry.is_shadow else "enforce",
            "entry": entry.entry,
            "match": entry.scope,
            "action": entry.action or "exemption",
            "records": entry.records,
            "orders": _in_turn(orders.get((entry.zone, entry.entry), []), entry, name),
            "decides": entry.decides,
            "decides_over_tcp": entry.decides_over_tcp,
        }
        for entry in found
    ]
    decided_by = next((entry for entry in covering if entry["decides"]), None)
    allowances = () if policy.allowed is None else policy.allowed.allowances
    over_tcp_by = next((entry for entry in covering if entry["decides_over_tcp"]), None)
    return {
        "name": name,
        "verdict": _verdict(decided_by),
        "serial": policy.snapshot.serial,
        "decided_by": decided_by,
        "verdict_over_tcp": _verdict(over_tcp_by, is_over_tcp=True),
        "decided_over_tcp_by": over_tcp_by,
        "covering": covering,
        "allowed": [shown(one) for one in about(allowances, suffixes(name))],
        "notes": [],
    }


def _verdict(decided_by: CoveringEntry | None, *, is_over_tcp: bool = False) -> str:
    if decided_by is None:
        return "not blocked"
    if is_over_tcp and decided_by["action"] == "truncate":  # `rpz-tcp-only.`: the query passes
        return "passthru"
    return "passthru" if decided_by["action"] == "passthru" else "blocked"


def _orders_of(
    entries: set[tuple[str, str]], policy: Policy, config: Config
) -> dict[tuple[str, str], list[InForce]]:
    """The orders in force for these few (zone, name), in one pass over possibly millions."""
    found: dict[tuple[str, str], list[InForce]] = {}
    for zone in config.zones:
        names = {name for of, name in entries if of == zone.name}
        for item in policy.state.entries_of(zone.issuer).named(names) if names else ():
            found.setdefault((zone.name, item.entry.name), []).append(item)
    return found


def _in_turn(items: list[InForce], entry: Covering, name: str) -> list[str]:
    """The orders behind an entry that covers a name, the deciding one first. All of them must be lifted."""
    kind = "exempt" if entry.action is None else "block"
    matches = ("exact", "subtree") if entry.entry == name else ("subtree", "below")
    own = [item for item in items if item.kind == kind and item.entry.match in matches]
    own.sort(key=lambda item: (item.entry.match != entry.scope, item.effective_at, item.order_id))
    return list(dict.fromkeys(item.order_id for item in own))
