"""Parses an order document into an `Order`, or refuses it. Used by the intake and the ledger.

Only the document itself is checked here. The intake checks once whether its issuer is known, its names may be
blocked and its targets exist. An order in the ledger must stay readable for ever.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dnsblock import document
from dnsblock.document import Document, Place
from dnsblock.errors import Problem, Refused, capped, counted
from dnsblock.names import NameRefused
from dnsblock.orders.complete import cut_off, incomplete
from dnsblock.orders.entry import Entry, OrderEntries, PlainEntries, entries_of
from dnsblock.orders.schema import (
    Action,
    Conditions,
    EarlierContact,
    EntriesFile,
    EntryFields,
    Header,
    KeyChanges,
    Match,
    OriginalDocument,
    Reason,
    Statement,
    Subject,
    TargetEntryFields,
    TargetFields,
)
from dnsblock.orders.spelling import read_name
from dnsblock.orders.verdict import ACCEPTED, EntryRefusal, Judgement, Release
from dnsblock.principal import Principal

MAX_DOCUMENT_BYTES = 1 << 20
MAX_ENTRIES_FILE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class RefusedEntry:
    """An entry or a target that cannot be read. It is left out; the rest of the order is not affected."""

    line: int | None
    value: str  # as written
    code: Literal["SYNTAX", "DUPLICATE", "UNKNOWN_ENTRY", "UNKNOWN_ORDER"]
    reason: str
    index: int | None = None  # of an entry, among all that are written; None: a target


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """An entry that an order ends; without a match, all entries with that name."""

    name: str
    match: Match | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The order that an unblock, revoke or supersede ends, completely or in part."""

    order_id: str
    entries: tuple[TargetEntry, ...] | None  # None: all


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of an order, kept until it is in the ledger."""

    data: bytes
    document: Document
    entries_data: bytes | None = None
    signatures: bytes | None = None  # the file with the detached signatures


@dataclass(frozen=True, slots=True)
class Annulled:
    """The annulment of an erroneous order."""

    at: datetime
    by: Principal
    reason: str
    n: int | None = None  # of the record; None: it is not recorded yet


LIFTS: frozenset[Action] = frozenset({"unblock", "revoke", "exempt"})  # never held, by nothing
BLOCKS: frozenset[Action] = frozenset({"block", "supersede"})
ENDS: frozenset[Action] = frozenset({"unblock", "revoke", "supersede"})  # the actions with targets
MAY_END: Mapping[Action, tuple[Action, ...]] = {
    "unblock": ("block", "supersede"),
    "revoke": ("block", "supersede", "exempt", "notice"),
    "supersede": ("block", "supersede"),
}


@dataclass(frozen=True, slots=True)
class Order:
    """An authority's instruction to block names, to lift a block, or to exempt names.

    An order is a fact: once in the ledger it is never edited. A mistake is corrected by a later order that
    refers to this one. All times are aware, in UTC, with second precision.
    """

    file: str
    sha256: str  # of the document's bytes
    issuer: str
    order_id: str  # the authority's own number, as printed on the letter
    action: Action
    issued_at: datetime
    effective_at: datetime
    expires_at: datetime | None = None
    deadline_at: datetime | None = None
    review_at: datetime | None = None
    seq: int | None = None
    prev: str | None = None  # sha256 of the issuer's previous order
    urgency: Literal["routine", "urgent", "immediate"] | None = None
    category: str | None = None
    legal_basis: tuple[str, ...] = ()
    reason: Reason | None = None
    contact: str | None = None
    original: OriginalDocument | None = None  # `document` in the file
    subject: Subject | None = None
    notices: tuple[EarlierContact, ...] = ()
    conditions: Conditions | None = None
    notice: str | None = None  # of a block: the order_id of the notice that announced it
    statement: Statement | None = None
    keys: KeyChanges | None = None
    entries: OrderEntries = ()
    entries_file: EntriesFile | None = None
    targets: tuple[Target, ...] = ()
    acks: tuple[str, ...] = ()
    refused: tuple[RefusedEntry, ...] = ()  # entries that cannot be read
    borrows: bool = False  # it has no entries of its own: they are those of its notice
    judgement: Judgement = field(default=ACCEPTED, compare=False)  # from the ledger, and of a new order
    twins: tuple[str, ...] = ()  # SHA-256 of the same JSON with and without its last line end
    annulled: Annulled | None = None
    verified_at: datetime | None = None  # when probes found it enforced everywhere
    received_at: datetime | None = None  # when it was accepted into the ledger
    accepted_n: int | None = None  # the number of the record that accepted it
    enforced_at: datetime | None = None  # when the engine first answered by it
    activated_at: datetime | None = None  # when it was recorded last that entries took effect
    ended_at: datetime | None = None  # when the engine no longer answered by it
    lifted: int = 0  # entries that are recorded as lifted, and those that were when it took effect
    source: Source | None = field(default=None, repr=False, compare=False)

    @property
    def answers(self) -> frozenset[str]:
        """The answer profiles that its entries name, those of refused entries left out."""
        if isinstance(self.entries, PlainEntries):
            return frozenset()
        refused = {one.index for one in self.judgement.refused}
        return frozenset(
            entry.answer
            for index, entry in enumerate(self.entries)
            if entry.answer is not None and index not in refused
        )

    @property
    def names(self) -> list[str]:
        """The name of each entry."""
        entries = self.entries
        return entries.names if isinstance(entries, PlainEntries) else [entry.name for entry in entries]

    @property
    def enforceable(self) -> int:
        """The number of entries that are neither held nor refused."""
        return len(self.entries) - len(self.judgement.idle)

    @property
    def own(self) -> "Order":
        """The order as its document says, without the entries of its notice."""
        return replace(self, entries=()) if self.borrows else self

    def released(self, release: Release) -> "Order":
        """The order after a release. No probe has queried the released names yet."""
        return replace(self, judgement=self.judgement.released(release), verified_at=None)

    def refusing(self, refusal: EntryRefusal) -> "Order":
        """The order after the operator has refused held entries."""
        return replace(self, judgement=self.judgement.refusing(refusal))

    @property
    def is_lifting(self) -> bool:
        """Whether it opens names: then nothing holds it."""
        return self.action in LIFTS

    @property
    def digests(self) -> tuple[str, ...]:
        """Every SHA-256 that identifies this document: a copy of JSON may lack the last line end."""
        return (self.sha256, *self.twins)

    def written(self, key: str) -> str:
        """A field exactly as written in the document; empty if the bytes are no longer kept."""
        value = self.source.document.value if self.source else None
        found = value.get(key) if isinstance(value, dict) else None
        return found if isinstance(found, str) else ""

    def is_annulled(self, at: datetime) -> bool:
        """Whether the operator had annulled it by that time."""
        return self.annulled is not None and self.annulled.at <= at

    def problem(self, place: Place, value: str, reason: str) -> Problem:
        """A problem with the part of the document at `place`."""
        return Problem(self.file, self.source.document.line(place) if self.source else None, value, reason)


def parse(file: str, data: bytes) -> Order:
    """Parses an order document; `file` is its name in problems. Raises `Refused` with every problem.

    An order with an `entries_file` has no entries yet: see `load_entries_file`.
    """
    try:
        read = document.read(file, data, max_bytes=MAX_DOCUMENT_BYTES)
    except Refused as err:
        is_small = len(data) <= MAX_DOCUMENT_BYTES
        raise Refused([*(cut_off(file, data) if is_small else ()), *err.problems]) from err
    if read.value is None:
        raise Refused(incomplete(read))
    value = read.value if isinstance(read.value, dict) else {}
    problems = incomplete(read)
    left_out: list[RefusedEntry] = []
    entries = _entries(read, value, problems, left_out)
    targets = _targets(read, value.get("targets"), problems, left_out)
    try:
        header = read.validate(Header)
    except Refused as err:
        problems.extend(err.problems)
    else:
        problems.extend(_cross_check(read, header, value))
        problems.extend(_left_with_nothing(read, header, entries, targets, left_out))
        if not problems:
            order = _order(file, header, Source(data, read), entries=entries, targets=targets)
            has_own = header.entries is not None or header.entries_file is not None
            return replace(order, refused=tuple(left_out), borrows=header.notice is not None and not has_own)
    problems.extend(one for one in map(partial(_problem_of, file), left_out) if one not in problems)
    raise Refused(capped(sorted(problems, key=lambda problem: problem.line or 0), 1000))


def load_entries_file(order: Order, folder: Path) -> Order:
    """The order with the entries of its `entries_file` in `folder`. Their digest must match."""
    reference = order.entries_file
    if reference is None or order.source is None:
        return order
    path = folder / reference.path
    if path.resolve().parent != folder.resolve():
        place = ("entries_file", "path")
        raise Refused([order.problem(place, reference.path, "leads out of the orders folder")])
    data = document.read_bytes(path, max_bytes=MAX_ENTRIES_FILE_BYTES)
    return with_entries(order, str(path), data)


def with_entries(order: Order, file: str, data: bytes) -> Order:
    """The order with the entries in these bytes of its `entries_file`. Raises `Refused`."""
    if order.entries_file is None or order.source is None:
        return order
    entries, refused = parse_entries(order.entries_file, file, data)
    source = replace(order.source, entries_data=data)
    return replace(order, entries=entries, refused=(*order.refused, *refused), source=source)


def parse_entries(
    reference: EntriesFile, file: str, data: bytes
) -> tuple[OrderEntries, tuple[RefusedEntry, ...]]:
    """Parses an entries file: one name per line and nothing else, with the digest stated in the order.

    Raises `Refused` if it is not that file, or if it has no readable name.
    """
    if (found := hashlib.sha256(data).hexdigest()) != reference.sha256:
        reason = "the sha256 differs from the one in the order: the file was changed, or is truncated"
        raise Refused([Problem(file, None, found, reason)])
    if not data.endswith(b"\n"):
        raise Refused([Problem(file, None, "", "the last line has no line end: the file may be truncated")])
    try:
        lines = data.decode("utf-8-sig").split("\n")[:-1]
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise Refused([Problem(file, line, "", "not UTF-8 text")]) from err
    if len(lines) != reference.lines:
        reason = f"{counted(len(lines), 'line')} instead of {reference.lines:,} as in the order"
        raise Refused([Problem(file, None, "", reason)])
    return _names(file, lines)


# ------- Entries and targets: parsed by hand, since there may be 100,000 of them -------


def _names(file: str, lines: list[str]) -> tuple[OrderEntries, tuple[RefusedEntry, ...]]:
    names: list[str] = []
    left_out: list[RefusedEntry] = []
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            name = read_name(line)
        except NameRefused as err:
            reason = "comments are not allowed here" if line.startswith("#") else str(err)
            left_out.append(RefusedEntry(number, line, "SYNTAX", reason, number - 1))
            continue
        if first.setdefault(name, number) != number:
            reason = f"the same entry as on line {first[name]}"
            left_out.append(RefusedEntry(number, line, "DUPLICATE", reason, number - 1))
            continue
        names.append(name)
    if not names:
        raise Refused(capped([_problem_of(file, one) for one in left_out], 100))
    return PlainEntries("\n".join(names)), tuple(left_out)


def _problem_of(file: str, one: RefusedEntry) -> Problem:
    return Problem(file, one.line, one.value, f"{one.code}: {one.reason}")


def _entries(
    read: Document,
    value: dict[str, Any],
    problems: list[Problem],
    left_out: list[RefusedEntry],
) -> OrderEntries:
    entries: list[Entry] = []
    first: dict[tuple[str, str], int] = {}
    items = value.get("entries")
    for index, item in enumerate(items if isinstance(items, list) else []):
        entry = _entry(read, ("entries", index), item, problems, left_out)
        if entry and entry.answer and value.get("action") == "exempt":
            reason = "an exemption has no answer: the name is not blocked"
            problems.append(read.problem(("entries", index, "answer"), entry.answer, reason))
        if entry is None:
            continue
        line = read.line(("entries", index))
        if (key := (entry.name, entry.match)) in first:
            reason = f"the same entry as on line {first[key]}"
            left_out.append(RefusedEntry(line, entry.name, "DUPLICATE", reason, index))
            continue
        first[key] = line
        entries.append(entry)
    return entries_of(entries)


def _entry(
    read: Document, place: Place, item: Any, problems: list[Problem], left_out: list[RefusedEntry]
) -> Entry | None:
    if isinstance(item, str):
        name = _name(read, place, item, left_out)
        return Entry(name, "subtree") if name else None
    try:
        model = read.validate(EntryFields, at=place, value=item)
    except Refused as err:
        problems.extend(err.problems)
        return None
    name = _name(read, (*place, "name"), model.name, left_out)
    return Entry(name, model.match, model.note, model.answer) if name else None


def _targets(
    read: Document, value: Any, problems: list[Problem], left_out: list[RefusedEntry]
) -> tuple[Target, ...]:
    targets: list[Target] = []
    first: dict[str, int] = {}
    for index, item in enumerate(value if isinstance(value, list) else []):
        place: Place = ("targets", index)
        try:
            model = read.validate(TargetFields, at=place, value=item)
        except Refused as err:
            problems.extend(err.problems)
            continue
        line = read.line(place)
        if model.order_id in first:
            reason = f"the same order as on line {first[model.order_id]}"
            problems.append(Problem(read.file, line, model.order_id, reason))
        first.setdefault(model.order_id, line)
        entries = _target_entries(read, (*place, "entries"), model.entries, problems, left_out)
        if entries is None or entries:
            targets.append(Target(model.order_id, entries))
    return tuple(targets)


def _target_entries(
    read: Document, place: Place, value: Any, problems: list[Problem], left_out: list[RefusedEntry]
) -> tuple[TargetEntry, ...] | None:
    """The entries of a target; None: all of the order's."""
    if value == "all":
        return None
    if not isinstance(value, list) or not value:
        found = value if isinstance(value, str) else ""
        problems.append(read.problem(place, found, "targets.entries: must be all, or a list of names"))
        return ()
    entries: list[TargetEntry] = []
    for index, item in enumerate(value):
        entry = _target_entry(read, (*place, index), item, problems, left_out)
        if entry is not None:
            entries.append(entry)
    return tuple(dict.fromkeys(entries))


