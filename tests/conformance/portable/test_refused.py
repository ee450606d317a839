"""Queries that any resolver refuses before the policy is looked up."""

import struct

import pytest

from .. import wire
from ..asking import Asking, assert_silent, is_sinkholed
from ..policy import SINKHOLED, free
from ..upstreams import StubUpstream

TAIL = struct.pack("!HH", 1, 1)


def header(flags: int, *counts: int) -> bytes:
    return struct.pack("!6H", wire.random_id(), flags, *counts)


def rcode_of(resolver: Asking, packet: bytes, transport: str = "udp") -> str:
    """The RCODE of the header; some resolvers return unreadable data after it."""
    raw = resolver.exchange(packet, transport)
    assert raw is not None, "no answer"
    assert (raw[:2], raw[2] & 0x80) == (packet[:2], 0x80)
    try:
        return wire.read(raw).rcode
    except wire.MalformedError:
        return wire.RCODES[raw[3] & 15]


@pytest.mark.parametrize("length", [0, 1, 11])
def test_a_message_shorter_than_a_header_gets_no_response(resolver: Asking, length: int):
    """Trap 0, RFC 1035 section 4.1.1: a header is 12 octets; below that there may not even be an id."""
    assert_silent(resolver, wire.query(SINKHOLED)[:length], ask=SINKHOLED)


@pytest.mark.parametrize("opcode", [0, 4, 5])
def test_a_response_gets_no_response(resolver: Asking, opcode: int):
    """Trap 0, RFC 1035 section 4.1.1: QR=1 is no query; two servers that answer it never stop."""
    flags = wire.QR | wire.RD
    packet = [
        wire.query(SINKHOLED, flags=flags, opcode=opcode),
        header(flags | opcode << 11, 0, 0, 0, 0),
        header(flags | opcode << 11, 7, 7, 7, 7),
    ]
    assert_silent(resolver, *packet, ask=SINKHOLED)


def test_a_query_with_tc_set_is_a_format_error(resolver: Asking):
    """Trap 0, RFC 1035 section 4.1.1: TC says that a part is missing; what is asked is then not known."""
    assert rcode_of(resolver, wire.query(SINKHOLED, flags=wire.TC | wire.RD)) == "FORMERR"


TURNED_AWAY = ("NOTIMP", "REFUSED", "NOTAUTH")


def test_a_notify_for_an_unknown_zone_is_refused(resolver: Asking, seen: StubUpstream):
    """Trap 0, RFC 1996: NOTIFY is for secondaries of a zone; nothing is fetched."""
    assert rcode_of(resolver, wire.query("unknown.example", "SOA", opcode=4)) in TURNED_AWAY
    assert seen.asked_for("unknown.example") == []


@pytest.mark.parametrize("opcode", [1, 2, 3, 6, 15])
def test_an_unsupported_opcode_is_not_implemented(resolver: Asking, opcode: int):
    """Trap 0, RFC 1035 section 4.1.1: NOTIMP, for the opcode that was asked."""
    packet = wire.query(SINKHOLED, opcode=opcode)
    assert rcode_of(resolver, packet) == "NOTIMP"
    assert wire.read(resolver.exchange(packet)).opcode == opcode


def test_an_update_is_refused(resolver: Asking):
    """Trap 0, RFC 2136 section 3.1.2: a resolver is no primary."""
    assert rcode_of(resolver, wire.query("example", "SOA", opcode=5)) in TURNED_AWAY


@pytest.mark.parametrize("count", [0, 2])
def test_a_query_has_one_question(resolver: Asking, count: int):
    """Trap 0, RFC 9619 section 4: QDCOUNT above 1 is FORMERR; and none asks nothing."""
    packet = wire.message(wire.random_id(), wire.RD, [wire.question(SINKHOLED)] * count)
    assert rcode_of(resolver, packet) == "FORMERR"


