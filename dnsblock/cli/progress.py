"""A bar for a person who waits, on standard error; nothing where nobody looks."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from dnsblock.client import Client
from dnsblock.errors import DaemonUnreachable, Refused, printable

if TYPE_CHECKING:
    from dnsblock.policy import ReadingProgress

TICK_SECONDS = 0.2


@contextlib.contextmanager
def reading(*, quiet: bool) -> Iterator["ReadingProgress | None"]:
    """Shows how much of the lists was read while the block reads them."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from dnsblock.policy import ReadingProgress

    progress = ReadingProgress()
    with _shown(lambda: ("reading lists", progress.octets, None)):
        yield progress


@contextlib.contextmanager
def working(client: Client, *, quiet: bool) -> Iterator[None]:
    """Shows what the daemon is at while the block waits for it."""
    if quiet or not sys.stderr.isatty():
        yield
        return

    def look() -> tuple[str, int, int | None] | None:
        with contextlib.suppress(DaemonUnreachable, Refused):  # then what is waited for says so
            work = client.work()
            for zone, fetched in work["fetching"].items():
                return f"fetching {printable(zone)}", fetched["octets"], fetched["announced"]
            if work["reading"] is not None:
                return "reading lists", work["reading"]["octets"], None
        return None

    with _shown(look):
        yield


@contextlib.contextmanager
def _shown(look: Callable[[], tuple[str, int, int | None] | None]) -> Iterator[None]:
    """A bar that follows what `look` finds: what is done, and how many octets of how many, if it is known."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), DownloadColumn(), TimeElapsedColumn())
    bar, done = Progress(*columns, console=Console(stderr=True), transient=True), threading.Event()
    task = bar.add_task("", total=None)

    def follow() -> None:
        # Not at once: what is quick shows nothing.
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
