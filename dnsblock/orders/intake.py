"""Decides which order documents are accepted into the ledger. Used by publish, `check` and `order submit`.

It only reads: nothing is written or moved. A refused document does not delay any other document. It is not
recorded, and the next reload reads it again.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path

from dnsblock import document
from dnsblock.config import Config, Zone
from dnsblock.errors import Problem, Refused, printable
from dnsblock.orders.chain import Chain
from dnsblock.orders.order import MAX_DOCUMENT_BYTES, Entry, Judge, Order, Target, load_entries_file, parse
from dnsblock.orders.remarks import remarks
from dnsblock.orders.schema import DOCUMENT_SUFFIXES
from dnsblock.orders.state import derive
from dnsblock.suffixes import public_suffix

MAX_FILES = 10_000


@dataclass(frozen=True, slots=True)
class RefusedDocument:
    """A refused document, or the inbox itself if it cannot be read."""

    file: str
    problems: tuple[Problem, ...]
    issuer: str | None = None  # None: unknown, since the document cannot be read
    order_id: str | None = None


@dataclass(frozen=True, slots=True)
class Intake:
    """The content of the inbox."""

    new: tuple[Order, ...]  # in the order in which they enter the ledger
    refused: tuple[RefusedDocument, ...]  # by the name of the file
    notes: tuple[str, ...]  # remarks on accepted documents, such as a held order

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every problem of every refused document."""
        return tuple(problem for one in self.refused for problem in one.problems)


NOTHING = Intake((), (), ())


def examine(folder: Path, known: Sequence[Order], config: Config, now: datetime) -> Intake:
    """Reads and judges every document in `folder` that is not in the ledger (`known`) yet."""
    found: list[Order] = []
    refused: list[RefusedDocument] = []
    seen = {digest for order in known for digest in order.digests}
    judge = partial(judge_entry, answers=config.answer_names)
    try:
        paths = _documents(folder)
    except Refused as err:
        return Intake((), (RefusedDocument(str(folder), err.problems),), ())
    for path in paths:
        try:
            found += _read(path, folder, seen, judge)
        except Refused as err:
            refused.append(RefusedDocument(str(path), err.problems))
    return judge_all(found, refused, known, config, now)


def judge_all(
    found: Iterable[Order],
    refused: Iterable[RefusedDocument],
    known: Sequence[Order],
    config: Config,
    now: datetime,
) -> Intake:
    """Judges documents that were `found` and read. Those already `refused` stay refused.

    The result does not depend on the sequence of the documents.
    """
    own = sorted(found, key=_turn)
    rejected = list(refused)
    eligible: list[Order] = []
    needed = _needed(own, known)
    for order in own:
        if problems := (*_judge_issuer(order, config), *_judge_end(order, needed, now)):
            rejected.append(_refuse(order, problems))
        else:
            eligible.append(order)
    new: list[Order] = []
    together = _Together(known)
    for _, group in groupby(eligible, key=lambda order: (order.issuer, order.seq)):
        # Of several with the same number, the one that follows the previous order comes first.
        for order in sorted(group, key=lambda order: not together.follows(order)):
            if problems := tuple(together.problems(order)):
                rejected.append(_refuse(order, problems))
            else:
                together.accept(order)
                new.append(order)
    rejected.sort(key=lambda one: one.file)
    return Intake(tuple(new), tuple(rejected), tuple(_notes(known, new, now)))


def _refuse(order: Order, problems: tuple[Problem, ...]) -> RefusedDocument:
    return RefusedDocument(order.file, problems, order.issuer, order.order_id)


def _notes(known: Sequence[Order], new: Sequence[Order], now: datetime) -> Iterator[str]:
    if not new:
        return
    states = derive([*known, *new], now).orders[len(known) :]
    for order, state in zip(new, states, strict=True):
        for note in state.notes:
            yield f"{printable(order.file)}: {note}"
        yield from remarks(order, now)
    yield from _exemptions_without_effect(known, new)


