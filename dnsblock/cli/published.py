"""The output of `reload` and other commands that publish: the serial, then the changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from dnsblock.cli.common import local_time
from dnsblock.errors import PartlyRefused, counted, printable

SHOWN = 10  # of each kind; --json has all
VERBS = {"block": "blocked", "exempt": "exempted", "unblock": "lifted"}


@contextmanager
def partly(as_json: bool) -> Iterator[None]:
    """If some input is refused, prints what was published before the problems."""
    try:
        yield
    except PartlyRefused as err:
        if not as_json:
            print_published(err.served)
        raise


def print_published(published: dict[str, Any]) -> None:
    """Prints a summary on standard output."""
    changes = published["changes"]
    lines = [
        *_cut([zone_line(one) for one in changes["zones"]], "zones"),
        *_cut([_order(one, published["time_zone"]) for one in changes["orders"]], "orders"),
        *_options(changes["options"]),
    ]
    state = "still serving" if lines else "nothing changed: still serving"
    served = f"{'now serving' if published['changed'] else state} serial {published['serial']}"
    click.echo(f"{served}, {counted(published['entries'], 'name')} enforced")
    for line in lines:
        click.echo(f"  {line}")
    for note in _cut(published["notes"], "notes"):
        click.echo(f"note: {printable(note)}")
    if published["restart_needed"]:
        click.echo(f"restart needed for: {', '.join(published['restart_needed'])}", err=True)


def _cut(lines: list[str], what: str) -> list[str]:
    if len(lines) <= SHOWN:
        return lines
    return [*lines[:SHOWN], f"and {len(lines) - SHOWN:,} more {what} (--json shows all)"]


def zone_line(change: dict[str, Any]) -> str:
    """The change of one zone, in numbers."""
    return f"zone {change['zone']}: {counted(change['added'], 'name')} added, {change['removed']:,} removed"


def _order(order: dict[str, Any], zone: str) -> str:
    by = f"order {printable(order['order_id'])} of {printable(order['issuer'])}"
    entries = counted(order["entries"], "entry", "entries")
    verb = f"{VERBS.get(order['action'], order['action'])} by {by}, {entries}"
    until = f", until {local_time(order['expires_at'], zone)}" if order["expires_at"] else ""
    if order["state"] == "scheduled":
        return f"from {local_time(order['effective_at'], zone)}: {verb}{until}"
    return f"accepted: {verb}{until} ({order['state']})"


def _options(options: list[str]) -> list[str]:
    if not options:
        return []
    more = f" and {len(options) - SHOWN:,} more (--json shows all)" if len(options) > SHOWN else ""
    return [f"options changed: {printable(', '.join(options[:SHOWN]))}{more}"]