def _target_entry(
    read: Document, place: Place, item: Any, problems: list[Problem], left_out: list[RefusedEntry]
) -> TargetEntry | None:
    if isinstance(item, str):
        name = _name(read, place, item, left_out)
        return TargetEntry(name) if name else None
    try:
        model = read.validate(TargetEntryFields, at=place, value=item)
    except Refused as err:
        problems.extend(err.problems)
        return None
    name = _name(read, (*place, "name"), model.name, left_out)
    return TargetEntry(name, model.match) if name else None


def _name(read: Document, place: Place, text: str, left_out: list[RefusedEntry]) -> str | None:
    try:
        return read_name(text)
    except NameRefused as err:
        index = place[1] if place[0] == "entries" and isinstance(place[1], int) else None
        left_out.append(RefusedEntry(read.line(place), text, "SYNTAX", str(err), index))
        return None


# ------- The document as a whole -------


WITH_ENTRIES: frozenset[Action] = frozenset({"block", "exempt", "supersede", "notice"})


def _cross_check(read: Document, header: Header, value: dict[str, Any]) -> Iterator[Problem]:
    """Checks that involve several fields."""

    def problem(key: str, reason: str) -> Problem:
        found = value.get(key)
        return read.problem((key,), found if isinstance(found, str) else key, reason)

    for key, reason in (*_wrong_parts(header), *_wrong_times(header)):
        yield problem(key, reason)
    if header.prev is not None and header.seq in (None, 1):
        yield problem("prev", "belongs to an order with a seq of 2 or more")
    if header.prev is None and header.seq is not None and header.seq > 1:
        yield problem("prev", "is required: the sha256 of the issuer's previous order file")


