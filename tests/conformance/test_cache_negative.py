"""Negative answers are cached as long as the zone says, and deny no other name (traps 7 and 16)."""

import pytest

from . import wire
from .asking import is_forwarded
from .caching import assert_cached, assert_lives, assert_not_cached, cname, gives, says, soa, start
from .harness import Subject
from .tools import wait_for
from .upstreams import StubUpstream, decent

NXDOMAIN = 3
KINDS = pytest.mark.parametrize("rcode", [NXDOMAIN, 0], ids=["NXDOMAIN", "NODATA"])
ALIAS = cname(b"\xc0\x0c", "nowhere.example")


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    start(shared_subject, shared_upstream)
    return shared_subject


@KINDS
def test_a_negative_answer_is_cached_with_its_soa(running: Subject, seen: StubUpstream, rcode: int):
    """RFC 2308 sections 5 and 6: without it the client could not cache the answer."""
    seen.script = says(authority=[soa()], rcode=rcode)
    cached = assert_cached(running, seen, f"kept{rcode}.example")
    assert (cached.rcode, cached.answer) == (wire.RCODES[rcode], ())
    assert (cached.soa.owner, cached.soa.serial, cached.soa.minimum) == ("example.", 7, 300)


@KINDS
@pytest.mark.parametrize(("ttl", "minimum"), [(300, 2), (2, 300), (2, 2)])
def test_a_negative_answer_lives_as_long_as_its_soa_says(
    running: Subject, seen: StubUpstream, rcode: int, ttl: int, minimum: int
):
    """RFC 2308 section 5: the smaller one of the TTL of the SOA and its MINIMUM."""
    seen.script = says(authority=[soa(ttl, minimum)], rcode=rcode)
    assert_lives(running, seen, 2, f"r{rcode}t{ttl}m{minimum}.example")


@KINDS
@pytest.mark.parametrize(("ttl", "minimum"), [(300, 0), (0, 300)])
def test_a_negative_answer_with_ttl_0_is_not_cached(
    running: Subject, seen: StubUpstream, rcode: int, ttl: int, minimum: int
):
    """RFC 2308 section 5, RFC 1035 section 3.2.1."""
    seen.script = says(authority=[soa(ttl, minimum)], rcode=rcode)
    assert_not_cached(running, seen, f"r{rcode}t{ttl}m{minimum}.zero.example")


@pytest.mark.parametrize(
    ("answer", "authority", "rcode"),
    [
        ([], [], NXDOMAIN),
        ([], [], 0),
        ([], [wire.record("example", "NS", wire.name_to_wire("ns1.example"))], 0),
        ([], [wire.record("example", "NS", wire.name_to_wire("ns1.example"))], NXDOMAIN),
        ([ALIAS], [], NXDOMAIN),
        ([ALIAS], [], 0),
    ],
    ids=["NXDOMAIN", "NODATA", "referral", "NXDOMAIN with NS", "alias to NXDOMAIN", "alias to NODATA"],
)
def test_a_negative_answer_without_soa_is_not_cached(
    running: Subject, seen: StubUpstream, answer: list, authority: list, rcode: int
):
    """RFC 2308 section 5: nothing says for how long, and two servers might keep it for ever."""
    seen.script = says(answer, authority, rcode=rcode)
    assert_not_cached(running, seen, f"a{len(answer)}n{len(authority)}r{rcode}.without.example")


@KINDS
def test_an_soa_outside_the_authority_section_is_ignored(running: Subject, seen: StubUpstream, rcode: int):
    """RFC 2308 section 2: the SOA belongs into the authority section, not into ADDITIONAL."""
    seen.script = says(additional=[soa()], rcode=rcode)
    assert_not_cached(running, seen, f"misplaced{rcode}.example")


@KINDS
def test_negative_answers_are_cached_no_longer_than_max_negative_ttl(
    subject: Subject, upstream: StubUpstream, rcode: int
):
    """RFC 2308 section 5: a limit is to be set; and what is positive has another one."""
    start(subject, upstream, cache={"max_negative_ttl": 2})
    upstream.script = says(authority=[soa(86400, 86400)], rcode=rcode)
    assert_lives(subject, upstream, 2)


def test_max_negative_ttl_does_not_limit_positive_answers(subject: Subject, upstream: StubUpstream):
    """RFC 2308 section 5: the limit is for what is not there."""
    start(subject, upstream, cache={"max_negative_ttl": 1})
    upstream.script = gives(ttl=86400)
    assert is_forwarded(subject.query("there.example"))
    upstream.script = says(authority=[soa(86400, 86400)], rcode=NXDOMAIN)
    assert_lives(subject, upstream, 1, "gone.example")
    assert is_forwarded(subject.query("there.example"))
    assert upstream.count("there.example") == 1


@pytest.mark.parametrize(
    "ttls", [(2, 300, 300), (300, 2, 300), (300, 300, 2)], ids=["alias", "SOA", "MINIMUM"]
)
@KINDS
def test_an_alias_to_a_missing_name_lives_as_long_as_both_parts(
    running: Subject, seen: StubUpstream, rcode: int, ttls: tuple[int, int, int]
):
    """RFC 2308 sections 2.1 and 5, RFC 6604 section 3: the alias exists, its target does not."""
    of_alias, of_soa, minimum = ttls
    alias = cname(b"\xc0\x0c", "nowhere.example", ttl=of_alias)
    seen.script = says([alias], [soa(of_soa, minimum)], rcode=rcode)
    assert_lives(running, seen, 2, f"r{rcode}a{of_alias}t{of_soa}m{minimum}.alias.example")


def test_a_response_to_a_cname_query_is_no_negative_answer(running: Subject, seen: StubUpstream):
    """RFC 1034 section 3.6.2: asked for CNAME, it is what was asked for and needs no SOA."""
    seen.script = says([ALIAS])
    assert assert_cached(running, seen, "alias.example", "CNAME").target == "nowhere.example."


def test_nodata_of_one_type_denies_no_other_type(running: Subject, seen: StubUpstream):
    """RFC 2308 section 5: NODATA is cached by name and type."""
    name = "onefamily.example"
    seen.script = lambda asked: asked.response(authority=[soa()]) if asked.qtype == 28 else decent(asked)
    for _ in range(2):
        assert running.query(name, "AAAA").is_nodata
        assert is_forwarded(running.query(name))


def test_nxdomain_denies_no_name_above_or_beside_it(running: Subject, seen: StubUpstream):
    """RFC 8020 section 2: at most what is below it."""
    seen.script = lambda asked: (
        asked.response(authority=[soa()], rcode=NXDOMAIN)
        if asked.name == "no.such.example"
        else decent(asked)
    )
    for _ in range(2):
        assert running.query("no.such.example").rcode == "NXDOMAIN"
        for name in ("such.example", "yes.such.example", "notno.such.example"):
            assert is_forwarded(running.query(name))


@KINDS
def test_a_new_name_appears_when_its_negative_answer_has_expired(
    running: Subject, seen: StubUpstream, rcode: int
):
    """RFC 2308 section 5: no client's asking makes it live longer."""
    name = f"born{rcode}.example"
    seen.script = says(authority=[soa(1, 1)], rcode=rcode)
    assert_lives(running, seen, 1, name)
    seen.script = gives()
    wait_for(lambda: is_forwarded(running.query(name)), "it is there")
