"""When orders are probed: new ones first, missed ones again and again, verified ones now and then."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from dnsblock.config import Probes
from dnsblock.probe.evidence import Evidence
from dnsblock.probe.schedule import (
    AT_ONCE,
    MAX_RETRY_SECONDS,
    OPEN,
    OPEN_PAUSE_SECONDS,
    InEffect,
    Job,
    Key,
    Outcome,
    ProbeCounts,
    Scheduler,
)

START = 1000.0  # a time of the monotonic clock


@dataclass
class Daemon:
    """A `Source` without a daemon."""

    options: Probes | None = field(default_factory=Probes)
    serial: int = 1
    in_effect: list[InEffect] = field(default_factory=list)

    def orders(self) -> Sequence[InEffect]:
        return self.in_effect

    def job(self, key: Key, also: Collection[str]) -> Job | None:
        raise NotImplementedError  # no probe is run here

    async def record(self, key: Key, evidence: Evidence, *, is_verified: bool) -> None:
        raise NotImplementedError


def key(number: int) -> Key:
    return Key("a", str(number), f"{number:064}")


def order(number: int, *, entries: int = 10, is_verified: bool = False) -> InEffect:
    return InEffect(key(number), entries, is_verified)


def scheduler(*orders: InEffect, **options: object) -> tuple[Scheduler, Daemon, ProbeCounts]:
    daemon, counts = Daemon(Probes.model_validate(options), 1, list(orders)), ProbeCounts()
    return Scheduler(daemon, counts), daemon, counts


def fail(one: Scheduler, number: int, now: float) -> float:
    """A miss of this order; returns the seconds until its next probe."""
    plan = one.plan(key(number))
    one.retry(plan, now)
    return plan.at - now


def test_the_newest_orders_are_probed_first_and_few_at_once():
    """A thousand orders after an upgrade must not delay the one of today."""
    one, _, _ = scheduler(*map(order, range(20)))
    assert one.due(START) == [key(number) for number in range(AT_ONCE)]


def test_verified_orders_are_not_probed_before_their_round():
    """Probes must not be a load."""
    one, _, _ = scheduler(order(1, is_verified=True), order(2), every_s="60")
    assert one.due(START) == [key(2)]
    assert set(one.due(START + 60)) == {key(1), key(2)}


def test_a_round_probes_as_many_names_as_one_large_order_has():
    """However many orders there are; other orders the next time."""
    one, daemon, _ = scheduler(
        *(order(number, entries=300, is_verified=True) for number in range(100)), every_s="60"
    )
    one.due(START)
    chosen: set[Key] = set()
    for round_number in range(1, 21):
        one.due(START + 60 * round_number)
        chosen |= one.again
        assert len(one.again) == 4
        one.again.clear()
    assert len(chosen) > 20
    assert len(daemon.in_effect) == 100


def test_a_missed_order_is_probed_again_after_orders_that_were_not_missed():
    """It may be missed for hours."""
    one, _, _ = scheduler(*map(order, range(3)))
    one.due(START)
    wait = fail(one, 0, START)
    assert one.due(START) == [key(1), key(2)]
    assert one.due(START + wait) == [key(1), key(2), key(0)]


def test_the_time_between_tries_doubles_up_to_five_minutes():
    """With jitter, so that orders with the same miss are not probed together."""
    one, _, _ = scheduler(order(1))
    waits = [fail(one, 1, START) for _ in range(30)]
    for wait, wanted in zip(waits, [2, 4, 8, 16, 32, 64, 128, 256, *[MAX_RETRY_SECONDS] * 22], strict=True):
        assert wait == pytest.approx(wanted, rel=0.21)
    assert len(set(waits)) == 30


def test_orders_that_are_not_in_effect_any_more_are_forgotten():
    """A lifted block is not missed."""
    one, daemon, counts = scheduler(order(1), order(2))
    one.due(START)
    at = datetime(2017, 8, 10, tzinfo=UTC)
    counts.outcomes[key(1)] = Outcome(at, 8, 4, frozenset({("192.0.2.1:53", "t.me", "A")}))
    assert [found for found, _ in counts.misses] == [key(1)]
    daemon.in_effect = [order(2)]
    assert one.due(START) == [key(2)]
    assert counts.misses == []


def test_nothing_is_probed_without_the_option():
    """`probes: null`."""
    one, daemon, counts = scheduler(order(1))
    counts.outcomes[key(1)] = Outcome(datetime(2017, 8, 10, tzinfo=UTC), 8, 4)
    daemon.options = None
    assert one.due(START) == []
    assert counts.outcomes == {}


def test_other_servers_are_probed_at_once():
    """After a reload with other options, a missed order does not wait."""
    one, daemon, _ = scheduler(order(1))
    one.due(START)
    fail(one, 1, START)
    assert one.due(START) == []
    daemon.options = Probes.model_validate({"servers": ["own", "192.0.2.1"]})
    assert one.due(START) == [key(1)]


def test_open_names_are_probed_first_and_again_when_orders_change():
    """Not more often than every five seconds, however many orders come."""
    one, daemon, _ = scheduler(order(1), open=["example.com"], every_s="3600")
    assert one.due(START) == [OPEN, key(1)]
    one.plan(OPEN).at = START + 3600
    assert one.due(START) == [key(1)]
    daemon.serial = 2
    assert one.due(START) == [key(1)]
    assert one.due(START + OPEN_PAUSE_SECONDS) == [OPEN, key(1)]


def test_the_first_misses_are_shown():
    """In the log and in `status`."""
    missed = frozenset(("192.0.2.1:53", f"n{number}.example", "A") for number in range(9))
    outcome = Outcome(datetime(2017, 8, 10, tzinfo=UTC), 80, 9, missed)
    assert outcome.first == [f"192.0.2.1:53 n{number}.example A" for number in range(5)]
