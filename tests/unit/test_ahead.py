"""Zones of orders in which much has changed are compiled before a publish has to do it."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dnsblock.change import LedgerEntries
from dnsblock.config_file import load
from dnsblock.daemon import Daemon
from dnsblock.policy.zones import OrderZone, compile_orders
from dnsblock.principal import DAEMON

from .helpers import block, orders

CONFIG = """
listen: ["127.0.0.1:0"]
metrics: null
upstream: {servers: ["127.0.0.1:1"]}
zones: [{name: orders, issuer: a, answer: nxdomain, unsigned: accept}]
"""
MANY = 600  # of a thousand changes that a small zone can hold


@pytest.fixture
def daemon(tmp_path: Path):
    (tmp_path / "dnsblock.yaml").write_text(CONFIG)
    daemon = Daemon(load(tmp_path / "dnsblock.yaml"))
    yield daemon
    daemon.engine.stop(0)
    daemon._resources.close()
    daemon.publisher.recorder.close(in_order=False)


async def submit(daemon: Daemon, number: str, *names: str) -> OrderZone:
    """Publishes an order. Returns the zone that is in force then."""
    await daemon.publisher.publish(LedgerEntries(DAEMON, "test", tuple(orders(block(number, *names)))))
    return daemon.publisher.policy.orders["orders"]


def nearest(daemon: Daemon) -> OrderZone:
    """The zone from which the next publish starts."""
    publisher = daemon.publisher
    return publisher.ahead.nearest(publisher.policy, datetime.now(UTC)).orders["orders"]


async def follow(daemon: Daemon, until: Callable[[], bool]) -> None:
    following = asyncio.create_task(daemon.publisher.ahead.follow(daemon.publisher))
    deadline = asyncio.get_running_loop().time() + 60
    while not until():
        assert asyncio.get_running_loop().time() < deadline, "nothing was compiled"
        await asyncio.wait([following], timeout=0.01)
        assert not following.done()
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following


def test_a_zone_that_has_changed_much_is_compiled_again_for_the_next_order(daemon: Daemon):
    """A publish would have to do it once the zone can hold no more changes, and the order would wait."""

    async def live() -> None:
        daemon._start_engine()
        grown = await submit(daemon, "b-1", *(f"n{number}.example" for number in range(MANY)))
        assert grown.is_grown
        assert nearest(daemon) is grown
        await follow(daemon, lambda: not nearest(daemon).is_grown)
        serial = daemon.publisher.policy.snapshot.serial
        assert nearest(daemon).compiled.digest == grown.compiled.digest
        assert daemon.publisher.policy.orders["orders"] is grown, "what is in force stays"

        after = await submit(daemon, "b-2", *(f"m{number}.example" for number in range(MANY)))
        assert daemon.publisher.policy.snapshot.serial == serial + 1
        assert after.is_grown, "by the second order alone: both are too many changes"
        config = daemon.publisher.config
        scratch = compile_orders(config.zones[0], config, after.in_force)
        assert (after.compiled.digest, after.compiled.entries) == (scratch.compiled.digest, 2 * MANY)
        assert nearest(daemon) is after, "the former one is forgotten"

    asyncio.run(live())


def test_an_order_that_comes_while_the_zone_is_compiled_is_kept(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
):
    """The compiled zone lacks it, and the next publish adds it."""
    compile_again = OrderZone.compiled_again
    started, may_end = threading.Event(), threading.Event()

    def slowly(zone: OrderZone) -> OrderZone:
        started.set()
        assert may_end.wait(60)
        return compile_again(zone)

    async def live() -> None:
        daemon._start_engine()
        await submit(daemon, "b-1", *(f"n{number}.example" for number in range(MANY)))
        monkeypatch.setattr(OrderZone, "compiled_again", slowly)
        compiling = asyncio.create_task(daemon.publisher.ahead._compile_again(daemon.publisher))
        assert await asyncio.to_thread(started.wait, 60)
        await submit(daemon, "b-2", "t.example")
        may_end.set()
        await compiling
        assert nearest(daemon).compiled.entries == MANY
        after = await submit(daemon, "b-3", "u.example")
        assert after.compiled.entries == MANY + 2
        assert not after.is_grown

    asyncio.run(live())


def test_a_zone_that_cannot_be_compiled_again_stays_as_it_is(daemon: Daemon, monkeypatch: pytest.MonkeyPatch):
    """It is not tried over and over, and the next publish does what it has to."""
    tried: list[OrderZone] = []

    def fails(zone: OrderZone) -> OrderZone:
        tried.append(zone)
        raise OSError("no space left on device")

    async def live() -> None:
        daemon._start_engine()
        grown = await submit(daemon, "b-1", *(f"n{number}.example" for number in range(MANY)))
        monkeypatch.setattr(OrderZone, "compiled_again", fails)
        await follow(daemon, lambda: bool(daemon.publisher.ahead._compact))
        await daemon.publisher.ahead._compile_again(daemon.publisher)
        assert tried == [grown]
        assert nearest(daemon) is grown
        after = await submit(daemon, "b-2", *(f"m{number}.example" for number in range(MANY)))
        assert after.compiled.entries == 2 * MANY
        assert not after.is_grown

    asyncio.run(live())
