"""The edns-tcp-keepalive option (RFC 7828): a client may ask for the idle timeout."""

import time

import pytest

from . import wire
from .asking import TIMEOUT, is_sinkholed
from .harness import Subject
from .orders import block
from .upstreams import StubUpstream

BLOCKED = "blocked.example"
KEEPALIVE = 11
ASKING = wire.opt(options=wire.option(KEEPALIVE))


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    shared_subject.start(
        orders=[block("B-1", [BLOCKED])], upstreams=[shared_upstream.address], tcp={"idle_timeout_ms": 7300}
    )
    return shared_subject


@pytest.mark.parametrize("name", [BLOCKED, "free.example"])
def test_a_tcp_query_with_keepalive_gets_the_idle_timeout(running: Subject, name: str):
    """Trap 15, RFC 7828 sections 3.1 and 3.3.2: 16 bits, in units of 100 milliseconds."""
    reply = running.query(name, edns=ASKING, transport="tcp")
    assert dict(reply.options)[KEEPALIVE] == (73).to_bytes(2)


@pytest.mark.parametrize("name", [BLOCKED, "free.example"])
def test_a_udp_query_with_keepalive_gets_none(running: Subject, name: str):
    """Traps 3 and 15, RFC 7828 section 3.2.2: the option MUST NOT be sent over UDP, and is ignored there."""
    reply = running.query(name, edns=ASKING)
    assert reply.rcode == "NOERROR"
    assert KEEPALIVE not in dict(reply.options)


def test_a_query_without_keepalive_gets_none(running: Subject):
    """Trap 15, RFC 7828 section 3.3.2: only to a client that shows that it knows the option."""
    assert KEEPALIVE not in dict(running.query(BLOCKED, edns=True, transport="tcp").options)
    assert running.query(BLOCKED, transport="tcp").opt is None


@pytest.mark.parametrize("data", [b"\0\x64", b"\0", b"\0\0\0"])
def test_a_timeout_in_a_query_is_a_format_error(running: Subject, data: bytes):
    """Trap 15, RFC 7828 section 3.2.1: a client's option is of length 0."""
    packet = wire.query(BLOCKED, edns=wire.opt(options=wire.option(KEEPALIVE, data)))
    assert wire.read(running.exchange(packet, "tcp")).rcode == "FORMERR"


def test_an_idle_connection_lives_as_long_as_announced(subject: Subject):
    """Trap 15, RFC 7828 section 3.4: the server may close an idle connection after it, and not before."""
    subject.start(orders=[block("B-1", [BLOCKED])], tcp={"idle_timeout_ms": 800})
    with subject.tcp() as stream:
        asked_at = time.monotonic()
        stream.send(wire.query(BLOCKED, edns=ASKING))
        reply = stream.reply()
        assert is_sinkholed(reply)
        assert dict(reply.options)[KEEPALIVE] == (8).to_bytes(2)
        assert stream.is_closed_within(TIMEOUT)
        assert time.monotonic() - asked_at >= 0.8, "not before"


def test_a_timeout_above_16_bits_is_sent_as_the_largest(subject: Subject):
    """Trap 15, RFC 7828 section 3.1: 600 seconds are 6000 units, and nothing is cut."""
    subject.start(orders=[block("B-1", [BLOCKED])], tcp={"idle_timeout_ms": 600_000})
    reply = subject.query(BLOCKED, edns=ASKING, transport="tcp")
    assert dict(reply.options)[KEEPALIVE] == (6000).to_bytes(2)
