"""Upstream responses are cached whole and adapted to each client's query (trap 16)."""

import struct
import time
from contextlib import suppress

import pytest

from . import wire
from .caching import (
    NAME,
    all_ttls,
    assert_cached,
    assert_not_cached,
    cname,
    gives,
    number_of,
    numbered,
    numbered_record,
    records,
    says,
    soa,
    start,
    unusable,
)
from .harness import Subject, is_forwarded
from .tools import wait_for
from .upstreams import Asked, StubUpstream, decent


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    start(shared_subject, shared_upstream)
    return shared_subject


# Each test has a name of its own: what one of them leaves behind is not asked for by the next.


# ------- Once is enough --------------------------------------------------------------------


def test_a_cached_response_is_not_queried_again(running: Subject, seen: StubUpstream):
    """RFC 1034 section 5.3.3, step 1: see if the answer is in local information, and if so return it."""
    name = "once.example"
    seen.script = numbered()
    for transport in ("udp", "tcp"):
        for family in (4, 6):
            for _ in range(3):
                assert number_of(running.query(name, transport=transport, family=family)) == 1
    assert seen.count(name) == 1


def test_the_cache_is_shared_by_all_worker_threads(running: Subject, seen: StubUpstream):
    """Trap 16: a socket is one flow and stays with one thread; many sockets come to all threads."""
    name = "threads.example"
    seen.script = numbered()
    assert {number_of(running.query(name)) for _ in range(64)} == {1}
    assert seen.count(name) == 1


@pytest.mark.parametrize("qtype", ["A", "AAAA", "TXT", "TYPE65280"])
def test_responses_of_any_type_are_cached(running: Subject, seen: StubUpstream, qtype: str):
    """RFC 3597 section 3: an unknown type is cached like a known one."""
    seen.script = numbered()
    assert_cached(running, seen, f"{qtype}.types.example", qtype)


def test_all_sections_of_a_response_are_cached(running: Subject, seen: StubUpstream):
    """RFC 2181 section 9: whole RRsets or none; RFC 3597 section 4: bytes like a pointer stay."""
    name = "whole.example"
    seen.script = says(
        [
            cname(b"\xc0\x0c", "edge.example"),
            wire.address_record("edge.example", "198.51.100.8"),
            wire.address_record("edge.example", "198.51.100.7"),
            wire.record("edge.example", "TYPE65280", bytes(range(256)) + b"\xc0\x0c\xc0\xff"),
        ],
        [wire.record("example", "NS", wire.name_to_wire("ns1.example"))],
        [wire.address_record("ns1.example", "192.0.2.1"), wire.address_record("ns1.example", "2001:db8::1")],
    )
    cached = assert_cached(running, seen, name, edns=True)
    assert [len(section) for section in records(cached)] == [4, 1, 2]


def test_a_cached_response_answers_only_its_own_question(running: Subject, seen: StubUpstream):
    """RFC 2181 section 5.4.1, RFC 5452 section 6: additional records are never used as answers."""
    victim = "victim.example"
    stray = [wire.address_record(victim, "192.0.2.66")]
    seen.script = lambda asked: (
        asked.address()
        if asked.name == victim
        else asked.response([numbered_record(asked, 1, ttl=300)], stray, stray)
    )
    running.query("attacker.example")
    assert is_forwarded(running.query(victim))
    assert seen.count(victim) == 1


def test_a_spoofed_response_is_not_cached(running: Subject, seen: StubUpstream):
    """Trap 10: what does not match the query is no answer, so nothing of it is used later either."""
    name = "forged.example"

    def forge(asked: Asked) -> list[bytes]:
        wrong_id = asked.address("192.0.2.66", qid=asked.message.qid ^ 1)
        return [wrong_id, asked.address("192.0.2.66", question=wire.question("x.example")), asked.address()]

    seen.script = forge
    assert is_forwarded(assert_cached(running, seen, name))


# ------- Separate answers for separate questions --------------------------------------------

DO = wire.opt(do=True)
QUESTIONS = {
    "A": {},
    "AAAA": {"qtype": "AAAA"},
    "TXT": {"qtype": "TXT"},
    "DO": {"edns": DO},
    "CD": {"flags": wire.RD | wire.CD},
    "not RD": {"flags": 0},
    "DO, CD": {"edns": DO, "flags": wire.RD | wire.CD},
    "DE": {"edns": wire.opt(flags=wire.DE)},
    "CO": {"edns": wire.opt(flags=wire.CO)},
    "DO, CO, DE": {"edns": wire.opt(do=True, flags=wire.CO | wire.DE)},
    "DO, CD, not RD": {"edns": DO, "flags": wire.CD},
    "name": {"name": "a.separate.example"},
    "parent": {"name": "example"},
}


