"""Commands for lists and their history: source, versions, diff, history, rollback."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dnsblock.cli.common import (
    EXIT_CODES,
    FINDINGS_SHOWN,
    Commands,
    client_of,
    common,
    local_time,
    print_table,
    reason_of,
)
from dnsblock.cli.completion import list_names
from dnsblock.cli.progress import working
from dnsblock.cli.published import partly, print_published
from dnsblock.client import MAX_SERIAL
from dnsblock.errors import Exit, Problem, Refused, counted, printable

LINES_SHOWN = 10  # of each kind; --json has a hundred
CHANGES_SHOWN = 1000
SERIAL = click.IntRange(0, MAX_SERIAL)


def _print_result(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer))
    else:
        print_published(answer)


# ------- source -------


@click.group(cls=Commands)
def source() -> None:
    """Show and manage lists: sources, versions and rejections."""


@source.command("list", epilog=EXIT_CODES)
@common
def list_sources(config_path: Path, as_json: bool) -> None:
    """Show each list: format, version, age and problems.

    Exit code 1 if the current content of a list is rejected, could not be fetched, or has expired.
    """
    answer = client_of(config_path).sources()
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
    else:
        _print_sources(answer, config_path)
    bad = any(one["rejected"] or one["fetch_error"] or one["expired"] for one in answer["sources"])
    sys.exit(Exit.NO if bad else Exit.DONE)


def _print_sources(answer: dict[str, Any], config_path: Path) -> None:
    def local(time: str | None) -> str:
        return local_time(time, answer["time_zone"])

    rows = [
        [
            *(one["zone"], one["place"], _format(one), str(one["version"] or "-")),
            *(
                f"{one['entries']:,}",
                local(one["accepted_at"]),
                local(one["fetched_at"]),
                local(one["next_at"]),
            ),
        ]
        for one in answer["sources"]
    ]
    columns = ["zone", "list", "format", "version", "names", "accepted", "fetched", "next"]
    print_table(columns, rows)
    for one in answer["sources"]:
        for skipped in one["skipped"][:LINES_SHOWN]:
            click.echo(f"list {one['zone']} does not read {printable(skipped['name'])}: {skipped['reason']}")
        if len(one["skipped"]) > LINES_SHOWN:
            click.echo(f"list {one['zone']} does not read {len(one['skipped']) - LINES_SHOWN:,} more")
        for warning in one["warnings"]:
            click.echo(f"list {one['zone']}: {printable(warning)}")
        if one["transfer"] is not None:
            click.echo(_transfer(one, local))
        elif one["expires_at"] is not None and one["expired"] is None:
            click.echo(f"list {one['zone']}: expires {local(one['expires_at'])}")
    print_rejected(answer["sources"], config_path)


def _transfer(source: dict[str, Any], local: Callable[[str | None], str]) -> str:
    """The last contact to a primary."""
    last = source["transfer"]
    text = f"list {source['zone']}: serial {last['serial']} from {last['primary']}"
    if last["expired"] is not None:
        return f"{text}: expired {local(last['expires_at'])}: {printable(last['expired'])}"
    return f"{text}, checked {local(last['checked_at'])}, expires {local(last['expires_at'])}"


def _format(source: dict[str, Any]) -> str:
    """The format, and that of the previous version if it differs."""
    former = source["report"]["former_format"] if source["report"] else ""
    return f"{source['format'] or '-'}, was {former}" if former else source["format"] or "-"


def rejected_lines(sources: list[dict[str, Any]]) -> list[str]:
    """All problems of the rejected lists, as `print_rejected` prints them."""
    return [str(one) for source in sources for one in _problems(source)]


def _problems(source: dict[str, Any]) -> list[Problem]:
    return [Problem.from_json(one) for one in source["rejected"]["problems"]] if source["rejected"] else []


def print_rejected(sources: list[dict[str, Any]], config_path: Path) -> None:
    """Prints the rejected lists with their problems, at most ten in total."""
    room = FINDINGS_SHOWN
    for one in sources:
        if one["fetch_error"]:
            click.echo(f"list {one['zone']} could not be fetched: {printable(one['fetch_error'])}")
        if one["expired"] is not None:
            click.echo(f"list {one['zone']} has expired: {printable(one['expired'])}")
        if one["rejected"]:
            is_unfetched = one["rejected"]["codes"] == ["NOT_FETCHED"]
            state = (
                f"version {one['version']} stays in force" if one["version"] else "nothing of it is enforced"
            )
            problem = "not fetched yet" if is_unfetched else "the current content is rejected"
            click.echo(f"list {one['zone']}: {problem}, {state}")
            # At least the reason, and how to accept the content.
            found = Refused(_problems(one))
            shown = found.first(max(room, 2), f"dnsblock check -c {config_path}")
            click.echo("\n".join(f"  {line}" for line in shown.splitlines()))
            room -= len(found.problems)


@source.command(epilog=EXIT_CODES)
@click.argument("zone", shell_complete=list_names)
@click.option("--whole", is_flag=True, help="Fetch all of it, even if its server has nothing newer.")
@common
def refresh(config_path: Path, as_json: bool, zone: str, whole: bool) -> None:
    """Fetch ZONE from its server now, or read its files again, and publish the list.

    Of a zone that is received by zone transfer, only what has changed is fetched, unless `--whole` is given.
    """
    client = client_of(config_path)
    with partly(as_json), working(client, quiet=as_json):
        answer = client.refresh(zone, whole=whole)
    _print_result(answer, as_json=as_json)


@source.command(epilog=EXIT_CODES)
@click.argument("zone", shell_complete=list_names)
@click.argument("digest")
@click.option(
    "--reason", required=True, callback=reason_of, help="Why the content is correct; recorded in the history."
)
@common
def accept(config_path: Path, as_json: bool, zone: str, digest: str, reason: str) -> None:
    """Accept content that a guard rejected for the list of ZONE. DIGEST identifies it.

    `dnsblock source list` shows the digest. The acceptance applies only to this content with the current
    source options.
    """
    client = client_of(config_path)
    with partly(as_json), working(client, quiet=as_json):
        answer = client.accept(zone, digest, reason)
    _print_result(answer, as_json=as_json)


def print_report(zone: str, report: dict[str, Any]) -> None:
    """Prints the report of a list: how many lines were accepted, repaired and rejected."""
    how = "recognised" if report["is_recognised"] else "as configured"
    if report["former_format"]:
        how += f"; it was {report['former_format']} before"
    entries = "prefixes" if report["format"] == "addresses" else "names"
    click.echo(f"list {zone}: format {report['format']} ({how}), {report['entries']:,} {entries}")
    kinds = ("accepted", "repaired", "duplicate", "not_applicable", "rejected")
    counts = ", ".join(f"{report[one]:,} {one.replace('_', ' ')}" for one in kinds)
    click.echo(f"  {report['lines']:,} lines: {counts}; {report['silent']:,} blank or comments")
    for what in ("repaired_by", "not_applicable_by", "rejected_by"):
        if report[what]:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in report[what].items())
            click.echo(f"  {what.removesuffix('_by').replace('_', ' ')}: {reasons}")
    for kind in ("left out", "rejected", "lost exception"):
        for one in [one for one in report["reported"] if one["kind"] == kind][:LINES_SHOWN]:
            value = f" '{one['value']}'" if one["value"] else ""
            click.echo(f"  {kind}: {one['file']}:{one['line']}{value}: {printable(one['reason'])}")


# ------- History -------


@click.command(epilog=EXIT_CODES)
@click.argument("zone", required=False, shell_complete=list_names)
@common
def versions(config_path: Path, as_json: bool, zone: str | None) -> None:
    """Show the published serials; with ZONE, the versions and rejected content of its list."""
    answer = client_of(config_path).versions(zone)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        return

    def local(time: str) -> str:
        return local_time(time, answer["time_zone"])

    if zone is None:
        rows = [
            [
                *(str(one["serial"]), local(one["published_at"]), one["reason"]),
                ", ".join(f"{name} {number}" for name, number in one["versions"].items()),
            ]
            for one in answer["snapshots"]
        ]
        print_table(["serial", "since", "reason", "lists"], rows, free={"reason", "lists"})
        return
    rows = [
        [
            *(str(one["version"]), local(one["accepted_at"]), one["how"], f"{one['entries']:,}"),
            *(_count("+", one["added"]), _count("-", one["removed"])),
            *("stored" if one["has_file"] else "", "withdrawn" if one["is_withdrawn"] else "", one["note"]),
        ]
        for one in answer["versions"]
    ]
    columns = ["version", "accepted", "how", "names", "new", "gone", "file", "state", "note"]
    print_table(columns, rows, free={"note"})
    for event in answer["events"]:
        text = f"{event['code']}: {event['message']}" if event["code"] else event["message"]
        times = f" ({event['times']} times)" if event["times"] > 1 else ""
        click.echo(f"{local(event['last_at'])} {event['kind']}{times}: {printable(text)}")


def _count(sign: str, count: int | None) -> str:
    return "" if count is None else f"{sign}{count:,}"


@click.command(epilog=EXIT_CODES)
@click.argument("a", type=SERIAL)
@click.argument("b", type=SERIAL)
@common
def diff(config_path: Path, as_json: bool, a: int, b: int) -> None:
    """Show the differences between serial A and serial B, name by name.

    Exit code 0 if there is a difference, 1 if there is none.
    """
    answer = client_of(config_path).diff(a, b, CHANGES_SHOWN)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
    for zone in () if as_json else answer["zones"]:
        states = " -> ".join(_state(zone[side], answer["time_zone"]) for side in ("a", "b"))
        click.echo(f"zone {zone['zone']}: {states}, {counted(zone['total'], 'name')}")
        for name, before, after in zone["changes"]:
            if before is not None:
                click.echo(f"- {name} {printable(before)}")
            if after is not None:
                click.echo(f"+ {name} {printable(after)}")
        if zone["total"] > len(zone["changes"]):
            click.echo(f"  and {zone['total'] - len(zone['changes']):,} more")
    if not answer["zones"] and not as_json:
        click.echo(f"no differences between serial {a} and serial {b}", err=True)
    sys.exit(Exit.DONE if answer["zones"] else Exit.NO)


def _state(state: str, zone: str) -> str:
    """The state of a zone: a version of its list, or a time for its orders."""
    try:
        return f"orders at {local_time(state, zone)}"
    except ValueError:
        return state


@click.command(epilog=EXIT_CODES)
@click.argument("name")
@common
def history(config_path: Path, as_json: bool, name: str) -> None:
    """Show the past and scheduled events of NAME in orders and lists.

    For an IP address, it shows the events in lists of addresses. Exit code 1 if there is no event.
    """
    from dnsblock.names import NameRefused, address, canonical

    try:
        canonical_name = canonical(name) if address(name) is None else name
    except NameRefused as err:
        raise click.BadParameter(str(err), param_hint="NAME") from err
    answer = client_of(config_path).history(canonical_name)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
    elif answer["events"] or answer["scheduled"]:
        if answer["events"]:
            _print_events(answer["events"], answer["time_zone"])
        print_scheduled(answer)
    else:
        click.echo(f"{canonical_name}: no events")
    sys.exit(Exit.DONE if answer["events"] or answer["scheduled"] else Exit.NO)


def print_scheduled(answer: dict[str, Any]) -> None:
    """Prints the scheduled events of a name."""
    if answer.get("scheduled"):
        click.echo("scheduled:")
        _print_events(answer["scheduled"], answer["time_zone"])


def _print_events(events: list[dict[str, Any]], zone: str) -> None:
    columns = ["zone", "what", "entry", "match", "by"]
    if any(one.get("answer") for one in events):
        columns.append("answer")
    rows = [[local_time(one["at"], zone), *(one[column] for column in columns)] for one in events]
    print_table(["at", *columns], rows, free={"answer"})


@click.command(epilog=EXIT_CODES)
@click.argument("serial", type=SERIAL)
@click.option(
    "--reason", required=True, callback=reason_of, help="Why you roll back; recorded in the history."
)
@common
def rollback(config_path: Path, as_json: bool, serial: int, reason: str) -> None:
    """Roll back all lists to an earlier SERIAL, as a new serial.

    The versions that you roll back from are not installed again automatically. Orders are not affected: only
    another order can lift an order.
    """
    answer = client_of(config_path).roll_back(serial, reason)
    _print_result(answer, as_json=as_json)
