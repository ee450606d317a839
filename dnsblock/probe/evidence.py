"""The results of a probe: a row for each query, and the misses by resolver and name."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from dnsblock.errors import printable
from dnsblock.times import utc


@dataclass(frozen=True, slots=True)
class Row:
    """A query, the expected response and the result."""

    resolver: str
    transport: str
    name: str
    qtype: str
    entry: str  # the name in the order, or the name that must be open
    expected: str
    found: str
    milliseconds: float | None  # None: no response
    missed: bool
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """The same as JSON, with control characters of the response escaped."""
        return {
            "resolver": self.resolver,
            "transport": self.transport,
            "name": self.name,
            "type": self.qtype,
            "entry": self.entry,
            "expected": self.expected,
            "found": printable(self.found),
            "time_ms": self.milliseconds,
            "missed": self.missed,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Miss:
    """The misses of one name at one resolver."""

    resolver: str
    name: str
    qtypes: tuple[str, ...]
    transports: tuple[str, ...]
    expected: str
    found: tuple[str, ...]  # different results, with their notes

    def as_json(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "resolver": self.resolver,
            "name": self.name,
            "types": list(self.qtypes),
            "transports": list(self.transports),
            "expected": self.expected,
            "found": [printable(one) for one in self.found],
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """The queries of one resolver over one transport."""

    resolver: str
    transport: str
    asked: int
    missed: int
    median_ms: float | None
    slowest_ms: float | None

    def as_json(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "resolver": self.resolver,
            "transport": self.transport,
            "asked": self.asked,
            "missed": self.missed,
            "median_ms": self.median_ms,
            "slowest_ms": self.slowest_ms,
        }


@dataclass(frozen=True, slots=True)
class Evidence:
    """The results of a probe."""

    issuer: str | None  # None: only open names were probed
    order_id: str | None
    action: str | None
    started_at: datetime
    seconds: float
    names: int  # of the order
    probed: int  # of these names
    open: int  # names that must not be blocked, besides the order
    queries: int  # sent, with retries and control queries
    rows: tuple[Row, ...]

    @property
    def asked(self) -> int:
        """Judged queries."""
        return len(self.rows)

    @property
    def missed(self) -> int:
        """Judged queries without the expected response."""
        return sum(row.missed for row in self.rows)

    @property
    def is_sample(self) -> bool:
        """Whether not all names of the order were probed."""
        return self.probed < self.names

    @property
    def misses(self) -> list[Miss]:
        """The misses, by resolver and name."""
        grouped: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            if row.missed:
                grouped.setdefault((row.resolver, row.name), []).append(row)
        return [_miss(resolver, name, rows) for (resolver, name), rows in grouped.items()]

    @property
    def summaries(self) -> list[Summary]:
        """The queries by resolver and transport."""
        grouped: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            grouped.setdefault((row.resolver, row.transport), []).append(row)
        return [_summary(resolver, transport, rows) for (resolver, transport), rows in grouped.items()]

    def as_json(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "issuer": self.issuer,
            "order_id": self.order_id,
            "action": self.action,
            "started_at": utc(self.started_at),
            "seconds": round(self.seconds, 3),
            "names": self.names,
            "probed": self.probed,
            "is_sample": self.is_sample,
            "open": self.open,
            "queries": self.queries,
            "asked": self.asked,
            "missed": self.missed,
            "resolvers": [one.as_json() for one in self.summaries],
            "misses": [one.as_json() for one in self.misses],
            "rows": [row.as_json() for row in self.rows],
        }


def _miss(resolver: str, name: str, rows: list[Row]) -> Miss:
    def all_of(values: Iterator[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(values))

    return Miss(
        resolver,
        name,
        all_of(row.qtype for row in rows),
        all_of(row.transport for row in rows),
        " / ".join(all_of(row.expected for row in rows)),
        all_of(f"{row.found} ({row.note})" if row.note else row.found for row in rows),
    )


def _summary(resolver: str, transport: str, rows: list[Row]) -> Summary:
    times = [row.milliseconds for row in rows if row.milliseconds is not None]
    missed = sum(row.missed for row in rows)
    if not times:
        return Summary(resolver, transport, len(rows), missed, None, None)
    return Summary(resolver, transport, len(rows), missed, round(median(times), 3), max(times))
