"""Follows lists: looks for new content when it is due, and publishes it.

Changes are published through the daemon, one at a time like every change.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dnsblock.clock import utc_now
from dnsblock.config import Config, Zone
from dnsblock.errors import FetchFailed, Problem, Refused
from dnsblock.lists.feed.schedule import MAX_PAUSE_SECONDS, Schedule
from dnsblock.lists.files import Watch
from dnsblock.lists.sources import FetchResult, Progress, source_of
from dnsblock.lists.store import Store
from dnsblock.log import event, fault

TICK_SECONDS = 1.0  # how soon a new zone of the configuration is followed


@dataclass(frozen=True, slots=True)
class FetchStatus:
    """The status of a list that is fetched."""

    fetched_at: datetime | None = None  # the last successful fetch, including `not modified`
    error: str | None = None  # the error of the last try
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Hooks:
    """The functions that the refresher calls."""

    publish: Callable[[str, str], Awaitable[object]]  # (reason, zone): publishes its list; raises `Refused`
    is_changed: Callable[[Zone, Watch], bool]  # whether the content differs from what was read and judged
    fetched: Callable[[str, str], None]  # counts a fetch of a zone: `ok`, `not_modified` or a code


class Refresher:
    """Follows the lists of a configuration."""

    def __init__(self, store: Store, hooks: Hooks, fetched: Mapping[str, datetime]) -> None:
        """`fetched`: the lists that were fetched at startup, and when."""
        self._store = store
        self._hooks = hooks
        self._locks: dict[str, asyncio.Lock] = {}
        self._followed: dict[str, Zone] = {}  # as configured when the last wait for their lists began
        self.states = {zone: FetchStatus(fetched_at=at) for zone, at in fetched.items()}
        self.fetching: dict[str, tuple[int, int | None]] = {}  # bytes received, and bytes announced

    async def run(self, config: Callable[[], Config]) -> None:
        """Follows the lists of the current configuration until it is cancelled."""
        tasks: dict[Zone, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                wanted = {zone for zone in config().zones if zone.kind != "orders"}
                for zone in tasks.keys() - wanted:
                    tasks.pop(zone).cancel()
                for zone in wanted - tasks.keys():
                    tasks[zone] = group.create_task(self._follow(zone))
                await asyncio.sleep(TICK_SECONDS)

    async def _follow(self, zone: Zone) -> None:
        watch, schedule = Watch(), source_of(zone, self._store).schedule()
        wait = self._first_wait(zone, schedule)
        while True:
            await self._wait(zone, wait)
            try:
                wait = await self._refresh_on(schedule, zone, watch)
            except Exception:  # one list must not stop DNS and orders
                fault(f"list {zone.name} could not be followed; it is tried again", zone=zone.name)
                wait = min(zone.every_seconds, MAX_PAUSE_SECONDS)

    async def _refresh_on(self, schedule: Schedule, zone: Zone, watch: Watch) -> float:
        """Refreshes a list; returns how long to wait afterwards."""
        try:
            await self.refresh(zone, watch)
        except FetchFailed as err:
            return schedule.after_failure(err.retry_after)
        except Refused:  # `publish` logged the problem
            # Unless the content is the cause, it may soon pass: a locked history, a full disk.
            if await asyncio.to_thread(self._hooks.is_changed, zone, watch):
                return schedule.after_failure()
        return schedule.after_success()

    def _first_wait(self, zone: Zone, schedule: Schedule) -> float:
        """Seconds until the first look: another answer for a zone does not change when its feed is due."""
        before, self._followed[zone.name] = self._followed.get(zone.name), zone
        status = self.states.get(zone.name)
        if status is None:
            return schedule.first()
        if before is None:
            return schedule.after_success()  # it was fetched at startup
        if status.next_at is None or (before.place, before.source) != (zone.place, zone.source):
            return schedule.first()
        return max(0.0, (status.next_at - utc_now()).total_seconds())

    async def _wait(self, zone: Zone, seconds: float) -> None:
        if zone.name in self.states:
            self._note(zone, next_at=utc_now() + timedelta(seconds=seconds))
        await asyncio.sleep(seconds)

    async def refresh(self, zone: Zone, watch: Watch | None = None) -> None:
        """Fetches a list if it has a server; publishes new content. Raises `FetchFailed` and `Refused`."""
        result = await self.fetch(zone)
        # "Not modified" refers to the last download, which may not have been judged or recorded yet.
        if result == "ok" or await asyncio.to_thread(self._hooks.is_changed, zone, watch or Watch()):
            await self._hooks.publish(f"list {zone.name}", zone.name)

    async def fetch(self, zone: Zone) -> FetchResult | None:
        """Fetches a list now; None if it has no server. Raises `FetchFailed`."""
        async with self._locks.setdefault(zone.name, asyncio.Lock()):
            try:
                result = await source_of(zone, self._store).fetch(self._progress(zone))
            except FetchFailed as err:
                _log_failure(zone, err)
                self._hooks.fetched(zone.name, err.code)
                self._note(zone, error=str(err))
                raise
            finally:
                self.fetching.pop(zone.name, None)
        if result is not None:
            self._hooks.fetched(zone.name, result)
            self._note(zone, fetched_at=utc_now(), error=None)
        return result

    def _progress(self, zone: Zone) -> Progress:
        def note(received: int, announced: int | None) -> None:
            self.fetching[zone.name] = (received, announced)

        return note

    def _note(self, zone: Zone, **facts: datetime | str | None) -> None:
        status = self.states.get(zone.name, FetchStatus())
        self.states[zone.name] = replace(status, **facts)  # type: ignore[arg-type]  # names and types match


def _log_failure(zone: Zone, err: FetchFailed) -> None:
    text = f"list {zone.name} was not fetched: {err}"
    event(logging.ERROR, text, zone=zone.name, code=err.code)


def fetch_missing(config: Config, store: Store) -> dict[str, datetime]:
    """At startup, fetches the lists that were never fetched; returns the time of each fetch.

    Raises `Refused` if a required one fails.
    """
    problems: list[Problem] = []
    fetched: dict[str, datetime] = {}
    for zone in config.zones:
        if zone.kind == "orders" or not (source := source_of(zone, store)).is_unfetched:
            continue
        with store.history() as history:
            if history.current(zone.name) is not None:
                continue
        event(logging.INFO, f"fetching list {zone.name} for the first time", zone=zone.name)
        try:
            asyncio.run(source.fetch())
            fetched[zone.name] = utc_now()
        except FetchFailed as err:
            _log_failure(zone, err)
            if not zone.source.may_be_missing:
                problems.append(Problem(f"list {zone.name}", None, "", str(err)))
    if problems:
        raise Refused(problems)
    return fetched
