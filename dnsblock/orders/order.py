"""Parses an order document into an `Order`, or refuses it. Used by the intake and the ledger.

Only the document itself is checked here. The intake checks once whether its issuer is known, its names may be
blocked and its targets exist. An order in the ledger must stay readable for ever.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from dnsblock import document
from dnsblock.document import Document, Place
from dnsblock.errors import Problem, Refused, capped
from dnsblock.names import NameRefused
from dnsblock.orders.complete import cut_off, incomplete
from dnsblock.orders.schema import (
    EntriesFile,
    EntryFields,
    Header,
    Match,
    OriginalDocument,
    Reason,
    TargetEntryFields,
    TargetFields,
)
from dnsblock.orders.spelling import read_name
from dnsblock.principal import Principal

MAX_DOCUMENT_BYTES = 1 << 20
MAX_ENTRIES_FILE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A name that an order blocks or exempts."""

    name: str  # canonical
    match: Match
    note: str | None = None
    answer: str | None = None  # an answer profile; None: that of the zone


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """An entry that an unblock ends; without a match, all entries with that name."""

    name: str
    match: Match | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The order that an unblock lifts, completely or in part."""

    order_id: str
    entries: tuple[TargetEntry, ...] | None  # None: all


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of an order, kept until it is in the ledger."""

    data: bytes
    document: Document
    entries_data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Annulled:
    """The annulment of an erroneous order."""

    at: datetime
    by: Principal
    reason: str


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
    action: Literal["block", "unblock", "exempt"]
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
    entries: tuple[Entry, ...] = ()
    entries_file: EntriesFile | None = None
    targets: tuple[Target, ...] = ()
    acks: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()  # SHA-256 of the same JSON with and without its last line end
    annulled: Annulled | None = None
    source: Source | None = field(default=None, repr=False, compare=False)

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


Judge = Callable[[Entry], Iterable[str]]  # the reasons to refuse an entry


def accept_all(_entry: Entry) -> tuple[str, ...]:
    """Accepts every entry. For orders in the ledger, which were judged on arrival."""
    return ()


def parse(file: str, data: bytes, judge: Judge = accept_all) -> Order:
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
    entries = _entries(read, value, judge, problems)
    targets = _targets(read, value.get("targets"), problems)
    try:
        header = read.validate(Header)
    except Refused as err:
        problems.extend(err.problems)
    else:
        problems.extend(_cross_check(read, header, value))
        if not problems:
            return _order(file, header, Source(data, read), entries=entries, targets=targets)
    raise Refused(capped(sorted(problems, key=lambda problem: problem.line or 0), 1000))


def load_entries_file(order: Order, folder: Path, judge: Judge = accept_all) -> Order:
    """The order with the entries of its `entries_file` in `folder`. Their digest must match."""
    reference = order.entries_file
    if reference is None or order.source is None:
        return order
    path = folder / reference.path
    if path.resolve().parent != folder.resolve():
        place = ("entries_file", "path")
        raise Refused([order.problem(place, reference.path, "leads out of the orders folder")])
    data = document.read_bytes(path, max_bytes=MAX_ENTRIES_FILE_BYTES)
    return with_entries(order, str(path), data, judge)


def with_entries(order: Order, file: str, data: bytes, judge: Judge = accept_all) -> Order:
    """The order with the entries in these bytes of its `entries_file`. Raises `Refused`."""
    if order.entries_file is None or order.source is None:
        return order
    entries = parse_entries(order.entries_file, file, data, judge)
    return replace(order, entries=entries, source=replace(order.source, entries_data=data))


def parse_entries(
    reference: EntriesFile, file: str, data: bytes, judge: Judge = accept_all
) -> tuple[Entry, ...]:
    """Parses an entries file: one name per line and nothing else, with the digest stated in the order."""
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
        reason = f"{len(lines):,} lines instead of {reference.lines:,} as in the order"
        raise Refused([Problem(file, None, "", reason)])
    return _names(file, lines, judge)


# ------- Entries and targets: parsed by hand, since there may be 100,000 of them -------


def _names(file: str, lines: list[str], judge: Judge) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    first: dict[str, int] = {}
    problems: list[Problem] = []
    for number, line in enumerate(lines, start=1):
        try:
            name = read_name(line)
        except NameRefused as err:
            reason = "comments are not allowed here" if line.startswith("#") else str(err)
            problems.append(Problem(file, number, line, reason))
            continue
        if first.setdefault(name, number) != number:
            problems.append(Problem(file, number, line, f"the same entry as on line {first[name]}"))
        entries.append(Entry(name, "subtree"))
        problems.extend(Problem(file, number, line, reason) for reason in judge(entries[-1]))
    if problems:
        raise Refused(capped(problems, 100))
    return tuple(entries)


