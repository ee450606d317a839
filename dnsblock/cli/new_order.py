"""The command `order new`: writes an order document from options and answers."""

import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from dnsblock.cli.common import EXIT_CODES, common, leave
from dnsblock.cli.completion import file_names, issuer_names, order_numbers
from dnsblock.cli.dialog import ACTIONS, Dialog
from dnsblock.cli.known_orders import KnownOrders
from dnsblock.errors import Exit, Problem, Refused, printable
from dnsblock.texts import Texts, language_of
from dnsblock.times import local

if TYPE_CHECKING:
    from dnsblock.orders.names_file import NamesFile
    from dnsblock.orders.schema import Match
    from dnsblock.orders.writing import NewOrder, Written
    from dnsblock.policy.trial import Trial

URGENCIES = ["routine", "urgent", "immediate"]
NAMES_SHOWN = 50
NOTES_SHOWN = 20
NAMES_IN_JSON = 1000

_Command = TypeVar("_Command", bound=Callable[..., Any])
_PATH = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_TIME = "TIME"
_ISSUER = click.option(
    "--issuer",
    metavar="ISSUER",
    shell_complete=issuer_names,
    help="The authority, as in the server's zone.",
)
_NAMES = click.option(
    "--names",
    metavar="FILE",
    shell_complete=file_names,
    help="The names, one per line; `-`: standard input.",
)


def _options(command: _Command) -> _Command:
    """Adds the options for the fields of a document."""
    many = partial(click.option, multiple=True)
    order = partial(click.option, metavar="NUMBER", shell_complete=order_numbers)
    for option in reversed(
        [
            _ISSUER,
            click.option("--id", metavar="NUMBER", help="The authority's own number, as on its letter."),
            click.option("--action", type=click.Choice(list(ACTIONS)), help="The effect of the order."),
            _NAMES,
            click.option(
                "--match", type=click.Choice(["exact", "subtree", "below"]), help="Of names without a match."
            ),
            order("--lifts", multiple=True, help="An order to end. Repeat for more."),
            click.option("--effective", metavar=_TIME, help="Start, such as '2017-07-14 11:30'."),
            click.option("--expires", metavar=_TIME, help="End of a block or an exemption."),
            click.option("--issued", metavar=_TIME, help="Time of issue. [default: now]"),
            click.option("--deadline", metavar=_TIME, help="When the order must be enforced everywhere."),
            click.option("--review", metavar=_TIME, help="When the authority will look at it again."),
            click.option(
                "--urgency", type=click.Choice(URGENCIES), help="Sets the deadline: 7 d, 24 h, 4 h."
            ),
            many("--ack", metavar="CODE", help="A guard code to accept. Repeat for more."),
            order("--notice", help="The notice that announced this block."),
            click.option("--category", metavar="TEXT", help="Such as gambling."),
            many("--legal-basis", metavar="TEXT", help="Repeat for more."),
            click.option("--reason-id", metavar="TEXT", help="The reason, in Indonesian."),
            click.option("--reason-en", metavar="TEXT", help="The reason, in English."),
            click.option("--contact", metavar="TEXT", help="Of the authority."),
            click.option("--document", type=_PATH, help="The original letter: its SHA-256 is written."),
            click.option("--document-uri", metavar="URI", help="Where the letter is published."),
            click.option("--subject", metavar="NAME", help="The operator of the names."),
            click.option("--subject-contact", metavar="TEXT", help="How to reach them."),
            many("--contacted", metavar="'TIME; BY; ABOUT'", help="An earlier contact with them."),
            click.option("--conditions-id", metavar="TEXT", help="Conditions for lifting, in Indonesian."),
            click.option("--conditions-en", metavar="TEXT", help="Conditions for lifting, in English."),
            click.option("--valid-until", metavar=_TIME, help="End of a status statement. [default: 7 days]"),
            many("--add-key", type=_PATH, help="A public key to add. Repeat for more."),
            many("--principal", metavar="NAME", help="The owner of each --add-key."),
            many("--remove-key", metavar="FINGERPRINT", help="Repeat for more."),
            click.option("--after", type=_PATH, help="The issuer's previous order, for seq and prev."),
            click.option("--orders", type=_FOLDER, help="A folder with all orders of the issuer."),
            click.option("--no-seq", is_flag=True, help="The issuer does not number its orders."),
            click.option("-o", "--output", type=_PATH, help="The document to write, .yaml or .yml."),
            click.option("--force", is_flag=True, help="Overwrite existing files."),
            click.option("--language", type=click.Choice(["id", "en"]), help="[default: of the locale]"),
            click.option(
                "--time-zone", default="Asia/Jakarta", show_default=True, help="Of times without an offset."
            ),
        ]
    ):
        command = option(command)
    return command


