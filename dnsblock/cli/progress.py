"""A progress bar on standard error; nothing if that is not a terminal."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from dnsblock.client import Client
from dnsblock.errors import DaemonUnreachable, Refused, printable

if TYPE_CHECKING:
    from dnsblock.policy import ReadingProgress
    from dnsblock.probe.run import Progress

TICK_SECONDS = 0.2


@contextlib.contextmanager
def reading(*, quiet: bool) -> Iterator["ReadingProgress"]:
    """Shows how much of the lists is read, while the block reads them."""
    from dnsblock.policy import ReadingProgress

    progress = ReadingProgress()
    with _shown(lambda: ("reading lists", progress.bytes, None), quiet=quiet):
        yield progress


@contextlib.contextmanager
def working(client: Client, *, quiet: bool) -> Iterator[None]:
    """Shows the work of the daemon, while the block waits for it."""

    def look() -> _Shown | None:
        with contextlib.suppress(DaemonUnreachable, Refused):  # the request in the block raises the same
            work = client.work()
            for zone, fetched in work["fetching"].items():
                return f"fetching {printable(zone)}", fetched["bytes"], fetched["announced"]
            if work["reading"] is not None:
                return "reading lists", work["reading"]["bytes"], None
        return None

    with _shown(look, quiet=quiet):
        yield


@contextlib.contextmanager
def counting(client: Client, seconds: int) -> Iterator[None]:
    """Shows the counts of an impact run, while the block waits for it."""

    def look() -> _Shown:
        with contextlib.suppress(DaemonUnreachable, Refused):  # the request in the block raises the same
            if (run := client.impact_progress()) is not None and run["elapsed"]:
                return f"{run['blocked']:,} of {run['queries']:,} queries", run["elapsed"], seconds
        return "reading the names", 0, seconds

    with _shown(look, in_bytes=False):
        yield


@contextlib.contextmanager
def probing(progress: "Progress", *, quiet: bool) -> Iterator[None]:
    """Shows how many responses of a probe are judged, while the block waits for it."""

    def look() -> _Shown:
        missed = f", {progress.missed:,} missed" if progress.missed else ""
        return f"{progress.done:,} of {progress.total:,} queries{missed}", progress.done, progress.total

    with _shown(look, quiet=quiet, in_bytes=False):
        yield


@contextlib.contextmanager
def following(look: Callable[[], Sequence[tuple[str, str]]], *, quiet: bool) -> Iterator[None]:
    """Shows a line for each of several things that go on at the same time, while the block runs."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    def lines() -> Table:
        table = Table.grid(padding=(0, 2))
        for what, doing in look():
            table.add_row(printable(what), printable(doing))
        return table

    with Live(get_renderable=lines, console=Console(stderr=True), refresh_per_second=5, transient=True):
        yield


_Shown = tuple[str, float, float | None]  # description, completed, total if known


@contextlib.contextmanager
def _shown(
    look: Callable[[], _Shown | None], *, quiet: bool = False, in_bytes: bool = True
) -> Iterator[None]:
    """A progress bar that a thread updates with the results of `look`."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    amount = DownloadColumn() if in_bytes else BarColumn()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), amount, TimeElapsedColumn())
    bar, done = Progress(*columns, console=Console(stderr=True), transient=True), threading.Event()
    task = bar.add_task("", total=None)

    def follow() -> None:
        # The first tick is delayed: quick work shows no bar.
        while not done.wait(TICK_SECONDS):
            if (found := look()) is not None:
                description, completed, total = found
                bar.update(task, description=description, completed=completed, total=total)
                bar.start()

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()
        bar.stop()