@pytest.mark.parametrize("section", ["answers", "authority"])
def test_a_query_has_no_records_in_it(resolver: Asking, section: str):
    """Trap 0, RFC 1035 section 4.1: records belong into responses."""
    record = wire.address_record("a.example", "192.0.2.1")
    packet = wire.message(wire.random_id(), wire.RD, [wire.question(SINKHOLED)], **{section: [record]})
    assert rcode_of(resolver, packet) == "FORMERR"


def test_a_query_has_at_most_two_additional_records(resolver: Asking):
    """Trap 0, RFC 6891 section 6.1.1 and RFC 8945 section 5.1: an OPT and a signature, and no more."""
    records = [wire.address_record("a.example", "192.0.2.1")] * 3
    packet = wire.message(wire.random_id(), wire.RD, [wire.question(SINKHOLED)], additional=records)
    assert rcode_of(resolver, packet) == "FORMERR"


@pytest.mark.parametrize(
    "asked",
    [
        b"\x40" + b"x" * 64 + b"\0" + TAIL,
        b"\x81x\0" + TAIL,
        b"\x3fblocked",
        b"\x07blocked\x07example",
        wire.labels_to_wire([b"x" * 59] * 5) + TAIL,
        b"\x07blocked\x07example\0\0\x01",
    ],
    ids=["64 bytes", "label type 10", "past the end", "no end", "300 bytes", "no class"],
)
def test_an_unreadable_question_is_a_format_error(resolver: Asking, asked: bytes):
    """Trap 0, RFC 1035 section 3.1: a label has up to 63 octets, a name 255; type and class follow."""
    assert rcode_of(resolver, header(wire.RD, 1, 0, 0, 0) + asked) == "FORMERR"


@pytest.mark.parametrize(
    "asked",
    [b"\xc0\x0c" + TAIL, b"\x07blocked\xc0\x0c" + TAIL, b"\x07blocked\xc0\x04" + TAIL, b"\xc0\x20" + TAIL],
    ids=["itself", "behind a label", "header", "forwards"],
)
def test_a_pointer_in_a_question_is_a_format_error(resolver: Asking, asked: bytes):
    """Trap 0, RFC 1035 section 4.1.4: there is nothing before the first question to point to."""
    assert rcode_of(resolver, header(wire.RD, 1, 0, 0, 0) + asked) == "FORMERR"


@pytest.mark.parametrize("version", [1, 255])
def test_a_higher_version_of_edns_is_badvers(resolver: Asking, version: int):
    """Trap 0, RFC 6891 section 6.1.3: BADVERS, with the version that is spoken."""
    packet = wire.query(SINKHOLED, edns=wire.opt(version=version))
    assert rcode_of(resolver, packet) == "BADVERS"
    assert wire.read(resolver.exchange(packet)).opt.ttl >> 16 & 0xFF == 0


def test_two_opt_records_in_a_query_are_a_format_error(resolver: Asking):
    """Trap 0, RFC 6891 section 6.1.1: at most one."""
    packet = wire.message(
        wire.random_id(), wire.RD, [wire.question(SINKHOLED)], additional=[wire.opt(), wire.opt()]
    )
    assert rcode_of(resolver, packet) == "FORMERR"


@pytest.mark.parametrize("owner", [wire.name_to_wire(SINKHOLED), b"\xc0\x0c"], ids=["name", "pointer"])
def test_an_opt_record_of_another_owner_than_the_root_is_a_format_error(resolver: Asking, owner: bytes):
    """Trap 0, RFC 6891 section 6.1.2: NAME MUST be 0; CVE-2026-42004 is the result of ignoring it."""
    assert rcode_of(resolver, wire.query(SINKHOLED, edns=wire.opt(owner=owner))) == "FORMERR"


@pytest.mark.parametrize("options", [b"\0", struct.pack("!HH", 3, 5) + b"four"], ids=["half", "too long"])
def test_options_that_do_not_fill_their_opt_are_a_format_error(resolver: Asking, options: bytes):
    """Trap 0, RFC 6891 section 6.1.2: {code, length, data} to the end of RDATA; CVE-2026-42004."""
    assert rcode_of(resolver, wire.query(SINKHOLED, edns=wire.opt(options=options))) == "FORMERR"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("blocked", [False, True])
