"""A clock that is behind the last record, as on a machine without a battery, opens no blocked name."""

from datetime import UTC, datetime, timedelta

import pytest

from .clocks import HOUR, FakeClock, begun_before
from .harness import Subject, is_forwarded, is_sinkholed
from .orders import block, stamp
from .tools import wait_for
from .upstreams import StubUpstream

NEW, ENDED = "new.example", "ended.example"
YEARS = 5 * 365 * 24 * HOUR
SLACK = 600  # seconds that the test itself may take


def start(subject: Subject, upstream: StubUpstream) -> None:
    """A block that began a day ago, and one that has just ended."""
    began = stamp(datetime.now(UTC) - timedelta(days=1))

    def begin(end: datetime) -> None:
        orders = [block("B-1", [NEW], effective_at=began), block("B-2", [ENDED], expires_at=stamp(end))]
        subject.start(orders=orders, upstreams=[upstream.address])

    begun_before(subject, 5, begin)  # an order that has ended before it comes is refused
    wait_for(lambda: is_forwarded(subject.query(ENDED)), "it has ended")
    assert_right(subject)


def assert_right(subject: Subject) -> None:
    assert is_sinkholed(subject.query(NEW))
    assert is_forwarded(subject.query(ENDED))


def behind(subject: Subject) -> float:
    return subject.metrics().total("dnsblock_clock_behind_seconds")


@pytest.mark.parametrize("seconds", [2 * HOUR, 2 * 24 * HOUR, YEARS], ids=["hours", "days", "years"])
def test_a_start_with_a_clock_in_the_past_enforces_the_last_recorded_state(
    subject: Subject, upstream: StubUpstream, clock: FakeClock, seconds: int
):
    """No battery, and NTP has not answered yet: every block would be scheduled, and every name open."""
    start(subject, upstream)
    assert subject.stop() == 0
    clock.step_to(-seconds)
    subject.launch()
    assert_right(subject)
    assert behind(subject) > seconds - SLACK
    assert "s behind the last record" in subject.stderr()
    ledger = subject.status()["ledger"]
    assert ledger["clock_behind_seconds"] > seconds - SLACK
    assert abs(datetime.fromisoformat(ledger["as_of"]) - datetime.now(UTC)) < timedelta(minutes=10)
    assert "BEHIND" in subject.cli("status", as_json=False).stdout
    # An order that comes meanwhile is accepted, and recorded with a time that is not before the last one.
    subject.put_order(block("B-3", ["later.example"]))
    subject.reload()
    assert is_sinkholed(subject.query("later.example"))
    clock.step_to(0)
    wait_for(lambda: behind(subject) == 0, "the clock is right")
    assert_right(subject)
    wait_for(lambda: "the clock is no longer behind" in subject.stderr(), "that is logged")
    subject.restart()
    assert_right(subject)
    assert behind(subject) == 0


def test_a_clock_set_back_undoes_nothing_before_the_last_record(
    subject: Subject, upstream: StubUpstream, clock: FakeClock
):
    """The clock of a running daemon goes back two days: the block of yesterday stays.

    A block that ended after the last record is in force again, as of that record.
    """
    start(subject, upstream)
    clock.step_to(-2 * 24 * HOUR)
    wait_for(lambda: behind(subject) > 24 * HOUR, "that is seen")
    assert is_sinkholed(subject.query(NEW))
    subject.put_order(block("B-3", ["later.example"]))
    subject.reload()
    assert is_sinkholed(subject.query(NEW))


def test_a_record_from_the_future_delays_nothing_once_the_clock_is_right(
    subject: Subject, upstream: StubUpstream, clock: FakeClock
):
    """The clock jumped ahead for a moment and an order was recorded: later orders must not wait."""
    now = datetime.now(UTC)
    subject.start(
        orders=[block("B-1", [NEW], expires_at=stamp(now + timedelta(days=30)))], upstreams=[upstream.address]
    )
    clock.step_to(YEARS)
    subject.put_order(block("B-2", ["later.example"]))
    subject.reload()
    assert is_forwarded(subject.query(NEW)), "it is over, by this clock"
    clock.step_to(0)
    wait_for(lambda: is_sinkholed(subject.query(NEW)), "it is in force again")
    assert behind(subject) == 0
    subject.restart()
    assert is_sinkholed(subject.query(NEW))
    assert is_sinkholed(subject.query("later.example"))
    assert behind(subject) == 0


def test_the_operator_can_accept_the_clock(subject: Subject, upstream: StubUpstream, clock: FakeClock):
    """The daemon was started while the clock was wrong: only a person knows which of the two is right."""
    clock.step_to(YEARS)
    expires = stamp(datetime.now(UTC) + timedelta(days=30))
    subject.start(orders=[block("B-1", [NEW], expires_at=expires)], upstreams=[upstream.address])
    assert subject.stop() == 0
    clock.step_to(0)
    subject.launch()
    assert is_forwarded(subject.query(NEW))
    assert behind(subject) > YEARS - SLACK
    said = subject.cli("log accept-restore", "--reason", "the clock was five years ahead")
    assert said.code == 0, said
    assert is_sinkholed(subject.query(NEW))
    assert behind(subject) == 0
    subject.restart()
    assert is_sinkholed(subject.query(NEW))
    assert behind(subject) == 0
