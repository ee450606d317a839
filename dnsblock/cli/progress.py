"""A bar for a person who waits, on standard error; nothing where nobody looks."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dnsblock._engine import Progress as Octets

TICK_SECONDS = 0.2


@contextlib.contextmanager
def reading(*, quiet: bool) -> Iterator["Octets | None"]:
    """Shows how much of the lists was read while the block reads them."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from dnsblock.policy import Octets

    console = Console(stderr=True)

    octets, done = Octets(), threading.Event()
    columns = (SpinnerColumn(), TextColumn("reading lists"), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def follow() -> None:
            while not done.wait(TICK_SECONDS):
                bar.update(task, completed=octets.octets)

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield octets
        finally:
            done.set()
            follower.join()
