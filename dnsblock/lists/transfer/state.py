"""When a zone was last found to be current, and how long its copy may be used: stored beside the copy."""

import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from dnsblock import durable
from dnsblock._engine import RecordChanges, Soa

# Enforces the changes of an incremental transfer: (serial before, changes, serial after).
Advance = Callable[[int, RecordChanges, int], Awaitable[object]]


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
            return cls(**stored, checked_at=at)
        return None

    def store(self, path: Path) -> None:
        """Stores it. Raises `OSError`."""
        written = asdict(self) | {"checked_at": self.checked_at.isoformat()}
        durable.write(path, json.dumps(written).encode())

    @property
    def expires_at(self) -> datetime:
        """From when on the copy counts as too old (RFC 1035, section 3.3.13: EXPIRE)."""
        return self.checked_at + timedelta(seconds=self.expire)
