"""The questions of `order new`, for what the options leave open. On standard error: the result is on output.

Each answer is checked when it is given. A wrong one is asked for again, with the reason.
"""

from datetime import tzinfo
from pathlib import Path
from typing import Any

import click

from dnsblock.errors import printable
from dnsblock.texts import Texts

ACTIONS = {
    "block": "block names",
    "unblock": "lift a block, wholly or in part",
    "exempt": "exempt names from the issuer's blocks",
    "revoke": "revoke a whole order",
    "supersede": "replace an order by a new one",
    "notice": "announce a block",
    "snapshot": "state what is in force",
    "rotate": "change the issuer's keys",
}
# Fields that may stay empty, and their questions.
OPTIONAL = {
    "effective": "Takes effect (such as 2017-07-14 11:30; empty: now)",
    "expires": "Expires (empty: never)",
    "urgency": "Urgency: routine (7 days), urgent (24 h), immediate (4 h); empty: none",
    "category": "Category (such as gambling; empty: none)",
    "legal_basis": "Legal basis (empty: none)",
    "reason_id": "Reason in Indonesian (empty: none)",
    "reason_en": "Reason in English (empty: none)",
}
ASKED = {  # of each action
    "block": tuple(OPTIONAL),
    "supersede": tuple(OPTIONAL),
    "notice": tuple(OPTIONAL),
    "exempt": ("effective", "expires", "legal_basis", "reason_id", "reason_en"),
    "unblock": ("effective", "legal_basis", "reason_id", "reason_en"),
    "revoke": ("effective", "legal_basis", "reason_id", "reason_en"),
}
SHOWN = 5  # names in a question


class Dialog:
    """Asks for the fields of a form that are missing, and fills them in."""

    def __init__(self, texts: Texts, zone: tzinfo, form: dict[str, Any]) -> None:
        self._texts, self._zone, self._form = texts, zone, form

    def complete(self) -> None:
        """Asks for everything that is missing for the action."""
        from dnsblock.orders.form import missing

        form, say = self._form, self._texts.say
        if not form.get("issuer"):
            form["issuer"] = self._required("issuer", say("Issuer (such as kominfo.go.id)"))
        if not form.get("id"):
            form["id"] = self._required("id", say("Number of the order, as on the letter"))
        if not form.get("action"):
            form["action"] = self._action()
        if "lifts" in missing(form):
            form["lifts"] = self._lines(say("Number of the order to end; an empty line ends the list"), "id")
        action = form["action"]
        if "names" in missing(form):
            self._names(say("File with the names (empty: type them here)"))
        elif action == "unblock" and not form.get("names"):
            question = say("File with the names to lift (empty: all names of the order)")
            form["names"] = self._file(question)
        if "add_key" in missing(form):
            self._keys()
        for key in ASKED.get(action, ()):
            if not form.get(key):
                answer = self._answer(say(OPTIONAL[key]), key)
                form[key] = (answer,) if answer and key == "legal_basis" else answer
        if not form.get("output"):
            form["output"] = self._output()

    def are_meant(self, names: list[str]) -> bool:
        """Whether popular names are meant."""
        shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
        question = "{} names are popular: {}. Are they meant? Then a second officer must sign, too"
        return self._is_yes(self._texts.say(question, len(names), shown), default=False)

    def may_write(self, path: Path) -> bool:
        """Whether the order may be written as it was shown."""
        return self._is_yes(self._texts.say("Write {}?", path), default=True)

    # ------- One question -------

    def _action(self) -> str:
        for action, text in ACTIONS.items():
            click.echo(f"  {action.ljust(10)} {self._texts.say(text)}", err=True)
        choice = ", ".join(ACTIONS)
        while True:
            answer = self._prompt(self._texts.say("Action: {}", "block"), default="block")
            if answer in ACTIONS:
                return answer
            self._complain(self._texts.say("choose one of {}", choice))

    def _names(self, question: str) -> None:
        """A file, or typed names."""
        self._form["names"] = self._file(question)
        if self._form["names"] is None:
            self._form["typed"] = self._lines(
                self._texts.say("One name per line; an empty line ends the list"), "names"
            )

    def _keys(self) -> None:
        if file := self._file(self._texts.say("Public key file to add (empty: none)")):
            question = self._texts.say("Principal of this key (such as officer@kominfo.go.id)")
            self._form["add_key"] = (file,)
            self._form["principal"] = (self._required("principal", question),)
        if removed := self._answer(
            self._texts.say("Fingerprint of a key to remove (empty: none)"), "remove_key"
        ):
            self._form["remove_key"] = (removed,)

    def _output(self) -> Path:
        from dnsblock.orders.form import file_name

        proposal = file_name(self._form["id"])
        return Path(self._prompt(self._texts.say("Write the order to"), default=proposal))

    def _file(self, question: str) -> str | None:
        while True:
            answer = self._prompt(question)
            if not answer or Path(answer).is_file():
                return answer or None
            self._complain(self._texts.reason(f"cannot be read: {printable(answer)}"))

    def _required(self, key: str, question: str) -> str:
        while True:
            if answer := self._answer(question, key):
                return answer
            self._complain(self._texts.say("this cannot be empty"))

    def _answer(self, question: str, key: str) -> str | None:
        """A text that fits the field; None if it is left empty."""
        while True:
            answer = self._prompt(question)
            if not answer:
                return None
            reason = self._why_wrong(key, answer)
            if reason is None:
                return answer
            self._complain(reason)

    def _lines(self, question: str, key: str) -> list[str]:
        """Lines until an empty one, at least one."""
        click.echo(question, err=True)
        found: list[str] = []
        while (answer := self._prompt(" ")) or not found:
            reason = self._why_wrong(key, answer) if answer else self._texts.say("this cannot be empty")
            if reason is None:
                found.append(answer)
            else:
                self._complain(reason)
        return found

    def _why_wrong(self, key: str, answer: str) -> str | None:
        from dnsblock.orders.form import why_wrong
        from dnsblock.orders.names_file import read_lines

        if key == "names":
            problems = read_lines("", [answer], "subtree").problems
            return self._texts.reason(problems[0].reason) if problems else None
        reason = why_wrong(key, answer, self._zone)
        return None if reason is None else self._texts.reason(reason)

    def _prompt(self, question: str, default: str = "") -> str:
        answer = click.prompt(question, default=default, show_default=bool(default), err=True)
        return str(answer).strip()

    def _is_yes(self, question: str, *, default: bool) -> bool:
        """Yes or no, in either language."""
        is_id = self._texts.language == "id"
        yes, no = ("Y", "t" if is_id else "n") if default else ("y", "T" if is_id else "N")
        while True:
            answer = self._prompt(f"{question} [{yes}/{no}]").lower()
            if not answer:
                return default
            if answer in ("y", "ya", "yes"):
                return True
            if answer in ("n", "no", "t", "tidak"):
                return False

    def _complain(self, reason: str) -> None:
        click.secho(f"  {printable(reason)}", fg="red", err=True)
