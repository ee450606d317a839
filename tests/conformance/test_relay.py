"""Forwarded messages in both directions: flags, EDNS of each hop, unknown types, sizes and TC."""

import struct

import pytest

from . import wire
from .harness import Subject, is_forwarded
from .upstreams import Asked, StubUpstream


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    shared_subject.start(upstreams=[shared_upstream.address])
    return shared_subject


# ------- There -----------------------------------------------------------------------


@pytest.mark.parametrize("edns", [False, True, wire.opt(4096), wire.opt(512)])
def test_a_forwarded_query_has_an_opt_of_this_hop(running: Subject, seen: StubUpstream, edns: bool | bytes):
    """Trap 3, RFC 6891 section 6.2.6: EDNS is of each hop, also for a client that has none."""
    running.query("www.example", edns=edns)
    (asked,) = seen.queries
    assert asked.message.opt is not None
    assert (asked.message.opt.owner, asked.message.opt.rclass, asked.message.opt.ttl) == (".", 1232, 0)


def test_edns_options_of_the_client_are_not_forwarded(running: Subject, seen: StubUpstream):
    """Trap 3, RFC 7871 section 7.1.2: a cookie belongs to one hop; a client subnet identifies clients."""
    options = wire.option(wire.COOKIE_OPTION, b"12345678") + wire.option(8, b"\0\x01\x18\0\xc0\0\x02")
    running.query("www.example", edns=wire.opt(options=options + wire.option(65001, b"x")))
    (asked,) = seen.queries
    assert asked.message.options == []


@pytest.mark.parametrize("flags", [0, wire.RD, wire.RD | wire.CD, wire.RD | wire.AD, wire.CD], ids=hex)
@pytest.mark.parametrize("do", [False, True])
def test_flags_of_the_query_reach_the_upstream(running: Subject, seen: StubUpstream, flags: int, do: bool):
    """Trap 6, RFC 4035 section 3.2.2 (CD), RFC 3225 (DO); AD is always set (RFC 6840 section 5.7)."""
    running.query("www.example", flags=flags, edns=wire.opt(do=True) if do else False)
    (asked,) = seen.queries
    assert asked.message.flags == flags | wire.AD
    assert bool(asked.message.opt.ttl & wire.DO) is do


@pytest.mark.parametrize("understood", [True, False])
@pytest.mark.parametrize("flags", [0, wire.DE, wire.CO, wire.DE | wire.CO], ids=hex)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_de_and_co_flags_pass_in_both_directions(
    running: Subject, seen: StubUpstream, flags: int, understood: bool, transport: str
):
    """draft-ietf-dnsop-delext: DE tells a stub that its resolver knows DELEG. RFC 9824 section 5.1: CO."""
    seen.script = lambda asked: asked.address(
        edns=wire.opt(flags=asked.message.opt.ttl & 0x7FFF if understood else 0)
    )
    reply = running.query("www.example", edns=wire.opt(flags=flags), transport=transport)
    (asked,) = seen.queries
    assert asked.message.opt.ttl == flags
    assert reply.opt.ttl == (flags if understood else 0)


def test_unknown_flags_of_opt_are_not_forwarded(running: Subject, seen: StubUpstream):
    """RFC 6891 section 6.1.4: Z is zero in what we send, to the upstream and to the client."""
    seen.script = lambda asked: asked.address(edns=wire.opt(flags=0x1FFF | wire.DE))
    assert running.query("www.example", edns=wire.opt(flags=0x1FFF)).opt.ttl == 0
    (asked,) = seen.queries
    assert asked.message.opt.ttl == 0


@pytest.mark.parametrize("qtype", ["A", "HTTPS", "SVCB", "DS", "TYPE65280", "TYPE1234"])
def test_the_question_reaches_the_upstream_unchanged(running: Subject, seen: StubUpstream, qtype: str):
    """Trap 4: the client's case goes along, so that its 0x20 protects both hops."""
    running.query("wWw.MiXeD.eXaMpLe", qtype)
    (asked,) = seen.queries
    assert asked.message.question == wire.question("wWw.MiXeD.eXaMpLe", qtype)


