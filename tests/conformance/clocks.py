"""The wall clock as the daemon sees it, to be stepped while it runs."""

from pathlib import Path

import pytest

from .harness import Subject

HOUR = 3600


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

    def step_to(self, seconds: int) -> None:
        """The clock is from now on this far from the true one."""
        partial = self._file.with_suffix(".tmp")
        partial.write_text(f"{seconds:+}\n")
        partial.rename(self._file)
