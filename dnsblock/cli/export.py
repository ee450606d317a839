"""The command `export`: policy zones as a file for other software."""

import errno
import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import click

from dnsblock import durable
from dnsblock.cli.common import EXIT_CODES, client_of, common, leave
from dnsblock.cli.completion import zone_names
from dnsblock.errors import Exit, Problem, Refused, counted, printable

TAIL_BYTES = 1024


@click.command(epilog=EXIT_CODES)
@click.argument("kind", metavar="FORMAT", type=click.Choice(["rpz", "text", "hosts"]))
@click.option(
    *("--zone", "zones"),
    multiple=True,
    shell_complete=zone_names,
    metavar="NAME",
    help="A policy zone; several are combined in the configured order. Without it: all that are enforced.",
)
@click.option("--origin", metavar="NAME", help="The name of the RPZ zone, such as rpz.isp.example.")
@click.option(
    *("-o", "--output", "output"),
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; it is replaced when the export is complete. Without it: standard output.",
)
@common
def export(
    config_path: Path,
    *,
    kind: str,
    zones: tuple[str, ...],
    origin: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Write policy zones for other software, as they are enforced now.

    rpz is a response policy zone, for BIND, Unbound and PowerDNS Recursor. text has one name per line, which
    stands for itself and for all names below it. hosts has lines as in /etc/hosts.

    Entries that a format cannot express are left out and counted, so what the file blocks is blocked here,
    too. The option `exports` of the configuration keeps such a file current.
    """
    if as_json and output is None:
        raise click.UsageError("--json needs --output: standard output is the export itself")
    if not all(zones):
        raise click.UsageError("--zone needs the name of a zone")
    for ends in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ends, lambda *_: sys.exit(Exit.USAGE))  # removes an incomplete file
    tail = b""
    with _target(output) as file:
        for piece in client_of(config_path).export(kind, zones, origin):
            file.write(piece)
            tail = (tail + piece)[-TAIL_BYTES:]
        counts = _counts(tail)
        if counts is None:
            leave(Exit.UNREACHABLE, "the export ended early: see the log of the daemon, and try again")
    if as_json:
        click.echo(json.dumps({"file": str(output), **counts}))
    else:
        _print(counts, output)


@contextmanager
def _target(output: Path | None) -> Iterator[BinaryIO]:
    """Standard output, a device, or a file that is replaced at the end unless there was an error."""
    try:
        if output is None:
            if sys.stdout is None:
                raise OSError(errno.EBADF, "it is closed", "standard output")
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
            return
        path = Path(os.path.realpath(output))  # not the link itself
        if path.exists() and not path.is_file():
            with path.open("wb") as device:
                yield device
            return
        durable.remove_left_behind(path)
        partial = durable.partial_of(path)
        try:
            with partial.open("xb") as file:
                if path.exists():
                    os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            with suppress(OSError):
                partial.unlink()
    except BrokenPipeError:
        raise  # such as `| head`
    except OSError as err:
        place = "standard output" if output is None else str(output)
        raise Refused([Problem(place, None, "", f"cannot be written: {err.strerror}")]) from err


def _counts(tail: bytes) -> dict[str, Any] | None:
    """The counts in the last line; None if it is missing."""
    last = tail.decode("utf-8", "replace").splitlines()[-1:]
    for line in last:
        _, is_end, counts = line.partition(" end: ")
        if is_end:
            found: dict[str, Any] = json.loads(counts)
            return found
    return None


def _print(counts: dict[str, Any], output: Path | None) -> None:
    """The counts on standard error: standard output may be the export."""
    place = "standard output" if output is None else printable(str(output))
    entries, records = counted(counts["entries"], "entry", "entries"), counted(counts["records"], "record")
    click.echo(f"{entries}, {records}: {place}", err=True)
    for reason, count in counts["left_out"].items():
        click.echo(f"left out, since the format cannot express it: {count:,} ({reason})", err=True)