def test_questions_with_different_flags_have_cache_entries_of_their_own(running: Subject, seen: StubUpstream):
    """RFC 4035 sections 3.2.1 (DO) and 4.7 (CD), RFC 1034 section 4.3.1 (RD), RFC 9824 section 5.1 (CO),
    draft-ietf-dnsop-delext (DE)."""
    seen.script = numbered()
    first, again = (
        {
            label: number_of(running.query(**{"name": "separate.example"} | asks))
            for label, asks in QUESTIONS.items()
        }
        for _ in range(2)
    )
    assert sorted(first.values()) == list(range(1, len(QUESTIONS) + 1)), "each was asked for"
    assert again == first, "each is kept"


def test_a_cached_response_is_not_used_for_a_query_with_other_flags(running: Subject, seen: StubUpstream):
    """RFC 4035 section 3.2.2: what failed to validate is for clients alone that check for themselves."""
    name = "bogus.example"
    seen.script = lambda asked: asked.address() if asked.message.flags & wire.CD else asked.response(rcode=2)
    assert is_forwarded(running.query(name, flags=wire.RD | wire.CD))
    assert running.query(name).rcode == "SERVFAIL"
    assert is_forwarded(running.query(name, flags=wire.RD | wire.CD))


@pytest.mark.parametrize(
    "options",
    [
        b"",
        wire.option(wire.COOKIE_OPTION, b"12345678"),
        wire.option(8, b"\0\x01\x18\0\xc0\0\x02"),
        wire.option(12, b"\0" * 30),
        wire.option(65001, b"x"),
    ],
    ids=["none", "cookie", "client subnet", "padding", "unknown"],
)
def test_edns_of_the_client_does_not_change_the_cache_entry(
    running: Subject, seen: StubUpstream, options: bytes
):
    """Trap 3, RFC 6891 section 6.2.6: none of it reaches the upstream, so it cannot change what that says."""
    name = f"o{len(options)}.options.example"
    seen.script = numbered()
    assert number_of(running.query(name)) == 1
    assert number_of(running.query(name, edns=wire.opt(options=options))) == 1
    assert number_of(running.query(name, edns=wire.opt(512, options=options))) == 1
    assert seen.count(name) == 1


def test_queries_in_any_case_share_a_cache_entry(running: Subject, seen: StubUpstream):
    """Trap 4, RFC 4343 section 3: and each client gets its own question back, byte for byte."""
    seen.script = numbered()
    for name in ("case.example", "CASE.EXAMPLE", "cAsE.ExAmPlE"):
        reply = running.query(name)
        assert number_of(reply) == 1
        assert [record.owner for record in reply.answer] == [f"{name}."]
    assert seen.count("case.example") == 1


def test_the_cache_compares_labels_as_bytes(running: Subject, seen: StubUpstream):
    """Trap 14, RFC 4343 section 3: only ASCII letters are folded; a dot in a label ends none."""
    labels = ([b"bin\xc4ry"], [b"bin\xe4ry"], [b"bin.ry"], [b"bin", b"ry"], [b"bin\0ry"], [b"bin ry"])
    names = [wire.labels_to_wire([*mine, b"example"]) for mine in labels]
    seen.script = numbered()
    first, again = ([number_of(running.query(name)) for name in names] for _ in range(2))
    assert first == again == list(range(1, len(names) + 1))


# ------- To each client its own ----------------------------------------------------------------


def test_a_cached_response_has_opt_if_and_only_if_the_query_has(running: Subject, seen: StubUpstream):
    """Trap 3, RFC 6891 sections 6.1.1 and 7: whatever the first client sent."""
    seen.script = gives()
    for name, first in (("first-plain.example", False), ("first-edns.example", True)):
        for edns in (first, False, True, wire.opt(512), False):
            reply = running.query(name, edns=edns)
            assert (reply.opt is not None) is bool(edns)
            assert reply.opt is None or (reply.opt.rclass, reply.opt.ttl) == (1232, 0)
            assert is_forwarded(reply)
        assert seen.count(name) == 1


