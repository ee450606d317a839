"""The changes of each version, stored twice: one compressed difference per version, and a table by name.

A year of updates may have 26 million changes. The table finds those of a name by its primary key. The
differences compare neighbouring versions without reading the rest.
"""

import io
import itertools
import zlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from sqlite3 import Connection

from dnsblock.errors import Problem, Refused
from dnsblock.lists.history.database import HistoryFile, damaged, time_of
from dnsblock.lists.history.facts import Change, NameEvent

# Up to this many changes are sorted in memory to compare versions: about 20 MB. More are read from the table.
SORTED_IN_MEMORY = 100_000
# A difference up to this many bytes is indexed by name before the version is enforced: about 100,000 changes,
# one second. A larger one is searched sequentially until `sort` has indexed it.
SORTED_AT_ONCE = 4 << 20
SORTED_IN_A_ROW = 10_000  # lines per transaction, a tenth of a second: other writers wait for one at most


def insert(database: Connection, zone: int, number: int, difference: bytes) -> tuple[int, int]:
    """Stores the changes of a version, and returns how many names it added and removed.

    A name with another scope counts in both. Raises `ValueError` for a malformed difference; for a large one,
    `sort` finds that.
    """
    level = -1
    if len(difference) > SORTED_AT_ONCE:
        level = 1  # a third of the time, for a sixth more bytes
        database.execute("INSERT INTO unsorted VALUES (?, ?)", (zone, number))
    else:
        _sort_in(database, zone, number, _parse(difference.splitlines()))
    piece = zlib.compress(difference, level)
    database.execute("INSERT INTO differences VALUES (?, ?, ?)", (zone, number, piece))
    added, removed = (difference.startswith(sign) + difference.count(b"\n" + sign) for sign in (b"+", b"-"))
    return added, removed


def sort(file: HistoryFile) -> Iterator[None]:
    """Indexes the changes of large versions by name, a part with each step. Raises `HistoryUnwritable`.

    An interrupted version is indexed again from its beginning.
    """
    for row in file.rows("SELECT zone, number FROM unsorted"):
        zone, number = row["zone"], row["number"]
        lines = io.BytesIO(_piece(file, zone, number))
        while some := list(itertools.islice(lines, SORTED_IN_A_ROW)):
            with file.writing() as database:
                _sort_in(database, zone, number, _parsed(file, number, some))
            yield
        with file.writing() as database:
            database.execute("DELETE FROM unsorted WHERE zone = ? AND number = ?", (zone, number))


def _sort_in(database: Connection, zone: int, number: int, changes: list[Change]) -> None:
    words = {word for change in changes for word in (change.before, change.after) if word is not None}
    database.executemany(
        "INSERT INTO scopes (word) VALUES (?) ON CONFLICT DO NOTHING", [(word,) for word in sorted(words)]
    )
    scopes = {row["word"]: row["id"] for row in database.execute("SELECT * FROM scopes")}
    # On conflict: the second of two lines about a name, or a row from an interrupted run.
    database.executemany(
        "INSERT INTO changes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "before = coalesce(excluded.before, before), after = coalesce(excluded.after, after)",
        ((zone, c.name, number, scopes.get(c.before), scopes.get(c.after)) for c in changes),
    )


def of_name(file: HistoryFile, zone: int, name: str) -> tuple[NameEvent, ...]:
    """The changes of a name in all versions, oldest first."""
    events = file.made(
        lambda row: NameEvent(row["number"], time_of(row["accepted_at"]), row["before"], row["after"]),
        "SELECT number, accepted_at, old.word AS before, new.word AS after "
        "FROM changes JOIN versions USING (zone, number) "
        "LEFT JOIN scopes AS old ON old.id = before LEFT JOIN scopes AS new ON new.id = after "
        "WHERE changes.zone = ? AND changes.name = ? AND number NOT IN "
        "(SELECT number FROM unsorted WHERE unsorted.zone = changes.zone) ORDER BY number",
        (zone, name),
    )
    return tuple(sorted([*events, *_of_name_in_unsorted(file, zone, name)], key=attrgetter("version")))


