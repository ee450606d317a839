"""Refused queries (trap 0), branch by branch, in the order of the branches."""

import os
import random
import socket
import struct

import pytest

from . import wire
from .harness import TIMEOUT, Subject, assert_silent, is_sinkholed
from .orders import block
from .tools import wait_for
from .upstreams import StubUpstream

BLOCKED = "blocked.example"


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    shared_subject.start(orders=[block("B-1", [BLOCKED])], upstreams=[shared_upstream.address])
    return shared_subject


def rcode_of(subject: Subject, packet: bytes, transport: str = "udp") -> str:
    """The RCODE of the response, which must be to this message and of its opcode."""
    raw = subject.exchange(packet, transport)
    assert raw is not None, "no answer"
    reply = wire.read(raw)
    assert reply.qid == int.from_bytes(packet[:2])
    assert reply.flags & wire.QR
    assert reply.opcode == packet[2] >> 3 & 15
    assert not reply.answer
    return reply.rcode


def header(flags: int = wire.RD, *counts: int) -> bytes:
    return struct.pack("!6H", 4711, flags, *counts)


@pytest.mark.parametrize("length", [0, 1, 2, 11])
def test_a_datagram_shorter_than_a_header_is_not_answered(running: Subject, length: int):
    """There is not even an id to answer to."""
    assert_silent(running, wire.query(BLOCKED)[:length])


def test_a_response_is_never_answered(running: Subject):
    """RFC 1035 section 4.1.1: two servers that answer each other's responses never stop."""
    before = running.metrics().total("dnsblock_queries_total")
    assert_silent(
        running,
        wire.query(BLOCKED, flags=wire.QR | wire.RD),
        wire.query("free.example", flags=wire.QR),
        header(wire.QR, 0, 0, 0, 0),
        header(wire.QR | wire.TC | 5 << 11, 7, 7, 7, 7),
    )
    running.wait_for_metric("dnsblock_queries_total", at_least=before + 4 + 2)


def test_a_response_is_not_answered_over_tcp_either(running: Subject):
    """It ends the connection, since its sender is no client. Earlier queries are answered."""
    good = wire.query(BLOCKED)
    with running.tcp() as stream:
        stream.send(good, wire.query(BLOCKED, flags=wire.QR), wire.query("free.example"))
        assert stream.reply().raw[:2] == good[:2]
        assert stream.is_closed_within(TIMEOUT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may send from port 0 (raw socket)")
def test_a_query_from_port_zero_is_dropped(running: Subject):
    """Port 0 cannot receive a response; such a packet is an attack."""
    before = running.metrics()
    payload = wire.query(BLOCKED)
    datagram = struct.pack("!4H", 0, running.ports[4], 8 + len(payload), 0) + payload  # checksum 0: none
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        raw.sendto(datagram, ("127.0.0.1", 0))
    wait_for(
        lambda: running.metrics().total("dnsblock_queries_total") > before.total("dnsblock_queries_total"),
        "the datagram is counted",
    )
    assert running.metrics().total("dnsblock_blocked_total") == before.total("dnsblock_blocked_total")
    assert is_sinkholed(running.query(BLOCKED))


def test_a_query_with_tc_is_a_format_error(running: Subject):
    """A query has no part that was left out; and TC is looked at before the opcode."""
    assert rcode_of(running, wire.query(BLOCKED, flags=wire.TC | wire.RD)) == "FORMERR"
    assert rcode_of(running, wire.query(BLOCKED, flags=wire.TC, opcode=5)) == "FORMERR"


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, 15])
def test_every_other_opcode_is_not_implemented(running: Subject, opcode: int):
    """RFC 1035 section 4.1.1; NOTIFY (4) too, as no policy zone comes by transfer here."""
    assert rcode_of(running, wire.query(BLOCKED, "SOA", opcode=opcode)) == "NOTIMP"
    # UPDATE and DSO use the counts otherwise (RFC 2136, RFC 8490), so they are not looked at first.
    assert rcode_of(running, header(opcode << 11, 0, 0, 0, 0)) == "NOTIMP"


@pytest.mark.parametrize(
    ("name", "packet"),
    [
        ("no question", header(wire.RD, 0, 0, 0, 0)),
        ("two questions", wire.message(1, wire.RD, [wire.question(BLOCKED), wire.question("b.example")])),
        (
            "an answer",
            wire.message(
                2, 0, [wire.question(BLOCKED)], answers=[wire.address_record("a.example", "192.0.2.1")]
            ),
        ),
        (
            "an authority",
            wire.message(
                3, 0, [wire.question(BLOCKED)], authority=[wire.address_record("a.example", "192.0.2.1")]
            ),
        ),
        (
            "three additional records",
            wire.message(
                4, 0, [wire.question(BLOCKED)], additional=[wire.address_record("a.example", "192.0.2.1")] * 3
            ),
        ),
        ("answers that are not there", header(wire.RD, 1, 1, 0, 0) + wire.question(BLOCKED)),
        ("an additional record that is not there", header(wire.RD, 1, 0, 0, 1) + wire.question(BLOCKED)),
    ],
)
def test_invalid_section_counts_are_a_format_error(running: Subject, name: str, packet: bytes):
    """RFC 9619 section 4 (QDCOUNT is 1); the other counts as Unbound's worker_check_request has them."""
    assert rcode_of(running, packet) == "FORMERR", name


