"""Following lists: nothing that one of them makes happen ends anything else."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dnsblock.config import Config
from dnsblock.config_file import load
from dnsblock.errors import FetchFailed
from dnsblock.lists.feed import fetching
from dnsblock.lists.feed.fetch import Feed
from dnsblock.lists.refresh import FetchStatus, Hooks, Refresher, fetch_missing
from dnsblock.lists.sources import source_of
from dnsblock.lists.store import Store

CONFIG = """
upstream: {servers: [192.0.2.1]}
zones:
  - {name: feed, list: "https://127.0.0.1:1/l", answer: nxdomain, source: {every_s: 1, missing: start}}
  - {name: file, list: names.txt, answer: nxdomain, source: {every_s: 1}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "dnsblock.yaml").write_text(CONFIG)
    return load(tmp_path / "dnsblock.yaml")


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetching ends in what nobody has thought of."""

    async def fetch(*_: object) -> None:
        raise ExceptionGroup("many", [OverflowError("no such port")])

    monkeypatch.setattr(fetching, "fetch", fetch)


async def nothing(*_: str) -> None:
    pass


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not is_true():  # noqa: ASYNC110  # what is waited for are counters
            await asyncio.sleep(0.01)


def test_a_fault_in_one_list_ends_no_other(config: Config, faulty: None, caplog: pytest.LogCaptureFixture):
    """An exception that leaves a task of the daemon ends the daemon, and with it DNS."""
    looked: list[str] = []
    counted: list[str] = []

    async def publish(reason: str, zone: str) -> None:
        looked.append(zone)
        raise RuntimeError("nobody has thought of this")

    async def run() -> None:
        hooks = Hooks(
            *(publish, lambda *_: True, nothing, nothing, nothing),
            fetched=lambda _, result: counted.append(result),
        )
        following = asyncio.create_task(Refresher(Store(config.state), hooks, {}).run(lambda: config))
        await until(lambda: len(looked) >= 2 and len(counted) >= 2)
        assert not following.done()
        following.cancel()

    asyncio.run(run())
    assert set(counted) == {"INTERNAL"}
    assert any(record.exc_info for record in caplog.records), "with its traceback"


def test_a_feed_with_another_answer_is_not_fetched_sooner(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nor later: lists stay fresh even if the operator reloads every hour."""
    fetched: list[str] = []

    async def fetch(feed: Feed, *_: object) -> None:
        fetched.append(feed.url)

    def daily(answer: str) -> Config:
        text = CONFIG.replace("every_s: 1,", "every_s: 86400,").replace("nxdomain", answer)
        (tmp_path / "dnsblock.yaml").write_text(text)
        return load(tmp_path / "dnsblock.yaml")

    async def run() -> None:
        monkeypatch.setattr(fetching, "fetch", fetch)
        configs = [daily("nxdomain")]
        refresher = Refresher(
            Store(config.state),
            Hooks(*(nothing, lambda *_: False, nothing, nothing, nothing), fetched=lambda *_: None),
            {},
        )

        def due() -> datetime:
            return refresher.states.get("feed", FetchStatus()).next_at or datetime.now(UTC)

        following = asyncio.create_task(refresher.run(lambda: configs[-1]))
        await until(lambda: due() > datetime.now(UTC) + timedelta(hours=1))
        before = due()
        configs.append(daily("nodata"))
        await until(lambda: due() != before)
        assert abs(due() - before) < timedelta(seconds=10)
        assert len(fetched) == 1
        following.cancel()

    asyncio.run(run())


def test_a_fault_in_fetching_is_a_feed_that_could_not_be_fetched(config: Config, faulty: None):
    """Also at startup, and for a command that requested it."""
    store = Store(config.state)
    with pytest.raises(FetchFailed) as caught:
        asyncio.run(source_of(config.zones[0], store).fetch())
    assert caught.value.code == "INTERNAL"
    assert fetch_missing(config, store) == {}
