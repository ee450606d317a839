"""`dnsblock allow`: exempt a name from lists until a time."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from dnsblock.cli.common import (
    EXIT_CODES,
    client_of,
    common,
    leave,
    local_time,
    print_table,
    reason_of,
    time_of,
)
from dnsblock.cli.why import COVERS
from dnsblock.errors import Exit, printable


def _reason(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return None if value is None else reason_of(context, parameter, value)


@click.command(epilog=EXIT_CODES)
@click.argument("name", required=False)
@click.option(
    "--until",
    metavar="TIME",
    callback=time_of,
    help="When it ends (RFC 3339, or a time in the configured time_zone, such as 2017-08-10 10:46).",
)
@click.option("--end", "ends", is_flag=True, help="End an exception now.")
@click.option(
    "--match",
    type=click.Choice(["exact", "subtree", "below"]),
    default="subtree",
    show_default=True,
    help="The names that it covers: the name only, also all names below it, or only these.",
)
@click.option("--reason", callback=_reason, help="Why; recorded in the ledger.")
@common
def allow(
    config_path: Path,
    as_json: bool,
    *,
    name: str | None,
    until: str | None,
    ends: bool,
    match: str,
    reason: str | None,
) -> None:
    """Exempt NAME from all lists until a time. Without NAME, show the exceptions in force.

    It takes effect at once, and ends automatically at the given second. A list still blocks a longer name
    that it has an entry for. An order is never overridden: if one blocks NAME, the command shows which.

    Exit code 1 if NAME is still blocked, or, without NAME, if there is no exception.
    """
    if name is None:
        if until is not None or ends or reason is not None:
            raise click.UsageError("name the domain to exempt from lists")
        _show(config_path, as_json)
        return
    if (until is None) != ends:
        raise click.UsageError("give --until with the time when the exception ends, or --end to end it now")
    if reason is None:
        raise click.UsageError("give --reason: it is recorded in the ledger")
    answer = client_of(config_path).allow(_canonical(name), match, until, reason)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
    else:
        _print(answer, ends=ends)
    sys.exit(Exit.NO if not ends and answer["after"]["verdict"] == "blocked" else Exit.DONE)


def _canonical(name: str) -> str:
    from dnsblock.names import NameRefused, canonical

    try:
        return canonical(name)
    except NameRefused as err:
        raise click.BadParameter(str(err), param_hint="NAME") from err


def _print(answer: dict[str, Any], *, ends: bool) -> None:
    name, before, after = answer["name"], answer["before"], answer["after"]
    if ends:
        click.echo(f"{name} ({answer['match']}): lists apply again (serial {answer['served']['serial']})")
    else:
        until = local_time(answer["until"], answer["time_zone"])
        click.echo(f"{name} ({answer['match']}: {COVERS[answer['match']]}): allowed until {until}")
    lists = [
        one["zone"] for one in before["covering"] if one["kind"] != "orders" and one["mode"] == "enforce"
    ]
    if not ends and not lists:
        click.echo("note: no list had an entry that covers it")
    click.echo(f"{name} is {after['verdict']} now{_by(after['decided_by'])}")
    if not ends and after["verdict"] == "blocked" and after["decided_by"]["orders"]:
        click.echo("Only the issuer can change that, by an order to unblock or to exempt it.")


def _by(decided: dict[str, Any] | None) -> str:
    if decided is None:
        return ""
    orders = f", order {', '.join(decided['orders'])}" if decided["orders"] else ""
    return printable(f": zone {decided['zone']}{orders}, entry {decided['entry']}")


def _show(config_path: Path, as_json: bool) -> None:
    answer = client_of(config_path).allowed()
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
    elif answer["allowed"]:
        zone = answer["time_zone"]
        rows = [
            [
                *(one["name"], one["match"]),
                *(local_time(one["since"], zone), local_time(one["until"], zone)),
                *(one["by"], one["reason"]),
            ]
            for one in answer["allowed"]
        ]
        print_table(["name", "match", "since", "until", "by", "reason"], rows, free={"reason"})
    if not answer["allowed"]:
        if as_json:
            sys.exit(Exit.NO)
        leave(Exit.NO, "no exceptions are in force")
