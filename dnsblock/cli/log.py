"""Commands for the ledger: log accept-restore."""

import json
from pathlib import Path

import click

from dnsblock.cli.common import EXIT_CODES, Commands, client_of, common


@click.group(cls=Commands)
def log() -> None:
    """Accept a ledger that lacks records, or a clock that is behind."""


@log.command("accept-restore", epilog=EXIT_CODES)
@click.option("--reason", required=True, metavar="TEXT", help="Why you accept it; recorded in the ledger.")
@common
def accept_restore(config_path: Path, as_json: bool, reason: str) -> None:
    """Accept a ledger that lacks records, or a clock that is behind.

    `dnsblock status` shows the missing records. The acceptance is recorded in the ledger, and publishing
    resumes. If no record is missing, this accepts a clock that is behind the last record.
    """
    answer = client_of(config_path).accept_restore(reason)
    if as_json:
        click.echo(json.dumps(answer))
    else:
        click.echo(f"accepted; now serving serial {answer['serial']}, {answer['entries']:,} names enforced")
