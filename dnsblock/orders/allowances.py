"""Names that the operator exempts from lists until a time, as the ledger records them.

An allowance never concerns an order. A later one for the same name and match replaces an earlier one.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dnsblock.errors import Problem, Refused, counted
from dnsblock.orders.facts import Allowed
from dnsblock.principal import Principal

MAX_ALLOWED = 10_000  # in force at the same time
LONGEST = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Allowance:
    """A name that lists do not block from `since` (inclusive) to `until` (exclusive)."""

    name: str
    match: str
    since: datetime
    until: datetime
    by: Principal
    reason: str
    is_replaced: bool = False  # by a later one with the same name and match

    @property
    def key(self) -> tuple[str, str]:
        """Another allowance with this key replaces it."""
        return self.name, self.match


Recorded = tuple[Allowed, datetime, Principal]  # a fact, when it was recorded, and the operator


@dataclass(frozen=True, slots=True)
class Allowances:
    """All allowances in the sequence of the ledger. Immutable."""

    all: tuple[Allowance, ...] = ()

    def with_facts(self, facts: Iterable[Recorded]) -> "Allowances":
        """With more. An earlier one with the same name and match ends when the later one begins.

        A startup reads thousands: each looks only at those of its own name.
        """
        found = list(self.all)
        places: dict[tuple[str, str], list[int]] = {}
        for index, one in enumerate(found):
            places.setdefault(one.key, []).append(index)
        for fact, at, by in facts:
            new = Allowance(fact.name, fact.match, at, datetime.fromisoformat(fact.until), by, fact.reason)
            own = places.setdefault(new.key, [])
            for index in own:
                before = found[index]
                end = min(before.until, max(before.since, at))
                if not (before.is_replaced and before.until == end):
                    found[index] = replace(before, until=end, is_replaced=True)
            own.append(len(found))
            found.append(new)
        return Allowances(tuple(found))

    def in_force(self, now: datetime) -> tuple[Allowance, ...]:
        """Those in force now. One that was recorded while the clock was ahead is in force, too.

        One that an operator has ended stays so if the clock is set back. So does the record of that end.
        """
        return tuple(
            one for one in self.all if now < one.until and one.since < one.until and not one.is_replaced
        )

    def at(self, when: datetime) -> tuple[Allowance, ...]:
        """Those in force at a past time."""
        return tuple(one for one in self.all if one.since <= when < one.until)

    def next_change(self, now: datetime) -> datetime | None:
        """When the next one ends."""
        return min((one.until for one in self.in_force(now)), default=None)


NO_ALLOWANCES = Allowances()


def about(allowances: Iterable[Allowance], covers: Collection[str]) -> Iterator[Allowance]:
    """Those that cover a name. `covers`: the name, then its parents."""
    name = next(iter(covers), "")
    for one in allowances:
        if one.name in covers and one.match in (
            ("exact", "subtree") if one.name == name else ("subtree", "below")
        ):
            yield one


def check(fact: Allowed, now: datetime, known: Allowances) -> None:
    """Raises `Refused` for an allowance that may not be recorded now."""
    until = datetime.fromisoformat(fact.until)
    reason = ""
    if until > now + LONGEST:
        reason = f"is more than {LONGEST.days} days away: allow the name again before that time"
    elif until <= now and not any(one.key == (fact.name, fact.match) for one in known.in_force(now)):
        reason = "is in the past, and the name is not allowed now: nothing ends"
    if reason:
        raise Refused([Problem("allow", None, fact.until, f"the time {reason}")])
    if until > now and len(known.in_force(now)) >= MAX_ALLOWED:
        reason = f"{counted(MAX_ALLOWED, 'name')} are allowed already: end some of them first"
        raise Refused([Problem("allow", None, fact.name, reason)])
