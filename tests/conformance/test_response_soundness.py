"""An upstream's response is well-formed and has one chain, or it is not used."""

import struct
from collections.abc import Callable

import pytest

from . import wire
from .caching import CACHE
from .harness import ORDERS_ZONE, PROFILES, Subject, is_sinkholed
from .orders import block, unblock
from .upstreams import Asked, MakeUpstream, StubUpstream, decent

BLOCKED = "blocked.example"
SECRET = "198.51.100.66"  # the true address of the blocked name
GOOD = "198.51.100.7"  # what `decent` says
LANDING = {"landing": {"action": "cname", "target": "landing.example"}}


def name(text: str) -> bytes:
    return wire.name_to_wire(text)


def cname(owner: str, target: str) -> bytes:
    return wire.record(owner, "CNAME", name(target))


def dname(owner: str, target: str) -> bytes:
    return wire.record(owner, 39, name(target))


def start(subject: Subject, *upstreams: StubUpstream, **config: object) -> None:
    settings = {"orders": [block("B-1", [BLOCKED])], "cache": CACHE, "answers": PROFILES} | config
    subject.start(upstreams=[upstream.address for upstream in upstreams], **settings)


# ------- One way ----------------------------------------------------------------

LEAK = wire.address_record(BLOCKED, SECRET)
TWO_WAYS = {
    "a DNAME beside a CNAME that it does not make": [
        dname("example", "a.test"), cname("www.example", BLOCKED),
    ],
    "a DNAME beside a CNAME of another owner": [dname("example", "a.test"), cname("x.example", BLOCKED)],
    "two DNAMEs of one owner": [dname("example", "a.test"), dname("example", "blocked.example")],
    "DNAMEs at two levels": [
        dname("example", "a.test"), dname("w.example", BLOCKED), cname("www.example", "www.a.test"),
    ],
    "a loop with a second way out": [
        cname("www.example", "a.test"), cname("a.test", "www.example"), cname("a.test", BLOCKED),
    ],
    "a loop by DNAMEs with a second way out": [
        dname("example", "test"), dname("test", "example"), cname("www.test", BLOCKED),
    ],
    "two CNAMEs of one name": [cname("www.example", "a.test"), cname("www.example", BLOCKED)],
    "a chain of 65 steps": [
        cname("www.example" if n == 0 else f"n{n}.test", f"n{n + 1}.test") for n in range(65)
    ],
}  # fmt: skip


@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
@pytest.mark.parametrize("what", TWO_WAYS)
def test_a_response_with_two_chains_is_unusable(
    subject: Subject, make_upstream: MakeUpstream, what: str, turned: bool
):
    """RFC 6672 sections 2.4 and 3.1, RFC 2181 section 10.1: another upstream is asked, then SERVFAIL."""
    records = [*TWO_WAYS[what], LEAK]

    def script(asked: Asked) -> bytes:
        return asked.response(reversed(records) if turned else records)

    first, second = make_upstream(script), make_upstream(decent)
    start(subject, first, second)
    assert subject.query("www.example").addresses == [GOOD]
    assert (first.count("www.example"), second.count("www.example")) == (1, 1)
    second.script = script
    reply = subject.query("www.example", "AAAA", edns=True)
    assert reply.rcode == "SERVFAIL"
    assert 0 in reply.extended_errors
    assert name(BLOCKED) not in reply.raw


ONE_WAY = {
    "the CNAME that the DNAME makes": [dname("example", "a.test"), cname("www.example", "www.a.test")],
    "the same CNAME twice": [cname("www.example", "www.a.test"), cname("www.example", "www.a.test")],
    "the same in another case": [cname("www.example", "www.a.test"), cname("WWW.example", "WWW.A.test")],
    "the same DNAME twice": [dname("example", "a.test"), dname("example", "a.test")],
    "64 steps": [
        cname("www.example" if n == 0 else f"n{n}.test", f"n{n + 1}.test" if n < 63 else "www.a.test")
        for n in range(64)
    ],
}


@pytest.mark.parametrize("what", ONE_WAY)
def test_a_response_with_one_chain_is_passed_on(subject: Subject, upstream: StubUpstream, what: str):
    """RFC 2181 section 5: the same record twice is one (PowerDNS Recursor 4.8 sends it)."""
    records = [*ONE_WAY[what], wire.address_record("www.a.test", GOOD)]
    upstream.script = lambda asked: asked.response(records)
    start(subject, upstream)
    for _ in range(2):
        reply = subject.query("www.example", transport="tcp")
        assert (reply.addresses, len(reply.answer)) == ([GOOD], len(records))
    assert upstream.count("www.example") == 1
    subject.put_order(block("B-2", ["a.test"]))
    subject.reload()
    assert is_sinkholed(subject.query("www.example"))


