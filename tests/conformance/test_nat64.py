"""An IPv6 address that leads to a listed IPv4 network through NAT64 is listed (RFC 6052)."""

import ipaddress

import pytest

from . import wire
from .harness import Subject
from .upstreams import StubUpstream


@pytest.mark.parametrize(
    ("prefix", "address"),
    [
        (None, "64:ff9b::203.0.113.9"),
        ("2001:db8::/32", "2001:db8:cb00:7109::"),
        ("2001:db8:100::/40", "2001:db8:1cb:71:9::"),
        ("2001:db8:122::/48", "2001:db8:122:cb00:71:900::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3cb:0:7109::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:cb:71:900:0"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::203.0.113.9"),
        ("64:ff9b:1:fffe::/96", "64:ff9b:1:fffe::203.0.113.9"),
    ],
)
def test_a_nat64_address_of_a_listed_ipv4_network_is_listed(
    subject: Subject, upstream: StubUpstream, prefix: str | None, address: str
):
    """RFC 6052 sections 2.2 and 2.4: for clients that have IPv6 alone it is the same host."""
    hint = b"\0\1\0" + b"\0\6\0\x10" + ipaddress.ip_address(address).packed
    said = {
        "AAAA": lambda asked: asked.response([wire.address_record(asked.name, address)]),
        "HTTPS": lambda asked: asked.response([wire.record(asked.name, "HTTPS", hint)]),
        "MX": lambda asked: asked.response(
            [wire.record(asked.name, "MX", b"\0\x0a" + wire.name_to_wire("mail.example"))],
            additional=[wire.address_record("mail.example", address)],
        ),
    }
    upstream.script = lambda asked: said[next(name for name in said if wire.QTYPES[name] == asked.qtype)](
        asked
    )
    zones = [{"name": "badnets", "addresses": "badnets.txt", "answer": "nodata"}]
    settings = {"zones": zones, "lists": {"badnets.txt": ["203.0.113.0/28"]}, "upstreams": [upstream.address]}
    prefixes = {} if prefix is None else {"nat64_prefixes": [prefix]}
    subject.start(**settings, **prefixes)
    assert subject.query("www.example", "AAAA").is_nodata
    assert subject.query("www.example", "HTTPS").is_nodata
    assert subject.query("www.example", "MX").additional == ()
    said_why = subject.cli("why", address)
    assert "203.0.113.0/28" in str(said_why), said_why
    digest = subject.status()["digest"]
    if prefix is not None:
        subject.configure(**settings)
        subject.reload()
        assert subject.query("www.example", "AAAA").addresses == [str(ipaddress.ip_address(address))]
        assert subject.status()["digest"] != digest, "another policy"


@pytest.mark.parametrize(
    "address", ["64:ff9b::203.0.113.99", "64:ff9b:1::203.0.113.9", "2001:db8::203.0.113.9"]
)
def test_other_addresses_do_not_match_as_nat64(subject: Subject, upstream: StubUpstream, address: str):
    """RFC 6052 section 2.2: other prefixes, or other bits behind them, are other hosts."""
    upstream.script = lambda asked: asked.response([wire.address_record(asked.name, address)])
    zones = [{"name": "badnets", "addresses": "badnets.txt", "answer": "nodata"}]
    subject.start(zones=zones, lists={"badnets.txt": ["203.0.113.0/28"]}, upstreams=[upstream.address])
    assert subject.query("www.example", "AAAA").addresses == [str(ipaddress.ip_address(address))]
