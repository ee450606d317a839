"""Shared by all commands: common options, exit codes, and tables."""

import json
import shutil
import sys
import unicodedata
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import click

from dnsblock.client import Client
from dnsblock.control import DEFAULT_CONFIG, control_socket
from dnsblock.errors import (
    DaemonUnreachable,
    Exit,
    LedgerUnwritable,
    OrderNotFound,
    PartlyRefused,
    Refused,
    printable,
    shown,
)
from dnsblock.times import local_text, moment

MAX_REASON = 1000

Command = TypeVar("Command", bound=Callable[..., Any])

FINDINGS_SHOWN = 10  # problems; then a line says how to see all of them
EXIT_CODES = "\n".join(
    (
        "\b",
        "Exit codes:",
        "  0  success (`why`: the name is blocked)",
        "  1  negative result (problems, a name that is not blocked, nothing to show)",
        "  2  wrong usage",
        "  3  the daemon cannot be reached, or did not respond in time",
        "  4  refused, wholly or in part",
    )
)


class Commands(click.Group):
    """A group whose help shows each summary in full; click shortens it."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        first = (cmd.help or "").partition("\n\n")[0]
        cmd.short_help = cmd.short_help or " ".join(first.split())
        super().add_command(cmd, name)


def common(command: Command) -> Command:
    """Adds the common options, and turns exceptions into messages and exit codes."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except Refused as err:
            if kwargs.get("as_json"):
                served = {"served": err.served} if isinstance(err, PartlyRefused) else {}
                refusal = {"error": "refused", "problems": err.as_json(), **served}
                click.echo(json.dumps(refusal, ensure_ascii=False))
            leave(Exit.REFUSED, err.first(FINDINGS_SHOWN, f"dnsblock check -c {kwargs['config_path']}"))
        except OrderNotFound as err:
            if kwargs.get("as_json"):
                click.echo(json.dumps(err.as_json(), ensure_ascii=False))
            leave(err.code, str(err))
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


def reason_of(_: click.Context, __: click.Parameter, reason: str) -> str:
    """Parses the value of --reason, which is recorded: it must say something."""
    if not reason.strip() or len(reason) > MAX_REASON:
        raise click.BadParameter(f"give a reason of at most {MAX_REASON:,} characters")
    return reason


def time_of(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Parses the value of an option with a time, which the daemon reads in its time zone."""
    try:
        if value is not None:
            moment(value)
    except ValueError as err:
        reason = (
            f"'{shown(value or '')}' is not a time of the years 1 to 9999 in UTC: "
            "write it as 2017-08-10T10:46:00+07:00, or 2017-08-10 10:46"
        )
        raise click.BadParameter(reason, param_hint=parameter.opts[0]) from err
    return value


def leave(code: Exit, message: str = "") -> NoReturn:
    """Ends the command, with a message on standard error if there is one."""
    if message:
        click.echo(message, err=True)
    sys.exit(code)


def local_time(time: str | None, zone: str) -> str:
    """A time of the API in a time zone; "-" for none."""
    return "-" if time is None else local_text(time, zone)


def client_of(config_path: Path) -> Client:
    """The client for the daemon with this configuration."""
    return Client(control_socket(config_path))


GAP = "  "  # between two columns
FOLDED_CHARACTERS = 24  # minimum width of a folded column


def print_table(columns: list[str], rows: list[list[str]], *, free: Collection[str] = ()) -> None:
    """Prints rows, with control sequences in cells escaped.

    On a narrow terminal, only the columns of `free` text are folded, so that identifiers, digests and times
    stay whole. If that is not enough, each row becomes a block of lines. In a file or a pipe, one row is one
    line.
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(columns, *shown, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    folded = widths if room is None else _folded(columns, widths, room, free)
    if folded is None:
        _print_blocks(columns, shown)
        return
    title = _line(columns, folded)
    click.secho(title, bold=True) if sys.stdout.isatty() else click.echo(title)
    for row in shown:
        parts = [_parts(cell, width) for cell, width in zip(row, folded, strict=True)]
        for number in range(max(map(len, parts))):
            click.echo(_line([part[number] if number < len(part) else "" for part in parts], folded))


def _folded(columns: list[str], widths: list[int], room: int, free: Collection[str]) -> list[int] | None:
    """The column widths that fit; None if the table is too wide."""
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - room
    folded = list(widths)
    for place in sorted(range(len(columns)), key=lambda place: -widths[place]):
        if excess > 0 and columns[place] in free:
            taken = min(excess, max(0, widths[place] - FOLDED_CHARACTERS))
            folded[place] -= taken
            excess -= taken
    return None if excess > 0 else folded


def _print_blocks(columns: list[str], rows: list[list[str]]) -> None:
    """Prints each row as lines with a name and a value. Long values are not folded, so they can be copied."""
    width = max(map(_width, columns))
    for row in rows:
        for place, (column, cell) in enumerate(zip(columns, row, strict=True)):
            if cell and cell != "-":
                click.echo(
                    ("  " if place else "") + _padded(column, width + (0 if place else 2)) + GAP + cell
                )


def _line(cells: list[str], widths: list[int]) -> str:
    return GAP.join(_padded(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _parts(text: str, width: int) -> list[str]:
    """Splits a text into lines of at most `width` columns, between words if possible."""
    if _width(text) <= width:
        return [text]
    lines, line = [], ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if _width(longer) <= width:
            line = longer
            continue
        lines += [line] if line else []
        line = word
        while _width(line) > width:
            end = next(end for end in range(len(line), 0, -1) if _width(line[:end]) <= width)
            lines, line = [*lines, line[:end]], line[end:]
    return [*lines, line]


def _width(text: str) -> int:
    """The number of terminal columns."""
    return len(text) if text.isascii() else sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
