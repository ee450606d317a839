"""Parts of a message that belong to one hop: EDNS, its options, header flags, and the size."""

import struct

import pytest

from .. import wire
from ..asking import Asking, is_forwarded, is_sinkholed
from ..policy import LANDED, NO_DATA, NO_SUCH_NAME, SINKHOLED, free
from ..upstreams import Asked, StubUpstream

SUBNET, KEEPALIVE, PADDING, NSID = 8, 11, 12, 3
FOREIGN = (
    wire.option(SUBNET, b"\0\x01\x18\0\xc0\0\x02")
    + wire.option(65001, b"experiment")
    + wire.option(PADDING, b"\0" * 32)
)


# ------- EDNS to the client ----------------------------------------------------


@pytest.mark.parametrize("qtype", ["A", "TXT"])
def test_a_response_has_opt_if_and_only_if_the_query_has(resolver: Asking, qtype: str):
    """Trap 3, RFC 6891 sections 6.1.1 and 7."""
    for name in (SINKHOLED, free()):
        assert resolver.query(name, qtype).opt is None
        assert resolver.query(name, qtype, edns=True).opt is not None


@pytest.mark.parametrize("payload", [0, 512, 4096, 65535])
def test_the_payload_size_in_a_response_is_that_of_the_server(resolver: Asking, payload: int):
    """Trap 3, RFC 6891 section 6.2.3, RFC 9715 section 3.1: 1232."""
    for name in (SINKHOLED, free()):
        assert resolver.query(name, edns=wire.opt(payload)).opt.rclass == 1232


@pytest.mark.parametrize("do", [False, True])
def test_do_is_copied_and_no_other_flag_of_opt(resolver: Asking, do: bool):
    """Trap 3, RFC 3225 section 3, RFC 6891 section 6.1.4."""
    flags = (wire.DO if do else 0) | 0x7FFF
    packet = wire.record(b"\0", "OPT", b"", ttl=flags, rclass=1232)
    for name in (SINKHOLED, free()):
        assert resolver.query(name, edns=packet).opt.ttl == (wire.DO if do else 0)


def test_unknown_edns_options_are_not_echoed(resolver: Asking):
    """Trap 3, RFC 6891 section 6.1.2: unknown options are ignored."""
    for name in (SINKHOLED, free()):
        reply = resolver.query(name, edns=wire.opt(options=FOREIGN))
        assert {code for code, _ in reply.options} <= {wire.EDE_OPTION}


def test_edns_options_of_the_upstream_are_not_passed_on(resolver: Asking, seen: StubUpstream):
    """Trap 3, RFC 7873 section 5, RFC 7828 section 3.2: AGH#8183, mihomo#3041, dnsproxy#132, stubby#98."""

    def script(asked: Asked) -> bytes:
        options = wire.option(NSID, b"ns1") + FOREIGN
        if wire.COOKIE_OPTION in dict(asked.message.options):
            cookie = dict(asked.message.options)[wire.COOKIE_OPTION][:8] + b"12345678"
            options += wire.option(wire.COOKIE_OPTION, cookie)
        if asked.transport == "tcp":
            options += wire.option(KEEPALIVE, b"\0\x64")
        return asked.address(edns=wire.opt(4096, options=options))

    seen.script = script
    reply = resolver.query(free(), edns=True)
    assert is_forwarded(reply)
    assert reply.options == []


# ------- EDNS to the upstream --------------------------------------------------


@pytest.mark.parametrize("edns", [False, wire.opt(4096), wire.opt(512)], ids=["none", "4096", "512"])
def test_the_upstream_gets_an_opt_of_this_hop(resolver: Asking, seen: StubUpstream, edns: bool | bytes):
    """Trap 3, RFC 6891 section 6.2.6: also for a client without EDNS, and never larger than 1232."""
    name = free()
    resolver.query(name, edns=edns)
    asked = seen.asked_for(name)[0].message.opt
    assert (asked.owner, asked.rclass) == (".", 1232)


def test_edns_options_of_the_client_are_not_passed_on(resolver: Asking, seen: StubUpstream):
    """Trap 3, RFC 7871 section 7.1.2, RFC 7873 section 5: a subnet identifies clients, a cookie one hop."""
    name = free()
    cookie = wire.option(wire.COOKIE_OPTION, b"12345678")
    resolver.query(name, edns=wire.opt(options=FOREIGN + cookie))
    sent = dict(seen.asked_for(name)[0].message.options)
    assert {SUBNET, PADDING, 65001}.isdisjoint(sent)
    assert not sent.get(wire.COOKIE_OPTION, b"").startswith(b"12345678")


