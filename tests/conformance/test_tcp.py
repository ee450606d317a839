"""DNS over TCP (RFC 7766, trap 15): many queries on one connection, each answered as soon as it can be."""

import socket
import struct
import time
from contextlib import ExitStack, suppress

import pytest

from . import wire
from .clients import Stream
from .harness import TIMEOUT, Subject, is_forwarded, is_sinkholed
from .orders import block
from .tools import wait_for
from .upstreams import StubUpstream, silent

BLOCKED = "blocked.example"
PATIENT = {"timeout_ms": 60_000, "tries": 1}


def start(subject: Subject, upstream: StubUpstream, **tcp: int) -> None:
    subject.start(orders=[block("B-1", [BLOCKED])], upstreams=[upstream.address], upstream=PATIENT, tcp=tcp)


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    start(shared_subject, shared_upstream)
    return shared_subject


def framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(2) + packet


def answer_of(stream: Stream, name: str) -> wire.Reply:
    """Ask on this connection and take the next answer, which must be to this query."""
    asked = wire.query(name)
    stream.send(asked)
    reply = stream.reply()
    assert reply.qid == int.from_bytes(asked[:2])
    return reply


# ------- Messages and segments -------------------------------------------------------


def test_the_connection_stays_open_after_an_answer(running: Subject):
    """RFC 7766 section 6.2.1; systemd#11332 is the server that closes."""
    with running.tcp() as stream:
        for _ in range(50):
            assert is_sinkholed(answer_of(stream, BLOCKED))
            assert is_forwarded(answer_of(stream, "free.example"))


def test_queries_in_one_segment_are_all_answered(running: Subject):
    """RFC 7766 section 6.2.1.1: a client may pipeline; answers are matched by id."""
    names = [BLOCKED if number % 2 else f"n{number}.example" for number in range(60)]
    with running.tcp() as stream:
        stream.send(*(wire.query(name, qid=number) for number, name in enumerate(names)))
        replies = {reply.qid: reply for reply in (stream.reply() for _ in names)}
    assert sorted(replies) == list(range(60))
    assert all(is_sinkholed(replies[n]) if n % 2 else is_forwarded(replies[n]) for n in replies)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_queries_in_small_segments_are_answered(running: Subject, size: int):
    """RFC 7766 section 8: neither the length nor the message needs to come in one piece."""
    packet = framed(wire.query(BLOCKED, qid=1)) + framed(wire.query("free.example", qid=2))
    with running.tcp() as stream:
        for at in range(0, len(packet), size):
            stream.sock.sendall(packet[at : at + size])
        replies = {reply.qid: reply for reply in (stream.reply(), stream.reply())}
    assert is_sinkholed(replies[1])
    assert is_forwarded(replies[2])


def test_length_and_message_leave_in_one_write(running: Subject):
    """RFC 7766 section 8: a length alone in a segment costs the client a round trip and breaks some."""
    with running.tcp() as stream:
        for name in [BLOCKED, "free.example"] * 5:
            stream.send(wire.query(name))
            packet = stream.sock.recv(65535)
            assert len(packet) == 2 + int.from_bytes(packet[:2])


def test_a_slow_response_delays_no_other(running: Subject, seen: StubUpstream):
    """Trap 15, RFC 7766 section 7: out of order, as ready; serial handling is a bug (miekg/dns#1314)."""
    seen.script = silent
    with running.tcp() as stream:
        stream.send(wire.query("slow.example", qid=1))
        slow = seen.wait_for_query("slow.example")
        assert is_sinkholed(answer_of(stream, BLOCKED))
        stream.send(wire.query("quick.example", qid=3))
        quick = seen.wait_for_query("quick.example")
        quick.reply(quick.address())
        assert stream.reply().qid == 3
        slow.reply(slow.address())
        assert stream.reply().qid == 1


