"""The process, top to bottom: start, publish, reload, stop.

Everything that changes what is enforced enters through `publish`: SIGHUP, the control API, and the clock when
an order takes effect or expires. One at a time, under one lock; on any error what was served is served on.
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal

from dnsblock import handover
from dnsblock._engine import Engine, Progress
from dnsblock.config import Config, load, load_again
from dnsblock.errors import (
    HistoryUnwritable,
    LedgerUnwritable,
    PartlyRefused,
    Problem,
    Refused,
    as_refused,
)
from dnsblock.http.api import control_app
from dnsblock.http.connections import connections_of
from dnsblock.http.metrics import PARTLY_REFUSED, Metrics, metrics_app
from dnsblock.http.server import bind_control, serve
from dnsblock.http.traffic import Traffic
from dnsblock.listeners import Bound, MetricsServer, bind, bind_engine
from dnsblock.listeners import Metrics as MetricsSocket
from dnsblock.lists import records
from dnsblock.lists.corrupt import replace_damaged
from dnsblock.lists.files import sha256_of, text_of
from dnsblock.lists.guards import NO_LIST
from dnsblock.lists.history.facts import Approval, Published
from dnsblock.lists.lists import NONE, Lists
from dnsblock.lists.reader import NotTaken
from dnsblock.lists.refresh import Hooks, Refresher, fetch_missing
from dnsblock.lists.rollback import lists_of
from dnsblock.lists.store import Store
from dnsblock.log import event, set_up
from dnsblock.notify import is_heard, notify, reloading
from dnsblock.orders.annulments import annul
from dnsblock.orders.book import Mismatch
from dnsblock.orders.intake import RefusedDocument
from dnsblock.orders.order import Order
from dnsblock.orders.records import Annulment, Position
from dnsblock.orders.submission import Submitted, examine_submitted
from dnsblock.policy import Counts, Rules, Snapshot
from dnsblock.policy.changes import Changes, Enforced, changes_between
from dnsblock.policy.engine_settings import engine_rules, engine_settings, read_secrets, worker_count
from dnsblock.policy.explain import Explanation, explain, explain_address
from dnsblock.policy.past import NameEvent, Past, scheduled
from dnsblock.policy.recorder import Recorder
from dnsblock.policy.snapshot import NO_FILES, Draft, NewFacts, Policy, missing_answers, read
from dnsblock.policy.trial import Trials
from dnsblock.policy.verdicts import Verdict, verdicts
from dnsblock.privileges import drop
from dnsblock.process import RESTART_SIGNAL, give_way, signals_into
from dnsblock.values import Endpoint

TICK_SECONDS = 1.0  # how often engine events are taken, and how late a stepped clock is noticed at most
LISTS_PATIENCE = 0.25  # seconds that a reload waits until lists are read already; its orders do not
PROBLEMS_LOGGED = 3  # of a publish that failed, in one line
CLOCK = "clock"  # the reason of a publish for which only the time has changed
What = Literal["all", "lists", "ledger"]  # what a publish reads


@dataclass(frozen=True, slots=True)
class LastPublish:
    """How the latest attempt to publish ended."""

    ok: bool
    at: datetime
    reason: str  # what asked for it
    what: "What"  # what was read for it
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """What a caller of `publish` learns."""

    serial: int
    digest: str
    entries: int
    changed: bool
    restart_needed: tuple[str, ...]  # options whose new values take a restart
    notes: tuple[str, ...]  # what is worth a look, although nothing is wrong
    problems: tuple[Problem, ...]  # options whose new values cannot be used, and which keep the old ones
    changes: Changes
    time_zone: str  # in which times are shown

    def facts(self) -> dict[str, Any]:
        """The same as JSON, for the control API."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "problems"}
        return own | {"changes": self.changes.as_json()}

    def then(self, next_one: "Served") -> "Served":
        """Both publishes of one call."""
        changed, notes = self.changed or next_one.changed, (*self.notes, *next_one.notes)
        changes = self.changes.then(next_one.changes)
        return replace(next_one, changed=changed, notes=notes, changes=changes)


@dataclass(frozen=True, slots=True)
class _ReadLists:
    """Lists that were read while something else may have been published."""

    config: Config  # by which they were read
    lists: Lists
    zones: tuple[str, ...]  # those that were read

    def beside(self, now: Lists, config: Config) -> Lists:
        """The lists of now, with these in their places; not those of zones that are others by now."""
        read = {zone.name: zone for zone in self.config.zones if zone.name in self.zones}
        same = [zone.name for zone in config.zones if read.get(zone.name) == zone]
        return now.with_zones_of(self.lists, same)


