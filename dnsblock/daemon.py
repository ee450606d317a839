"""The process from top to bottom: startup, serving, restart, stop.

Changes to orders, lists and configuration go through `publishing.py`.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from dnsblock import advance, handover
from dnsblock.actions import Actions
from dnsblock.change import ClockTick, ListsChanged, Reload
from dnsblock.checkpoints import Checkpoints
from dnsblock.clock import utc_now
from dnsblock.config import Config
from dnsblock.config_file import load
from dnsblock.counting import QueryCounting
from dnsblock.errors import Refused, as_refused
from dnsblock.exports import Exports
from dnsblock.http.api import control_app
from dnsblock.http.connections import connections_of
from dnsblock.http.health import with_health
from dnsblock.http.issuers import Gate, issuers_app
from dnsblock.http.metrics import Metrics, MetricsApp
from dnsblock.http.series import Series
from dnsblock.http.server import bind_control, bind_listeners, serve
from dnsblock.http.traffic import Traffic
from dnsblock.landing.process import Landing
from dnsblock.listeners import Bound, LandingSockets, bind_engine
from dnsblock.lists import records
from dnsblock.lists.corrupt import replace_corrupt
from dnsblock.lists.refresh import Hooks, Refresher, fetch_missing
from dnsblock.lists.store import Store
from dnsblock.log import event, set_up
from dnsblock.notify import notify, reloading
from dnsblock.orders.parsed import ParsedOrders
from dnsblock.orders.state import State
from dnsblock.orders.statement import Statements
from dnsblock.policy import Counts
from dnsblock.policy.engine_settings import worker_count
from dnsblock.policy.explain import Address, Explanation, explain
from dnsblock.policy.impact import ImpactRuns
from dnsblock.policy.past import NameEvent, Past, scheduled
from dnsblock.policy.recorder import Recorder
from dnsblock.principal import DAEMON, Principal
from dnsblock.privileges import drop
from dnsblock.process import RESTART_SIGNAL, give_way, signals_into
from dnsblock.publishing import Publisher
from dnsblock.startup import CompiledAhead, Startup
from dnsblock.values import Endpoint
from dnsblock.verification import Verification
from dnsblock.web.console.beside import BesideApi
from dnsblock.web.console.gate import ConsoleGate
from dnsblock.webhooks.webhooks import Webhooks

TICK_SECONDS = 1.0  # how often engine events are read, and a step of the clock is detected


class Daemon:
    """One running dnsblock: its parts, and their tasks. The control API uses it as its `Control`."""

    def __init__(self, config: Config, ahead: CompiledAhead | None = None) -> None:
        """Opens the ledger, compiles the policy, binds the sockets. Serves nothing yet. Raises `Refused`.

        `ahead`: the parsed orders, if they are being compiled already.
        """
        inherited = handover.Inherited()
        self.started_at = utc_now()
        self.metrics, self.http = Metrics(self), connections_of(config)
        self._hangups: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._stops: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._resources = contextlib.ExitStack()
        ahead = ahead or CompiledAhead(config, ParsedOrders.load(config.state))
        recorder = Recorder(config, ahead.parsed)
        try:
            self.store = Store(config.state)
            self._resources.callback(self.store.close)
            self.store.sweep()
            self.store.sweep_partial()
            recorder.compare(self.store)
            at_startup = fetch_missing(config, self.store)
            startup = Startup.prepare(config, recorder, self.store, self.started_at, ahead)
            self.engine = bind_engine(config, inherited)
            self._socket_store = handover.Store(inherited)
            self.impact_runs = ImpactRuns(self.engine)
            # Everything that can fail comes before the record, so a failed startup has accepted nothing.
            self.control = self._resources.enter_context(bind_control(config.control))
            access, most = startup.draft.access, config.http.max_connections
            self.gate = Gate(access.get("api"), most)
            self.console = ConsoleGate(access.get("console"), most)
            self.http |= {"api": self.gate.connections, "console": self.console.connections}
            self.listeners = bind_listeners(config, _apps(self), self.http, self._resources)
            landing = self._resources.enter_context(LandingSockets.bind(config))
            drop(config, [descriptor for _, some in self.engine.sockets() for descriptor in some])
            parts = (self.engine, self.metrics, self._take_over, self.http_endpoints)
            self.publisher = Publisher(startup.record(), *parts, landing=landing)
        except BaseException as err:
            self._resources.close()
            recorder.close(in_order=False)
            if isinstance(err, OSError):
                raise as_refused(err) from err
            raise
        counts = self.counters()
        self.traffic, self.series = Traffic(counts), Series(counts, time.monotonic())
        self.statements = Statements()
        for zone, start in at_startup.items():
            if start.result is not None:
                self.metrics.fetched(zone, start.result)
        self.refresher = Refresher(self.store, _hooks_of(self), at_startup)
        self.actions = Actions(self.publisher, self.refresher, self.engine)
        self.verification = Verification(self.publisher, lambda: self.listening)
        self.checkpoints = Checkpoints(self.publisher)
        self.exports = Exports(self.publisher)
        self.landing = self._resources.enter_context(Landing(self.publisher))
        self.webhooks, self.counting = Webhooks(self.publisher), QueryCounting(self.publisher, self.engine)
        if not config.zones:
            event(logging.WARNING, "no zones are configured: nothing is blocked")

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.publisher.config

    # ------- The life of the process

    async def run(self, ready: Callable[["Daemon"], None]) -> None:
        """Serves until SIGTERM or SIGINT; calls `ready` once queries are answered. Raises `Refused`."""
        try:
            async with _servers(self):
                successor = self._start()
                await self._become_ready(ready)
                is_restart = await self._follow_until_stopped()
                self.impact_runs.stop()
                self._leave(successor if is_restart else None)
                # Status and metrics are available until the last query is answered.
                await self._stop_engine()
                await self.counting.close()
        finally:
            await asyncio.to_thread(self.engine.stop, 0)
            self._resources.close()
            self.webhooks.close()
            self.checkpoints.close()
        if is_restart:
            successor.begin()
        event(logging.INFO, "stopped")
        is_reading = self.publisher.inputs.are_being_read or self.impact_runs.reader_at_work.locked()
        if is_reading or self.webhooks.was_interrupted:
            # A thread may hang on a slow disk or name server; ledger and history are closed.
            os._exit(0)

    def _start(self) -> handover.Successor:
        """Starts the worker threads: from here on, queries are answered."""
        # Worker threads inherit the blocked signals, so that no signal interrupts their system calls.
        with signals_into(self._hangups, self._stops):
            self._start_engine()
            successor = handover.Successor()
        give_way()
        return successor

    async def _become_ready(self, ready: Callable[["Daemon"], None]) -> None:
        """Completes the records of the startup, then reports that the daemon is ready."""
        publisher = self.publisher
        self.metrics.published(None, clears=publisher.recorder.mismatch is None)
        await publisher.record(lambda: publisher.settle("start", None))
        async with publisher.inputs.listing:
            lists, config = publisher.lists, self.config
            await asyncio.to_thread(records.store_content, lists, config.history.generations)
            await asyncio.to_thread(records.store_missing_content, lists, config)
        self._socket_store.keep(self.engine.sockets())
        notify(READY=1, STATUS=publisher.summary)
        serial = publisher.policy.snapshot.serial
        event(logging.INFO, "ready", serial=serial, entries=publisher.entries)
        ready(self)

    async def _follow_until_stopped(self) -> bool:
        """Follows clock, signals and lists until a signal to stop. True: another process takes over."""
        hooks, publisher = _hooks_of(self), self.publisher
        async with asyncio.TaskGroup() as tasks:
            followers = [
                tasks.create_task(follower)
                for follower in (
                    self._follow_clock(),
                    publisher.ahead.follow(publisher),
                    self._follow_hangups(),
                    self.statements.run(lambda: publisher.recorder.ledger.orders, publisher.may_have_orders),
                    self.refresher.run(lambda: self.config),
                    self.refresher.follow_notifies(self.engine),
                    self.verification.run(),
                    self.checkpoints.run(),
                    self.exports.run(),
                    self.landing.run(),
                    self.webhooks.run(),
                    self.counting.run(),
                    replace_corrupt(lambda: self.publisher.lists, hooks.publish, self.metrics.corrupt),
                )
            ]
            is_restart = await self._asked_to_restart()
            self.publisher.is_stopping = True
            for follower in followers:
                follower.cancel()
        return is_restart

    async def _asked_to_restart(self) -> bool:
        """Waits for a signal to stop. True: another process replaces this one."""
        while True:
            if await self._stops.get() != RESTART_SIGNAL:
                return False
            try:
                await asyncio.to_thread(load, self.config.path)
                return True
            except Refused as err:
                event(
                    logging.ERROR,
                    f"not restarted, since the new configuration is invalid: {err}",
                    problems=err.as_json(),
                )

    def _leave(self, successor: handover.Successor | None) -> None:
        """Announces the end, and passes the sockets to the next process if there is one."""
        if successor is not None:
            successor.leave(self.engine.sockets())
            reloading()
            event(logging.INFO, "restarting: answering outstanding queries")
        else:
            notify(STOPPING=1)
            event(logging.INFO, "stopping: answering outstanding queries; a second signal stops immediately")

    async def _follow_hangups(self) -> None:
        """Publishes for each SIGHUP, one after the other."""
        while True:
            received = await self._hangups.get()
            reloading()
            # `publish` has logged and counted the failure; the previous snapshot stays in force.
            with contextlib.suppress(Refused):
                await self.publisher.publish(Reload(DAEMON, received.name))
            notify(READY=1)

    async def _follow_clock(self) -> None:
        """Publishes when an order becomes effective or expires, without any signal."""
        publisher, recorder = self.publisher, self.publisher.recorder
        while True:
            publisher.has_published.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(_seconds_to_next_change(publisher), TICK_SECONDS))):
                    await publisher.has_published.wait()
            self._watch_engine()
            # If the clock is set back, changes that came too early are undone, up to the last record.
            is_set = recorder.watch_clock() or recorder.now() < publisher.policy.at
            if is_set or publisher.is_owed or _seconds_to_next_change(publisher) <= 0:
                try:
                    await publisher.publish(ClockTick())
                except Refused:
                    # The previous snapshot stays in force; the next tick tries again.
                    await asyncio.sleep(TICK_SECONDS)

    def _watch_engine(self) -> None:
        if self.traffic.is_due():
            counts = self.counters()
            self.traffic.sample(counts)
            self.series.add(counts, self.publisher.entries, utc_now(), time.monotonic())
        for text in self.engine.take_events():
            event(logging.WARNING, text)
        if self.engine.running() < self.workers:
            # The kernel would still deliver queries to the sockets of the dead thread.
            event(logging.CRITICAL, "a worker thread ended: exiting, so that the service restarts")
            os._exit(1)

    async def _stop_engine(self) -> None:
        stop = asyncio.create_task(asyncio.to_thread(self.engine.stop, self.config.stop_timeout_ms))
        second = asyncio.create_task(self._asked_to_stop())
        await asyncio.wait({stop, second}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            event(logging.WARNING, "stopped immediately, after a second signal")
            os._exit(0)
        second.cancel()

    async def _asked_to_stop(self) -> None:
        while await self._stops.get() == RESTART_SIGNAL:
            pass  # a restart is under way, or the daemon is stopping

    def _start_engine(self) -> None:
        try:
            self.engine.start(self.publisher.policy.snapshot, self.publisher.rules)
        except OSError as err:
            raise as_refused(err) from err

    # ------- Used by the publisher and the refresher

    async def _take_over(self, bound: Bound, before: Config) -> None:
        """Applies the process settings of a new configuration: sockets, log, limits of HTTP listeners."""
        config = bound.config
        if bound.listening is not None:
            self._socket_store.keep(self.engine.sockets())
        access = self.publisher.inputs.access
        self.gate.renew(access.get("api"))
        self.console.renew(access.get("console") if "console" in config.https else None)
        for option, new in bound.http.items():
            self.gate.streams.end()
            await self.listeners[option].move(new)
        self.landing.follow(before)
        if (before.log, before.time_zone) != (config.log, config.time_zone):
            set_up(config.log, config.time_zone)
        for connections in self.http.values():
            connections.limit(config.http.max_connections)
        self.gate.streams.wake()

    # ------- Used by the control API and the metrics

    def view(self, by: Principal) -> "Daemon":
        """The readable state for a principal: everything. Permission to connect is enough."""
        event(logging.DEBUG, "state is read through the control API", by=by)
        return self

    def explain(self, target: str | Address, client: Address | None = None) -> Explanation:
        """Explains why a canonical name or an address is or is not blocked, for a client."""
        return explain(target, self.publisher.policy, self.config, client, self.publisher.lists)

    def scheduled(self, name: str) -> list[NameEvent]:
        """The scheduled changes for a canonical name, by the orders known now."""
        return scheduled(self.config, self.publisher.recorder.ledger.orders, name)

    @contextlib.contextmanager
    def past(self) -> Iterator[Past]:
        """The history, read beside the daemon's own work. Raises `Refused`."""
        with self.store.looking_back() as history:
            yield Past(self.config, self.publisher.recorder.ledger, self.publisher.lists, history)

    @property
    def state(self) -> State:
        """The state of all orders."""
        return self.publisher.recorder.state(self.publisher.policy)

    def counters(self) -> Counts:
        """The counters of the worker threads."""
        return self.engine.counters()

    @property
    def upstreams_down(self) -> list[str]:
        """Upstreams that are marked down."""
        return [str(Endpoint.of(counts.address)) for counts in self.counters().upstreams if not counts.is_up]

    def http_endpoints(self) -> dict[str, str | None]:
        """The addresses of the HTTP listeners, by option."""
        return {option: listener.endpoint for option, listener in self.listeners.items()}

    @property
    def workers(self) -> int:
        """Worker threads."""
        return worker_count(self.config)

    @property
    def listening(self) -> list[str]:
        """The listen addresses, with real ports instead of 0."""
        return [str(Endpoint.of(address)) for address in self.engine.addresses()]