@pytest.mark.parametrize("targets", [16, 17, 200])
def test_every_target_of_an_https_rrset_is_checked(subject: Subject, upstream: StubUpstream, targets: int):
    """RFC 9460 section 2.4.1 sets no limit."""

    def script(asked: Asked) -> bytes:
        if asked.transport == "udp":
            return asked.response(flags=wire.RA | wire.TC)
        owner = b"\xc0\x0c"
        names = [f"n{n}.test" for n in range(targets)]
        records = [
            wire.record(owner, "HTTPS", struct.pack("!H", n + 1) + name(names[n])) for n in range(targets)
        ]
        return asked.response(records, additional=[wire.address_record(one, GOOD) for one in names])

    upstream.script = script
    start(subject, upstream)
    reply = subject.query("www.example", "HTTPS", transport="tcp")
    assert (len(reply.answer), len(reply.additional)) == (targets, targets)
    subject.put_order(block("B-2", [f"n{targets - 1}.test"]))
    subject.reload()
    assert subject.query("www.example", "HTTPS", transport="tcp").is_nodata


# ------- Well-formed as a whole -----------------------------------------------------

OVERLONG = b"".join(b"\x3f" + b"a" * 63 for _ in range(4)) + b"\0"
BAD_NAMES = {
    "into a label": b"\xc0\x0d",
    "to bytes that parse as a name": "question's type",
    "to the header": b"\xc0\x00",
    "forward": b"\xc0\x7f",
    "to itself": "itself",
    "past the end": b"\xff\xff",
    "over 255 bytes": OVERLONG,
    "over 255 bytes by a pointer": OVERLONG[: 3 * 64] + b"\x3f" + b"a" * 63 + b"\xc0\x0c",
    "a label type that is none": b"\x41a\0",
}
# Types with names in their data, and what stands before the name.
NAMED_DATA = {
    "CNAME": b"", "NS": b"", "PTR": b"", 39: b"", "MX": b"\0\x0a", "SRV": b"\0\0\0\0\0\x50",
    35: b"\0\1\0\1\1s\0\0", "SOA": b"", "HTTPS": b"\0\1", "NSEC": b"", "RRSIG": b"\0\1" + b"\0" * 16,
}  # fmt: skip
SECTIONS = ["answer", "authority", "additional"]


def bad_name(bad: str, pointers: dict[str, int]) -> bytes:
    packet = BAD_NAMES[bad]
    return struct.pack("!H", 0xC000 | pointers[packet]) if isinstance(packet, str) else packet


def odd(kind: str, section: str, bad: str) -> Callable[[Asked], bytes]:
    """A response that is fine but for one name; `kind` is where that is: an owner's type, or data."""

    def script(asked: Asked) -> bytes:
        good = wire.address_record(b"\xc0\x0c", SECRET)
        # Where the record begins: behind the question, and the record of the answer section.
        question_end = 12 + len(asked.message.question)
        begins = question_end + len(good)
        pointers = {"question's type": question_end - 4, "itself": begins}
        if kind.startswith("owner "):
            rtype = kind.removeprefix("owner ")
            data = {"A": b"\xc6\x33\x64\x07", "TXT": b"\4text"}.get(rtype, b"data")
            record = wire.record(bad_name(bad, pointers), rtype, data)
        else:
            rtype = int(kind) if kind.isdigit() else kind
            before = NAMED_DATA[rtype]
            pointers["itself"] = begins + 3 + 10 + len(before)
            behind = name("b.example") + struct.pack("!5I", *[60] * 5) if rtype == "SOA" else b""
            record = wire.record("x", rtype, before + bad_name(bad, pointers) + behind)
        sections = {"answer": [good]}
        sections[section] = [*sections.get(section, []), record]
        return asked.response(**sections)

    return script


KINDS = ["owner A", "owner TXT", "owner TYPE65280", *(str(kind) for kind in NAMED_DATA)]
CASES = [(kind, section, bad) for kind in KINDS for section in SECTIONS for bad in BAD_NAMES]
# Records that are truncated, too long, or have more or fewer fields than their type.
BAD_DATA = {
    "an address of 3 bytes": wire.record("x", "A", b"\1\2\3"),
    "an address of 5 bytes": wire.record("x", "A", b"\1\2\3\4\5"),
    "an IPv6 address of 4 bytes": wire.record("x", "AAAA", b"\1\2\3\4"),
    "a CNAME of nothing": wire.record("x", "CNAME", b""),
    "a CNAME with a rest": wire.record("x", "CNAME", name("a.example") + b"x"),
    "an MX without a name": wire.record("x", "MX", b"\0\x0a"),
    "an SOA without its numbers": wire.record("x", "SOA", name("a") + name("b")),
    "a name that runs out of its data": wire.record("x", "NS", b"\5abc")[:-4] + b"\5abc",
    "a truncated record": wire.record("x", "TXT", b"\4text")[:-2],
}