def test_do_of_a_cached_response_is_that_of_the_client(running: Subject, seen: StubUpstream):
    """Trap 3, RFC 3225 section 3: whatever the upstream set."""
    for number, edns in enumerate((wire.opt(), wire.opt(do=True))):
        seen.script = lambda asked: asked.address(edns=wire.opt(do=not asked.message.opt.ttl))
        reply = assert_cached(running, seen, f"do{number}.example", edns=edns)
        assert reply.opt.ttl == (wire.DO if number else 0)


def test_a_cached_response_carries_the_cookie_of_the_client(running: Subject, seen: StubUpstream):
    """RFC 7873 section 5.2.3: it is of this hop and of this client."""
    name = "cookie.example"
    seen.script = gives()
    plain = running.query(name, edns=True)
    ours = [
        dict(running.query(name, edns=wire.opt(options=wire.option(wire.COOKIE_OPTION, client))).options)
        for client in (b"client-1", b"client-2")
    ]
    assert plain.options == []
    assert [cookies[wire.COOKIE_OPTION][:8] for cookies in ours] == [b"client-1", b"client-2"]
    assert {len(cookies[wire.COOKIE_OPTION]) for cookies in ours} == {24}
    assert running.query(name, edns=True).options == []
    assert seen.count(name) == 1


def test_edns_options_of_the_upstream_are_not_cached(running: Subject, seen: StubUpstream):
    """Trap 3, RFC 6891 section 6.1.1: cookie, keepalive, padding and NSID are of one message."""
    options = (
        wire.option(wire.COOKIE_OPTION, b"1234567812345678")
        + wire.option(11, b"\0\x64")
        + wire.option(3, b"ns1")
        + wire.option(12, b"\0" * 20)
    )
    seen.script = lambda asked: asked.address(edns=wire.opt(4096, options=options))
    assert assert_cached(running, seen, "hop.example", edns=True).options == []


def test_the_extended_error_of_the_upstream_is_cached(running: Subject, seen: StubUpstream):
    """RFC 8914 section 3: for each client with EDNS, also when the first one had none."""
    name = "extended.example"
    why = wire.option(wire.EDE_OPTION, struct.pack("!H", 10) + b"no RRSIG")
    seen.script = lambda asked: asked.address(edns=wire.opt(options=why))
    assert running.query(name).opt is None
    for _ in range(2):
        assert running.query(name, edns=True).extended_errors == {10: "no RRSIG"}
    assert running.query(name).opt is None
    assert seen.count(name) == 1


def test_a_cached_response_is_not_authoritative(running: Subject, seen: StubUpstream):
    """RFC 1034 section 4.3.1, RFC 1035 section 4.1.1: a cache has no authority."""
    seen.script = lambda asked: asked.address(flags=wire.RA | wire.AA)
    assert not assert_cached(running, seen, "authoritative.example").flags & wire.AA


@pytest.mark.parametrize("flags", [0, wire.RD, wire.RD | wire.CD, wire.CD], ids=hex)
def test_a_cached_response_copies_the_flags_of_the_query(running: Subject, seen: StubUpstream, flags: int):
    """Trap 6, RFC 1035 section 4.1.1 (RD), RFC 4035 section 3.2.2 (CD): copied; RA is the upstream's."""
    seen.script = gives()
    cached = assert_cached(running, seen, f"flags{flags}.example", flags=flags)
    assert cached.flags == wire.QR | wire.RA | flags


def test_a_cached_response_has_ad_only_for_a_client_that_asked_for_it(running: Subject, seen: StubUpstream):
    """Trap 6, RFC 6840 section 5.8: AD in the answer if DO or AD was in the query."""
    seen.script = lambda asked: asked.address(flags=wire.RA | wire.AD)
    name = "signed.example"
    for _ in range(3):
        assert not running.query(name).flags & wire.AD
        assert not running.query(name, edns=True).flags & wire.AD
        assert running.query(name, flags=wire.RD | wire.AD).flags & wire.AD
        assert running.query(name, edns=wire.opt(do=True)).flags & wire.AD
    assert seen.count(name) == 2, "one answer for clients with AD and without, one for those with DO"


def test_flags_of_opt_are_cached(running: Subject, seen: StubUpstream):
    """draft-ietf-dnsop-delext: a cached response says DE as the first one did, and not to others."""
    seen.script = lambda asked: asked.address(edns=wire.opt(flags=asked.message.opt.ttl & wire.DE))
    name = "delegated.example"
    for _ in range(3):
        assert running.query(name, edns=wire.opt(flags=wire.DE)).opt.ttl == wire.DE
        assert running.query(name, edns=True).opt.ttl == 0
        assert running.query(name).opt is None
    assert seen.count(name) == 2


