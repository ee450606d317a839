"""What each version changed, kept twice: as it came, to compare versions, and by name, to look one up.

A year of updates may be 26 million changes. By name they are a primary key away; as they came they are one
small compressed piece for each version, so that two neighbours are compared without reading the rest.
"""

import zlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from sqlite3 import Connection

from dnsblock.policy.history_facts import Change, NameEvent
from dnsblock.policy.history_file import HistoryFile, damaged, time_of

# How many changes are sorted in memory to compare two versions: about 20 MB. For more, the table is read.
SORTED_IN_MEMORY = 100_000


def insert(database: Connection, zone: int, number: int, difference: bytes) -> tuple[int, int]:
    """Keeps what a version changed, and returns how many names it added and removed.

    One with another scope is counted in both. Raises `ValueError` for what is not a difference.
    """
    changes = _parse(difference)
    database.execute("INSERT INTO differences VALUES (?, ?, ?)", (zone, number, zlib.compress(difference)))
    words = {word for change in changes for word in (change.before, change.after) if word is not None}
    database.executemany(
        "INSERT INTO scopes (word) VALUES (?) ON CONFLICT DO NOTHING", [(word,) for word in sorted(words)]
    )
    scopes = {row["word"]: row["id"] for row in database.execute("SELECT * FROM scopes")}
    database.executemany(
        "INSERT INTO changes VALUES (?, ?, ?, ?, ?)",
        ((zone, c.name, number, scopes.get(c.before), scopes.get(c.after)) for c in changes),
    )
    added = sum(change.after is not None for change in changes)
    removed = sum(change.before is not None for change in changes)
    return added, removed


def of_name(file: HistoryFile, zone: int, name: str) -> tuple[NameEvent, ...]:
    """What versions changed for a name, oldest first."""
    rows = file.rows(
        "SELECT number, accepted_at, old.word AS before, new.word AS after "
        "FROM changes JOIN versions USING (zone, number) "
        "LEFT JOIN scopes AS old ON old.id = before LEFT JOIN scopes AS new ON new.id = after "
        "WHERE changes.zone = ? AND changes.name = ? ORDER BY number",
        (zone, name),
    )
    return tuple(
        NameEvent(row["number"], time_of(row["accepted_at"]), row["before"], row["after"]) for row in rows
    )


def between(file: HistoryFile, span: dict[str, int], count: int, *, backwards: bool) -> Iterator[Change]:
    """The net changes between two versions of a zone, by name; `count` is how many changes they are made of.

    `span` is `zone`, `older` and `newer`. Backwards is from the newer to the older one.
    """
    if count > SORTED_IN_MEMORY:
        changes = _in_order_of_names(file, span)
    else:
        # Sorting is stable: what several versions did to a name stays in their order.
        changes = iter(sorted(_in_order_of_versions(file, span), key=attrgetter("name")))
    for change in _net(changes):
        yield Change(change.name, change.after, change.before) if backwards else change


def _net(changes: Iterable[Change]) -> Iterator[Change]:
    for name, of_one in groupby(changes, key=attrgetter("name")):
        first, *others = of_one
        last = others[-1] if others else first
        if first.before != last.after:
            yield Change(name, first.before, last.after)


def _in_order_of_versions(file: HistoryFile, span: dict[str, int]) -> Iterator[Change]:
    for row in file.each(
        "SELECT number, compressed FROM differences "
        "WHERE zone = :zone AND number > :older AND number <= :newer ORDER BY number",
        span,
    ):
        try:
            changes = _parse(zlib.decompress(row["compressed"]))
        except (zlib.error, ValueError) as err:
            raise damaged(file.path, f"difference of version {row['number']}") from err
        yield from changes


def _in_order_of_names(file: HistoryFile, span: dict[str, int]) -> Iterator[Change]:
    for row in file.each(
        "SELECT name, old.word AS before, new.word AS after FROM changes "
        "LEFT JOIN scopes AS old ON old.id = before LEFT JOIN scopes AS new ON new.id = after "
        "WHERE zone = :zone AND number > :older AND number <= :newer ORDER BY name, number",
        span,
    ):
        yield Change(row["name"], row["before"], row["after"])


def _parse(difference: bytes) -> list[Change]:
    """The changes of one version, by name: in the table's order neighbours are written together."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for line in difference.splitlines():
        sign, scope, name = line.decode("ascii").split(" ")
        side = {"-": before, "+": after}.get(sign)
        if side is None or name in side:
            raise ValueError(f"not a line of a difference, or the second one for its name: {line!r}")
        side[name] = scope
    return [Change(name, before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())]
