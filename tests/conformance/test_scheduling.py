"""The evidence that a test had no processor, without which no failed test is run again."""

import ctypes
import time

from .harness import Subject
from .scheduling import WORKER, run_delays
from .stalls import STALL, StallWatch


def test_a_paused_daemon_has_no_run_delay(subject: Subject):
    """sched-stats.rst: a thread that is not ready to run does not wait for a processor."""
    subject.start(workers=2)
    subject.pause()
    before = run_delays(subject.process.pid)
    time.sleep(0.3)  # of the pause itself
    after = run_delays(subject.process.pid)
    subject.resume()
    assert len([task for task in before if WORKER.fullmatch(task.name)]) == 2
    assert after == before


def test_a_paused_daemon_is_no_stall(subject: Subject):
    """A daemon that hangs must fail its test at the first run."""
    watch = StallWatch()
    watch.start()
    subject.start(workers=2)
    subject.pause()
    watch.since(0)  # the look at what was before the pause
    began = time.monotonic()
    time.sleep(0.5)  # of the pause itself
    stalls = watch.since(began)
    subject.resume()
    assert [stall for stall in stalls if str(subject.process.pid) in stall] == []


def test_a_pause_of_the_tests_is_a_stall():
    """A stub upstream is a thread of the tests: it answers nothing while they do not run."""
    watch = StallWatch()
    watch.start()
    began = time.monotonic()
    ctypes.PyDLL(None).usleep(int(3 * STALL * 1e6))  # keeps the GIL, as the start of a program does
    assert any("the tests had no processor" in stall for stall in watch.since(began))