def test_ad_is_not_added_to_an_unvalidated_response(running: Subject, seen: StubUpstream):
    """RFC 4035 section 3.2.3: AD is never added."""
    seen.script = gives()
    for number, asks in enumerate(({"flags": wire.RD | wire.AD}, {"edns": DO})):
        assert not assert_cached(running, seen, f"unsigned{number}.example", **asks).flags & wire.AD


# ------- Size -----------------------------------------------------------------------------------

TEXTS = [b"%03d" % number + b"x" * 197 for number in range(20)]


def texts(asked: Asked, count: int) -> bytes:
    return asked.response(
        [wire.record(b"\xc0\x0c", "TXT", bytes([len(text)]) + text) for text in TEXTS[:count]]
    )


def over_tcp_alone(asked: Asked) -> bytes:
    """More than 4000 bytes, which are truncated over UDP."""
    return asked.response(flags=wire.RA | wire.TC) if asked.transport == "udp" else texts(asked, 20)


@pytest.mark.parametrize("first", ["udp", "tcp"])
def test_a_large_response_is_cached_whole_and_truncated_for_each_client(
    running: Subject, seen: StubUpstream, first: str
):
    """Trap 5, RFC 2181 section 9: TC for the client that it does not fit, whole over TCP; fetched once."""
    name = f"{first}.large.example"
    seen.script = over_tcp_alone
    running.query(name, "TXT", transport=first)
    fetched = len(seen.queries)
    for edns in (False, True, wire.opt(512), wire.opt(4096)):
        cut = running.query(name, "TXT", edns=edns)
        assert (cut.truncated, cut.rcode, all_ttls(cut)) == (True, "NOERROR", [])
        assert (cut.opt is not None) is bool(edns)
        whole = running.query(name, "TXT", edns=edns, transport="tcp")
        assert not whole.truncated
        assert [record.rdata[1:] for record in whole.answer] == TEXTS
    assert len(seen.queries) == fetched <= 2


def test_a_cached_response_fits_the_payload_size_of_each_client(running: Subject, seen: StubUpstream):
    """Trap 5, RFC 1035 section 4.2.1, RFC 6891 section 6.2.5: 512 bytes without OPT, else its size."""
    name = "medium.example"
    seen.script = lambda asked: texts(asked, 4)  # about 900 bytes
    assert len(running.query(name, "TXT", edns=True).answer) == 4
    for edns, fits in ((False, False), (wire.opt(512), False), (wire.opt(4096), True), (True, True)):
        reply = running.query(name, "TXT", edns=edns)
        assert (reply.truncated, len(reply.answer)) == (not fits, 4 if fits else 0)
    assert len(running.query(name, "TXT", transport="tcp").answer) == 4
    assert seen.count(name) == 1


def test_the_largest_tcp_message_is_cached(running: Subject, seen: StubUpstream):
    """Trap 5, RFC 1035 section 4.2.2: 65,535 bytes, cached or not; fewer for a client without EDNS."""

    def largest(asked: Asked) -> bytes:
        if asked.transport == "udp":
            return asked.response(flags=wire.RA | wire.TC)
        head = asked.response()
        return asked.response([wire.record(b"\xc0\x0c", "TYPE65280", b"\xaa" * (65535 - len(head) - 12))])

    seen.script = largest
    for edns in (True, False, wire.opt(do=True), True):
        reply = running.query("largest.example", "TYPE65280", transport="tcp", edns=edns)
        assert len(reply.raw) == (65535 if edns else 65535 - 11)
        assert set(reply.answer[0].rdata) == {0xAA}


def test_a_truncated_response_is_not_cached(subject: Subject, make_upstream: object):
    """Trap 5, RFC 2181 section 9: a response with TC should be ignored; without TCP it is queried again."""
    name = "cut.example"
    upstream = make_upstream(lambda asked: asked.address(flags=wire.RA | wire.TC), tcp=False)
    start(subject, upstream, upstream={"tries": 1, "timeout_ms": 5000})
    assert subject.query(name).addresses == []
    upstream.script = decent
    wait_for(lambda: is_forwarded(subject.query(name)), "the whole answer")
    assert not subject.query(name).truncated


