"""Parts of the daemon that need a clock of their own: all others are tested through sockets."""

import asyncio
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dnsblock.change import ClockTick, LedgerEntries
from dnsblock.config_file import load
from dnsblock.daemon import Daemon
from dnsblock.policy import zones
from dnsblock.principal import DAEMON

CONFIG = """
listen: ["127.0.0.1:0"]
metrics: null
upstream: {servers: ["127.0.0.1:1"]}
"""


def end(daemon: Daemon) -> None:
    """Closes what a daemon that was never run has open."""
    daemon.engine.stop(0)
    daemon._resources.close()
    daemon.publisher.recorder.close(in_order=False)


def test_a_clock_step_back_publishes_again(tmp_path: Path):
    """A state that was derived for a future time would stay in force without end."""
    (tmp_path / "dnsblock.yaml").write_text(CONFIG)
    daemon = Daemon(load(tmp_path / "dnsblock.yaml"))
    ahead = datetime.now(UTC) + timedelta(hours=2)
    daemon.publisher.policy = replace(daemon.publisher.policy, at=ahead)

    async def live() -> None:
        running = asyncio.create_task(daemon.run(lambda _: None))
        deadline = asyncio.get_running_loop().time() + 60
        while daemon.publisher.last_publish.reason != "clock" and not running.done():
            assert asyncio.get_running_loop().time() < deadline, "nothing was published"
            await asyncio.sleep(0.01)
        daemon._stops.put_nowait(15)
        await running

    asyncio.run(live())
    assert daemon.publisher.policy.at <= datetime.now(UTC)
    assert daemon.publisher.last_publish.reason == "clock"


def test_an_order_that_waits_for_another_publish_takes_nothing_of_it_back(tmp_path: Path):
    """A draft made before the wait would put the former configuration and lists in force again."""
    (tmp_path / "dnsblock.yaml").write_text(CONFIG)
    daemon = Daemon(load(tmp_path / "dnsblock.yaml"))
    publisher = daemon.publisher
    wanted = publisher.config.model_copy(update={"time_zone": ZoneInfo("Asia/Makassar")})

    async def live() -> None:
        daemon._start_engine()
        async with publisher._publishing:
            waiting = asyncio.create_task(publisher.publish(LedgerEntries(DAEMON, "order submit")))
            await asyncio.sleep(0)
            publisher.config = wanted  # as another publish leaves it
        await waiting

    asyncio.run(live())
    end(daemon)
    assert publisher.config.time_zone.key == "Asia/Makassar"


def test_an_order_does_not_wait_for_a_list_that_cannot_be_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A block ends on time, whatever is wrong with a list: the clock compiles none."""
    listed = CONFIG + "zones: [{name: listed, list: names.txt, answer: nxdomain}]\n"
    (tmp_path / "names.txt").write_text("one.example\n")
    (tmp_path / "dnsblock.yaml").write_text(listed)
    daemon = Daemon(load(tmp_path / "dnsblock.yaml"))
    (tmp_path / "dnsblock.yaml").write_text(listed.replace("nxdomain", "nodata"))
    daemon.publisher.config = load(tmp_path / "dnsblock.yaml")  # with an answer that needs another zone

    def fails(*_: object) -> None:
        raise ValueError("cannot be compiled")

    async def live() -> None:
        daemon._start_engine()
        monkeypatch.setattr(zones, "list_zone", fails)
        assert (await daemon.publisher.publish(ClockTick())).entries == 1

    asyncio.run(live())
    end(daemon)


def test_a_publish_that_is_cancelled_ends_its_records_before_another_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two threads that write to the ledger at once would corrupt it."""
    (tmp_path / "dnsblock.yaml").write_text(CONFIG)
    daemon = Daemon(load(tmp_path / "dnsblock.yaml"))
    publisher = daemon.publisher
    begun, may_end = threading.Event(), threading.Event()

    def settle(*_: object) -> None:
        begun.set()
        assert may_end.wait(60)

    async def live() -> None:
        daemon._start_engine()
        publish = asyncio.create_task(publisher.publish(ClockTick()))
        await asyncio.to_thread(begun.wait, 60)
        publish.cancel()
        other = asyncio.create_task(publisher.record(lambda: None))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not publish.done()
        assert not other.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await publish
        await other

    monkeypatch.setattr(publisher, "settle", settle)
    asyncio.run(live())
    end(daemon)
