"""Keeps the counts of queried names (`query_counts`): a file for each day, and reports from them.

The engine counts in memory of a fixed size. Every few minutes, the file of the day is replaced. Nothing waits
for this: with a full disk, counts stay in memory and are written later.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from dnsblock._engine import DayCounts, Engine
from dnsblock.clock import boot_time, utc_now
from dnsblock.config import QueryCounts
from dnsblock.errors import Problem, Refused
from dnsblock.log import event, fault
from dnsblock.policy.counts_folder import CountsFolder
from dnsblock.policy.impact import Candidate
from dnsblock.policy.past_impact import PastImpact, report
from dnsblock.publishing import Publisher
from dnsblock.threads import in_thread

LOOK_SECONDS = 1.0  # how often the day and the option are compared
RETRY_SECONDS = 60.0  # after an internal error
WRITE_SECONDS = 300.0  # what a crash loses
SETTLED_SECONDS = 3600.0  # after a step of the clock, until old days are removed
DISK_SHARE = 4  # the files use one part in this many of `memory_mb`
WORKING_SHARE = 4  # and so does the work of writing and reading them
SPARE_FILES = 2  # besides those of `days`: one that is being written, and a corrupt one
MAX_UNWRITTEN = 3  # days that wait for space on the disk


@dataclass(frozen=True, slots=True)
class Kept:
    """The state of the counts, for the metrics."""

    days: int
    names: int  # of this day, when its file was written last
    is_failing: bool


class QueryCounting:
    """Follows the option, and the day."""

    def __init__(self, publisher: Publisher, engine: Engine) -> None:
        self._publisher, self._engine = publisher, engine
        self._folder = CountsFolder(publisher.config.state)
        self._busy = asyncio.Lock()  # a report waits for a day to end, and the reverse
        self._is_followed = False  # whether the option was applied once
        self._options: QueryCounts | None = None
        self._memory_mb: int | None = None  # of the engine's table
        self._set_memory(publisher.config.query_counts)  # the first queries count, too
        self._day = utc_now().date()
        self._hours = 0  # of the day, a bit for each in which queries were counted here
        self._before: DayCounts | None = None  # of the same day: not in the engine's memory any more
        self._unwritten: dict[date, DayCounts] = {}
        self._written_at = self._settled_at = boot_time()
        self._kept = Kept(0, 0, is_failing=False)

    @property
    def kept(self) -> Kept | None:
        """The state of the counts; None while nothing is counted."""
        return None if self._options is None else self._kept

    async def run(self) -> None:
        """Follows the option and the day until it is cancelled."""
        while True:
            try:
                if self._is_due():
                    async with self._busy:
                        await in_thread(self._follow)
            except Exception:  # neither DNS nor orders need it
                fault("internal error while counting queried names")
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    async def close(self) -> None:
        """Writes the counts of a daemon that stops."""
        async with self._busy:
            try:
                await asyncio.to_thread(self._finish)
            except Exception:  # the process ends in any case, or starts again
                fault("internal error while counting queried names")

    async def impact(self, file: str, candidate: Candidate, days: int, top: int) -> PastImpact:
        """The effect that the candidate would have had on the last days. Raises `Refused` without counts."""
        async with self._busy:
            if self._is_due():
                await in_thread(self._follow)
            options = self._options
            if options is None:
                reason = "queried names are not counted: set query_counts and reload, or use --seconds"
                raise Refused([Problem("query_counts", None, "null", reason)])
            if days > options.days:
                reason = f"only {options.days} days are kept (query_counts.days)"
                raise Refused([Problem("--days", None, str(days), reason)])
            return await in_thread(self._report, options, file, candidate, days, top)

    def _is_due(self) -> bool:
        options, now = self._publisher.config.query_counts, utc_now()
        if not self._is_followed or options != self._options:
            return True
        is_new = now.date() != self._day or not self._hours >> now.hour & 1
        return options is not None and (is_new or boot_time() - self._written_at >= WRITE_SECONDS)

    # ------- In a thread, one at a time

    def _finish(self) -> None:
        self._follow()
        if self._options is not None:
            self._write(self._options, clears=True)

    def _follow(self) -> None:
        options = self._publisher.config.query_counts
        if not self._is_followed or options != self._options:
            self._switch(options)
        if options is None:
            return
        now = utc_now()
        if now.date() != self._day:
            self._begin_day(options, now.date())
        self._hours |= 1 << now.hour
        if boot_time() - self._written_at >= WRITE_SECONDS:
            self._write(options, clears=False)
            self._remove_old(options)

    def _switch(self, options: QueryCounts | None) -> None:
        """Applies a new value of the option. Without it, all counts are removed."""
        before = self._options
        if before is not None:
            self._write(before, clears=True)
        self._set_memory(options)
        if options is None:
            self._unwritten.clear()
            if (removed := self._folder.clear()) or before is not None:
                event(logging.INFO, "queried names are not counted: the counts were removed", files=removed)
        else:
            if before is None:
                self._before = self._stored(self._day)
            self._kept = Kept(len(self._folder.days()), self._kept.names, self._kept.is_failing)
            event(logging.INFO, "queried names are counted", memory_mb=options.memory_mb, days=options.days)
        self._options, self._is_followed = options, True

    def _set_memory(self, options: QueryCounts | None) -> None:
        memory_mb = None if options is None else options.memory_mb
        if memory_mb != self._memory_mb:
            if self._memory_mb is None:
                now = utc_now()
                self._day, self._hours = now.date(), 1 << now.hour
            self._engine.count_queries(None if options is None else _engine_bytes(options))
            self._memory_mb = memory_mb

    def _begin_day(self, options: QueryCounts, day: date) -> None:
        self._write(options, clears=True)
        if day != self._day + timedelta(days=1):
            self._settled_at = boot_time()
        self._day, self._hours = day, 0
        self._before = self._stored(day)

    def _stored(self, day: date) -> DayCounts | None:
        return self._unwritten.get(day) or self._folder.read(day)

    def _today(self, options: QueryCounts, *, clears: bool) -> DayCounts | None:
        limit = _file_bytes(options)
        counts = self._engine.query_counts(hours=self._hours, max_bytes=limit, clears=clears)
        if counts is None or self._before is None:
            return counts
        return self._before.plus(counts, limit)

    def _write(self, options: QueryCounts, *, clears: bool) -> None:
        """Writes the counts of this day. `clears`: the engine starts again at zero."""
        self._written_at = boot_time()
        counts = self._today(options, clears=clears)
        if counts is None:
            return
        if clears:
            self._before = counts
        if counts.queries:
            self._unwritten[self._day] = counts
        failure = self._write_all()
        if failure is not None and not self._kept.is_failing:
            event(logging.ERROR, f"counts of queried names were not written, and stay in memory: {failure}")
        self._folder.keep_newest(options.days + SPARE_FILES)
        self._kept = Kept(len(self._folder.days()), counts.names, is_failing=failure is not None)

    def _write_all(self) -> str | None:
        """Writes all days that wait; returns why one could not be written."""
        failure = None
        for day, counts in sorted(self._unwritten.items()):
            try:
                self._folder.write(day, counts)
            except OSError as err:
                failure = err.strerror or str(err)
            else:
                del self._unwritten[day]
        while len(self._unwritten) > MAX_UNWRITTEN:
            del self._unwritten[min(self._unwritten)]
        return failure

    def _remove_old(self, options: QueryCounts) -> None:
        """A clock that is wrong for a while must not remove everything, so it has to be steady first."""
        if boot_time() - self._settled_at >= SETTLED_SECONDS:
            self._folder.keep(self._day - timedelta(days=options.days - 1), self._day)

    def _report(
        self, options: QueryCounts, file: str, candidate: Candidate, days: int, top: int
    ) -> PastImpact:
        counts = dict(self._past(days))
        today = self._today(options, clears=False)
        if today is not None and today.queries:
            counts[self._day] = today
        snapshot = self._publisher.policy.snapshot
        return report(file, candidate, snapshot, counts, last=self._day, count=days, top=top)

    def _past(self, days: int) -> Mapping[date, DayCounts]:
        wanted = (self._day - timedelta(days=back) for back in range(1, days))
        found = ((day, self._stored(day)) for day in wanted)
        return {day: counts for day, counts in found if counts is not None}


def _engine_bytes(options: QueryCounts) -> int:
    total = options.memory_mb << 20
    return total - total // WORKING_SHARE


def _file_bytes(options: QueryCounts) -> int:
    return (options.memory_mb << 20) // DISK_SHARE // (options.days + SPARE_FILES)
