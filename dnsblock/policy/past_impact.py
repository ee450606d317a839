"""The effect that an order or a list would have had on past days, from counts of queried names.

The privacy rule: counts below ten are in no figure about a name, an entry or an order. They are only in
figures about all queries of the server, which do not depend on what is asked: `queries`, `unlisted` and
`name_error`. So two reports never differ by the queries for one rare name (docs/privacy.md).
"""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import TypedDict

from dnsblock._engine import SHOWN_FROM, DayCounts, PolicyZone, Snapshot, past_impact
from dnsblock.policy.impact import Candidate, Match, Named

MAX_DAYS = 366
HOURS = 24


class Entry(TypedDict):
    """An entry of the order or list."""

    name: str
    match: Match
    queries: int  # at least
    at_most: int


class Day(TypedDict):
    """A day, by UTC."""

    day: str
    hours: int  # in which queries were counted
    queries: int
    blocked: int  # at least


class PastImpact(TypedDict):
    """The effect of enforcing the order or list after all zones."""

    file: str
    names: int
    first_day: str
    last_day: str
    days_counted: int
    hours_counted: int
    hours: int  # of all these days, the last one as a whole
    shown_from: int  # the fewest queries on a day with which a name is stored
    queries: int  # for any name
    unlisted: int  # those that the counts of names lack, whatever their names
    blocked: int  # queries that the order would have blocked: at least, and at most
    blocked_at_most: int
    share: float  # of all queries: at least, and at most
    share_at_most: float
    decided: int  # those for names of the order that an enforced zone decides now
    name_error: int  # the most queries that are missing in the count of any name
    blocking_names: int  # entries that would have blocked a stored name
    decided_names: int  # entries of which every stored name is decided by an enforced zone
    unlisted_names: int  # entries without a stored name: rarely queried, or not at all
    entries: list[Entry]
    top: list[Named]  # the most queried names that would have been blocked
    by_day: list[Day]
    passed_over: dict[str, int]  # lines that would not be enforced, by reason


def report(
    file: str,
    candidate: Candidate,
    snapshot: Snapshot,
    days: Mapping[date, DayCounts],
    *,
    last: date,
    count: int,
    top: int,
) -> PastImpact:
    """The report of the last `count` days until `last`, of which `days` has those with counts."""
    zone: PolicyZone = candidate.zone
    counted = sorted(days)
    impact = past_impact(zone, snapshot, [days[day] for day in counted], top=top)
    hours = {day: days[day].hours.bit_count() for day in counted}
    queries = impact.queries
    return {
        "file": file,
        "names": zone.entries,
        "first_day": (last - timedelta(days=count - 1)).isoformat(),
        "last_day": last.isoformat(),
        "days_counted": len(counted),
        "hours_counted": sum(hours.values()),
        "hours": HOURS * count,
        "shown_from": SHOWN_FROM,
        "queries": queries,
        "unlisted": queries - impact.listed,
        "blocked": impact.blocked,
        "blocked_at_most": impact.blocked_at_most,
        "share": impact.blocked / queries if queries else 0.0,
        "share_at_most": impact.blocked_at_most / queries if queries else 0.0,
        "decided": impact.decided,
        "name_error": impact.bound,
        "blocking_names": impact.blocking_entries,
        "decided_names": impact.queried_entries - impact.blocking_entries,
        "unlisted_names": zone.entries - impact.queried_entries,
        "entries": [
            {"name": name, "match": match, "queries": least, "at_most": most}
            for name, match, least, most in impact.entries
        ],
        "top": [{"name": name, "queries": asked} for name, asked in impact.names],
        "by_day": [
            {"day": day.isoformat(), "hours": hours[day], "queries": days[day].queries, "blocked": blocked}
            for day, blocked in zip(counted, impact.blocked_by_day, strict=True)
        ],
        "passed_over": candidate.passed_over,
    }
