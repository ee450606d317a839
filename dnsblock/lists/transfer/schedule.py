"""When to ask the primaries of a zone: at the times that its SOA record says (RFC 1035, section 3.3.13)."""

from collections.abc import Callable
from random import Random

from dnsblock.clock import utc_now
from dnsblock.lists.transfer.state import TransferState

# A mistake in the record must neither flood a primary with queries nor end them. BIND's limits are similar.
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 28 * 86_400.0
WITHOUT_COPY_SECONDS = 30.0  # between tries, before the zone's own times are known
NOTICED_SECONDS = 1.0  # after the end of the copy


class TransferSchedule:
    """REFRESH after a success, RETRY after a failure. NOTIFY comes between, see `Refresher`."""

    def __init__(self, state: Callable[[], TransferState | None], random: Random | None = None) -> None:
        self._state = state
        self._between = (random or Random()).uniform  # noqa: S311  # not a secret

    def first(self) -> float:
        return 0.0

    def after_success(self) -> float:
        """At most a tenth earlier than REFRESH: all secondaries should not ask in the same second."""
        state = self._state()
        return self._within(WITHOUT_COPY_SECONDS if state is None else state.refresh)

    def after_failure(self, _: float | None = None) -> float:
        """At most a tenth earlier than RETRY; but never later than the end of the copy."""
        state = self._state()
        if state is None:
            return self._within(WITHOUT_COPY_SECONDS)
        left = (state.expires_at - utc_now()).total_seconds() + NOTICED_SECONDS
        wait = self._within(state.retry)
        return min(wait, max(left, SHORTEST_SECONDS)) if left > 0 else wait

    def _within(self, seconds: float) -> float:
        return min(max(seconds, SHORTEST_SECONDS), LONGEST_SECONDS) * self._between(0.9, 1.0)