# ------- Back ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "edns", "expected"),
    [
        (wire.RD, False, 0),
        (wire.RD, True, 0),
        (wire.RD | wire.AD, False, wire.AD),
        (wire.RD, wire.opt(do=True), wire.AD),
    ],
)
def test_ad_is_passed_on_only_to_a_client_that_asked_for_it(
    running: Subject, seen: StubUpstream, flags: int, edns: bool | bytes, expected: int
):
    """Trap 6, RFC 6840 section 5.8: AD in the answer if DO or AD was in the query."""
    seen.script = lambda asked: asked.address(flags=wire.RA | wire.AD)
    assert running.query("signed.example", flags=flags, edns=edns).flags & wire.AD == expected


def test_ra_and_aa_are_passed_on(running: Subject, seen: StubUpstream):
    """Trap 6, RFC 1035 section 4.1.1: both describe the server that answered."""
    for flags in (0, wire.RA, wire.AA, wire.RA | wire.AA):
        seen.script = lambda asked, flags=flags: asked.address(flags=flags)
        assert running.query("www.example").flags & (wire.RA | wire.AA) == flags


def test_of_the_options_of_the_upstream_only_the_extended_error_is_passed_on(
    running: Subject, seen: StubUpstream
):
    """Trap 3: cookie, keepalive, padding and NSID are of its hop; RFC 8914 section 3 lets EDE pass."""
    options = (
        wire.option(wire.COOKIE_OPTION, b"1234567812345678")
        + wire.option(wire.EDE_OPTION, struct.pack("!H", 9) + b"no DNSKEY")
        + wire.option(11, b"\0\x64")
        + wire.option(3, b"ns1")
        + wire.option(12, b"\0" * 20)
    )
    seen.script = lambda asked: asked.response(rcode=2, edns=wire.opt(4096, options=options))
    reply = running.query("bogus.example", edns=True)
    assert (reply.rcode, reply.extended_errors) == ("SERVFAIL", {9: "no DNSKEY"})
    assert {code for code, _ in reply.options} == {wire.EDE_OPTION}
    assert (reply.opt.rclass, reply.opt.ttl) == (1232, 0)
    assert running.query("bogus.example").opt is None


def test_a_client_with_edns_gets_opt_from_an_upstream_without(running: Subject, seen: StubUpstream):
    """Trap 3, RFC 6891 section 7: the OPT of the answer belongs to this hop."""
    seen.script = lambda asked: wire.message(
        asked.message.qid,
        wire.QR | wire.RD | wire.RA,
        [asked.message.question],
        answers=[wire.address_record(b"\xc0\x0c", "198.51.100.7")],
    )
    assert running.query("www.example", edns=wire.opt(do=True)).opt.ttl == wire.DO
    assert running.query("www.example").opt is None


def test_do_comes_back_as_the_client_sent_it(running: Subject, seen: StubUpstream):
    """Trap 3, RFC 3225 section 3, whatever the upstream thinks."""
    seen.script = lambda asked: asked.address(edns=wire.opt(do=True))
    assert running.query("www.example", edns=True).opt.ttl == 0
    assert running.query("www.example", edns=wire.opt(do=True)).opt.ttl == wire.DO


@pytest.mark.parametrize("place", [0, 1, 2])
def test_additional_records_beside_opt_are_passed_on(running: Subject, seen: StubUpstream, place: int):
    """Trap 3: only OPT belongs to the hop; glue is data, in any position (RFC 6891 section 6.1.1)."""

    def with_glue(asked: Asked) -> bytes:
        glue = [
            wire.address_record("ns1.example", "192.0.2.1"),
            wire.address_record("ns2.example", "192.0.2.2"),
        ]
        glue.insert(place, wire.opt(options=wire.option(3, b"ns1")))
        records = [wire.address_record(b"\xc0\x0c", "198.51.100.7")]
        flags = wire.QR | wire.RD | wire.RA
        return wire.message(
            asked.message.qid, flags, [asked.message.question], answers=records, additional=glue
        )

    seen.script = with_glue
    for edns in (False, True):
        reply = running.query("www.example", edns=edns)
        assert [record.address for record in reply.additional] == ["192.0.2.1", "192.0.2.2"]
        assert is_forwarded(reply)
        assert (reply.opt is not None) is edns


