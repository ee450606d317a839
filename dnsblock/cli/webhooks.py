"""Commands for webhooks: webhook list and resend."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from dnsblock.cli.common import EXIT_CODES, Commands, client_of, common, local_time, print_table
from dnsblock.errors import Exit, counted

DEAD_LETTERS_SHOWN = 20


@click.group(cls=Commands)
def webhook() -> None:
    """Show webhooks, and send their events again."""


@webhook.command("list", epilog=EXIT_CODES)
@common
def list_webhooks(config_path: Path, as_json: bool) -> None:
    """Show each webhook with its last delivery, its failures, its queue and its dead letters.

    Exit code 1 if one is failing or disabled, or has dead letters.
    """
    facts = client_of(config_path).webhooks()
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        _print(facts)
    is_well = all(one["state"] == "ok" and not one["dead_letters"] for one in facts["webhooks"])
    sys.exit(Exit.DONE if is_well else Exit.NO)


def _print(facts: dict[str, Any]) -> None:
    zone, found = facts["time_zone"], facts["webhooks"]
    if not found:
        click.echo("no webhooks are configured", err=True)
        return
    rows = [
        [
            *(one["name"], one["issuer"], one["state"], local_time(one["delivered_at"], zone)),
            *(f"{one['queue']:,}", f"{len(one['dead_letters']):,}", f"{sum(one['failures'].values()):,}"),
            one["error"] or "-",
        ]
        for one in found
    ]
    columns = ["webhook", "issuer", "state", "last delivery", "queue", "dead", "failed tries", "last error"]
    print_table(columns, rows, free={"last error"})
    for one in found:
        if one["failing_since"] is not None:
            click.echo(f"{one['name']} has been failing since {local_time(one['failing_since'], zone)}")
        if one["dropped"]:
            click.echo(f"{one['name']}: {counted(one['dropped'], 'old dead letter')} dropped")
    dead_letters = [(one["name"], dead_letter) for one in found for dead_letter in one["dead_letters"]]
    if dead_letters:
        click.echo("dead letters:")
        rows = [
            [
                *(dead_letter["id"], name, dead_letter["kind"], dead_letter["order_id"] or "-"),
                "is sent again" if dead_letter["resent_at"] else dead_letter["reason"],
            ]
            for name, dead_letter in dead_letters[:DEAD_LETTERS_SHOWN]
        ]
        print_table(["id", "webhook", "event", "order", "reason"], rows, free={"reason"})
        if len(dead_letters) > DEAD_LETTERS_SHOWN:
            click.echo(f"and {len(dead_letters) - DEAD_LETTERS_SHOWN:,} more (--json has all)")
        click.echo("send them again: dnsblock webhook resend --all", err=True)


@webhook.command(epilog=EXIT_CODES)
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Send all dead letters again.")
@click.option("--webhook", "only", metavar="NAME", help="Only to this webhook.")
@common
def resend(
    config_path: Path, as_json: bool, ids: tuple[str, ...], everything: bool, only: str | None
) -> None:
    """Send dead letters, or other events, to webhooks again.

    Give the ids of events (the header `webhook-id`), or --all. The server is tried at once. A webhook that
    was disabled after HTTP 410 is enabled again.
    """
    if bool(ids) == everything:
        raise click.UsageError("give ids of events, or --all")
    done = client_of(config_path).resend(None if everything else ids, only)
    if as_json:
        click.echo(json.dumps(done))
    elif done["events"]:
        to = ", ".join(done["webhooks"])
        click.echo(f"{counted(done['events'], 'event')} in the queue again, for {to}")
    else:
        click.echo("no dead letters: nothing is sent", err=True)
