"""Checks everything that a start would read, without a daemon and without changing anything."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from dnsblock.config import Config, inspect
from dnsblock.errors import Problem, Refused
from dnsblock.orders.ledger import Ledger
from dnsblock.policy.publish import Serials, build, read, standing_notes
from dnsblock.policy.sources import Lists


class CheckedZone(TypedDict):
    """What a zone would enforce now."""

    name: str
    entries: int
    digest: str


def check_all(path: Path) -> tuple[tuple[Problem, ...], list[CheckedZone], tuple[str, ...]]:
    """Every problem of every file; or what each zone would enforce, and what is worth a look all the same."""
    config, problems = inspect(path)
    if config is None:
        return problems, [], ()
    if problems:
        return (*problems, *_problems_of_lists(config)), [], ()
    try:
        now = datetime.now(UTC)
        orders = Ledger.open(config.state, read_only=True).orders
        draft = read(config, orders, Lists(), now)
        policy = build(config, draft.lists, (*orders, *draft.new), now, Serials(config.state))
    except Refused as err:
        return err.problems, [], ()
    zones: list[CheckedZone] = [
        {"name": zone.name, "entries": zone.entries, "digest": zone.digest} for zone in policy.zones
    ]
    return (), zones, (*draft.notes, *standing_notes(policy, config, draft.new))


def _problems_of_lists(config: Config) -> tuple[Problem, ...]:
    """What is wrong with the lists of those zones that a broken configuration file describes faultlessly.

    Orders wait until it is mended: without all zones nobody can tell which of them have one.
    """
    zones = tuple(zone for zone in config.zones if zone.answer in config.answer_names)
    try:
        Lists().read(config.model_copy(update={"zones": zones}))
    except Refused as err:
        return err.problems
    return ()
