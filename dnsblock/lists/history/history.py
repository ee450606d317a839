"""The history of lists: every version of a list that was accepted, what changed in it, and what was rejected.

It answers what a list said at a time (`history`, `why --at`, `diff`, `versions`), what can be gone back to
(`rollback`), what is enforced after a restart, and whether a text was there before (the guard REPLAYED).

Whoever takes a new list keeps this order, so that the process may die at any point:

1. The compiled file is on the disk, whole, under its sha256.
2. `accept`: the version is in the history. A restart enforces `current`, so this decides.
3. The engine serves the new snapshot, and `keep_snapshot` says so.
4. `prune`, and only then are files removed. What dies in between leaves files that are not among `files`.

An open history serves one thread at a time; who answers questions beside the daemon's work opens one to read.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from sqlite3 import Connection, Row
from typing import Any, Self, TypeVar

from dnsblock.errors import Problem, Refused
from dnsblock.lists.history import changes
from dnsblock.lists.history.database import HistoryFile, damaged, text_of, time_of
from dnsblock.lists.history.facts import (
    Approval,
    Change,
    Compiled,
    Current,
    Event,
    NameEvent,
    NewVersion,
    Past,
    Published,
    Refusal,
    Version,
)
from dnsblock.orders.records import Position

REFUSALS = 10_000  # of a zone that are kept on record


class History:
    """An open `lists.sqlite`. Names are canonical, times aware; a zone is called by its name."""

    def __init__(self, file: HistoryFile) -> None:
        self._file = file

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False, is_begun: bool = False) -> Self:
        """Opens the history in `folder`, which is made where it is missing, unless it is only to be read.

        With `is_begun` it must be there. Raises `HistoryCorrupt` for a file that is corrupt or of another
        dnsblock, and `Refused` for one that cannot be read, as does every query later.
        """
        return cls(HistoryFile.open(folder, read_only=read_only, is_begun=is_begun))

    @classmethod
    def empty(cls, folder: Path) -> Self:
        """A history of nothing, to be read in the place of one that is corrupt."""
        return cls(HistoryFile.empty(folder))

    def verify(self, err: Exception) -> None:
        """Raises `HistoryCorrupt` where the file is corrupt, since that explains `err`."""
        if not self._file.is_sound():
            raise damaged(self._file.path, f"{type(err).__name__}: {err}") from err

    def close(self) -> None:
        """Ends it; whatever was accepted is on the disk already."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------- What is enforced -------

    def accept(self, new: Sequence[NewVersion]) -> tuple[Version, ...]:
        """Makes these the current versions of their zones, all or none; then they are on the disk.

        Raises `HistoryUnwritable` where they are not, and then the history is what it was.
        """
        with self._file.writing() as database:
            return tuple(self._accept(database, version) for version in new)

    def current(self, zone: str) -> Current | None:
        """The version to be enforced, which is the last one accepted."""
        query = _VERSIONS + "WHERE zone = ? ORDER BY number DESC LIMIT 1"
        return _only(self._file.made(_current, query, (self._zone_id(zone),)))

    def begin_with(self, enforced: Iterable[Current]) -> None:
        """Records the versions that are enforced in a history that begins again.

        They keep their numbers and times; what they were compared with is not known any more.
        """
        with self._file.writing() as database:
            for current in enforced:
                version = current.version
                zone = _ensure_zone(database, version.zone)
                times = {"number": version.number, "accepted_at": text_of(version.accepted_at)}
                row = asdict(version.compiled) | times | {"zone": zone, "added": None, "removed": None}
                database.execute(_INSERT_VERSION, row | {"how": version.how, "note": version.note})
                _know(database, zone, current.known_by, current.validators)

    def know(self, zone: str, *, known_by: str, validators: str) -> None:
        """Notes what the text of the current version is known by now: it was fetched or written again."""
        with self._file.writing() as database:
            _know(database, _ensure_zone(database, zone), known_by, validators)

    # ------- Versions -------

    def versions(self, zone: str, limit: int = 100) -> tuple[Version, ...]:
        """The newest versions of a zone, newest first."""
        return tuple(
            self._versions("WHERE zone = ? ORDER BY number DESC LIMIT ?", self._zone_id(zone), limit)
        )

    def version(self, zone: str, number: int) -> Version | None:
        """One version, where there was such a one."""
        return _only(self._versions("WHERE zone = ? AND number = ?", self._zone_id(zone), number))

    def beginnings(self, zone: str) -> tuple[Version, ...]:
        """The versions that were compared with nothing, oldest first: the first, and those that hide more."""
        return tuple(self._versions("WHERE zone = ? AND added IS NULL ORDER BY number", self._zone_id(zone)))

    def find(self, zone: str, source_sha256: str, options: str) -> Version | None:
        """The newest version that was compiled from this text with these options."""
        where = "WHERE zone = ? AND source_sha256 = ? AND options = ? ORDER BY number DESC LIMIT 1"
        return _only(self._versions(where, self._zone_id(zone), source_sha256, options))

    def was_accepted(self, zone: str, source_sha256: str) -> Version | None:
        """The newest version with this text, where that is an old one: not the current version's."""
        where = "WHERE zone = ? AND source_sha256 = ? ORDER BY number DESC LIMIT 1"
        version = _only(self._versions(where, self._zone_id(zone), source_sha256))
        current = self.current(zone)
        if current is None or current.version.compiled.source_sha256 == source_sha256:
            return None
        return version

    def prune(self, zone: str, generations: int) -> tuple[str, ...]:
        """Gives up the compiled files of all but the newest versions; that of the current one always stays.

        With a file goes what is told of single lines: that is most of a version, and only of use while it may
        be served again. Returns the file_sha256 that no version of any zone keeps now: these may be removed.
        """
        with self._file.writing() as database:
            kept = self.files()
            database.execute(
                "UPDATE versions SET keeps_file = 0, report = json_set(report, '$.told', json('[]')) "
                "WHERE zone = :zone AND keeps_file = 1 "
                "AND number <= (SELECT max(number) FROM versions WHERE zone = :zone) - :generations",
                {"zone": self._zone_id(zone), "generations": max(generations, 1)},
            )
            return tuple(sorted(kept - self.files()))

    def files(self) -> frozenset[str]:
        """The file_sha256 of every compiled file that a version keeps."""
        query = "SELECT file_sha256 FROM versions WHERE keeps_file = 1"
        return frozenset(self._file.made(lambda row: _digest(row, "file_sha256"), query))

    # ------- What changed -------

    def difference(self, zone: str, a: int, b: int) -> Iterator[Change]:
        """What is another in version b than in version a, by name. Either may be the older one.

        Raises `Refused` where there is no such version, or one between them was compared with nothing.
        """
        span = {"zone": self._zone_id(zone), "older": min(a, b), "newer": max(a, b)}
        (found,) = self._file.rows(
            "SELECT count(*) AS versions, sum(number > :older AND added IS NULL) AS not_compared, "
            "sum(CASE WHEN number > :older THEN added + removed END) AS changes "
            "FROM versions WHERE zone = :zone AND number BETWEEN :older AND :newer",
            span,
        )
        if found["versions"] != abs(a - b) + 1:
            raise self._unknown(zone, a, b, "there are no two such versions; `dnsblock versions` lists them")
        if found["not_compared"]:
            raise self._unknown(zone, a, b, "not known: a version between them was compared with nothing")
        return changes.between(self._file, span, found["changes"] or 0, backwards=a > b)

    def sort(self) -> Iterator[None]:
        """Keeps by name what large versions changed, a part with each step; looking back is slow until then.

        Raises `HistoryUnwritable`; what was left is begun again when it is called again.
        """
        return changes.sort(self._file)

    def events_of(self, zone: str, name: str) -> tuple[NameEvent, ...]:
        """What versions changed for a name, oldest first. That the first one listed it is no change."""
        return changes.of_name(self._file, self._zone_id(zone), name)

    def scope_at(self, zone: str, name: str, when: datetime, scope_now: str | None) -> Past:
        """Which scope a name had at a time. `scope_now` is what the current version's compiled list says.

        Nothing changed for the name between that time and its next event, so that event's `before` tells.
        """
        # Where the clock was put back, the higher number counts: that version came later.
        (then,) = self._file.rows(
            "SELECT max(number) AS number FROM versions WHERE zone = ? AND accepted_at <= ?",
            (self._zone_id(zone), text_of(when)),
        )
        if then["number"] is None:
            return Past(None, None, is_known=True)
        version: int = then["number"]
        (hidden,) = self._file.rows(
            "SELECT min(number) AS number FROM versions WHERE zone = ? AND number > ? AND added IS NULL",
            (self._zone_id(zone), version),
        )
        later = next((event for event in self.events_of(zone, name) if event.version > version), None)
        if hidden["number"] is not None and (later is None or later.version > hidden["number"]):
            return Past(version, None, is_known=False)
        return Past(version, scope_now if later is None else later.before, is_known=True)

    # ------- What was refused, and what was accepted all the same -------

    def refuse(self, refusal: Refusal) -> None:
        """Notes a refusal. The same one again, of the same text by the same guard, is counted up."""
        with self._file.writing() as database:
            values = asdict(refusal) | {
                "zone": _ensure_zone(database, refusal.zone),
                "at": text_of(refusal.at),
            }
            database.execute(
                "INSERT INTO events (zone, kind, source_sha256, code, message, numbers, first_at, last_at) "
                "VALUES (:zone, 'rejected', :source_sha256, :code, :message, :numbers, :at, :at) "
                "ON CONFLICT (zone, source_sha256, code) WHERE kind = 'rejected' DO UPDATE SET "
                "times = times + 1, message = :message, numbers = :numbers, last_at = :at",
                values,
            )
            # A feed that is odd for years has another text each time.
            database.execute(
                "DELETE FROM events WHERE zone = :zone AND kind = 'rejected' AND last_at < ("
                "SELECT last_at FROM events WHERE zone = :zone AND kind = 'rejected' "
                "ORDER BY last_at DESC LIMIT 1 OFFSET :others)",
                {"zone": values["zone"], "others": REFUSALS - 1},
            )

    def approve(self, approval: Approval) -> None:
        """Notes that an operator accepts a text by hand: it is `approved` until another one is accepted."""
        with self._file.writing() as database:
            zone = _ensure_zone(database, approval.zone)
            database.execute(
                "INSERT OR REPLACE INTO approvals "
                "VALUES (:zone, :source_sha256, :options, :codes, :who, :reason, :at)",
                asdict(approval)
                | {"zone": zone, "codes": json.dumps(approval.codes), "at": text_of(approval.at)},
            )
            _note(
                database,
                zone,
                kind="accepted by hand",
                source_sha256=approval.source_sha256,
                message=f"by {approval.who}: {approval.reason}",
                at=approval.at,
            )

    def approved(self, zone: str, source_sha256: str, options: str) -> frozenset[str]:
        """The codes of the guards that an operator overrules for this text, read with these options."""
        found = self._file.made(
            lambda row: [str(code) for code in json.loads(row["codes"])],
            "SELECT codes FROM approvals WHERE zone = ? AND source_sha256 = ? AND options = ?",
            (self._zone_id(zone), source_sha256, options),
        )
        return frozenset(code for codes in found for code in codes)

    def events(self, zone: str, limit: int = 100) -> tuple[Event, ...]:
        """What happened to a zone last, newest first."""
        query = "SELECT * FROM events WHERE zone = ? ORDER BY last_at DESC, id DESC LIMIT ?"
        return tuple(self._file.made(_event, query, (self._zone_id(zone), limit)))

    # ------- Snapshots -------

    def keep_snapshot(self, snapshot: Published, *, keep: int) -> None:
        """Notes that a snapshot is served, and forgets all but the newest `keep`.

        The same snapshot again, as after a restart, stays what it was, but for its versions: a list with
        another text and the same rules has a newer one.
        """
        with self._file.writing() as database:
            # A serial with another content: the last serial was lost, and they began anew.
            database.execute(
                "DELETE FROM snapshots WHERE serial = ? AND digest <> ?", (snapshot.serial, snapshot.digest)
            )
            database.execute(
                "INSERT INTO snapshots (serial, digest, published_at, reason, versions, "
                "ledger_records, ledger_last, derived_at) "
                "VALUES (:serial, :digest, :published_at, :reason, :versions, :records, :last, :derived_at) "
                "ON CONFLICT (serial) DO UPDATE SET versions = :versions, "
                "ledger_records = coalesce(:records, ledger_records), "
                "ledger_last = coalesce(:last, ledger_last), derived_at = :derived_at",
                {
                    "serial": snapshot.serial,
                    "digest": snapshot.digest,
                    "published_at": text_of(snapshot.published_at),
                    "reason": snapshot.reason,
                    "versions": json.dumps(dict(snapshot.versions), sort_keys=True),
                    "records": None if snapshot.ledger is None else snapshot.ledger.records,
                    "last": None if snapshot.ledger is None else snapshot.ledger.last,
                    "derived_at": text_of(snapshot.derived_at),
                },
            )
            database.execute(
                "DELETE FROM snapshots WHERE position NOT IN "
                "(SELECT position FROM snapshots ORDER BY position DESC LIMIT ?)",
                (keep,),
            )

    def snapshots(self) -> tuple[Published, ...]:
        """The snapshots that are not forgotten, newest first."""
        return tuple(self._file.made(_published, "SELECT * FROM snapshots ORDER BY position DESC"))

    def snapshot(self, serial: int) -> Published | None:
        """The snapshot of a serial, where it is not forgotten."""
        return _only(self._file.made(_published, "SELECT * FROM snapshots WHERE serial = ?", (serial,)))

    def last_serial(self) -> int:
        """The highest serial that is known; 0 for none."""
        query = "SELECT serial FROM snapshots ORDER BY serial DESC LIMIT 1"
        return _only(self._file.made(lambda row: _count(row, "serial"), query)) or 0

    def last_position(self) -> Position | None:
        """How far the ledger went when a snapshot was served last; None where that is not known."""
        query = (
            "SELECT ledger_records, ledger_last FROM snapshots WHERE ledger_records IS NOT NULL "
            "ORDER BY position DESC LIMIT 1"
        )
        return _only(self._file.made(_position, query))

    def forget_positions(self) -> None:
        """Withdraws what is known about the ledger: the operator has accepted another one."""
        with self._file.writing() as database:
            database.execute("UPDATE snapshots SET ledger_records = NULL, ledger_last = NULL")

    # ------- How -------

    def _zone_id(self, zone: str) -> int:
        rows = self._file.rows("SELECT id FROM zones WHERE name = ?", (zone,))
        return int(rows[0]["id"]) if rows else 0  # there is no zone 0: nothing is found

    def _versions(self, where: str, *values: object) -> Iterator[Version]:
        return self._file.made(_version, _VERSIONS + where, values)

    def _accept(self, database: Connection, new: NewVersion) -> Version:
        zone = _ensure_zone(database, new.zone)
        (last,) = database.execute("SELECT max(number) FROM versions WHERE zone = ?", (zone,)).fetchone()
        number = 1 if last is None else last + 1
        added = removed = None
        if new.difference is not None:
            if last is None:
                raise ValueError(f"{new.zone}: the first version of a list is compared with nothing")
            added, removed = changes.insert(database, zone, number, new.difference)
        row = asdict(new.compiled) | {
            "zone": zone,
            "number": number,
            "added": added,
            "removed": removed,
            "accepted_at": text_of(new.accepted_at),
            "how": new.how,
            "note": new.note,
        }
        database.execute(_INSERT_VERSION, row)
        _know(database, zone, new.known_by, new.validators)
        if new.withdraws is not None:
            self._withdraw(database, zone, new.withdraws, new)
        # An operator's word is for a text as it was seen then, not for an old copy of it in half a year.
        database.execute(
            "DELETE FROM approvals WHERE zone = ? AND source_sha256 <> ?", (zone, new.compiled.source_sha256)
        )
        (accepted,) = self._versions("WHERE zone = ? AND number = ?", zone, number)
        return accepted

    def _withdraw(self, database: Connection, zone: int, number: int, rollback: NewVersion) -> None:
        (withdrawn,) = self._versions("WHERE zone = ? AND number = ?", zone, number)
        database.execute("UPDATE versions SET is_withdrawn = 1 WHERE zone = ? AND number = ?", (zone, number))
        _note(
            database,
            zone,
            kind="rolled back",
            source_sha256=withdrawn.compiled.source_sha256,
            message=f"version {number} is withdrawn: {rollback.note}",
            at=rollback.accepted_at,
        )

    def _unknown(self, zone: str, a: int, b: int, reason: str) -> Refused:
        return Refused([Problem(str(self._file.path), None, f"{zone} {a} {b}", reason)])


