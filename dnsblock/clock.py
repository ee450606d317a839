"""The time by which orders are carried out: the wall clock, but never before what was recorded last.

A machine without a battery starts in the past, until its clock is synchronised. Blocks that were in force
would be "scheduled" then, and their names open.
"""

import threading
import time
from datetime import UTC, datetime, timedelta

STEP = timedelta(seconds=60)  # a smaller difference between two clocks is no step


class Clock:
    """Tells the time to enforce by. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.floor = datetime.min.replace(tzinfo=UTC)  # when something was recorded last
        # The last reading, of this clock and of one that nobody can set.
        self._wall, self._monotonic = datetime.now(UTC), time.monotonic()
        self._before_step: tuple[datetime, float, datetime] | None = None  # and the floor at that time

    def now(self) -> datetime:
        """The time of the wall clock, or the floor if that is later."""
        with self._lock:
            return max(self._read(), self.floor)

    def wall(self) -> datetime:
        """The time of the wall clock, whatever was recorded."""
        with self._lock:
            return self._read()

    def recorded(self, at: datetime) -> None:
        """Something was recorded at this time: enforcement does not go back behind it."""
        with self._lock:
            self.floor = max(self.floor, at)

    def accept(self) -> None:
        """Takes the wall clock as right, although something later was recorded."""
        with self._lock:
            self._before_step = None
            self.floor = self._read()

    @property
    def behind(self) -> timedelta:
        """How far the wall clock is behind what was recorded last; 0 if it is not."""
        with self._lock:
            return max(self.floor - self._read(), timedelta())

    def _read(self) -> datetime:
        """Reads the wall clock, and recognises a step ahead that was taken back.

        What was recorded in between has a time that never was: it sets no floor.
        """
        wall, monotonic = datetime.now(UTC), time.monotonic()
        step = (wall - self._wall) - timedelta(seconds=monotonic - self._monotonic)
        if self._before_step is None:
            if step > STEP and self._wall >= self.floor:
                self._before_step = (self._wall, self._monotonic, self.floor)
        elif abs(step) > STEP:
            then, at, floor = self._before_step
            if abs(wall - then - timedelta(seconds=monotonic - at)) <= STEP:
                self.floor, self._before_step = floor, None
        self._wall, self._monotonic = wall, monotonic
        return wall