def test_nothing_of_a_malformed_response_is_relayed_or_cached(subject: Subject, upstream: StubUpstream):
    """RFC 1035 section 4.1.4: in any section and type. BIND and Unbound let none of these through."""
    scripts = {f"c{place}.www.example": odd(*case) for place, case in enumerate(CASES)}
    for place, (section, (_, record)) in enumerate((s, b) for s in SECTIONS for b in BAD_DATA.items()):

        def malformed(asked: Asked, section: str = section, record: bytes = record) -> bytes:
            sections = {"answer": [wire.address_record(b"\xc0\x0c", SECRET)]}
            sections[section] = [*sections.get(section, []), record]
            return asked.response(**sections)

        scripts[f"d{place}.www.example"] = malformed
    upstream.script = lambda asked: scripts[asked.name](asked)
    start(subject, upstream, orders=[])
    for place, queried in enumerate(scripts):
        transport = "tcp" if place % 8 == 0 else "udp"
        reply = subject.query(queried, transport=transport)
        assert (reply.rcode, reply.answer) == ("SERVFAIL", ()), CASES[place : place + 1] or queried
        assert reply.authority == reply.additional == ()
    assert subject.metrics().total("dnsblock_cache_entries") == 0
    upstream.script = decent
    assert subject.query("fine.www.example").addresses == [GOOD]


def test_a_malformed_response_is_retried_on_another_upstream(subject: Subject, make_upstream: MakeUpstream):
    """A broken resolver costs no answer while another works."""
    bad = make_upstream(odd("owner TXT", "additional", "past the end"))
    start(subject, bad, make_upstream(decent))
    assert subject.query("www.example").addresses == [GOOD]


def test_names_that_are_compressed_as_allowed_are_passed_on(subject: Subject, upstream: StubUpstream):
    """To a name, to the end of one, to a pointer, and to one in other data (RFC 1035 4.1.4)."""

    def script(asked: Asked) -> bytes:
        mx = wire.record(b"\xc0\x0c", "MX", b"\0\x0a\4mail\xc0\x10")
        data = 12 + len(asked.message.question) + 12 + 2
        owners = [
            bytes([0xC0, data]),
            bytes([0xC0, data + 5]),
            bytes([0xC0, 0x18]),
            b"\1x" + bytes([0xC0, data]),
        ]
        return asked.response([mx], [wire.record(owner, "TXT", b"\4text") for owner in owners])

    upstream.script = script
    start(subject, upstream)
    reply = subject.query("www.example", "MX")
    owners = [record.owner for record in reply.authority]
    assert owners == ["mail.example.", "example.", ".", "x.mail.example."]


