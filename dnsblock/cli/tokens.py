"""`order token`: makes a token for a client of the HTTPS API."""

import json
from pathlib import Path
from typing import Any

import click

from dnsblock.cli.common import EXIT_CODES, common
from dnsblock.cli.completion import issuer_names

ISSUER_ROLES = ("submit", "read")
STAFF_ROLES = ("watch", "operate")


@click.command(epilog=EXIT_CODES)
@click.argument("name")
@click.option(
    *("--issuer", "issuers"),
    metavar="ISSUER",
    shell_complete=issuer_names,
    multiple=True,
    help="An issuer whose orders it may submit or read. Repeat for more. Not for staff.",
)
@click.option(
    *("--role", "roles"),
    type=click.Choice((*ISSUER_ROLES, *STAFF_ROLES)),
    multiple=True,
    help="A role of the client. Default: submit and read. Your own staff: watch or operate.",
)
@common
def token(
    config_path: Path, as_json: bool, *, name: str, issuers: tuple[str, ...], roles: tuple[str, ...]
) -> None:
    """Make a token for a client of the HTTPS API, and the line to store.

    A client of an issuer needs --issuer. For your own staff, use --role watch (read everything) or --role
    operate (read and change everything) instead.

    Give the token to the client NAME: it is printed once and stored nowhere. Add the line to the file
    `api.tokens` and reload. The line contains only a hash of the token.
    """
    from pydantic import ValidationError

    from dnsblock.access import ApiClient, new_token

    secret, sha256 = new_token()
    entry: dict[str, Any] = {
        "name": name,
        "sha256": sha256,
        "roles": list(dict.fromkeys(roles or ISSUER_ROLES)),
    }
    if issuers:
        entry["issuers"] = list(dict.fromkeys(issuers))
    try:
        ApiClient.model_validate(entry)
    except ValidationError as err:
        first = err.errors()[0]
        place = "".join(f"{one}: " for one in first["loc"][:1])
        raise click.UsageError(place + first["msg"].removeprefix("Value error, ")) from err
    if as_json:
        click.echo(json.dumps({"token": secret, "client": entry}, ensure_ascii=False))
        return
    click.echo(f"token for {name}, shown only now:")
    click.echo(f"  {secret}")
    click.echo("line for the file of clients (`api.tokens`):")
    lists = ", ".join(f"{key}: [{', '.join(entry[key])}]" for key in ("roles", "issuers") if key in entry)
    click.echo(f"  - {{name: {name}, sha256: {sha256}, {lists}}}")
