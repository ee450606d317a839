"""`dnsblock why`: why a name is or is not blocked, now or at another time."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from dnsblock.cli.common import EXIT_CODES, client_of, common, local_time, print_table, time_of
from dnsblock.cli.lists import print_scheduled
from dnsblock.errors import Exit, printable, shown

RECORDS_SHOWN = 10
COVERS = {
    "exact": "only this name",
    "subtree": "this name and all names below it",
    "below": "all names below it",
    "prefix": "responses with these addresses",
    "client": "queries from these addresses",
}


@click.command(epilog=EXIT_CODES)
@click.argument("name")
@click.option(
    "--at",
    metavar="TIME",
    callback=time_of,
    help="Explain another time (RFC 3339, or a time in the configured time_zone, such as 2017-08-10 10:46).",
)
@click.option(
    "--known-at",
    metavar="TIME",
    callback=time_of,
    help="Use only orders and lists that this instance knew at TIME.",
)
@click.option(
    "--client",
    metavar="ADDRESS",
    help="Explain it for a client with this address: some zones may apply to certain clients only.",
)
@common
def why(
    config_path: Path, as_json: bool, name: str, at: str | None, known_at: str | None, *, client: str | None
) -> None:
    """Explain why NAME is or is not blocked: zone, order, entry, and other matching entries.

    If NAME is an IP address, this explains how responses with that address are treated.

    With --at, it explains the law at another time: all orders that are known now, whenever they came. With
    --known-at, only orders that this instance knew at that time count. Lists count from their acceptance.
    Both also show how this instance treated NAME at that time. For the future, the scheduled orders count.

    Exit code 0 if the name is blocked, 1 if it is not.
    """
    from dnsblock.names import NameRefused, address, canonical

    try:
        asked = canonical(name) if address(name) is None else name
    except NameRefused as err:
        raise click.BadParameter(str(err), param_hint="NAME") from err
    if client is not None and address(client) is None:
        raise click.BadParameter(f"'{shown(client)}' is not an IP address", param_hint="--client")
    if client is not None and (at is not None or known_at is not None):
        raise click.UsageError("--client explains the present: use it without --at and --known-at")
    answer = client_of(config_path).why(asked, at, known_at, client)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
    else:
        _print(answer)
    sys.exit(Exit.DONE if answer["verdict"] == "blocked" else Exit.NO)


def _print(answer: dict[str, Any]) -> None:
    decided = answer["decided_by"]
    click.echo(f"{answer['name']}: {answer['verdict']}{_when(answer)}")
    if decided is not None:
        click.echo(f"  by zone {decided['zone']}, {_by(decided)}")
        click.echo(f"  entry {decided['entry']} ({decided['match']}: {COVERS[decided['match']]})")
        click.echo(f"  action {decided['action']}")
        for record in decided["records"][:RECORDS_SHOWN]:
            click.echo(f"  record {record}")
        if len(decided["records"]) > RECORDS_SHOWN:
            click.echo(f"  and {len(decided['records']) - RECORDS_SHOWN:,} more records")
    over_tcp = answer["decided_over_tcp_by"]
    if (decided, answer["verdict"]) != (over_tcp, answer["verdict_over_tcp"]):
        by = f" by zone {over_tcp['zone']}, action {over_tcp['action']}" if over_tcp is not None else ""
        click.echo(f"  over TCP: {answer['verdict_over_tcp']}{by}")
    _print_here(answer)
    others = [entry for entry in answer["covering"] if not entry["decides"]]
    if others:
        click.echo("also matches:")
        rows = [
            [e["zone"], e["mode"], e["entry"], e["match"], e["action"], ", ".join(e["orders"])]
            for e in others
        ]
        print_table(["zone", "mode", "entry", "match", "action", "orders"], rows)
    for one in answer["allowed"]:
        until = local_time(one["until"], answer["time_zone"])
        click.echo(
            printable(
                f"allowed: {one['name']} ({one['match']}) until {until}, by {one['by']}: {one['reason']}"
            )
        )
    _print_unenforced(answer.get("not_enforced", []), "not enforced:")
    print_scheduled(answer)
    for note in answer.get("notes", []):
        click.echo(f"note: {printable(note)}")


def _when(answer: dict[str, Any]) -> str:
    """The time, and the knowledge that the answer is based on."""
    if "at" not in answer:
        return f" (serial {answer['serial']})"
    zone = answer["time_zone"]
    if answer["known_at"] is not None:
        source = f"as known here at {local_time(answer['known_at'], zone)}"
    else:
        source = "as scheduled today" if answer["is_scheduled"] else "by all orders known now"
    return f" at {local_time(answer['at'], zone)} ({source})"


def _by(decided: dict[str, Any]) -> str:
    if decided["orders"]:
        return f"order {', '.join(decided['orders'])}"
    if decided["kind"] == "rpz":
        return "a record"
    return "an exception of its list" if decided["is_exception"] else "a list"


def _print_here(answer: dict[str, Any]) -> None:
    """How this instance treated the name at the time."""
    here, zone = answer.get("here"), answer.get("time_zone", "UTC")
    if here is not None:
        decided = here["decided_by"]
        by = "" if decided is None else f" by zone {decided['zone']}, {_by(decided)}"
        click.echo(f"  here at that time: {here['verdict']}{by}")
        if here["not_enforced"] != answer["not_enforced"]:
            _print_unenforced(here["not_enforced"], "not enforced here at that time:")
    for one in answer.get("not_known", []):
        received = local_time(one["received_at"], zone)
        click.echo(f"  not known here: order {one['order_id']} of zone {one['zone']}, received {received}")


def _print_unenforced(entries: list[dict[str, Any]], title: str) -> None:
    if entries:
        click.echo(title)
        columns = ["zone", "order", "entry", "match", "state", "code", "reason"]
        keys = ["zone", "order_id", "entry", "match", "state", "code", "reason"]
        print_table(columns, [[one[key] for key in keys] for one in entries], free={"reason"})
