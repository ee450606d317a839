"""The form of a new order: what a clerk fills in, as text, and the order that it makes.

The keys are the options of `order new` without dashes. Every wrong field is reported at once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from dnsblock.errors import Problem, Refused
from dnsblock.orders.authoring import original, signer_lines
from dnsblock.orders.names_file import ReadName
from dnsblock.orders.order import ENDS, WITH_ENTRIES, TargetEntry
from dnsblock.orders.schema import Action, Category, OrderId, Urgency
from dnsblock.orders.writing import NewOrder, rfc3339
from dnsblock.times import moment
from dnsblock.values import Identifier

VALID_FOR = timedelta(days=7)  # of a status statement

# Indonesia's time zones, as letters write them.
_ZONES = {"WIB": 7, "WITA": 8, "WIT": 9}
_ZONE = re.compile(r"(?P<time>.*\d)\s*(?P<zone>WIB|WITA|WIT)", re.IGNORECASE)

ACTIONS: tuple[Action, ...] = get_args(Action)
Form = Mapping[str, Any]  # texts, tuples of texts, and paths; a missing key is an empty field
Made = TypeVar("Made")


def missing(form: Form) -> list[str]:
    """The keys of the fields that must be filled in for the action."""
    wanted = [key for key in ("issuer", "id", "action", "output") if not form.get(key)]
    action = form.get("action")
    if action in ENDS and not form.get("lifts"):
        wanted.append("lifts")
    if action in WITH_ENTRIES and not form.get("names") and not form.get("notice"):
        wanted.append("names")
    if action == "rotate" and not form.get("add_key") and not form.get("remove_key"):
        wanted.append("add_key")
    return wanted


_TIMES = frozenset({"issued", "effective", "deadline", "expires", "review", "valid_until"})
_KINDS: Mapping[str, Any] = {"issuer": Identifier, "id": OrderId, "category": Category, "urgency": Urgency}


def why_wrong(key: str, text: str, zone: tzinfo) -> str | None:
    """Why a text does not fit a field, as far as it depends on this field alone."""
    if key in _TIMES:
        try:
            local_time(text, zone)
        except ValueError as err:
            return str(err)
    if key in _KINDS:
        try:
            TypeAdapter(_KINDS[key]).validate_python(text)
        except ValidationError as err:
            error = err.errors()[0]
            return str(error.get("ctx", {}).get("error", error["msg"]))
    return None


def local_time(text: str, zone: tzinfo) -> datetime:
    """A time as a person writes it, with its offset; `zone` is the default. Raises `ValueError`."""
    text = text.strip()
    if found := _ZONE.fullmatch(text):
        text, zone = found["time"], timezone(timedelta(hours=_ZONES[found["zone"].upper()]))
    # `2017-07-14 11.30`, as in Indonesia.
    text = re.sub(r"(?<=[ T]\d\d)\.(?=\d\d(?!\d))", ":", text)
    try:
        written = datetime.fromisoformat(text)
        time = moment(text, zone)
    except (ValueError, OverflowError) as err:
        raise ValueError("not a time: write it as 2017-07-14 11:30") from err
    if time.microsecond:
        raise ValueError("fractions of a second are not allowed")
    if not 1970 <= time.year <= 2999:
        raise ValueError("must be in the years 1970 to 2999")
    return time.astimezone(zone if written.tzinfo is None else written.tzinfo)


@dataclass(slots=True)
class _Filled:
    """Collects the problems of all fields."""

    form: Form
    zone: tzinfo
    problems: list[Problem] = field(default_factory=list)

    def wrong(self, key: str, value: str, reason: str) -> None:
        self.problems.append(Problem(option(key), None, value, reason))

    def text(self, key: str) -> str | None:
        value = self.form.get(key)
        return str(value) if value else None

    def time(self, key: str) -> datetime | None:
        if (written := self.text(key)) is None:
            return None
        try:
            return local_time(written, self.zone)
        except ValueError as err:
            self.wrong(key, written, str(err))
            return None

    def made(self, make: Callable[[], Made]) -> Made | None:
        """The result, or its problems."""
        try:
            return make()
        except Refused as err:
            self.problems.extend(err.problems)
            return None

    def texts(self, **keys: str) -> dict[str, str] | None:
        """A mapping of the fields that are filled in; None if there is none."""
        found = {name: text for name, key in keys.items() if (text := self.text(key)) is not None}
        return found or None


def file_name(order_id: str) -> str:
    """A name for the file of an order: its number, without the characters that file names cannot have."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", order_id).strip("-.")
    return f"{plain[:100] or 'order'}.yaml"


def option(key: str) -> str:
    """The option of a field, for messages."""
    return f"--{key.replace('_', '-')}"


