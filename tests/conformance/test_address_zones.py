"""Zones of addresses: a response with a listed address is answered as if the name were blocked."""

import struct
from collections.abc import Callable

import pytest

from . import wire
from .asking import SINKHOLE4, SINKHOLE6, is_forwarded, is_sinkholed
from .harness import ORDERS_ZONE, PROFILES, Subject
from .lists import UNWATCHED
from .orders import block
from .upstreams import Asked, StubUpstream

LISTED = ["198.51.100.0/24", "203.0.113.9", "2001:db8:bad::/48", "2001:db8:1::7"]
ZONE = {"name": "badnets", "addresses": "badnets.txt", "answer": "nodata", "source": UNWATCHED}
NAME = "www.example"


def start(subject: Subject, upstream: StubUpstream, **config: object) -> None:
    lists = {"badnets.txt": LISTED, **config.pop("lists", {})}
    zones = config.pop("zones", [ZONE])
    subject.start(zones=zones, lists=lists, upstreams=[upstream.address], answers=PROFILES, **config)


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    start(shared_subject, shared_upstream)
    return shared_subject


def gives(*addresses: str) -> Callable[[Asked], bytes]:
    """Those of the family that is asked for, behind an alias."""

    def script(asked: Asked) -> bytes:
        mine = [address for address in addresses if (":" in address) == (asked.qtype == 28)]
        alias = wire.record(b"\xc0\x0c", "CNAME", wire.name_to_wire("edge.example"))
        return asked.response([alias, *(wire.address_record("edge.example", one) for one in mine)])

    return script


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("qtype", "address"),
    [
        ("A", "198.51.100.0"),
        ("A", "198.51.100.255"),
        ("A", "203.0.113.9"),
        ("AAAA", "2001:db8:bad::"),
        ("AAAA", "2001:db8:bad:ffff:ffff:ffff:ffff:ffff"),
        ("AAAA", "2001:db8:1::7"),
    ],
)
def test_an_address_in_a_listed_network_is_not_passed_on(
    running: Subject, seen: StubUpstream, qtype: str, address: str, transport: str
):
    """draft-vixie-dnsop-dns-rpz section 4.2.4: Response IP Address; the answer is that of the zone."""
    seen.script = gives("192.0.2.200", "2001:db8:2::2", address)
    reply = running.query(NAME, qtype, transport=transport, edns=True)
    assert reply.is_nodata
    assert 15 in reply.extended_errors


@pytest.mark.parametrize(
    ("qtype", "address"),
    [
        ("A", "198.51.99.255"),
        ("A", "198.51.101.0"),
        ("A", "203.0.113.8"),
        ("AAAA", "2001:db8:bae::"),
        ("AAAA", "2001:db8:1::8"),
    ],
)
def test_an_address_outside_a_listed_network_is_passed_on(
    running: Subject, seen: StubUpstream, qtype: str, address: str
):
    """RFC 4632 section 3.1: a prefix is its bits and no more."""
    seen.script = gives(address)
    assert running.query(NAME, qtype).addresses == [address]


def hint(key: int, *addresses: bytes, qtype: str = "HTTPS") -> Callable[[Asked], bytes]:
    parameters = wire.option(1, b"\x02h2") + wire.option(key, b"".join(addresses))
    rdata = struct.pack("!H", 1) + b"\0" + parameters
    return lambda asked: asked.response([wire.record(b"\xc0\x0c", qtype, rdata)])


BAD6 = bytes.fromhex("20010db80bad00000000000000000001")
GOOD6 = bytes.fromhex("20010db800020000000000000000000f")


@pytest.mark.parametrize("qtype", ["HTTPS", "SVCB"])
@pytest.mark.parametrize(
    ("key", "addresses"),
    [(4, [bytes([192, 0, 2, 9]), bytes([198, 51, 100, 7])]), (6, [GOOD6, BAD6])],
    ids=["ipv4hint", "ipv6hint"],
)
def test_an_address_hint_in_a_listed_network_is_not_passed_on(
    running: Subject, seen: StubUpstream, key: int, addresses: list[bytes], qtype: str
):
    """Trap 1, RFC 9460 section 7.3: a client may connect to a hint without asking for an address."""
    seen.script = hint(key, *addresses, qtype=qtype)
    assert running.query(NAME, qtype).is_nodata


