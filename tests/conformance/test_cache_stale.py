"""Serve-stale while no upstream answers: off by default, bounded, and marked (RFC 8767; trap 16)."""

import socket
import struct
import time

import httpx
import pytest

from . import wire
from .asking import TIMEOUT, is_sinkholed
from .caching import (
    CACHE,
    NAME,
    QUICK,
    SLACK,
    STALE_ANSWER,
    STALE_NXDOMAIN,
    STALE_TTL,
    again_and_again,
    all_ttls,
    cname,
    gives,
    is_stale,
    number_of,
    numbered,
    records,
    says,
    set_cache,
    soa,
    start,
    timed,
    unusable,
)
from .harness import ISSUER, ORDERS_ZONE, Subject
from .lists import UNWATCHED
from .orders import block, unblock
from .tools import wait_for
from .upstreams import Asked, Script, StubUpstream, decent, silent

HOUR = 3600
NETWORKS = {"name": "badnets", "addresses": "badnets.txt", "answer": "sinkhole", "source": UNWATCHED}


def begin(subject: Subject, upstream: StubUpstream, /, max_stale: int = HOUR, **config: object) -> None:
    """A daemon with one worker thread: each remembers failures of its own."""
    start(subject, upstream, cache={"max_stale": max_stale}, **{"upstream": QUICK, "workers": 1} | config)


def keep(subject: Subject, upstream: StubUpstream, script: Script, *names: str, qtype: str = "A") -> None:
    """Answers with a TTL of one second are cached; then the upstream is silent."""
    upstream.script = script
    for name in names or (NAME,):
        assert not is_stale(subject.query(name, qtype, edns=True))
    upstream.script = silent


def wait_for_stale(subject: Subject, name: str = NAME, qtype: str = "A") -> wire.Reply:
    """The first stale answer; those before it came from the cache in time."""
    for again in again_and_again(lambda: timed(subject, name, qtype, edns=True)):
        if is_stale(again.reply):
            return again.reply
        assert again.reply.rcode in ("NOERROR", "NXDOMAIN"), (
            "between its life and its age there is no failure"
        )
        assert all(ttl == 1 for ttl in all_ttls(again.reply))
    raise AssertionError


# ------- What it looks like ---------------------------------------------------------------


@pytest.mark.parametrize("end", ["silent", "killed"])
def test_a_stale_answer_is_returned_while_no_upstream_answers(
    subject: Subject, upstream: StubUpstream, end: str
):
    """RFC 8767 section 4, RFC 8914 section 4.4: with a TTL of 30 and EDE 3 (Stale Answer)."""
    begin(subject, upstream)
    keep(subject, upstream, numbered(1))
    if end == "killed":
        upstream.kill()
    stale = wait_for_stale(subject)
    assert (stale.rcode, number_of(stale)) == ("NOERROR", 1)
    assert list(stale.extended_errors) == [STALE_ANSWER]
    for transport in ("udp", "tcp"):
        again = subject.query(NAME, transport=transport, edns=True)
        assert is_stale(again)
        assert number_of(again) == 1


