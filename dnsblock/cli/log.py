"""Commands about the ledger: log accept-restore."""

import json
from pathlib import Path

import click

from dnsblock.cli.common import EXIT_CODES, client_of, common


@click.group()
def log() -> None:
    """The ledger: all orders that were accepted."""


@log.command("accept-restore", epilog=EXIT_CODES)
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is recorded in the ledger.")
@common
def accept_restore(config_path: Path, as_json: bool, reason: str) -> None:
    """Use the ledger as it is, although acknowledged records are missing.

    `dnsblock status` shows what is missing. The acceptance is recorded in the ledger, and publishing resumes.
    Without missing records, this accepts a clock that is behind the last record.
    """
    answer = client_of(config_path).accept_restore(reason)
    if as_json:
        click.echo(json.dumps(answer))
    else:
        click.echo(f"accepted; now serving serial {answer['serial']}, {answer['entries']:,} names enforced")
