"""The files of counts of queried names: how long they stay, when the clock is right and when it is not."""

import gzip
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from dnsblock import counting
from dnsblock._engine import DayCounts
from dnsblock.config import QueryCounts
from dnsblock.counting import QueryCounting
from dnsblock.policy.counts_folder import CountsFolder

TODAY = date(2026, 12, 1)
CONTENT = gzip.compress(b"dnsblock-query-counts 1 100 5 3\n10 a.example\n")


class Table:
    """Stands for the counts of the engine: nothing is queried in these tests."""

    def count_queries(self, max_bytes: int | None) -> None:
        self.bytes = max_bytes

    def query_counts(self, *, hours: int, max_bytes: int, clears: bool) -> DayCounts:
        return DayCounts.read(gzip.compress(f"dnsblock-query-counts 1 0 0 {hours}\n".encode()))


class Times:
    """The wall clock, and the clock that cannot be set."""

    def __init__(self) -> None:
        self.now = datetime(2026, 12, 1, 12, tzinfo=UTC)
        self.passed = 0.0

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.passed += seconds


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Iterator[Times]:
    times = Times()
    monkeypatch.setattr(counting, "utc_now", lambda: times.now)
    monkeypatch.setattr(counting, "boot_time", lambda: times.passed)
    return times


@pytest.fixture
def folder(tmp_path: Path) -> CountsFolder:
    """A file for each of 60 days, and what a crash has left."""
    folder = CountsFolder(tmp_path)
    folder.path.mkdir()
    for back in range(60):
        day = TODAY - timedelta(days=back)
        (folder.path / f"{day}.counts.gz").write_bytes(CONTENT)
    for name in ("2026-01-01.counts.gz.tmp", "2026-01-02.counts.gz.corrupt", "2026-99-99.counts.gz", "notes"):
        (folder.path / name).write_bytes(CONTENT)
    return folder


def following(tmp_path: Path, options: QueryCounts | None) -> QueryCounting:
    publisher = SimpleNamespace(config=SimpleNamespace(state=tmp_path, query_counts=options))
    return QueryCounting(publisher, Table())  # type: ignore[arg-type]


def follow(follower: QueryCounting, times: Times, seconds: float) -> None:
    """The time passes in steps of ten minutes."""
    while seconds > 0:
        times.pass_(min(600.0, seconds))
        seconds -= 600.0
        follower._follow()


def test_days_end_after_their_time(tmp_path: Path, folder: CountsFolder, times: Times):
    """With the option of 7 days, exactly these stay, and nothing that a crash has left."""
    follow(following(tmp_path, QueryCounts.model_validate({"days": "7"})), times, 2 * 3600)
    assert folder.days() == [TODAY - timedelta(days=back) for back in reversed(range(7))]
    assert sorted(os.listdir(folder.path))[-2:] == ["2026-99-99.counts.gz", "notes"]


@pytest.mark.parametrize("days", [4000, -4000])
def test_a_clock_that_is_wrong_for_half_an_hour_removes_no_day(
    tmp_path: Path, folder: CountsFolder, times: Times, days: int
):
    """A server without a battery-backed clock starts in the past; an NTP server may be wrong."""
    follower = following(tmp_path, QueryCounts.model_validate({"days": "60"}))
    times.now += timedelta(days=days)
    follow(follower, times, 1800)
    times.now -= timedelta(days=days)
    follow(follower, times, 1800)
    assert len(folder.days()) == 60
    times.now += timedelta(days=days)
    follow(follower, times, 7200)
    assert len(folder.days()) == 0, "the clock is believed after an hour"


def test_a_jumping_clock_leaves_few_files(tmp_path: Path, folder: CountsFolder):
    """Their number is limited, whatever dates they have."""
    assert folder.keep_newest(10) == 52
    assert len(folder.days()) == 10


def test_without_the_option_everything_is_removed(tmp_path: Path, folder: CountsFolder, times: Times):
    """Only files of other names stay, since somebody else made them."""
    follow(following(tmp_path, None), times, 1)
    assert sorted(os.listdir(folder.path)) == ["2026-99-99.counts.gz", "notes"]
