"""A restart loses no query: the next process gets the sockets, with the queries that wait in them.

`make restarts` restarts a thousand times; see `RESTARTS`, `RATE` and `MOST` below.
"""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from ports import free_port

from . import wire
from .clients import Stream
from .harness import Subject, is_forwarded, is_sinkholed
from .orders import block
from .restarts import Load, figure, half_load
from .supervisor import Supervisor
from .tools import wait_for
from .upstreams import StubUpstream

RESTARTS = int(os.environ.get("DNSBLOCK_RESTARTS", "7"))
RATE = int(os.environ.get("DNSBLOCK_RATE", "500"))
MOST = int(os.environ.get("DNSBLOCK_MOST", "5000"))  # of half the load that the daemon can bear
QUEUE_BYTES = 64 << 20
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
pytestmark = pytest.mark.timeout(600 + 60 * RESTARTS)
NAMES = {
    "blocked.example": is_sinkholed,
    "forwarded.example": is_forwarded,
    "www.blocked.example": is_sinkholed,
}
ORDERS = [block("B-1", ["blocked.example"])]


@pytest.fixture
def supervisor(subject: Subject) -> Iterator[Supervisor]:
    with closing(Supervisor(subject)) as running:
        yield running
        subject.close()


def assert_none_lost(load: Load) -> None:
    assert load.wrong == []
    assert load.lost == 0
    assert load.answered > 0
    print(f"{load.answered} queries, the slowest took {load.slowest:.2f} s")


def test_no_query_is_lost_over_restarts_under_a_service_manager(
    subject: Subject, supervisor: Supervisor, upstream: StubUpstream
):
    """sd_notify(3): FDSTORE. Queries that come while no process is there wait for the next one."""
    subject.configure(orders=ORDERS, upstreams=[upstream.address])
    supervisor.start()
    with Load(subject, NAMES, RATE) as load:
        gaps = [supervisor.restart() for _ in range(RESTARTS)]
    print(f"{len(gaps)} restarts, the longest took {max(gaps):.2f} s")
    assert_none_lost(load)


def test_no_query_is_lost_over_restarts_under_half_load(
    subject: Subject, supervisor: Supervisor, upstream: StubUpstream, tmp_path: Path
):
    """Half of what the daemon can do, and beside it the client that looks at each answer."""
    subject.configure(orders=ORDERS, upstreams=[upstream.address])
    supervisor.start()
    names = tmp_path / "names"
    names.write_text("blocked.example A\nwww.blocked.example AAAA\nno.blocked.example TXT\n")
    gaps = []
    with half_load(subject, names, MOST) as report, Load(subject, NAMES, RATE) as load:
        gaps = [supervisor.restart() for _ in range(RESTARTS)]
    print(f"{RESTARTS} restarts, the longest took {max(gaps):.2f} s\n{report[0]}")
    assert_none_lost(load)
    assert (figure(report[0], "Queries lost"), figure(report[0], "Queries completed") > 0) == (0, True)


def test_no_query_is_lost_over_restarts_in_place(subject: Subject, upstream: StubUpstream):
    """SIGUSR2 replaces the program in its process (execve(2)), without a service manager."""
    subject.start(orders=ORDERS, upstreams=[upstream.address])
    with Load(subject, NAMES, RATE) as load:
        for _ in range(RESTARTS):
            subject.restart_in_place()
    assert_none_lost(load)


def test_no_query_sent_after_a_kill_is_lost(subject: Subject, supervisor: Supervisor, upstream: StubUpstream):
    """Queries that a killed process had read are lost; later ones wait for the next process."""
    subject.configure(orders=ORDERS, upstreams=[upstream.address])
    supervisor.start()
    supervisor.wait_for_names(2)
    subject.kill()
    # No stop has enlarged the buffers of the sockets: so many fit, however long the next start takes.
    with Load(subject, NAMES, 200, most=250) as load:
        wait_for(lambda: load.asked[0].sent > 10, "queries wait")
        supervisor.start()
        wait_for(lambda: load.answered > 30, "they are answered")
    assert_none_lost(load)


