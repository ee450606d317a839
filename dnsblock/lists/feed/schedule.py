"""When to look for a new list. Pure: it reads no clock and does not wait; the daemon does."""

from random import Random
from typing import Protocol

from dnsblock.retries import BackOff

MAX_PAUSE_SECONDS = 60.0  # the longest pause before files that could not be read are read again
FIRST_BACK_OFF_SECONDS = 30.0


class Schedule(Protocol):
    """How long to wait before the next look, in seconds."""

    def first(self) -> float:
        """After startup, or after the options changed."""

    def after_success(self) -> float:
        """If there was nothing to do, or it was done."""

    def after_failure(self, retry_after: float | None = None) -> float:
        """After each consecutive failure. `retry_after` comes from the server."""


class PollSchedule:
    """Polls files. After a failure it waits twice as long each time, up to a minute.

    On a full disk, each try would compile ten million names for nothing.
    """

    def __init__(self, every: float) -> None:
        self._every = self._pause = every

    def first(self) -> float:
        return self._every

    def after_success(self) -> float:
        self._pause = self._every
        return self._pause

    def after_failure(self, _: float | None = None) -> float:
        self._pause = min(2 * self._pause, max(self._every, MAX_PAUSE_SECONDS))
        return self._pause


class FetchSchedule:
    """Fetches a feed.

    The delay is randomized, because all providers of a country fetch the same list. A server that recovers
    from an outage should not get all their requests in the same second.
    """

    def __init__(self, every: float, random: Random | None = None) -> None:
        self._every = every
        self._back_off = BackOff(FIRST_BACK_OFF_SECONDS, every, random)

    def first(self) -> float:
        return 0.0

    def after_success(self) -> float:
        """After a fetch or `not modified`: `every`, plus or minus a tenth."""
        self._back_off.after_success()
        return self._every * self._back_off.between(0.9, 1.1)

    def after_failure(self, retry_after: float | None = None) -> float:
        """At most half a minute after the first consecutive failure, then doubled each time, up to `every`.

        `retry_after` comes from the server (`FetchFailed.retry_after`).
        """
        return self._back_off.after_failure(retry_after)
