"""One order on a page: `order show`."""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import click

from dnsblock.cli.common import local_time, print_table
from dnsblock.errors import counted, printable

SHOWN = 100  # entries
TIMES = ("issued", "received", "effective", "enforced", "verified", "ended", "expires", "deadline")
SHOWN_OF_EACH = 20  # entries of each code, in a verdict on a document


def print_order(one: dict[str, Any]) -> None:
    """Prints the facts of one order."""
    click.secho(f"order {printable(one['order_id'])} of {printable(one['issuer'])}", bold=True)
    facts = list(_facts(one))
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        click.echo(f"  {name.ljust(width)}  {printable(value)}")
    if one["verdicts"]:
        click.echo("held or refused")
        rows = [[v["name"], v["verdict"], v["code"], v["reason"]] for v in one["verdicts"][:SHOWN]]
        print_table(["name", "verdict", "code", "reason"], rows, free=["reason"])
        print_decision(one["order_id"], one["verdicts"])
    if one["names"]:
        click.echo("entries")
        rows = [[entry["name"], entry["match"], _now(entry)] for entry in one["names"][:SHOWN]]
        print_table(["name", "match", "now"], rows, free=["now"])
        if one["entries"] > SHOWN:
            click.echo(f"and {one['entries'] - SHOWN:,} more: add --json")


def print_decision(order_id: str, verdicts: Iterable[dict[str, Any]]) -> None:
    """Prints the commands that decide about held entries, if there are any."""
    if any(one["verdict"] == "held" for one in verdicts):
        number = printable(shlex.quote(order_id))
        click.echo("to decide about held entries, ask the issuer, then run one of these:", err=True)
        for command in ("approve", "refuse"):
            click.echo(f"  dnsblock order {command} {number} --entry NAME --reason '…'", err=True)


def entry_lines(document: dict[str, Any]) -> Iterator[str]:
    """The entries of a document that are held or refused: the first ones of each code, and their number."""
    counts: Counter[tuple[str, str]] = Counter()
    for entry in document["entry_verdicts"]:
        verdict, code = entry["verdict"], entry["code"]
        counts[verdict, code] += 1
        if counts[verdict, code] <= SHOWN_OF_EACH:
            where = "" if entry["line"] is None else f"line {entry['line']}: "
            yield f"{verdict}: {where}{entry['name']}: {code}: {entry['reason']}"
    for (verdict, code), count in counts.items():
        is_only = sum(one == verdict for one, _ in counts) == 1  # the daemon names only the first thousand
        more = (document[verdict] if is_only else count) - SHOWN_OF_EACH
        if more > 0:
            yield f"{verdict}: and {more:,} more: {code}"


def _now(entry: dict[str, Any]) -> str:
    if entry["in_force"]:
        return "in force"
    if entry["verdict"] != "accepted":
        return str(entry["verdict"])
    return f"ended by {entry['ended_by']}" if entry["ended_by"] else "not in force"


def _facts(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    zone = one["time_zone"]
    yield "action", one["action"]
    yield "state", one["state"]
    yield "in force", f"{one['in_force']:,} of {one['entries']:,}"
    if one["blocked_queries"] is not None:
        yield "queries", f"{one['blocked_queries']:,} blocked since the daemon started"
    for key in (*TIMES, "review"):
        if one[f"{key}_at"] is not None:
            yield key, local_time(one[f"{key}_at"], zone)
    if one["breached"]:
        yield "breached", "the deadline has passed, and the order is not enforced or not verified"
    if one["seq"] is not None:
        yield "seq", str(one["seq"])
    for signer in one["signers"]:
        yield (
            "proposed by" if signer["proposed"] else "signed by",
            f"{signer['principal']} {signer['fingerprint']}",
        )
    for release in one["releases"]:
        names = "everything" if release["entries"] is None else ", ".join(release["entries"][:5])
        yield "released", f"{names} by {release['by']}: {release['reason']}"
    for refusal in one["refusals"]:
        yield "refused", f"{', '.join(refusal['entries'][:5])} by {refusal['by']}: {refusal['reason']}"
    if one["annulled"]:
        yield "annulled", f"by {one['annulled']['by']}: {one['annulled']['reason']}"
    yield from _words(one)
    yield from _content(one)
    yield "sha256", one["sha256"]
    for note in one["notes"]:
        yield "note", note


def _words(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The parts of the document for people."""
    for key in ("category", "urgency", "contact", "notice"):
        if one[key]:
            yield key, one[key]
    for text in one["legal_basis"]:
        yield "legal basis", text
    for key in ("reason", "conditions"):
        for language, text in (one[key] or {}).items():
            if text:
                yield f"{key} ({language})", text
    if one["subject"]:
        contact = one["subject"]["contact"]
        yield "subject", one["subject"]["name"] + (f", {contact}" if contact else "")
    for earlier in one["notices"]:
        about = f": {earlier['about']}" if earlier["about"] else ""
        yield "asked before", f"{local_time(earlier['at'], one['time_zone'])} by {earlier['by']}{about}"


def _content(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The parts of the document for programs, and the original letter."""
    if one["document"]:
        yield "document", " ".join(filter(None, (one["document"]["sha256"], one["document"]["uri"])))
    if one["acks"]:
        yield "acks", ", ".join(one["acks"])
    for key in ("add", "remove"):
        for line in (one["keys"] or {}).get(key, ()):
            yield f"{key} key", line
    if (stated := one["statement"]) is not None:
        until = local_time(stated["valid_until"], one["time_zone"])
        yield "statement", f"{counted(stated['entries'], 'entry', 'entries')} in force, valid until {until}"
    for target in one["targets"]:
        named = target["entries"]
        entries = "all entries" if named is None else counted(named, "entry", "entries")
        yield "ends", f"{target['order_id']} ({entries})"
