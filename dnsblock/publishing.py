"""Publishes: everything that changes what is enforced goes through `Publisher.publish`, one change at a time.

Called for SIGHUP, by the control API, by the refresher of feeds, and by the clock when an order takes effect
or expires. On any error, the previous snapshot stays in force.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar, TypeVarTuple

from dnsblock._engine import Engine
from dnsblock.ahead import Ahead
from dnsblock.change import (
    Change,
    ClockTick,
    LastPublish,
    LedgerEntries,
    ListsChanged,
    RecordsChanged,
    Reload,
    RollBack,
    Served,
)
from dnsblock.clock import utc_now
from dnsblock.config import Config
from dnsblock.config_zones import Zone
from dnsblock.errors import (
    HistoryUnwritable,
    LedgerUnwritable,
    PartlyRefused,
    Problem,
    Refused,
    as_refused,
    counted,
)
from dnsblock.inputs import Inputs, Present, ReadLists
from dnsblock.listeners import Bound, LandingSockets, bind
from dnsblock.lists import records
from dnsblock.lists.history.facts import Published
from dnsblock.lists.lists import NONE, Lists
from dnsblock.lists.reader import Rejection
from dnsblock.lists.rollback import lists_of
from dnsblock.lists.store import Store
from dnsblock.log import event
from dnsblock.notify import notify
from dnsblock.orders.intake import RefusedDocument
from dnsblock.orders.order import Order
from dnsblock.orders.records import Fact
from dnsblock.orders.refusals import Refusals
from dnsblock.policy.changes import Changes, Enforced, changes_between
from dnsblock.policy.engine_settings import engine_settings
from dnsblock.policy.recorder import Recorder
from dnsblock.policy.snapshot import Draft, Policy
from dnsblock.policy.zones import compile_lists, latest
from dnsblock.principal import Principal
from dnsblock.startup import Startup

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

PROBLEMS_LOGGED = 3  # of a failed publish, in one line
ORDER_MS = 50  # for so long, worker threads make way for a publish
PARTLY_REFUSED = "partly_refused"  # a document or a list; everything else was published


@dataclass(frozen=True, slots=True)
class _Committed:
    """The result of a commit: everything in it is recorded and in force."""

    bound: Bound
    policy: Policy
    lists: Lists
    notes: tuple[str, ...]
    failure: Exception | None  # why new lists could not be recorded; everything else is done
    accepted: tuple[Order, ...]


class Observer(Protocol):
    """Counts publishes; the metrics of the daemon."""

    def published(self, seconds: float | None, *, clears: bool) -> None:
        """Counts a success. `clears`: it covers the input of the last failure."""

    def failed(self, reason: str) -> None:
        """A publish failed: `refused`, `partly_refused`, `unwritable` or `internal`."""

    def rejected(self, zone: str, code: str) -> None:
        """A guard rejected the content of a list."""

    def follow(self, lists: Iterable[str], zones: Iterable[Zone]) -> None:
        """These lists are read, and these zones are configured."""


class _Rejections:
    """Records each rejection of a list once, and counts it."""

    def __init__(self, lists: Lists, observer: Observer) -> None:
        self._observer = observer
        for zone, rejection in lists.rejections.items():
            self._note(lists, zone, rejection)
        self._noted = lists.rejections

    async def record(self, lists: Lists, generations: int) -> None:
        """After a read of lists: records rejections, and stores the content of the accepted lists."""
        for zone, rejection in lists.rejections.items():
            if self._noted.get(zone) is not rejection:
                await asyncio.to_thread(self._note, lists, zone, rejection)
        self._noted = lists.rejections
        if any(listed.files is not None for listed in lists.listed.values()):
            await asyncio.to_thread(records.store_content, lists, generations)

    def _note(self, lists: Lists, zone: str, rejection: Rejection) -> None:
        if rejection.is_unfetched:
            return
        records.record_rejection(lists, zone, rejection)
        for finding in rejection.findings:
            self._observer.rejected(zone, finding.code)


class Publisher:
    """Holds the state in force, and is the only way to change it.

    `take_over` applies the process settings of a new configuration: sockets, log, limits of HTTP listeners.
    """

    def __init__(
        self,
        started: Startup,
        engine: Engine,
        observer: Observer,
        take_over: Callable[[Bound, Config], Awaitable[None]],
        http_endpoints: Callable[[], Mapping[str, str | None]],
        *,
        landing: LandingSockets,
    ) -> None:
        self.recorder: Recorder = started.recorder
        self.store: Store = started.store
        self.config, self.lists, self.policy = started.draft.config, started.draft.lists, started.policy
        self.inbox: tuple[RefusedDocument, ...] = started.inbox
        self.refusals = Refusals()
        self.refusals.count(self.inbox)
        self.published_at = started.at
        self.last_publish = _last_at_startup(started)
        self.inputs = Inputs(started.draft)
        self.ahead = Ahead(self.inputs.compiler_at_work)
        self.has_published = asyncio.Event()  # wakes the task that waits for the next scheduled change
        self.is_stopping = False
        self.may_have_orders = asyncio.Event()  # wakes the task that compares status statements
        self.may_export = asyncio.Event()  # wakes the task that keeps exports current
        self._engine, self._observer = engine, observer
        self._take_over, self._http_endpoints = take_over, http_endpoints
        self.landing = landing  # the sockets in use
        self.rules = started.draft.rules
        self._publishing = asyncio.Lock()
        self._enforced = started.recorder.ledger.position  # the enforced part of the ledger
        self._rejections = _Rejections(self.lists, observer)
        self._observer.follow(self.lists.listed, self.config.zones)

    @property
    def entries(self) -> int:
        """Names that are enforced, over all zones."""
        return self.policy.snapshot.entries

    @property
    def summary(self) -> str:
        """One line for `systemctl status`."""
        return f"serial {self.policy.snapshot.serial}, {counted(self.entries, 'name')} enforced"

    @property
    def is_owed(self) -> bool:
        """Whether the ledger holds more than is enforced: a publish failed after it was recorded."""
        return self.recorder.ledger.position != self._enforced and not self._publishing.locked()

    async def publish(self, change: Change) -> Served:
        """Makes a change and enforces it. Raises `Refused`.

        A rejected list or a refused document delays nothing else: everything else is published first.
        """
        started = time.monotonic()
        if isinstance(change, RollBack):
            return await self._roll_back(change, started)
        try:
            if not isinstance(change, ClockTick):
                self.recorder.check()
            match change:
                case Reload():
                    async with self.inputs.reading:
                        return await self._reload(change, started)
                case ListsChanged():
                    return await self._read_lists(change, started)
                case RecordsChanged() | LedgerEntries() | ClockTick():
                    return await self._serve(change, None, started)
        except Exception as err:
            refused = as_refused(err)
            self._note_failure(change, err, refused)
            raise refused from err

    # ------- One change -------

    async def _reload(self, change: Reload, started: float) -> Served:
        """If lists are being read, publishes the orders first."""
        served: Served | None = None
        if self.inputs.listing.locked():
            served = await self._serve(change, await self._read(reads_lists=False), started)
        async with self.inputs.listing_or_not() as reads_lists:
            if served is None or reads_lists:
                done = await self._serve(change, await self._read(reads_lists=reads_lists), started)
                served = done if served is None else served.then(done)
                if reads_lists:
                    await self._rejections.record(self.lists, self.config.history.generations)
            _refuse_rest(self.lists, served, self.inbox, None)
            return served

    async def _read(self, *, reads_lists: bool) -> Draft:
        return await asyncio.to_thread(self.inputs.read, self._present, reads_lists)

    def _present(self) -> Present:
        known, now = self.recorder.ledger.orders, self.recorder.now()
        return Present(self.config, self.lists, self.policy.lists, known, now)

    async def _read_lists(self, change: ListsChanged, started: float) -> Served:
        """Other changes can be published while the lists are read."""
        async with self.inputs.listing:
            read = await asyncio.to_thread(self.inputs.read_lists, self._present, change.zone)
            done = await self._serve(change, read, started)
            await self._rejections.record(self.lists, self.config.history.generations)
            _refuse_rest(self.lists, done, (), change.zone)
            return done

    async def _roll_back(self, change: RollBack, started: float) -> Served:
        self.recorder.check()
        async with self.inputs.listing:
            now, lists, config = utc_now(), self.lists, self.config
            old = await asyncio.to_thread(lists_of, change.serial, change.note, lists, config, now)
            zones = await asyncio.to_thread(compile_lists, config, old, self.policy.lists)
            read = ReadLists(config, old, tuple(old.listed), zones)
            done = await self._serve(change, read, started)
            await asyncio.to_thread(records.store_content, self.lists, self.config.history.generations)
            return done

    async def accept_restore(self, by: Principal, reason: str) -> Served:
        """Accepts a ledger that lacks acknowledged records, or a clock that is behind it; then publishes.

        Raises `Refused`.
        """
        async with self._publishing:
            try:
                await asyncio.to_thread(self.recorder.accept_restore, reason, by)
            except (HistoryUnwritable, LedgerUnwritable, OSError) as err:
                raise as_refused(err) from err
        served = await self.publish(ClockTick(by, "accept-restore"))
        await self.record(lambda: self.settle("accept-restore", None))
        return served.then(await self.publish(Reload(by, "accept-restore")))

    # ------- Commit: ledger, lists, serial, engine -------

    def draft(self) -> Draft:
        """The state in force, as a draft. It compiles no list, so an uncompilable list delays no order."""
        references = self.inputs.references
        return Draft(self.config, self.lists, self.rules, (), references=references, keeps_list_zones=True)

    async def _serve(self, change: Change, read: Draft | ReadLists | None, started: float) -> Served:
        """Commits a change and makes it the state of this process. One at a time."""
        async with self._publishing:
            if self.is_stopping:
                raise Refused([Problem("dnsblock", None, "", "is stopping: nothing is published")])
            self._engine.make_way(ORDER_MS)
            # Created under the lock: an older draft would revert the publish that this one waited for.
            draft = read if isinstance(read, Draft) else self.draft()
            if isinstance(change, LedgerEntries):
                change.check(self.recorder.ledger.orders)
                draft = _with_entries(draft, change)
            # If another publish came first, the next one compiles the zone.
            if isinstance(change, RecordsChanged) and self.policy.lists.get(change.zone) is change.before:
                draft = replace(draft, list_zones={change.zone: change.after})
            if isinstance(read, ReadLists):
                lists = read.merged_into(self.lists, self.config)
                notes = tuple(note for note in lists.notes if note not in self.lists.notes)
                draft = replace(
                    draft, lists=lists, notes=notes, list_zones=read.list_zones, keeps_list_zones=False
                )
            if isinstance(change, Reload | ListsChanged):
                zones = latest(draft.config, self.policy.lists, draft.list_zones, draft.lists)
                draft = replace(draft, list_zones=zones)
            draft = replace(draft, by=change.by)
            done = await _to_its_end(self._commit, draft, change)
            former, former_lists = self._state(), self.lists
            await self._adopt(draft, done)
            changes = await asyncio.to_thread(changes_between, former, self._state(), done.accepted)
            problems = (*draft.problems, *done.bound.problems)
            snapshot = done.policy.snapshot
            changed = snapshot.serial != former.policy.snapshot.serial
            seconds = time.monotonic() - started
            self._note_success(change, changes, seconds, changed=changed, is_whole=not problems)
            is_new = self.lists.versions != former_lists.versions
            if changed or is_new or done.accepted or isinstance(change, ClockTick | LedgerEntries):
                await _to_its_end(self.settle, change.reason, former_lists, former.policy)
            elif draft.refused:
                await _to_its_end(self._write, partial(self.recorder.record_refusals, self.inbox, change.by))
            self.ahead.has_settled.set()
            if done.failure is not None:
                raise done.failure
            facts = (snapshot.serial, snapshot.digest, self.entries, changed, draft.restart_needed)
            return Served(*facts, done.notes, problems, changes, self.config.time_zone.key)

    async def record(self, write: Callable[[], object]) -> None:
        """Runs `write` between two publishes: it records events that change nothing that is enforced."""
        async with self._publishing:
            await _to_its_end(self._write, write)

    def _write(self, write: Callable[[], object]) -> None:
        is_enforced = self.recorder.ledger.position == self._enforced
        write()
        if is_enforced:
            self._enforced = self.recorder.ledger.position

    def _state(self) -> Enforced:
        return Enforced(self.config, self.lists, self.policy, self.inputs.files)

    def _commit(self, draft: Draft, change: Change) -> _Committed:
        """Compiles for the present time, records, then enforces. An unrecorded change is never enforced.

        The ledger comes first: if it cannot be written, no list version is recorded that is not enforced.
        Lists that cannot be recorded stay at their previous versions and delay no order; an address that
        cannot be listened on stays, too.
        """
        self.recorder.begin(is_tick=isinstance(change, ClockTick))
        bound = bind(draft.config, self.config, self._engine, self._http_endpoints(), self.landing)
        try:
            return self._commit_bound(replace(draft, config=bound.config), bound)
        except BaseException:
            bound.close()
            raise

    def _commit_bound(self, draft: Draft, bound: Bound) -> _Committed:
        if not draft.has_read_lists:
            # The current lists: others may have been published since the draft was read.
            draft = replace(draft, lists=self.lists.read(draft.config, utc_now(), only=NONE))
        now = self.recorder.now()
        draft = draft.after(self.recorder.ledger.orders, now)
        zones, former = {**self.policy.lists, **draft.list_zones}, self.ahead.nearest(self.policy, now)
        policy = self.recorder.compile(draft, zones, keeps_list_zones=draft.keeps_list_zones, former=former)
        self._engine.check(policy.snapshot)
        failure, lists = None, draft.lists
        with self.recorder.appended(draft) as done:
            try:
                records.accept(lists)
            except (HistoryUnwritable, OSError, Refused) as err:
                failure, lists = err, self.lists.instead_of(draft.config)
                again = replace(done, lists=lists)
                policy = self.recorder.compile(again, self.policy.lists, keeps_list_zones=True, former=former)
            policy, notes = self.recorder.record(done, policy)
            self._engine.publish(policy.snapshot, done.rules, engine_settings(done.config), bound.listening)
        return _Committed(bound, policy, lists, notes, failure, done.accepted)

    async def _adopt(self, draft: Draft, done: _Committed) -> None:
        """Makes the committed state the state of this process."""
        former = self.config
        self.config, self.lists, self.policy = done.bound.config, done.lists, done.policy
        self.rules, self.landing = draft.rules, done.bound.landing
        self.inputs.adopt(draft)
        if draft.refused is not None:
            self.inbox = draft.refused
            self.refusals.count(self.inbox)
        self._enforced = self.recorder.ledger.position
        self._observer.follow(self.lists.listed, self.config.zones)
        await self._take_over(done.bound, former)
        self.has_published.set()
        self.may_have_orders.set()
        self.may_export.set()

    async def note(self, facts: Sequence[Fact], by: Principal) -> bool:
        """Records events that change nothing in force. False if that failed."""
        done: list[bool] = []
        await self.record(lambda: done.append(self.recorder.note(facts, by)))
        return all(done)

    def settle(self, reason: str, former: Lists | None, former_policy: Policy | None = None) -> None:
        """Records that a snapshot is in force, and removes unneeded files of the former lists."""
        snapshot = self.policy.snapshot
        published = Published(
            serial=snapshot.serial,
            digest=snapshot.digest,
            published_at=self.published_at,
            reason=reason,
            versions=self.lists.versions,
            derived_at=self.policy.at,
            ledger=None if self.recorder.mismatch else self.recorder.ledger.position,
        )
        facts = (self.policy, former_policy, self.lists, self.inbox)
        self.recorder.record_effects(*facts, is_start=former is None and reason == "start")
        self._enforced = self.recorder.ledger.position
        self.recorder.settle()
        records.served(self.lists, published, self.config.history, former)

    # ------- Log and metrics -------

    def _note_success(
        self, change: Change, changes: Changes, seconds: float, *, changed: bool, is_whole: bool
    ) -> None:
        """A success clears the last failure only if it has read the same input, and all options apply."""
        last = self.last_publish
        self.published_at = utc_now() if changed else self.published_at
        was_otherwise = change.scope != "all" and not last.ok and last.scope != change.scope
        clears = is_whole and not was_otherwise
        self._observer.published(seconds, clears=clears)
        if clears:
            self.last_publish = LastPublish(True, self.policy.at, change.reason, change.scope)
        _log_success(change, changes, self.policy, changed=changed)
        notify(STATUS=self.summary)

    def _note_failure(self, change: Change, err: Exception, refused: Refused) -> None:
        failed = change.scope
        if isinstance(err, PartlyRefused):
            failed = "all" if self.inbox or err.of_configuration else "lists"
        self.last_publish = LastPublish(False, utc_now(), change.reason, failed, str(refused))
        self._observer.failed(_kind_of(err))
        is_partly = isinstance(err, PartlyRefused)
        _log_failure(change, refused, self.policy, self.config, is_partly=is_partly)


def _with_entries(draft: Draft, change: LedgerEntries) -> Draft:
    draft = replace(draft, new=change.new, signed=change.signed, judged_in=change.judged_in)
    return replace(draft, notes=change.notes, allowed=change.allowed, decisions=change.decisions)


async def _to_its_end(function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
    """The result of a function in a thread. If this is cancelled, it ends first.

    A recorded change is enforced before the lock is released, and two threads never write to the ledger.
    """
    running = asyncio.create_task(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await running
        raise


def _log_success(change: Change, changes: Changes, policy: Policy, *, changed: bool) -> None:
    snapshot = policy.snapshot
    facts = {"changed": changed, "entries": snapshot.entries, "digest": snapshot.digest}
    summary = f": {changes.summary}" if changes.summary else ""
    text = f"serving serial {snapshot.serial}{summary}"
    event(logging.INFO, text, reason=change.reason, by=change.by, **facts)


def _log_failure(
    change: Change, refused: Refused, policy: Policy, config: Config, *, is_partly: bool
) -> None:
    serial = policy.snapshot.serial
    text = f"not published, serial {serial} stays in force"
    if is_partly:
        text = f"serial {serial} is published without the refused input"
    found = refused.first(PROBLEMS_LOGGED, f"dnsblock check -c {config.path}")
    count = len(refused.problems)
    event(logging.ERROR, f"{text}: {found}", reason=change.reason, by=change.by, problems=count)


def _last_at_startup(started: Startup) -> LastPublish:
    at, inbox, mismatch = started.at, started.inbox, started.recorder.mismatch
    if mismatch is not None:
        return LastPublish(False, at, "start", "all", f"nothing is published: {mismatch}")
    problems = [problem for one in inbox for problem in one.problems]
    return LastPublish(not inbox, at, "start", "all", str(Refused(problems)) if inbox else None)


def _refuse_rest(lists: Lists, served: Served, inbox: Iterable[RefusedDocument], only: str | None) -> None:
    """Raises `PartlyRefused` if documents or lists were refused; everything else is published."""
    problems = [*served.problems, *(problem for one in inbox for problem in one.problems)]
    for zone, rejection in lists.rejections.items():
        if only in (None, zone) and not rejection.is_unfetched:
            problems += rejection.problems
    if problems:
        raise PartlyRefused(problems, served.facts(), of_configuration=bool(served.problems))


def _kind_of(err: Exception) -> str:
    """The label of a failed publish in metrics."""
    if isinstance(err, PartlyRefused) and not err.of_configuration:
        return PARTLY_REFUSED
    if isinstance(err, Refused):
        return "refused"
    return "unwritable" if isinstance(err, LedgerUnwritable | HistoryUnwritable | OSError) else "internal"
