"""Compiles the names that the operator exempts from lists."""

from dataclasses import dataclass, field
from typing import TypedDict

from dnsblock._engine import Answer, PolicyZone, Rule
from dnsblock.orders.allowances import Allowance
from dnsblock.times import utc

NAME = "allowed"  # of the compiled zone; it is not one of the configuration


@dataclass(frozen=True, slots=True)
class AllowedNames:
    """The allowances in force, and their compiled names."""

    allowances: tuple[Allowance, ...]
    zone: PolicyZone = field(compare=False)


class AllowedName(TypedDict):
    """An allowance. Times are RFC 3339 in UTC."""

    name: str
    match: str
    since: str
    until: str
    by: str
    reason: str


def compile_allowed(
    allowances: tuple[Allowance, ...], former: AllowedNames | None = None
) -> AllowedNames | None:
    """The compiled names; None if there are none. `former`: used if it has the same ones."""
    if not allowances:
        return None
    if former is not None and former.allowances == allowances:
        return former
    lines = "".join(f"{one.match} 0 {one.name}\n" for one in allowances)
    return AllowedNames(
        allowances, PolicyZone.from_entries(NAME, [Rule(Answer("passthru", ttl=0))], lines.encode())
    )


def zone_of(allowed: AllowedNames | None) -> PolicyZone | None:
    """The compiled names for a snapshot."""
    return None if allowed is None else allowed.zone


def shown(one: Allowance) -> AllowedName:
    """An allowance for the API."""
    return {
        "name": one.name,
        "match": one.match,
        "since": utc(one.since),
        "until": utc(one.until),
        "by": str(one.by),
        "reason": one.reason,
    }