def test_a_cached_response_obeys_the_amplification_limit(subject: Subject, upstream: StubUpstream):
    """RFC 5358 section 3: for a possibly spoofed source; and complete for a padded query."""
    upstream.script = lambda asked: texts(asked, 4)
    start(subject, upstream, limits={"exempt": []})
    padding = wire.opt(options=wire.option(12, b"\0" * 100))
    assert len(subject.query(NAME, "TXT", edns=padding).answer) == 4
    for _ in range(3):
        assert subject.query(NAME, "TXT", edns=True).truncated
        assert len(subject.query(NAME, "TXT", edns=padding).answer) == 4
        assert len(subject.query(NAME, "TXT", transport="tcp").answer) == 4
    assert upstream.count(NAME) == 1


def test_the_rate_limit_applies_to_cached_responses(subject: Subject, upstream: StubUpstream):
    """RFC 5358 section 3: an answer that costs little is as good for a flood as any other."""
    rate = 20
    upstream.script = gives()
    start(subject, upstream, workers=1, limits={"exempt": [], "queries_per_second": rate, "slip": 0})
    began = time.monotonic()
    with subject.udp() as sock:
        for number in range(400):
            sock.send(wire.query(NAME, qid=number))
        with subject.tcp() as stream:
            stream.send(wire.query(NAME))
            assert is_forwarded(stream.reply()), "a TCP client has a proven address"
        wait_for(lambda: subject.metrics().total("dnsblock_queries_total") == 401, "all are counted")
        sock.settimeout(0.5)  # a response is sent at once after it is counted
        answered = 0
        with suppress(TimeoutError):
            while sock.recv(4096):
                answered += 1
    assert 1 <= answered <= 2 * rate * (1 + time.monotonic() - began)
    assert subject.metrics().total("dnsblock_queries_total", outcome="limited") >= 400 - answered


# ------- Responses that are not cached --------------------------------------------------------


@pytest.mark.parametrize("place", ["answer", "authority", "additional"])
def test_a_response_with_ttl_0_is_not_cached(running: Subject, seen: StubUpstream, place: str):
    """RFC 1035 section 3.2.1: for the transaction in progress; an answer lives as its shortest TTL does."""
    name = f"{place}.zero.example"
    sections = {
        "answer": [wire.address_record(b"\xc0\x0c", "198.51.100.7")],
        "authority": [wire.record("example", "NS", wire.name_to_wire("ns1.example"))],
        "additional": [wire.address_record("ns1.example", "192.0.2.1")],
    }
    sections[place].append(wire.address_record(b"\xc0\x0c", "198.51.100.7", ttl=0))
    seen.script = says(**sections)
    assert_not_cached(running, seen, name)


def test_a_ttl_of_0_reaches_the_client(running: Subject, seen: StubUpstream):
    """RFC 1035 section 3.2.1: a client must not cache it either."""
    seen.script = gives(ttl=0)
    assert running.query("ttl0.example").ttls == {0}


def test_an_unreadable_response_is_not_cached(running: Subject, seen: StubUpstream):
    """Trap 12: it is no answer, today or later."""
    name = "unreadable.example"
    seen.script = lambda asked: asked.response(
        [wire.record(b"\xc0\x0c", "CNAME", struct.pack("!H", 0xC000 | 12 + len(asked.message.question) + 12))]
    )
    assert running.query(name).rcode == "SERVFAIL"
    seen.script = decent
    wait_for(lambda: is_forwarded(running.query(name)), "queried again")


def test_a_response_to_any_answers_no_other_type(running: Subject, seen: StubUpstream):
    """RFC 8482 section 4.1: what ANY brings may be a part of what there is."""
    name = "any.example"
    seen.script = lambda asked: (
        asked.response([wire.record(b"\xc0\x0c", "TXT", b"\x01x")]) if asked.qtype == 255 else decent(asked)
    )
    assert len(running.query(name, "ANY", transport="tcp").answer) == 1
    assert is_forwarded(running.query(name))
    assert seen.count(name, "A") == 1


@pytest.mark.parametrize("rcode", [1, 2, 4, 5, 9], ids=lambda number: wire.RCODES[number])
def test_rcodes_other_than_noerror_and_nxdomain_are_cached_for_one_second(
    running: Subject, seen: StubUpstream, rcode: int
):
    """RFC 9520 sections 2.1 and 3.2: a failure is no answer for long, whatever its records say."""
    name = f"rcode{rcode}.example"
    seen.script = says(authority=[soa()], rcode=rcode)
    failed = running.query(name).rcode
    assert failed in ("SERVFAIL", wire.RCODES[rcode])
    seen.script = decent
    assert running.query(name).rcode in (failed, "NOERROR")
    wait_for(lambda: is_forwarded(running.query(name)), "queried again")


