"""The changes of each version of a list: one table, in the order of versions and then of names.

Recording a version appends to it, whatever the number of changes before. A name is found by one lookup per
version. A year of updates may have 26 million changes, in some hundred versions.
"""

import heapq
import io
import json
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from sqlite3 import Connection

from dnsblock.lists.history.database import HistoryFile, time_of
from dnsblock.lists.history.facts import Change, NameEvent

LINES_AT_ONCE = 100_000  # of a difference; bounds the memory to about 30 MB

_INSERT = """\
INSERT INTO changes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
before = coalesce(excluded.before, before), after = coalesce(excluded.after, after)
"""
_IDS = "SELECT id, word FROM scopes WHERE word IN (SELECT value FROM json_each(?))"
# CROSS JOIN keeps this order of the tables: one lookup in `changes` for each version.
_OF_NAME = """\
SELECT number, accepted_at, old.word AS before, new.word AS after
FROM versions CROSS JOIN changes USING (zone, number)
LEFT JOIN scopes AS old ON old.id = before LEFT JOIN scopes AS new ON new.id = after
WHERE versions.zone = ? AND versions.number > ? AND changes.name = ? ORDER BY number
"""
_OF_VERSION = """\
SELECT name, number, old.word, new.word FROM changes
LEFT JOIN scopes AS old ON old.id = before LEFT JOIN scopes AS new ON new.id = after
WHERE zone = ? AND number = ? ORDER BY name
"""


def insert(database: Connection, zone: int, number: int, difference: bytes) -> tuple[int, int]:
    """Records the changes of a version, and returns how many names it added and removed.

    A name with another scope or answer counts in both. Raises `ValueError` for a malformed difference.
    """
    added = removed = 0
    lines = io.BytesIO(difference)
    numbered: dict[str, str] = {}
    while some := list(islice(lines, LINES_AT_ONCE)):
        before, after = _parse(some, numbered)
        words = {*before.values(), *after.values()}
        database.executemany(
            "INSERT INTO scopes (word) VALUES (?) ON CONFLICT DO NOTHING", [(word,) for word in sorted(words)]
        )
        ids: dict[str | None, int] = {
            row["word"]: row["id"] for row in database.execute(_IDS, (json.dumps(sorted(words)),))
        }
        names = sorted(before.keys() | after.keys())
        database.executemany(
            _INSERT,
            ((zone, number, name, ids.get(before.get(name)), ids.get(after.get(name))) for name in names),
        )
        added, removed = added + len(after), removed + len(before)
    return added, removed


def _parse(lines: Iterable[bytes], numbered: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The scope of each changed name, before and after; in a policy zone `SCOPE ANSWER`.

    `numbered` gets the scopes of a policy zone by their numbers.
    """
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    sides = {"-": before, "+": after}
    for line in lines:
        sign, scope, name = line.decode("ascii").rstrip("\n").split(" ", 2)
        if sign == "=":
            numbered[scope] = name
            continue
        side = sides.get(sign)
        is_defined = not scope.isdecimal() or scope in numbered
        if side is None or name in side or " " in name or not is_defined:
            raise ValueError(f"not a line of a difference, or the second one for its name: {line!r}")
        side[name] = numbered.get(scope, scope)
    return before, after


def of_name(file: HistoryFile, zone: int, name: str, *, later_than: int = 0) -> tuple[NameEvent, ...]:
    """The changes of a name in the versions later than one, oldest first."""
    events = file.made(
        lambda row: NameEvent(row["number"], time_of(row["accepted_at"]), row["before"], row["after"]),
        _OF_NAME,
        (zone, later_than, name),
    )
    return tuple(events)


def between(file: HistoryFile, zone: int, older: int, newer: int, *, backwards: bool) -> Iterator[Change]:
    """The net changes between two versions of a zone, sorted by name.

    `backwards` means from the newer to the older one.
    """
    versions = (file.each(_OF_VERSION, (zone, number)) for number in range(older + 1, newer + 1))
    # Merged here, since SQLite would sort in a temporary file.
    rows = heapq.merge(*(map(tuple, rows) for rows in versions))
    for name, of_one in groupby(rows, key=itemgetter(0)):
        (_, _, before, after), *others = of_one
        if others:
            after = others[-1][3]
        if before != after:
            yield Change(name, after, before) if backwards else Change(name, before, after)
