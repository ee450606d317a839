"""`order submit`: sends documents to the daemon of this machine, or pushes them to many instances at once."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnsblock.cli.common import EXIT_CODES, client_of, common, local_time, print_table
from dnsblock.cli.credentials import credentials_of, refuse_credentials, urls_of, with_credentials
from dnsblock.cli.order_page import entry_lines, print_decision
from dnsblock.cli.progress import following
from dnsblock.cli.signed_files import problem_line, read_all
from dnsblock.client import Client, SignedFile, is_refused
from dnsblock.errors import Exit, counted, printable

if TYPE_CHECKING:
    from dnsblock.instances import Credentials, Goal, Push, Stage

STAGES = ("accepted", "enforced", "verified")
FINDINGS = ("file", "verdict", "entry_verdicts", "notes", "problems")
POLL_SECONDS = 0.2  # of the daemon of this machine


_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog=EXIT_CODES)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@click.option(
    *("--to", "urls"),
    metavar="URL",
    multiple=True,
    callback=urls_of,
    help="Push to the issuers' API of this instance. Repeat for more.",
)
@click.option(
    "--wait",
    type=click.Choice(STAGES),
    help="Wait until every order has reached this stage. Default with --to: enforced; else not at all.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=60.0,
    show_default=True,
    help="Seconds to wait.",
)
@with_credentials
@common
def submit(
    config_path: Path,
    as_json: bool,
    *,
    files: tuple[Path, ...],
    urls: tuple[str, ...],
    wait: "Stage | None",
    timeout: float,
    **credentials: Path | None,
) -> None:
    """Submit order documents, and print a verdict for each.

    The signatures of FILE are those in FILE.sig, if it exists. An entries file is read from the folder of its
    document. Documents may refer to each other. To submit a document again changes nothing.

    Without --to, the documents go to the daemon of this machine. With --to, they are pushed to the issuers'
    APIs of all these instances at once. The command shows when each has accepted, enforced and verified them.

    \b
    accepted  in the ledger; takes effect at its time.
    held      in the ledger; not in force until it is approved, or until the
              missing orders arrive.
    refused   not in force; all problems are printed.

    Each entry of an accepted document has its own verdict, too. Entries that are held or refused are printed.

    Exit code 4 if a document or an entry is refused; the others are not affected. Exit code 3 if an instance
    cannot be reached. Exit code 1 if an order has not reached the stage of --wait within --timeout.
    Orders that are over by then count. So do orders that have reached the last stage that they can.
    """
    if not urls:
        refuse_credentials("--to", credentials)
    documents, unread = read_all(files)
    if urls:
        from dnsblock.instances import Goal

        goal = Goal(wait or "enforced", timeout)
        for one in () if as_json else unread:
            _print_verdict(one, None, err=True)
        code = _push(documents, unread, urls, credentials_of(**credentials), goal, as_json=as_json)
        sys.exit(Exit.REFUSED if unread else code)
    answer: dict[str, Any] = {"documents": []}
    missed: list[dict[str, Any]] = []
    if documents:
        client = client_of(config_path)
        answer = client.submit(documents)
        missed = [] if wait is None else _missed(client, answer["documents"], wait, timeout)
    answer["documents"] += unread
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
    else:
        _print_answer(answer)
        for one in missed:
            text = f"not {wait} within {timeout:g} s: order {printable(one['order_id'])}"
            click.echo(f"{text}{_when(one['order'])}", err=True)
    code = Exit.NO if missed else Exit.DONE
    sys.exit(Exit.REFUSED if any(map(is_refused, answer["documents"])) else code)


def _print_answer(answer: dict[str, Any]) -> None:
    """Prints the verdict on each document, and the snapshot in force if something was accepted."""
    served = answer.get("served")
    for one in answer["documents"]:
        _print_verdict(one, None if served is None else served["time_zone"])
        print_decision(one["order_id"], one["entry_verdicts"])
    if served:
        click.echo(f"serving serial {served['serial']}, {counted(served['entries'], 'name')} enforced")


# ------- The documents -------


def _print_verdict(one: dict[str, Any], zone: str | None, *, err: bool = False) -> None:
    number = "" if one["order_id"] is None else f" (order {printable(one['order_id'])} of {one['issuer']})"
    click.echo(f"{one['verdict']}: {one['file']}{number}", err=err)
    for change in one["changes"]:
        click.echo(f"  {printable(change)}")
    if one["lifting"] is not None and zone is not None:
        until = local_time(one["lifting"]["caches_until"], zone)
        click.echo(f"  caches may hold the blocked answer until {until}")
    for line in entry_lines(one):
        click.echo(f"  {printable(line)}")
    for note in one["notes"]:
        click.echo(f"  note: {printable(note)}")
    for problem in one["problems"]:
        click.echo(f"  {problem_line(problem, one['file'])}", err=True)


# ------- The daemon of this machine -------


def _missed(
    client: Client, documents: Sequence[dict[str, Any]], stage: "Stage", seconds: float
) -> list[dict[str, Any]]:
    """Waits, and returns the documents that have not reached a stage. Refused ones are not among them."""
    from dnsblock.instances import cannot_reach, reached

    until = time.monotonic() + seconds
    waiting = [one for one in documents if one["verdict"] != "refused"]
    while waiting:
        for one in waiting:
            one["order"] = client.order(one["issuer"], one["order_id"])
        waiting = [one for one in waiting if not reached(one, stage)]
        left = until - time.monotonic()
        if left <= 0 or all(cannot_reach(one["order"], left) for one in waiting):
            break
        time.sleep(min(POLL_SECONDS, left))
    return waiting


# ------- Other instances -------


def _push(
    documents: Sequence[SignedFile],
    unread: Sequence[dict[str, Any]],
    urls: Sequence[str],
    credentials: "Credentials",
    goal: "Goal",
    *,
    as_json: bool,
) -> Exit:
    """Pushes to all instances, prints the result, and returns the exit code."""
    import asyncio

    from dnsblock.instances import Push, push_all

    pushes = [Push(url) for url in urls] if documents else []
    with following(lambda: [(push.url, _progress(push, goal.stage)) for push in pushes], quiet=as_json):
        asyncio.run(push_all(pushes, documents, credentials, goal))
    if as_json:
        instances = [push.as_json() for push in pushes]
        facts = {"wait": goal.stage, "instances": instances, "unread": unread}
        click.echo(json.dumps(facts, ensure_ascii=False))
    elif pushes:
        _print_pushes(pushes, goal)
    for code in (Exit.REFUSED, Exit.UNREACHABLE):
        if any(push.code == code for push in pushes):
            return code
    return Exit.DONE if all(push.reached(goal.stage) for push in pushes) else Exit.NO


def _progress(push: "Push", stage: "Stage") -> str:
    from dnsblock.instances import reached

    if push.error is not None:
        return push.error
    done = sum(reached(one, stage) for one in push.documents)
    return f"{push.doing}: {done} of {len(push.documents)} {stage}" if push.documents else push.doing


def _print_pushes(pushes: Sequence["Push"], goal: "Goal") -> None:
    """Prints a row for each instance and order, then what is wrong."""
    rows = [[push.url, one["order_id"] or "-", *_row(one)] for push in pushes for one in push.documents]
    rows += [[push.url, "-", "-", "-", "-", "-"] for push in pushes if not push.documents]
    print_table(["instance", "order", "state", *STAGES], rows)
    seen: set[str] = set()
    for push in pushes:
        if push.error is not None:
            click.echo(f"{push.url}: {push.error}", err=True)
        for one in push.documents:
            finding = json.dumps([one.get(key) for key in FINDINGS])
            is_plain = one["verdict"] == "accepted" and not one["entry_verdicts"] and not one["notes"]
            if not is_plain and finding not in seen:  # most instances find the same
                seen.add(finding)
                click.echo(f"{push.url}:")
                _print_verdict(one, None if one["order"] is None else one["order"]["time_zone"])
        if push.error is None and not push.reached(goal.stage) and push.code != Exit.REFUSED:
            later = next(filter(None, (_when(one["order"]) for one in push.documents)), "")
            click.echo(f"{push.url}: not {goal.stage} within {goal.seconds:g} s{later}", err=True)


def _when(order: dict[str, Any] | None) -> str:
    """Why there was no need to wait: the order takes effect later."""
    if order is None or order["state"] != "scheduled":
        return ""
    return f": it takes effect at {local_time(order['effective_at'], order['time_zone'])}"


def _row(one: dict[str, Any]) -> list[str]:
    order = one["order"]
    if order is None:
        return [one["state"] or one["verdict"], "-" if one["verdict"] == "refused" else "yes", "-", "-"]
    times = (order.get(key) for key in ("received_at", "enforced_at", "verified_at"))
    return [order["state"], *(local_time(time, order["time_zone"]) for time in times)]
