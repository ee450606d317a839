"""The command `order receipt`: writes the signed receipt of an order."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from dnsblock.cli.common import EXIT_CODES, client_of, common
from dnsblock.cli.orders import ISSUER, issuer_of
from dnsblock.durable import write
from dnsblock.errors import Exit, Problem, Refused, printable

NAMESPACE = "dnsblock-receipt@v1"


@click.command(epilog=EXIT_CODES)
@click.argument("number")
@ISSUER
@click.option(
    *("-o", "--output"),
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write. The signature is written beside it, as FILE.sig.",
)
@common
def receipt(config_path: Path, as_json: bool, *, number: str, issuer: str | None, output: Path) -> None:
    """Write a receipt of an order: what became of it here, signed by this instance's key.

    It holds the verdict on each entry, and when the order was received, enforced, verified and lifted. The
    proof from the ledger is part of it. docs/ledger.md says how others verify it.
    """
    client = client_of(config_path)
    answer = client.receipt(issuer_of(client, number, issuer), number)
    signature = output.with_name(f"{output.name}.sig")
    _write(output, answer["receipt"])
    _write(signature, answer["signature"])
    content: dict[str, Any] = json.loads(answer["receipt"])
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        sys.exit(Exit.DONE)
    order = content["order"]
    click.echo(f"receipt of order {printable(number)} of {printable(order['issuer'])}: {order['state']}")
    click.echo(f"  written    {output} and {signature}")
    click.echo(f"  signed by  {content['instance']}")
    click.echo("Verify it with the public key of the instance (`dnsblock log key`) in the file KEYS:")
    click.echo(
        f"  ssh-keygen -Y verify -f KEYS -I {content['instance']} -n {NAMESPACE} -s {signature} < {output}"
    )


def _write(path: Path, text: str) -> None:
    try:
        write(path, text.encode())
    except OSError as err:
        reason = f"{err.strerror}: choose another file with -o"
        raise Refused([Problem(str(path), None, "", reason)]) from err