def _entries(
    read: Document, value: dict[str, Any], judge: Judge, problems: list[Problem]
) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    first: dict[tuple[str, str], int] = {}
    items = value.get("entries")
    for index, item in enumerate(items if isinstance(items, list) else []):
        entry = _entry(read, ("entries", index), item, problems)
        if entry and entry.answer and value.get("action") == "exempt":
            reason = "an exemption has no answer: the name is not blocked"
            problems.append(read.problem(("entries", index, "answer"), entry.answer, reason))
        if entry is None:
            continue
        line = read.line(("entries", index))
        problems.extend(Problem(read.file, line, entry.name, reason) for reason in judge(entry))
        if (key := (entry.name, entry.match)) in first:
            reason = f"the same entry as on line {first[key]}"
            problems.append(Problem(read.file, line, entry.name, reason))
        first.setdefault(key, line)
        entries.append(entry)
    return tuple(entries)


def _entry(read: Document, place: Place, item: Any, problems: list[Problem]) -> Entry | None:
    if isinstance(item, str):
        name = _name(read, place, item, problems)
        return Entry(name, "subtree") if name else None
    try:
        model = read.validate(EntryFields, at=place, value=item)
    except Refused as err:
        problems.extend(err.problems)
        return None
    name = _name(read, (*place, "name"), model.name, problems)
    return Entry(name, model.match, model.note, model.answer) if name else None


def _targets(read: Document, value: Any, problems: list[Problem]) -> tuple[Target, ...]:
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
        targets.append(
            Target(model.order_id, _target_entries(read, (*place, "entries"), model.entries, problems))
        )
    return tuple(targets)


def _target_entries(
    read: Document, place: Place, value: Any, problems: list[Problem]
) -> tuple[TargetEntry, ...] | None:
    if value == "all":
        return None
    if not isinstance(value, list) or not value:
        found = value if isinstance(value, str) else ""
        problems.append(read.problem(place, found, "targets.entries: must be all, or a list of names"))
        return None
    entries: list[TargetEntry] = []
    for index, item in enumerate(value):
        entry = _target_entry(read, (*place, index), item, problems)
        if entry is not None:
            entries.append(entry)
    return tuple(dict.fromkeys(entries))


def _target_entry(read: Document, place: Place, item: Any, problems: list[Problem]) -> TargetEntry | None:
    if isinstance(item, str):
        name = _name(read, place, item, problems)
        return TargetEntry(name) if name else None
    try:
        model = read.validate(TargetEntryFields, at=place, value=item)
    except Refused as err:
        problems.extend(err.problems)
        return None
    name = _name(read, (*place, "name"), model.name, problems)
    return TargetEntry(name, model.match) if name else None


def _name(read: Document, place: Place, text: str, problems: list[Problem]) -> str | None:
    try:
        return read_name(text)
    except NameRefused as err:
        problems.append(read.problem(place, text, str(err)))
        return None


# ------- The document as a whole -------


def _cross_check(read: Document, header: Header, value: dict[str, Any]) -> Iterator[Problem]:
    """Checks that involve several fields."""

    def problem(key: str, reason: str) -> Problem:
        found = value.get(key)
        return read.problem((key,), found if isinstance(found, str) else key, reason)

    if header.action == "unblock":
        if header.targets is None:
            yield problem("targets", "is required: an unblock says which orders it lifts")
        for key in ("entries", "entries_file"):
            if value.get(key) is not None:
                yield problem(key, "an unblock has no entries of its own: name them in its targets")
        if header.expires_at is not None:
            yield problem("expires_at", "an unblock does not expire: block again with a new order")
    else:
        if header.targets is not None:
            yield problem("targets", "belongs to action unblock")
        if (header.entries is None) == (header.entries_file is None):
            yield problem("entries", "one of entries and entries_file is required, and only one")
    if header.expires_at is not None and header.expires_at <= (header.effective_at or header.issued_at):
        yield problem("expires_at", "must be after effective_at")
    if header.prev is not None and header.seq in (None, 1):
        yield problem("prev", "belongs to an order with a seq of 2 or more")
    if header.prev is None and header.seq is not None and header.seq > 1:
        yield problem("prev", "is required: the sha256 of the issuer's previous order file")


# The time to comply if the order states no deadline.
_TIME_TO_COMPLY = {
    "routine": timedelta(days=7),
    "urgent": timedelta(hours=24),
    "immediate": timedelta(hours=4),
}


def _order(
    file: str, header: Header, source: Source, *, entries: tuple[Entry, ...], targets: tuple[Target, ...]
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
