"""Probes orders in the background, until every resolver gives the expected responses.

`Scheduler` decides when. Its `Source`, `dnsblock.verification`, knows the orders and records the results.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from dnsblock.config import Probes
from dnsblock.errors import LedgerUnwritable, Refused
from dnsblock.log import event, fault
from dnsblock.probe.checks import SAMPLE, Ordered, Plan
from dnsblock.probe.evidence import Evidence
from dnsblock.probe.queries import Limits
from dnsblock.probe.run import Setup, run

TICK_SECONDS = 1.0  # how soon a change is noticed
AT_ONCE = 4  # probes
# Of each probe and to each server. A probe must not be a load for a resolver, nor for this daemon.
LIMITS = Limits(outstanding=16, per_second=100)
FIRST_RETRY_SECONDS = 2.0
MAX_RETRY_SECONDS = 300.0
MAX_OVERTAKEN = 3  # lists may change all the time
OPEN_PAUSE_SECONDS = 5.0  # between two probes of the open names, when orders change often
SHOWN = 5  # misses in the log and in `status`

_random = random.SystemRandom()


class Key(NamedTuple):
    """An order. The digest distinguishes it from an annulled one with the same number."""

    issuer: str
    order_id: str
    sha256: str


OPEN = Key("", "", "")  # stands for the names that must be open


class InEffect(NamedTuple):
    """An order in effect."""

    key: Key
    entries: int
    is_verified: bool
    in_force: int = 0  # entries


@dataclass(frozen=True, slots=True)
class Job:
    """A probe to run."""

    plan: Plan
    order: Ordered | None
    setup: Setup


class Source(Protocol):
    """The daemon, as the scheduler needs it."""

    @property
    def options(self) -> Probes | None:
        """The options in force; None: no probes."""

    @property
    def serial(self) -> int:
        """The serial in force."""

    def orders(self) -> Sequence[InEffect]:
        """The orders in effect, the newest first."""

    def job(self, key: Key, also: Collection[str]) -> Job | None:
        """The probe of an order, or of the open names; `also`: names to probe in any case.

        None: nothing is expected of it any more. Takes long, so it is called in a thread.
        """

    async def record(self, key: Key, evidence: Evidence, *, is_verified: bool) -> None:
        """Records a result. Raises `Refused` and `LedgerUnwritable`."""


Missed = frozenset[tuple[str, str, str]]  # resolver, entry and type


@dataclass(frozen=True, slots=True)
class Outcome:
    """The last probe of an order."""

    at: datetime
    asked: int
    responses: int  # that were missed
    missed: Missed = frozenset()

    @property
    def first(self) -> list[str]:
        """The first misses, for people."""
        return [" ".join(one) for one in sorted(self.missed)[:SHOWN]]


@dataclass(slots=True)
class ProbeCounts:
    """The results of the probes, for the metrics and `status`."""

    queries: int = 0
    probes: Counter[str] = field(default_factory=lambda: Counter(passed=0, missed=0, failed=0))
    outcomes: dict[Key, Outcome] = field(default_factory=dict)  # of orders in effect, and of the open names
    last_at: datetime | None = None

    @property
    def misses(self) -> list[tuple[Key, Outcome]]:
        """The orders, or the open names, with a miss in their last probe."""
        return [(key, outcome) for key, outcome in self.outcomes.items() if outcome.missed]


@dataclass(slots=True)
class When:
    """When an order is probed next, and how often it was missed in a row."""

    at: float = 0.0
    failures: int = 0
    overtaken: int = 0  # probes in a row during which the serial changed


class Scheduler:
    """Probes new orders, orders with misses, and now and then the others."""

    def __init__(self, source: Source, counts: ProbeCounts) -> None:
        self._source, self._counts = source, counts
        self._plans: dict[Key, When] = {}
        self._running: set[Key] = set()
        self._verified: set[Key] = set()
        self.again: set[Key] = set()  # verified orders to probe again
        self._options: Probes | None = None
        self._round_at = 0.0
        self._open_serial = 0

    async def run(self) -> None:
        """Probes until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                for key in self.due(time.monotonic()):
                    self._running.add(key)
                    tasks.create_task(self.probe(key))
                await asyncio.sleep(TICK_SECONDS)

    def due(self, now: float) -> list[Key]:
        """The probes to begin now, the newest orders first. Those that were missed come last."""
        options = self._source.options
        if options != self._options:
            self._options = options
            self._plans.clear()
            self._round_at = now + (0.0 if options is None else options.every_s)
        if options is None:
            self._counts.outcomes.clear()
            return []
        orders = self._source.orders()
        self._verified = {one.key for one in orders if one.is_verified}
        known = {one.key for one in orders} | ({OPEN} if options.open else set())
        self._forget(known)
        if now >= self._round_at:
            self._round_at = now + options.every_s
            self._begin_round(orders)
        wanted = [one.key for one in orders if not one.is_verified or one.key in self.again]
        if options.open:
            wanted.insert(0, OPEN)
            self._hasten_open(now)
        due = [key for key in wanted if key not in self._running and self.plan(key).at <= now]
        due.sort(key=lambda key: self.plan(key).failures > 0)
        return due[: max(0, AT_ONCE - len(self._running))]

    def plan(self, key: Key) -> When:
        """When an order is probed next."""
        return self._plans.setdefault(key, When())

    def _forget(self, known: set[Key]) -> None:
        """Orders that are not in effect any more are not expected to give any response."""
        for table in (self._plans, self._counts.outcomes):
            for key in table.keys() - known:
                del table[key]
        self.again &= known

    def _begin_round(self, orders: Sequence[InEffect]) -> None:
        """Chooses verified orders at random, with as many names together as a large order has."""
        verified = [one for one in orders if one.is_verified]
        _random.shuffle(verified)
        names = 0
        for one in verified:
            if names >= SAMPLE:
                return
            names += min(one.entries, SAMPLE)
            self.again.add(one.key)

    def _hasten_open(self, now: float) -> None:
        """A change of what is enforced may block a name that must be open."""
        if self._open_serial != self._source.serial:
            self._open_serial = self._source.serial
            plan = self.plan(OPEN)
            plan.at = min(plan.at, now + OPEN_PAUSE_SECONDS)

    # ------- One probe -------

    async def probe(self, key: Key) -> None:
        """Runs one probe, and notes its result."""
        plan = self.plan(key)
        try:
            before = self._counts.outcomes.get(key)
            also = {entry for _, entry, _ in before.missed} if before is not None else set()
            serial, in_force = self._source.serial, self._in_force(key)
            job = await asyncio.to_thread(self._source.job, key, also)
            if job is None or not job.plan.checks:
                plan.at = time.monotonic() + MAX_RETRY_SECONDS
                self.again.discard(key)
                return
            evidence = await run(job.plan, job.order, job.setup)
            self._counts.queries += evidence.queries
            if in_force == self._in_force(key) and not self._is_overtaken(key, plan, evidence, serial):
                await self._note(key, plan, evidence, before)
        except (LedgerUnwritable, Refused) as err:
            event(logging.ERROR, f"the probe of {_what(key)} could not be recorded: {err}")
            self.retry(plan, time.monotonic())
        except Exception:  # a probe must not stop DNS and orders
            fault(f"the probe of {_what(key)} failed; it is tried again")
            self._counts.probes["failed"] += 1
            self.retry(plan, time.monotonic())
        finally:
            self._running.discard(key)

    def _in_force(self, key: Key) -> int | None:
        """The entries of an order in force. If they change during a probe, it is not about all of them."""
        return next((one.in_force for one in self._source.orders() if one.key == key), None)

    def _is_overtaken(self, key: Key, plan: When, evidence: Evidence, serial: int) -> bool:
        """Whether a change of what is enforced may explain the misses: the names are probed again soon."""
        if key != OPEN and self._in_force(key) is None:
            return True
        if not evidence.missed or serial == self._source.serial or plan.overtaken >= MAX_OVERTAKEN:
            plan.overtaken = 0
            return False
        plan.overtaken += 1
        plan.at = time.monotonic() + FIRST_RETRY_SECONDS
        return True

    async def _note(self, key: Key, plan: When, evidence: Evidence, before: Outcome | None) -> None:
        """Counts and records a result. The same misses again are not recorded again."""
        missed = frozenset((row.resolver, row.entry, row.qtype) for row in evidence.rows if row.missed)
        now = Outcome(evidence.started_at, evidence.asked, evidence.missed, missed)
        self._counts.probes["missed" if missed else "passed"] += 1
        self._counts.last_at = evidence.started_at
        is_change = missed != (frozenset() if before is None else before.missed)
        is_verified = not missed and key not in self._verified
        if key != OPEN and (is_change or is_verified):
            await self._source.record(key, evidence, is_verified=is_verified)
        self._counts.outcomes[key] = now
        if is_change:
            _log(key, now)
        if missed:
            self.again.add(key)
            self.retry(plan, time.monotonic())
        else:
            self.again.discard(key)
            plan.failures = 0
            options = self._options
            plan.at = time.monotonic() + options.every_s if key == OPEN and options is not None else 0.0

    def retry(self, plan: "When", now: float) -> None:
        """Tries again later; the time doubles, and differs between orders."""
        seconds = min(FIRST_RETRY_SECONDS * 2**plan.failures, MAX_RETRY_SECONDS)
        plan.failures = min(plan.failures + 1, 20)
        plan.at = now + seconds * _random.uniform(0.8, 1.2)


def _what(key: Key) -> str:
    return "the open names" if key == OPEN else f"order {key.order_id} of {key.issuer}"


def _log(key: Key, outcome: Outcome) -> None:
    facts = {} if key == OPEN else {"issuer": key.issuer, "order_id": key.order_id}
    if outcome.missed:
        text = (
            f"probe of {_what(key)}: {outcome.responses:,} of {outcome.asked:,} responses are not as expected"
        )
        event(logging.WARNING, text, **facts, missed=outcome.first)
    else:
        event(logging.INFO, f"probe of {_what(key)}: every response is as expected again", **facts)