@click.command(epilog=EXIT_CODES)
@_options
@common
def new(config_path: Path, as_json: bool, **form: Any) -> None:
    """Write a new order document, from options or from answers.

    At a terminal, it asks for what the options leave open. If they leave nothing open, it asks nothing.

    It needs no configuration and no daemon. The document is complete: `order check` accepts it. More than
    1,000 names are written to a separate file. Nothing is overwritten without --force.

    The fields seq and prev follow from the previous order: from --after, from --orders, or from the daemon
    if it can be reached.

    In the file with the names, a line may have the match of its name (`t.me exact`), and a comment after #.

    Exit code 4 if a field or a name is refused; all of them are printed.
    """
    texts = Texts(language_of(form.pop("language")))
    try:
        zone = ZoneInfo(form.pop("time_zone"))
    except (ZoneInfoNotFoundError, ValueError) as err:
        raise click.BadParameter("not a time zone, such as Asia/Jakarta", param_hint="--time-zone") from err
    try:
        _New(config_path, as_json, texts, zone, form).run()
    except Refused as err:
        if as_json:
            click.echo(json.dumps({"error": "refused", "problems": err.as_json()}, ensure_ascii=False))
        leave(Exit.REFUSED, str(err))  # all of them: a clerk corrects everything at once


class _New:
    """One run of the command."""

    def __init__(
        self, config_path: Path, as_json: bool, texts: Texts, zone: ZoneInfo, form: dict[str, Any]
    ) -> None:
        self._config_path, self._as_json = config_path, as_json
        self._texts, self._zone, self._form = texts, zone, form
        self._notes: list[str] = []
        self._dialog: Dialog | None = None

    def run(self) -> None:
        """Completes the form, and writes the document that it makes. Raises `Refused`."""
        from dnsblock.clock import utc_now
        from dnsblock.orders.form import missing, option

        form, say = self._form, self._texts.say
        if wanted := missing(form):
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                options = ", ".join(option(key) for key in wanted)
                raise click.UsageError(say("{}: these options are missing: {}", "order new", options))
            self._dialog = Dialog(self._texts, self._zone, form)
            self._dialog.complete()
        output = Path(form["output"])
        now = utc_now()
        names = self._names()
        order, trial, content = self._made(names, output, now)
        popular = [] if "POPULAR" in order.acks else _held(trial, "POPULAR")
        if self._dialog is not None and popular and self._dialog.are_meant(popular):
            form["ack"] = (*(form.get("ack") or ()), "POPULAR")
            order, trial, content = self._made(names, output, now)
        self._refuse_existing(output, content)
        self._add_notes(names, trial, order, output)
        if self._dialog is not None:
            self._print(order, output, content, is_written=False)
            if not self._dialog.may_write(output):
                leave(Exit.NO, say("nothing was written"))
        self._write(output, content)
        self._print(order, output, content, is_written=True)

    # ------- The document -------

    def _names(self) -> "NamesFile":
        """The names of the form, whether they are in a file, typed, or none."""
        from dnsblock.document import read_bytes
        from dnsblock.orders.names_file import MAX_BYTES, read_lines, read_names

        form = self._form
        match: Match = form.get("match") or "subtree"
        if form.get("typed"):
            return read_lines("--names", form["typed"], match)
        if not form.get("names"):
            return read_lines("--names", [], match)
        if form["names"] == "-":
            return read_names("-", sys.stdin.buffer.read(MAX_BYTES), match)
        path = Path(form["names"])
        return read_names(str(path), read_bytes(path, max_bytes=MAX_BYTES), match)

    def _made(self, names: "NamesFile", output: Path, now: datetime) -> tuple["NewOrder", "Trial", "Written"]:
        """The document, and what is found in it. Raises `Refused` with everything that is wrong."""
        from dnsblock.orders.form import filled
        from dnsblock.orders.submission import Submitted
        from dnsblock.orders.writing import written
        from dnsblock.policy.alone import try_alone

        self._notes.clear()
        problems = list(names.problems)
        if output.suffix.lower() not in (".yaml", ".yml"):
            reason = self._texts.say("{} must end with .yaml or .yml", output.name)
            problems.append(Problem("--output", None, "", reason))
        try:
            order = filled(self._form, names.names, self._zone, now)
            known = KnownOrders(self._form, order.issuer, self._config_path, self._texts)
            order, note = known.number(order)
            if order.action == "snapshot":
                order, stated = known.statement(order, self._zone)
                self._notes += [] if stated is None else [stated]
            self._notes += [] if note is None else [note]
        except Refused as err:
            raise self._refusal([*problems, *err.problems]) from err
        content = written(order, f"{output.stem}.txt")
        trial = try_alone(Submitted(str(output), content.document, content.entries), now)
        if names.names or not names.problems:  # else the document has no names, for a reason that is known
            problems += _problems(trial, names)
        if problems:
            raise self._refusal(problems)
        return order, trial, content

    def _refusal(self, problems: Sequence[Problem]) -> Refused:
        reasons = self._texts.reason
        return Refused(
            Problem(one.file, one.line, one.value, reasons(one.reason)) for one in dict.fromkeys(problems)
        )

    def _refuse_existing(self, output: Path, content: "Written") -> None:
        """Raises `Refused` if a file would be overwritten: with --force only the file of names."""
        if content.entries is not None and self._is_names(_beside(output)):
            reason = self._texts.say("{} is the file of --names: give another name with -o", _beside(output))
            raise Refused([Problem("--output", None, "", reason)])
        files = [output] if content.entries is None else [output, _beside(output)]
        found = [] if self._form.get("force") else [file for file in files if file.exists()]
        text = "{} exists: give another name with -o, or overwrite it with --force"
        if found:
            raise Refused(Problem("--output", None, "", self._texts.say(text, file)) for file in found)

    def _is_names(self, file: Path) -> bool:
        names = str(self._form.get("names") or "-")
        return names != "-" and file.exists() and file.samefile(names)

    def _write(self, output: Path, content: "Written") -> None:
        """Writes the entries file, then the document that refers to it. Raises `Refused`."""
        from dnsblock import durable

        replaces = bool(self._form.get("force"))
        try:
            if content.entries is not None:
                durable.write(_beside(output), content.entries, mode=0o666, replaces=replaces)
            durable.write(output, content.document, mode=0o666, replaces=replaces)
        except OSError as err:
            reason = f"cannot be written: {err.strerror or err}"
            raise Refused([Problem(str(output), None, "", reason)]) from err

    # ------- Findings and the summary -------

    def _add_notes(self, names: "NamesFile", trial: "Trial", order: "NewOrder", output: Path) -> None:
        """Everything that the clerk should know, and that prevents nothing."""
        say, reason = self._texts.say, self._texts.reason
        notes = self._notes
        notes += [
            say("{} is written as {}", one.written, one.entry.name) for one in names.names if one.is_changed
        ][:NOTES_SHOWN]
        for one in names.repeated[:NOTES_SHOWN]:
            notes.append(say("line {} repeats {}", one.line, one.entry.name))
        if (rest := len(names.repeated) - NOTES_SHOWN) > 0:
            notes.append(say("{} more lines repeat a name", f"{rest:,}"))
        held = [one for one in trial["document"]["entry_verdicts"] if one["verdict"] == "held"]
        for verdict in held[:NOTES_SHOWN]:
            why = f"{verdict['name']}: {verdict['code']}: {reason(verdict['reason'])}"
            notes.append(say("held until it is released: {}", why))
        codes = sorted({one["code"] for one in held})
        if acks := [code for code in codes if code in order.acks]:
            notes.append(say("acks {} count when a second officer has signed", ", ".join(acks)))
        for code in codes:
            if code not in order.acks:
                text = "release them with --ack {} and a second signature, or let the operator approve them"
                notes.append(say(text, code))
        # The first remark on a name is said above, with the name as it was written.
        notes += [reason(note) for note in trial["document"]["notes"] if " is the A-label " not in note]
        signatures = output.with_name(f"{output.name}.sig")
        if signatures.exists():
            notes.append(say("{} has signatures of an earlier document: remove it", signatures.name))

    def _print(self, order: "NewOrder", output: Path, content: "Written", *, is_written: bool) -> None:
        """The summary: on output when the document is written, before that with the questions."""
        if self._as_json and is_written:
            click.echo(json.dumps(_facts(order, output, content, self._notes), ensure_ascii=False))
            return
        for line in summary(order, output, content, self._texts, self._zone):
            click.echo(printable(line), err=not is_written)
        for note in self._notes:
            click.echo(f"{self._texts.say('note')}: {printable(note)}", err=True)
        if is_written:
            click.echo(f"{self._texts.say('next')}:", err=True)
            click.echo(f"  dnsblock order check {shlex.quote(str(output))}", err=True)
            click.echo(f"  dnsblock order sign {shlex.quote(str(output))} --key KEY", err=True)


