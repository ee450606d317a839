"""Special-use names are answered locally: RFC 6761, 6762, 7686, 6303, 9462, 9606."""

import pytest

from . import wire
from .asking import is_forwarded, is_sinkholed
from .harness import PROFILES, Subject
from .upstreams import StubUpstream

RESINFO = 261


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    """A policy zone comes before the special names; nothing else is configured."""
    zones = [
        {"name": "own", "list": "own.txt", "match": "subtree", "answer": "passthru"},
        {"name": "malware", "list": "malware.txt", "match": "subtree", "answer": "sinkhole"},
    ]
    lists = {"own.txt": ["printer.local"], "malware.txt": ["evil.test", "worm.localhost"]}
    shared_subject.start(
        zones=zones, lists=lists, answers=PROFILES, upstreams=[shared_upstream.address], inbox=None
    )
    return shared_subject


def is_nxdomain(reply: wire.Reply) -> bool:
    return (reply.rcode, reply.answer) == ("NXDOMAIN", ()) and reply.soa is not None


# ------- Special names ----------------------------------------------------------------


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("name", ["localhost", "LocalHost", "a.b.localhost"])
def test_localhost_has_the_addresses_of_loopback(
    running: Subject, seen: StubUpstream, name: str, transport: str
):
    """RFC 6761 section 6.3: the loopback addresses, for all below it too."""
    assert running.query(name, transport=transport).addresses == ["127.0.0.1"]
    assert running.query(name, "AAAA", transport=transport).addresses == ["::1"]
    for qtype in ("TXT", "HTTPS", "MX", "DS"):
        assert running.query(name, qtype, transport=transport).is_nodata
    assert seen.queries == []


@pytest.mark.parametrize("top", ["invalid", "test", "onion", "local"])
def test_a_special_top_level_domain_does_not_exist(running: Subject, seen: StubUpstream, top: str):
    """RFC 6761 sections 6.2 and 6.4, RFC 7686 section 2, RFC 6762 section 22.1: NXDOMAIN, cacheable."""
    for name in (top, f"www.{top}", f"a.b.{top.upper()}"):
        for qtype in ("A", "AAAA", "HTTPS", "TXT"):
            assert is_nxdomain(running.query(name, qtype))
    assert seen.queries == []


@pytest.mark.parametrize("name", ["6tisch.arpa", "eap.arpa", "eap-noob.arpa", "default.service.arpa"])
def test_a_special_name_below_arpa_does_not_exist(running: Subject, seen: StubUpstream, name: str):
    """RFC 9031 section 11, RFC 9140 section 5.6, RFC 9965, RFC 9665 section 3.1.2."""
    for asked in (name, f"www.{name}"):
        assert is_nxdomain(running.query(asked))
    assert seen.queries == []


@pytest.mark.parametrize("zone", ["home.arpa", "service.arpa", "empty.as112.arpa"])
def test_a_zone_of_home_networks_is_empty(running: Subject, seen: StubUpstream, zone: str):
    """RFC 8375 section 4, RFC 9665 section 8.4, RFC 7535 section 3.3: never forwarded."""
    for qtype in ("A", "SOA", "NS", "TXT"):
        assert running.query(zone, qtype).soa is not None
        assert is_nxdomain(running.query(f"printer.{zone.upper()}", qtype))
    assert is_nxdomain(running.query(f"printer.{zone}", "DS"))
    assert seen.queries == []


@pytest.mark.parametrize("zone", ["home.arpa", "service.arpa", "10.in-addr.arpa"])
def test_ds_queries_of_a_locally_served_zone_are_forwarded(running: Subject, seen: StubUpstream, zone: str):
    """RFC 4035 section 3.1.4.1, as BIND and Unbound: a validating client needs the parent's proof."""
    running.query(zone, "DS")
    assert [(asked.name, asked.qtype) for asked in seen.queries] == [(zone, wire.QTYPES["DS"])]


@pytest.mark.parametrize(
    "name", ["x.alt", "www.example", "ipv4only.arpa", "170.0.0.192.in-addr.arpa", "as112.arpa", "arpa"]
)
def test_special_names_without_special_handling_are_forwarded(running: Subject, name: str):
    """RFC 9476 section 3.2, RFC 6761 section 6.5, RFC 8880 sections 7.1 and 7.2."""
    assert is_forwarded(running.query(name))


