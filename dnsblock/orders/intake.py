"""Judges the inbox: which documents in the orders folder may enter the ledger. Used by publish and `check`.

Pure reading: nothing is written or moved. One bad document refuses the whole folder: carrying out half
of what was put there is something that nobody ordered. What is in force stays in force meanwhile.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from dnsblock import document
from dnsblock.config import Config, Zone
from dnsblock.errors import Problem, Refused, printable
from dnsblock.orders.guards import public_suffix
from dnsblock.orders.order import MAX_DOCUMENT_BYTES, Entry, Judge, Order, Target, load_entries_file, parse
from dnsblock.orders.schema import DOCUMENT_SUFFIXES
from dnsblock.orders.state import derive, follow

MAX_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Intake:
    """What the inbox brings."""

    new: tuple[Order, ...]  # in the order in which they enter the ledger
    notes: tuple[str, ...]  # what is accepted and yet worth a look: held orders, liftings that lift nothing


def examine(folder: Path, known: Sequence[Order], config: Config, now: datetime) -> Intake:
    """Reads and judges every document in `folder` that is not in the ledger (`known`) yet.

    Raises `Refused` with every problem of every file.
    """
    problems: list[Problem] = []
    judge = partial(_judge_entry, answers=config.answer_names)
    new = sorted(
        _read(folder, {digest for order in known for digest in order.digests}, judge, problems), key=_turn
    )
    for order in new:
        problems.extend(_judge_issuer(order, config))
    problems.extend(_judge_together(known, new))
    if problems:
        raise Refused(problems)
    if not new:
        return Intake((), ())
    files = {(order.issuer, order.order_id): order.file for order in new}
    notes = [
        f"{printable(files[state.issuer, state.order_id])}: {note}"
        for state in derive([*known, *new], now).orders
        if (state.issuer, state.order_id) in files
        for note in state.notes
    ]
    return Intake(tuple(new), (*notes, *_exemptions_without_effect(known, new)))


def _exemptions_without_effect(known: Sequence[Order], new: Sequence[Order]) -> Iterator[str]:
    """At equal length `exact` beats `subtree`: an exemption that is less exact opens nothing there."""
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


def _read(folder: Path, known: set[str], judge: Judge, problems: list[Problem]) -> Iterator[Order]:
    seen = set(known)
    for path in _documents(folder):
        try:
            data = document.read_bytes(path, max_bytes=MAX_DOCUMENT_BYTES)
            digest = hashlib.sha256(data).hexdigest()
            if digest in seen:  # judged when it came, and never again
                continue
            seen.add(digest)
            order = load_entries_file(parse(str(path), data, judge), folder, judge)
            seen.update(order.digests)
            yield order
        except Refused as err:
            problems.extend(err.problems)


def _documents(folder: Path) -> list[Path]:
    """The documents in the folder, by name.

    Symbolic links to files are followed: operators and Kubernetes mounts use them, and what a link leads to
    is judged like any other bytes. Folders are left alone; a FIFO or a device is refused when it is read.
    """
    try:
        with os.scandir(folder) as found:
            names = sorted(item.name for item in found if _is_document(item.name) and not item.is_dir())
    except OSError as err:
        reason = f"{err.strerror}: make the folder and let dnsblock read it, or set `orders: null`"
        raise Refused([Problem(str(folder), None, "", reason)]) from err
    if len(names) > MAX_FILES:
        reason = (
            f"more than {MAX_FILES:,} documents: take away those that are in the ledger (`dnsblock status`)"
        )
        raise Refused([Problem(str(folder), None, "", reason)])
    return [folder / name for name in names]


def _is_document(name: str) -> bool:
    """Names with a dot in front are editors' and copying tools' half-written files."""
    return name.lower().endswith(DOCUMENT_SUFFIXES) and not name.startswith(".")


def _turn(order: Order) -> tuple[str, int, bool, datetime, str]:
    """By the issuer's own number; without one, liftings after what they may lift, then by time of issue."""
    return (order.issuer, order.seq or 0, order.action == "unblock", order.issued_at, order.order_id)


