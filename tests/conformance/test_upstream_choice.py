"""Selection of an upstream: by order, by weight, by outstanding queries, by name."""

import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from . import wire
from .caching import unusable
from .harness import Subject, is_forwarded
from .upstreams import Asked, MakeUpstream, Script, StubUpstream, decent, only_health_checks

NAMES = [f"n{number}.example" for number in range(200)]


def servers(*upstreams: StubUpstream, **of: list[int]) -> list[dict]:
    """As the configuration lists them, with weights or orders in the same order."""
    more = [{key: values[place] for key, values in of.items()} for place in range(len(upstreams))]
    return [{"address": one.address, **options} for one, options in zip(upstreams, more, strict=True)]


def start(subject: Subject, listed: list[dict], **upstream: object) -> None:
    subject.start(upstreams=listed, upstream=upstream)


def ask(subject: Subject, names: list[str] = NAMES) -> None:
    with subject.udp() as client:
        for name in names:
            client.send(wire.query(name))
            assert is_forwarded(wire.read(client.recv(4096)))


def names_of(upstream: StubUpstream) -> set[str]:
    return {asked.name for asked in upstream.queries}


@pytest.fixture
def make_upstream(make_upstream: MakeUpstream) -> MakeUpstream:
    """Upstreams whose script also answers health checks."""
    return partial(make_upstream, may_die=True)


@pytest.fixture
def other_subject(tmp_path: Path) -> Iterator[Subject]:
    """A second machine."""
    folder = tmp_path / "other"
    folder.mkdir()
    with closing(Subject(folder)) as daemon:
        yield daemon


def test_first_uses_the_first_upstream_that_is_up(subject: Subject, make_upstream: MakeUpstream):
    """`selection: first`: the others are for when it is down."""
    first, second = make_upstream(), make_upstream()
    start(subject, servers(first, second))
    ask(subject)
    assert (len(first.queries), second.queries) == (len(NAMES), [])


def test_a_higher_order_is_used_only_while_no_lower_one_is_up(subject: Subject, make_upstream: MakeUpstream):
    """Another site, or somebody else's resolver: used when there is nothing else, and only then."""
    far, near = make_upstream(), make_upstream()
    start(subject, servers(far, near, order=[1, 0]), health_check={"interval_ms": 100})
    ask(subject)
    assert (far.queries, len(near.queries)) == ([], len(NAMES))
    near.script = lambda _asked: None
    subject.wait_for_metric(
        "dnsblock_upstream_health_checks_total", at_least=3, upstream=near.address, result="lost"
    )
    near.forget()
    ask(subject)
    assert (len(far.queries), near.queries) == (len(NAMES), [])
    near.script = decent
    subject.wait_for_metric("dnsblock_upstream_up", upstream=near.address)
    far.forget()
    ask(subject)
    assert far.queries == []


def test_least_outstanding_uses_the_fewest_queries_for_the_weight(
    subject: Subject, make_upstream: MakeUpstream
):
    """A slow upstream gets fewer queries, since unanswered ones stay outstanding."""
    small, large = make_upstream(only_health_checks), make_upstream(only_health_checks)
    listed = servers(small, large, weight=[1, 3])
    start(subject, listed, selection="least_outstanding", timeout_ms=60_000, health_check={"interval_ms": 50})
    with subject.udp() as client:
        for name in NAMES[:80]:
            client.send(wire.query(name))
        small.wait_until(lambda asked: len(asked) >= 20)
        large.wait_until(lambda asked: len(asked) >= 60)
        assert (len(small.queries), len(large.queries)) == (20, 60)
        waiting = subject.metrics()
        outstanding = [
            waiting.total("dnsblock_upstream_outstanding_queries", upstream=one.address)
            for one in (small, large)
        ]
        assert outstanding == [20, 60]
        for asked in large.queries:
            asked.reply(asked.address())
        for _ in range(60):
            client.recv(4096)
        for name in NAMES[80:100]:
            client.send(wire.query(name))
        large.wait_until(lambda asked: len(asked) >= 80)
    assert len(small.queries) == 20


