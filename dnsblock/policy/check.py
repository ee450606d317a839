"""Checks everything that a start would read, without a daemon and without changing anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from dnsblock._engine import Progress
from dnsblock.config import Config, inspect
from dnsblock.errors import Problem, Refused
from dnsblock.lists.lists import Lists
from dnsblock.lists.reader import Listed
from dnsblock.lists.store import Store
from dnsblock.orders.book import Book
from dnsblock.orders.chain import wrong_links
from dnsblock.policy.serials import Serials
from dnsblock.policy.snapshot import Draft, build, read, standing_notes


class CheckedZone(TypedDict):
    """What a zone would enforce now, or, in shadow, count; of a list also what became of its lines."""

    name: str
    mode: str
    entries: int
    digest: str
    report: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Checked:
    """Every problem of every file, what each zone would enforce, and what is worth a look.

    `prevents` are those problems with which the daemon would not start. With any other, it starts: it
    enforces the last good version of a list, and does without a document that is refused.
    """

    problems: tuple[Problem, ...]
    zones: tuple[CheckedZone, ...] = ()
    notes: tuple[str, ...] = ()
    prevents: tuple[Problem, ...] = ()


def check_all(path: Path, progress: Progress | None = None) -> Checked:
    """Checks what a start would read. `progress` counts the octets of lists that were read."""
    config, problems = inspect(path)
    if config is None:
        return Checked(problems, prevents=problems)
    try:
        store = Store(config.state, read_only=True)
    except Refused as err:
        return Checked((*problems, *err.problems), prevents=(*problems, *err.problems))
    corrupt = () if store.corrupt is None else store.corrupt.problems  # which keeps no daemon from its start
    try:
        if problems:
            all_problems = (*problems, *corrupt, *_problems_of_lists(config, store))
            return Checked(all_problems, prevents=problems)
        book = Book.open(config.state, read_only=True)
        with store.history() as history:
            book.compare(history.last_position())
        now, orders = book.clock.now(), book.ledger.orders
        draft = read(config, orders, Lists(store), now, progress)
        policy = build(config, draft.lists, (*orders, *draft.new), now, Serials(book.checkpoint))
    except Refused as err:
        return Checked((*corrupt, *err.problems), prevents=err.problems)
    finally:
        store.close()
    reports = {zone: _report(listed) for zone, listed in draft.lists.listed.items()}
    links = wrong_links((*orders, *draft.new), now)
    refused = (*book.problems, *_refused_documents(draft), *links, *_refused(draft.lists))
    zones: list[CheckedZone] = [
        {
            "name": zone.name,
            "mode": zone.mode,
            "entries": compiled.entries,
            "digest": compiled.digest,
            "report": reports.get(zone.name),
        }
        for zone, compiled in zip(config.zones, policy.zones, strict=True)
    ]
    notes = (*draft.notes, *standing_notes(policy, config, draft.new), *_left_out(draft.lists))
    return Checked((*corrupt, *refused), tuple(zones), notes)


def _refused_documents(draft: Draft) -> tuple[Problem, ...]:
    """Why documents in the inbox are refused; none of them keeps anything else from being enforced."""
    return tuple(problem for one in draft.refused or () for problem in one.problems)


def _refused(lists: Lists) -> tuple[Problem, ...]:
    """Why texts are not taken; of a feed that the daemon is yet to fetch there is a note."""
    refused = [one for one in lists.not_taken.values() if not one.is_to_come]
    return tuple(problem for one in refused for problem in one.problems)


def _left_out(lists: Lists) -> Iterator[str]:
    """What lists say and is not enforced: lines that would do harm, and those that names cannot express."""
    for zone, listed in lists.listed.items():
        for left_out in listed.report.left_out:
            yield f"list {zone} names what no list may block: {left_out}"
        yield from (f"list {zone}: {warning}" for warning in listed.report.warnings)


def _report(listed: Listed) -> dict[str, Any]:
    """Of the text that is there now, also where it is not taken."""
    refused = listed.not_taken
    report = listed.report if refused is None or refused.report is None else refused.report
    return report.as_json()


def _problems_of_lists(config: Config, store: Store) -> tuple[Problem, ...]:
    """What is wrong with the lists of those zones that a broken configuration file describes faultlessly.

    Orders wait until it is mended: without all zones nobody can tell which of them have one.
    """
    zones = tuple(zone for zone in config.zones if zone.answer in config.answer_names)
    try:
        lists = Lists(store).read(config.model_copy(update={"zones": zones}), datetime.now(UTC))
    except Refused as err:
        return err.problems
    return _refused(lists)