@dataclass(frozen=True, slots=True)
class _Done:
    """What a publish has done."""

    bound: Bound
    policy: Policy
    lists: Lists
    notes: tuple[str, ...]
    failure: Exception | None  # why new lists could not be put on record; all else is done
    accepted: tuple[Order, ...]


class Daemon:
    """One running dnsblock."""

    restart_needed: tuple[str, ...]  # options whose new values wait for a restart
    _enforced: Position | None  # how far the ledger went when it was enforced last

    def __init__(self, config: Config) -> None:
        """Opens the ledger, compiles what is in force, binds; answers nothing yet. Raises `Refused`."""
        inherited = handover.Inherited()
        self.config = config
        self.started_at = self.published_at = datetime.now(UTC)
        self.metrics, self.http = Metrics(self), connections_of(config)
        self._hangups: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._stops: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._reading, self._listing = asyncio.Lock(), asyncio.Lock()
        # Held by the threads that read, also after their callers gave up.
        self._reader_at_work, self._lister_at_work = threading.Lock(), threading.Lock()
        self.reading: Progress | None = None  # of lists, while some are read
        self._publishing = asyncio.Lock()
        self._has_new = asyncio.Event()  # versions of lists
        self._has_published = asyncio.Event()  # something may start or end sooner than the clock's task knows
        self._stopping, self.restart_needed, self._enforced = False, (), None
        self._sockets = contextlib.ExitStack()
        self.recorder = Recorder(config)
        try:
            self.store = Store(config.state)
            self._sockets.callback(self.store.close)
            self.store.sweep()
            self.store.sweep_halves()
            self.recorder.compare(self.store)
            fetched = fetch_missing(config, self.store)
            draft = self._read_at_start()
            self.lists, self._rules, self._secrets = draft.lists, draft.rules, draft.secrets
            self._files = draft.files or NO_FILES
            self.inbox = _inbox_at_start(draft, has_ledger=bool(self.recorder.ledger.records))
            self.policy = self.recorder.compile(draft)
            self.engine = bind_engine(config, inherited)
            self._kept = handover.Store(inherited)
            self.trials = Trials(self.engine)
            # All that can be refused comes before the record: a start that fails has accepted nothing.
            self.control = self._sockets.enter_context(bind_control(config.control))
            metrics = MetricsSocket.bind(config.metrics)
            self._sockets.callback(metrics.close)
            self.metrics_server = MetricsServer(metrics_app(self.metrics), metrics, self.http["metrics"])
            drop(config, [descriptor for _, some in self.engine.sockets() for descriptor in some])
            self._record_start(draft)
        except BaseException as err:
            self._sockets.close()
            self.recorder.close(in_order=False)
            if isinstance(err, OSError):
                raise as_refused(err) from err
            raise
        self.last_publish = _startup(self.started_at, self.inbox, self.recorder.mismatch)
        self.traffic = Traffic(self.counters())
        self.metrics.follow(self.lists.listed, self.feeds)
        for zone in fetched:
            self.metrics.fetched(zone, "ok")
        self.refresher = Refresher(self.store, self._hooks(), fetched)
        if not config.zones:
            event(logging.WARNING, "no zones are configured: nothing is blocked")

    def _read_at_start(self) -> Draft:
        """What is to be enforced first. After a mismatch of the ledger: what was in force last."""
        config, now, lists = self.config, self.recorder.now(), Lists(self.store)
        if self.recorder.mismatch is None:
            return read(config, self.recorder.ledger.orders, lists, now)
        secrets = tuple(read_secrets(config.cookies.secrets))
        rules = engine_rules(config, secrets)
        return Draft(config, lists.last_enforced(config, now), rules, (), secrets=secrets)

    def _record_start(self, draft: Draft) -> None:
        draft = self.recorder.append(draft)
        try:
            records.accept(draft.lists)
        except (HistoryUnwritable, OSError, Refused) as err:
            event(
                logging.ERROR, f"new lists are not on record, and the previous versions are enforced: {err}"
            )
            self.lists = draft.lists.last_enforced(draft.config, datetime.now(UTC))
            draft = replace(draft, lists=self.lists)
            self.policy = self.recorder.compile(draft, self.policy.lists)
        self.policy, _ = self.recorder.record(draft, self.policy, is_start=True)
        self._enforced = self.recorder.ledger.position
        for refused in draft.lists.not_taken.items():
            self._note_refusal(*refused)
        self._told = draft.lists.not_taken

    # ------- The life of the process

    async def run(self, ready: Callable[["Daemon"], None]) -> None:
        """Serves until SIGTERM or SIGINT; calls `ready` once queries are answered. Raises `Refused`."""
        try:
            async with _servers(self):
                # Worker threads inherit the blocked signals, so that no signal interrupts their system calls.
                with signals_into(self._hangups, self._stops):
                    _start(self.engine, self.policy.snapshot, self._rules)
                    successor = handover.Successor()
                give_way()
                self.metrics.published(None, clears=self.recorder.mismatch is None)
                await asyncio.to_thread(self._settle, "start", None)
                async with self._listing:
                    await asyncio.to_thread(records.keep_texts, self.lists, self.config.history.generations)
                    await asyncio.to_thread(records.keep_missing_texts, self.lists, self.config)
                self._kept.keep(self.engine.sockets())
                notify(READY=1, STATUS=self.summary)
                event(logging.INFO, "ready", serial=self.policy.snapshot.serial, entries=self.entries)
                ready(self)
                async with asyncio.TaskGroup() as tasks:
                    follow_lists = self.refresher.run(lambda: self.config)
                    follow = (self._follow_clock(), self._follow_hangups(), follow_lists)
                    follow_damage = replace_damaged(
                        lambda: self.lists,
                        lambda reason, zone: self.publish(reason, "lists", zone),
                        self.metrics.corrupt,
                    )
                    followers = [
                        tasks.create_task(task) for task in (*follow, follow_damage, self._follow_changes())
                    ]
                    is_restart = await self._asked_to_restart()
                    self._stopping = True
                    for follower in followers:
                        follower.cancel()
                self.trials.stop()
                self._leave(successor if is_restart else None)
                # Status and metrics go on until the last query is answered.
                await self._stop_engine()
        finally:
            await asyncio.to_thread(self.engine.stop, 0)
            self._sockets.close()
            self.recorder.close(in_order=True)
        if is_restart:
            successor.begin()
        event(logging.INFO, "stopped")
        readers = (self._reader_at_work, self._lister_at_work, self.trials.reader_at_work)
        if any(reader.locked() for reader in readers):
            # A reader may wait for a slow disk for ever, and nothing that counts is open any more.
            os._exit(0)

    async def _asked_to_restart(self) -> bool:
        """Waits for a signal that ends this process, and whether another one shall take its place."""
        while True:
            if await self._stops.get() != RESTART_SIGNAL:
                return False
            try:
                await asyncio.to_thread(load, self.config.path)
                return True
            except Refused as err:
                event(
                    logging.ERROR, f"not restarted, since it would not start: {err}", problems=err.as_json()
                )

    def _leave(self, successor: handover.Successor | None) -> None:
        """Says that it ends, and leaves the sockets to the next process, if there is to be one."""
        if successor is not None:
            successor.leave(self.engine.sockets())
            reloading()
            event(logging.INFO, "restarting: answering what was asked")
        else:
            notify(STOPPING=1)
            event(logging.INFO, "stopping: answering what was asked; a second signal ends it at once")
        if successor is not None or is_heard():
            handover.make_room(self.engine.sockets())

    async def _follow_hangups(self) -> None:
        """Publishes for each SIGHUP, one after the other."""
        while True:
            received = await self._hangups.get()
            reloading()
            # What is wrong was logged and counted by publish; what was served is served on.
            with contextlib.suppress(Refused):
                await self.publish(received.name)
            notify(READY=1)

    async def _follow_clock(self) -> None:
        """Publishes when an order becomes effective or expires, without any signal."""
        while True:
            self._has_published.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(self._seconds_to_next_change(), TICK_SECONDS))):
                    await self._has_published.wait()
            self._watch_engine()
            # A clock that was put back undoes what was in force too early, up to the last record.
            is_set = self.recorder.watch_clock() or self.recorder.now() < self.policy.at
            # What was recorded by a publish that failed afterwards is enforced all the same.
            is_owed = self.recorder.ledger.position != self._enforced and not self._publishing.locked()
            if is_set or is_owed or self._seconds_to_next_change() <= 0:
                try:
                    await self.publish(CLOCK, "ledger")
                except Refused:
                    # What was served is served on, and the next tick tries again.
                    await asyncio.sleep(TICK_SECONDS)

    async def _follow_changes(self) -> None:
        """Keeps by name what new versions of lists have changed."""
        while True:
            self._has_new.clear()
            await asyncio.to_thread(records.sort_changes, self.store, lambda: self._stopping)
            await self._has_new.wait()

    def _seconds_to_next_change(self) -> float:
        due = self.policy.state.next_change_at
        return float("inf") if due is None else (due - self.recorder.now()).total_seconds()

    def _watch_engine(self) -> None:
        if self.traffic.is_due():
            self.traffic.sample(self.counters())
        for text in self.engine.take_events():
            event(logging.WARNING, text)
        if self.engine.running() < self.workers:
            # The kernel would go on giving the dead thread's sockets queries that nobody reads.
            event(logging.CRITICAL, "a worker thread has ended; exiting so that the service restarts")
            os._exit(1)

    async def _stop_engine(self) -> None:
        stop = asyncio.create_task(asyncio.to_thread(self.engine.stop, self.config.stop_timeout_ms))
        second = asyncio.create_task(self._asked_to_stop())
        await asyncio.wait({stop, second}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            event(logging.WARNING, "stopping at once, as asked twice")
            os._exit(0)
        second.cancel()

    async def _asked_to_stop(self) -> None:
        while await self._stops.get() == RESTART_SIGNAL:
            pass  # it restarts already, or does not any more

    # ------- Publishing

    async def publish(
        self, reason: str, what: "What" = "all", only: str | None = None, facts: NewFacts | None = None
    ) -> Served:
        """Reads and compiles what changed, serves it, and returns the serial now being served.

        With "ledger" only the time has changed: inbox and lists are not looked at. Reading has a lock of its
        own, so that nothing wrong or slow there can keep a block beyond its end. With "lists" only lists are
        read, or the one of the zone `only`. A list that is not taken keeps nothing else from being published;
        it is refused when all that is good is served. Raises `Refused`; then the rest is served on.
        """
        started = time.monotonic()
        try:
            if what == "ledger":
                if facts is not None:
                    self.recorder.check()
                return await self._publish(reason, what, facts, (), started)
            self.recorder.check()
            if what == "lists":
                return await self._publish_lists(reason, only, started)
            async with self._reading:
                return await self._publish_all(reason, started)
        except Exception as err:
            refused = as_refused(err)
            failed: What = what
            if isinstance(err, PartlyRefused):
                failed = "all" if self.inbox or err.of_configuration else "lists"
            self.last_publish = LastPublish(False, datetime.now(UTC), reason, failed, str(refused))
            self.metrics.failed(_kind_of(err))
            serial = self.policy.snapshot.serial
            text = f"not published, serial {serial} is served on"
            if isinstance(err, PartlyRefused):
                text = f"serial {serial} is served, without what is refused"
            found = refused.first(PROBLEMS_LOGGED, f"dnsblock check -c {self.config.path}")
            event(logging.ERROR, f"{text}: {found}", reason=reason, problems=len(refused.problems))
            raise refused from err

    async def _publish_all(self, reason: str, started: float) -> Served:
        """Publishes what configuration, inbox and lists say now; orders first where lists are read."""
        served: Served | None = None
        if self._listing.locked():
            draft, restart_needed = await asyncio.to_thread(self._read, False)
            served = await self._publish(reason, "all", draft, restart_needed, started)
        async with self._listing_or_not() as reads_lists:
            if served is None or reads_lists:
                draft, restart_needed = await asyncio.to_thread(self._read, reads_lists)
                done = await self._publish(reason, "all", draft, restart_needed, started)
                served = done if served is None else served.then(done)
                await self._conclude(reads_lists)
            self._refuse_rest(served, self.inbox, None)
            return served

    async def _publish_lists(self, reason: str, only: str | None, started: float) -> Served:
        """Publishes what lists say now; orders are published beside it, as often as they come."""
        async with self._listing:
            read = await asyncio.to_thread(self._read_lists, only)
            done = await self._publish(reason, "lists", read, (), started)
            await self._conclude(reads_lists=True)
            self._refuse_rest(done, (), only)
            return done

    @contextlib.asynccontextmanager
    async def _listing_or_not(self) -> AsyncIterator[bool]:
        """The right to read lists; False where they are read already, and are not waited for.

        An order must not wait until ten million names are compiled: these are published when they are.
        """
        try:
            async with asyncio.timeout(LISTS_PATIENCE):
                await self._listing.acquire()
        except TimeoutError:
            yield False
            return
        try:
            yield True
        finally:
            self._listing.release()

    async def _conclude(self, reads_lists: bool) -> None:
        """After lists were read: puts on record what was not taken, and keeps the texts of what was."""
        if not reads_lists:
            return
        for zone, not_taken in self.lists.not_taken.items():
            if self._told.get(zone) is not not_taken:
                await asyncio.to_thread(self._note_refusal, zone, not_taken)
        self._told = self.lists.not_taken
        if any(listed.text is not None for listed in self.lists.listed.values()):
            await asyncio.to_thread(records.keep_texts, self.lists, self.config.history.generations)

    def _refuse_rest(self, served: Served, inbox: Iterable[RefusedDocument], only: str | None) -> None:
        """Names what is refused, when all that is good is served. Raises `PartlyRefused`."""
        problems = [*served.problems, *_problems_of(inbox).problems]
        for zone, not_taken in self.lists.not_taken.items():
            if only in (None, zone) and not not_taken.is_to_come:
                problems += not_taken.problems
        if problems:
            raise PartlyRefused(problems, served.facts(), of_configuration=bool(served.problems))

    async def roll_back(self, serial: int, reason: str) -> Served:
        """Goes back to the lists of an earlier serial, as a new one. Raises `Refused`."""
        started = time.monotonic()
        self.recorder.check()
        async with self._listing:
            now = datetime.now(UTC)
            lists = await asyncio.to_thread(lists_of, serial, reason, self.lists, self.config, now)
            read = _ReadLists(self.config, lists, tuple(lists.listed))
            done = await self._publish(f"rollback to serial {serial}", "lists", read, (), started)
            await asyncio.to_thread(records.keep_texts, self.lists, self.config.history.generations)
            return done

    async def accept_source(self, zone: str, sha256: str, who: str, reason: str) -> Served:
        """Takes the text of a list that was refused, by its digest. Raises `Refused`."""
        self.recorder.check()
        not_taken = self.lists.not_taken.get(zone)
        if (not_taken is None or not_taken.source_sha256 != sha256) and zone in self.lists.zones:
            # `dnsblock check` may have seen the file before the daemon has looked at it.
            with contextlib.suppress(Refused):
                await self.publish(f"accepting list {zone}", "lists", zone)
            not_taken = self.lists.not_taken.get(zone)
        if not_taken is None or not sha256 or not_taken.source_sha256 != sha256:
            why = "no content with this digest is rejected now; `dnsblock source list` shows which are"
            raise Refused([Problem(f"list {zone}", None, sha256, why)])
        codes = tuple(guarded.code for guarded in not_taken.guarded)
        if set(codes) & set(NO_LIST):
            why = f"there is no list to accept ({', '.join(codes)}): see `dnsblock source list`"
            raise Refused([Problem(f"list {zone}", None, sha256, why)])
        approval = Approval(zone, sha256, not_taken.options, codes, who, reason, datetime.now(UTC))
        async with self._listing:
            await asyncio.to_thread(self._approve, approval)
        event(
            logging.WARNING, f"list {zone}: {sha256} is accepted by hand", zone=zone, who=who, reason=reason
        )
        return await self.publish(f"accepted list {zone}", "lists", zone)

    def _approve(self, approval: Approval) -> None:
        zone = next(zone for zone in self.config.zones if zone.name == approval.zone)
        if sha256_of(text_of(zone, self.store).files) != approval.source_sha256:
            why = "the text has changed meanwhile: look at the new one"
            raise Refused([Problem(f"list {zone.name}", None, approval.source_sha256, why)])
        with self.store.history() as history:
            history.approve(approval)

    def _read_lists(self, only: str | None) -> "_ReadLists":
        """Reads the lists anew; runs in a thread. Raises `Refused`."""
        with self._lister_at_work, self._read_in_sight() as progress:
            config = self.config
            lists = self.lists.read(config, datetime.now(UTC), progress, only)
            return _ReadLists(config, lists, tuple(lists.zones) if only is None else (only,))

    @contextlib.contextmanager
    def _read_in_sight(self) -> Iterator[Progress]:
        """While lists are read, one reading at a time: who waits can see how far it is."""
        self.reading = Progress()
        try:
            yield self.reading
        finally:
            self.reading = None

    def _hooks(self) -> Hooks:
        return Hooks(
            publish=lambda reason, zone: self.publish(reason, "lists", zone),
            # Of the lists of that moment.
            is_changed=lambda zone, watch: self.lists.is_changed(zone, watch),  # noqa: PLW0108
            fetched=self.metrics.fetched,
        )

    def _note_refusal(self, zone: str, not_taken: NotTaken) -> None:
        if not_taken.is_to_come:
            return
        records.refuse(self.lists, zone, not_taken)
        for guarded in not_taken.guarded:
            self.metrics.rejected(zone, guarded.code)

    def _read(self, reads_lists: bool) -> tuple[Draft, tuple[str, ...]]:
        """Reads everything outside anew; runs in a thread. Raises `Refused`.

        With a configuration file that is refused, orders and lists are read by the settings of before.
        """
        with self._reader_at_work:
            orders, now = self.recorder.ledger.orders, self.recorder.now()
            wanted, problems = load_again(self.config)
            if missing := tuple(missing_answers(wanted, orders, now)):
                wanted, problems = self.config, (*problems, *missing)
            self.restart_needed = restart_needed = _restart_needed(self.config, wanted)
            if restart_needed:
                text = f"new values of these options take a restart: {', '.join(restart_needed)}"
                event(logging.WARNING, text)
            config = wanted.model_copy(update={option: getattr(self.config, option) for option in FIXED})
            reread = partial(
                read, config, orders, self.lists, now, former_secrets=self._secrets, former_files=self._files
            )
            if reads_lists:
                with self._read_in_sight() as progress:
                    draft = reread(progress)
            else:
                draft = reread(reads_lists=False)
            return replace(draft, problems=(*problems, *draft.problems)), restart_needed

    async def _publish(
        self,
        reason: str,
        what: "What",
        read: "Draft | _ReadLists | NewFacts | None",
        restart_needed: tuple[str, ...],
        started: float,
    ) -> Served:
        async with self._publishing:
            if self._stopping:
                raise Refused([Problem("dnsblock", None, "", "is stopping: nothing is published any more")])
            draft = read if isinstance(read, Draft) else Draft(self.config, self.lists, self._rules, ())
            if isinstance(read, NewFacts):
                draft = replace(draft, new=read.new, notes=read.notes, annulments=read.annulments)
            if isinstance(read, _ReadLists):
                lists = read.beside(self.lists, self.config)
                notes = tuple(note for note in lists.notes if note not in self.lists.notes)
                draft = replace(draft, lists=lists, notes=notes)
            before = self.policy.snapshot.serial
            commit = asyncio.create_task(asyncio.to_thread(self._commit, draft))
            try:
                done = await asyncio.shield(commit)
            except asyncio.CancelledError:
                await commit  # never half: what is recorded is enforced, and only then the lock is given up
                raise
            was = Enforced(self.config, self.lists, self.policy, self._files)
            lists_before = self.lists
            is_new = done.lists.versions != lists_before.versions
            await self._take_over(done.bound)
            self.lists, self._rules = done.lists, draft.rules
            self._secrets = draft.secrets or self._secrets
            self._files = self._files if draft.files is None else draft.files
            self.inbox = self.inbox if draft.refused is None else draft.refused
            self.metrics.follow(self.lists.listed, self.feeds)
            for connections in self.http.values():
                connections.limit(self.config.http.max_connections)
            self.policy, self._enforced = done.policy, self.recorder.ledger.position
            self._has_published.set()
            now = Enforced(self.config, self.lists, self.policy, self._files)
            changes = await asyncio.to_thread(changes_between, was, now, done.accepted)
            problems = (*draft.problems, *done.bound.problems)
            self._tell(reason, what, was, started, changes, is_whole=not problems)
            snapshot = done.policy.snapshot
            changed = snapshot.serial != before
            if is_new:
                self._has_new.set()
            if changed or is_new or done.accepted:
                await asyncio.to_thread(self._settle, reason, lists_before)
            if done.failure is not None:
                raise done.failure
            facts = (snapshot.serial, snapshot.digest, self.entries, changed, restart_needed)
            return Served(*facts, done.notes, problems, changes, self.config.time_zone.key)

    async def _take_over(self, bound: Bound) -> None:
        """Goes over to what the new configuration says beside the policy."""
        before, self.config = self.config, bound.config
        if bound.listening is not None:
            self._kept.keep(self.engine.sockets())
        if bound.metrics is not None:
            await self.metrics_server.move(bound.metrics)
        if (before.log, before.time_zone) != (self.config.log, self.config.time_zone):
            set_up(self.config.log, self.config.time_zone)

    def _commit(self, draft: Draft) -> "_Done":
        """Compiles for the time that it is now, records, then enforces: what was never recorded never is.

        The ledger comes first: if it cannot be written, no version of a list is recorded and not enforced.
        Lists that cannot be put on record stay what they were, and keep no order from its time; nor does an
        address that cannot be listened on.
        """
        bound = bind(draft.config, self.config, self.engine, self.metrics_server.endpoint)
        try:
            return self._commit_bound(replace(draft, config=bound.config), bound)
        except BaseException:
            bound.close()
            raise

    def _commit_bound(self, draft: Draft, bound: Bound) -> "_Done":
        if not draft.has_read_lists:
            # Those of now: others may have been published meanwhile.
            lists = self.lists.read(draft.config, datetime.now(UTC), only=NONE)
            draft = replace(draft, lists=lists)
        draft = draft.after(self.recorder.ledger.orders, self.recorder.now())
        policy = self.recorder.compile(draft, self.policy.lists)
        self.engine.check(policy.snapshot)
        draft = self.recorder.append(draft)
        failure: Exception | None = None
        try:
            records.accept(draft.lists)
        except (HistoryUnwritable, OSError, Refused) as err:
            failure = err
            draft = replace(draft, lists=self.lists.instead_of(draft.config))
            policy = self.recorder.compile(draft, policy.lists)
        policy, notes = self.recorder.record(draft, policy)
        self.engine.publish(policy.snapshot, draft.rules, engine_settings(draft.config), bound.listening)
        return _Done(bound, policy, draft.lists, notes, failure, draft.accepted)

    def _settle(self, reason: str, before: Lists | None) -> None:
        """After a snapshot is served: on record, and of the lists of before only as much as shall be kept."""
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
        self.recorder.settle()
        records.served(self.lists, published, self.config.history, before)

    def _tell(
        self, reason: str, what: "What", was: Enforced, started: float, changes: Changes, *, is_whole: bool
    ) -> None:
        """Notes a publish that succeeded. It clears no failure of one that read what this one did not, and
        none if some options keep their former values.
        """
        policy, snapshot = self.policy, self.policy.snapshot
        changed = snapshot.serial != was.policy.snapshot.serial
        self.published_at = datetime.now(UTC) if changed else self.published_at
        was_otherwise = what != "all" and not self.last_publish.ok and self.last_publish.what != what
        hidden = was_otherwise or not is_whole
        self.metrics.published(time.monotonic() - started, clears=not hidden)
        if not hidden:
            self.last_publish = LastPublish(True, policy.at, reason, what)
        facts = {"changed": changed, "entries": self.entries, "digest": snapshot.digest}
        text = f"serving serial {snapshot.serial}"
        event(logging.INFO, f"{text}: {changes.summary}" if changes.summary else text, reason=reason, **facts)
        notify(STATUS=self.summary)

    async def accept_restore(self, reason: str) -> Served:
        """Accepts a ledger that lacks acknowledged records, or a clock that is behind it; then publishes.

        Raises `Refused`.
        """
        async with self._publishing:
            try:
                await asyncio.to_thread(self.recorder.accept_restore, reason)
            except (HistoryUnwritable, LedgerUnwritable, OSError) as err:
                raise as_refused(err) from err
        served = await self.publish("accept-restore", "ledger")
        await asyncio.to_thread(self._settle, "accept-restore", None)
        return served.then(await self.publish("accept-restore"))

    # ------- Orders that are sent, and orders that are annulled

    async def submit(self, documents: Sequence[Submitted]) -> tuple[Served | None, list[Verdict]]:
        """Accepts what is good of these documents, and says what became of each. Raises `Refused`."""
        self.recorder.check()
        known, now = self.recorder.ledger.orders, self.recorder.now()
        judged = await asyncio.to_thread(examine_submitted, documents, known, self.config, now)
        served = None
        if judged.intake.new:
            facts = NewFacts(judged.intake.new, judged.intake.notes)
            served = await self.publish("order submit", "ledger", facts=facts)
        orders = self.recorder.ledger.orders
        return served, await asyncio.to_thread(verdicts, judged, known, orders, self.policy, self.config)

    async def annul(self, issuer: str, order_id: str, reason: str) -> tuple[Served, int]:
        """Ends what an order put in force; returns how many entries that were. Raises `Refused`."""
        annulment = Annulment(issuer, order_id, reason)
        annul(self.recorder.ledger.orders, (annulment,), self.recorder.now())
        states = self.policy.state.orders
        own = [one for one in states if (one.issuer, one.order_id) == (issuer, order_id)]
        served = await self.publish("order annul", "ledger", facts=NewFacts(annulments=(annulment,)))
        return served, own[-1].in_force if own else 0

    # ------- What others ask

    def explain(self, name: str) -> Explanation:
        """Why a canonical name is blocked, or is not."""
        return explain(name, self.policy, self.config)

    def explain_address(self, address: IPv4Address | IPv6Address) -> Explanation:
        """Why answers may not lead to this address, or may."""
        return explain_address(address, self.policy)

    def scheduled(self, name: str) -> list[NameEvent]:
        """What the orders that are known today will do to a canonical name."""
        return scheduled(self.config, self.recorder.ledger.received, name)

    @contextlib.contextmanager
    def past(self) -> Iterator[Past]:
        """What there is to look back with, beside the daemon's own work. Raises `Refused`."""
        with self.store.looking_back() as history:
            yield Past(self.config, self.recorder.ledger, self.lists, history)

    def purge(self, name: str | None, below: bool) -> int:
        """Drops kept answers about a canonical name, and, with `below`, about those below; None: all."""
        purged = self.engine.purge(name, below)
        event(logging.INFO, "purged the cache", name=name or "everything", below=below, answers=purged)
        return purged

    def counters(self) -> Counts:
        """What the worker threads have counted."""
        return self.engine.counters()

    @property
    def feeds(self) -> list[str]:
        """Zones whose lists are fetched."""
        return [zone.name for zone in self.config.zones if zone.is_feed]

    @property
    def upstreams_down(self) -> list[str]:
        """Upstreams that are not asked, since they do not answer as they should."""
        return [str(Endpoint.of(counts.address)) for counts in self.counters().upstreams if not counts.is_up]

    @property
    def metrics_endpoint(self) -> str | None:
        """Where Prometheus asks."""
        return self.metrics_server.endpoint

    @property
    def entries(self) -> int:
        """Names that are enforced, over all zones."""
        return self.policy.snapshot.entries

    @property
    def workers(self) -> int:
        """Worker threads."""
        return worker_count(self.config)

    @property
    def summary(self) -> str:
        """One line for `systemctl status`."""
        return f"serial {self.policy.snapshot.serial}, {self.entries:,} names enforced"

    @property
    def listening(self) -> list[str]:
        """Where queries are taken; ports that were 0 have become real ones."""
        return [str(Endpoint.of(address)) for address in self.engine.addresses()]


# ------- Options that need a restart -------

# Threads, open files, and the socket through which a reload comes. A reload applies everything else.
FIXED = ("workers", "state", "control", "user")


def _restart_needed(running: Config, wanted: Config) -> tuple[str, ...]:
    return tuple(option for option in FIXED if getattr(running, option) != getattr(wanted, option))


def _problems_of(inbox: Iterable[RefusedDocument]) -> Refused:
    return Refused(problem for one in inbox for problem in one.problems)


def _startup(at: datetime, inbox: Sequence[RefusedDocument], mismatch: Mismatch | None) -> LastPublish:
    if mismatch is not None:
        return LastPublish(False, at, "start", "all", f"nothing is published: {mismatch}")
    return LastPublish(not inbox, at, "start", "all", str(_problems_of(inbox)) if inbox else None)


def _inbox_at_start(draft: Draft, *, has_ledger: bool) -> tuple[RefusedDocument, ...]:
    """The documents that are refused. Raises `Refused` where the folder itself cannot be read at a first
    start: a wrong path would leave everything open, and no order was ever accepted that could tell.
    """
    inbox = draft.refused or ()
    if not has_ledger and any(one.file == str(draft.config.orders) for one in inbox):
        raise Refused(inbox[0].problems)
    if inbox:
        error = _problems_of(inbox)
        event(logging.ERROR, f"orders are refused: {error}", problems=error.as_json())
    return inbox


# ------- Engine -------


def _start(engine: Engine, snapshot: Snapshot, rules: Rules) -> None:
    try:
        engine.start(snapshot, rules)
    except OSError as err:
        raise as_refused(err) from err


@contextlib.asynccontextmanager
async def _servers(daemon: Daemon) -> AsyncIterator[None]:
    """Runs control API and metrics."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serve(control_app(daemon), daemon.control, daemon.http["control"]))
        await stack.enter_async_context(daemon.metrics_server)
        yield


def _kind_of(err: Exception) -> str:
    """The label of a failed publish in metrics."""
    if isinstance(err, PartlyRefused) and not err.of_configuration:
        return PARTLY_REFUSED
    if isinstance(err, Refused):
        return "refused"
    return "unwritable" if isinstance(err, LedgerUnwritable | HistoryUnwritable | OSError) else "internal"