# ------- Flags -------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("asked", [0, wire.RD, wire.CD, wire.RD | wire.CD | wire.AD | wire.Z], ids=hex)
@pytest.mark.parametrize("name", [SINKHOLED, NO_SUCH_NAME, NO_DATA, LANDED])
def test_the_header_flags_of_a_local_response(resolver: Asking, asked: int, name: str, transport: str):
    """Trap 6, RFC 1035 section 4.1.1, RFC 4035 section 3.2: QR, RA; RD and CD copied; never AA, AD, Z."""
    reply = resolver.query(name, flags=asked, transport=transport)
    assert reply.flags & 0xFFF0 == wire.QR | wire.RA | (asked & (wire.RD | wire.CD))


@pytest.mark.parametrize("name", [SINKHOLED, NO_SUCH_NAME, NO_DATA])
def test_a_local_response_is_not_authoritative(resolver: Asking, name: str):
    """Trap 6, RFC 1035 section 4.1.1: the name is not ours."""
    assert not resolver.query(name).flags & wire.AA


def test_the_dnssec_flags_of_a_query_reach_the_upstream(resolver: Asking, seen: StubUpstream):
    """Trap 6, RFC 4035 section 3.2, RFC 3225 section 3: CD and DO reach the validating resolver."""
    plain, asking = free(), free()
    resolver.query(plain)
    resolver.query(asking, flags=wire.RD | wire.CD, edns=wire.opt(do=True))
    sent = seen.asked_for(asking)[0].message
    assert (sent.flags & (wire.RD | wire.CD), sent.opt.ttl & wire.DO) == (wire.RD | wire.CD, wire.DO)
    assert not seen.asked_for(plain)[0].message.flags & wire.CD


@pytest.mark.parametrize(
    ("flags", "edns", "wanted"),
    [
        (wire.RD, False, False),
        (wire.RD, wire.opt(), False),
        (wire.RD | wire.AD, False, True),
        (wire.RD, wire.opt(do=True), True),
    ],
    ids=["plain", "EDNS", "AD", "DO"],
)
def test_ad_is_returned_only_to_a_client_that_asked_for_it(
    resolver: Asking, seen: StubUpstream, flags: int, edns: bool | bytes, wanted: bool
):
    """Trap 6, RFC 6840 sections 5.7 and 5.8."""
    seen.script = lambda asked: asked.address(flags=wire.RA | wire.AD)
    assert bool(resolver.query(free(), flags=flags, edns=edns).flags & wire.AD) is wanted


def test_ad_is_never_set_on_a_rewritten_response(resolver: Asking, seen: StubUpstream):
    """Traps 6 and 13, RFC 4035 section 3.2.3: the upstream validated other data."""
    name = free()
    alias = wire.record(name, "CNAME", wire.name_to_wire(SINKHOLED))
    seen.script = lambda asked: asked.response([alias], flags=wire.RA | wire.AD)
    assert not resolver.query(name, edns=wire.opt(do=True)).flags & wire.AD


# ------- Size ---------------------------------------------------------------------

TEXTS = [b"%03d" % i + b"x" * 197 for i in range(20)]


def texts(asked: Asked, count: int) -> bytes:
    return asked.response(
        [wire.record(b"\xc0\x0c", "TXT", bytes([len(text)]) + text) for text in TEXTS[:count]]
    )


def cut_over_udp(count: int) -> object:
    def script(asked: Asked) -> bytes:
        return asked.response(flags=wire.RA | wire.TC) if asked.transport == "udp" else texts(asked, count)

    return script


@pytest.mark.parametrize(
    ("payload", "limit"),
    [(None, 512), (0, 512), (512, 512), (700, 700), (4096, 1232)],
    ids=["none", "0", "512", "700", "4096"],
)
def test_no_datagram_is_larger_than_client_and_server_allow(
    resolver: Asking, seen: StubUpstream, payload: int | None, limit: int
):
    """Trap 5, RFC 1035 section 4.2.1, RFC 6891 section 6.2.5, RFC 9715 section 3.2."""
    seen.script = cut_over_udp(10)
    reply = resolver.query(free(), "TXT", edns=False if payload is None else wire.opt(payload))
    assert reply.truncated
    assert len(reply.raw) <= limit
    assert (reply.opt is not None) == (payload is not None)


