"""The command `order check`: every finding on order documents, and what they would change here."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from dnsblock.cli.common import EXIT_CODES, client_of, common, local_time
from dnsblock.cli.order_page import entry_lines
from dnsblock.cli.signed_files import problem_line, read_all
from dnsblock.client import SignedFile
from dnsblock.errors import DaemonUnreachable, Exit, Refused, counted, printable

ALONE_ZONE = "Asia/Jakarta"  # in which times are shown without a daemon; the default of the option time_zone


@click.command(epilog=EXIT_CODES)
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path)
)
@common
def check(config_path: Path, as_json: bool, *, files: tuple[Path, ...]) -> None:
    """Check order documents before they are signed and submitted. Nothing is changed.

    Prints every problem, every entry that is refused or held, and possible mistakes.

    It needs no configuration and no daemon. If the daemon can be reached, it also prints what the orders
    would change there. For a block, these are new names, and names that are blocked already. For an unblock,
    these are names that stay blocked, and why. Several documents may refer to each other.

    Exit code 1 if a document or an entry is refused, or if a document does not follow the previous one.
    """
    documents, unread = read_all(files)
    trials, zone, why_alone = _examined(config_path, documents)
    trials += [{"document": one, "acks": [], "signatures": None, "effect": None} for one in unread]
    if as_json:
        result = {"documents": trials, "checked_alone": why_alone, "time_zone": zone}
        click.echo(json.dumps(result, ensure_ascii=False))
    else:
        for trial in trials:
            _print(trial, zone)
        if why_alone is not None:
            click.echo(f"checked without a daemon: {printable(why_alone)}", err=True)
            click.echo("  not checked: earlier orders, signatures, and the names in force", err=True)
    sys.exit(Exit.NO if any(map(_is_bad, trials)) else Exit.DONE)


def _examined(
    config_path: Path, documents: Sequence[SignedFile]
) -> tuple[list[dict[str, Any]], str, str | None]:
    """The findings, the time zone to show times in, and why no daemon was asked."""
    try:
        answer = client_of(config_path).check_orders(documents)
    except (Refused, DaemonUnreachable) as err:
        return _alone(documents), ALONE_ZONE, str(err)
    return answer["trials"], answer["time_zone"], None


def _alone(documents: Sequence[SignedFile]) -> list[dict[str, Any]]:
    from dnsblock.clock import utc_now
    from dnsblock.orders.submission import Submitted
    from dnsblock.policy.alone import try_alone

    now = utc_now()
    return [
        dict(try_alone(Submitted(one.file, one.data, one.entries, one.signatures), now)) for one in documents
    ]


def _is_bad(trial: dict[str, Any]) -> bool:
    """Whether something is refused, or waits for an earlier order. A repeated name counts once."""
    document = trial["document"]
    repeated = sum(entry["code"] == "DUPLICATE" for entry in document["entry_verdicts"])
    is_refused = document["verdict"] == "refused" or document["refused"] > repeated
    is_waiting = document["state"] == "held" and document["held"] < max(document["entries"], 1)
    return bool(is_refused or is_waiting)


def _print(trial: dict[str, Any], zone: str) -> None:
    one = trial["document"]
    number = "" if one["order_id"] is None else f" (order {one['order_id']} of {one['issuer']})"
    verdict = "ok" if one["verdict"] == "accepted" else one["verdict"]
    click.echo(printable(f"{verdict}: {one['file']}{number}"))
    for line in _lines(trial, zone):
        click.echo(f"  {printable(line)}")
    for problem in one["problems"]:
        click.echo(printable(f"  {problem_line(problem, one['file'])}"))


def _lines(trial: dict[str, Any], zone: str) -> Iterator[str]:
    one, effect, lifting = trial["document"], trial["effect"], trial["document"]["lifting"]
    if effect is not None:
        yield _effect(effect, zone)
    elif one["verdict"] != "refused":
        yield from one["changes"] or [_entries(one["entries"])]
    yield from entry_lines(one)
    codes = {entry["code"] for entry in one["entry_verdicts"] if entry["verdict"] == "held"}
    if acks := sorted(codes & set(trial["acks"])):
        yield f"acks {', '.join(acks)}: released when a second officer has signed"
    if others := sorted(codes - set(trial["acks"])):
        yield f"to release {', '.join(others)}: acks and a second signature, or the operator's approval"
    if lifting is not None:
        yield from _lifting(lifting, zone)
    if trial["signatures"] is not None:
        yield from _signatures(trial["signatures"])
    yield from (f"note: {note}" for note in one["notes"] if not note.startswith("STILL_BLOCKED"))


def _effect(effect: dict[str, Any], zone: str) -> str:
    new = effect["added"] - effect["already_blocked"]
    held = [f"{count:,} held ({code})" for code, count in effect["held"].items()]
    refused = [f"{effect['refused']:,} refused"] if effect["refused"] else []
    parts = [f"{new:,} new", f"{effect['already_blocked']:,} already blocked", *held, *refused]
    most = "" if effect["checked"] == effect["added"] else f"; only {effect['checked']:,} were looked up"
    return f"adds {_entries(effect['entries'])} at {local_time(effect['at'], zone)}: {', '.join(parts)}{most}"


def _lifting(lifting: dict[str, Any], zone: str) -> Iterator[str]:
    still = lifting["checked"] - lifting["open"]
    at = local_time(lifting["at"], zone)
    yield f"opens {_entries(lifting['entries'])} at {at}: {lifting['open']:,} open, {still:,} still blocked"
    yield f"caches may hold the blocked answer until {local_time(lifting['caches_until'], zone)}"
    yield from (f"still blocked: {one['text']}" for one in lifting["still_blocked"])
    if (rest := lifting["still_blocked_total"] - len(lifting["still_blocked"])) > 0:
        yield f"still blocked: {rest:,} more"


def _signatures(signatures: dict[str, Any]) -> Iterator[str]:
    count = len(signatures["signers"])
    if signatures["proposed"]:
        yield "signed by a flagger only: an officer must sign, too"
    elif signatures["enough"]:
        yield f"signed by {', '.join(signatures['signers'])}" if count else "accepted without a signature"
    else:
        yield f"signatures: not enough yet, {signatures['needed']:,} needed"
        for problem in signatures["problems"]:
            value = f"'{problem['value']}': " if problem["value"] else ""
            yield f"  {value}{problem['reason']}"


def _entries(count: int) -> str:
    return counted(count, "entry", "entries")
