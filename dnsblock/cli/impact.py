"""The command `impact`: counts the queries that an order or a list would block, or would have blocked."""

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import click

from dnsblock.cli.common import EXIT_CODES, client_of, common, leave, print_table
from dnsblock.cli.completion import issuer_names, order_numbers, zone_names
from dnsblock.cli.orders import issuer_of
from dnsblock.cli.progress import counting
from dnsblock.client import MAX_CANDIDATE_BYTES, Client
from dnsblock.document import read_bytes
from dnsblock.errors import DaemonUnreachable, Exit, counted, printable

RETRY_SECONDS = 0.5


@click.command(epilog=EXIT_CODES)
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    *("--order", "number"),
    metavar="NUMBER",
    shell_complete=order_numbers,
    help="Instead of FILE: an order in the ledger, such as a notice.",
)
@click.option(
    "--issuer",
    shell_complete=issuer_names,
    help="With --order: the issuer, if several have an order with this number.",
)
@click.option("--seconds", type=click.IntRange(1, 3600), show_default="60", help="Duration of the count.")
@click.option(
    "--days",
    type=click.IntRange(1, 366),
    help="Instead of --seconds: the last days (UTC), from the counts of the option query_counts.",
)
@click.option(
    "--match",
    type=click.Choice(["exact", "subtree", "below"]),
    help="Names that each entry of a list covers, if its format leaves that open. Not for orders.",
)
@click.option(
    "--zone",
    metavar="ZONE",
    shell_complete=zone_names,
    help="Read the list with the source options of this zone, for example for csv.",
)
@click.option(
    "--top", type=click.IntRange(0, 1000), default=20, show_default=True, help="Number of names to print."
)
@common
def impact(
    config_path: Path,
    as_json: bool,
    *,
    file: Path | None,
    number: str | None,
    issuer: str | None,
    seconds: int | None,
    days: int | None,
    match: str | None,
    zone: str | None,
    top: int,
) -> None:
    """Count the queries that FILE, or an order in the ledger, would block, without blocking any.

    FILE is an order document (.yaml, .yml, .json) or a list in a detected format; for csv, give --zone. For
    the given time, its names are counted as in a shadow zone below all other zones. Ctrl-C ends the count
    early and prints the result so far.

    With --days, the result comes at once, from the counts of queried names (query_counts). It is a lower and
    an upper limit, because names that were queried fewer than ten times are not stored.
    """
    client = client_of(config_path)
    if (file is None) == (number is None):
        leave(Exit.USAGE, "give either FILE or --order NUMBER")
    if seconds is not None and days is not None:
        leave(Exit.USAGE, "give either --seconds or --days")
    seconds = 60 if seconds is None else seconds
    ask: Callable[[], dict[str, Any]]
    if number is not None:
        owner = issuer_of(client, number, issuer)
        ask = partial(client.impact_of_order, owner, number, seconds=seconds, top=top)
        if days is not None:
            ask = partial(client.past_impact_of_order, owner, number, days=days, top=top)
    else:
        data = read_bytes(cast(Path, file), max_bytes=MAX_CANDIDATE_BYTES)
        called = os.fsencode(cast(Path, file)).decode("utf-8", "replace")
        ask = partial(client.impact, called, data, match=match, zone=zone, seconds=seconds, top=top)
        if days is not None:
            ask = partial(client.past_impact, called, data, match=match, zone=zone, days=days, top=top)
    report = ask() if days is not None else _await_report(client, ask, seconds)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    elif days is not None:
        _print_past(report)
    else:
        _print_impact(report)


def _await_report(client: Client, ask: Callable[[], dict[str, Any]], seconds: int) -> dict[str, Any]:
    from concurrent.futures import ThreadPoolExecutor, wait

    # A shell that starts a command in the background disables SIGINT, which ends the count early.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        try:
            with counting(client, seconds):
                wait([asked])
        except KeyboardInterrupt:
            # Repeat it: the run may not have begun yet.
            while not asked.done():
                with suppress(DaemonUnreachable):  # `asked` raises the same
                    client.end_impact()
                wait([asked], timeout=RETRY_SECONDS)
        return asked.result()


def _print_impact(report: dict[str, Any]) -> None:
    click.echo(
        f"{printable(report['file'])}: {counted(report['names'], 'name')}, "
        f"counted for {report['elapsed']:.0f} seconds"
    )
    _print_passed_over(report)
    rows = [
        ["would have blocked", f"{report['blocked']:,}", f"{report['blocking_names']:,}"],
        ["already decided", f"{report['decided']:,}", f"{report['decided_names']:,}"],
        ["not queried", "", f"{report['unasked_names']:,}"],
    ]
    print_table(["", "queries", "names"], rows)
    click.echo(f"{report['share']:.4%} of all {report['queries']:,} queries would have been blocked")
    if report["top"]:
        print_table(["name", "queries"], [[row["name"], f"{row['queries']:,}"] for row in report["top"]])


def _print_passed_over(report: dict[str, Any]) -> None:
    if report["passed_over"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report["passed_over"].items())
        click.echo(f"skipped lines: {reasons}")


def _print_past(report: dict[str, Any]) -> None:
    file, days = printable(report["file"]), f"{report['first_day']} to {report['last_day']} (UTC)"
    click.echo(f"{file}: {counted(report['names'], 'name')}, {days}")
    _print_passed_over(report)
    click.echo(f"counted in {report['hours_counted']:,} of {report['hours']:,} hours")
    rows = [
        ["would have blocked", f"{report['blocked']:,}", f"{report['blocking_names']:,}"],
        ["already decided", f"{report['decided']:,}", f"{report['decided_names']:,}"],
        ["no name stored", "", f"{report['unlisted_names']:,}"],
    ]
    print_table(["", "queries", "names"], rows)
    click.echo(
        f"between {report['share']:.4%} and {report['share_at_most']:.4%} of all {report['queries']:,} "
        "queries would have been blocked"
    )
    click.echo(
        f"{report['unlisted']:,} queries are for names that are not stored, since they were queried fewer "
        f"than {report['shown_from']} times a day or too rarely for query_counts.memory_mb"
    )
    if report["entries"]:
        rows = [
            [row["name"], row["match"], f"{row['queries']:,}", f"{row['at_most']:,}"]
            for row in report["entries"]
        ]
        print_table(["entry", "match", "queries", "at most"], rows)
    if report["top"]:
        print_table(
            ["queried name", "queries"], [[row["name"], f"{row['queries']:,}"] for row in report["top"]]
        )
