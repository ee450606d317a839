"""Faults under a constant stream of queries: the daemon keeps running and answers every query once.

Each test prints the metrics before and after (`pytest -s`), and adds them to the record of the run.
"""

import itertools
import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from . import wire
from .harness import Subject, is_forwarded, is_sinkholed
from .orders import block
from .stalls import STALL
from .storms import BLOCKED, Figures, Record, is_right, measured, traffic
from .tools import wait_for
from .upstreams import Asked, MakeUpstream, StubUpstream, Unbound, answering_after, decent, silent

QUERIES = 400
TRIES = 2
TIMEOUT_MS = 1000
QUICK = {"timeout_ms": TIMEOUT_MS, "tries": TRIES}  # for an upstream that is silent
FORGED = "192.0.2.66"


def start(subject: Subject, *upstreams: StubUpstream | Unbound, **upstream: int) -> None:
    addresses = [one.address for one in upstreams]
    subject.start(orders=[block("B-1", [BLOCKED])], upstreams=addresses, upstream=upstream)


def assert_works(subject: Subject) -> None:
    """Everything is answered at once, on both transports and both families."""
    for family, transport in itertools.product((4, 6), ("udp", "tcp")):
        assert is_forwarded(subject.query("after.example", family=family, transport=transport))
        assert is_sinkholed(subject.query(BLOCKED, family=family, transport=transport))


def errors(figures: Figures, reason: str) -> float:
    return figures.rise("dnsblock_upstream_errors_total", reason=reason)


# ------- An upstream that answers wrongly ----------------------------------------------


