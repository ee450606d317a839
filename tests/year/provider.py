"""The daemon of a provider with one feed, in this process, with a clock that is stepped.

It is the real `Daemon`, its sockets, its worker thread and its refresher; all that is put in the place of
something else is the clock, and the server on the other end of the download.
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
from dnsblock.config import Config, Zone
from dnsblock.config_file import load
from dnsblock.daemon import Daemon
from dnsblock.errors import Refused
from dnsblock.lists import files, records
from dnsblock.lists.feed import fetching
from dnsblock.lists.feed.fetch import Fetched, Validators
from dnsblock.lists.store import Store
from dnsblock.publishing import Change

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
    """The time, for the daemon and for whoever looks at how old a file is."""

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
    """One daemon after the other, on one state folder."""

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

    # ------- Its life -------

    def start(self) -> None:
        """As `dnsblock serve`, but for the control socket, which nobody listens to."""
        self.daemon = daemon = Daemon(self.config)
        daemon._start_engine()
        daemon.publisher.settle("start", None)
        records.store_content(daemon.publisher.lists, GENERATIONS)
        self._socket.connect(("127.0.0.1", daemon.engine.addresses()[0][1]))

    def end(self) -> None:
        """All that a process that ended leaves behind is its folder."""
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

    # ------- What is done to it -------

    def put(self, octets: bytes) -> None:
        """Puts a download where the refresher puts it, with the clock's time."""
        half = self.feed_file.with_suffix(".part")
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(octets)
        # Three seconds ago, so that it has settled; the kernel's own time of change is long before.
        os.utime(half, ns=(self.clock.now_ns - 3 * 10**9,) * 2)
        half.rename(self.feed_file)

    async def fetch(self, octets: bytes | None) -> bool:
        """Its hourly fetch, which gets these octets, or a 304; whether what came was taken."""
        self._sends = octets
        (zone,) = self.daemon.config.zones
        return await self._is_taken(self.daemon.refresher.refresh(zone))

    async def publish(self, change: Change) -> bool:
        return await self._is_taken(self.daemon.publisher.publish(change))

    async def _is_taken(self, work: Any) -> bool:
        try:
            await work
        except Refused:
            return False
        return True

    async def _download(self, zone: Zone, store: Store, _: object) -> Fetched | None:
        await asyncio.sleep(0)
        if self._sends is None:
            return None
        self.put(self._sends)
        return Fetched(store.download(zone.name), "", len(self._sends), Validators(), None, 0.0)

    # ------- What it enforces -------

    def covers(self, names: list[str]) -> list[bool]:
        """For each name whether a query for it is blocked, by the lookup that answers queries."""
        snapshot = self.daemon.publisher.policy.snapshot
        return [any(entry.decides for entry in snapshot.covering(name)) for name in names]

    def is_answered_as_blocked(self, name: str) -> bool:
        """The same by a query, through its socket and its worker thread."""
        asked = query(name)
        deadline = time.monotonic() + 20
        while True:
            assert time.monotonic() < deadline, f"no answer about {name}"
            self._socket.send(asked)
            try:
                said = self._socket.recv(4096)
            except TimeoutError:
                continue
            if said[:2] == asked[:2]:
                return said[3] & 15 == 3
