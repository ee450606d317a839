"""Responses that need no policy: special-use names, ANY, cookies, keepalive."""

import pytest

from .. import wire
from ..asking import Asking, is_forwarded
from ..policy import GARDEN, LANDING, SINKHOLED, free
from ..upstreams import Asked, StubUpstream

CLIENT_COOKIE = bytes.fromhex("2464c4abcf10c957")
KEEPALIVE = 11
RESINFO = 261


def cookie_of(reply: wire.Reply) -> bytes:
    return dict(reply.options).get(wire.COOKIE_OPTION, b"")


def asking(code: int, data: bytes = b"") -> bytes:
    return wire.opt(options=wire.option(code, data))


# ------- Special names -------------------------------------------------------------


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "a.b.localhost"])
def test_localhost_has_the_loopback_addresses(resolver: Asking, seen: StubUpstream, name: str):
    """RFC 6761 section 6.3: and what is below it, too."""
    assert resolver.query(name).addresses == ["127.0.0.1"]
    assert resolver.query(name, "AAAA").addresses == ["::1"]
    assert seen.asked_for(name) == []


@pytest.mark.parametrize("top", ["invalid", "test", "onion", "local"])
def test_a_special_use_name_outside_the_dns_does_not_exist(resolver: Asking, seen: StubUpstream, top: str):
    """RFC 6761 sections 6.2 and 6.4, RFC 7686 section 2, RFC 6762 section 22.1."""
    for name in (top, f"www.{top}"):
        assert resolver.query(name).rcode == "NXDOMAIN"
        assert seen.asked_for(name) == []


@pytest.mark.parametrize(
    "zone",
    [
        *("10.in-addr.arpa", "16.172.in-addr.arpa", "168.192.in-addr.arpa", "127.in-addr.arpa"),
        *("64.100.in-addr.arpa", "d.f.ip6.arpa", "8.e.f.ip6.arpa", "8.b.d.0.1.0.0.2.ip6.arpa"),
    ],
)
def test_the_reverse_name_of_a_private_address_is_not_forwarded(
    resolver: Asking, seen: StubUpstream, zone: str
):
    """RFC 6303 sections 3 and 4, RFC 7793 section 3."""
    assert resolver.query(f"1.2.{zone}", "PTR").rcode == "NXDOMAIN"
    assert seen.asked_for(f"1.2.{zone}") == []


@pytest.mark.parametrize("qtype", ["SVCB", "A", RESINFO])
def test_queries_about_the_resolver_itself_are_not_forwarded(
    resolver: Asking, seen: StubUpstream, qtype: str | int
):
    """RFC 9462 section 6.4: `_dns.resolver.arpa` of the upstream would let clients bypass the policy."""
    reply = resolver.query("_dns.resolver.arpa", qtype)
    assert (reply.rcode, reply.answer) == ("NOERROR", ())
    assert seen.asked_for("_dns.resolver.arpa") == []


def test_any_over_udp_gets_one_small_record(resolver: Asking, seen: StubUpstream):
    """RFC 8482 section 4.2: HINFO "RFC8482", and the upstream is not asked."""

    def everything(asked: Asked) -> bytes:
        return asked.response([wire.record(b"\xc0\x0c", "TXT", b"\xc8" + b"x" * 200)] * 4)

    seen.script = everything
    name = free()
    reply = resolver.query(name, "ANY", edns=True)
    assert [(record.rtype, record.rdata) for record in reply.answer] == [(13, b"\x07RFC8482\0")]
    assert seen.asked_for(name) == []


# ------- Cookies -------------------------------------------------------------------


def test_a_client_cookie_gets_a_server_cookie(resolver: Asking):
    """RFC 7873 section 5.2.3, RFC 9018 section 4: its own, and a server cookie of version 1."""
    for name in (SINKHOLED, free()):
        cookie = cookie_of(resolver.query(name, edns=asking(wire.COOKIE_OPTION, CLIENT_COOKIE)))
        assert (len(cookie), cookie[:8], cookie[8:12]) == (24, CLIENT_COOKIE, b"\x01\0\0\0")
        again = cookie_of(resolver.query(name, edns=asking(wire.COOKIE_OPTION, cookie)))
        assert again[:8] == CLIENT_COOKIE


@pytest.mark.parametrize("length", [0, 7, 9, 15, 41])
def test_a_cookie_of_invalid_length_is_a_format_error(resolver: Asking, length: int):
    """RFC 7873 section 5.2.2: 8, or 16 to 40 octets."""
    packet = wire.query(SINKHOLED, edns=asking(wire.COOKIE_OPTION, b"c" * length))
    assert wire.read(resolver.exchange(packet)).rcode == "FORMERR"


def test_a_query_may_ask_for_a_cookie_alone(resolver: Asking):
    """RFC 7873 section 5.4: QDCOUNT 0."""
    packet = wire.message(7, wire.RD, additional=[asking(wire.COOKIE_OPTION, CLIENT_COOKIE)])
    reply = wire.read(resolver.exchange(packet))
    assert (reply.rcode, reply.question, reply.answer) == ("NOERROR", b"", ())
    assert cookie_of(reply)[:8] == CLIENT_COOKIE


# ------- Keepalive -----------------------------------------------------------------


def test_keepalive_over_tcp_gets_the_idle_timeout(resolver: Asking):
    """Trap 15, RFC 7828 sections 3.2.1 and 3.3.2: in units of 100 milliseconds."""
    reply = resolver.query(SINKHOLED, edns=asking(KEEPALIVE), transport="tcp")
    assert len(dict(reply.options)[KEEPALIVE]) == 2
    assert KEEPALIVE not in dict(resolver.query(SINKHOLED, edns=True, transport="tcp").options)


def test_keepalive_over_udp_is_ignored(resolver: Asking):
    """Trap 15, RFC 7828 section 3.2.2."""
    assert KEEPALIVE not in dict(resolver.query(SINKHOLED, edns=asking(KEEPALIVE)).options)


# ------- A landing name for each name ------------------------------------------------


def test_a_landing_name_may_contain_the_blocked_name(resolver: Asking, seen: StubUpstream):
    """draft-vixie-dnsop-dns-rpz section 3.6: the asterisk of the target is replaced by the queried name."""
    name = free(GARDEN)
    reply = resolver.query(name)
    assert (reply.rcode, reply.target, reply.addresses) == (
        "NOERROR",
        f"{name}.{LANDING}.",
        ["198.51.100.7"],
    )
    assert seen.asked_for(name) == []


def test_a_landing_name_that_is_too_long_never_opens_the_name(resolver: Asking, seen: StubUpstream):
    """Trap 12, RFC 6672 section 2.2, CVE-2026-11331: YXDOMAIN."""
    labels = [b"x" * 63, b"y" * 63, b"z" * 63, b"w" * 36, b"garden", b"example"]
    reply = resolver.query(wire.labels_to_wire(labels))
    assert not is_forwarded(reply)
    assert [asked for asked in seen.queries if asked.name.endswith(GARDEN)] == []
    assert (reply.rcode, reply.answer) == ("YXDOMAIN", ())