def test_a_client_outside_the_access_control_list_is_refused(
    resolver: Asking, seen: StubUpstream, blocked: bool, transport: str
):
    """Trap 0, RFC 5358 section 4: also for a blocked name, so that the policy is not revealed."""
    name = SINKHOLED if blocked else free()
    packet = wire.query(name, edns=True)
    if transport == "udp":
        with resolver.udp(source="127.9.9.1") as outside:
            outside.send(packet)
            reply = wire.read(outside.recv(4096))
    else:
        with resolver.tcp(source="127.9.9.1") as outside:
            outside.send(packet)
            reply = outside.reply()
    assert (reply.rcode, reply.answer) == ("REFUSED", ())
    assert seen.asked_for(name) == []


def test_a_refused_client_gets_extended_error_18(resolver: Asking):
    """Trap 0, RFC 8914 section 4.19: extended error 18, Prohibited."""
    with resolver.udp(source="127.9.9.1") as outside:
        outside.send(wire.query(free(), edns=True))
        reply = wire.read(outside.recv(4096))
    assert list(reply.extended_errors) == [18]


@pytest.mark.parametrize("name", ["version.bind", "id.server", "hostname.bind", SINKHOLED])
def test_class_chaos_never_reaches_the_upstream(resolver: Asking, seen: StubUpstream, name: str):
    """Trap 0, RFC 4892: answered here or refused; what the upstream is is not ours to tell."""
    reply = resolver.query(name, "TXT", qclass=3)
    assert reply.rcode == "REFUSED" or name != SINKHOLED
    assert seen.asked_for(name) == []


@pytest.mark.parametrize("qclass", [0, 2, 4, 254, 255, 65280])
def test_a_class_that_is_not_internet_is_refused(resolver: Asking, seen: StubUpstream, qclass: int):
    """Trap 0, RFC 1035 section 3.2.4: nothing but IN is known here, so nothing else is asked for."""
    for name in (SINKHOLED, free()):
        assert rcode_of(resolver, wire.query(name, qclass=qclass)) == "REFUSED"
    assert [asked for asked in seen.queries if asked.message.question[-2:] != b"\0\1"] == []


@pytest.mark.parametrize("qtype", ["AXFR", "IXFR"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_zone_transfer_is_not_forwarded(resolver: Asking, seen: StubUpstream, qtype: str, transport: str):
    """RFC 5936 section 2.2.1: a transfer is requested from a server of the zone."""
    for name in (SINKHOLED, free()):
        assert rcode_of(resolver, wire.query(name, qtype), transport) in (*TURNED_AWAY, "FORMERR")
        assert seen.asked_for(name) == []


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        (header(6 << 11 | wire.RD, 0, 9, 9, 9), "NOTIMP"),
        (header(wire.TC | 6 << 11, 1, 0, 0, 0) + wire.question(SINKHOLED), "FORMERR"),
        (header(wire.RD, 2, 0, 0, 1) + wire.question(SINKHOLED) * 2 + wire.opt(version=1), "FORMERR"),
        (header(wire.RD, 1, 0, 0, 1) + b"\xc0\x0c" + TAIL + wire.opt(version=1), "FORMERR"),
    ],
    ids=["opcode, counts", "TC, opcode", "counts, version", "question, version"],
)
def test_of_two_errors_the_first_is_returned(resolver: Asking, packet: bytes, rcode: str):
    """Trap 0: one order, so that each refusal has one meaning."""
    assert rcode_of(resolver, packet) == rcode


def test_a_client_is_served_after_all_these_refusals(resolver: Asking):
    """Fault of others: what one client sends must not end the service for the next."""
    assert is_sinkholed(resolver.query(SINKHOLED))
    assert is_sinkholed(resolver.query(SINKHOLED, transport="tcp"))