# ------- TTLs -------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [CACHE, {"size_mb": 0}], ids=["cached", "without a cache"])
@pytest.mark.parametrize("ttl", [86_401, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_the_first_client_gets_no_longer_ttl_than_the_second(
    subject: Subject, upstream: StubUpstream, ttl: int, cache: dict
):
    """`cache.max_ttl`; RFC 2181 section 8, as RFC 8767 section 4 has it: the highest bit means long."""
    sections = [
        [wire.record(owner, "TXT", b"\4text", ttl=ttl)] for owner in (b"\xc0\x0c", "a.test", "b.test")
    ]
    upstream.script = lambda asked: asked.response(*sections)
    start(subject, upstream, cache=cache)
    for transport in ("tcp", "udp"):
        reply = subject.query("www.example", "TXT", transport=transport)
        ttls = [record.ttl for record in (*reply.answer, *reply.authority, *reply.additional)]
        assert len(ttls) == 3
        assert all(86_300 < one <= 86_400 for one in ttls), ttls
    subject.configure(cache=cache | {"max_ttl": 60}, upstreams=[upstream.address])
    subject.reload()
    assert subject.query("other.example", "TXT").ttls == {60}


@pytest.mark.parametrize(
    ("ttl", "minimum", "expected"), [(60, 3, 3), (3, 60, 3), (90_000, 90_000, 3600), (0xFFFFFFFF, 40, 40)]
)
def test_the_first_denial_lives_as_its_soa_says(
    subject: Subject, upstream: StubUpstream, ttl: int, minimum: int, expected: int
):
    """RFC 2308 sections 3 and 5: the lesser of the SOA's TTL and MINIMUM, within `cache.max_negative_ttl`."""
    soa = name("a.example") + name("b.example") + struct.pack("!5I", 7, 60, 60, 60, minimum)
    authority = [wire.record("example", "SOA", soa, ttl=ttl)]
    rcodes = {"www.example": 0, "none.example": 3}
    upstream.script = lambda asked: asked.response(authority=authority, rcode=rcodes[asked.name])
    start(subject, upstream)
    assert [subject.query(queried).soa.ttl for queried in rcodes] == [expected, expected]
    upstream.script = lambda asked: asked.response(
        [wire.record(b"\xc0\x0c", "TXT", b"\4text", ttl=9)], authority
    )
    reply = subject.query("www.example", "TXT")
    assert reply.soa.ttl == min(ttl, 86_400), "of a response with data it is no denial"


# ------- A CNAME of ours in place of a response ---------------------------------------


def landing_script(asked: Asked) -> bytes:
    if asked.name == "alias.example":
        return asked.response([cname("alias.example", BLOCKED), LEAK])
    if asked.name == "address.example":
        return asked.response([wire.address_record(asked.name, "203.0.113.9")])
    if asked.qtype == wire.QTYPES["TXT"]:
        return asked.response([cname(asked.name, "page.test"), wire.record("page.test", "TXT", b"\4text")])
    return decent(asked)


ZONES = [
    {**ORDERS_ZONE, "answer": "landing"},
    {"name": "badnets", "addresses": "badnets.txt", "answer": "landing"},
]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("cache", [CACHE, {"size_mb": 0}], ids=["cached", "without a cache"])
@pytest.mark.parametrize("queried", ["alias.example", "address.example", BLOCKED])
def test_a_cname_block_includes_the_records_of_its_target(
    subject: Subject, upstream: StubUpstream, queried: str, transport: str, cache: dict
):
    """RFC 1034 sections 3.6.2 and 4.3.2: without them a stub resolver finds no address."""
    upstream.script = landing_script
    lists = {"badnets.txt": ["203.0.113.0/24"]}
    start(subject, upstream, zones=ZONES, lists=lists, answers=PROFILES | LANDING, cache=cache)
    for _ in range(2):
        reply = subject.query(queried, edns=True, transport=transport)
        answer = [(record.owner.rstrip("."), record.rtype) for record in reply.answer]
        assert answer == [(queried, 5), ("landing.example", 1)]
        assert reply.addresses == [GOOD]
        assert 4 in reply.extended_errors, "Forged Answer"
    metrics = subject.metrics()
    assert metrics.total("dnsblock_blocked_total", action="cname") == 2
    assert subject.query("alias.example", "CNAME").target == "landing.example."


def test_a_cname_block_is_returned_alone_if_its_target_cannot_be_resolved(
    subject: Subject, upstream: StubUpstream
):
    """A name is blocked whether an upstream lives or not."""
    upstream.script = lambda asked: landing_script(asked) if asked.name == "alias.example" else None
    lists = {"badnets.txt": ["203.0.113.0/24"]}
    quick = {"timeout_ms": 1000, "tries": 1}
    start(subject, upstream, zones=ZONES, lists=lists, answers=PROFILES | LANDING, upstream=quick)
    reply = subject.query("alias.example")
    assert [record.rtype for record in reply.answer] == [5]
    assert reply.target == "landing.example."


def test_a_policy_change_during_a_target_lookup_applies(subject: Subject, upstream: StubUpstream):
    """The client gets what the policy says when the answer is given: here that nothing is blocked."""
    held: list[Asked] = []

    def script(asked: Asked) -> bytes | None:
        if asked.name == "landing.example":
            held.append(asked)
            return None
        return asked.response([cname("alias.example", BLOCKED), LEAK])

    upstream.script = script
    slow = {"timeout_ms": 60_000}
    lists = {"badnets.txt": ["203.0.113.0/24"]}
    start(subject, upstream, zones=ZONES, lists=lists, answers=PROFILES | LANDING, upstream=slow)
    with subject.udp() as sock:
        sock.settimeout(45)
        sock.send(wire.query("alias.example"))
        upstream.wait_for_query("landing.example", 45)
        subject.put_order(unblock("U-1", "B-1"))
        subject.reload()
        held[0].reply(held[0].address())
        assert wire.read(sock.recv(4096)).addresses == [SECRET]
