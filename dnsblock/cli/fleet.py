"""Commands for several instances: `fleet status` compares what they enforce."""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnsblock.cli.common import EXIT_CODES, Commands, common, leave, local_time, print_table
from dnsblock.cli.credentials import credentials_of, places_of, with_credentials
from dnsblock.errors import Exit, printable

if TYPE_CHECKING:
    from dnsblock.instances import Fetched

DIGITS = 12  # of a digest, in the table
IDLE_SECONDS = 60  # without a query
NO_ZONE = "a list, the configuration or the orders of other issuers"


@click.group(cls=Commands)
def fleet() -> None:
    """Compare several instances."""


@fleet.command(epilog=EXIT_CODES)
@click.option(
    *("--to", "urls"),
    metavar="URL",
    multiple=True,
    callback=places_of,
    help="The issuers' API of an instance, or srv:NAME, instead of those in `fleet`. Repeat for more.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=10.0,
    show_default=True,
    help="Seconds to wait.",
)
@with_credentials
@common
def status(
    config_path: Path, as_json: bool, *, urls: tuple[str, ...], timeout: float, **credentials: Path | None
) -> None:
    """Show what each instance enforces, since when, and which ones differ.

    The instances are those of the option `fleet`, or of --to. The SRV records of srv:NAME are looked up at
    the upstreams of the configuration. The token or certificate needs the role `read`.

    \b
    same       it enforces what most instances do.
    differs    its digest is another one: an order, a list or the configuration differs.
    idle       it enforces the same, but got no query in the last minute.
    unknown    it did not answer.

    Exit code 1 if an instance differs or is idle, 3 if one cannot be reached, 4 if one refuses the
    credentials.
    """
    import asyncio

    from dnsblock.cli.srv import with_targets
    from dnsblock.instances import fetch_snapshots
    from dnsblock.values import SRV

    zone = "UTC"
    if not urls or any(url.startswith(SRV) for url in urls):
        from dnsblock.config_file import load

        config = load(config_path)
        urls, zone = urls or config.fleet, config.time_zone.key
        urls = with_targets(urls, [server.address for server in config.upstream.servers])
    if not urls:
        leave(Exit.NO, "no instances: list them in the option `fleet`, or name them with --to URL")
    seen = asyncio.run(fetch_snapshots(urls, credentials_of(**credentials), timeout))
    usual = _usual(seen)
    rows = [_row(one, usual) for one in seen]
    if as_json:
        digest = None if usual is None else usual["digest"]
        click.echo(json.dumps({"digest": digest, "instances": rows}))
    else:
        _print(rows, zone)
    sys.exit(_exit_code(seen, rows))


def _exit_code(seen: Sequence["Fetched"], rows: Sequence[Mapping[str, Any]]) -> Exit:
    codes = {one.code for one in seen}
    for code in (Exit.UNREACHABLE, Exit.REFUSED):
        if code in codes:
            return code
    return Exit.DONE if all(row["state"] == "same" for row in rows) else Exit.NO


def _usual(seen: Sequence["Fetched"]) -> dict[str, Any] | None:
    """An answer with the digest that most instances have; if several do, the one that is in force latest."""
    answers = [one.answer for one in seen if one.answer is not None]
    count = Counter(one["digest"] for one in answers)
    return max(answers, key=lambda one: (count[one["digest"]], one["published_at"]), default=None)


def _row(one: "Fetched", usual: dict[str, Any] | None) -> dict[str, Any]:
    """The facts of an instance, with its state and the zones that differ."""
    if one.answer is None or usual is None:
        return {"url": one.url, "state": "unknown", "error": one.error, "differing_zones": []}
    answer = one.answer
    is_idle = answer["queries"] == 0 and answer["seconds"] >= IDLE_SECONDS
    state = "differs" if answer["digest"] != usual["digest"] else "idle" if is_idle else "same"
    ours, theirs = ({zone["name"]: zone["digest"] for zone in each["zones"]} for each in (answer, usual))
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return {**answer, "url": one.url, "state": state, "error": None, "differing_zones": differing}


def _print(rows: Sequence[dict[str, Any]], zone: str) -> None:
    cells = [
        [
            row["url"],
            row["state"],
            str(row["serial"]),
            printable(row["digest"]).removeprefix("sha256:")[:DIGITS],
            local_time(row["published_at"], zone),
            f"{row['queries'] / max(row['seconds'], 1):,.1f}",
        ]
        if row["error"] is None
        else [row["url"], row["state"], "-", "-", "-", "-"]
        for row in rows
    ]
    print_table(["instance", "state", "serial", "digest", "since", "queries/s"], cells)
    for row in rows:
        if row["state"] == "unknown":
            click.echo(f"{row['url']}: {printable(row['error'])}", err=True)
        elif row["state"] == "differs":
            what = ", ".join(map(printable, row["differing_zones"])) or NO_ZONE
            click.echo(f"{row['url']}: differs in {what}", err=True)