@pytest.mark.parametrize("selection", ["weighted", "least_outstanding"])
def test_idle_upstreams_share_by_weight(subject: Subject, make_upstream: MakeUpstream, selection: str):
    """Drawn at random: 200 queries, a quarter of them for the smaller, give or take six deviations."""
    small, large = make_upstream(), make_upstream()
    start(subject, servers(small, large, weight=[1, 3]), selection=selection)
    ask(subject)
    assert len(small.queries) + len(large.queries) == len(NAMES)
    assert 14 <= len(small.queries) <= 86


def test_hashed_moves_only_the_names_of_a_down_upstream(subject: Subject, make_upstream: MakeUpstream):
    """Rendezvous hashing: each resolver's cache holds its own part, and keeps it."""
    three = [make_upstream() for _ in range(3)]
    start(subject, servers(*three), selection="hashed", health_check={"interval_ms": 100})
    ask(subject)
    ask(subject, [name.upper() for name in NAMES])
    before = [{name.lower() for name in names_of(one)} for one in three]
    assert sum(map(len, before)) == len(NAMES), "no name was asked at two"
    assert min(map(len, before)) > 30
    dead, *alive = three
    dead.script = lambda _asked: None
    subject.wait_for_metric(
        "dnsblock_upstream_health_checks_total", at_least=3, upstream=dead.address, result="lost"
    )
    for one in three:
        one.forget()
    ask(subject)
    for one, own in zip(alive, before[1:], strict=True):
        assert own <= names_of(one)
    assert set.union(*map(names_of, alive)) == set(NAMES)


def test_hashed_is_independent_of_the_order_of_upstreams(
    subject: Subject, other_subject: Subject, make_upstream: MakeUpstream
):
    """A name is in one cache, whichever machine of an anycast address is asked."""
    three = [make_upstream() for _ in range(3)]
    start(subject, servers(*three), selection="hashed")
    ask(subject)
    before = [names_of(one) for one in three]
    for one in three:
        one.forget()
    start(other_subject, servers(*reversed(three)), selection="hashed")
    ask(other_subject)
    assert [names_of(one) for one in three] == before


# ------- Upstreams that return errors ---------------------------------------------------------


def saying(rcode: int) -> object:
    def script(asked: Asked) -> bytes:
        return decent(asked) if asked.name == "" else asked.response(rcode=rcode)

    return script


@pytest.mark.parametrize(("rcode", "name"), [(1, "FORMERR"), (4, "NOTIMP"), (5, "REFUSED")])
def test_refused_of_one_upstream_is_retried_on_another(
    subject: Subject, make_upstream: MakeUpstream, rcode: int, name: str
):
    """RFC 1034 section 5.3.3: another server is queried; REFUSED is passed on only if all refuse."""
    refusing, good = make_upstream(saying(rcode)), make_upstream()
    start(subject, servers(refusing, good))
    ask(subject, NAMES[:20])
    # FORMERR and NOTIMP may be about EDNS: asked again without (RFC 6891 section 7).
    times = 1 if rcode == 5 else 2
    assert (len(refusing.queries), len(good.queries)) == (20 * times, 20)
    reasons = {"upstream": refusing.address, "reason": "refused"}
    assert subject.metrics().total("dnsblock_upstream_errors_total", **reasons) == 20
    good.script = saying(rcode)
    assert subject.query("both.example").rcode == name
    assert len(refusing.asked_for("both.example")) == len(good.asked_for("both.example")) == times


