"""What every command has: its options, its exit codes, and how it shows things."""

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import click

from dnsblock.client import Client
from dnsblock.control import DEFAULT_CONFIG, control_socket
from dnsblock.errors import DaemonUnreachable, Exit, LedgerUnwritable, PartlyRefused, Refused, printable
from dnsblock.times import local_text

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_CODES = """\b
Exit codes:
  0  done
  1  the answer is no (a check found problems, a name is not blocked)
  2  wrong usage
  3  the daemon cannot be reached, or did not answer in time
  4  refused (what was enforced goes on being enforced)
"""


class Commands(click.Group):
    """A group whose help shows the summary of each command whole: click alone cuts it off."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        first = (cmd.help or "").partition("\n\n")[0]
        cmd.short_help = cmd.short_help or " ".join(first.split())
        super().add_command(cmd, name)


def common(command: Command) -> Command:
    """Adds the options that every command has, and turns what goes wrong into messages and exit codes."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except Refused as err:
            if kwargs.get("as_json"):
                served = {"served": err.served} if isinstance(err, PartlyRefused) else {}
                told = {"error": "refused", "problems": err.as_json(), **served}
                click.echo(json.dumps(told, ensure_ascii=False))
            leave(Exit.REFUSED, str(err))
        except LedgerUnwritable as err:
            leave(Exit.REFUSED, str(err))
        except DaemonUnreachable as err:
            leave(Exit.UNREACHABLE, str(err))

    path = click.Path(dir_okay=False, path_type=Path)
    config = click.option(
        *("-c", "--config", "config_path"),
        type=path,
        envvar="DNSBLOCK_CONFIG",
        default=DEFAULT_CONFIG,
        show_default=True,
        show_envvar=True,
        help="The configuration file.",
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    return cast(Command, config(as_json(run)))


def leave(code: Exit, message: str = "") -> NoReturn:
    """Ends the command, with what there is to say on standard error."""
    if message:
        click.echo(message, err=True)
    sys.exit(code)


def local_time(time: str | None, zone: str) -> str:
    """A time of the API, as people of that zone write it; "-" for none."""
    return "-" if time is None else local_text(time, zone)


def client_of(config_path: Path) -> Client:
    """The way to the daemon of this configuration."""
    return Client(control_socket(config_path))


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Shows rows; what is hostile in a cell is escaped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Into a file or a pipe nothing is folded: one row is one line.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)
