"""The daemon of a provider with one feed, in this process, with a simulated clock.

`Daemon`, its sockets, its worker thread and its refresher are real. Only the clock and the server of the feed
are simulated.
"""

import asyncio
import os
import socket
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from bench.processes import query

from dnsblock import clock as clocks
from dnsblock.change import Change
from dnsblock.config import Config
from dnsblock.config_file import load
from dnsblock.config_zones import Zone
from dnsblock.daemon import Daemon
from dnsblock.errors import Refused
from dnsblock.lists import files, records
from dnsblock.lists.feed import fetching
from dnsblock.lists.feed.fetch import Fetched, Validators
from dnsblock.lists.store import Store

from .model import PROTECTED

ZONE = "national"
GENERATIONS = 12
CONFIG = f"""
listen: ["127.0.0.1:0"]
workers: 1
metrics: null
upstream: {{servers: ["127.0.0.1:1"]}}
zones: [{{name: {ZONE}, list: "https://feed.invalid/names.txt", answer: nxdomain, source: {{format: plain}}}}]
protected: [{", ".join(PROTECTED)}]
history: {{generations: {GENERATIONS}}}
"""


class Clock:
    """The time for the daemon, also for the age of files."""

    def __init__(self, start: datetime, patch: pytest.MonkeyPatch) -> None:
        self.now = start
        clock = self

        class Stepped(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return clock.now.astimezone(tz)

        class Time:
            @staticmethod
            def time_ns() -> int:
                return clock.now_ns

        patch.setattr(clocks, "datetime", Stepped)
        patch.setattr(files, "time", Time)

    @property
    def now_ns(self) -> int:
        return int(self.now.timestamp()) * 10**9


class Provider:
    """Consecutive daemons with one state folder."""

    def __init__(self, folder: Path, clock: Clock, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.clock = folder, clock
        self._config = folder / "dnsblock.yaml"
        self._config.write_text(CONFIG)
        self._sends: bytes | None = None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(5)
        self.daemon: Daemon | None = None
        patch.setattr(fetching, "download", self._download)

    @property
    def config(self) -> Config:
        return load(self._config)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def feed_file(self) -> Path:
        return self.state / "feeds" / f"{ZONE}.txt"

    # ------- Start and stop -------

    def start(self) -> None:
        """As `dnsblock serve`, without the control socket."""
        self.daemon = daemon = Daemon(self.config)
        daemon._start_engine()
        daemon.publisher.settle("start", None)
        records.store_content(daemon.publisher.lists, GENERATIONS)
        self._socket.connect(("127.0.0.1", daemon.engine.addresses()[0][1]))

    def end(self) -> None:
        """Like a process that ends: only its folder is left."""
        if self.daemon is not None:
            self.daemon.engine.stop(0)
            self.daemon._resources.close()
            self.daemon.publisher.recorder.close(in_order=False)
            self.daemon = None

    def restart(self) -> None:
        self.end()
        self.start()

    def close(self) -> None:
        self.end()
        self._socket.close()

    # ------- Events -------

    def put(self, data: bytes) -> None:
        """Stores a download where the refresher does, with the time of the clock."""
        partial = self.feed_file.with_suffix(".part")
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        # Three seconds ago: the refresher ignores younger files. The kernel's ctime is years before.
        os.utime(partial, ns=(self.clock.now_ns - 3 * 10**9,) * 2)
        partial.rename(self.feed_file)

    async def fetch(self, data: bytes | None) -> bool:
        """The hourly fetch, with this response, or 304 for None. Whether it was accepted."""
        self._sends = data
        (zone,) = self.daemon.config.zones
        return await self._is_accepted(self.daemon.refresher.refresh(zone))

    async def publish(self, change: Change) -> bool:
        return await self._is_accepted(self.daemon.publisher.publish(change))

    async def _is_accepted(self, work: Any) -> bool:
        try:
            await work
        except Refused:
            return False
        return True

    async def _download(self, zone: Zone, store: Store, _: object, *, whole: bool = False) -> Fetched | None:
        assert not whole
        await asyncio.sleep(0)
        if self._sends is None:
            return None
        self.put(self._sends)
        return Fetched(store.download(zone.name), "", len(self._sends), Validators(), None, 0.0)

    # ------- Enforced names -------

    def covers(self, names: list[str]) -> list[bool]:
        """For each name whether a query for it is blocked, by the lookup that answers queries."""
        snapshot = self.daemon.publisher.policy.snapshot
        return [any(entry.decides for entry in snapshot.covering(name)) for name in names]

    def is_answered_as_blocked(self, name: str) -> bool:
        """The same by a query to its socket, for a worker thread."""
        packet = query(name)
        deadline = time.monotonic() + 120
        while True:
            assert time.monotonic() < deadline, f"no response for {name}"
            self._socket.send(packet)
            try:
                response = self._socket.recv(4096)
            except TimeoutError:
                continue
            if response[:2] == packet[:2]:
                return response[3] & 15 == 3
