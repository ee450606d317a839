"""The time of enforcement (dnsblock/clock.py), by a wall clock and a time since boot that the tests set."""

from datetime import UTC, datetime, timedelta

import pytest

from dnsblock import clock
from dnsblock.clock import Clock

BEGIN = datetime(2026, 8, 10, 3, 46, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Machine:
    """Its wall clock can be set; the time since boot only passes."""

    def __init__(self) -> None:
        self.wall, self.boot = BEGIN, 1000.0

    def passes(self, time: timedelta) -> None:
        self.wall += time
        self.boot += time.total_seconds()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(clock, "utc_now", lambda: machine.wall)
    monkeypatch.setattr(clock, "boot_time", lambda: machine.boot)
    return machine


def test_a_step_ahead_that_is_undone_sets_no_floor(machine: Machine):
    """Records in between have a wrong time."""
    followed = Clock()
    followed.recorded(machine.wall)
    machine.wall += HOUR
    followed.recorded(followed.now())
    machine.passes(timedelta(seconds=30))
    machine.wall -= HOUR
    assert followed.behind == timedelta(), "the first look at the clock knows that the step is undone"
    assert followed.now() == BEGIN + timedelta(seconds=30)


def test_a_clock_set_back_never_goes_before_the_last_record(machine: Machine):
    """A machine without a battery starts in the past: blocks in force must not become scheduled."""
    followed = Clock()
    followed.recorded(machine.wall)
    machine.wall -= HOUR
    assert (followed.now(), followed.behind) == (BEGIN, HOUR)
    machine.passes(HOUR + timedelta(seconds=1))
    assert (followed.now(), followed.behind) == (machine.wall, timedelta())


def test_a_suspended_machine_is_no_step_of_its_clock(machine: Machine):
    """The wall clock goes on, and so does the time since boot. Records after it are right.

    By the monotonic clock, it would look like a step ahead. If the clock is set back later, that would look
    like the end of the step, and blocks that were lifted in between would return.
    """
    followed = Clock()
    followed.recorded(machine.wall)
    machine.passes(HOUR)
    woken = followed.now()
    assert woken == BEGIN + HOUR
    followed.recorded(woken)
    machine.passes(timedelta(seconds=30))
    machine.wall -= HOUR
    assert followed.now() == woken
    assert followed.behind == HOUR - timedelta(seconds=30)


def test_the_time_since_boot_is_no_time_of_the_day():
    """CLOCK_BOOTTIME: it cannot be set, and only rises."""
    first = clock.boot_time()
    assert 0 < first <= clock.boot_time() < datetime.now(UTC).timestamp() / 2