def test_a_repeated_id_on_a_connection_is_answered_twice(running: Subject, seen: StubUpstream):
    """RFC 7766 section 6.2.1: a client should not do it; other clients must not suffer."""
    seen.script = silent
    with running.tcp() as stream:
        stream.send(wire.query("one.example", qid=7), wire.query("two.example", qid=7))
        for asked in seen.wait_until(lambda all_asked: len(all_asked) == 2):
            asked.reply(asked.address())
        questions = {stream.reply().question for _ in range(2)}
    assert questions == {wire.question("one.example"), wire.question("two.example")}


@pytest.mark.parametrize("packet", [b"", b"\0", b"x" * 11], ids=len)
def test_a_short_message_over_tcp_disturbs_no_other(running: Subject, packet: bytes):
    """It is ignored, or the connection is closed; what it never is, is answered."""
    with running.tcp() as stream:
        good = wire.query(BLOCKED)
        stream.send(packet, good)
        raw = stream.receive()
        assert raw is None or raw[:2] == good[:2]
    assert is_sinkholed(running.query(BLOCKED, transport="tcp"))


# ------- Ends of a connection -----------------------------------------------------------


def test_queries_before_a_half_close_are_answered(running: Subject, seen: StubUpstream):
    """Trap 15, RFC 7766 section 6.2.4: a client that has said all may close its side."""
    seen.script = silent
    with running.tcp() as stream:
        stream.send(wire.query("slow.example", qid=1), wire.query(BLOCKED, qid=2))
        stream.sock.shutdown(socket.SHUT_WR)
        assert stream.reply().qid == 2
        slow = seen.wait_for_query("slow.example")
        slow.reply(slow.address())
        assert stream.reply().qid == 1
        assert stream.is_closed_within(TIMEOUT)


@pytest.mark.parametrize("answered", [False, True])
def test_an_idle_connection_is_closed(subject: Subject, upstream: StubUpstream, answered: bool):
    """RFC 7766 section 6.2.3."""
    start(subject, upstream, idle_timeout_ms=600)
    began = time.monotonic()
    with subject.tcp() as stream:
        if answered:
            began = time.monotonic()
            assert is_sinkholed(answer_of(stream, BLOCKED))
        assert stream.is_closed_within(TIMEOUT)
    assert time.monotonic() - began > 0.3, "not at once"


def test_a_connection_with_an_outstanding_query_is_not_idle(subject: Subject, upstream: StubUpstream):
    """RFC 7766 section 6.2.3: idle means that no query is outstanding."""
    upstream.script = silent
    start(subject, upstream, idle_timeout_ms=300)
    with subject.tcp() as stream:
        stream.send(wire.query("slow.example"))
        slow = upstream.wait_for_query("slow.example")
        assert not stream.is_closed_within(1)
        slow.reply(slow.address())
        stream.sock.settimeout(TIMEOUT)
        assert is_forwarded(stream.reply())
        assert stream.is_closed_within(TIMEOUT)


def test_a_trickling_message_is_disconnected(subject: Subject, upstream: StubUpstream):
    """Trap 15: slow loris; each byte is in time, the message as a whole is not."""
    start(subject, upstream, read_timeout_ms=600, idle_timeout_ms=30000)
    packet = framed(wire.query("a" * 60 + "." + BLOCKED))
    with subject.tcp() as stream:
        began, sent = time.monotonic(), 0
        try:
            for sent in range(len(packet)):
                stream.sock.sendall(packet[sent : sent + 1])
                if stream.is_closed_within(0.1):
                    break
        except ConnectionError:
            pass
        assert time.monotonic() - began > 0.3, "not at once"
        assert sent < 40, "nor only after seconds"


def test_clients_that_reset_are_forgotten(running: Subject, seen: StubUpstream):
    """Fault of others: an error of one connection must not end the listener, nor leak."""
    seen.script = silent
    for number in range(50):
        with running.tcp() as stream:
            stream.send(wire.query(BLOCKED), wire.query(f"n{number}.example"))
            seen.wait_for_query(f"n{number}.example")
            stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for asked in seen.queries:
        asked.reply(asked.address())
    assert is_sinkholed(running.query(BLOCKED, transport="tcp"))
    wait_for(lambda: running.metrics().total("dnsblock_tcp_connections") == 0, "no connection is left")


