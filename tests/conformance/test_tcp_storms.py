"""Thousands of hostile TCP clients.

Each test runs with a low and a high limit of connections. Meanwhile UDP and a new TCP client are served.
Afterwards, while the clients still hold their ends, the daemon has closed every connection.
"""

import resource
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from . import wire
from .harness import Subject, is_sinkholed
from .orders import block
from .storms import BLOCKED, Figures, Record, measured, mebibytes, traffic
from .tools import wait_for
from .upstreams import Asked, StubUpstream, decent

CLIENTS = 2500
FEW, MANY = 200, 4000
QUICK = {"idle_timeout_ms": 1000, "read_timeout_ms": 800}
# Where more than two times FEW are to be open at once, also if the tests can open only 150 in a second.
LONGER = {"idle_timeout_ms": 4000, "read_timeout_ms": 3200}
TCP_REPAIR = 19
MEMORY = 64  # MiB

LISTENING = 2  # addresses; `max_connections` is each one's

Storm = Callable[[socket.socket], None]


def start(subject: Subject, upstream: StubUpstream, timeouts: dict | None = None, **tcp: int) -> None:
    subject.start(
        orders=[block("B-1", [BLOCKED])],
        upstreams=[upstream.address],
        upstream=timeouts or {},
        tcp=QUICK | tcp,
    )


def framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(2) + packet


# ------- Kinds of clients --------------------------------------------------------------


def say_nothing(_client: socket.socket) -> None:
    """A connection, and no byte."""


def say_one_byte(client: socket.socket) -> None:
    """The first byte of the length, and never the second."""
    client.send(b"\0")


def say_half(client: socket.socket) -> None:
    """A message that ends in the middle."""
    client.send(framed(wire.query("half.example"))[:20])


def vanish(client: socket.socket) -> None:
    """Half open: gone without FIN or RST, as by a cut line or a reboot."""
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    client.close()


def reset(client: socket.socket) -> None:
    """Asks, and resets the connection before the answer."""
    client.send(framed(wire.query(BLOCKED)) + framed(wire.query("reset.example")))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def never_read(client: socket.socket) -> None:
    """Sends many queries, and reads no response."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with suppress(BlockingIOError, ConnectionError):
        client.send(framed(wire.query(BLOCKED, "TXT")) * 100)


KINDS = (say_nothing, say_one_byte, say_half, vanish, reset, never_read)


def skip_unless_may_vanish() -> None:
    """Half-open connections need CAP_NET_ADMIN."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except PermissionError:
            pytest.skip("half-open connections take CAP_NET_ADMIN (TCP_REPAIR)")


@contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """The tests may open this many sockets while the block runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.fail(f"the limit of descriptors is {hard}: the test needs {count} (ulimit -Hn)", pytrace=False)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connected(subject: Subject, family: int = 4) -> socket.socket:
    """A client that does not wait: what it may send at once, it sends."""
    client = socket.create_connection((("127.0.0.1", "::1")[family == 6], subject.ports[family]), timeout=60)
    client.setblocking(False)
    return client


# ------- What is looked at meanwhile -------------------------------------------------------


def connections(subject: Subject) -> float:
    return subject.metrics().total("dnsblock_tcp_connections")


def is_served(subject: Subject) -> bool:
    """Whether a new client is, both from here and from upstream."""
    with suppress(ConnectionError), subject.tcp() as stream:
        stream.send(wire.query(BLOCKED), wire.query("free.example"))
        raws = [stream.receive(), stream.receive()]
        return None not in raws and sum(is_sinkholed(wire.read(raw)) for raw in raws) == 1
    return False


class Peaks:
    """The most connections and memory seen while a storm goes on."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.connections = self.memory = 0.0

    def look(self) -> None:
        metrics = self.subject.metrics()
        self.connections = max(self.connections, metrics.total("dnsblock_tcp_connections"))
        self.memory = max(self.memory, metrics.total("process_resident_memory_bytes"))

    def tell(self, record: Record, figures: Figures) -> None:
        """Show them, and hold memory to its bound."""
        risen = mebibytes(self.memory - figures.before.total("process_resident_memory_bytes"))
        print(f"most connections {self.connections:.0f}; memory at most {risen:+} MiB")
        record("most connections", f"{self.connections:.0f}")
        record("most memory", f"{risen:+} MiB")
        assert risen < MEMORY