def filled(form: Form, names: Sequence[ReadName], zone: tzinfo, now: datetime) -> NewOrder:
    """The order that a form makes, without number and statement. Raises `Refused` with every wrong field.

    `names` are those of the targets if the order only ends others.
    """
    own = _Filled(form, zone)
    action: Action = form["action"]
    issued_at = own.time("issued") or now.astimezone(zone).replace(microsecond=0)
    is_ending = action in ENDS and action != "supersede"
    order = NewOrder(
        issuer=form["issuer"],
        order_id=form["id"],
        action=action,
        issued_at=issued_at,
        effective_at=own.time("effective"),
        deadline_at=own.time("deadline"),
        expires_at=own.time("expires"),
        review_at=own.time("review"),
        urgency=own.text("urgency"),
        category=own.text("category"),
        legal_basis=tuple(form.get("legal_basis") or ()),
        reason=own.texts(id="reason_id", en="reason_en"),
        contact=own.text("contact"),
        subject=own.texts(name="subject", contact="subject_contact"),
        notices=_earlier(own),
        conditions=own.texts(id="conditions_id", en="conditions_en"),
        notice=own.text("notice"),
        acks=tuple(dict.fromkeys(form.get("ack") or ())),
        targets=_targets(own, names if is_ending else ()),
        entries=() if is_ending else tuple(one.entry for one in names),
    )
    if action == "revoke" and names:
        own.wrong("names", form.get("names") or "", "revoke ends whole orders: leave it out, or use unblock")
    if action == "snapshot":
        own.time("valid_until")
        if order.effective_at is not None:
            own.wrong("effective", form["effective"], "a statement is about its time of issue: leave it out")
    if order.subject is not None and "name" not in order.subject:
        own.wrong("subject_contact", order.subject["contact"], "belongs to --subject")
    order = _with_files(own, order)
    if own.problems:
        raise Refused(own.problems)
    return order


def _with_files(own: _Filled, order: NewOrder) -> NewOrder:
    """With the digest of the letter, and the keys in files."""
    form = own.form
    if form.get("document"):
        file, uri = Path(form["document"]), own.text("document_uri")
        order = replace(order, document=own.made(lambda: original(file, uri)))
    elif form.get("document_uri"):
        own.wrong("document_uri", form["document_uri"], "belongs to --document")
    added, removed = tuple(form.get("add_key") or ()), tuple(form.get("remove_key") or ())
    principals = tuple(form.get("principal") or ())
    if len(principals) != len(added):
        own.wrong("principal", ", ".join(principals), "give one for each --add-key")
    elif added:
        lines = own.made(lambda: signer_lines([Path(one) for one in added], principals)) or []
        order = replace(order, keys={"add": lines, **({"remove": list(removed)} if removed else {})})
    elif removed:
        order = replace(order, keys={"remove": list(removed)})
    return order


def _targets(
    own: _Filled, names: Sequence[ReadName]
) -> tuple[tuple[str, tuple[TargetEntry, ...] | None], ...]:
    """The orders that the new one ends, or the named entries of one of them.

    Without a match, all entries with the name end.
    """
    lifts = tuple(dict.fromkeys(own.form.get("lifts") or ()))
    if not names:
        return tuple((order_id, None) for order_id in lifts)
    if len(lifts) > 1:
        reason = "names belong to one order: write one document for each order, or leave --names out"
        own.wrong("lifts", ", ".join(lifts), reason)
    is_given = bool(own.form.get("match"))
    named = tuple(
        TargetEntry(one.entry.name, one.entry.match if is_given or one.is_match_written else None)
        for one in names
    )
    return tuple((order_id, named) for order_id in lifts[:1])


def _earlier(own: _Filled) -> tuple[Mapping[str, str], ...]:
    """The earlier contacts: each is written as `TIME; BY; ABOUT`."""
    found: list[Mapping[str, str]] = []
    for written in own.form.get("contacted") or ():
        at, *rest = (part.strip() for part in str(written).split(";", 2))
        if not rest or not rest[0]:
            own.wrong(
                "contacted", str(written), "write the time and the way, such as 2016-03-29 09:00; e-mail"
            )
            continue
        try:
            time = rfc3339(local_time(at, own.zone))
        except ValueError as err:
            own.wrong("contacted", at, str(err))
            continue
        found.append({"at": time, "by": rest[0], **({"about": rest[1]} if len(rest) > 1 and rest[1] else {})})
    return tuple(found)


def with_statement(
    order: NewOrder, seq: int | None, entries: int, digest: str, valid_until: datetime | None
) -> NewOrder:
    """The order with a status statement about everything in force at its time of issue."""
    until = valid_until or order.issued_at + VALID_FOR
    statement = {"entries": str(entries), "digest": f"sha256:{digest}", "valid_until": rfc3339(until)}
    return replace(order, statement=({} if seq is None else {"seq": str(seq)}) | statement)


def as_query(time: datetime) -> str:
    """A time for a request."""
    return rfc3339(time.astimezone(UTC))
