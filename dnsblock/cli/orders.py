"""Commands for orders: submit documents, and annul an erroneous order."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from dnsblock.cli.common import EXIT_CODES, Commands, client_of, common
from dnsblock.client import MAX_SUBMITTED_BYTES, SignedFile
from dnsblock.document import read, read_bytes
from dnsblock.errors import Exit, Refused, printable


@click.group(cls=Commands)
def order() -> None:
    """Submit and annul orders."""


@order.command(epilog=EXIT_CODES)
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path)
)
@common
def submit(config_path: Path, as_json: bool, *, files: tuple[Path, ...]) -> None:
    """Submit order documents to the daemon, and print a verdict for each.

    The daemon accepts a document as a whole or not at all. An entries file is read from the folder of its
    document. The ledger stores everything, so no copy in the orders folder is needed. Documents may refer to
    each other.

    \b
    accepted  in the ledger; takes effect at its time
    held      in the ledger; takes effect when the missing previous orders arrive
    refused   not recorded; all problems are printed

    Exit code 4 if a document is refused; the others are not affected.
    """
    answer = client_of(config_path).submit([_read(file) for file in dict.fromkeys(files)])
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
    else:
        for one in answer["documents"]:
            _print_verdict(one)
        if served := answer.get("served"):
            click.echo(f"serving serial {served['serial']}, {served['entries']:,} names enforced")
    is_refused = any(one["verdict"] == "refused" for one in answer["documents"])
    sys.exit(Exit.REFUSED if is_refused else Exit.DONE)


def _read(file: Path) -> SignedFile:
    """A document with its signatures and its entries file, if it has them."""
    called = os.fsencode(file).decode("utf-8", "replace")
    data = read_bytes(file, max_bytes=MAX_SUBMITTED_BYTES)
    beside = file.with_name(file.name + ".sig")
    signatures = read_bytes(beside, max_bytes=MAX_SUBMITTED_BYTES) if beside.exists() else None
    path = _path_of_entries(called, data)
    entries = None if path is None else read_bytes(file.parent / path, max_bytes=MAX_SUBMITTED_BYTES)
    return SignedFile(called, data, signatures, entries)


def _path_of_entries(called: str, data: bytes) -> str | None:
    """The plain name of the entries file in a document, if it has one."""
    try:
        value = read(called, data, max_bytes=len(data)).value
    except Refused:
        return None
    reference = value.get("entries_file") if isinstance(value, dict) else None
    path = reference.get("path") if isinstance(reference, dict) else None
    return path if isinstance(path, str) and "/" not in path and "\0" not in path else None


def _print_verdict(one: dict[str, Any]) -> None:
    number = "" if one["order_id"] is None else f" (order {printable(one['order_id'])} of {one['issuer']})"
    click.echo(f"{one['verdict']}: {one['file']}{number}")
    for change in one["changes"]:
        click.echo(f"  {printable(change)}")
    for note in one["notes"]:
        click.echo(f"  note: {printable(note)}")
    for problem in one["problems"]:
        where = "" if problem["line"] is None else f"line {problem['line']}: "
        value = f"'{problem['value']}': " if problem["value"] else ""
        click.echo(f"  {where}{value}{problem['reason']}", err=True)


@order.command(epilog=EXIT_CODES)
@click.argument("issuer")
@click.argument("order_id")
@click.option("--reason", required=True, help="Why the order is wrong; recorded in the ledger.")
@common
def annul(config_path: Path, as_json: bool, *, issuer: str, order_id: str, reason: str) -> None:
    """Annul an accepted order that is wrong: it has no effect any more.

    The annulment is recorded in the ledger with your user name. The order_id and seq of the order become
    free: a corrected document may use them again. If you annul an unblock, the blocks that it lifted take
    effect again.
    """
    answer = client_of(config_path).annul(issuer, order_id, reason)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    served = answer["served"]
    click.echo(f"annulled: order {printable(order_id)} of {printable(issuer)}")
    click.echo(f"  {answer['ended']:,} entries are no longer in force")
    click.echo(f"serving serial {served['serial']}, {served['entries']:,} names enforced")