@pytest.mark.parametrize("rcode", [2, 5], ids=lambda number: wire.RCODES[number])
def test_a_failure_of_the_upstream_is_cached_for_one_second(
    subject: Subject, upstream: StubUpstream, rcode: int
):
    """RFC 9520 section 3.2: not for a second; clients that ask again and again cost the upstream nothing."""
    name = "storm.example"
    upstream.script = says(rcode=rcode)
    start(subject, upstream, workers=1, upstream={"tries": 1})
    subject.query(name)
    began, asked = time.monotonic(), upstream.count(name)
    for _ in range(50):
        assert subject.query(name).rcode == wire.RCODES[rcode]
    assert upstream.count(name) <= asked + 1 + int(time.monotonic() - began), "once a second"


def test_size_mb_0_switches_the_cache_off(subject: Subject, upstream: StubUpstream):
    """Trap 16: `size_mb: 0`, for operators who rely on the upstream's cache."""
    upstream.script = numbered()
    start(subject, upstream, cache={"size_mb": 0})
    assert [number_of(subject.query(NAME)) for _ in range(3)] == [1, 2, 3]
    metrics = subject.metrics()
    assert metrics.total("dnsblock_cache_entries") == metrics.total("dnsblock_cache_bytes") == 0


def test_the_cache_is_on_by_default(subject: Subject, upstream: StubUpstream):
    """Trap 16: a configuration that does not speak of the cache has one."""
    upstream.script = numbered()
    subject.start(cache={}, upstreams=[upstream.address])
    assert [number_of(subject.query(NAME)) for _ in range(3)] == [1, 1, 1]


def test_a_restart_begins_with_an_empty_cache(subject: Subject, upstream: StubUpstream):
    """Trap 16: the cache is in memory only; the state folder is for orders."""
    upstream.script = numbered()
    start(subject, upstream)
    assert number_of(subject.query(NAME)) == 1
    subject.restart()
    assert number_of(subject.query(NAME)) == 2


@pytest.mark.parametrize("what", ["truncated", "two CNAMEs", "BADVERS"])
def test_an_unusable_response_is_remembered_for_one_second(
    subject: Subject, upstream: StubUpstream, what: str
):
    """RFC 9520 section 3.2: a failure is cached for one second, not for the TTL of the response."""
    upstream.script = unusable(what)
    start(subject, upstream, workers=1, upstream={"tries": 1})
    began = time.monotonic()
    assert subject.query(NAME).rcode == "SERVFAIL"
    assert subject.query(NAME).rcode == "SERVFAIL"
    # BADVERS may be about our OPT, so the query is sent again without it (RFC 6891 section 7).
    times = 2 if what == "BADVERS" else 1
    assert upstream.count(NAME) <= times * (1 + int(time.monotonic() - began)), "once a second"
    upstream.script = numbered()
    wait_for(lambda: subject.query(NAME).rcode == "NOERROR", "the upstream is asked again")


def test_a_cached_response_over_tcp_is_never_truncated(subject: Subject, upstream: StubUpstream):
    """RFC 7766 section 5: an answer of full length leaves no room for options, and comes without them."""
    question = len(wire.name_to_wire("huge.example")) + 4
    room = 65_535 - 12 - question - 11  # of an OPT without options
    sizes = [30_000, room - 30_000]
    texts = [wire.record(b"\xc0\x0c", "TXT", b"x" * (size - 12)) for size in sizes]
    upstream.script = lambda asked: (
        asked.response(flags=wire.RA | wire.TC) if asked.transport == "udp" else asked.response(texts)
    )
    start(subject, upstream, cache={"size_mb": 8})
    cookie, keepalive = wire.option(wire.COOKIE_OPTION, b"12345678"), wire.option(11, b"")
    for options in (b"", cookie, keepalive, cookie + keepalive):
        reply = subject.query("huge.example", "TXT", transport="tcp", edns=wire.opt(options=options))
        assert (reply.rcode, reply.truncated, len(reply.answer)) == ("NOERROR", False, 2)
    assert [asked.transport for asked in upstream.asked_for("huge.example")] == ["udp", "tcp"]