# ------- Judging -------


def _judge_entry(entry: Entry, answers: frozenset[str]) -> Iterator[str]:
    if entry.answer is not None and entry.answer not in answers:
        yield f"no answer profile {entry.answer} in the configuration"
    if (reason := public_suffix(entry.name)) is not None:
        yield reason


def _judge_issuer(order: Order, config: Config) -> Iterator[Problem]:
    zones = [zone for zone in config.zones if zone.issuer == order.issuer]
    if not zones:
        yield order.problem(("issuer",), order.issuer, "no zone in the configuration is for this issuer")
    elif zones[0].unsigned == "refuse":
        yield order.problem((), order.order_id, _why_unsigned_is_refused(zones[0]))


def _why_unsigned_is_refused(zone: Zone) -> str:
    return (
        f"the zone {zone.name} takes signed orders only, and this version cannot check signatures yet: "
        "set `unsigned: accept` in the zone to take its orders as they are"
    )


def _judge_together(known: Sequence[Order], new: Sequence[Order]) -> Iterator[Problem]:
    """What needs the orders before: numbers that are taken, and what a lifting lifts."""
    by_id = {(order.issuer, order.order_id): order for order in known}
    is_numbered: dict[str, bool] = {}
    for order in known:
        is_numbered.setdefault(order.issuer, order.seq is not None)
    names: dict[tuple[str, str], set[tuple[str, str | None]]] = {}
    for order in new:
        if (order.issuer, order.order_id) in by_id:
            first = by_id[order.issuer, order.order_id]
            reason = f"this order_id was used already, for other bytes ({first.file}, sha256:{first.sha256})"
            yield order.problem(("order_id",), order.order_id, reason)
            continue
        if is_numbered.setdefault(order.issuer, order.seq is not None) != (order.seq is not None):
            reason = "an issuer numbers all of its orders with seq, or none"
            yield order.problem(("seq",), "" if order.seq is None else str(order.seq), reason)
        for number, target in enumerate(order.targets):
            lifted = by_id.get((order.issuer, target.order_id))
            yield from _judge_target(order, number, target, lifted, names)
        by_id[order.issuer, order.order_id] = order
    yield from _judge_numbers(known, new)


def _judge_target(
    order: Order,
    number: int,
    target: Target,
    lifted: Order | None,
    names: dict[tuple[str, str], set[tuple[str, str | None]]],
) -> Iterator[Problem]:
    place = ("targets", number)
    if lifted is None:
        reason = f"no order of {order.issuer} with this order_id was accepted before this one"
        yield order.problem((*place, "order_id"), target.order_id, reason)
        return
    if lifted.action != "block":
        reason = f"is an order to {lifted.action}, and an unblock lifts blocks only"
        yield order.problem((*place, "order_id"), target.order_id, reason)
        return
    key = (lifted.issuer, lifted.order_id)
    if target.entries is not None and key not in names:
        held = {(entry.name, entry.match) for entry in lifted.entries}
        names[key] = {*held, *((entry.name, None) for entry in lifted.entries)}
    for index, wanted in enumerate(target.entries or ()):
        if (wanted.name, wanted.match) not in names[key]:
            what = wanted.name if wanted.match is None else f"{wanted.name} ({wanted.match})"
            reason = f"the order {target.order_id} has no such entry"
            yield order.problem((*place, "entries", index), what, reason)


def _judge_numbers(known: Sequence[Order], new: Sequence[Order]) -> Iterator[Problem]:
    by_issuer: dict[str, list[Order]] = {}
    for order in (*known, *new):
        by_issuer.setdefault(order.issuer, []).append(order)
    followed = {issuer: follow(orders).followed for issuer, orders in by_issuer.items()}
    for order in new:
        first = followed[order.issuer].get(order.seq or 0)
        if first is not None and first is not order:
            reason = f"this seq is that of order {first.order_id}"
            yield order.problem(("seq",), str(order.seq), reason)