# ------- Storms --------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("storm", KINDS, ids=lambda storm: storm.__name__)
def test_thousands_of_tcp_clients_do_not_prevent_service_to_others(
    subject: Subject, upstream: StubUpstream, record_property: Record, storm: Storm, allowed: int
):
    """Trap 15, RFC 7766 sections 6.2.2 and 10: all in bounds, whatever clients do, and the others served."""
    if storm is vanish:
        skip_unless_may_vanish()
    start(subject, upstream, max_connections=allowed, **(LONGER if allowed == MANY else {}))
    with many_descriptors(CLIENTS + 500), measured(subject, record_property) as figures:
        peaks = Peaks(subject)
        with traffic(subject, rate=300) as stream, ExitStack() as held:
            for number in range(CLIENTS):
                storm(held.enter_context(connected(subject, family=4 if number % 2 else 6)))
                if number % 250 == 249:
                    assert is_served(subject)
                    peaks.look()
            wait_for(lambda: connections(subject) == 0, "every connection is let go of")
        tally = stream.tally()
        peaks.tell(record_property, figures)
    assert set(tally) == {"blocked", "right"}
    if storm is not reset:
        expected = {FEW: (FEW / 2, FEW * LISTENING), MANY: (FEW * LISTENING + 1, MANY)}[allowed]
        assert expected[0] <= peaks.connections <= expected[1]


def silent_about_the_owed(asked: Asked) -> bytes | None:
    return None if asked.name == "owed.example" else decent(asked)


def vanish_owed(client: socket.socket) -> None:
    """Half open, with an outstanding query whose response is never read."""
    with suppress(ConnectionError):
        client.send(framed(wire.query("owed.example")))
        vanish(client)


@pytest.mark.parametrize("allowed", [FEW, MANY], ids=["few", "many"])
def test_half_open_connections_are_closed_after_their_response(
    subject: Subject, upstream: StubUpstream, record_property: Record, allowed: int
):
    """RFC 7766 section 6.2.3 lets no waiting client be sent away; a wait for an upstream is bounded, too."""
    skip_unless_may_vanish()
    upstream.script = silent_about_the_owed
    start(subject, upstream, {"tries": 1, "timeout_ms": 4000}, max_connections=allowed)
    with many_descriptors(CLIENTS + 500), measured(subject, record_property) as figures:
        peaks = Peaks(subject)
        with traffic(subject, rate=300) as stream, ExitStack() as held:
            for number in range(CLIENTS):
                vanish_owed(held.enter_context(connected(subject, family=4 if number % 2 else 6)))
                if number % 250 == 249:
                    peaks.look()
            wait_for(lambda: is_served(subject), "there is room again", timeout=60)
            wait_for(lambda: connections(subject) == 0, "every connection is let go of")
        tally = stream.tally()
        peaks.tell(record_property, figures)
    assert set(tally) == {"blocked", "right"}, "UDP is not concerned"
    assert figures.rise("dnsblock_queries_total", transport="tcp", outcome="failed") >= FEW
    assert peaks.connections <= allowed * LISTENING


def test_clients_that_read_nothing_are_bounded(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """Bound every size: each sends until nothing more is taken, and is sent away when its time is over."""
    start(subject, upstream, idle_timeout_ms=2500)
    batch = framed(wire.query(BLOCKED, "TXT", edns=True)) * 2000
    with measured(subject, record_property) as figures:
        peaks = Peaks(subject)
        with traffic(subject, rate=100) as stream, ExitStack() as held:
            greedy = [held.enter_context(connected(subject)) for _ in range(40)]
            for client in greedy:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

            def take_more() -> int:
                taken = 0
                for client in greedy:
                    with suppress(BlockingIOError, ConnectionError):
                        taken += client.send(batch)
                peaks.look()
                return taken

            wait_for(lambda: take_more() == take_more() == 0, "nothing more is taken", timeout=60)
            assert is_served(subject)
            wait_for(lambda: connections(subject) == 0, "they are sent away")
        tally = stream.tally()
        peaks.tell(record_property, figures)
    assert set(tally) == {"blocked", "right"}
    assert peaks.connections >= len(greedy)


def test_an_unread_response_takes_little_kernel_memory(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """Responses that a client leaves unread fill kernel memory first, which all clients share."""
    start(subject, upstream, idle_timeout_ms=2500)
    batch = framed(wire.query(BLOCKED, "TXT", edns=True)) * 2000
    with measured(subject, record_property), connected(subject) as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        most = 0
        ends = greedy.getpeername()[1], greedy.getsockname()[1]  # nobody knows them after a reset

        def take_more() -> int:
            nonlocal most
            taken = 0
            with suppress(BlockingIOError, ConnectionError):  # the daemon closes an idle connection
                taken = greedy.send(batch)
            most = max(most, unsent_bytes(*ends))
            return taken

        wait_for(lambda: [take_more() for _ in range(20)] == [0] * 20, "nothing more is taken")
        print(f"unsent bytes in the kernel: {most}")
        record_property("unsent bytes in the kernel", most)
        assert 0 < most < 1 << 20


def unsent_bytes(its: int, mine: int) -> int:
    """The send queue of the other end of the connection between these ports (proc_net_tcp)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if (int(local[-4:], 16), int(remote[-4:], 16)) == (its, mine):
            return int(queues.split(":")[0], 16)
    return 0
