"""The time of enforcement: the wall clock, but never before the last record.

A server without a battery-backed clock starts in the past, until its clock is synchronised. Without this
module, blocks in force would be "scheduled" until then, and their names open.
"""

import threading
import time
from datetime import UTC, datetime, timedelta

STEP = timedelta(seconds=60)  # smaller differences between two clocks are ignored


def utc_now() -> datetime:
    """The wall clock. All modules read it here, so that tests can set it in one place."""
    return datetime.now(UTC)


def boot_time() -> float:
    """Seconds since the machine started. It cannot be set, and goes on while the machine is suspended.

    The monotonic clock stands still meanwhile (clock_gettime(2)): a suspended machine would look like a wall
    clock that was set ahead.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """The clock for enforcement. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.floor = datetime.min.replace(tzinfo=UTC)  # the time of the last record
        # The last readings of the wall clock and of the clock that cannot be set.
        self._wall, self._boot = utc_now(), boot_time()
        self._before_step: tuple[datetime, float, datetime] | None = None  # the same readings, and the floor

    def now(self) -> datetime:
        """The time of the wall clock, or the floor if that is later."""
        with self._lock:
            return max(self._read(), self.floor)

    def wall(self) -> datetime:
        """The time of the wall clock, even if it is before the last record."""
        with self._lock:
            return self._read()

    def recorded(self, at: datetime) -> None:
        """Notes the time of a record. Enforcement never goes back before it."""
        with self._lock:
            self.floor = max(self.floor, at)

    def accept(self) -> None:
        """Accepts the wall clock, although it is before the last record."""
        with self._lock:
            self._before_step = None
            self.floor = self._read()

    @property
    def behind(self) -> timedelta:
        """How far the wall clock is behind the last record; 0 if it is not."""
        with self._lock:
            now = self._read()  # first: it may move the floor
            return max(self.floor - now, timedelta())

    def _read(self) -> datetime:
        """Reads the wall clock, and detects a step ahead that was undone.

        Records in between have a wrong time, so they set no floor.
        """
        wall, boot = utc_now(), boot_time()
        step = (wall - self._wall) - timedelta(seconds=boot - self._boot)
        if self._before_step is None:
            if step > STEP and self._wall >= self.floor:
                self._before_step = (self._wall, self._boot, self.floor)
        elif abs(step) > STEP:
            then, at, floor = self._before_step
            if abs(wall - then - timedelta(seconds=boot - at)) <= STEP:
                self.floor, self._before_step = floor, None
        self._wall, self._boot = wall, boot
        return wall