def _wrong_parts(header: Header) -> Iterator[tuple[str, str]]:
    """Parts that the action needs, or cannot have: the key, and the reason."""
    action = header.action
    has_targets, has_entries = action in ENDS, action in WITH_ENTRIES
    if has_targets and header.targets is None:
        yield "targets", f"is required: {action} says which orders it ends"
    if not has_targets and header.targets is not None:
        yield "targets", "belongs to the actions unblock, revoke and supersede"
    given = [key for key in ("entries", "entries_file") if getattr(header, key) is not None]
    for key in given if not has_entries else ():
        where = ": name them in its targets" if has_targets else ""
        yield key, f"{action} has no entries of its own{where}"
    if has_entries and len(given) != 1 and (given or header.notice is None):
        yield "entries", "one of entries and entries_file is required, and only one"
    if header.notice is not None and action != "block":
        yield "notice", "belongs to action block: the order_id of the notice that announced it"
    if (action == "snapshot") != (header.statement is not None):
        yield "statement", "belongs to action snapshot, and a snapshot needs one"
    if (action == "rotate") != (header.keys is not None):
        yield "keys", "belongs to action rotate, and a rotate needs it"
    elif header.keys is not None and not (header.keys.add or header.keys.remove):
        yield "keys", "must add or remove a key"