def test_a_tcp_client_that_connects_during_a_restart_is_answered_by_the_next_process(
    subject: Subject, supervisor: Supervisor
):
    """Its connection waits in the backlog of the listening socket."""
    subject.configure(orders=ORDERS)
    supervisor.start()
    supervisor.wait_for_names(2)
    assert subject.stop() == 0
    with socket.create_connection(("127.0.0.1", subject.ports[4]), 45) as sock:
        stream = Stream(sock)
        stream.send(wire.query("blocked.example", "A"))
        supervisor.start()
        assert is_sinkholed(stream.reply())


def test_the_number_of_worker_threads_may_change_with_a_restart(subject: Subject, supervisor: Supervisor):
    """More threads get more sockets; with fewer, a thread serves several: all that wait are answered."""
    supervisor_started = False
    for workers in (2, 4, 1):
        subject.configure(orders=ORDERS, workers=workers)
        if supervisor_started:
            assert subject.stop() == 0
        with (
            Load(subject, {"blocked.example": is_sinkholed}, 300)
            if supervisor_started
            else closing(socket.socket()) as load
        ):
            if supervisor_started:
                wait_for(lambda load=load: load.asked[0].sent > 50, "queries wait")
            supervisor.start()
        if supervisor_started:
            assert_none_lost(load)
        supervisor_started = True
        supervisor.wait_for_names(2)


def test_a_stopped_process_leaves_sockets_in_which_many_queries_may_wait(
    subject: Subject, supervisor: Supervisor
):
    """SO_RCVBUFFORCE of socket(7), also if it is stopped before it has read what waited at its start."""
    subject.configure(orders=ORDERS)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as largest:
        largest.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)
        with suppress(PermissionError):
            largest.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, QUEUE_BYTES)
        expected = largest.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    for _ in range(3):
        supervisor.start()
        assert subject.stop() == 0
        supervisor.wait_for_names(2)
        stored = [socket.socket(fileno=os.dup(number)) for _, number in supervisor.store]
        rooms = [
            one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            for one in stored
            if one.type == socket.SOCK_DGRAM
        ]
        for one in stored:
            one.close()
        assert rooms == [expected] * 4, "of each of two threads, IPv4 and IPv6"


def test_the_descriptor_store_holds_exactly_the_listening_sockets(subject: Subject, supervisor: Supervisor):
    """A socket left in the store would receive queries that no process reads."""
    port = free_port()
    subject.configure(listen=["127.0.0.1:0", f"127.0.0.1:{port}"])
    supervisor.start()
    supervisor.wait_for_names(2)
    assert len(supervisor.store) == 2 * 2 * 2, "UDP and TCP, of each of two threads"
    subject.configure(listen=["127.0.0.1:0"])
    subject.reload()
    supervisor.wait_for_names(1)
    subject.configure(listen=["127.0.0.1:0", "[::1]:0"])
    subject.reload()
    supervisor.wait_for_names(2)
    subject.configure(listen=["127.0.0.1:0"])
    supervisor.restart()
    supervisor.wait_for_names(1)


def test_a_restart_with_an_invalid_configuration_is_not_started(subject: Subject):
    """SIGUSR2 with a broken configuration file: the daemon goes on, and the log says why."""
    subject.start(orders=ORDERS)
    good = subject.config_path.read_text()
    subject.config_path.write_text("listen: nowhere\n")
    subject.process.send_signal(signal.SIGUSR2)
    wait_for(lambda: "not restarted" in subject.stderr(), "it is logged")
    assert is_sinkholed(subject.query("blocked.example"))
    subject.config_path.write_text(good)
    subject.restart_in_place()
    assert is_sinkholed(subject.query("blocked.example"))


def test_descriptors_for_another_process_are_ignored(subject: Subject):
    """sd_listen_fds(3): LISTEN_PID says whose they are; a wrong count closes nothing of ours."""
    subject.environment |= {"LISTEN_PID": "1", "LISTEN_FDS": "3"}
    subject.start(orders=ORDERS)
    assert is_sinkholed(subject.query("blocked.example"))
