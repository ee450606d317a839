"""DNS over TCP (RFC 7766): many queries on one connection, each answered as soon as it can be."""

import socket
import struct

import pytest

from .. import wire
from ..asking import TIMEOUT, Asking, is_forwarded, is_sinkholed
from ..policy import SINKHOLED, free
from ..upstreams import StubUpstream, silent


def framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(2) + packet


def test_a_connection_carries_one_query_after_the_other(resolver: Asking):
    """Trap 15, RFC 7766 section 6.2.1: it is not closed after the first answer (systemd#11332)."""
    with resolver.tcp() as stream:
        for _ in range(20):
            stream.send(wire.query(SINKHOLED))
            assert is_sinkholed(stream.reply())
            stream.send(wire.query(free()))
            assert is_forwarded(stream.reply())


def test_queries_sent_together_are_all_answered(resolver: Asking):
    """Trap 15, RFC 7766 section 6.2.1.1: pipelining."""
    names = [SINKHOLED if number % 2 else free() for number in range(40)]
    with resolver.tcp() as stream:
        stream.send(*(wire.query(name, qid=number) for number, name in enumerate(names)))
        replies = {reply.qid: reply for reply in (stream.reply() for _ in names)}
    assert sorted(replies) == list(range(40))
    assert all(is_sinkholed(replies[n]) if n % 2 else is_forwarded(replies[n]) for n in replies)


def test_responses_over_tcp_are_sent_as_they_are_ready(resolver: Asking, seen: StubUpstream):
    """Trap 15, RFC 7766 section 7: out of order, as ready; miekg/dns#1314, cilium#33672."""
    seen.script = silent
    slow_name, quick_name = free(), free()
    with resolver.tcp() as stream:
        stream.send(wire.query(slow_name, qid=1), wire.query(SINKHOLED, qid=2))
        slow = seen.wait_for_query(slow_name)
        assert stream.reply().qid == 2
        stream.send(wire.query(quick_name, qid=3))
        quick = seen.wait_for_query(quick_name)
        quick.reply(quick.address())
        assert stream.reply().qid == 3
        slow.reply(slow.address())
        assert stream.reply().qid == 1


@pytest.mark.parametrize("size", [1, 3])
def test_a_message_may_come_in_pieces(resolver: Asking, size: int):
    """Trap 15, RFC 7766 section 8: the length, too."""
    packet = framed(wire.query(SINKHOLED, qid=1)) + framed(wire.query(free(), qid=2))
    with resolver.tcp() as stream:
        for at in range(0, len(packet), size):
            stream.sock.sendall(packet[at : at + size])
        replies = {reply.qid: reply for reply in (stream.reply(), stream.reply())}
    assert is_sinkholed(replies[1])
    assert is_forwarded(replies[2])


def test_the_length_is_sent_with_its_message(resolver: Asking):
    """Trap 15, RFC 7766 section 8: in one write; alone it costs a round trip and breaks some clients."""
    with resolver.tcp() as stream:
        for name in [SINKHOLED, free()] * 5:
            stream.send(wire.query(name))
            packet = stream.sock.recv(65535)
            assert len(packet) == 2 + int.from_bytes(packet[:2])


def test_a_half_closed_connection_is_answered_and_then_closed(resolver: Asking, seen: StubUpstream):
    """Trap 15, RFC 7766 section 6.2.4: a client may close its side after its last query."""
    seen.script = silent
    name = free()
    with resolver.tcp() as stream:
        stream.send(wire.query(name, qid=1), wire.query(SINKHOLED, qid=2))
        slow = seen.wait_for_query(name)
        stream.sock.shutdown(socket.SHUT_WR)
        assert stream.reply().qid == 2
        slow.reply(slow.address())
        assert stream.reply().qid == 1
        assert stream.is_closed_within(TIMEOUT)


def test_a_response_over_tcp_is_not_answered(resolver: Asking):
    """Traps 0 and 15, RFC 1035 section 4.1.1: QR=1."""
    with resolver.tcp() as stream:
        stream.send(wire.query(SINKHOLED, flags=wire.QR | wire.RD))
        stream.sock.settimeout(0.3)
        assert stream.receive() is None
    assert is_sinkholed(resolver.query(SINKHOLED, transport="tcp"))


def test_a_reset_connection_disturbs_no_other(resolver: Asking):
    """Fault of others: ECONNABORTED and ECONNRESET must not end a listener; RFC 9210 section 4."""
    for _ in range(20):
        with resolver.tcp() as stream:
            stream.send(wire.query(SINKHOLED), wire.query(free()))
            stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert is_sinkholed(resolver.query(SINKHOLED, transport="tcp"))


def test_a_client_that_is_gone_disturbs_no_other(resolver: Asking, seen: StubUpstream):
    """Fault of others: an ICMP error for an undeliverable response must not end the UDP listener."""
    seen.script = silent
    name = free()
    with resolver.udp() as sock:
        sock.send(wire.query(name))
        asked = seen.wait_for_query(name)
    asked.reply(asked.address())
    for _ in range(5):
        with resolver.udp() as sock:
            sock.send(wire.query(SINKHOLED))
    for _ in range(5):
        assert is_sinkholed(resolver.query(SINKHOLED))
