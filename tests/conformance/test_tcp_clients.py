"""TCP connections are counted for each listen address, client and network (RFC 7766 section 6.2.2)."""

from collections.abc import Iterable
from contextlib import ExitStack

import pytest

from . import wire
from .asking import TIMEOUT, is_forwarded, is_sinkholed
from .clients import Stream
from .harness import Subject
from .orders import block
from .tools import wait_for
from .upstreams import StubUpstream, decent, silent

BLOCKED = "blocked.example"
PATIENT = {"timeout_ms": 60_000, "tries": 1}


def start(subject: Subject, exempt: list[str] | None = None, **tcp: int) -> None:
    limits = {} if exempt is None else {"limits": {"exempt": exempt}}
    subject.start(orders=[block("B-1", [BLOCKED])], tcp=tcp, **limits)


def is_served(stream: Stream) -> bool:
    try:
        stream.send(wire.query(BLOCKED))
    except ConnectionError:
        return False
    raw = stream.receive()
    return raw is not None and is_sinkholed(wire.read(raw))


def test_a_connection_above_the_limit_of_its_client_is_closed(subject: Subject):
    """Trap 15, RFC 7766 section 6.2.2: it is the newcomer that is closed; what is open goes on."""
    start(subject, [], max_connections_per_client=3)
    with ExitStack() as stack:
        streams = [stack.enter_context(subject.tcp()) for _ in range(3)]
        assert all(is_served(stream) for stream in streams)
        assert not is_served(stack.enter_context(subject.tcp()))
        assert is_served(stack.enter_context(subject.tcp(source="127.0.0.2")))
        assert is_served(stack.enter_context(subject.tcp(family=6)))
        assert all(is_served(stream) for stream in streams)
        streams[0].sock.close()

        def has_room() -> bool:
            with subject.tcp() as stream:
                return is_served(stream)

        wait_for(has_room, "a place is free again")


def test_connections_of_denied_clients_make_room_first(subject: Subject):
    """RFC 7766 section 6.2.3: a denied client is closed before a client that may query."""
    subject.start(
        orders=[block("B-1", [BLOCKED])],
        access_control={"allow": ["127.0.0.1/32"]},
        tcp={"max_connections": 8},
        workers=1,
    )
    with ExitStack() as stack:
        streams = [stack.enter_context(subject.tcp()) for _ in range(4)]
        assert all(is_served(stream) for stream in streams)
        strangers = [stack.enter_context(subject.tcp(source="127.0.0.9")) for _ in range(20)]
        wait_for(
            lambda: sum(stream.is_closed_within(0.01) for stream in strangers) >= 16, "no room for these"
        )
        assert all(is_served(stream) for stream in streams)
        more = [stack.enter_context(subject.tcp()) for _ in range(4)]
        assert all(is_served(stream) for stream in [*more, *streams])


def test_denied_clients_are_dropped_over_tcp_too(subject: Subject):
    """RFC 8914 section 4.19 is for refused clients; a dropped one gets no connection."""
    subject.start(
        access_control={"allow": ["127.0.0.1/32"], "denied": "drop"}, orders=[block("B-1", [BLOCKED])]
    )
    with subject.tcp(source="127.0.0.9") as stranger:
        assert stranger.is_closed_within(TIMEOUT)
    with subject.tcp() as client:
        assert is_served(client)


def test_exempt_clients_have_no_connection_limit(subject: Subject):
    """Trap 15: this machine, where nothing else is said."""
    start(subject, max_connections_per_client=3)
    with ExitStack() as stack:
        assert all(is_served(stack.enter_context(subject.tcp())) for _ in range(8))


@pytest.mark.parametrize("full", [4, 6])
def test_max_connections_applies_to_each_listen_address(subject: Subject, upstream: StubUpstream, full: int):
    """Trap 15, RFC 9210 section 3.2: max_connections is of one listen address."""
    upstream.script = silent
    subject.start(
        orders=[block("B-1", [BLOCKED])],
        upstreams=[upstream.address],
        upstream=PATIENT,
        tcp={"max_connections": 4},
    )
    with ExitStack() as stack:
        for number in range(4):
            stream = stack.enter_context(subject.tcp(family=full))
            stream.send(wire.query(f"n{number}.example"))
            upstream.wait_for_query(f"n{number}.example")
        assert not is_served(stack.enter_context(subject.tcp(family=full)))
        assert is_served(stack.enter_context(subject.tcp(family=10 - full)))


# ------- Networks


def start_among_networks(subject: Subject, upstream: StubUpstream, **tcp: int | str) -> None:
    """Only 127.0.9.0/24 is exempt. The upstream is silent about names below `owed.example`.

    Its health checks are answered, or its silence to many queries would mean that it is down.
    """
    upstream.script = lambda asked: None if asked.name.endswith(".owed.example") else decent(asked)
    subject.start(
        upstreams=[upstream.address],
        upstream=PATIENT,
        limits={"exempt": ["127.0.9.0/24"]},
        workers=1,
        tcp={"idle_timeout_ms": 600_000, **tcp},
    )


def connected(subject: Subject, stack: ExitStack, source: str) -> Stream:
    return stack.enter_context(subject.tcp(source=source))


def waiting(
    subject: Subject, stack: ExitStack, upstream: StubUpstream, sources: Iterable[str]
) -> list[Stream]:
    """A connection from each address, with a query that the upstream does not answer."""
    streams = []
    for number, source in enumerate(sources):
        name = f"n{number}.{source}.owed.example"
        stream = connected(subject, stack, source)
        stream.send(wire.query(name))
        upstream.wait_for_query(name)
        streams.append(stream)
    return streams


