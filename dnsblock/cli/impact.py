"""The command that counts what an order or a list would block, before it counts."""

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnsblock.cli.common import EXIT_CODES, client_of, common, print_table
from dnsblock.client import MAX_TRIED_BYTES, Client
from dnsblock.document import read_bytes
from dnsblock.errors import DaemonUnreachable, printable

if TYPE_CHECKING:
    from concurrent.futures import Future

PROGRESS_SECONDS = 0.5  # between two looks at how far a trial is


@click.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--seconds", type=click.IntRange(1, 3600), default=60, show_default=True, help="How long to count."
)
@click.option(
    "--match",
    type=click.Choice(["exact", "subtree", "below"]),
    help="What each name covers, where a list leaves it open. An order says it itself.",
)
@click.option("--zone", help="The zone by whose source options a list is read, such as those of a csv.")
@click.option(
    "--top", type=click.IntRange(0, 1000), default=20, show_default=True, help="How many names to tell."
)
@common
def impact(
    config_path: Path,
    as_json: bool,
    *,
    file: Path,
    seconds: int,
    match: str | None,
    zone: str | None,
    top: int,
) -> None:
    """Count what blocking the names of FILE would touch, without blocking any.

    FILE is an order document (.yaml, .yml, .json), signed or not, or a list in any format. Of
    the queries of the next seconds, those are counted that it would have blocked, behind all zones. Ctrl-C
    ends that, and shows what was counted so far.
    """
    data, client = read_bytes(file, max_bytes=MAX_TRIED_BYTES), client_of(config_path)
    called = os.fsencode(file).decode("utf-8", "replace")
    report = _await_report(
        client, lambda: client.impact(called, data, match=match, zone=zone, seconds=seconds, top=top), seconds
    )
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        _print_impact(report)


def _await_report(client: Client, ask: Callable[[], dict[str, Any]], seconds: int) -> dict[str, Any]:
    from concurrent.futures import ThreadPoolExecutor, wait

    # A shell that starts it in the background has switched this off, and who ends it wants its report.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        try:
            _show_progress(client, asked, seconds)
        except KeyboardInterrupt:
            # Again and again: it may not have begun yet.
            while not asked.done():
                with suppress(DaemonUnreachable):  # then what was asked for says so
                    client.end_impact()
                wait([asked], timeout=PROGRESS_SECONDS)
        return asked.result()


def _show_progress(client: Client, asked: "Future[dict[str, Any]]", seconds: int) -> None:
    """Returns when what was asked for is there, or cannot be had."""
    from concurrent.futures import wait

    if not sys.stderr.isatty():
        wait([asked])
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(*Progress.get_default_columns(), console=console, transient=True) as bar:
        task = bar.add_task("reading the names", total=seconds)
        while not wait([asked], timeout=PROGRESS_SECONDS).done:
            with suppress(DaemonUnreachable):
                if (so_far := client.impact_progress()) is not None and so_far["elapsed"]:
                    told = f"{so_far['blocked']:,} of {so_far['queries']:,} queries"
                    bar.update(task, completed=so_far["elapsed"], description=told)


def _print_impact(report: dict[str, Any]) -> None:
    click.echo(
        f"{printable(report['file'])}: {report['names']:,} names, counted for {report['elapsed']:.0f} seconds"
    )
    if report["passed_over"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report["passed_over"].items())
        click.echo(f"lines that are passed over, as in a zone: {reasons}")
    rows = [
        ["would have blocked", f"{report['blocked']:,}", f"{report['blocking_names']:,}"],
        ["decided already", f"{report['decided']:,}", f"{report['decided_names']:,}"],
        ["not asked for", "", f"{report['unasked_names']:,}"],
    ]
    print_table(["", "queries", "names"], rows)
    click.echo(f"{report['share']:.4%} of all {report['queries']:,} queries would have been blocked")
    if report["top"]:
        print_table(["name", "queries"], [[row["name"], f"{row['queries']:,}"] for row in report["top"]])
