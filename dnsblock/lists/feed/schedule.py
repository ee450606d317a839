"""When to look for a new list. Pure: it reads no clock and does not wait; the daemon does."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import Protocol

MAX_PAUSE_SECONDS = 60.0  # the longest pause before files that could not be read are read again
FIRST_BACK_OFF_SECONDS = 30.0
MAX_RETRY_AFTER_SECONDS = 86_400.0  # longest delay that a server may ask for


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
        self._between: Callable[[float, float], float] = (random or Random()).uniform  # noqa: S311  # not a secret
        self._back_off = self._first_back_off = min(FIRST_BACK_OFF_SECONDS, every)

    def first(self) -> float:
        return 0.0

    def after_success(self) -> float:
        """After a fetch or `not modified`: `every`, plus or minus a tenth."""
        self._back_off = self._first_back_off
        return self._every * self._between(0.9, 1.1)

    def after_failure(self, retry_after: float | None = None) -> float:
        """At most half a minute after the first consecutive failure, then doubled each time, up to `every`.

        `retry_after` comes from the server (`FetchFailed.retry_after`). It can only lengthen a wait: a server
        that says "now" is still down.
        """
        wait = self._back_off * self._between(0.5, 1.0)
        self._back_off = min(self._back_off * 2, self._every)
        if retry_after is None:
            return wait
        return max(wait, min(retry_after * self._between(1.0, 1.1), MAX_RETRY_AFTER_SECONDS))


def retry_after_seconds(value: str, now: datetime) -> float | None:
    """Parses a Retry-After header (RFC 9110, section 10.2.3): seconds or a date. None: neither."""
    try:
        if value.isascii() and value.isdigit():
            seconds = float(value)
        else:
            until = parsedate_to_datetime(value)
            seconds = (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
