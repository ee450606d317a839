"""Follows lists: polls files and folders, and fetches feeds when they are due.

Changes are published through the daemon, one at a time like every change.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from dnsblock.clock import utc_now
from dnsblock.config import Config, Zone
from dnsblock.errors import FetchFailed, Problem, Refused
from dnsblock.lists.feed.schedule import Schedule
from dnsblock.lists.files import Watch
from dnsblock.lists.store import Store
from dnsblock.log import event, fault

if TYPE_CHECKING:
    from dnsblock.lists.feed.fetch import Fetched, Progress

MAX_PAUSE_SECONDS = 60.0  # the longest pause before an unreadable list is read again
TICK_SECONDS = 1.0  # how soon a new zone of the configuration is followed


@dataclass(frozen=True, slots=True)
class FeedState:
    """The state of fetching a feed."""

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
        """`fetched`: the feeds that were fetched at startup, and when."""
        self._store = store
        self._hooks = hooks
        self._locks: dict[str, asyncio.Lock] = {}
        self._followed: dict[str, Zone] = {}  # as configured when the last wait for their feeds began
        self.states = {zone: FeedState(fetched_at=at) for zone, at in fetched.items()}
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
        follow = self._follow_feed if zone.is_feed else self._follow_files
        while True:
            try:
                await follow(zone)
            except Exception:  # one list must not stop DNS and orders
                fault(f"list {zone.name} could not be followed: it is tried again", zone=zone.name)
                await self._wait(zone, min(zone.every_seconds, MAX_PAUSE_SECONDS))

    async def refresh(self, zone: Zone) -> None:
        """Fetches a feed now, and publishes the list. Raises `FetchFailed` and `Refused`."""
        async with self._locks.setdefault(zone.name, asyncio.Lock()):
            try:
                fetched = await download(zone, self._store, self._follow_download(zone))
            except FetchFailed as err:
                _tell(zone, err)
                self._hooks.fetched(zone.name, err.code)
                self._note(zone, error=str(err))
                raise
            finally:
                self.fetching.pop(zone.name, None)
            self._hooks.fetched(zone.name, "not_modified" if fetched is None else "ok")
            self._note(zone, fetched_at=utc_now(), error=None)
            if fetched is not None:
                facts = {"zone": zone.name, "octets": fetched.octets, "sha256": fetched.sha256}
                event(logging.INFO, f"fetched list {zone.name} in {fetched.seconds:.1f} s", **facts)
            # "Not modified" refers to the last download, which may not have been judged or recorded yet.
            if fetched is not None or await asyncio.to_thread(self._hooks.is_changed, zone, Watch()):
                await self._hooks.publish(f"feed {zone.name}", zone.name)

    def _follow_download(self, zone: Zone) -> "Progress":
        def follow(octets: int, announced: int | None) -> None:
            self.fetching[zone.name] = (octets, announced)

        return follow

    async def _follow_feed(self, zone: Zone) -> None:
        schedule = Schedule(zone.every_seconds)
        await self._wait(zone, self._first_wait(zone, schedule))
        while True:
            try:
                await self.refresh(zone)
                wait = schedule.after_success()
            except FetchFailed as err:
                wait = schedule.after_failure(err.retry_after)
            except Refused:  # the fetch succeeded; `publish` logged the problem
                # Unless the content is the cause, it may soon pass: a locked history, a full disk.
                is_unjudged = await asyncio.to_thread(self._hooks.is_changed, zone, Watch())
                wait = schedule.after_failure() if is_unjudged else schedule.after_success()
            await self._wait(zone, wait)

    def _first_wait(self, zone: Zone, schedule: Schedule) -> float:
        """Seconds until the feed is due: 0 if it was never fetched or its options changed."""
        before, self._followed[zone.name] = self._followed.get(zone.name), zone
        state = self.states.get(zone.name)
        if state is None:
            return 0.0
        if before is None:
            return schedule.after_success()  # it was fetched at startup
        if state.next_at is None or (before.place, before.source) != (zone.place, zone.source):
            return 0.0
        return max(0.0, (state.next_at - utc_now()).total_seconds())

    async def _wait(self, zone: Zone, seconds: float) -> None:
        self._note(zone, next_at=utc_now() + timedelta(seconds=seconds))
        await asyncio.sleep(seconds)

    async def _follow_files(self, zone: Zone) -> None:
        watch = Watch()
        usual = pause = float(zone.every_seconds)
        while True:
            await asyncio.sleep(pause)
            pause, longer = usual, min(2 * pause, max(usual, MAX_PAUSE_SECONDS))
            if await asyncio.to_thread(self._hooks.is_changed, zone, watch):
                try:
                    await self._hooks.publish(f"list {zone.name}", zone.name)
                except Refused:  # `publish` logged it
                    # On a full disk, each try would compile ten million names for nothing.
                    pause = longer

    def _note(self, zone: Zone, **facts: datetime | str | None) -> None:
        state = self.states.get(zone.name, FeedState())
        self.states[zone.name] = replace(state, **facts)  # type: ignore[arg-type]  # names and types match


def _tell(zone: Zone, err: FetchFailed) -> None:
    text = f"list {zone.name} was not fetched: {err}"
    event(logging.ERROR, text, zone=zone.name, code=err.code)


async def download(zone: Zone, store: Store, progress: "Progress | None" = None) -> "Fetched | None":
    """Fetches a feed; None if it is not modified. Raises only `FetchFailed`."""
    # Imported here: without feeds, startup does not need httpx, which takes a sixth of its time.
    from dnsblock.lists.feed import fetching

    return await fetching.download(zone, store, progress)


def fetch_missing(config: Config, store: Store) -> dict[str, datetime]:
    """At startup, fetches the feeds that were never downloaded; returns the time of each fetch.

    Raises `Refused` if a required one fails.
    """
    problems: list[Problem] = []
    fetched: dict[str, datetime] = {}
    for zone in config.zones:
        with store.history() as history:
            is_known = not zone.is_feed or history.current(zone.name) is not None
        if is_known or store.download(zone.name).exists():
            continue
        event(logging.INFO, f"fetching list {zone.name} for the first time", zone=zone.name)
        try:
            asyncio.run(download(zone, store))
            fetched[zone.name] = utc_now()
        except FetchFailed as err:
            _tell(zone, err)
            if not zone.source.may_be_missing:
                problems.append(Problem(f"list {zone.name}", None, "", str(err)))
    if problems:
        raise Refused(problems)
    return fetched
