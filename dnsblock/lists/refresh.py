"""Follows lists: looks for new content when it is due, and publishes it.

Changes are published through the daemon, one at a time like every change.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from dnsblock._engine import Engine, RecordChanges
from dnsblock.clock import utc_now
from dnsblock.config import Config
from dnsblock.config_zones import Zone
from dnsblock.errors import FetchFailed, PartlyRefused, Problem, Refused
from dnsblock.lists.expiry import expires_at
from dnsblock.lists.feed.schedule import MAX_PAUSE_SECONDS, Schedule
from dnsblock.lists.files import Watch
from dnsblock.lists.sources import FetchResult, Progress, source_of
from dnsblock.lists.store import Store
from dnsblock.lists.transfer.state import FetchRequest, IPAddress, TransferState
from dnsblock.log import event, fault

TICK_SECONDS = 1.0  # how soon a new zone of the configuration is followed
NEW_CONTENT = ("ok", "axfr", "ixfr")
NOTIFY_PAUSE_SECONDS = 0.2  # between two looks: a primary may send thousands of NOTIFYs


@dataclass(frozen=True, slots=True)
class FetchStatus:
    """The status of a list that is fetched."""

    fetched_at: datetime | None = None  # the last successful fetch, including `not modified`
    error: str | None = None  # the error of the last try
    next_at: datetime | None = None
    transfer: TransferState | None = None  # the last contact to a primary


@dataclass(frozen=True, slots=True)
class Hooks:
    """The functions that the refresher calls."""

    publish: Callable[[str, str], Awaitable[object]]  # (reason, zone): publishes its list; raises `Refused`
    is_changed: Callable[[Zone, Watch], bool]  # whether the content differs from what was read and judged
    advance: Callable[[Zone, int, RecordChanges, int], Awaitable[bool]]  # see dnsblock/advance.py
    take_back: Callable[[Zone], Awaitable[object]]
    prepare: Callable[[Zone], Coroutine[None, None, None]]
    fetched: Callable[[str, str], None]  # counts a fetch of a zone: a `FetchResult` or a code


class Refresher:
    """Follows the lists of a configuration."""

    def __init__(self, store: Store, hooks: Hooks, at_startup: "Mapping[str, AtStartup]") -> None:
        self._store = store
        self._hooks = hooks
        self._locks: dict[str, asyncio.Lock] = {}
        self._notified: dict[str, asyncio.Event] = {}
        self._rescheduled: set[str] = set()  # zones that were refreshed meanwhile: only the next look changes
        self._senders: dict[str, IPAddress] = {}  # of the last NOTIFY
        self._ended: dict[str, float] = {}  # zones that are too old: when to publish them again, if refused
        self._ahead: set[str] = set()  # zones of which changes are enforced before they are compiled
        self._compiling: dict[str, bool] = {}  # zones that are compiled in the background; True: once more
        self._tasks: asyncio.TaskGroup | None = None
        self._followed: dict[str, Zone] = {}  # as configured when the last wait for their lists began
        self._fetched = {zone for zone, start in at_startup.items() if start.result is not None}
        self.states = {zone: start.status for zone, start in at_startup.items()}
        self.fetching: dict[str, tuple[int, int | None]] = {}  # bytes received, and bytes announced

    async def run(self, config: Callable[[], Config]) -> None:
        """Follows the lists of the current configuration until it is cancelled."""
        tasks: dict[Zone, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            self._tasks = group
            while True:
                wanted = {zone for zone in config().zones if zone.kind != "orders"}
                for zone in tasks.keys() - wanted:
                    tasks.pop(zone).cancel()
                for zone in wanted - tasks.keys():
                    tasks[zone] = group.create_task(self._follow(zone))
                await asyncio.sleep(await self._end_expired(wanted))

    def notify(self, zone: str, sender: IPAddress | None = None) -> bool:
        """Looks at a list at once, or again if it is being fetched: its primary says that it has changed.

        False if that is due already.
        """
        if sender is not None:
            self._senders[zone] = sender
        notified = self._notified.setdefault(zone, asyncio.Event())
        is_new = not notified.is_set() or zone in self._rescheduled
        self._rescheduled.discard(zone)
        notified.set()
        return is_new

    def reschedule(self, zone: str) -> None:
        """After a refresh by an operator, the next look is due when the new SOA record says."""
        notified = self._notified.setdefault(zone, asyncio.Event())
        has_failed = zone in self.states and self.states[zone].error is not None  # meanwhile, on schedule
        if not (notified.is_set() or has_failed):
            self._rescheduled.add(zone)
            notified.set()

    async def follow_notifies(self, engine: Engine) -> None:
        """Looks at a policy zone as soon as one of its primaries says that it has changed."""
        descriptor, arrived = engine.notified_descriptor(), asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, arrived.set)
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                for zone, sender in engine.take_notified():
                    if self.notify(zone, sender):
                        event(logging.INFO, f"NOTIFY for zone {zone}", zone=zone, primary=str(sender))
        finally:
            loop.remove_reader(descriptor)

    async def _end_expired(self, zones: Iterable[Zone]) -> float:
        """Publishes zones that have become too old, whatever their servers do meanwhile.

        Returns the seconds until the next look.
        """
        due = [until for zone in zones if (until := await self._end(zone)) is not None]
        return min([TICK_SECONDS, *(max(0.0, (until - utc_now()).total_seconds()) for until in due)])

    async def _end(self, zone: Zone) -> datetime | None:
        """Publishes a zone if it is too old. If not, returns when it will be; None: never."""
        until = self.expires_at(zone)
        if until is None or until > utc_now():
            self._ended.pop(zone.name, None)
            return until
        if self._ended.get(zone.name, 0.0) <= time.monotonic():
            self._ended[zone.name] = math.inf
            try:
                await self._hooks.publish(f"list {zone.name}", zone.name)
            except PartlyRefused:
                pass  # its content is rejected, or another one: it was published as too old
            except Refused:  # `publish` logged the problem, which may pass: a full disk
                self._ended[zone.name] = time.monotonic() + MAX_PAUSE_SECONDS
        return None

    def expires_at(self, zone: Zone) -> datetime | None:
        """When the content of a list is too old, unless a server answers before; None: never."""
        status = self.states.get(zone.name, FetchStatus())
        return expires_at(zone, status.fetched_at, status.transfer)

    async def _follow(self, zone: Zone) -> None:
        watch, schedule = Watch(), source_of(zone, self._store).schedule()
        wait = self._first_wait(zone, schedule)
        while True:
            # In the background, since a NOTIFY may come meanwhile.
            preparing = asyncio.create_task(self._hooks.prepare(zone))
            try:
                is_due = await self._wait(zone, wait)
            finally:
                preparing.cancel()
            if not is_due:
                wait = schedule.after_success()
                continue
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
        if before is None:
            return schedule.after_success() if zone.name in self._fetched else schedule.first()
        if status is None:
            return schedule.first()
        was, now = (before.place, before.source, before.rpz), (zone.place, zone.source, zone.rpz)
        if status.next_at is None or was != now:
            return schedule.first()
        return max(0.0, (status.next_at - utc_now()).total_seconds())

    async def _wait(self, zone: Zone, seconds: float) -> bool:
        """Waits until a look is due; False if it was rescheduled meanwhile."""
        if zone.name in self.states:
            self._note(zone, next_at=utc_now() + timedelta(seconds=seconds))
        if not zone.is_transferred or seconds <= NOTIFY_PAUSE_SECONDS:
            await asyncio.sleep(seconds)
            return True
        notified = self._notified.setdefault(zone.name, asyncio.Event())
        await asyncio.sleep(NOTIFY_PAUSE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds - NOTIFY_PAUSE_SECONDS):
                await notified.wait()
        notified.clear()
        is_due = zone.name not in self._rescheduled
        self._rescheduled.discard(zone.name)
        return is_due

    async def refresh(self, zone: Zone, watch: Watch | None = None) -> None:
        """Fetches a list if it has a server; publishes new content. Raises `FetchFailed` and `Refused`."""
        result = await self.fetch(zone)
        # "Not modified" refers to the last download, which may not have been judged or recorded yet.
        is_new, is_compiling = result in NEW_CONTENT, zone.name in self._compiling
        if zone.name in self._ahead or (is_new and is_compiling):
            self._compile_later(zone)
        elif not is_compiling and (
            is_new or await asyncio.to_thread(self._hooks.is_changed, zone, watch or Watch())
        ):
            await self._hooks.publish(f"list {zone.name}", zone.name)

    def _compile_later(self, zone: Zone) -> None:
        """Compiles a zone whose changes are enforced already, so that the next ones need not wait."""
        is_idle = zone.name not in self._compiling
        self._compiling[zone.name] = not is_idle
        if is_idle and self._tasks is not None:
            self._tasks.create_task(self._compile(zone))

    async def _compile(self, zone: Zone) -> None:
        try:
            while True:
                try:
                    await self._hooks.publish(f"list {zone.name}", zone.name)
                    await self._hooks.prepare(zone)
                except Refused:  # `publish` logged the problem; unless the content is the cause, it may pass
                    if await asyncio.to_thread(self._hooks.is_changed, zone, Watch()):
                        await asyncio.sleep(MAX_PAUSE_SECONDS)
                        self._compiling[zone.name] = True
                except Exception:  # one list must not stop DNS and orders
                    fault(f"list {zone.name} could not be followed; it is tried again", zone=zone.name)
                if not self._compiling[zone.name]:
                    return
                self._compiling[zone.name] = False
        finally:
            del self._compiling[zone.name]

    async def fetch(self, zone: Zone, *, whole: bool = False) -> FetchResult | None:
        """Fetches a list now; None if it has no server. Raises `FetchFailed`.

        With `whole`, all of it is fetched, even if it is not modified.
        """
        source = source_of(zone, self._store)
        async with self._locks.setdefault(zone.name, asyncio.Lock()):
            try:
                advance, sender = partial(self._advance, zone), self._senders.pop(zone.name, None)
                request = FetchRequest(whole=whole, notified_by=sender, advance=advance)
                self._ahead.discard(zone.name)
                result = await source.fetch(self._progress(zone), request)
            except FetchFailed as err:
                _log_failure(zone, err)
                self._hooks.fetched(zone.name, err.code)
                transfer = await asyncio.to_thread(source.transfer)
                self._note(zone, error=str(err), transfer=transfer)
                self._ahead.discard(zone.name)
                await self._hooks.take_back(zone)
                raise
            finally:
                self.fetching.pop(zone.name, None)
        if result is not None:
            self._hooks.fetched(zone.name, result)
            transfer = await asyncio.to_thread(source.transfer)
            self._note(zone, fetched_at=utc_now(), error=None, transfer=transfer)
        return result

    async def _advance(self, zone: Zone, since: int, changes: RecordChanges, serial: int) -> None:
        if await self._hooks.advance(zone, since, changes, serial):
            self._ahead.add(zone.name)

    def _progress(self, zone: Zone) -> Progress:
        def note(received: int, announced: int | None) -> None:
            self.fetching[zone.name] = (received, announced)

        return note

    def _note(self, zone: Zone, **facts: datetime | str | TransferState | None) -> None:
        status = self.states.get(zone.name, FetchStatus())
        self.states[zone.name] = replace(status, **facts)  # type: ignore[arg-type]  # names and types match


def _log_failure(zone: Zone, err: FetchFailed) -> None:
    text = f"list {zone.name} was not fetched: {err}"
    event(logging.ERROR, text, zone=zone.name, code=err.code)


@dataclass(frozen=True, slots=True)
class AtStartup:
    """The status of a list at startup, and the result if it was fetched then."""

    status: FetchStatus
    result: FetchResult | None = None


def fetch_missing(config: Config, store: Store) -> dict[str, AtStartup]:
    """At startup, fetches the lists that were never fetched.

    Raises `Refused` if a required one fails.
    """
    problems: list[Problem] = []
    known: dict[str, AtStartup] = {}
    for zone in config.zones:
        if zone.kind == "orders":
            continue
        source = source_of(zone, store)
        if not source.is_unfetched:
            if (contact := source.contact()) is not None:
                known[zone.name] = AtStartup(FetchStatus(fetched_at=contact, transfer=source.transfer()))
            continue
        with store.history() as history:
            if history.current(zone.name) is not None:
                continue
        event(logging.INFO, f"fetching list {zone.name} for the first time", zone=zone.name)
        try:
            result = asyncio.run(source.fetch())
            status = FetchStatus(fetched_at=utc_now(), transfer=source.transfer())
            known[zone.name] = AtStartup(status, result)
        except FetchFailed as err:
            _log_failure(zone, err)
            if not zone.source.may_be_missing:
                problems.append(Problem(f"list {zone.name}", None, "", str(err)))
    if problems:
        raise Refused(problems)
    return known