# ------- Writing rows -------

_INSERT_VERSION = """\
INSERT INTO versions (
    zone, number, source_sha256, file_sha256, names_digest, format, options,
    entries, lines, accepted, repaired, duplicate, rejected, report,
    added, removed, accepted_at, how, note
) VALUES (
    :zone, :number, :source_sha256, :file_sha256, :names_digest, :format, :options,
    :entries, :lines, :accepted, :repaired, :duplicate, :rejected, :report,
    :added, :removed, :accepted_at, :how, :note
)
"""


def _ensure_zone(database: Connection, zone: str) -> int:
    database.execute("INSERT INTO zones VALUES (NULL, ?, '', '') ON CONFLICT DO NOTHING", (zone,))
    (number,) = database.execute("SELECT id FROM zones WHERE name = ?", (zone,)).fetchone()
    return int(number)


def _know(database: Connection, zone: int, known_by: str, validators: str) -> None:
    database.execute(
        "UPDATE zones SET known_by = ?, validators = ? WHERE id = ?", (known_by, validators, zone)
    )


def _note(
    database: Connection, zone: int, *, kind: str, source_sha256: str, message: str, at: datetime
) -> None:
    database.execute(
        "INSERT INTO events (zone, kind, source_sha256, code, message, numbers, first_at, last_at) "
        "VALUES (?, ?, ?, '', ?, '', ?, ?)",
        (zone, kind, source_sha256, message, text_of(at), text_of(at)),
    )


