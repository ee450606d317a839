"""Whether the kernel gave the daemon a processor: the only reason to leave out or repeat a run.

The second number of /proc/PID/task/TID/schedstat (sched-stats.rst) is the run delay: for how long a thread
was ready to run and had no processor. It does not grow while a thread is stopped, or waits for a lock, a disk
or a message. So a stall of the daemon is no excuse. Where the kernel keeps no run delays, nothing is excused.
"""

import os
import re
import threading
import time
from bisect import bisect_left, bisect_right
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from .harness import Subject

INTERVAL = 0.05  # seconds between two samples
WORKER = re.compile(r"(packets|workers?)-\d+")


class Task(NamedTuple):
    pid: int
    tid: int
    name: str


def run_delays(pid: int) -> dict[Task, float]:
    """How long each thread of a process has been ready to run without a processor, in seconds."""
    found = {}
    try:
        for folder in Path(f"/proc/{pid}/task").iterdir():
            name = (folder / "comm").read_text().strip()
            waited = int((folder / "schedstat").read_text().split()[1]) / 1e9
            found[Task(pid, int(folder.name), name)] = waited
    except OSError:
        pass  # the thread or process has ended: what was read before counts
    return found


class RunDelays(threading.Thread):
    """Samples the run delays of the daemon and of the tests while the block runs."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(name="run-delays", daemon=True)
        self._subject = subject
        self._times: list[float] = []
        self._samples: list[dict[Task, float]] = []
        self._finish = threading.Event()

    def __enter__(self) -> Self:
        self._sample()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish.set()
        self.join()
        self._sample()

    def run(self) -> None:
        while not self._finish.wait(INTERVAL):
            self._sample()

    def _sample(self) -> None:
        process = self._subject.process
        daemon = run_delays(process.pid) if process is not None else {}
        self._samples.append(daemon | run_delays(os.getpid()))
        self._times.append(time.monotonic())

    def _rises(self, begin: float, end: float) -> dict[Task, float]:
        """By how much each run delay has risen in a span that contains this one."""
        last = len(self._times) - 1
        before = self._samples[max(0, bisect_right(self._times, begin) - 1)]
        after = self._samples[min(last, bisect_left(self._times, end))]
        return {task: after[task] - waited for task, waited in before.items() if task in after}

    def of_all(self, begin: float) -> float:
        """The run delays of all threads together, those of the tests included, from then until now."""
        self._sample()
        return sum(self._rises(begin, self._times[-1]).values())
