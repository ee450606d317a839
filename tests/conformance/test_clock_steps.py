"""The wall clock steps an hour while the daemon runs: orders follow it, and nothing else does."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from . import wire
from .clocks import HOUR, FakeClock
from .harness import PROFILES, TIMEOUT, Subject, is_forwarded, is_sinkholed
from .orders import ISSUER, block, stamp
from .storms import BLOCKED, Record, Traffic, measured, traffic
from .tools import wait_for
from .upstreams import Asked, StubUpstream, decent

TTL = PROFILES["sinkhole"]["ttl"]
UPSTREAM_TTL = 300
BEGINS, ENDS, STAYS = "begins.example", "ends.example", "stays.example"
SLOW = "slow.example"


def start(subject: Subject, upstream: StubUpstream, /, **config: object) -> None:
    """One order begins in half an hour, one ends then, and one stays."""
    then = stamp(datetime.now(UTC) + timedelta(seconds=HOUR / 2))
    orders = [
        block("STAYS", [BLOCKED, STAYS]),
        block("BEGINS", [BEGINS], effective_at=then),
        block("ENDS", [ENDS], expires_at=then),
    ]
    subject.start(orders=orders, upstreams=[upstream.address], **config)


def is_blocked(subject: Subject, name: str) -> bool:
    """By a response with the right TTL, whatever the clock shows."""
    reply = subject.query(name)
    assert is_sinkholed(reply) or is_forwarded(reply)
    (ttl,) = reply.ttls
    assert 0 <= ttl <= TTL if is_sinkholed(reply) else ttl == UPSTREAM_TTL
    return is_sinkholed(reply)


def in_force(subject: Subject) -> tuple[bool, ...]:
    return tuple(is_blocked(subject, name) for name in (BEGINS, ENDS, STAYS))


NOW, IN_AN_HOUR = (False, True, True), (True, False, True)


def assert_ttls_are_true(stream: Traffic) -> None:
    for asked in stream.asked:
        (ttl,) = asked.replies[0].ttls
        assert 0 <= ttl <= TTL if asked.is_blocked else ttl == UPSTREAM_TTL, asked


# ------- Orders follow the clock -------------------------------------------------------------


@pytest.mark.parametrize("there_first", [True, False], ids=["forward-and-back", "back-and-forward"])
def test_orders_follow_a_clock_step_of_an_hour(
    subject: Subject, upstream: StubUpstream, record_property: Record, clock: FakeClock, there_first: bool
):
    """Orders apply at the new time, and the step back undoes it; nothing else changes."""
    start(subject, upstream)
    assert in_force(subject) == NOW
    ahead = [(HOUR, IN_AN_HOUR), (0, NOW)]
    behind = [(-HOUR, NOW), (0, NOW)]
    with measured(subject, record_property) as figures:
        with traffic(subject, rate=200) as stream:
            serial = subject.ready["serial"]
            for offset, expected in ahead + behind if there_first else behind + ahead:
                published = publishes(subject)
                clock.step_to(offset)
                wait_for(lambda: in_force(subject) == expected, f"{offset:+}: orders follow", timeout=60)  # noqa: B023
                if offset < 0:  # what is in force stays, so only the publish shows that the step was seen
                    wait_for(lambda: publishes(subject) > published, "the step is noticed", timeout=60)  # noqa: B023
                begins, ends = ("active", "expired") if expected is IN_AN_HOUR else ("scheduled", "active")
                now = {"STAYS": "active", "BEGINS": begins, "ENDS": ends}
                # Answers are a moment ahead of `status`.
                wait_for(lambda: states(subject) == now, "status has the states")  # noqa: B023
                status = subject.status()
                assert status["serial"] >= serial, "a serial never falls, whatever the clock does"
                serial = status["serial"]
            stream.wait_for_more(50)
        tally = stream.tally()
    assert set(tally) == {"blocked", "right"}
    assert_ttls_are_true(stream)
    assert figures.rise("dnsblock_publish_failures_total") == 0
    assert figures.rise("dnsblock_snapshot_serial") == serial - subject.ready["serial"] >= 2
    assert figures.rise("dnsblock_upstream_errors_total") == 0


def test_an_annulment_holds_when_the_clock_was_an_hour_ahead(
    subject: Subject, upstream: StubUpstream, clock: FakeClock
):
    """Its record has a time that has not come yet. The block must not come back until then."""
    start(subject, upstream)
    clock.step_to(HOUR)
    wait_for(lambda: in_force(subject) == IN_AN_HOUR, "the clock is an hour ahead")
    subject.control.annul(ISSUER, "STAYS", "wrong")
    assert in_force(subject) == (True, False, False)
    clock.step_to(0)
    wait_for(lambda: in_force(subject) == (False, True, False), "the clock is right")
    subject.kill()
    subject.launch()
    assert in_force(subject) == (False, True, False)
    assert states(subject) == {"STAYS": "annulled", "BEGINS": "scheduled", "ENDS": "active"}


def states(subject: Subject) -> dict[str, str]:
    return {row["order_id"]: row["state"] for row in subject.status()["orders"]}


def publishes(subject: Subject) -> float:
    return subject.metrics().total("dnsblock_publish_duration_seconds_count")


def test_an_order_taken_while_the_clock_was_wrong_outlives_its_correction_and_a_restart(
    subject: Subject, upstream: StubUpstream, record_property: Record, clock: FakeClock
):
    """Nothing is lost: what was accepted in an hour that has not come, or had passed, is in the ledger."""
    start(subject, upstream)
    with measured(subject, record_property):
        for offset in (HOUR, -HOUR):
            clock.step_to(offset)
            subject.put_order(block(f"AT{offset:+}", [f"at{offset}.example"]))
            assert subject.reload()["changed"] is True
        clock.step_to(0)
        wait_for(lambda: in_force(subject) == NOW, "orders follow")
        assert all(is_blocked(subject, f"at{offset}.example") for offset in (HOUR, -HOUR))
        subject.restart()
        assert in_force(subject) == NOW
        assert all(is_blocked(subject, f"at{offset}.example") for offset in (HOUR, -HOUR))


# ------- Nothing else does -----------------------------------------------------------------------


@pytest.mark.parametrize("offset", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_clock_step_changes_no_timeout(
    subject: Subject, upstream: StubUpstream, record_property: Record, clock: FakeClock, offset: int
):
    """Upstream timeouts, idle connections and partial messages use the monotonic clock."""
    upstream.script = decent_but_slow
    start(
        subject,
        upstream,
        upstream={"tries": 1, "timeout_ms": 12_000},
        tcp={"idle_timeout_ms": 13_000, "read_timeout_ms": 13_000},
    )
    with (
        measured(subject, record_property) as figures,
        traffic(subject, rate=200) as stream,
        subject.udp() as answered,
        subject.udp() as lost,
        subject.tcp() as idle,
        subject.tcp() as begun,
    ):
        half = wire.query(STAYS)
        begun.sock.sendall(len(half).to_bytes(2) + half[:9])
        idle.send(wire.query(STAYS))
        assert is_sinkholed(idle.reply())
        answered.send(wire.query(SLOW))
        under_way = upstream.wait_for_query(SLOW)
        asked_at = time.monotonic()
        lost.send(wire.query(f"lost.{SLOW}"))
        upstream.wait_for_query(f"lost.{SLOW}")
        clock.step_to(offset)
        stream.wait_for_more(60)  # more than a quarter of a second
        under_way.reply(under_way.address())
        assert is_forwarded(wire.read(answered.recv(4096))), "its timeout is not over"
        begun.sock.sendall(half[9:])
        assert is_sinkholed(begun.reply()), "nor is that with what it sends"
        assert not idle.is_closed_within(0.2)
        assert wire.read(lost.recv(4096)).rcode == "SERVFAIL"
        assert 11.9 < time.monotonic() - asked_at < TIMEOUT
        assert idle.is_closed_within(TIMEOUT)
    tally = stream.tally()
    assert set(tally) == {"blocked", "right"}
    assert_ttls_are_true(stream)
    assert figures.rise("dnsblock_upstream_errors_total", reason="timeout") == 1
    assert figures.outcomes(transport="tcp") == {"blocked": 2}


def decent_but_slow(asked: Asked) -> bytes | None:
    return None if asked.name.endswith(SLOW) else decent(asked)
