"""The options of commands that talk to the issuers' APIs of other instances: addresses and credentials."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dnsblock.cli.common import Command
from dnsblock.document import read_bytes
from dnsblock.errors import printable

if TYPE_CHECKING:
    from dnsblock.instances import Credentials

MAX_INSTANCES = 1000
MAX_TOKENS_BYTES = 1 << 20
TOKEN_VARIABLE = "DNSBLOCK_TOKEN"  # noqa: S105  # the name of a variable
_FILE = click.Path(dir_okay=False, path_type=Path)


def urls_of(_: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """The addresses of instances, without a slash at the end."""
    if not values:
        return ()
    from dnsblock.values import instance_url

    return _read(values, instance_url)


def places_of(_: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """The same, or `srv:NAME` for several."""
    if not values:
        return ()
    from dnsblock.values import fleet_place

    return _read(values, fleet_place)


def _read(values: Sequence[str], read: Callable[[str], str]) -> tuple[str, ...]:
    urls = []
    for value in values:
        try:
            urls.append(read(value))
        except ValueError as err:
            raise click.BadParameter(f"'{printable(value)}': {err}") from err
    if len(urls) > MAX_INSTANCES:
        raise click.BadParameter(f"more than {MAX_INSTANCES:,} instances")
    return tuple(dict.fromkeys(urls))


def with_credentials(command: Command) -> Command:
    """Adds the options of `credentials_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--token-file",
        type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
        help="A file with the token for other instances, or with lines of URL and token; - for standard "
        f"input. Without it: the variable {TOKEN_VARIABLE}.",
    ),
    click.option(
        "--certificate", type=_FILE, help="The client certificate for other instances, in PEM format."
    ),
    click.option("--client-key", type=_FILE, help="The key of --certificate, if it is in another file."),
    click.option(
        "--ca", type=_FILE, help="Trust only these certificate authorities, instead of the system's."
    ),
)


def refuse_credentials(option: str, credentials: Mapping[str, Path | None]) -> None:
    """Refuses credentials without the option that needs them. Raises `UsageError`."""
    if given := [name for name, value in credentials.items() if value is not None]:
        raise click.UsageError(f"--{given[0].replace('_', '-')} belongs to {option}")


def credentials_of(
    token_file: Path | None, certificate: Path | None, client_key: Path | None, ca: Path | None
) -> "Credentials":
    """The credentials for other instances. Raises `Refused`."""
    from dnsblock.instances import Credentials
    from dnsblock.tls import client_context

    if client_key is not None and certificate is None:
        raise click.UsageError("--client-key belongs to --certificate")
    tokens = _tokens(token_file)
    if not tokens and certificate is None:
        raise click.UsageError(f"needs a token (--token-file, or {TOKEN_VARIABLE}) or a --certificate")
    return Credentials(client_context(certificate, client_key, ca), tokens)


def _tokens(file: Path | None) -> dict[str | None, str]:
    """The tokens by URL; None: for all others. Raises `Refused`."""
    if file is None:
        text = os.environ.get(TOKEN_VARIABLE, "")
    elif str(file) == "-":
        text = sys.stdin.read(MAX_TOKENS_BYTES)
    else:
        text = read_bytes(file, max_bytes=MAX_TOKENS_BYTES).decode("utf-8", "replace")
    tokens: dict[str | None, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        *url, token = line.split() or [""]
        if len(url) > 1 or not token.isascii():
            # Never print the line: it contains a token.
            raise click.UsageError(f"line {number} of the tokens: write a token, or URL and token")
        if token:
            tokens[url[0].rstrip("/") if url else None] = token
    return tokens
