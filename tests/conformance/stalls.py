"""Stalls of the machine: the only reason to run a failed test again.

A stall is a time in which the kernel gave no processor to the tests or to a program that they started. The
tests notice their own stalls: a thread that sleeps for 50 ms wakes up late. For programs, such as the daemon,
the kernel's run delay counts (`scheduling.py`). A daemon that hangs is therefore no excuse.
"""

import os
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from .scheduling import Task, run_delays

INTERVAL = 0.05  # seconds between two looks
STALL = 0.25  # seconds; every timeout in these tests that a stub upstream or a client must meet is longer
WINDOW = 1.0  # seconds in which short run delays of one thread add up


def started_programs() -> set[int]:
    """The processes that this one has started."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # the thread has ended
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def is_of_full_priority(task: Task) -> bool:
    """False for the daemon's control plane, which gives way to every other thread."""
    try:
        return os.getpriority(os.PRIO_PROCESS, task.tid) <= os.getpriority(os.PRIO_PROCESS, 0)
    except ProcessLookupError:
        return False


class StallWatch(threading.Thread):
    """Runs beside all tests of this process, and notes when they or their programs had no processor."""

    def __init__(self) -> None:
        super().__init__(name="stall-watch", daemon=True)
        self._stalls: list[tuple[float, str]] = []
        self._samples: deque[tuple[float, dict[Task, float]]] = deque()

    def run(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(INTERVAL)
            now = time.monotonic()
            if (late := now - before - INTERVAL) > STALL:
                self._stalls.append((now, f"the tests had no processor for {late:.2f} s"))
            self._look_at_programs(now)
            before = time.monotonic()

    def _look_at_programs(self, now: float) -> None:
        delays: dict[Task, float] = {}
        for pid in started_programs():
            delays |= run_delays(pid)
        self._samples.append((now, delays))
        while self._samples[0][0] < now - WINDOW:
            self._samples.popleft()
        _, earlier = self._samples[0]
        for task, delay in delays.items():
            rise = delay - earlier.get(task, delay)
            if rise > STALL and is_of_full_priority(task):
                self._stalls.append((now, f"{task.name} ({task.pid}) had no processor for {rise:.2f} s"))
                self._samples.clear()
                break

    def since(self, moment: float) -> list[str]:
        """The stalls since this moment of the monotonic clock."""
        time.sleep(2 * INTERVAL)  # for the last look
        return [what for noted, what in list(self._stalls) if noted >= moment]
