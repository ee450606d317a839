"""What the tests take for a proof that the daemon had no processor."""

import time

from .harness import Subject
from .scheduling import WORKER, run_delays


def test_a_daemon_that_stands_still_has_no_run_delay(subject: Subject):
    """sched-stats.rst: a thread that is not ready to run does not wait for a processor."""
    subject.start(workers=2)
    subject.pause()
    before = run_delays(subject.process.pid)
    time.sleep(0.3)  # of standing still
    after = run_delays(subject.process.pid)
    subject.resume()
    assert len([task for task in before if WORKER.fullmatch(task.name)]) == 2
    assert after == before