def test_a_stale_answer_is_returned_without_edns_too(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 4: without the extended error; its TTL is 30."""
    begin(subject, upstream)
    keep(subject, upstream, numbered(1))
    wait_for_stale(subject)
    reply = subject.query(NAME)
    assert (reply.opt, reply.ttls, number_of(reply)) == (None, {STALE_TTL}, 1)


def test_nxdomain_may_be_served_stale(subject: Subject, upstream: StubUpstream):
    """RFC 8914 section 4.20: 19 is Stale NXDOMAIN Answer; with its SOA (RFC 2308 section 5)."""
    begin(subject, upstream)
    keep(subject, upstream, says(authority=[soa(1, 1)], rcode=3))
    stale = wait_for_stale(subject)
    assert (stale.rcode, stale.soa.owner, stale.soa.ttl) == ("NXDOMAIN", "example.", STALE_TTL)
    assert list(stale.extended_errors) == [STALE_NXDOMAIN]


def test_nodata_may_be_served_stale(subject: Subject, upstream: StubUpstream):
    """RFC 8914 section 4.4: NODATA is a stale answer of NOERROR."""
    begin(subject, upstream)
    keep(subject, upstream, says(authority=[soa(1, 1)]))
    stale = wait_for_stale(subject)
    assert stale.is_nodata
    assert list(stale.extended_errors) == [STALE_ANSWER]


def test_every_record_of_a_stale_answer_has_ttl_30(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 4: all that is stale has a TTL above 0; none is left that was longer or is over."""
    script = says(
        [cname(b"\xc0\x0c", "edge.example"), wire.address_record("edge.example", "198.51.100.7", ttl=1)],
        [wire.record("example", "NS", wire.name_to_wire("ns1.example"), ttl=86400)],
        [wire.address_record("ns1.example", "192.0.2.1", ttl=20)],
    )
    begin(subject, upstream)
    upstream.script = script
    fresh = subject.query(NAME, edns=True)
    upstream.script = silent
    wait_for(lambda: is_stale(subject.query(NAME, edns=True)), "it is stale")
    stale = subject.query(NAME, edns=True)
    assert all_ttls(stale) == [STALE_TTL] * 4
    assert records(stale) == records(fresh)


def test_a_stale_answer_also_has_the_extended_error_of_the_upstream(subject: Subject, upstream: StubUpstream):
    """RFC 8914 section 3: more than one may be sent."""
    why = wire.option(wire.EDE_OPTION, struct.pack("!H", 10) + b"no RRSIG")
    begin(subject, upstream)
    keep(subject, upstream, lambda asked: gives(ttl=1)(asked)[:-11] + wire.opt(options=why))
    assert wait_for_stale(subject).extended_errors == {10: "no RRSIG", STALE_ANSWER: ""}


def test_a_stale_answer_has_ad_only_for_a_client_that_asked_for_it(subject: Subject, upstream: StubUpstream):
    """Trap 6, RFC 6840 section 5.8; and the question comes back in the client's case."""
    begin(subject, upstream)
    upstream.script = lambda asked: asked.response(
        [wire.address_record(b"\xc0\x0c", "198.51.100.7", ttl=1)], flags=wire.RA | wire.AD
    )
    for flags in (wire.RD, wire.RD | wire.AD):
        subject.query(NAME, edns=True, flags=flags)
    upstream.script = silent
    for flags in (wire.RD, wire.RD | wire.AD):
        wait_for(lambda: is_stale(subject.query(NAME, edns=True, flags=flags)), "it is stale")  # noqa: B023
        assert subject.query(NAME.upper(), flags=flags).flags & wire.AD == flags & wire.AD


# ------- When ---------------------------------------------------------------------------------


def test_a_stale_answer_is_returned_when_every_try_has_failed(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 5: a client has gone after a few seconds; 1.8 of them are the most it waits."""
    begin(subject, upstream, upstream={"timeout_ms": 1500, "tries": 3})
    keep(subject, upstream, numbered(1))
    for again in again_and_again(lambda: timed(subject, edns=True)):
        assert again.seconds < 1.8 + 3 * SLACK
        if is_stale(again.reply):
            break
    assert again.seconds > 0.5, "an upstream that is slow is not at once taken for dead"


def test_a_fresh_answer_is_preferred(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 4: stale data is for when the upstreams cannot be reached; they are asked first."""
    begin(subject, upstream)
    upstream.script = numbered(1)
    for again in again_and_again(lambda: timed(subject, edns=True)):
        assert not is_stale(again.reply)
        if number_of(again.reply) == 3:
            break


def test_further_queries_get_the_stale_answer_at_once(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 5: after a failure it is not tried again for each client's query."""
    begin(subject, upstream)
    keep(subject, upstream, numbered(1))
    wait_for_stale(subject)
    asked, began, waits = upstream.count(NAME), time.monotonic(), []
    for number in range(100):
        again = timed(subject, transport="tcp" if number % 10 == 0 else "udp", edns=True)
        assert is_stale(again.reply)
        waits.append(again.seconds)
    elapsed = time.monotonic() - began
    assert upstream.count(NAME) - asked <= QUICK["tries"] * (1 + int(elapsed)), "a second is the least pause"
    assert sorted(waits)[90] < QUICK["timeout_ms"] / 1000, "most clients do not wait for a try"


def test_an_upstream_that_is_back_is_used_again(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 5: it is tried again, at the latest after 30 seconds, and what it says counts."""
    begin(subject, upstream)
    keep(subject, upstream, numbered(1))
    wait_for_stale(subject)
    upstream.script = gives("192.0.2.9", ttl=300)
    wait_for(lambda: subject.query(NAME).addresses == ["192.0.2.9"], "a fresh answer", timeout=35)
    assert not is_stale(subject.query(NAME, edns=True))


@pytest.mark.parametrize("rcode", [2], ids=["SERVFAIL"])
def test_a_failure_of_the_upstream_causes_a_stale_answer(
    subject: Subject, upstream: StubUpstream, rcode: int
):
    """RFC 8767 section 4: SERVFAIL of the upstream is a failure to refresh, too."""
    begin(subject, upstream)
    keep(subject, upstream, numbered(1))
    upstream.script = says(rcode=rcode)
    assert number_of(wait_for_stale(subject)) == 1
    upstream.script = gives("192.0.2.9", ttl=300)
    wait_for(lambda: subject.query(NAME).addresses == ["192.0.2.9"], "a fresh answer", timeout=35)


@pytest.mark.parametrize("rcode", [3, 0], ids=["NXDOMAIN", "NODATA"])
def test_a_negative_answer_ends_the_stale_one(subject: Subject, upstream: StubUpstream, rcode: int):
    """RFC 8767 sections 4 and 6: NXDOMAIN and NODATA are answers; what they deny is not revived."""
    begin(subject, upstream)
    upstream.script = numbered(1)
    subject.query(NAME, edns=True)
    upstream.script = says(authority=[soa(1, 1)], rcode=rcode)
    for again in again_and_again(lambda: timed(subject, edns=True)):
        assert not is_stale(again.reply)
        if not again.reply.answer:
            break
    assert again.reply.rcode == wire.RCODES[rcode]
    upstream.script = silent
    wait_for(lambda: is_stale(subject.query(NAME, edns=True)), "what is stale now is that there is nothing")
    assert subject.query(NAME).answer == ()


def test_a_response_after_the_stale_answer_is_cached(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 5: asking goes on when the client has its answer, for the next one."""
    begin(subject, upstream, upstream={"timeout_ms": 6000, "tries": 1})
    keep(subject, upstream, numbered(1))
    wait_for_stale(subject)
    asked = upstream.asked_for(NAME)[-1]
    asked.reply(gives("192.0.2.9")(asked))
    wait_for(lambda: subject.query(NAME).addresses == ["192.0.2.9"], "the fresh answer")
    assert not is_stale(subject.query(NAME, edns=True))


def test_all_coalesced_clients_get_the_stale_answer(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 5, RFC 9520 section 3.2: one failure for all, and the attempts of one question."""
    begin(subject, upstream, upstream={"timeout_ms": 400, "tries": 2})
    keep(subject, upstream, numbered(1), "crowd.example")
    cached_at = time.monotonic()
    wait_for(lambda: time.monotonic() > cached_at + 1 + SLACK, "its life is over")
    asked = upstream.count("crowd.example")
    with subject.udp() as sock, subject.tcp() as stream:
        for number in range(20):
            sock.send(wire.query("crowd.example", qid=number, edns=True))
        stream.send(wire.query("crowd.example", edns=True))
        replies = [wire.read(sock.recv(4096)) for _ in range(20)] + [stream.reply()]
    assert all(is_stale(reply) and number_of(reply) == 1 for reply in replies)
    assert upstream.count("crowd.example") <= asked + 2


# ------- Bounds ---------------------------------------------------------------------------------


def test_serve_stale_is_off_by_default(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 5: an operator decides whether there is stale data; `max_stale: 0` is none."""
    upstream.script = numbered(1)
    subject.start(cache={}, upstreams=[upstream.address], upstream=QUICK)
    subject.query(NAME)
    upstream.script = silent
    for again in again_and_again(lambda: timed(subject, edns=True)):
        assert not is_stale(again.reply)
        if again.reply.rcode == "SERVFAIL":
            break


def test_an_answer_older_than_max_stale_is_not_returned(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 5: the maximum stale timer; then it is SERVFAIL as it would be without."""
    begin(subject, upstream, max_stale=2)
    upstream.script = numbered(1)
    first = timed(subject, "aged.example", edns=True)
    upstream.script = silent
    seen = []
    for again in again_and_again(lambda: timed(subject, "aged.example", edns=True)):
        seen.append(again.reply.rcode == "NOERROR" and is_stale(again.reply))
        if again.reply.rcode == "SERVFAIL":
            break
        assert again.sent_at <= first.got_at + 1 + 2 + SLACK, "older than max_stale"
    assert any(seen)
    assert again.got_at >= first.sent_at + 1 + 2 - SLACK, "not so old yet"


def test_an_uncacheable_response_is_never_served_stale(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 4, RFC 1035 section 3.2.1: a TTL of 0, a negative answer without SOA, a failure."""
    begin(subject, upstream)
    scripts = {"zero": gives(ttl=0), "bare": says(rcode=3), "failed": says(rcode=2), "refused": says(rcode=5)}
    for label, script in scripts.items():
        upstream.script = script
        subject.query(f"{label}.example")
    upstream.script = silent
    for label in scripts:
        wait_for(lambda: subject.query(f"{label}.example").rcode == "SERVFAIL", "SERVFAIL")  # noqa: B023


def test_a_stale_answer_is_returned_only_for_the_same_question(subject: Subject, upstream: StubUpstream):
    """RFC 4035 section 3.2.2: answers to queries with CD, or without DO, are not for the others."""
    begin(subject, upstream)
    keep(subject, upstream, numbered(1))
    wait_for_stale(subject)
    for asks in ({"flags": wire.RD | wire.CD}, {"edns": wire.opt(do=True)}, {"qtype": "AAAA"}, {"flags": 0}):
        assert subject.query(NAME, **asks).rcode == "SERVFAIL"


def test_a_reload_switches_serve_stale_on_and_off(subject: Subject, upstream: StubUpstream):
    """After it is switched off, no stale answer is returned."""
    begin(subject, upstream)
    keep(subject, upstream, numbered(1))
    wait_for_stale(subject)
    said = set_cache(subject, upstream, cache={"max_stale": 0}, upstream=QUICK, workers=1)
    assert said["restart_needed"] == []
    assert subject.query(NAME).rcode == "SERVFAIL"


# ------- Policy -----------------------------------------------------------------------------------


def to_target(asked: Asked) -> bytes:
    if asked.qtype != 1:
        return decent(asked)
    return asked.response(
        [
            cname(b"\xc0\x0c", "target.example", ttl=1),
            wire.address_record("target.example", "198.51.100.7", ttl=1),
        ]
    )


@pytest.mark.parametrize("how", ["name", "target", "address"])
def test_a_blocked_name_is_never_served_stale(subject: Subject, upstream: StubUpstream, how: str):
    """Trap 11, pdns#14854: the policy comes first, however old the answer is."""
    begin(subject, upstream, zones=[ORDERS_ZONE, NETWORKS], lists={"badnets.txt": ["203.0.113.0/24"]})
    keep(subject, upstream, to_target)
    wait_for_stale(subject)
    if how == "address":
        subject.put_list("badnets.txt", ["198.51.100.7"])
    else:
        subject.put_order(block("B-1", [NAME if how == "name" else "target.example"]))
    subject.reload()
    for transport in ("udp", "tcp"):
        reply = subject.query(NAME, transport=transport, edns=True)
        assert is_sinkholed(reply)
        assert STALE_ANSWER not in reply.extended_errors


def test_no_blocked_response_is_served_stale_after_the_unblock(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 5, trap 11: what was forged is never stale data; what the upstream said may be."""
    begin(subject, upstream)
    keep(subject, upstream, numbered(1))
    wait_for_stale(subject)
    subject.put_order(block("B-1", [NAME, "never.example"]))
    subject.reload()
    for name in (NAME, "never.example"):
        assert is_sinkholed(subject.query(name))
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    assert number_of(subject.query(NAME)) == 1
    assert subject.query("never.example").rcode == "SERVFAIL"


def test_the_address_of_a_landing_page_may_be_served_stale(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 4: a blocked name is answered in any case; its CNAME is the block, never old."""
    begin(
        subject,
        upstream,
        zones=[{"name": "ministry", "issuer": ISSUER, "unsigned": "accept", "answer": "landing"}],
        answers={"landing": {"action": "cname", "target": "landing.example", "ttl": 77}},
        orders=[block("B-1", [NAME])],
    )
    upstream.script = gives("192.0.2.80", ttl=1)
    assert subject.query(NAME, edns=True).addresses == ["192.0.2.80"]
    upstream.script = silent
    for again in again_and_again(lambda: timed(subject, edns=True)):
        assert again.reply.target == "landing.example."
        assert again.reply.answer[0].ttl == 77
        if again.reply.addresses != ["192.0.2.80"] or again.reply.answer[-1].ttl == STALE_TTL:
            break


# ------- Figures ----------------------------------------------------------------------------------


def test_stale_answers_are_counted_as_stale(subject: Subject, upstream: StubUpstream):
    """One outcome for each query: forwarded, cached, stale."""
    begin(subject, upstream)
    keep(subject, upstream, numbered(1))
    counts = {"forwarded": 1, "cached": 0, "stale": 0}
    for again in again_and_again(lambda: timed(subject, edns=True)):
        counts["stale" if is_stale(again.reply) else "cached"] += 1
        if counts["stale"] == 5:
            break

    def counted() -> dict[str, float]:
        metrics = subject.metrics()
        return {outcome: metrics.total("dnsblock_queries_total", outcome=outcome) for outcome in counts}

    wait_for(lambda: counted() == counts, f"{counts}, and not {counted()}")
    assert subject.metrics().total("dnsblock_queries_total") == sum(counts.values())


# ------- While a question is under way ------------------------------------------------------

CLIENT_SECONDS = 1.8  # then it gets the stale answer
SLOW = {"timeout_ms": 30_000, "tries": 3}  # longer than any client waits


def test_a_client_waiting_for_a_failing_prefetch_gets_the_stale_answer(
    subject: Subject, upstream: StubUpstream
):
    """RFC 8767 section 5: a client waits at most 1.8 seconds, also for a query of another one."""
    start(subject, upstream, cache={"max_stale": HOUR, "prefetch": True}, upstream=SLOW, workers=1)
    keep(subject, upstream, numbered(4))
    for again in again_and_again(lambda: timed(subject, edns=True)):
        if upstream.count(NAME) == 2:
            break
        assert number_of(again.reply) == 1
    assert number_of(wait_for_stale_or_cached(subject)) == 1


def wait_for_stale_or_cached(subject: Subject) -> wire.Reply:
    for again in again_and_again(lambda: subject.query(NAME, edns=True)):
        assert again.rcode == "NOERROR", "no failure while there is a stale answer"
        if is_stale(again):
            return again
    raise AssertionError


def test_a_client_after_the_stale_answer_timer_does_not_wait(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 5: the client response timer runs from the first query, not for each client."""
    begin(subject, upstream, upstream=SLOW)
    keep(subject, upstream, numbered(1))
    wait_for_stale(subject)
    for transport in ("udp", "tcp"):
        assert is_stale(subject.query(NAME, transport=transport, edns=True)), "within a client's timeout"
    assert upstream.count(NAME) == 2, "the question is still under way"


@pytest.mark.parametrize("ended_by", ["purge", "reload"])
def test_a_stale_answer_removed_meanwhile_is_returned_to_no_waiting_client(
    subject: Subject, upstream: StubUpstream, ended_by: str
):
    """A purge or a reload also applies to clients that are waiting."""
    options = {"upstreams": [upstream.address], "upstream": {"timeout_ms": 1500, "tries": 2}, "workers": 1}
    begin(subject, upstream, upstream=options["upstream"])
    transport = httpx.HTTPTransport(uds=str(subject.folder / "control.sock"))
    with httpx.Client(transport=transport, timeout=TIMEOUT) as control:
        for number in range(10):
            name = f"n{number}.{NAME}"
            keep(subject, upstream, numbered(1), name)
            with subject.udp() as client:
                asked_at = ask_until_outstanding(client, upstream, name)
                if ended_by == "purge":
                    said = control.post("http://daemon/v1/cache/purge", params={"name": name})
                else:
                    subject.configure(cache=CACHE | {"max_stale": 0}, **options)
                    said = control.post("http://daemon/v1/reload")
                assert said.status_code == 200
                if time.monotonic() < asked_at + CLIENT_SECONDS:
                    assert wire.read(client.recv(4096)).rcode == "SERVFAIL"
                    return
            # A slow machine: the client may have had the stale answer before.
            subject.configure(cache=CACHE | {"max_stale": HOUR}, **options)
            subject.reload()
    pytest.fail(f"a {ended_by} took longer than a client waits, ten times")


def ask_until_outstanding(client: socket.socket, upstream: StubUpstream, name: str) -> float:
    """Queries a cached name until the query goes to the upstream. Returns when it was sent (monotonic)."""
    timeout = client.gettimeout()
    while True:
        sent_at = time.monotonic()
        client.send(wire.query(name, edns=True))
        client.settimeout(0.2)  # a cached response comes at once
        try:
            reply = wire.read(client.recv(4096))
            assert not is_stale(reply)
        except TimeoutError:
            client.settimeout(timeout)
            if upstream.count(name) > 1 or is_stale(wire.read(client.recv(4096))):
                return sent_at
        finally:
            client.settimeout(timeout)


@pytest.mark.parametrize("what", ["truncated", "two CNAMEs", "BADVERS"])
def test_an_unusable_response_causes_a_stale_answer(subject: Subject, upstream: StubUpstream, what: str):
    """RFC 8767 section 4: even the first client gets the stale answer at once."""
    begin(subject, upstream)
    keep(subject, upstream, numbered(1))
    upstream.script = unusable(what)
    assert number_of(wait_for_stale(subject)) == 1
    assert is_stale(subject.query(NAME, edns=True))


@pytest.mark.parametrize("what", ["no such name", "for now alone"])
def test_no_stale_answer_overrides_a_newer_response(subject: Subject, upstream: StubUpstream, what: str):
    """RFC 8767 section 4: a newer response ends the stale one, even if it is not cached itself."""
    begin(subject, upstream)
    keep(subject, upstream, numbered(1))
    upstream.script = {"no such name": says(rcode=3), "for now alone": gives("192.0.2.99", ttl=0)}[what]
    wait_for(lambda: subject.query(NAME).rcode == "NXDOMAIN" or not subject.query(NAME).ttls - {0}, what)
    upstream.script = silent
    assert subject.query(NAME, edns=True).rcode == "SERVFAIL"