def _apps(daemon: Daemon) -> dict[str, Callable[[], Any]]:
    """Makes the application of each HTTP listener, by option."""

    def console() -> Any:
        from dnsblock.web.console.app import console_app  # a daemon without a console starts sooner

        return console_app(daemon, daemon.console)

    return {
        "metrics": lambda: with_health(
            daemon, MetricsApp(daemon.metrics), daemon.http["metrics"].count_refused
        ),
        "api": lambda: BesideApi(daemon, issuers_app(daemon, daemon.gate), console),
        "console": console,
    }


def _seconds_to_next_change(publisher: Publisher) -> float:
    due = publisher.policy.state.next_change_at
    return float("inf") if due is None else (due - publisher.recorder.now()).total_seconds()


def _hooks_of(daemon: Daemon) -> Hooks:
    """The parts of the daemon that the refresher of lists uses."""
    return Hooks(
        publish=lambda reason, zone: daemon.publisher.publish(ListsChanged(DAEMON, reason, zone)),
        # A lambda, since the lists change.
        is_changed=lambda zone, watch: daemon.publisher.lists.is_changed(zone, watch),  # noqa: PLW0108
        # They use the publisher, which is not there yet when the first hooks are made.
        advance=lambda *facts: advance.advance(daemon.publisher, *facts),
        take_back=lambda zone: advance.take_back(daemon.publisher, zone),
        prepare=lambda zone: advance.prepare(daemon.publisher, zone),
        fetched=daemon.metrics.fetched,
    )


@contextlib.asynccontextmanager
async def _servers(daemon: Daemon) -> AsyncIterator[None]:
    """Runs control API, metrics, issuers' API and console."""
    app = control_app(daemon, daemon.gate.streams, daemon.http["control"].count_refused)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serve(app, daemon.control, daemon.http["control"]))
        for listener in daemon.listeners.values():
            await stack.enter_async_context(listener)
        stack.callback(daemon.gate.streams.end)
        yield
