"""Tells why a name is blocked, or is not: which zone, which entry, which orders, and what else covers it."""

from typing import TypedDict

from dnsblock.config import Config
from dnsblock.policy.publish import Policy


class CoveringEntry(TypedDict):
    """An entry that covers the name. Action `hole`: an exemption; the next zone is asked."""

    zone: str
    entry: str
    match: str
    action: str
    orders: list[str]
    decides: bool


class Explanation(TypedDict):
    """The answer to `why`. Verdict: `blocked`, `passthru` or `not covered`."""

    name: str
    verdict: str
    serial: int
    decided_by: CoveringEntry | None
    covering: list[CoveringEntry]


def explain(name: str, policy: Policy, config: Config) -> Explanation:
    """Explains a canonical name, through the lookup that answers queries."""
    orders = _orders_by_entry(policy, config)
    covering: list[CoveringEntry] = []
    for found in policy.snapshot.covering(name):
        covering.append(
            {
                "zone": found.zone,
                "entry": found.entry,
                "match": found.scope,
                "action": found.action or "hole",
                "orders": orders.get((found.zone, found.entry), []),
                "decides": found.decides,
            }
        )
    decided_by = next((entry for entry in covering if entry["decides"]), None)
    verdict = "not covered"
    if decided_by is not None:
        verdict = "passthru" if decided_by["action"] == "passthru" else "blocked"
    return {
        "name": name,
        "verdict": verdict,
        "serial": policy.snapshot.serial,
        "decided_by": decided_by,
        "covering": covering,
    }


def _orders_by_entry(policy: Policy, config: Config) -> dict[tuple[str, str], list[str]]:
    """Every order in force with an entry of that name, the deciding one first."""
    orders: dict[tuple[str, str], list[str]] = {}
    for zone in config.zones:
        for item in sorted(
            policy.state.in_force.get(zone.issuer or "", ()),
            key=lambda item: (item.effective_at, item.order_id),
        ):
            named = orders.setdefault((zone.name, item.entry.name), [])
            if item.order_id not in named:
                named.append(item.order_id)
    return orders