def test_an_additional_record_beside_opt_is_accepted(running: Subject):
    """RFC 8945 and RFC 2931: a TSIG or SIG(0) is allowed; only more than two records are too many."""
    extra = wire.record("key.example", 250, b"\0" * 16, ttl=0, rclass=255)
    packet = wire.message(5, wire.RD, [wire.question(BLOCKED)], additional=[wire.opt(), extra])
    assert is_sinkholed(wire.read(running.exchange(packet)))


TAIL = struct.pack("!HH", 1, 1)


@pytest.mark.parametrize(
    ("what", "asked"),
    [
        ("a pointer to itself", b"\xc0\x0c" + TAIL),
        ("a pointer behind a label", b"\x07blocked\xc0\x0c" + TAIL),
        ("a pointer into the header", b"\x07blocked\xc0\x00" + TAIL),
        ("a pointer forwards", b"\xc0\x20" + TAIL + b"\x07blocked\x07example\0"),
        ("a label of type 01 (RFC 2673)", b"\x41x\x00" + TAIL),
        ("a label of type 10", b"\x81x\x00" + TAIL),
        ("a label of 64 bytes", b"\x40" + b"x" * 64 + b"\0" + TAIL),
        ("a label that runs past the end", b"\x3fblocked"),
        ("a name without its end", b"\x07blocked\x07example"),
        ("a name of 256 bytes", wire.labels_to_wire([b"x" * 62] * 4 + [b"xy"]) + TAIL),
        ("a name of 300 bytes", wire.labels_to_wire([b"x" * 59] * 5) + TAIL),
        ("no type", b"\x07blocked\x07example\0"),
        ("no class", b"\x07blocked\x07example\0\0\x01"),
    ],
)
def test_an_unparsable_question_is_a_format_error(running: Subject, what: str, asked: bytes):
    """RFC 1035 sections 3.1 and 4.1.4: no client sends a compressed question."""
    assert rcode_of(running, header(wire.RD, 1, 0, 0, 0) + asked) == "FORMERR", what


def test_a_name_of_255_bytes_is_accepted(running: Subject, seen: StubUpstream):
    """RFC 1035 section 2.3.4: 255 octets are allowed."""
    longest = wire.labels_to_wire([b"x" * 62] * 4 + [b"x"])
    assert len(longest) == 255
    assert running.query(longest).rcode == "NOERROR"
    assert seen.queries[0].message.question == longest + TAIL


def test_a_query_for_the_root_is_accepted(running: Subject, seen: StubUpstream):
    """RFC 1035 section 3.1: a name of zero labels is a name."""
    assert running.query(".", "SOA").rcode == "NOERROR"
    assert seen.queries[0].message.question == b"\0" + struct.pack("!HH", 6, 1)


@pytest.mark.parametrize("version", [1, 2, 255])
def test_edns_above_version_zero_is_badvers(running: Subject, version: int):
    """RFC 6891 section 6.1.3: BADVERS, and the version we speak."""
    packet = wire.query(BLOCKED, edns=wire.opt(version=version))
    assert rcode_of(running, packet) == "BADVERS"
    reply = wire.read(running.exchange(packet))
    assert reply.opt.ttl >> 16 & 0xFF == 0
    assert reply.question == wire.question(BLOCKED)


def test_two_opt_records_are_a_format_error(running: Subject):
    """RFC 6891 section 6.1.1."""
    packet = wire.message(6, wire.RD, [wire.question(BLOCKED)], additional=[wire.opt(), wire.opt()])
    assert rcode_of(running, packet) == "FORMERR"