@pytest.mark.parametrize(
    "name", ["nolocalhost", "localhost.example", "xtest", "latest", "test.example", "onion.example"]
)
def test_a_name_that_only_looks_special_is_forwarded(running: Subject, name: str):
    """RFC 6761 section 3: the name and what is below it, label by label."""
    assert is_forwarded(running.query(name))


def test_special_names_have_the_header_of_local_responses(running: Subject):
    """Trap 6, RFC 1035 section 4.1.1."""
    for name in ("localhost", "a.invalid", "resolver.arpa", "1.0.0.10.in-addr.arpa"):
        reply = running.query(name, flags=wire.RD | wire.CD, edns=wire.opt(do=True))
        assert reply.flags & 0xFFF0 == wire.QR | wire.RD | wire.RA | wire.CD
        assert reply.opt.ttl == wire.DO


def test_a_policy_zone_comes_before_special_names(running: Subject, seen: StubUpstream):
    """RFC 6761 section 5, question 4: the operator may have other plans; passthru is a match too."""
    assert is_sinkholed(running.query("evil.test"))
    assert is_sinkholed(running.query("worm.localhost"))
    assert is_forwarded(running.query("printer.local"))
    assert is_nxdomain(running.query("other.local"))
    assert [asked.name for asked in seen.queries] == ["printer.local"]


def test_special_names_may_be_forwarded(subject: Subject, upstream: StubUpstream):
    """RFC 6762 section 22.1 for one: an operator may have a `local` zone at the resolver behind."""
    subject.start(upstreams=[upstream.address], local={"special_names": "forward"})
    for name in ("localhost", "a.test", "a.local", "a.onion", "a.home.arpa", "eap.arpa"):
        assert is_forwarded(subject.query(name))
    assert is_nxdomain(subject.query("1.0.0.10.in-addr.arpa", "PTR"))


# ------- Reverse zones -----------------------------------------------------------------

REVERSE4 = [
    *("10.in-addr.arpa", "16.172.in-addr.arpa", "24.172.in-addr.arpa", "31.172.in-addr.arpa"),
    *("168.192.in-addr.arpa", "254.169.in-addr.arpa", "127.in-addr.arpa", "0.in-addr.arpa"),
    *("255.255.255.255.in-addr.arpa", "2.0.192.in-addr.arpa", "100.51.198.in-addr.arpa"),
    *("113.0.203.in-addr.arpa", "64.100.in-addr.arpa", "99.100.in-addr.arpa", "127.100.in-addr.arpa"),
]
ZERO = "0." * 31
REVERSE6 = [
    f"0.{ZERO}ip6.arpa",
    f"1.{ZERO}ip6.arpa",
    *("d.f.ip6.arpa", "8.e.f.ip6.arpa", "9.e.f.ip6.arpa", "a.e.f.ip6.arpa", "b.e.f.ip6.arpa"),
    "8.b.d.0.1.0.0.2.ip6.arpa",
]


@pytest.mark.parametrize("zone", REVERSE4 + REVERSE6)
def test_a_private_reverse_zone_is_empty(running: Subject, seen: StubUpstream, zone: str):
    """RFC 6303 sections 3 and 4, RFC 7793 section 3: the apex exists, nothing below does."""
    assert running.query(zone, "PTR").is_nodata
    assert is_nxdomain(running.query(f"1.{zone}", "PTR"))
    assert is_nxdomain(running.query(f"1.2.{zone.upper()}", "PTR"))
    assert seen.queries == []


@pytest.mark.parametrize(
    "name",
    [
        *(
            "1.0.0.9.in-addr.arpa",
            "1.0.15.172.in-addr.arpa",
            "1.0.32.172.in-addr.arpa",
            "1.0.63.100.in-addr.arpa",
        ),
        *("1.0.128.100.in-addr.arpa", "1.0.167.192.in-addr.arpa", "172.in-addr.arpa", "in-addr.arpa"),
        *("1.c.e.f.ip6.arpa", "1.7.b.d.0.1.0.0.2.ip6.arpa", "0.10.in-addr.arpa.example"),
    ],
)
def test_a_public_reverse_zone_is_forwarded(running: Subject, seen: StubUpstream, name: str):
    """RFC 6303 section 4: no more than the private ones."""
    running.query(name, "PTR")
    assert [asked.name for asked in seen.queries] == [name]