@pytest.mark.parametrize("what", ["truncated", "two CNAMEs", "BADVERS"])
def test_an_unusable_response_is_retried_on_another_upstream(
    subject: Subject, make_upstream: MakeUpstream, what: str
):
    """RFC 1034 section 5.3.3: the query goes to another server."""
    garbled, good = make_upstream(unusable(what)), make_upstream()
    start(subject, servers(garbled, good))
    ask(subject, NAMES[:20])
    assert (len(garbled.queries), len(good.queries)) == (40 if what == "BADVERS" else 20, 20)
    good.script = unusable(what)
    assert subject.query("both.example").rcode == "SERVFAIL"


def test_servfail_of_one_upstream_is_retried_on_another(subject: Subject, make_upstream: MakeUpstream):
    """As BIND and Unbound do: one resolver without Internet connectivity costs no response."""
    failing, good = make_upstream(saying(2)), make_upstream()
    start(subject, servers(failing, good))
    ask(subject, NAMES[:20])
    assert len(failing.queries) == len(good.queries) == 20
    reasons = {"upstream": failing.address, "reason": "servfail"}
    assert subject.metrics().total("dnsblock_upstream_errors_total", **reasons) == 20


def bogus(asked: Asked) -> bytes:
    """SERVFAIL as of a validating resolver (RFC 8914 section 4.7)."""
    error = wire.option(wire.EDE_OPTION, b"\0\6bogus")
    return decent(asked) if asked.name == "" else asked.response(rcode=2, edns=wire.opt(options=error))


@pytest.mark.parametrize("second", [lambda _asked: None, saying(1), saying(5), unusable("truncated")])
def test_servfail_is_passed_on_if_no_upstream_has_a_better_response(
    subject: Subject, make_upstream: MakeUpstream, second: Script
):
    """RFC 8914 section 3: the response keeps its extended error, such as DNSSEC Bogus."""
    start(subject, servers(make_upstream(bogus), make_upstream(second)), tries=2, timeout_ms=1000)
    reply = subject.query("bogus.example", edns=True)
    assert (reply.rcode, reply.extended_errors) == ("SERVFAIL", {6: "bogus"})


def test_servfail_is_retried_once_and_then_remembered(subject: Subject, make_upstream: MakeUpstream):
    """RFC 9520 section 3.2: two upstreams are not asked each time a client asks again; a third is never."""
    three = [make_upstream(saying(2)) for _ in range(3)]
    subject.start(upstreams=servers(*three), workers=1)
    began = time.monotonic()
    for _ in range(20):
        assert subject.query("broken.example").rcode == "SERVFAIL"
    seconds = time.monotonic() - began
    counts = [one.count("broken.example") for one in three]
    assert counts[0] == 20
    assert 1 <= counts[1] <= 1 + seconds
    assert counts[2] == 0


def test_servfail_is_passed_on_at_once_if_no_other_upstream_is_up(
    subject: Subject, make_upstream: MakeUpstream
):
    """RFC 9520 section 1: an upstream that is down is not queried."""
    failing, dead = make_upstream(saying(2)), make_upstream(lambda _asked: None, may_die=True)
    start(subject, servers(failing, dead), health_check={"interval_ms": 100}, timeout_ms=60_000)
    subject.wait_for_metric("dnsblock_upstream_health_checks_total", 3, upstream=dead.address, result="lost")
    dead.forget()
    assert subject.query("broken.example").rcode == "SERVFAIL"
    assert dead.queries == []


def test_refused_is_passed_on_at_once_if_no_other_upstream_is_up(
    subject: Subject, make_upstream: MakeUpstream
):
    """Waiting for an upstream that is down would help nobody."""
    refusing, dead = make_upstream(saying(5)), make_upstream(lambda _asked: None)
    health_check = {"interval_ms": 100}
    start(subject, servers(refusing, dead), health_check=health_check, timeout_ms=60_000)
    subject.wait_for_metric(
        "dnsblock_upstream_health_checks_total", at_least=3, upstream=dead.address, result="lost"
    )
    assert subject.query("refused.example").rcode == "REFUSED"
    assert dead.queries == []
