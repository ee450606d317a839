"""Compiles the policy of the next scheduled change before it comes, so that the clock tick only swaps it.

It also compiles zones of orders again, before so much has changed that a publish would have to do it.

`Publisher` uses it; the daemon runs `Ahead.follow` as a task. It only saves time: a commit derives and
compiles everything again that differs from the policy made here. So no change of orders, lists or
configuration has to invalidate it.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Protocol

from dnsblock.log import event
from dnsblock.orders.orders import Orders
from dnsblock.policy.recorder import Recorder
from dnsblock.policy.snapshot import Draft, Policy
from dnsblock.policy.zones import OrderZone
from dnsblock.times import utc

HORIZON = timedelta(minutes=10)  # longer before a change, nothing is compiled: orders may still come
LOOK_SECONDS = 1.0  # how often the time until the next change is looked at


class Publishes(Protocol):
    """The publisher, as far as it is used here."""

    policy: Policy  # in force
    recorder: Recorder

    def draft(self) -> Draft:
        """The state in force, as a draft."""


class Ahead:
    """The policy of the next scheduled change, once it is compiled."""

    def __init__(self, at_work: threading.Lock) -> None:
        """`at_work` is held by the thread that compiles."""
        self.has_settled = asyncio.Event()  # a publish is over, with its records
        self._at_work = at_work
        self._policy: Policy | None = None
        self._made_from: tuple[Policy, Orders] | None = None
        self._compact: Mapping[str, _Compact] = MappingProxyType({})  # by the name of the zone

    def nearest(self, in_force: Policy, now: datetime) -> Policy:
        """The policy with which one for `now` has most in common."""
        ahead = self._policy
        nearest = in_force if ahead is None or now < ahead.at else ahead
        compact = {name: one.again for name, one in self._compact.items() if one.is_of(nearest, name)}
        return replace(nearest, orders={**nearest.orders, **compact}) if compact else nearest

    async def follow(self, publisher: Publishes) -> None:
        """Compiles the policy of each next change, and indexes new orders, until it is cancelled."""
        indexed: Orders | None = None
        while True:
            self.has_settled.clear()
            if indexed is not (known := publisher.recorder.ledger.orders):
                await asyncio.to_thread(known.index_names)
                indexed = known
            await self._compile(publisher)
            await self._compile_again(publisher)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self.has_settled.wait()

    async def _compile(self, publisher: Publishes) -> None:
        """Compiles the policy of the next change if that is near; again if anything was published since."""
        policy, recorder = publisher.policy, publisher.recorder
        made_from = (policy, recorder.ledger.orders)
        change = policy.state.next_change_at
        if change is None or change - recorder.now() > HORIZON:
            self._policy = self._made_from = None
            return
        if self._made_from is not None and _are_same(self._made_from, made_from):
            return
        self._made_from = made_from
        former = policy if self._policy is None else self._policy
        try:
            work = asyncio.to_thread(self._run, recorder, publisher.draft(), policy, former, change)
            self._policy = await work
            event(logging.DEBUG, "the next scheduled change is compiled ahead", at=utc(change))
        except Exception as err:  # the tick compiles again, and reports why it fails
            event(logging.WARNING, f"the next scheduled change could not be compiled ahead: {err}")

    def _run(
        self, recorder: Recorder, draft: Draft, in_force: Policy, former: Policy, at: datetime
    ) -> Policy:
        with self._at_work:
            return recorder.compile(draft, in_force.lists, keeps_list_zones=True, former=former, at=at)

    async def _compile_again(self, publisher: Publishes) -> None:
        """Compiles the zones of orders in which much has changed."""
        policy = publisher.policy
        self._compact = {name: one for name, one in self._compact.items() if one.is_of(policy, name)}
        for name, zone in policy.orders.items():
            if zone.is_grown and name not in self._compact:
                again = zone
                try:
                    again = await asyncio.to_thread(self._run_again, zone)
                    event(logging.DEBUG, f"the zone {name} is compiled again: much has changed in it")
                except Exception as err:  # a publish does it once it must, and reports why it fails
                    event(logging.WARNING, f"the zone {name} could not be compiled again: {err}")
                # Orders may have come meanwhile: they are few, and the next publish adds them.
                in_force = publisher.policy.orders.get(name, zone)
                self._compact = {**self._compact, name: _Compact(in_force, again)}

    def _run_again(self, zone: OrderZone) -> OrderZone:
        with self._at_work:
            return zone.compiled_again()


@dataclass(frozen=True, slots=True)
class _Compact:
    """A zone that was compiled again. The publish after `in_force` takes it instead of that zone."""

    in_force: OrderZone
    again: OrderZone

    def is_of(self, policy: Policy, name: str) -> bool:
        """Whether it can take the place of the zone of this policy."""
        return policy.orders.get(name) is self.in_force


def _are_same(one: tuple[Policy, Orders], other: tuple[Policy, Orders]) -> bool:
    return all(a is b for a, b in zip(one, other, strict=True))