def summary(
    order: "NewOrder", output: Path, content: "Written", texts: Texts, zone: ZoneInfo
) -> Iterator[str]:
    """The order in a few lines."""
    say = texts.say
    yield f"{output}: {order.order_id}, {order.issuer}"
    facts = [(say("action"), f"{order.action} ({say(ACTIONS[order.action])})")]
    if order.seq is not None:
        facts.append((say("number"), f"seq {order.seq}"))
    for key, time in (
        ("effective", order.effective_at or order.issued_at),
        ("expires", order.expires_at),
        ("deadline", order.deadline_at),
    ):
        if time is not None:
            facts.append((say(key), local(time, zone)))
    for order_id, own in order.targets:
        facts.append((say("ends"), f"{order_id} ({say('all names') if own is None else len(own)})"))
    if order.statement is not None:
        stated = (order.statement["entries"], order.statement["valid_until"])
        facts.append((say("statement"), say("{} entries in force, valid until {}", *stated)))
    names = _names_of(order)
    if names:
        where = "" if content.entries is None else f" ({say('in file')} {_beside(output).name})"
        facts.append((say("names"), f"{len(names):,}{where}"))
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        yield f"  {name.ljust(width)}  {value}"
    for name in names[:NAMES_SHOWN]:
        yield f"    {name}"
    if (rest := len(names) - NAMES_SHOWN) > 0:
        yield f"    {say('and {} more', f'{rest:,}')}"