@pytest.mark.parametrize(
    "record",
    [
        wire.opt(owner=wire.name_to_wire(BLOCKED)),
        wire.opt(owner=b"\xc0\x0c"),
        wire.opt(options=b"\0"),
        wire.opt(options=struct.pack("!HH", 3, 5) + b"four"),
        wire.opt()[:-1],
    ],
    ids=["named owner", "pointer as owner", "half an option", "option longer than OPT", "truncated"],
)
def test_a_malformed_opt_record_is_a_format_error(running: Subject, record: bytes):
    """RFC 6891 section 6.1.2: the owner is the root; the options fill the RDATA exactly."""
    assert rcode_of(running, wire.query(BLOCKED, edns=record)) == "FORMERR"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_denied_client_is_refused_with_extended_error_18(
    subject: Subject, upstream: StubUpstream, transport: str
):
    """RFC 8914 section 4.19: EDE 18, also for a blocked name, so that the policy is not revealed."""
    subject.start(
        orders=[block("B-1", [BLOCKED])],
        upstreams=[upstream.address],
        access_control={"allow": ["127.9.9.0/24", "::1/128"]},
    )
    for name in ("free.example", BLOCKED):
        reply = wire.read(subject.exchange(wire.query(name, edns=True), transport))
        assert (reply.rcode, list(reply.extended_errors)) == ("REFUSED", [18])
        assert rcode_of(subject, wire.query(name), transport) == "REFUSED"
    assert upstream.queries == []
    assert is_sinkholed(subject.query(BLOCKED, family=6, transport=transport))
    with subject.udp(source="127.9.9.1") as inside:
        inside.send(wire.query(BLOCKED))
        assert is_sinkholed(wire.read(inside.recv(4096)))


def test_a_denied_client_is_dropped_if_so_configured(subject: Subject):
    """`access_control.denied: drop`; RFC 5358 section 4 allows either."""
    subject.start(
        orders=[block("B-1", [BLOCKED])], access_control={"allow": ["127.9.9.0/24"], "denied": "drop"}
    )
    with subject.udp() as outside:
        outside.send(wire.query(BLOCKED))
        subject.wait_for_metric("dnsblock_queries_total", outcome="dropped")
        outside.setblocking(False)
        with pytest.raises(BlockingIOError):
            outside.recv(4096)


@pytest.mark.parametrize("name", ["version.bind", "id.server", "hostname.bind", BLOCKED])
def test_class_chaos_is_refused(running: Subject, seen: StubUpstream, name: str):
    """RFC 4892 leaves it to the operator: version and location are not published."""
    assert rcode_of(running, wire.query(name, "TXT", qclass=3)) == "REFUSED"
    assert seen.queries == []


@pytest.mark.parametrize("qclass", [0, 2, 4, 254, 255, 65280])
def test_every_other_class_is_refused(running: Subject, seen: StubUpstream, qclass: int):
    """Trap 0, RFC 1035 section 3.2.4: nothing but IN is served."""
    for name in (BLOCKED, "free.example"):
        assert rcode_of(running, wire.query(name, qclass=qclass)) == "REFUSED"
    assert seen.queries == []


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("qtype", ["AXFR", "IXFR"])
def test_zone_transfers_are_refused(running: Subject, seen: StubUpstream, qtype: str, transport: str):
    """RFC 5936 section 2.2.1: no zone is served here, and none is forwarded."""
    for name in (BLOCKED, "free.example"):
        assert rcode_of(running, wire.query(name, qtype), transport) == "REFUSED"
    assert seen.queries == []


def test_of_several_errors_the_first_is_returned(subject: Subject):
    """The refusals come in one order, so that each has one meaning."""
    subject.start(access_control={"allow": ["127.9.9.0/24"]})
    pointer = header(wire.RD, 1, 0, 0, 1) + b"\xc0\x0c" + TAIL
    assert rcode_of(subject, header(5 << 11, 0, 9, 9, 9)) == "NOTIMP", "opcode before counts"
    assert rcode_of(subject, pointer + wire.opt(version=1)) == "FORMERR", "question before EDNS"
    assert rcode_of(subject, wire.query(BLOCKED, edns=wire.opt(version=1))) == "BADVERS", "EDNS before client"
    chaos = wire.read(subject.exchange(wire.query("version.bind", "TXT", qclass=3, edns=True)))
    assert list(chaos.extended_errors) == [18], "client before class"


def test_random_bytes_stop_no_response(running: Subject):
    """Hostile until proven otherwise: mutated queries over UDP, and the next client is answered (seeded)."""
    rng = random.Random(8914)
    seeds = [
        wire.query(BLOCKED, edns=True),
        wire.query("a.b.c.d.free.example", "HTTPS", edns=wire.opt(do=True)),
    ]
    with running.udp() as sock:
        sock.settimeout(TIMEOUT)
        for _ in range(20):
            for _ in range(50):
                packet = bytearray(rng.choice(seeds))
                for _ in range(rng.randint(1, 6)):
                    packet[rng.randrange(len(packet))] = rng.randrange(256)
                sock.send(packet[: rng.randint(1, len(packet))])
            good = wire.query(BLOCKED, qid=rng.randrange(0x10000))
            sock.send(good)
            wait_for(lambda: sock.recv(65535)[:2] == good[:2], "the good query is answered")  # noqa: B023
    assert is_sinkholed(running.query(BLOCKED))