def _wrong_times(header: Header) -> Iterator[tuple[str, str]]:
    if header.expires_at is not None and header.action not in WITH_ENTRIES:
        yield "expires_at", f"{header.action} does not expire: block or exempt again with a new order"
    if header.expires_at is not None and header.expires_at <= (header.effective_at or header.issued_at):
        yield "expires_at", "must be after effective_at"


def _left_with_nothing(
    read: Document,
    header: Header,
    entries: OrderEntries,
    targets: tuple[Target, ...],
    left_out: list[RefusedEntry],
) -> Iterator[Problem]:
    """Refuses an order whose entries or targets are all refused: it would have no effect."""
    if (header.entries and not entries) or (header.targets and not targets):
        yield from (_problem_of(read.file, one) for one in left_out)


# The time to comply if the order states no deadline.
_TIME_TO_COMPLY = {
    "routine": timedelta(days=7),
    "urgent": timedelta(hours=24),
    "immediate": timedelta(hours=4),
}


def _order(
    file: str, header: Header, source: Source, *, entries: OrderEntries, targets: tuple[Target, ...]
) -> Order:
    effective_at = header.effective_at or header.issued_at
    deadline_at = header.deadline_at
    if deadline_at is None and header.urgency is not None:
        # The deadline is never before the order takes effect.
        deadline_at = max(header.issued_at + _TIME_TO_COMPLY[header.urgency], effective_at)
    return Order(
        file=file,
        sha256=hashlib.sha256(source.data).hexdigest(),
        issuer=header.issuer,
        order_id=header.order_id,
        action=header.action,
        issued_at=header.issued_at,
        effective_at=effective_at,
        expires_at=header.expires_at,
        deadline_at=deadline_at,
        review_at=header.review_at,
        seq=header.seq,
        prev=header.prev,
        urgency=header.urgency,
        category=header.category,
        legal_basis=header.legal_basis,
        reason=header.reason,
        contact=header.contact,
        original=header.document,
        subject=header.subject,
        notices=header.notices,
        conditions=header.conditions,
        notice=header.notice,
        statement=header.statement,
        keys=header.keys,
        entries=entries,
        entries_file=header.entries_file,
        targets=targets,
        acks=header.acks,
        twins=_twins(source),
        source=source,
    )


def _twins(source: Source) -> tuple[str, ...]:
    """YAML documents have none: their last line end is part of the end marker."""
    if not source.document.is_enclosed:
        return ()
    bare = source.data.rstrip(b"\r\n")
    forms = {bare, bare + b"\n", bare + b"\r\n"} - {source.data}
    return tuple(sorted(hashlib.sha256(form).hexdigest() for form in forms))
