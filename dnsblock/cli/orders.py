"""Commands for orders: submit documents, see their state, and decide about them."""

import json
from pathlib import Path
from typing import Any

import click

from dnsblock.cli.check_order import check
from dnsblock.cli.common import (
    EXIT_CODES,
    Commands,
    client_of,
    common,
    leave,
    local_time,
    print_table,
    reason_of,
)
from dnsblock.cli.completion import issuer_names, order_numbers
from dnsblock.cli.new_order import new
from dnsblock.cli.order_page import print_order
from dnsblock.cli.published import zone_line
from dnsblock.cli.signing import sign, verify
from dnsblock.cli.submitting import submit
from dnsblock.cli.tokens import token
from dnsblock.client import Client
from dnsblock.errors import Exit, counted, only_issuer, printable
from dnsblock.times import duration


@click.group(cls=Commands)
def order() -> None:
    """Write, sign, submit and inspect orders."""


for command in (new, check, sign, submit, token, verify):
    order.add_command(command)


ISSUER = click.option(
    "--issuer",
    shell_complete=issuer_names,
    help="The issuer, if several have an order with this number.",
)


def issuer_of(client: Client, number: str, issuer: str | None) -> str:
    """The issuer of the order with a number. Raises `OrderNotFound` if it has none, or several."""
    found = list(dict.fromkeys(one["issuer"] for one in client.orders(number)["orders"]))
    return only_issuer(found, number, issuer)


@order.command("list", epilog=EXIT_CODES)
@common
def list_(config_path: Path, as_json: bool) -> None:
    """List all orders with their states and deadlines, as the daemon knows them."""
    answer = client_of(config_path).orders()
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    if not answer["orders"]:
        leave(Exit.NO, "no orders")
    zone = answer["time_zone"]
    rows = [
        [
            *(one["issuer"], one["order_id"], one["action"], _state(one)),
            f"{one['in_force']:,} of {one['entries']:,}",
            local_time(one["effective_at"], zone),
            _deadline(one, zone),
        ]
        for one in answer["orders"]
    ]
    columns = ["issuer", "number", "action", "state", "in force", "effective", "deadline"]
    print_table(columns, rows, free=["state", "deadline"])
    for one in answer["orders"]:
        for note in one["notes"]:
            click.echo(f"{printable(one['order_id'])}: {printable(note)}")


def _state(one: dict[str, Any]) -> str:
    parts = [one["state"]]
    parts += [f"{one['held']:,} held"] if one["held"] else []
    parts += [f"{one['refused']:,} refused"] if one["refused"] else []
    return ", ".join(parts)


def _deadline(one: dict[str, Any], zone: str) -> str:
    if one["deadline_at"] is None:
        return "-"
    if one["breached"]:
        return f"BREACHED since {local_time(one['deadline_at'], zone)}"
    if one["seconds_left"] is None:
        return "met" if one["enforced_at"] else "-"
    return f"{duration(one['seconds_left'])} left"


@order.command(epilog=EXIT_CODES)
@click.argument("number", shell_complete=order_numbers)
@ISSUER
@common
def show(config_path: Path, as_json: bool, *, number: str, issuer: str | None) -> None:
    """Show everything about one order: its entries, signers, times, and who released what."""
    client = client_of(config_path)
    answer = client.order(issuer_of(client, number, issuer), number)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    print_order(answer)


@order.command(epilog=EXIT_CODES)
@click.argument("number", shell_complete=order_numbers)
@ISSUER
@click.option(
    "--entry", "names", multiple=True, metavar="NAME", help="Only this held entry. Repeat for more."
)
@click.option(
    "--reason", required=True, callback=reason_of, help="Why; recorded in the ledger with your user name."
)
@common
def approve(
    config_path: Path, as_json: bool, *, number: str, issuer: str | None, names: tuple[str, ...], reason: str
) -> None:
    """Release what is held in an order: entries that a guard holds, or an order after a gap.

    Without --entry, everything that is held in this order takes effect. Refused entries stay refused.
    """
    client = client_of(config_path)
    answer = client.approve(issuer_of(client, number, issuer), number, names, reason)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    served, released = answer["served"], answer["released"]
    click.echo(f"approved: {counted(released, 'entry', 'entries')} of order {printable(number)}")
    click.echo(f"serving serial {served['serial']}, {counted(served['entries'], 'name')} enforced")


@order.command(epilog=EXIT_CODES)
@click.argument("number", shell_complete=order_numbers)
@ISSUER
@click.option(
    "--entry", "names", multiple=True, metavar="NAME", help="Only this held entry. Repeat for more."
)
@click.option(
    "--reason", required=True, callback=reason_of, help="Why; the issuer sees it. Recorded in the ledger."
)
@common
def refuse(
    config_path: Path, as_json: bool, *, number: str, issuer: str | None, names: tuple[str, ...], reason: str
) -> None:
    """Refuse entries that a guard holds: they never take effect.

    Without --entry, all held entries of this order are refused. Its other entries stay as they are. A refusal
    is final: the issuer can only send another order.
    """
    client = client_of(config_path)
    answer = client.refuse(issuer_of(client, number, issuer), number, names, reason)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    click.echo(f"refused: {counted(answer['refused'], 'entry', 'entries')} of order {printable(number)}")


@order.command(epilog=EXIT_CODES)
@click.argument("number", shell_complete=order_numbers)
@ISSUER
@click.option(
    "--reason", required=True, callback=reason_of, help="Why the order is wrong; recorded in the ledger."
)
@common
def annul(config_path: Path, as_json: bool, *, number: str, issuer: str | None, reason: str) -> None:
    """Annul an accepted order that is wrong: it has no effect any more.

    The annulment is recorded in the ledger with your user name. The order_id and seq of the order become
    free: a corrected document may use them again. If you annul an unblock, the blocks that it lifted take
    effect again.
    """
    client = client_of(config_path)
    owner = issuer_of(client, number, issuer)
    answer = client.annul(owner, number, reason)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    served = answer["served"]
    click.echo(f"annulled: order {printable(number)} of {printable(owner)}")
    verb = "is" if answer["ended"] == 1 else "are"
    click.echo(f"  {counted(answer['ended'], 'entry', 'entries')} {verb} no longer in force")
    for change in served["changes"]["zones"]:
        if change["added"]:  # the blocks that it had lifted
            click.echo(f"  {zone_line(change)}")
    click.echo(f"serving serial {served['serial']}, {counted(served['entries'], 'name')} enforced")