def _exemptions_without_effect(known: Sequence[Order], new: Sequence[Order]) -> Iterator[str]:
    """At equal length, `exact` beats `subtree`: a less specific exemption has no effect there."""
    exact = {
        (order.issuer, entry.name): order.order_id
        for order in (*known, *new)
        if order.action == "block"
        for entry in order.entries
        if entry.match == "exact"
    }
    for order in new:
        for entry in order.entries if order.action == "exempt" else ():
            if entry.match == "subtree" and (order.issuer, entry.name) in exact:
                block = exact[order.issuer, entry.name]
                why = f"order {block} blocks {entry.name} with `match: exact`, which goes before `subtree`"
                yield f"{printable(order.file)}: NO_EFFECT: {why}"


# ------- Reading -------


def _read(path: Path, folder: Path, seen: set[str], judge: Judge) -> Iterator[Order]:
    """The order in a file; nothing if its bytes were seen before. Raises `Refused`."""
    data = document.read_bytes(path, max_bytes=MAX_DOCUMENT_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    if digest in seen:  # it was judged when it was accepted
        return
    seen.add(digest)
    order = load_entries_file(parse(str(path), data, judge), folder, judge)
    seen.update(order.digests)
    yield order


def _documents(folder: Path) -> list[Path]:
    """The documents in the folder, sorted by name.

    Symbolic links to files are followed: operators and Kubernetes mounts use them, and their targets are
    judged like any other file. Folders are ignored. A FIFO or a device is refused when it is read.
    """
    try:
        with os.scandir(folder) as found:
            names = sorted(item.name for item in found if _is_document(item.name) and not _is_folder(item))
    except OSError as err:
        reason = f"{err.strerror}: create the folder and let dnsblock read it, or set `orders: null`"
        raise Refused([Problem(str(folder), None, "", reason)]) from err
    if len(names) > MAX_FILES:
        reason = (
            f"more than {MAX_FILES:,} documents: remove those that are in the ledger (see `dnsblock status`)"
        )
        raise Refused([Problem(str(folder), None, "", reason)])
    return [folder / name for name in names]


def _is_folder(item: "os.DirEntry[str]") -> bool:
    try:
        return item.is_dir()
    except OSError:  # a dangling link: it alone is refused when it is read
        return False


def _is_document(name: str) -> bool:
    """Editors and copy tools use names with a leading dot for unfinished files."""
    return name.lower().endswith(DOCUMENT_SUFFIXES) and not name.startswith(".")


def _turn(order: Order) -> tuple[str, int, bool, datetime, str, str]:
    """Sorts by the issuer's number; without one, unblocks after blocks, then by time of issue."""
    is_last = order.action == "unblock"
    return (order.issuer, order.seq or 0, is_last, order.issued_at, order.order_id, order.sha256)


# ------- Judging -------


def judge_entry(entry: Entry, answers: frozenset[str]) -> Iterator[str]:
    """Why an entry is refused, regardless of the rest of the document."""
    if entry.answer is not None and entry.answer not in answers:
        yield f"no answer profile {entry.answer} in the configuration"
    if (reason := public_suffix(entry.name)) is not None:
        yield reason


def _judge_issuer(order: Order, config: Config) -> Iterator[Problem]:
    zones = [zone for zone in config.zones if zone.issuer == order.issuer]
    if not zones:
        yield order.problem(("issuer",), order.issuer, "no zone in the configuration is for this issuer")
    elif not zones[0].accepts_unsigned:
        yield order.problem((), order.order_id, _why_unsigned_is_refused(zones[0]))


def _judge_end(order: Order, needed: set[str], now: datetime) -> Iterator[Problem]:
    """Refuses an expired block or exemption: it has no effect, and usually its year is wrong.

    It is accepted if another document refers to it: then old orders are read again, such as all orders of
    an issuer on a new server.
    """
    if order.expires_at is None or order.expires_at > now or needed.intersection(_names_of(order)):
        return
    reason = (
        f"expires_at: has passed, so this order to {order.action} would have no effect: is the year right?"
    )
    yield order.problem(("expires_at",), order.written("expires_at"), reason)


def _needed(own: Iterable[Order], known: Iterable[Order]) -> set[str]:
    """The references from orders to others: each `prev`, and each lifted order."""
    needed: set[str] = set()
    for order in (*own, *known):
        needed |= {f"{order.issuer} {target.order_id}" for target in order.targets}
        needed |= set() if order.prev is None else {order.prev}
    return needed


def _names_of(order: Order) -> tuple[str, ...]:
    return (*order.digests, f"{order.issuer} {order.order_id}")


def _why_unsigned_is_refused(zone: Zone) -> str:
    return (
        f"the zone {zone.name} requires signed orders, and this version cannot verify signatures yet: "
        "set `unsigned: accept` in the zone to accept its orders without signatures"
    )


class _Together:
    """The checks that depend on earlier orders: used numbers, and the targets of unblocks."""

    def __init__(self, known: Sequence[Order]) -> None:
        self._by_id = {(order.issuer, order.order_id): order for order in known if order.annulled is None}
        self._is_numbered: dict[str, bool] = {}
        self._own: dict[str, list[Order]] = {}
        self._chains: dict[str, Chain] = {}
        self._names: dict[tuple[str, str], set[tuple[str, str | None]]] = {}
        for order in known:
            self._is_numbered.setdefault(order.issuer, order.seq is not None)
            self._own.setdefault(order.issuer, []).append(order)

    def accept(self, order: Order) -> None:
        """Adds an accepted order: those judged after it may refer to it."""
        self._by_id[order.issuer, order.order_id] = order
        self._is_numbered.setdefault(order.issuer, order.seq is not None)
        self._own.setdefault(order.issuer, []).append(order)
        if order.seq is not None:
            self._chain(order.issuer).add(order)

    def follows(self, order: Order) -> bool:
        """Whether a numbered order has the next number of its issuer and the correct `prev`."""
        return order.seq is not None and self._chain(order.issuer).fits(order)

    def problems(self, order: Order) -> Iterator[Problem]:
        """The conflicts of an order with the accepted ones."""
        if (order.issuer, order.order_id) in self._by_id:
            first = self._by_id[order.issuer, order.order_id]
            reason = f"this order_id was used already, for other bytes ({first.file}, sha256:{first.sha256})"
            yield order.problem(("order_id",), order.order_id, reason)
            return
        if self._is_numbered.get(order.issuer, order.seq is not None) != (order.seq is not None):
            reason = "an issuer numbers all of its orders with seq, or none"
            yield order.problem(("seq",), "" if order.seq is None else str(order.seq), reason)
        taken = None if order.seq is None else self._chain(order.issuer).followed.get(order.seq)
        if taken is not None:
            yield order.problem(("seq",), str(order.seq), f"this seq is that of order {taken.order_id}")
        for number, target in enumerate(order.targets):
            yield from self._problems_of_target(order, number, target)

    def _chain(self, issuer: str) -> Chain:
        if issuer not in self._chains:
            own = self._own.get(issuer, ())
            self._chains[issuer] = Chain(
                (order for order in own if order.annulled is None),
                (order for order in own if order.annulled is not None),
            )
        return self._chains[issuer]

    def _problems_of_target(self, order: Order, number: int, target: Target) -> Iterator[Problem]:
        place = ("targets", number)
        lifted = self._by_id.get((order.issuer, target.order_id))
        if lifted is None:
            reason = f"no order of {order.issuer} with this order_id was accepted before this one"
            yield order.problem((*place, "order_id"), target.order_id, reason)
            return
        if lifted.action != "block":
            reason = f"is an order to {lifted.action}, and an unblock lifts blocks only"
            yield order.problem((*place, "order_id"), target.order_id, reason)
            return
        if target.entries is None:
            return
        names = self._names_of(lifted)
        for index, wanted in enumerate(target.entries):
            if (wanted.name, wanted.match) not in names:
                what = wanted.name if wanted.match is None else f"{wanted.name} ({wanted.match})"
                reason = f"the order {target.order_id} has no such entry"
                yield order.problem((*place, "entries", index), what, reason)

    def _names_of(self, block: Order) -> set[tuple[str, str | None]]:
        key = (block.issuer, block.order_id)
        if key not in self._names:
            exactly = {(entry.name, entry.match) for entry in block.entries}
            self._names[key] = {*exactly, *((entry.name, None) for entry in block.entries)}
        return self._names[key]
