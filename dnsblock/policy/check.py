"""Checks everything that startup would read, without a daemon and without changing anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from dnsblock._engine import Progress
from dnsblock.access import read_access
from dnsblock.clock import utc_now
from dnsblock.config import Config
from dnsblock.config_file import inspect
from dnsblock.errors import Problem, Refused
from dnsblock.lists.lists import Lists
from dnsblock.lists.reader import ListVersion
from dnsblock.lists.store import Store
from dnsblock.orders.book import Book
from dnsblock.orders.conflicts import wrong_links
from dnsblock.policy.serials import Serials
from dnsblock.policy.snapshot import Draft, build, read, standing_notes, unsigned_notes
from dnsblock.standard_webhooks import read_secrets
from dnsblock.tls import client_context


class CheckedZone(TypedDict):
    """The entries that a zone would enforce now, or count in shadow mode; the report on a list."""

    name: str
    mode: str
    entries: int
    digest: str
    report: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Checked:
    """Every problem of every file, what each zone would enforce, and remarks.

    `prevents` are the problems that prevent startup. With any other problem, the daemon starts: it enforces
    the last accepted version of a list, and ignores a refused document.
    """

    problems: tuple[Problem, ...]
    zones: tuple[CheckedZone, ...] = ()
    notes: tuple[str, ...] = ()
    prevents: tuple[Problem, ...] = ()


def check_all(path: Path, progress: Progress | None = None) -> Checked:
    """Checks everything that startup would read. `progress` counts the bytes of lists that were read."""
    config, problems = inspect(path)
    if config is None:
        return Checked(problems, prevents=problems)
    try:
        store = Store(config.state, read_only=True)
    except Refused as err:
        return Checked((*problems, *err.problems), prevents=(*problems, *err.problems))
    corrupt = () if store.corrupt is None else store.corrupt.problems  # does not prevent startup
    problems = (*problems, *_problems_of_api(config))
    try:
        if problems:
            all_problems = (*problems, *corrupt, *_problems_of_lists(config, store))
            return Checked(all_problems, prevents=problems)
        book = Book.open(config.state, config.ledger, read_only=True)
        with store.history() as history:
            book.compare(history.last_position(), config.ledger.checkpoints.folder)
        now = book.clock.now()
        orders = book.ledger.orders.not_after(now)
        draft = read(config, orders, Lists(store), now, progress)
        everything = draft.orders(orders, now)
        policy = build(config, draft.lists, everything, now, Serials(book.checkpoint))
    except Refused as err:
        return Checked((*corrupt, *err.problems), prevents=err.problems)
    finally:
        store.close()
    reports = {zone: _report(listed) for zone, listed in draft.lists.listed.items()}
    links = wrong_links(everything)
    refused = (*book.problems, *draft.problems, *_refused_documents(draft), *links, *_rejected(draft.lists))
    refused = (*refused, *_problems_of_webhooks(config))
    zones: list[CheckedZone] = [
        {
            "name": zone.name,
            "mode": "shadow" if placed.is_shadow else "enforce",  # also of a list that has expired
            "entries": placed.zone.entries,
            "digest": placed.zone.digest,
            "report": reports.get(zone.name),
        }
        for zone, placed in zip(config.zones, policy.plan, strict=True)
    ]
    notes = (
        *draft.notes,
        *unsigned_notes(config),
        *standing_notes(policy, config, draft.new),
        *_left_out(draft.lists),
    )
    return Checked((*corrupt, *refused), tuple(zones), notes)


def _problems_of_api(config: Config) -> tuple[Problem, ...]:
    """Why the issuers' API or the console cannot start: certificates or clients."""
    problems: list[Problem] = []
    for option, files in config.https.items():
        try:
            read_access(files, of=option)
        except Refused as err:
            problems.extend(err.problems)
    return tuple(dict.fromkeys(problems))


def _problems_of_webhooks(config: Config) -> Iterator[Problem]:
    """Files of webhooks that cannot be used. They prevent no startup: only this webhook fails."""
    for webhook in config.webhooks:
        try:
            read_secrets(webhook.secret_file)
            if webhook.ca is not None:
                client_context(None, None, webhook.ca)
        except Refused as err:
            yield from err.problems


def _refused_documents(draft: Draft) -> tuple[Problem, ...]:
    """Why documents in the inbox are refused. A refused document affects nothing else."""
    return tuple(problem for one in draft.refused or () for problem in one.problems)


def _rejected(lists: Lists) -> tuple[Problem, ...]:
    """Why lists are rejected. A feed that was not fetched yet gets a note instead."""
    rejected = [one for one in lists.rejections.values() if not one.is_unfetched]
    return tuple(problem for one in rejected for problem in one.problems)


def _left_out(lists: Lists) -> Iterator[str]:
    """Lines of lists that are not enforced: harmful ones, and rules that names cannot express."""
    for zone, listed in lists.listed.items():
        for left_out in listed.report.left_out:
            yield f"list {zone} contains a name that no list may block: {left_out}"
        yield from (f"list {zone}: {warning}" for warning in listed.report.warnings)


def _report(listed: ListVersion) -> dict[str, Any]:
    """The report on the current content, even if it is rejected."""
    rejection = listed.rejection
    report = listed.report if rejection is None or rejection.report is None else rejection.report
    return report.as_json()


def _problems_of_lists(config: Config, store: Store) -> tuple[Problem, ...]:
    """Problems of the lists of valid zones in an otherwise invalid configuration file.

    Orders are not checked until the file is fixed: without all zones it is unknown which issuers have one.
    """
    zones = tuple(one for one in config.zones if one.gives_answers or one.answer in config.answer_names)
    try:
        lists = Lists(store).read(config.model_copy(update={"zones": zones}), utc_now())
    except Refused as err:
        return err.problems
    return _rejected(lists)
