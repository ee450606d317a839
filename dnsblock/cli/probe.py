"""The command `probe`: queries resolvers for the names of an order, and names every wrong response."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnsblock.cli.common import EXIT_CODES, client_of, common, print_table
from dnsblock.cli.completion import order_numbers
from dnsblock.cli.orders import ISSUER, issuer_of
from dnsblock.cli.progress import probing
from dnsblock.client import MAX_PROBED, Client
from dnsblock.errors import Exit, printable

if TYPE_CHECKING:
    from dnsblock.probe.evidence import Evidence
    from dnsblock.probe.queries import Server

EXPLAINED = 20  # missed names for which the daemon is asked why


@click.command(epilog=EXIT_CODES)
@click.option(
    *("--order", "order_id"),
    metavar="NUMBER",
    shell_complete=order_numbers,
    help="Probe the names of this order.",
)
@ISSUER
@click.option(
    "--server",
    "servers",
    metavar="ADDRESS:PORT",
    multiple=True,
    help="Query this resolver. May be repeated. Default: the listen addresses of the daemon.",
)
@click.option(
    "--open",
    "opened",
    metavar="NAME",
    multiple=True,
    help="Probe that NAME is not blocked, and no name below it. May be repeated.",
)
@click.option(
    "--reference",
    "references",
    metavar="ADDRESS:PORT",
    multiple=True,
    help="Compare the answers for names that are not blocked with this resolver. Default: the upstreams.",
)
@click.option(
    "--most",
    type=click.IntRange(1, MAX_PROBED),
    default=1000,
    show_default=True,
    help="Most names of the order; of more names, a random sample is probed.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="The format of the result. JSON and CSV have every query.",
)
@click.option("--all", "shows_all", is_flag=True, help="Print a row for each query, not only for misses.")
@common
def probe(
    config_path: Path,
    as_json: bool,
    *,
    order_id: str | None,
    issuer: str | None,
    servers: tuple[str, ...],
    opened: tuple[str, ...],
    references: tuple[str, ...],
    most: int,
    form: str,
    shows_all: bool,
) -> None:
    """Query resolvers for the names of an order, and compare the responses with what was ordered.

    Each name is queried over UDP and TCP for A, AAAA and HTTPS, and a random name below it for A.

    A blocked name must get the answer of the order's answer profile. A name that is not blocked any more must
    get the upstream's answer.

    Exit code 1 if a response is missed: the result names the resolver, the name and the type.
    """
    import asyncio
    from dataclasses import replace

    from dnsblock.probe.checks import Plan, check_effect, from_json, open_checks
    from dnsblock.probe.run import Progress, Setup, run

    if order_id is None and not opened:
        raise click.UsageError("give --order NUMBER, --open NAME or both")
    if order_id is None and issuer is not None:
        raise click.UsageError("--issuer belongs to --order")
    queried = _servers(servers, "--server")
    names, compared = _names(opened), _servers(references, "--reference")
    client, order, plan = client_of(config_path), None, Plan(open_checks(names))
    if order_id is not None:
        owner = issuer_of(client, order_id, issuer)
        order, plan, answers = from_json(client.checks(owner, order_id, most))
        check_effect(order)
        plan = replace(plan, checks=(*plan.checks, *open_checks(names, answers)))
    plan = replace(plan, open=len(names))
    facts = client.status() if not (queried and compared) else {}
    setup = Setup(queried or _own(facts), compared or _servers(facts["upstreams"], "--reference"))
    progress = Progress()
    with probing(progress, quiet=as_json or form != "table"):
        evidence = asyncio.run(run(plan, order, setup, progress))
    explained = [] if queried else list(_explained(client, evidence))
    if as_json or form == "json":
        click.echo(json.dumps({**evidence.as_json(), "explained": explained}, ensure_ascii=False))
    elif form == "csv":
        from dnsblock.probe.report import as_csv

        click.echo(as_csv(evidence), nl=False)
    else:
        _print_evidence(evidence, explained, shows_all=shows_all)
    sys.exit(Exit.NO if evidence.missed or not evidence.rows else Exit.DONE)


def _servers(texts: tuple[str, ...], option: str) -> "list[Server]":
    from dnsblock.probe.queries import Server
    from dnsblock.values import Endpoint

    try:
        return [Server(Endpoint.parse(text, default_port=53)) for text in texts]
    except ValueError as err:
        raise click.BadParameter(str(err), param_hint=option) from err


def _own(facts: dict[str, Any]) -> "list[Server]":
    from dnsblock.probe.queries import Server

    return [Server.own(place) for place in facts["listening"]]


def _names(texts: tuple[str, ...]) -> list[str]:
    from dnsblock.names import NameRefused, canonical

    try:
        return list(dict.fromkeys(canonical(text) for text in texts))
    except NameRefused as err:
        raise click.BadParameter(str(err), param_hint="--open") from err


def _explained(client: Client, evidence: "Evidence") -> Iterator[dict[str, Any]]:
    """Why the daemon blocks missed names, or does not. For its own listeners."""
    for name in list(dict.fromkeys(row.name for row in evidence.rows if row.missed))[:EXPLAINED]:
        why = client.why(name, None)
        decided = why["decided_by"] or {}
        yield {"name": name, "verdict": why["verdict"], **{key: decided.get(key) for key in _DECIDED}}


_DECIDED = ("zone", "orders", "entry", "match", "action")


def _print_evidence(evidence: "Evidence", explained: list[dict[str, Any]], *, shows_all: bool) -> None:
    from dnsblock.probe import report

    click.echo(report.headline(evidence))
    print_table(report.SUMMARY_COLUMNS, report.summary_table(evidence))
    for title, rows in report.row_tables(evidence) if shows_all else report.miss_tables(evidence):
        click.echo(f"\n{title}")
        columns = report.ROW_COLUMNS if shows_all else report.MISS_COLUMNS
        print_table(columns, rows, free=report.FREE_COLUMNS)
    if explained:
        click.echo("\nby the policy in force:")
    for one in explained:
        by = "" if one["zone"] is None else f" by zone {one['zone']}, entry {one['entry']}"
        orders = f", order {', '.join(one['orders'])}" if one["orders"] else ""
        click.echo(f"  {one['name']}: {one['verdict']}{by}{printable(orders)}")
    click.echo(f"\n{report.conclusion(evidence)}")
