"""TCP connections are counted for each listen address and for each client (RFC 7766 section 6.2.2)."""

from contextlib import ExitStack

import pytest

from . import wire
from .asking import is_sinkholed
from .clients import Stream
from .harness import Subject
from .orders import block
from .tools import wait_for
from .upstreams import StubUpstream, silent

BLOCKED = "blocked.example"
PATIENT = {"attempt_timeout_ms": 5000, "attempts": 1}


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


def test_a_client_above_its_bound_is_closed_and_others_are_served(subject: Subject):
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


def test_strangers_hold_no_places_that_clients_need(subject: Subject):
    """RFC 7766 section 6.2.3: who is refused anyway makes room first, nobody for a stranger."""
    subject.start(
        orders=[block("B-1", [BLOCKED])],
        clients={"allow": ["127.0.0.1/32"]},
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


def test_who_meets_silence_over_udp_meets_it_over_tcp(subject: Subject):
    """RFC 8914 section 4.19 is for those that are told; for strangers in silence nothing is held."""
    subject.start(clients={"allow": ["127.0.0.1/32"], "others": "drop"}, orders=[block("B-1", [BLOCKED])])
    with subject.tcp(source="127.0.0.9") as stranger:
        assert stranger.is_closed_within(5)
    with subject.tcp() as client:
        assert is_served(client)


def test_who_is_exempt_may_open_more(subject: Subject):
    """Trap 15: this machine, where nothing else is said."""
    start(subject, max_connections_per_client=3)
    with ExitStack() as stack:
        assert all(is_served(stack.enter_context(subject.tcp())) for _ in range(8))


@pytest.mark.parametrize("full", [4, 6])
def test_a_full_listen_address_leaves_the_other_free(subject: Subject, upstream: StubUpstream, full: int):
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
