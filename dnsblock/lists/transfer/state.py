"""When a zone was last found to be current, and how long its copy may be used: stored beside the copy."""

import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Self

from dnsblock import durable
from dnsblock._engine import RecordChanges, Soa

# A mistake in the record must neither flood a primary with queries nor end them. BIND's limits are similar.
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 28 * 86_400.0
IPAddress = IPv4Address | IPv6Address
# Enforces the changes of an incremental transfer: (serial before, changes, serial after).
Advance = Callable[[int, RecordChanges, int], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """How a list is fetched."""

    whole: bool = False  # all of it, even if its server has nothing newer
    notified_by: IPAddress | None = None  # the primary that has sent NOTIFY
    advance: Advance | None = None  # gets the changes of an incremental transfer before they are stored


USUAL = FetchRequest()


@dataclass(frozen=True, slots=True)
class Copies:
    """The files of a transferred zone."""

    copy: Path
    state: Path

    @property
    def partial(self) -> Path:
        """The new copy, until it is complete."""
        return self.copy.with_name(f"{self.copy.name}.part")


@dataclass(frozen=True, slots=True)
class TransferState:
    """The last successful contact to a primary. Times are in seconds, as the zone's SOA record gives them."""

    zone: str
    primary: str
    serial: int
    refresh: int
    retry: int
    expire: int
    checked_at: datetime
    size: int  # bytes of the copy

    @classmethod
    def of(cls, zone: str, primary: str, soa: Soa, now: datetime, copy: Path) -> Self:
        """The state after a contact. Raises `OSError` if there is no copy."""
        times = (soa.serial, soa.refresh, soa.retry, soa.expire)
        return cls(zone, primary, *times, checked_at=now, size=copy.stat().st_size)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """The stored state; None if there is none that can be read."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            stored = json.loads(path.read_bytes())
            at = datetime.fromisoformat(stored.pop("checked_at")).astimezone(UTC)
            loaded = cls(**stored, checked_at=at)
            numbers = (loaded.serial, loaded.refresh, loaded.retry, loaded.expire)
            if all(isinstance(number, int) and 0 <= number < 2**32 for number in numbers):
                return loaded
        return None

    def store(self, path: Path) -> None:
        """Stores it. Raises `OSError`."""
        written = asdict(self) | {"checked_at": self.checked_at.isoformat()}
        durable.write(path, json.dumps(written).encode())

    @property
    def refresh_seconds(self) -> float:
        """Until the primaries are asked again."""
        return _within(self.refresh)

    @property
    def retry_seconds(self) -> float:
        """The same after a failure."""
        return _within(self.retry)

    @property
    def expires_at(self) -> datetime:
        """From when on the copy counts as too old (RFC 1035, section 3.3.13: EXPIRE).

        Not before the primaries were asked again, and once more after a failure, as in BIND.
        """
        seconds = max(float(self.expire), self.refresh_seconds + self.retry_seconds)
        return self.checked_at + timedelta(seconds=seconds)


def _within(seconds: float) -> float:
    return min(max(seconds, SHORTEST_SECONDS), LONGEST_SECONDS)