def answered(subject: Subject, stack: ExitStack, source: str, count: int) -> int:
    """How many of so many new connections, all left open, get the upstream's answer."""
    replies = []
    for number in range(count):
        stream = connected(subject, stack, source)
        try:
            stream.send(wire.query(f"n{number}.{source}.example"))
            replies.append(stream.receive())
        except ConnectionError:
            replies.append(None)
    return sum(raw is not None and is_forwarded(wire.read(raw)) for raw in replies)


def hosts(network: str, count: int) -> list[str]:
    return [f"{network}.{host}" for host in range(1, count + 1)]


def refused_connections(subject: Subject, reason: str) -> float:
    return subject.metrics().total("dnsblock_tcp_refused_connections_total", reason=reason)


def wait_for_connections(subject: Subject, count: int) -> None:
    """So many are open. A worker thread counts them at the end of its turn, after its answers."""
    open_now = "dnsblock_tcp_connections"
    wait_for(lambda: subject.metrics().total(open_now) == count, f"{count} connections are open")


def wait_for_refused(subject: Subject, count: int) -> None:
    """So many were above the share of their network. Each is closed first, and then counted."""
    wait_for(lambda: refused_connections(subject, "network") == count, f"{count} are counted as refused")


def test_a_network_holds_at_most_a_quarter_of_the_connections(subject: Subject, upstream: StubUpstream):
    """RFC 7766 section 6.2.2: many clients of one network count together, here 60 of a /24."""
    start_among_networks(subject, upstream, max_connections=200)
    with ExitStack() as stack:
        waiting(subject, stack, upstream, hosts("127.0.1", 50))
        more = [connected(subject, stack, source) for source in hosts("127.0.1", 60)[50:]]
        assert all(stream.is_closed_within(TIMEOUT) for stream in more)
        wait_for_refused(subject, 10)
        assert refused_connections(subject, "client") == 0
        assert answered(subject, stack, "127.0.2.1", 50) == 50
        wait_for_connections(subject, 100)


def test_the_network_with_most_connections_makes_room(subject: Subject, upstream: StubUpstream):
    """RFC 7766 section 6.2.3: a network with one connection keeps it, one with many loses some."""
    start_among_networks(subject, upstream, max_connections=41, max_connections_per_network=20)
    with ExitStack() as stack:
        (alone,) = waiting(subject, stack, upstream, ["127.0.4.1"])
        for network in ("127.0.1", "127.0.2"):
            waiting(subject, stack, upstream, hosts(network, 20))
        wait_for_connections(subject, 41)
        assert answered(subject, stack, "127.0.3.1", 50) == 50
        wait_for_connections(subject, 41)
        alone.send(wire.query("after.example", qid=77))
        replies = [alone.reply()]
        if replies[0].qid != 77:  # the upstream's silence was answered meanwhile
            replies.append(alone.reply())
        assert is_forwarded(replies[-1])


def test_idle_connections_of_a_full_network_make_room_first(subject: Subject, upstream: StubUpstream):
    """RFC 7766 section 6.2.3: idle connections may be closed; those of other networks are not."""
    start_among_networks(subject, upstream, max_connections_per_network=2)
    with ExitStack() as stack:
        other = connected(subject, stack, "127.0.2.1")
        idle = connected(subject, stack, "127.0.1.1")
        for stream in (other, idle):
            stream.send(wire.query("first.example"))
            assert is_forwarded(stream.reply())
        waiting(subject, stack, upstream, ["127.0.1.2", "127.0.1.3"])
        assert idle.is_closed_within(TIMEOUT)
        assert connected(subject, stack, "127.0.1.4").is_closed_within(TIMEOUT)
        wait_for_refused(subject, 1)
        other.send(wire.query("second.example"))
        assert is_forwarded(other.reply())


def test_an_exempt_network_holds_more_than_its_share(subject: Subject, upstream: StubUpstream):
    """`limits.exempt` is for resolvers that forward: no number of connections is too many."""
    start_among_networks(subject, upstream, max_connections=20, max_connections_per_network=2)
    with ExitStack() as stack:
        exempt = waiting(subject, stack, upstream, hosts("127.0.9", 19))
        assert answered(subject, stack, "127.0.1.1", 5) == 5, "the one place that is left"
        for number, stream in enumerate(exempt):
            stream.send(wire.query("after.example", qid=7000 + number))
        upstream.wait_for_query("after.example")
        for number, stream in enumerate(exempt):
            replies = iter(stream.reply, None)
            assert is_forwarded(next(reply for reply in replies if reply.qid == 7000 + number))
        assert refused_connections(subject, "network") == 0


def test_a_reload_changes_what_a_network_may_hold(subject: Subject, upstream: StubUpstream):
    """As the other options of `tcp`, without a restart and for the connections that are open."""
    start_among_networks(subject, upstream, max_connections_per_network=2)
    with ExitStack() as stack:
        waiting(subject, stack, upstream, hosts("127.0.1", 2))
        assert connected(subject, stack, "127.0.1.3").is_closed_within(TIMEOUT)
        text = subject.config_path.read_text()
        assert text.count("max_connections_per_network: 2\n") == 1, text
        subject.config_path.write_text(text.replace("per_network: 2\n", "per_network: auto\n"))
        subject.reload()
        waiting(subject, stack, upstream, ["127.0.1.4"])
        assert refused_connections(subject, "network") == 1


@pytest.mark.parametrize("value", ["0", "-1", "100001", "most", "off", "1.5"])
def test_a_limit_for_networks_that_is_no_number_of_connections_is_refused(subject: Subject, value: str):
    """House style: the refusal names the option's line and what may be written there."""
    subject.configure(tcp={"max_connections_per_network": value})
    refusal = "\n".join(subject.serve_refused().refusal)
    assert "max_connections_per_network" in refusal
