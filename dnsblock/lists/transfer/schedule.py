"""When to ask the primaries of a zone: at the times that its SOA record says (RFC 1035, section 3.3.13)."""

from collections.abc import Callable
from random import Random

from dnsblock.lists.transfer.state import TransferState

WITHOUT_COPY_SECONDS = 30.0  # between tries, before the zone's own times are known


class TransferSchedule:
    """REFRESH after a success, RETRY after a failure. NOTIFY comes between, see `Refresher`."""

    def __init__(self, state: Callable[[], TransferState | None], random: Random | None = None) -> None:
        self._state = state
        self._between = (random or Random()).uniform  # noqa: S311  # not a secret

    def first(self) -> float:
        return 0.0

    def after_success(self) -> float:
        state = self._state()
        return self._earlier(WITHOUT_COPY_SECONDS if state is None else state.refresh_seconds)

    def after_failure(self, _: float | None = None) -> float:
        state = self._state()
        return self._earlier(WITHOUT_COPY_SECONDS if state is None else state.retry_seconds)

    def _earlier(self, seconds: float) -> float:
        """At most a tenth earlier: all secondaries should not ask in the same second."""
        return seconds * self._between(0.9, 1.0)
