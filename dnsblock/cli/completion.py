"""Values that a shell completes: orders of the daemon, and zones and issuers of the configuration file.

Click calls these functions while a person waits for the Tab key. So they take half a second at most, print
nothing, and complete nothing if the daemon or the file cannot be read.
"""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from dnsblock.cli.common import client_of
from dnsblock.control import DEFAULT_CONFIG, MAX_BYTES
from dnsblock.errors import DaemonUnreachable, Refused

SECONDS = 0.5
LAST_ORDERS = 200
# A shell inserts a value as it is, so no value may contain a character that has a meaning there.
PLAIN = re.compile(r"[A-Za-z0-9._/@+][A-Za-z0-9._/@+-]*")


class TooSlow(Exception):  # noqa: N818  # the house names what happened
    """The time for a completion is over."""


def order_numbers(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The numbers of the last orders, with the action and the state of each."""
    issuer = context.params.get("issuer")
    found: list[dict[str, Any]] = []
    with _quick():
        found = client_of(_config_path(context)).orders(last=LAST_ORDERS)["orders"]
    return [
        CompletionItem(one["order_id"], help=f"{one['action']}, {one['state']}")
        for one in reversed(found)
        if one["order_id"].startswith(incomplete)
        and PLAIN.fullmatch(one["order_id"])
        and issuer in (None, one["issuer"])
    ]


def zone_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of all policy zones."""
    return _items((zone.get("name") for zone in _zones(context)), incomplete)


def list_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of the policy zones that are not of an issuer."""
    return _items((zone.get("name") for zone in _zones(context) if "issuer" not in zone), incomplete)


def issuer_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The issuers that have a policy zone."""
    return _items((zone.get("issuer") for zone in _zones(context)), incomplete)


def file_names(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, which the shell itself completes."""
    return [CompletionItem(incomplete, type="file")]


def _items(names: Iterator[Any], incomplete: str) -> list[CompletionItem]:
    plain = (name for name in names if isinstance(name, str) and PLAIN.fullmatch(name))
    return [CompletionItem(name) for name in dict.fromkeys(plain) if name.startswith(incomplete)]


def _zones(context: click.Context) -> list[dict[str, Any]]:
    """The option `zones` as it is written. The file may be invalid: only what can be read is completed."""
    from dnsblock import document

    path = _config_path(context)
    read: Any = None
    with _quick():
        read = document.read(
            str(path), document.read_bytes(path, max_bytes=MAX_BYTES), max_bytes=MAX_BYTES
        ).value
    written = read.get("zones") if isinstance(read, dict) else None
    return [zone for zone in written if isinstance(zone, dict)] if isinstance(written, list) else []


def _config_path(context: click.Context) -> Path:
    return Path(context.params.get("config_path") or DEFAULT_CONFIG)


@contextmanager
def _quick() -> Iterator[None]:
    """Ends what takes too long or fails. Only the process of one completion runs this."""

    def end(_: int, __: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    except (TooSlow, Refused, DaemonUnreachable, OSError, LookupError, TypeError):
        return
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
