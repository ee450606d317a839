"""When orders are probed: new ones first, missed ones again and again, verified ones now and then."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from conformance.upstreams import Asked, StubUpstream, decent

from dnsblock.config import Probes
from dnsblock.errors import LedgerUnwritable
from dnsblock.probe.checks import Ordered, OrderedEntry, Plan, checks_of
from dnsblock.probe.evidence import Evidence
from dnsblock.probe.expectation import Answer
from dnsblock.probe.queries import Server
from dnsblock.probe.run import Setup
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

from .test_probe_queries import MakeServer, at, make_server

__all__ = ["make_server"]  # a fixture

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
        raise AssertionError("no probe is run here")

    async def record(self, key: Key, evidence: Evidence, *, is_verified: bool) -> None:
        raise AssertionError("no probe is run here")


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


# ------- Results


@dataclass
class Probing(Daemon):
    """A `Source` whose only order blocks one name, at one server."""

    servers: list[Server] = field(default_factory=list)
    recorded: list[tuple[int, bool]] = field(default_factory=list)  # misses, and whether it is verified
    failure: Exception | None = None
    also: list[set[str]] = field(default_factory=list)

    def job(self, key: Key, also: Collection[str]) -> Job | None:
        self.also.append(set(also))
        if isinstance(self.failure, RuntimeError):
            raise self.failure
        entry = OrderedEntry("one.example", "subtree", (Answer("nodata"),))
        order = Ordered(key.issuer, key.order_id, "block", "active", (entry,))
        return Job(Plan(checks_of(order, ["one.example"])), order, Setup(self.servers))

    async def record(self, key: Key, evidence: Evidence, *, is_verified: bool) -> None:
        if self.failure is not None:
            raise self.failure
        self.recorded.append((evidence.missed, is_verified))


@pytest.fixture
def probing(make_server: MakeServer) -> tuple[Scheduler, Probing, ProbeCounts, StubUpstream]:
    """A daemon with an order in effect, and a server that does not block its name."""
    stub = make_server(decent)
    daemon, counts = Probing(in_effect=[order(1)], servers=[at(stub)]), ProbeCounts()
    return Scheduler(daemon, counts), daemon, counts, stub


def blocking(asked: Asked) -> bytes:
    return asked.response()


Setting = tuple[Scheduler, Probing, ProbeCounts, StubUpstream]


def test_a_result_is_recorded_when_it_changes(probing: Setting):
    """The same misses again are not: a resolver may be wrong for weeks."""
    one, daemon, counts, stub = probing
    one.due(START)
    for _ in range(3):
        asyncio.run(one.probe(key(1)))
    assert daemon.recorded == [(6, False)]  # A, AAAA and a name below, over UDP and TCP
    assert daemon.also == [set(), {"one.example"}, {"one.example"}]
    stub.script = blocking
    for _ in range(2):
        asyncio.run(one.probe(key(1)))
        daemon.in_effect = [order(1, is_verified=True)]
        one.due(START)
    assert daemon.recorded == [(6, False), (0, True)]
    assert counts.probes == {"missed": 3, "passed": 2, "failed": 0}
    assert counts.queries == len([*stub.queries, *stub.health_checks])


def test_a_verified_order_that_is_missed_later_is_recorded_and_stays_verified(probing: Setting):
    """Somebody has restored an old policy there."""
    one, daemon, counts, stub = probing
    daemon.in_effect = [order(1, is_verified=True)]
    one.due(START)
    asyncio.run(one.probe(key(1)))
    assert [found for found, _ in counts.misses] == [key(1)]
    assert key(1) in one.again
    stub.script = blocking
    asyncio.run(one.probe(key(1)))
    assert daemon.recorded == [(6, False), (0, False)]
    assert (counts.misses, one.again) == ([], set())


def test_a_change_during_a_probe_may_explain_its_misses(probing: Setting):
    """The names are probed again at once, and only the fourth result counts if something always changes."""
    one, daemon, counts, stub = probing

    def changing(asked: Asked) -> bytes:
        daemon.serial += 1
        return decent(asked)

    stub.script = changing
    one.due(START)
    for _ in range(3):
        asyncio.run(one.probe(key(1)))
    assert (daemon.recorded, counts.misses) == ([], [])
    asyncio.run(one.probe(key(1)))
    assert daemon.recorded == [(6, False)]


def test_the_result_of_an_order_that_was_lifted_meanwhile_is_dropped(probing: Setting):
    """Its names must be open now."""
    one, daemon, counts, _ = probing
    one.due(START)
    daemon.in_effect = []
    asyncio.run(one.probe(key(1)))
    assert (daemon.recorded, counts.misses) == ([], [])


def test_a_result_that_cannot_be_recorded_is_tried_again(probing: Setting):
    """The disk may be full: the order is not verified without a record."""
    one, daemon, counts, stub = probing
    stub.script = blocking
    daemon.failure = LedgerUnwritable("the disk is full")
    one.due(START)
    asyncio.run(one.probe(key(1)))
    assert (one.plan(key(1)).failures, counts.outcomes) == (1, {})
    daemon.failure = None
    asyncio.run(one.probe(key(1)))
    assert daemon.recorded == [(0, True)]


def test_a_defect_in_a_probe_is_counted_and_stops_nothing(probing: Setting):
    """DNS and orders go on."""
    one, daemon, counts, _ = probing
    daemon.failure = RuntimeError("a defect")
    one.due(START)
    asyncio.run(one.probe(key(1)))
    assert counts.probes["failed"] == 1
    assert one.plan(key(1)).failures == 1