def test_unknown_types_are_relayed_unchanged(running: Subject, seen: StubUpstream):
    """RFC 3597 section 4: RDATA of an unknown type is opaque, also if it looks like a pointer."""
    rdata = bytes(range(256)) + b"\xc0\x0c\xc0\xff"
    seen.script = lambda asked: asked.response([wire.record(b"\xc0\x0c", "TYPE65280", rdata, ttl=77777)])
    (record,) = running.query("other.example", "TYPE65280").answer
    assert (record.rdata, record.ttl) == (rdata, 77777)


# ------- Size --------------------------------------------------------------------------

TEXTS = [b"%03d" % i + b"x" * 197 for i in range(20)]


def texts(asked: Asked, count: int) -> bytes:
    records = [wire.record(b"\xc0\x0c", "TXT", bytes([len(text)]) + text) for text in TEXTS[:count]]
    return asked.response(records)


def truncated_over_udp(count: int) -> object:
    def script(asked: Asked) -> bytes:
        return asked.response(flags=wire.RA | wire.TC) if asked.transport == "udp" else texts(asked, count)

    return script


def test_a_truncated_response_is_retried_over_tcp(running: Subject, seen: StubUpstream):
    """Trap 5: the client whose limit the whole answer fits never hears of it."""
    seen.script = truncated_over_udp(4)
    reply = running.query("text.example", "TXT", edns=True)
    assert not reply.truncated
    assert [record.rdata[1:] for record in reply.answer] == TEXTS[:4]
    assert [asked.transport for asked in seen.queries] == ["udp", "tcp"]
    assert seen.queries[1].message.question == seen.queries[0].message.question
    assert seen.queries[1].message.opt is not None


@pytest.mark.parametrize("edns", [False, True, wire.opt(512), wire.opt(4096)])
def test_an_answer_that_does_not_fit_the_client_is_truncated(
    running: Subject, seen: StubUpstream, edns: bool | bytes
):
    """Trap 5, RFC 2181 section 9: TC=1, question and OPT, no part of the RRset; and whole over TCP."""
    seen.script = truncated_over_udp(20)
    reply = running.query("text.example", "TXT", edns=edns)
    assert reply.truncated
    assert (reply.rcode, reply.answer, reply.authority, reply.additional) == ("NOERROR", (), (), ())
    assert (reply.opt is not None) is bool(edns)
    whole = running.query("text.example", "TXT", edns=edns, transport="tcp")
    assert not whole.truncated
    assert [record.rdata[1:] for record in whole.answer] == TEXTS


def test_a_response_within_1232_bytes_is_truncated_for_a_client_without_edns(
    running: Subject, seen: StubUpstream
):
    """Trap 5, RFC 1035 section 4.2.1: 512 bytes; it came whole from the upstream, in one datagram."""
    seen.script = lambda asked: texts(asked, 4)
    reply = running.query("text.example", "TXT")
    assert (reply.truncated, reply.answer, reply.opt) == (True, (), None)
    assert len(running.query("text.example", "TXT", edns=True).answer) == 4
    assert len(running.query("text.example", "TXT", transport="tcp").answer) == 4


def test_the_largest_tcp_message_is_relayed(running: Subject, seen: StubUpstream):
    """Trap 5, RFC 1035 section 4.2.2: a length of 65,535 bytes."""

    def largest(asked: Asked) -> bytes:
        if asked.transport == "udp":
            return asked.response(flags=wire.RA | wire.TC)
        head = asked.response()
        return asked.response([wire.record(b"\xc0\x0c", "TYPE65280", b"\xaa" * (65535 - len(head) - 12))])

    seen.script = largest
    reply = running.query("large.example", "TYPE65280", transport="tcp", edns=True)
    assert len(reply.raw) == 65535
    assert set(reply.answer[0].rdata) == {0xAA}
    assert running.query("large.example", "TYPE65280", edns=True).truncated