def _of_name_in_unsorted(file: HistoryFile, zone: int, name: str) -> Iterator[NameEvent]:
    for row in file.rows(
        "SELECT number, accepted_at FROM unsorted JOIN versions USING (zone, number) WHERE zone = ?", (zone,)
    ):
        piece = b"\n" + _piece(file, zone, row["number"])
        end, lines = b" " + name.encode("ascii", "replace") + b"\n", []
        at = piece.find(end)
        while at >= 0:
            lines.append(piece[piece.rindex(b"\n", 0, at) + 1 : at + len(end) - 1])
            at = piece.find(end, at + 1)
        for change in _parsed(file, row["number"], lines):
            yield NameEvent(row["number"], time_of(row["accepted_at"]), change.before, change.after)


def between(file: HistoryFile, span: dict[str, int], count: int, *, backwards: bool) -> Iterator[Change]:
    """The net changes between two versions of a zone, sorted by name.

    `span` is `zone`, `older` and `newer`. `count` is the number of changes between them. `backwards` means
    from the newer to the older one.
    """
    if count > SORTED_IN_MEMORY:
        _ensure_sorted(file, span)
        changes = _in_order_of_names(file, span)
    else:
        # A stable sort: the changes of a name stay in the order of the versions.
        changes = iter(sorted(_in_order_of_versions(file, span), key=attrgetter("name")))
    for change in _net(changes):
        yield Change(change.name, change.after, change.before) if backwards else change


def _ensure_sorted(file: HistoryFile, span: dict[str, int]) -> None:
    for row in file.rows(
        "SELECT number FROM unsorted WHERE zone = :zone AND number > :older AND number <= :newer", span
    ):
        reason = "has changed so much that it is still being put on record by name: ask again in a minute"
        raise Refused([Problem(str(file.path), None, f"version {row['number']}", reason)])


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
        piece = _unpacked(file, row["number"], row["compressed"])
        yield from _parsed(file, row["number"], piece.splitlines())


def _in_order_of_names(file: HistoryFile, span: dict[str, int]) -> Iterator[Change]:
    for row in file.each(
        "SELECT name, old.word AS before, new.word AS after FROM changes "
        "LEFT JOIN scopes AS old ON old.id = before LEFT JOIN scopes AS new ON new.id = after "
        "WHERE zone = :zone AND number > :older AND number <= :newer ORDER BY name, number",
        span,
    ):
        yield Change(row["name"], row["before"], row["after"])


def _piece(file: HistoryFile, zone: int, number: int) -> bytes:
    """The uncompressed difference of a version."""
    query = "SELECT compressed FROM differences WHERE zone = ? AND number = ?"
    rows = file.rows(query, (zone, number))
    if not rows:
        raise _rotten(file, number)
    return _unpacked(file, number, rows[0]["compressed"])


def _unpacked(file: HistoryFile, number: int, piece: bytes) -> bytes:
    try:
        return zlib.decompress(piece)
    except (zlib.error, TypeError) as err:
        raise _rotten(file, number) from err


def _parsed(file: HistoryFile, number: int, lines: Iterable[bytes]) -> list[Change]:
    try:
        return _parse(lines)
    except ValueError as err:
        raise _rotten(file, number) from err


def _rotten(file: HistoryFile, number: int) -> Refused:
    return damaged(file.path, f"difference of version {number}")


def _parse(lines: Iterable[bytes]) -> list[Change]:
    """Parses the changes, sorted by name: rows that are neighbours in the table are written together."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for line in lines:
        sign, scope, name = line.decode("ascii").rstrip("\n").split(" ")
        side = {"-": before, "+": after}.get(sign)
        if side is None or name in side:
            raise ValueError(f"not a line of a difference, or the second one for its name: {line!r}")
        side[name] = scope
    return [Change(name, before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())]