# ------- Bounds -----------------------------------------------------------------------


def test_outstanding_queries_of_a_connection_are_limited_by_max_pipelined(
    subject: Subject, upstream: StubUpstream
):
    """Reading pauses above the bound and goes on below it; nothing that was sent is lost."""
    upstream.script = silent
    start(subject, upstream, max_pipelined=4)
    with subject.tcp() as stream:
        stream.send(*(wire.query(f"n{number}.example", qid=number) for number in range(20)))
        answered = set()
        while len(answered) < 20:
            bound = min(len(answered) + 4, 20)
            under_way = upstream.wait_until(lambda asked, bound=bound: len(asked) >= bound)
            assert len(under_way) == bound
            under_way[len(answered)].reply(under_way[len(answered)].address())
            answered.add(stream.reply().qid)
    assert answered == set(range(20))


def test_a_paused_connection_is_not_idle_and_not_slow(subject: Subject, upstream: StubUpstream):
    """The client sent in time; it is the daemon that does not read."""
    upstream.script = silent
    start(subject, upstream, max_pipelined=1, read_timeout_ms=300, idle_timeout_ms=300)
    with subject.tcp() as stream:
        stream.send(wire.query("one.example", qid=1), wire.query(BLOCKED, qid=2))
        one = upstream.wait_for_query("one.example")
        assert not stream.is_closed_within(1)
        stream.sock.settimeout(TIMEOUT)
        one.reply(one.address())
        assert {stream.reply().qid, stream.reply().qid} == {1, 2}


def test_no_more_than_max_connections_are_open(subject: Subject, upstream: StubUpstream):
    """One limit for all worker threads; a client that waits for a response is not disconnected."""
    upstream.script = silent
    start(subject, upstream, max_connections=8)
    with ExitStack() as stack:
        streams = [stack.enter_context(subject.tcp()) for _ in range(8)]
        for number, stream in enumerate(streams):
            stream.send(wire.query(f"n{number}.example"))
            upstream.wait_for_query(f"n{number}.example")
        wait_for(lambda: subject.metrics().total("dnsblock_tcp_connections") == 8, "all are counted")
        assert not is_served(subject)
        assert subject.metrics().total("dnsblock_tcp_connections") <= 8
        assert is_sinkholed(subject.query(BLOCKED)), "UDP is not concerned"
        for asked in upstream.queries:
            asked.reply(asked.address())
        assert all(is_forwarded(stream.reply()) for stream in streams)
        streams[0].sock.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: is_served(subject), "a place is free again")


def test_a_crowd_of_connections_stays_within_max_connections(subject: Subject, upstream: StubUpstream):
    """Bound every count, also when all arrive at once."""
    start(subject, upstream, max_connections=8)
    with ExitStack() as stack:
        for _ in range(40):
            stream = stack.enter_context(subject.tcp())
            with suppress(ConnectionError):
                stream.send(wire.query(BLOCKED))
            assert subject.metrics().total("dnsblock_tcp_connections") <= 8
    wait_for(lambda: is_served(subject), "a place is free again")


def is_served(subject: Subject) -> bool:
    try:
        with subject.tcp() as stream:
            stream.sock.settimeout(0.5)
            stream.send(wire.query(BLOCKED))
            return stream.receive() is not None
    except ConnectionError:
        return False


def test_a_client_that_does_not_read_its_answers_is_bounded(subject: Subject, upstream: StubUpstream):
    """Bound every size: a connection whose answers pile up is not read any further, and others are served."""
    start(subject, upstream, max_pipelined=100)
    batch = framed(wire.query(BLOCKED, "TXT")) * 500
    with subject.tcp() as stream:
        stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.sock.settimeout(0.5)
        sent = 0
        try:
            while sent < 64 << 20:
                sent += stream.sock.send(batch)
        except (TimeoutError, ConnectionError):
            pass
        assert sent < 64 << 20, "it takes whatever comes, though nobody reads the answers"
        assert is_sinkholed(subject.query(BLOCKED, transport="tcp"))