# ------- Reading rows -------

_VERSIONS = "SELECT * FROM known_versions "
_T = TypeVar("_T")


def _only(found: Iterable[_T]) -> _T | None:
    return next(iter(found), None)


def _current(row: Row) -> Current:
    return Current(_version(row), _text(row, "known_by"), _text(row, "validators"))


def _version(row: Row) -> Version:
    compiled: dict[str, Any] = {
        field.name: _text(row, field.name) if field.type is str else _count(row, field.name)
        for field in fields(Compiled)
    }
    # Of these two, paths are made.
    compiled |= {key: _digest(row, key) for key in ("source_sha256", "file_sha256")}
    return Version(
        zone=_text(row, "zone_name"),
        number=_count(row, "number"),
        compiled=Compiled(**compiled),
        added=None if row["added"] is None else _count(row, "added"),
        removed=None if row["removed"] is None else _count(row, "removed"),
        accepted_at=time_of(row["accepted_at"]),
        how=_text(row, "how"),
        note=_text(row, "note"),
        is_withdrawn=bool(row["is_withdrawn"]),
        has_file=bool(row["has_file"]),
    )


def _event(row: Row) -> Event:
    return Event(
        kind=_text(row, "kind"),
        source_sha256=_text(row, "source_sha256"),
        code=_text(row, "code"),
        message=_text(row, "message"),
        numbers=_text(row, "numbers"),
        first_at=time_of(row["first_at"]),
        last_at=time_of(row["last_at"]),
        times=_count(row, "times"),
    )


def _published(row: Row) -> Published:
    versions = {str(zone): int(number) for zone, number in json.loads(row["versions"]).items()}
    at, reason = time_of(row["published_at"]), _text(row, "reason")
    return Published(
        *(_count(row, "serial"), _text(row, "digest"), at, reason, versions),
        *(time_of(row["derived_at"]), _position(row)),
    )


def _position(row: Row) -> Position | None:
    if row["ledger_records"] is None:
        return None
    last = None if row["ledger_last"] is None else _text(row, "ledger_last")
    return Position(_count(row, "ledger_records"), last)


# What stands in a file may be anything, where the disk has failed. Each of these raises `ValueError`.


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise ValueError(f"{column} is no text")
    return value


def _count(row: Row, column: str) -> int:
    value = row[column]
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{column} is no count")
    return value


def _digest(row: Row, column: str) -> str:
    value = _text(row, column)
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"{column} is no SHA-256")
    return value