def test_a_truncated_answer_has_no_part_of_the_rrset(resolver: Asking, seen: StubUpstream):
    """Trap 5, RFC 2181 section 9: what does not fit is left out whole."""
    seen.script = cut_over_udp(10)
    reply = resolver.query(free(), "TXT", edns=True)
    assert (reply.truncated, reply.rcode, reply.answer) == (True, "NOERROR", ())


def test_a_truncated_response_is_complete_over_tcp(resolver: Asking, seen: StubUpstream):
    """Trap 5, RFC 7766 section 5: and is never taken for whole before."""
    name = free()
    seen.script = cut_over_udp(20)
    assert resolver.query(name, "TXT", edns=True).truncated
    reply = resolver.query(name, "TXT", edns=True, transport="tcp")
    assert not reply.truncated
    assert sorted(record.rdata[1:] for record in reply.answer) == TEXTS


def test_a_truncated_upstream_response_is_retried_over_tcp(resolver: Asking, seen: StubUpstream):
    """Trap 5, RFC 7766 section 5: the client whose limit the whole answer fits never hears of it."""
    name = free()
    seen.script = cut_over_udp(4)
    reply = resolver.query(name, "TXT", edns=True)
    assert not reply.truncated
    assert sorted(record.rdata[1:] for record in reply.answer) == TEXTS[:4]
    assert [asked.transport for asked in seen.asked_for(name)] == ["udp", "tcp"]


def test_an_answer_over_tcp_is_never_truncated(resolver: Asking, seen: StubUpstream):
    """Trap 5, RFC 1035 section 4.2.2: 65,535 bytes, whatever the client accepts over UDP."""
    seen.script = lambda asked: (
        asked.response(flags=wire.RA | wire.TC)
        if asked.transport == "udp"
        else asked.response([wire.record(b"\xc0\x0c", "TYPE65280", b"\xaa" * 60000)])
    )
    reply = resolver.query(free(), "TYPE65280", transport="tcp", edns=wire.opt(512))
    assert not reply.truncated
    assert reply.answer[0].rdata == b"\xaa" * 60000


def test_the_answer_for_a_long_blocked_name_fits_without_edns(resolver: Asking):
    """Trap 5, RFC 1035 section 4.2.1: a sinkhole is made to fit 512 bytes."""
    longest = wire.labels_to_wire([b"x" * 63] * 3 + [b"y" * 40, b"sinkholed", b"example"])
    assert is_sinkholed(resolver.query(longest))


def test_unknown_types_are_passed_on_unchanged(resolver: Asking, seen: StubUpstream):
    """RFC 3597 section 4: RDATA is opaque, also if it looks like a compression pointer."""
    rdata = bytes(range(256)) + b"\xc0\x0c\xc0\xff"
    seen.script = lambda asked: asked.response([wire.record(b"\xc0\x0c", "TYPE65280", rdata)])
    (record,) = resolver.query(free(), "TYPE65280", edns=True).answer
    assert record.rdata == rdata


def test_an_unsupported_edns_version_is_not_forwarded(resolver: Asking, seen: StubUpstream):
    """Trap 3, RFC 6891 section 6.1.3: a version is of one hop."""
    name = free()
    packet = wire.query(name, edns=wire.opt(version=1))
    reply = wire.read(resolver.exchange(packet))
    assert (reply.rcode, struct.pack("!I", reply.opt.ttl)[1]) == ("BADVERS", 0)
    assert seen.asked_for(name) == []


@pytest.mark.parametrize(("high", "low"), [(1, 0), (1, 7), (2, 3)], ids=["16", "23", "35"])
def test_half_of_an_extended_rcode_is_not_passed_on(
    resolver: Asking, seen: StubUpstream, high: int, low: int
):
    """Trap 3, RFC 6891 section 6.1.3: without the bits in OPT, BADVERS (16) would read as NOERROR."""
    seen.script = lambda asked: (
        asked.address()
        if asked.message.opt is None
        else asked.response(rcode=low, edns=wire.opt(extended_rcode=high))
    )
    reply = resolver.query(free())
    assert (reply.rcode, reply.opt) == ("SERVFAIL", None) or is_forwarded(reply)
