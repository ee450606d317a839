"""What of the daemon needs a clock of its own: everything else is tested through its sockets."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from dnsblock.config import load
from dnsblock.daemon import Daemon
from dnsblock.publishing import LedgerEntries

CONFIG = """
listen: ["127.0.0.1:0"]
metrics: null
upstream: {servers: ["127.0.0.1:1"]}
"""


def test_a_clock_step_back_publishes_again(tmp_path: Path):
    """What was derived for a time that has not come would stay in force, or out of it, without end."""
    (tmp_path / "dnsblock.yaml").write_text(CONFIG)
    daemon = Daemon(load(tmp_path / "dnsblock.yaml"))
    ahead = datetime.now(UTC) + timedelta(hours=2)
    daemon.publisher.policy = replace(daemon.publisher.policy, at=ahead)

    async def live() -> None:
        running = asyncio.create_task(daemon.run(lambda _: None))
        deadline = asyncio.get_running_loop().time() + 10
        while daemon.publisher.policy.at == ahead and not running.done():
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
            waiting = asyncio.create_task(publisher.publish(LedgerEntries("order submit")))
            await asyncio.sleep(0)
            publisher.config = wanted  # as another publish leaves it
        await waiting

    asyncio.run(live())
    daemon.engine.stop(0)
    assert publisher.config.time_zone.key == "Asia/Makassar"
