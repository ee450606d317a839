"""The command `report transparency`: a report for the public, from the ledger."""

import json
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dnsblock.cli.common import EXIT_CODES, Commands, common
from dnsblock.errors import Problem, Refused, counted, printable

if TYPE_CHECKING:
    from dnsblock.config import Config

MODE = 0o644  # the report is public


@click.group(cls=Commands)
def report() -> None:
    """Make reports for the public."""


@report.command(epilog=EXIT_CODES)
@click.option("--from", "begin", metavar="TIME", help="Begin of the period. Without it: the first record.")
@click.option("--to", "end", metavar="TIME", help="End of the period, exclusive. Without it: now.")
@click.option(
    "--names",
    type=click.Choice(["none", "all"]),
    default="none",
    show_default=True,
    help="Whether the names of each order are listed, or only counted.",
)
@click.option(
    *("--format", "kind"),
    type=click.Choice(["page", "csv", "json"]),
    default=None,
    help="page (HTML, the default), csv or json.",
)
@click.option(
    *("-o", "--output"),
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the report to this file.",
)
@common
def transparency(
    config_path: Path,
    *,
    as_json: bool,
    begin: str | None,
    end: str | None,
    names: str,
    kind: str | None,
    output: Path | None,
) -> None:
    """Report which orders were in force and which ended in a period, for the public. No daemon is needed.

    Shows orders by issuer, category and legal basis, and the times to enforce, to verify and to lift them.
    Orders that are held, refused or proposed are only counted. No person is named.

    TIME is such as 2026-07-01 or 2026-07-01T12:00:00+07:00.
    """
    from dnsblock.config_file import load
    from dnsblock.reports.formats import as_csv
    from dnsblock.reports.formats import as_json as to_json
    from dnsblock.reports.page import as_page
    from dnsblock.reports.transparency import report_of

    if as_json and output is None and kind not in (None, "json"):
        raise click.UsageError("--json without --output prints the report as JSON: omit --format")
    config = load(config_path)
    times = _period(config, begin, end)
    made = report_of(config, *times, with_names=names == "all")
    wanted = kind or ("json" if as_json and output is None else "page")
    pieces = {"page": as_page, "csv": as_csv, "json": to_json}[wanted](made)
    if output is None:
        for piece in pieces:
            click.echo(piece, nl=False)
        return
    _write(output, pieces)
    totals = made["totals"]
    if as_json:
        click.echo(json.dumps({"file": str(output), "format": wanted, **totals}))
    else:
        in_force, ended = (
            counted(totals["orders_in_force"], "order"),
            counted(totals["orders_ended"], "order"),
        )
        click.echo(f"{printable(str(output))}: {in_force} in force, {ended} ended in the period")


def _period(config: "Config", begin: str | None, end: str | None) -> tuple[datetime | None, datetime]:
    from dnsblock.clock import utc_now
    from dnsblock.times import moment

    def parsed(text: str, option: str) -> datetime:
        try:
            return moment(text, config.time_zone)
        except ValueError as err:
            advice = "write it as 2026-07-01, or 2026-07-01T12:00:00+07:00"
            raise click.BadParameter(f"not a time: {printable(text)}: {advice}", param_hint=option) from err

    now = utc_now()
    since = None if begin is None else parsed(begin, "--from")
    until = now if end is None else parsed(end, "--to")
    if until > now:
        raise click.BadParameter("is in the future: the ledger does not know it yet", param_hint="--to")
    if since is not None and since >= until:
        raise click.BadParameter("must be before the end of the period", param_hint="--from")
    return since, until


def _write(path: Path, pieces: Iterable[str]) -> None:
    """Replaces a file when the report is complete. Raises `Refused`."""
    from dnsblock import durable

    partial = durable.partial_of(path)
    try:
        try:
            with partial.open("w", encoding="utf-8", newline="") as file:
                file.writelines(pieces)
                os.fchmod(file.fileno(), MODE)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as err:
        raise Refused([Problem(str(path), None, "", f"cannot be written: {err.strerror}")]) from err
