"""The command `order receipt`: writes the signed receipt of an order, or one report of many instances."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnsblock.cli.common import EXIT_CODES, client_of, common, local_time, print_table
from dnsblock.cli.completion import order_numbers
from dnsblock.cli.credentials import credentials_of, refuse_credentials, urls_of, with_credentials
from dnsblock.cli.orders import ISSUER, issuer_of
from dnsblock.durable import write
from dnsblock.errors import Exit, Problem, Refused, printable

if TYPE_CHECKING:
    from dnsblock.instances import Fetched

NAMESPACE = "dnsblock-receipt@v1"
REPORT = "dnsblock.report/1"
TIMES = ("received_at", "enforced_at", "verified_at", "ended_at")
TIME_ZONE = "Asia/Jakarta"  # of the table; the report has UTC


@click.command(epilog=EXIT_CODES)
@click.argument("number", shell_complete=order_numbers)
@ISSUER
@click.option(
    *("-o", "--output"),
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write. The signature is written beside it, as FILE.sig.",
)
@click.option(
    *("--from", "urls"),
    metavar="URL",
    multiple=True,
    callback=urls_of,
    help="Get the receipts from the issuers' APIs of these instances, into one report. Repeat for more.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=60.0,
    show_default=True,
    help="With --from: seconds to wait.",
)
@with_credentials
@common
def receipt(
    config_path: Path,
    as_json: bool,
    *,
    number: str,
    issuer: str | None,
    output: Path,
    urls: tuple[str, ...],
    timeout: float,
    **credentials: Path | None,
) -> None:
    """Write a receipt of an order: what became of it here, signed by this instance's key.

    It holds the verdict on each entry, and when the order was received, enforced, verified and lifted. The
    proof from the ledger is part of it. docs/ledger.md says how others verify it.

    With --from, the receipts of many instances become one report, which contains them with their signatures.
    It names the instances where the order has another state, or is missing. Then the exit code is 1, or 3 if
    an instance cannot be reached.
    """
    if urls:
        if issuer is None:
            raise click.UsageError("--from needs --issuer")
        sys.exit(
            _report(number, issuer, output, _fetched(urls, issuer, number, timeout, credentials), as_json)
        )
    refuse_credentials("--from", credentials)
    client = client_of(config_path)
    answer = client.receipt(issuer_of(client, number, issuer), number)
    signature = output.with_name(f"{output.name}.sig")
    _write(output, answer["receipt"])
    _write(signature, answer["signature"])
    content: dict[str, Any] = json.loads(answer["receipt"])
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    order = content["order"]
    click.echo(f"receipt of order {printable(number)} of {printable(order['issuer'])}: {order['state']}")
    click.echo(f"  written    {output} and {signature}")
    click.echo(f"  signed by  {content['instance']}")
    click.echo("Verify it with the public key of the instance (`dnsblock log key`) in the file KEYS:")
    name, *files = (shlex.quote(str(one)) for one in (content["instance"], signature, output))
    click.echo(f"  ssh-keygen -Y verify -f KEYS -I {name} -n {NAMESPACE} -s {files[0]} < {files[1]}")


def _write(path: Path, text: str) -> None:
    try:
        write(path, text.encode())
    except OSError as err:
        reason = f"{err.strerror}: choose another file with -o"
        raise Refused([Problem(str(path), None, "", reason)]) from err


# ------- A report of many instances -------

_LOOK = "on each, `dnsblock order show NUMBER` and `dnsblock status` show what is held or missed"


def _fetched(
    urls: tuple[str, ...], issuer: str, number: str, seconds: float, credentials: dict[str, Path | None]
) -> "list[Fetched]":
    import asyncio

    from dnsblock.instances import fetch_receipts

    return asyncio.run(fetch_receipts(urls, issuer, number, credentials_of(**credentials), seconds))


def _report(number: str, issuer: str, output: Path, fetched: "list[Fetched]", as_json: bool) -> Exit:
    """Writes the report, prints the instances, and returns the exit code."""
    instances = [_instance(one) for one in fetched]
    report = {"schema": REPORT, "issuer": issuer, "order_id": number, "instances": instances}
    text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
    _write(output, text)
    states = {one["state"] for one in instances}
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        rows = [
            [
                one["url"],
                one["state"] or printable(one["error"]),
                *(local_time(one[key], TIME_ZONE) for key in TIMES),
            ]
            for one in instances
        ]
        print_table(["instance", "state", "received", "enforced", "verified", "ended"], rows, free=["state"])
        if len(states) > 1:
            advice = "submit the missing orders to them again" if None in states else _LOOK
            click.echo(f"The instances differ: {advice}.", err=True)
        click.echo(f"written to {output}")
    if any(one.code is Exit.UNREACHABLE for one in fetched):
        return Exit.UNREACHABLE
    return Exit.DONE if len(states) == 1 and None not in states else Exit.NO


def _instance(one: "Fetched") -> dict[str, Any]:
    """The part of one instance. The receipt is the text that was signed."""
    facts: dict[str, Any] = {"url": one.url, "error": one.error, "instance": None, "state": None}
    facts |= dict.fromkeys(TIMES)
    if one.answer is not None:
        content = json.loads(one.answer["receipt"])
        facts["instance"], order = content["instance"], content["order"]
        facts |= {key: order[key] for key in ("state", *TIMES)}
        facts["lifting"] = content["lifting"]
    answer = one.answer or {}
    return facts | {key: answer.get(key) for key in ("receipt", "signature")}