def test_an_address_hint_outside_a_listed_network_is_passed_on(running: Subject, seen: StubUpstream):
    """Trap 1, RFC 9460 section 7.3."""
    seen.script = hint(6, GOOD6)
    assert len(running.query(NAME, "HTTPS").answer) == 1


def test_only_addresses_and_hints_are_matched_as_addresses(running: Subject, seen: StubUpstream):
    """RFC 3597 section 4: a TXT record may hold the same bytes; only A, AAAA and hints are addresses."""
    rdata = b"\x04" + bytes([198, 51, 100, 7])
    seen.script = lambda asked: asked.response([wire.record(b"\xc0\x0c", "TXT", rdata)])
    assert len(running.query(NAME, "TXT").answer) == 1


def test_the_sinkhole_takes_the_place_of_a_listed_address(subject: Subject, upstream: StubUpstream):
    """draft-vixie-dnsop-dns-rpz section 3.6: as if the name itself were blocked; the owner is the name."""
    upstream.script = gives("198.51.100.7", "2001:db8:bad::7")
    start(subject, upstream, zones=[ZONE | {"answer": "sinkhole"}])
    reply = subject.query(NAME)
    assert is_sinkholed(reply)
    assert [record.owner for record in reply.answer] == [f"{NAME}."]
    assert subject.query(NAME, "AAAA").addresses == [SINKHOLE6]


def test_an_earlier_passthru_zone_of_addresses_wins(subject: Subject, upstream: StubUpstream):
    """draft-vixie-dnsop-dns-rpz section 5.2: zones in their order."""
    own = {"name": "own", "addresses": "own.txt", "answer": "passthru"}
    start(subject, upstream, zones=[own, ZONE], lists={"own.txt": ["198.51.100.7/32"]})
    upstream.script = gives("198.51.100.7")
    assert subject.query(NAME).addresses == ["198.51.100.7"]
    upstream.script = gives("198.51.100.8")
    assert subject.query(NAME).is_nodata


def test_a_passthru_of_the_name_holds_for_its_addresses(subject: Subject, upstream: StubUpstream):
    """draft-vixie-dnsop-dns-rpz section 5.2: an earlier zone that names the name decides."""
    own = {"name": "own", "list": "own.txt", "match": "subtree", "answer": "passthru"}
    start(subject, upstream, zones=[own, ZONE], lists={"own.txt": [NAME]})
    assert is_forwarded(subject.query(NAME))
    assert subject.query("other.example").is_nodata


def test_a_sinkhole_inside_a_listed_network_is_still_returned(subject: Subject, upstream: StubUpstream):
    """Trap 12, draft-vixie-dnsop-dns-rpz section 6.1: no rule is applied to what a rule made."""
    lists = {"badnets.txt": [f"{SINKHOLE4}/32"]}
    start(subject, upstream, zones=[ORDERS_ZONE, ZONE], lists=lists, orders=[block("B-1", [NAME])])
    assert is_sinkholed(subject.query(NAME))


def test_a_changed_address_list_applies_to_the_next_response(subject: Subject, upstream: StubUpstream):
    """Trap 11."""
    start(subject, upstream)
    assert subject.query(NAME).is_nodata
    subject.put_list("badnets.txt", ["203.0.113.0/24"])
    subject.reload()
    assert is_forwarded(subject.query(NAME))


def test_a_zone_of_addresses_cannot_ignore_targets(subject: Subject):
    """Such a zone matches nothing but the addresses in responses."""
    subject.configure(zones=[ZONE | {"targets": "ignore"}], lists={"badnets.txt": LISTED})
    said = subject.cli("check")
    assert said.code == 1
    assert any("targets" in f"{problem['value']} {problem['reason']}" for problem in said.problems)


def test_an_allowed_address_exempts_no_other_address(subject: Subject, upstream: StubUpstream):
    """draft-vixie-dnsop-dns-rpz section 4.2.4: a passthru is of its own addresses; a client may take any."""
    upstream.script = gives("198.51.100.7", "192.0.2.7")
    allow = {"name": "ours", "addresses": "ours.txt", "answer": "passthru"}
    start(subject, upstream, zones=[allow, ZONE], lists={"ours.txt": ["192.0.2.0/24"]})
    assert subject.query(NAME).is_nodata
    upstream.script = gives("192.0.2.7", "192.0.2.8")
    assert subject.query(NAME).addresses == ["192.0.2.7", "192.0.2.8"]
