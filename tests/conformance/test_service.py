"""The daemon and the service manager: notifications to systemd (sd_notify(3))."""

import socket
from collections.abc import Iterator

import pytest

from .harness import TIMEOUT, Subject, is_sinkholed
from .orders import block


@pytest.fixture
def manager(subject: Subject) -> Iterator[socket.socket]:
    """The socket on which systemd listens for READY=1."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        path = subject.folder / "notify"
        sock.bind(str(path))
        subject.environment["NOTIFY_SOCKET"] = str(path)
        yield sock


def next_with(manager: socket.socket, wanted: str) -> list[str]:
    """The assignments of the next message that holds this one; others may come before it."""
    while True:
        assignments = manager.recv(4096).decode().splitlines()
        if wanted in assignments:
            return assignments


def test_systemd_is_notified_of_ready_and_stopping(subject: Subject, manager: socket.socket):
    """sd_notify(3): ready means that it answers; what comes after it may ask at once."""
    subject.start(orders=[block("B-1", ["blocked.example"])])
    next_with(manager, "READY=1")
    assert is_sinkholed(subject.query("blocked.example"))
    subject.terminate()
    next_with(manager, "STOPPING=1")
    assert subject.wait_stopped() == 0


def test_systemd_is_not_notified_of_ready_by_a_refused_start(subject: Subject, manager: socket.socket):
    """sd_notify(3): units that depend on this one must not start."""
    subject.configure(workers=-1)
    assert subject.serve_refused().code == 4
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        next_with(manager, "READY=1")


def test_systemd_is_notified_of_a_reload(subject: Subject, manager: socket.socket):
    """sd_notify(3): RELOADING=1 with the time, and READY=1 when what was read is served."""
    subject.start()
    next_with(manager, "READY=1")
    subject.put_order(block("B-1", ["blocked.example"]))
    subject.hup()
    assert any(line.startswith("MONOTONIC_USEC=") for line in next_with(manager, "RELOADING=1"))
    next_with(manager, "READY=1")
    assert is_sinkholed(subject.query("blocked.example"))