def test_responses_after_the_first_timeout_are_still_used(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """Trap 10: what was asked again may still be answered the first time, and is answered once."""
    start(subject, upstream, timeout_ms=TIMEOUT_MS, tries=4)
    with answering_after(TIMEOUT_MS * 3 // 2) as late, measured(subject, record_property) as figures:
        upstream.script = late
        with traffic(subject) as stream:
            stream.wait_for_more(QUERIES)
        tally = stream.tally()
    assert set(tally) == {"blocked", "right"}
    assert figures.outcomes() == {"blocked": tally["blocked"], "forwarded": tally["right"]}
    assert tally["right"] <= errors(figures, "timeout") <= 3 * tally["right"]
    assert stream.slowest_blocked() < TIMEOUT_MS / 1000, "who waits for nobody is not held up"
    upstream.script = decent
    assert_works(subject)


def test_responses_after_the_last_timeout_are_dropped(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """Trap 10: late answers do not reach a slot that is used again."""
    start(subject, upstream, **QUICK)
    with answering_after(TIMEOUT_MS * (TRIES + 2)) as late:
        upstream.script = late
        with measured(subject, record_property) as figures:
            with traffic(subject) as stream:
                stream.wait_for_more(QUERIES)
            tally = stream.tally()
        assert set(tally) == {"blocked", "SERVFAIL"}
        assert figures.outcomes() == {"blocked": tally["blocked"], "failed": tally["SERVFAIL"]}
        assert errors(figures, "timeout") == TRIES * tally["SERVFAIL"]
        upstream.script = decent
        assert_works(subject)


def wrong_id(asked: Asked) -> bytes:
    return asked.address(FORGED, qid=asked.message.qid ^ 0x0101)


def another_question(asked: Asked) -> bytes:
    return asked.address(FORGED, question=wire.question("other.example"))


def another_type(asked: Asked) -> bytes:
    return asked.address(FORGED, question=asked.message.question[:-4] + b"\0\x1c\0\1")


def no_response(asked: Asked) -> bytes:
    forged = bytearray(asked.address(FORGED))
    forged[2] &= 0x7F
    return bytes(forged)


FORGERIES = (wrong_id, another_question, another_type, no_response)


@pytest.mark.parametrize("right_one_follows", [True, False], ids=["then-right", "only"])
def test_spoofed_responses_are_counted_and_ignored(
    subject: Subject, upstream: StubUpstream, record_property: Record, right_one_follows: bool
):
    """RFC 5452 section 9.1, trap 10: one forged answer before each right one, or instead of it."""
    forgeries = itertools.cycle(FORGERIES)
    follows = decent if right_one_follows else silent

    def forge(asked: Asked) -> Iterator[bytes]:
        yield next(forgeries)(asked)
        if right := follows(asked):
            yield right

    upstream.script = forge
    start(subject, upstream, **({} if right_one_follows else QUICK))
    with measured(subject, record_property) as figures:
        with traffic(subject) as stream:
            stream.wait_for_more(QUERIES)
        tally = stream.tally()
    free = len(stream.free)
    assert tally["right" if right_one_follows else "SERVFAIL"] == free
    assert errors(figures, "timeout") == (0 if right_one_follows else TRIES * free)
    assert errors(figures, "mismatch") == len(upstream.queries)
    assert len(upstream.queries) == (1 if right_one_follows else TRIES) * free
    upstream.script = decent
    assert_works(subject)


def test_garbage_is_survived_and_counted(subject: Subject, upstream: StubUpstream, record_property: Record):
    """Hostile input: noise, empty and truncated messages, and a valid header before garbage."""
    noise = random.Random(5)
    sent = itertools.count()
    unmatched = []

    def rubbish(asked: Asked) -> Iterator[bytes]:
        match next(sent) % 4:
            case 0:
                unmatched.append(asked)
                yield noise.randbytes(noise.randrange(1, 1500))
            case 1:
                unmatched.append(asked)
                yield b""
            case 2:
                yield asked.address()[:-14]
            case 3:
                head = asked.message.qid.to_bytes(2) + b"\x81\x80\0\1\0\3\0\1\0\1"
                yield head + asked.message.question + b"\xff" * 40

    upstream.script = rubbish
    start(subject, upstream, **QUICK)
    with measured(subject, record_property) as figures:
        with traffic(subject) as stream:
            stream.wait_for_more(QUERIES)
        tally = stream.tally()
    assert set(tally) == {"blocked", "SERVFAIL"}
    assert figures.outcomes() == {"blocked": tally["blocked"], "failed": tally["SERVFAIL"]}
    assert errors(figures, "mismatch") == errors(figures, "timeout") == len(unmatched)
    upstream.script = decent
    assert_works(subject)


def test_a_silent_upstream_costs_a_bounded_number_of_tries(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """Bound every time: each query is asked as often as configured, and then fails."""
    upstream.script = silent
    start(subject, upstream, **QUICK)
    with measured(subject, record_property) as figures:
        with traffic(subject) as stream:
            stream.wait_for_more(QUERIES)
        tally = stream.tally()
    assert set(tally) == {"blocked", "SERVFAIL"}
    assert figures.outcomes() == {"blocked": tally["blocked"], "failed": tally["SERVFAIL"]}
    assert errors(figures, "timeout") == len(upstream.queries) == TRIES * tally["SERVFAIL"]
    assert figures.after.total("dnsblock_outstanding_queries") == 0
    assert stream.slowest_blocked() < TIMEOUT_MS / 1000, "who waits for nobody is not held up"
    upstream.script = decent
    assert_works(subject)


# ------- Truncated answers ---------------------------------------------------------------


def cut(asked: Asked) -> bytes:
    return asked.response(flags=wire.RA | wire.TC)


def test_truncated_answers_are_fetched_over_tcp(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """RFC 2181 section 9, trap 5: the whole response is fetched; a partial one is never passed on."""
    upstream.script = lambda asked: cut(asked) if asked.transport == "udp" else decent(asked)
    start(subject, upstream)
    with measured(subject, record_property) as figures:
        with traffic(subject) as stream:
            stream.wait_for_more(QUERIES)
        tally = stream.tally()
    assert set(tally) == {"blocked", "right"}
    for transport in ("udp", "tcp"):
        assert figures.rise("dnsblock_upstream_queries_total", transport=transport) == tally["right"]
    assert [errors(figures, reason) for reason in ("timeout", "network", "mismatch")] == [0, 0, 0]
    upstream.script = decent
    assert_works(subject)


@pytest.mark.parametrize("tcp", [True, False], ids=["silent", "closed"])
def test_truncated_responses_stay_truncated_when_tcp_fails(
    subject: Subject, make_upstream: MakeUpstream, record_property: Record, tcp: bool
):
    """Trap 5: TC and no part of an answer over UDP; over TCP, which has no TC, SERVFAIL."""
    upstream = make_upstream(lambda asked: cut(asked) if asked.transport == "udp" else None, tcp=tcp)
    start(subject, upstream, **QUICK)
    with measured(subject, record_property) as figures:
        with traffic(subject) as stream:
            stream.wait_for_more(QUERIES)
        tally = stream.tally()
        assert subject.query("big.example", transport="tcp").rcode == "SERVFAIL"
    assert set(tally) == {"blocked", "truncated"}
    assert figures.outcomes(transport="udp") == {
        "blocked": tally["blocked"],
        "forwarded": tally["truncated"],
    }
    assert figures.outcomes(transport="tcp") == {"failed": 1}
    assert errors(figures, "timeout" if tcp else "network") > 0
    upstream.script = decent
    assert_works(subject)


# ------- An upstream that ends, and comes back ----------------------------------------------


def is_of_unbound(number: int, reply: wire.Reply) -> bool:
    return reply.addresses == [f"203.0.113.{number % 250}"]


def test_a_killed_upstream_is_used_again_when_it_is_back(
    subject: Subject, tmp_path: Path, record_property: Record
):
    """Fault of others: port unreachable is no reason to stop; a query a second finds out when it is over."""
    with closing(Unbound(tmp_path)) as unbound:
        unbound.start()
        start(subject, unbound, timeout_ms=3000)
        with measured(subject, record_property) as figures:
            with traffic(subject, free="n{}.load.example") as stream:
                stream.wait_for_more(100)
                unbound.close()
                stream.wait_for_more(QUERIES)
                assert unbound.start_again()
                wait_for(lambda: is_of_unbound(1, subject.query("n1.load.example")), "it is tried")
                back = len(stream.asked)
                stream.wait_for_more(100)
            tally = stream.tally(is_of_unbound)
        assert {"blocked", "right"} <= set(tally) <= {"blocked", "right", "SERVFAIL"}
        assert {"blocked", "forwarded"} <= figures.outcomes().keys() <= {"blocked", "forwarded", "failed"}
        assert errors(figures, "network") > 0
        failed = [asked.number for asked in stream.free if asked.replies[0].rcode == "SERVFAIL"]
        assert all(number < back for number in failed)


def test_a_killed_upstream_costs_no_query_while_another_is_up(
    subject: Subject, upstream: StubUpstream, tmp_path: Path, record_property: Record
):
    """Every query is answered, and the first one is asked again when it is back and its rest is over."""
    with closing(Unbound(tmp_path)) as unbound:
        unbound.start()
        start(subject, unbound, upstream)

        def answered() -> float:
            name = "dnsblock_upstream_latency_seconds_count"
            return subject.metrics().total(name, upstream=unbound.address)

        with measured(subject, record_property) as figures:
            with traffic(subject, rate=300, free="n{}.load.example") as stream:
                stream.wait_for_more(100)
                unbound.close()
                stream.wait_for_more(QUERIES)
                dead = answered()
                assert unbound.start_again()
                wait_for(lambda: answered() > dead + 20, "the first upstream is asked again", timeout=60)
            tally = stream.tally(
                lambda number, reply: is_of_unbound(number, reply) or is_right(number, reply)
            )
    assert set(tally) == {"blocked", "right"}
    assert figures.outcomes() == {"blocked": tally["blocked"], "forwarded": tally["right"]}
    assert figures.rise("dnsblock_upstream_errors_total", upstream=unbound.address, reason="network") > 0
    assert figures.rise("dnsblock_upstream_errors_total", upstream=upstream.address) == 0


# ------- Clients that go away, and a pause ----------------------------------------------------


def test_clients_that_close_before_their_response_disturb_no_other(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """Fault of others: answers to closed ports come back as ICMP, and the listener goes on."""
    start(subject, upstream)
    gone = 600
    with measured(subject, record_property) as figures:
        with traffic(subject) as stream:
            for number in range(gone):
                with subject.udp(family=4 if number % 2 else 6) as sock:
                    sock.send(wire.query(BLOCKED))
                    sock.send(wire.query(f"n{number}.example"))
            stream.wait_for_more(100)
        tally = stream.tally()
        expected = {"blocked": tally["blocked"] + gone, "forwarded": tally["right"] + gone}

        def counted() -> bool:
            return Figures(figures.before, subject.metrics()).outcomes() == expected

        wait_for(counted, f"every query is counted once: {expected}")
    assert set(tally) == {"blocked", "right"}
    assert_works(subject)


def test_a_short_pause_of_the_process_loses_nothing(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """A machine that swaps: what came meanwhile waits in the kernel, and is answered if it is not late."""
    start(subject, upstream)
    with measured(subject, record_property) as figures, subject.tcp() as client:
        with traffic(subject) as stream:
            stream.wait_for_more(100)
            subject.process.send_signal(signal.SIGSTOP)
            try:
                client.send(wire.query(BLOCKED), wire.query("free.example"))
                # Of the pause itself. A query that waits for a whole second is late. Tests and daemon may add
                # STALL each: after a longer stall of one of them, the test is run again.
                time.sleep(1 - 2 * STALL)
            finally:
                subject.process.send_signal(signal.SIGCONT)
            assert {is_sinkholed(client.reply()), is_sinkholed(client.reply())} == {True, False}
            stream.wait_for_more(100)
        tally = stream.tally()
    assert set(tally) == {"blocked", "right"}
    assert stream.slowest_blocked() > 0.4, "or there was no pause"
    assert figures.outcomes(transport="udp") == {"blocked": tally["blocked"], "forwarded": tally["right"]}
    assert figures.outcomes(transport="tcp") == {"blocked": 1, "forwarded": 1}
    assert_works(subject)
