"""How long to wait before a failed request to another server is repeated. Pure: reads no clock.

The delay is randomized. A server that recovers from an outage should not get all requests in the same second.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random

MAX_RETRY_AFTER_SECONDS = 86_400.0  # longest delay that a server may ask for


class BackOff:
    """The delays after consecutive failures: at most `first` seconds, then doubled, up to `most`."""

    def __init__(self, first: float, most: float, random: Random | None = None) -> None:
        self._first, self._most = min(first, most), most
        self._next = self._first
        self.between: Callable[[float, float], float] = (random or Random()).uniform  # noqa: S311  # not a secret

    def after_success(self) -> None:
        """The next failure is the first one again."""
        self._next = self._first

    def after_failure(self, retry_after: float | None = None) -> float:
        """Seconds to wait after a failure: from half of the delay to all of it.

        `retry_after` comes from the server (`retry_after_seconds`). It can only lengthen a wait: a server
        that says "now" is still down.
        """
        wait = self._next * self.between(0.5, 1.0)
        self._next = min(self._next * 2, self._most)
        if retry_after is None:
            return wait
        return max(wait, min(retry_after * self.between(1.0, 1.1), MAX_RETRY_AFTER_SECONDS))


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
