"""SIGHUP during startup waits until the daemon can reload, and never ends it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .harness import Subject, is_sinkholed
from .orders import block
from .tools import wait_for

STARTS = 5
SIGHUP_BIT = 1 << (signal.SIGHUP - 1)


@pytest.fixture
def subject(subject: Subject) -> Subject:
    """A daemon whose script is executed: a fork would be past the moments that count here."""
    subject.is_executed = True
    return subject


def is_protected(subject: Subject) -> bool:
    """Whether the process blocks SIGHUP (proc(5): SigBlk)."""
    status = Path(f"/proc/{subject.process.pid}/status").read_text()
    blocked = next(line for line in status.splitlines() if line.startswith("SigBlk"))
    return bool(int(blocked.split()[1], 16) & SIGHUP_BIT)


@contextmanager
def hangups(subject: Subject, begins: threading.Event) -> Iterator[None]:
    """SIGHUP after SIGHUP, from that event on until the end of the block."""
    ended = threading.Event()

    def send() -> None:
        begins.wait()
        while not ended.wait(0.001):
            if subject.process is not None:
                subject.hup()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        begins.set()
        ended.set()
        thread.join()


def assert_reloads(subject: Subject) -> None:
    """It has outlived what came early, has honoured it, and takes what comes now."""
    wait_for(lambda: '"reason": "SIGHUP"' in subject.stderr(), "the early SIGHUP was honoured")
    subject.put_order(block("B-9", ["late.example"]))
    subject.hup()
    wait_for(lambda: is_sinkholed(subject.query("late.example")), "it reloads")


@pytest.mark.parametrize("number", range(STARTS))
def test_a_blocked_sighup_never_ends_the_daemon(subject: Subject, number: int):
    """As the unit does (`env --block-signal=HUP`): a signal mask is inherited over execve(2)."""
    begun = threading.Event()
    begun.set()
    with hangups(subject, begun):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        try:
            subject.start(within=90)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert_reloads(subject)


@pytest.mark.parametrize("number", range(STARTS))
def test_sighup_never_ends_the_daemon_once_its_first_line_has_run(subject: Subject, number: int):
    """Without help of a parent: from there on it is blocked without a gap, before anything is imported."""
    begins = threading.Event()

    def begin() -> bool:
        if not is_protected(subject):
            return False
        begins.set()
        return True

    subject.configure()
    with hangups(subject, begins):
        subject.launch(within=90, meanwhile=begin)
    assert_reloads(subject)