def test_private_reverse_zones_may_be_forwarded(subject: Subject, upstream: StubUpstream):
    """RFC 6303 section 3: a network that uses them has a resolver that serves them."""
    subject.start(upstreams=[upstream.address], local={"private_reverse": "forward"})
    subject.query("1.0.0.10.in-addr.arpa", "PTR")
    assert [asked.name for asked in upstream.queries] == ["1.0.0.10.in-addr.arpa"]
    assert is_nxdomain(subject.query("a.invalid"))


# ------- resolver.arpa ------------------------------------------------------------------


@pytest.mark.parametrize("qtype", ["A", "AAAA", "SVCB", "HTTPS", "TXT", "SOA", "DS", RESINFO])
@pytest.mark.parametrize("name", ["resolver.arpa", "_dns.resolver.arpa", "a._dns.RESOLVER.arpa"])
def test_resolver_arpa_is_never_forwarded(running: Subject, seen: StubUpstream, name: str, qtype: str | int):
    """RFC 9462 section 6.4: the upstream would name itself, and clients would go there around the policy."""
    assert running.query(name, qtype).is_nodata
    assert seen.queries == []


def test_resolver_arpa_is_not_forwarded_with_the_other_special_names(
    subject: Subject, upstream: StubUpstream
):
    """RFC 9462 section 6.4: it has no other answer than ours."""
    subject.start(
        upstreams=[upstream.address], local={"special_names": "forward", "private_reverse": "forward"}
    )
    assert subject.query("_dns.resolver.arpa", "SVCB").is_nodata
    assert upstream.queries == []


def test_resinfo_describes_the_resolver(subject: Subject, upstream: StubUpstream):
    """RFC 9606 sections 4 and 5: keys of RESINFO, as character-strings like those of TXT."""
    resinfo = {"infourl": "https://isp.example/dns", "qnamemin": True}
    subject.start(upstreams=[upstream.address], local={"resinfo": resinfo})
    (record,) = subject.query("resolver.arpa", RESINFO).answer
    assert (record.owner, record.rtype, record.rclass) == ("resolver.arpa.", RESINFO, 1)
    keys = strings(record.rdata)
    assert "qnamemin" in keys
    assert "infourl=https://isp.example/dns" in keys
    (errors,) = [key for key in keys if key.startswith("exterr=")]
    assert {4, 15, 16, 17, 18} <= numbers(errors.removeprefix("exterr="))
    assert len(keys) == 3
    assert subject.query("resolver.arpa", "TXT").is_nodata
    assert subject.query("_dns.resolver.arpa", RESINFO).is_nodata
    assert upstream.queries == []


def strings(rdata: bytes) -> list[str]:
    found = []
    while rdata:
        found.append(rdata[1 : 1 + rdata[0]].decode("ascii"))
        rdata = rdata[1 + rdata[0] :]
    return found


def numbers(ranges: str) -> set[int]:
    """RFC 9606 section 5: `4,15-18`."""
    found: set[int] = set()
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


# ------- The canary -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("canary", "is_forwarded_there"), [(None, True), ("forward", True), ("nxdomain", False)]
)
def test_the_canary_domain_is_nxdomain_if_so_configured(
    subject: Subject, upstream: StubUpstream, canary: str | None, is_forwarded_there: bool
):
    """draft-grover-add-policy-detection-00: use-application-dns.net keeps Firefox from going around us."""
    local = {} if canary is None else {"local": {"canary": canary}}
    subject.start(upstreams=[upstream.address], **local)
    for qtype in ("A", "AAAA"):
        reply = subject.query("use-application-dns.net", qtype)
        assert (reply.rcode == "NOERROR") is is_forwarded_there
        assert is_forwarded_there or is_nxdomain(reply)
    assert bool(upstream.queries) is is_forwarded_there