def _names_of(order: "NewOrder") -> list[str]:
    """The names of an order, each with its match if it is not the usual one."""
    found = [one.name if one.match == "subtree" else f"{one.name} ({one.match})" for one in order.entries]
    for _, own in order.targets:
        found += [one.name if one.match is None else f"{one.name} ({one.match})" for one in own or ()]
    return found


def _facts(order: "NewOrder", output: Path, content: "Written", notes: Sequence[str]) -> dict[str, Any]:
    names = _names_of(order)
    return {
        "file": str(output),
        "entries_file": None if content.entries is None else str(_beside(output)),
        "sha256": hashlib.sha256(content.document).hexdigest(),
        "issuer": order.issuer,
        "order_id": order.order_id,
        "action": order.action,
        "seq": order.seq,
        "prev": order.prev,
        "entries": len(names),
        "names": names[:NAMES_IN_JSON],
        "notes": list(notes),
    }


def _beside(output: Path) -> Path:
    """The entries file of a document."""
    return output.with_name(f"{output.stem}.txt")


def _held(trial: "Trial", code: str) -> list[str]:
    """The names that a guard holds."""
    return [one["name"] for one in trial["document"]["entry_verdicts"] if one["code"] == code]


def _problems(trial: "Trial", names: "NamesFile") -> list[Problem]:
    """Why the document would be refused, as problems of the lines with the names where possible."""
    lines = {one.entry.name: one.line for one in names.names}
    document = trial["document"]
    found = [
        Problem(names.file, lines.get(one["name"]), one["name"], f"{one['code']}: {one['reason']}")
        for one in document["entry_verdicts"]
        if one["verdict"] == "refused"
    ]
    for problem in document["problems"]:
        value = str(problem["value"])
        line = lines.get(value)
        where = document["file"] if line is None else names.file
        found.append(Problem(where, line, value, str(problem["reason"])))
    return found
