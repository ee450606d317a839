"""The wall clock: as the daemon sees it, to be stepped while it runs, and as all see it, passing."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from .harness import Subject
from .orders import in_seconds

HOUR = 3600


def begun_before(
    subject: Subject, lead: float, begin: Callable[[datetime], object], *, left: float = 0.0
) -> datetime:
    """A moment some `lead` seconds ahead, with `begin` done at least `left` seconds before it.

    A machine that is too slow for that is given more time: what was seen too late would say nothing.
    """
    for seconds in (lead, 4 * lead, 16 * lead):
        moment = in_seconds(seconds)
        try:
            begin(moment)
        except AssertionError:
            if datetime.now(UTC) < moment:
                raise
        if datetime.now(UTC) + timedelta(seconds=left) < moment:
            return moment
        subject.begin_again()
    pytest.fail(f"what comes before a moment took more than {seconds:.0f} s")


class FakeClock:
    """By libfaketime; made before the daemon is started."""

    def __init__(self, subject: Subject) -> None:
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not libraries:
            pytest.fail("libfaketime is missing: apt-get install faketime", pytrace=False)
        self._file = subject.folder / "clock"
        self.step_to(0)
        subject.environment |= {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            # A step of the wall clock moves no other clock, here as in the kernel.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step_to(self, seconds: float) -> None:
        """The clock is from now on this far from the true one."""
        partial = self._file.with_suffix(".tmp")
        partial.write_text(f"{seconds:+}\n")
        partial.rename(self._file)
