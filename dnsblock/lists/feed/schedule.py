"""When a feed is asked for again. Pure: it looks at no clock and waits for nothing; the daemon does."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random

FIRST_BACK_OFF_SECONDS = 30.0
MAX_RETRY_AFTER_SECONDS = 86_400.0  # a server may ask for a day of rest, not for an outdated list for ever


class Schedule:
    """How long to wait until the next try, in seconds.

    Never quite as long as others wait: all providers of a country fetch the same list, and a server that
    comes back after an outage should not meet all of them in the same second.
    """

    def __init__(self, every: float, random: Random | None = None) -> None:
        self._every = every
        self._between: Callable[[float, float], float] = (random or Random()).uniform  # noqa: S311  # no secret
        self._back_off = self._first_back_off = min(FIRST_BACK_OFF_SECONDS, every)

    def after_success(self) -> float:
        """The list was fetched or is not modified: `every`, a tenth more or less."""
        self._back_off = self._first_back_off
        return self._every * self._between(0.9, 1.1)

    def after_failure(self, retry_after: float | None = None) -> float:
        """Half a minute at most after the first failure in a row, then twice as long each time, to `every`.

        `retry_after` is what the server asked for (`FetchFailed.retry_after`); it lengthens a wait and never
        shortens it, since a server that says "at once" is down all the same.
        """
        wait = self._back_off * self._between(0.5, 1.0)
        self._back_off = min(self._back_off * 2, self._every)
        if retry_after is None:
            return wait
        return max(wait, min(retry_after * self._between(1.0, 1.1), MAX_RETRY_AFTER_SECONDS))


def retry_after_seconds(value: str, now: datetime) -> float | None:
    """What a Retry-After header asks for (RFC 9110, section 10.2.3): seconds, or a date. None: neither."""
    try:
        if value.isascii() and value.isdigit():
            seconds = float(value)
        else:
            until = parsedate_to_datetime(value)
            seconds = (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
