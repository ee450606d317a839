"""Makes an order document from a form of the console, as `dnsblock order new` does from its options."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, get_args

from dnsblock.errors import Problem, Refused
from dnsblock.orders.authoring import numbered
from dnsblock.orders.form import ACTIONS, file_name, filled, local_time, missing, with_statement
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.names_file import NamesFile, read_lines, read_names
from dnsblock.orders.schema import Action, Match
from dnsblock.orders.statement import content_of
from dnsblock.orders.submission import Submitted
from dnsblock.orders.writing import written
from dnsblock.web.console.forms import Sent

# A change of keys refers to files of its author: `dnsblock order new` makes it.
OFFERED: tuple[Action, ...] = tuple(one for one in ACTIONS if one != "rotate")
MATCHES: tuple[Match, ...] = get_args(Match)

# The fields of the form. No other key reaches `filled`, which also knows names of files.
FIELDS = (
    *("issuer", "id", "action", "match", "effective", "expires", "deadline", "review", "urgency", "notice"),
    *("category", "reason_id", "reason_en", "contact", "subject", "subject_contact", "conditions_id"),
    *("conditions_en", "valid_until"),
)
LINES = ("lifts", "legal_basis", "contacted", "ack")  # one value in each line


@dataclass(frozen=True, slots=True)
class Draft:
    """The document that a form makes."""

    document: Submitted
    order_id: str
    seq: int | None
    names: NamesFile


def values_of(sent: Sent) -> dict[str, str]:
    """The content of each field, to show it again."""
    return {name: sent.text(name) for name in (*FIELDS, *LINES, "names")}


def draft_of(sent: Sent, orders: IssuerOrders | None, zone: tzinfo, now: datetime) -> Draft:
    """The document of a form. Raises `Refused` with every wrong field.

    `orders`: those of the issuer, for the number of the next one. None: the visitor may not see them.
    """
    form: dict[str, Any] = {name: sent.text(name) for name in FIELDS}
    form |= {name: tuple(sent.lines(name)) for name in LINES}
    names = _names(sent)
    form |= {"names": "names" if names.names or names.problems else "", "output": "order.yaml"}
    wanted = [key for key in missing(form) if key != "output"]
    problems = [Problem(f"--{key}", None, "", "must be filled in") for key in wanted]
    if form["action"] not in ("", *OFFERED):
        problems.append(Problem("--action", None, form["action"], "choose one of the actions"))
    if form["match"] and form["match"] not in MATCHES:
        problems.append(Problem("--match", None, form["match"], "choose one of the matches"))
    if form["issuer"] and orders is None:
        problems.append(Problem("--issuer", None, form["issuer"], "not one of your issuers"))
    problems += names.problems
    if problems or orders is None:
        raise Refused(problems)
    order = numbered(filled(form, names.names, zone, now), orders)
    if order.action == "snapshot":
        until = local_time(form["valid_until"], zone) if form["valid_until"] else None
        content = content_of(orders, order.issued_at)
        order = with_statement(order, content.seq, content.entries, content.digest, until)
    file = file_name(order.order_id)
    content_ = written(order, file.replace(".yaml", ".txt"))
    document = Submitted(file, content_.document, content_.entries)
    return Draft(document, order.order_id, order.seq, names)


def _names(sent: Sent) -> NamesFile:
    """The names that were typed, or those of the chosen file. Raises `Refused` if it is not text."""
    written_match: Mapping[str, Match] = {one: one for one in MATCHES}
    match = written_match.get(sent.text("match"), "subtree")
    chosen = sent.files.get("names_file")
    if chosen is not None:
        return read_names("--names", chosen.data, match)
    return read_lines("--names", sent.texts.get("names", [""])[0].splitlines(), match)
