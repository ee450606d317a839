"""`order token`: makes a token for a client of the issuers' API."""

import json
from pathlib import Path

import click

from dnsblock.cli.common import EXIT_CODES, common

ROLES = ("submit", "read")


@click.command(epilog=EXIT_CODES)
@click.argument("name")
@click.option(
    *("--issuer", "issuers"),
    metavar="ISSUER",
    multiple=True,
    required=True,
    help="An issuer whose orders it may submit or read. Repeat for more.",
)
@click.option(
    *("--role", "roles"),
    type=click.Choice(ROLES),
    multiple=True,
    help="A role of the client. Default: submit and read.",
)
@common
def token(
    config_path: Path, as_json: bool, *, name: str, issuers: tuple[str, ...], roles: tuple[str, ...]
) -> None:
    """Make a token for a client of the issuers' API, and the line to store.

    Give the token to the client NAME: it is printed once and stored nowhere. Add the line to the file
    `api.tokens` and reload. The line contains only a hash of the token.
    """
    from pydantic import ValidationError

    from dnsblock.access import ApiClient, new_token

    secret, sha256 = new_token()
    entry = {
        "name": name,
        "sha256": sha256,
        "roles": list(dict.fromkeys(roles or ROLES)),
        "issuers": list(dict.fromkeys(issuers)),
    }
    try:
        ApiClient.model_validate(entry)
    except ValidationError as err:
        first = err.errors()[0]
        raise click.UsageError(f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}") from err
    if as_json:
        click.echo(json.dumps({"token": secret, "client": entry}, ensure_ascii=False))
        return
    click.echo(f"token for {name}, shown only now:")
    click.echo(f"  {secret}")
    click.echo("line for the file of clients (`api.tokens`):")
    roles_, issuers_ = ", ".join(entry["roles"]), ", ".join(entry["issuers"])
    click.echo(f"  - {{name: {name}, sha256: {sha256}, roles: [{roles_}], issuers: [{issuers_}]}}")
