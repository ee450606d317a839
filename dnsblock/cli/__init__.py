"""The commands. They contain no logic: each parses its options, makes one request and prints the result.

Results go to standard output, everything else to standard error. With --json, a result is one JSON object.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnsblock import __version__
from dnsblock.cli import lists
from dnsblock.cli.allow import allow
from dnsblock.cli.common import (
    EXIT_CODES,
    FINDINGS_SHOWN,
    Commands,
    client_of,
    common,
    local_time,
    print_table,
)
from dnsblock.cli.export import export
from dnsblock.cli.fleet import fleet
from dnsblock.cli.impact import impact
from dnsblock.cli.log import log
from dnsblock.cli.orders import order
from dnsblock.cli.probe import probe
from dnsblock.cli.progress import reading, working
from dnsblock.cli.published import partly, print_published
from dnsblock.cli.receipt import receipt
from dnsblock.cli.report import report
from dnsblock.cli.webhooks import webhook
from dnsblock.cli.why import why
from dnsblock.errors import Exit, Problem, counted, printable

if TYPE_CHECKING:
    from dnsblock.daemon import Daemon
    from dnsblock.policy.check import Checked

ORDERS_SHOWN = 100


@click.group(cls=Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dnsblock")
def main() -> None:
    """Enforce DNS blocking orders in front of recursive resolvers.

    Each order takes effect at its time, for exactly the names in it, until it is lifted or expires.
    """


# ------- serve -------


@main.command(epilog=EXIT_CODES)
@common
def serve(config_path: Path, as_json: bool) -> None:
    """Run the daemon in the foreground.

    SIGHUP reloads configuration, orders and lists. SIGTERM and SIGINT stop it after outstanding queries are
    answered; a second signal stops it immediately. SIGUSR2 restarts it without losing queries.

    When ready, it prints its listen addresses (with --json, as one line of JSON).
    """
    from dnsblock.process import many_objects, raise_descriptor_limit

    with many_objects():
        import asyncio

        from dnsblock.config_file import load
        from dnsblock.log import set_up
        from dnsblock.orders.parsed import ParsedOrders
        from dnsblock.startup import CompiledAhead

        raise_descriptor_limit()
        config = load(config_path)
        set_up(config.log, config.time_zone)
        ahead = CompiledAhead(config, ParsedOrders.load(config.state))

        from dnsblock.daemon import Daemon  # a third of all imports, while the orders are compiled

        daemon = Daemon(config, ahead)
    asyncio.run(daemon.run(_ready_json if as_json else _ready_human))


def _ready_json(daemon: "Daemon") -> None:
    from dnsblock.http.api import status

    facts = status(daemon)
    keys = (
        "pid",
        "listening",
        "metrics",
        "api",
        "console",
        "landing",
        "control",
        "serial",
        "digest",
        "entries",
        "upstreams",
        "workers",
    )
    click.echo(json.dumps({"event": "ready", **{key: facts[key] for key in keys}}))


def _ready_human(daemon: "Daemon") -> None:
    from dnsblock.http.api import status

    facts = status(daemon)
    in_force = daemon.publisher.policy.state.in_force.values()
    name = next((item.entry.name for items in in_force for item in items), "example.com")
    host, _, port = facts["listening"][0].rpartition(":")
    at = f"@{host.strip('[]')} -p {port}"
    config = daemon.config.path
    click.echo(f"dnsblock {__version__} is listening on {', '.join(facts['listening'])} (UDP and TCP)")
    click.echo(f"  serial    {facts['serial']}")
    click.echo(f"  enforced  {counted(facts['entries'], 'name')}")
    click.echo(f"  upstream  {', '.join(facts['upstreams'])}")
    click.echo(f"  metrics   {'http://' + facts['metrics'] + '/metrics' if facts['metrics'] else 'off'}")
    if facts["api"]:
        click.echo(f"  api       https://{facts['api']}")
    click.echo("\nTry this in another terminal:")
    for queried in dict.fromkeys((name, "example.com")):
        click.echo(f"  dig {at} {queried}")
    click.echo(f"  {Path(sys.argv[0])} why -c {config} {name}\n")
    sys.stdout.flush()


# ------- check -------


@main.command(epilog=EXIT_CODES)
@click.option(
    "--startup",
    is_flag=True,
    help="Check only whether the daemon can start, even if some of its input is refused.",
)
@common
def check(config_path: Path, as_json: bool, startup: bool) -> None:
    """Check configuration, orders and lists, and print all problems.

    Needs no running daemon and changes nothing.

    With --startup, problems that do not prevent a startup are tolerated: refused orders, and broken or
    missing lists that have an earlier good version.
    """
    from dnsblock.policy.check import check_all

    with reading(quiet=as_json) as progress:
        checked = check_all(config_path, progress)
    failed = checked.prevents if startup else checked.problems
    if as_json:
        result = {
            "ok": not failed,
            "can_start": not checked.prevents,
            "problems": [problem.as_json() for problem in checked.problems],
            "zones": checked.zones,
            "notes": checked.notes,
        }
        click.echo(json.dumps(result, ensure_ascii=False))
        sys.exit(Exit.NO if failed else Exit.DONE)
    if startup:
        _print_startup(checked, config_path)
        sys.exit(Exit.NO if failed else Exit.DONE)
    for zone in checked.zones:
        if zone["report"] is not None:
            lists.print_report(zone["name"], zone["report"])
    if checked.problems:
        click.echo("\n".join(str(problem) for problem in checked.problems))
        count = len(checked.problems)
        click.echo(f"{count} problem{'s' if count > 1 else ''}", err=True)
    else:
        rows = [[z["name"], z["mode"], f"{z['entries']:,}", z["digest"]] for z in checked.zones]
        print_table(["zone", "mode", "names", "digest"], rows)
        for note in checked.notes:
            click.echo(f"note: {printable(note)}")
        click.echo(f"{config_path}: no problems")
    sys.exit(Exit.NO if checked.problems else Exit.DONE)


def _print_startup(checked: "Checked", config_path: Path) -> None:
    """Prints whether the daemon can start, and how many problems do not prevent that."""
    if checked.prevents:
        click.echo("\n".join(str(problem) for problem in checked.prevents))
        click.echo("the daemon cannot start", err=True)
        return
    click.echo(f"{config_path}: the daemon can start")
    if count := len(checked.problems):
        problems = f"{count:,} problem{'s' if count > 1 else ''}"
        click.echo(f"{problems} do not prevent that: see `dnsblock check -c {config_path}`", err=True)


# ------- reload, status -------


@main.command(epilog=EXIT_CODES)
@common
def reload(config_path: Path, as_json: bool) -> None:
    """Reload configuration, orders and lists, and print the changes.

    Returns when the new snapshot answers queries.

    If an order document is refused or a list is rejected, everything else is published, the problems are
    printed, and the exit code is 4. If the configuration file is invalid, all options keep their values.
    """
    client = client_of(config_path)
    with partly(as_json), working(client, quiet=as_json):
        published = client.reload()
    if as_json:
        click.echo(json.dumps(published))
    else:
        print_published(published)


@main.command(epilog=EXIT_CODES)
@common
def status(config_path: Path, as_json: bool) -> None:
    """Show the enforced snapshot, traffic, upstreams, zones, orders and problems.

    Exit code 1 if the last reload failed, or if no upstream is up.
    """
    facts = client_of(config_path).status()
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        _print_status(facts, config_path)
    is_served = len(facts["upstreams_down"]) < len(facts["upstreams"])
    sys.exit(Exit.DONE if facts["last_publish"]["ok"] and is_served else Exit.NO)


def _print_listeners(facts: dict[str, Any]) -> None:
    if facts["api"]:
        click.echo(f"  api          https://{facts['api']}")
    if facts["console"]:
        click.echo(f"  console      https://{facts['console']}/console/")
    if facts["landing"]:
        click.echo(f"  landing      {', '.join(facts['landing'])}")


def _print_status(facts: dict[str, Any], config_path: Path) -> None:
    def local(time: str | None) -> str:
        return local_time(time, facts["time_zone"])

    last = facts["last_publish"]
    click.echo(f"dnsblock {facts['version']}, pid {facts['pid']}, up since {local(facts['started_at'])}")
    click.echo(f"  listening    {', '.join(facts['listening'])}")
    _print_listeners(facts)
    click.echo(f"  serving      serial {facts['serial']} since {local(facts['published_at'])}")
    click.echo(f"  digest       {facts['digest']}")
    click.echo(f"  enforced     {counted(facts['entries'], 'name')}")
    click.echo(f"  next change  {local(facts['next_change_at'])}")
    click.echo(f"  last reload  {'ok' if last['ok'] else 'failed'} at {local(last['at'])} ({last['reason']})")
    if facts["restart_needed"]:
        click.echo(f"  RESTART      needed for new values of: {', '.join(facts['restart_needed'])}")
    _print_traffic(facts["traffic"])
    _print_ledger(facts["ledger"], facts["time_zone"])
    _print_probes(facts["probes"])
    if facts["impact_run"]:
        run = facts["impact_run"]
        elapsed = f"{run['elapsed']:.0f} of {run['seconds']:,} seconds"
        click.echo(f"  impact run   {printable(run['file'])}, {elapsed}")
    # Refused documents and rejected lists are printed below.
    below = set(lists.rejected_lines(facts["sources"])) | set(_refused_lines(facts["refused_documents"]))
    lines = [line for line in (last["error"] or "").splitlines() if line not in below]
    for line in lines[:FINDINGS_SHOWN]:
        click.echo(f"    {printable(line)}")
    if len(lines) > FINDINGS_SHOWN:
        click.echo(f"    and {len(lines) - FINDINGS_SHOWN:,} more: dnsblock check -c {config_path}")
    upstreams = [
        [one["address"], one["state"].upper() if one["state"] != "up" else "up", local(one["since"])]
        + [_milliseconds(one["latency_ms"][percent]) for percent in ("p50", "p99")]
        + [str(one["outstanding"]), one["reason"] or "-"]
        for one in facts["upstream_states"]
    ]
    print_table(
        ["upstream", "state", "since", "p50", "p99", "waiting", "last change"],
        upstreams,
        free={"last change"},
    )
    zones = [[z["name"], z["kind"], z["mode"], z["answer"], f"{z['entries']:,}"] for z in facts["zones"]]
    print_table(["zone", "kind", "mode", "answer", "names"], zones)
    for path in facts["histories_aside"]:
        click.echo(f"a corrupt history of lists was set aside: {printable(path)}: move it to another folder")
    lists.print_rejected(facts["sources"], config_path)
    _print_refused_documents(facts["refused_documents"], config_path)
    orders = [
        [
            *(o["order_id"], o["issuer"], o["action"], o["state"], f"{o['in_force']:,} of {o['entries']:,}"),
            *(local(o["effective_at"]), local(o["expires_at"]), "; ".join(o["notes"])),
        ]
        for o in facts["orders"][-ORDERS_SHOWN:]
    ]
    if len(facts["orders"]) > ORDERS_SHOWN:
        click.echo(f"the last {ORDERS_SHOWN} of {len(facts['orders']):,} orders (--json has all):")
    if orders:
        columns = ["order", "issuer", "action", "state", "in force", "effective", "expires", "notes"]
        print_table(columns, orders, free={"notes"})


def _refused_lines(refused: list[dict[str, Any]]) -> list[str]:
    return [str(Problem.from_json(problem)) for one in refused for problem in one["problems"]]


def _print_refused_documents(refused: list[dict[str, Any]], config_path: Path) -> None:
    if not refused:
        return
    click.echo(f"refused documents: {len(refused):,} (every problem: dnsblock check -c {config_path})")
    rows = [
        [one["file"], one["order_id"] or "-", f"{len(one['problems']):,}", _first_problem(one)]
        for one in refused[:FINDINGS_SHOWN]
    ]
    columns = ["document", "order", "problems", "first problem"]
    print_table(columns, rows, free={"first problem"})


def _first_problem(refused: dict[str, Any]) -> str:
    first = refused["problems"][0]
    return f"'{first['value']}': {first['reason']}" if first["value"] else str(first["reason"])


def _print_ledger(ledger: dict[str, Any], time_zone: str) -> None:
    """Problems of the ledger, its checkpoints and the clock."""
    if ledger["mismatch"]:
        click.echo("  ledger       NOT USED: to accept it, run `dnsblock log accept-restore --reason TEXT`")
        for one in ledger["mismatch"]["missing"]:
            whose = f" {printable(one['order_id'])} of {printable(one['issuer'])}" if one["order_id"] else ""
            click.echo(f"    missing: record {one['n']}, {one['kind']}{whose}")
    for place in ledger["checkpoint"]["places"]:
        if place["error"]:
            named = f"{place['kind']} {printable(place['name'])}"
            click.echo(f"  checkpoint   NOT SENT to the {named}: {printable(place['error'])}")
    if ledger["clock_behind_seconds"]:
        behind = f"{ledger['clock_behind_seconds']:,.0f} s behind the last record"
        as_of = local_time(ledger["as_of"], time_zone)
        click.echo(f"  clock        BEHIND: {behind}; orders are enforced as of {as_of}")


def _print_probes(probes: dict[str, Any] | None) -> None:
    """Orders that scheduled probes have not verified, and the first misses of each."""
    if probes is None:
        return
    if probes["unverified"]:
        click.echo(f"  unverified   {counted(probes['unverified'], 'order')} in effect")
    for one in probes["misses"][:FINDINGS_SHOWN]:
        of_order = f"order {printable(one['order_id'] or '')} of {one['issuer']}"
        what = "open names" if one["order_id"] is None else of_order
        click.echo(f"  MISSED       {one['missed']:,} of {one['asked']:,} responses, {what}")
        for first in one["first"]:
            click.echo(f"    {printable(first)}")
    if len(probes["misses"]) > FINDINGS_SHOWN:
        click.echo(f"    and {len(probes['misses']) - FINDINGS_SHOWN:,} more orders (--json has all)")


def _print_traffic(traffic: dict[str, Any]) -> None:
    """Traffic of the last minute, or since startup."""
    rate, blocked = traffic["queries_per_second"], traffic["blocked"]
    click.echo(
        f"  queries      {rate:,.1f} per second, {traffic['queries']:,} in {traffic['seconds']:.0f} s, "
        f"{blocked:,} of them blocked"
    )
    responses = ", ".join(f"{rcode} {count:,}" for rcode, count in traffic["responses"].items())
    click.echo(f"  responses    {responses or '-'}")
    for made, what in (("here", "answered here"), ("upstream", "from upstream")):
        latency = traffic["latency_ms"][made]
        times = ", ".join(f"{percent} {_milliseconds(latency[percent])}" for percent in latency)
        click.echo(f"  latency      {what}: {times}")


def _milliseconds(time: float | None) -> str:
    return "-" if time is None else f"{time:.3g} ms"


# ------- cache -------


@main.group(cls=Commands)
def cache() -> None:
    """Manage the cache of upstream responses."""


@cache.command(epilog=EXIT_CODES)
@click.argument("name", required=False)
@click.option("--subtree", is_flag=True, help="Also purge all names below NAME.")
@click.option("--all", "everything", is_flag=True, help="Purge the whole cache.")
@common
def purge(config_path: Path, as_json: bool, name: str | None, subtree: bool, everything: bool) -> None:
    """Purge NAME from the cache, so that the next query goes to an upstream.

    Give NAME or --all. A change of policy needs no purge: the policy is checked before the cache, and answers
    to blocked queries are not cached.
    """
    from dnsblock.names import NameRefused, canonical

    if (name is None) != everything or (everything and subtree):
        raise click.UsageError("give NAME, NAME --subtree or --all")
    try:
        asked = None if name is None else canonical(name)
    except NameRefused as err:
        raise click.BadParameter(str(err), param_hint="NAME") from err
    answer = client_of(config_path).purge(asked, below=subtree)
    if as_json:
        click.echo(json.dumps(answer))
    else:
        click.echo(f"purged {answer['purged']:,} cached responses")


# ------- ledger, orders, lists and history -------

for command in (
    allow,
    impact,
    log,
    order,
    probe,
    lists.source,
    lists.versions,
    lists.diff,
    lists.history,
    lists.rollback,
    export,
    fleet,
    report,
    webhook,
    why,
):
    main.add_command(command)
order.add_command(receipt)
