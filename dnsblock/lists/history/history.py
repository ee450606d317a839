"""The history of lists: all accepted versions, their changes, and rejections.

It serves the commands `history`, `why --at`, `diff`, `versions` and `rollback`. It determines the lists to
enforce after a restart, and whether content was seen before (the guard REPLAYED).

A new list is accepted in this order, so that the process may die at any point:

1. The compiled file is complete on the disk, named after its SHA-256.
2. `accept` records the version. A restart enforces `current`, so this is the commit point.
3. The engine serves the new snapshot, and `record_snapshot` records it.
4. `prune` runs, and only then are files removed. A crash in between leaves files that `files` does not list.

An open history serves one thread at a time. Queries that run while the daemon works open a read-only one.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection, Row
from typing import Self, TypeVar

from dnsblock.errors import Problem, Refused
from dnsblock.lists.history import changes
from dnsblock.lists.history.database import HistoryFile, corrupt, text_of, time_of
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
    RejectedContent,
    Version,
)
from dnsblock.lists.report import Report
from dnsblock.orders.records import Position

MAX_REJECTIONS = 10_000  # recorded rejections per zone
ALL_TIME = datetime.max.replace(tzinfo=UTC)


class History:
    """An open `lists.sqlite`. Names are canonical, times are aware, and zones are given by name."""

    def __init__(self, file: HistoryFile) -> None:
        self._file = file

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False, must_exist: bool = False) -> Self:
        """Opens the history in `folder`, and creates the folder if it is missing, except with `read_only`.

        With `must_exist`, the file must exist. Raises `HistoryCorrupt` if the file is corrupt or from another
        version of dnsblock, and `Refused` if it cannot be read. Every later query may raise the same.
        """
        return cls(HistoryFile.open(folder, read_only=read_only, must_exist=must_exist))

    @classmethod
    def empty(cls, folder: Path) -> Self:
        """An empty history, to be read instead of a corrupt one."""
        return cls(HistoryFile.empty(folder))

    def verify(self, err: Exception) -> None:
        """Raises `HistoryCorrupt` if the file is corrupt, which explains `err`."""
        if not self._file.is_sound():
            raise corrupt(self._file.path, f"{type(err).__name__}: {err}") from err

    def close(self) -> None:
        """Closes the file. Accepted versions are already on the disk."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------- What is enforced -------

    def accept(self, new: Sequence[NewVersion]) -> tuple[Version, ...]:
        """Durably makes these the current versions of their zones, all or none.

        Raises `HistoryUnwritable` on failure; the history is unchanged then.
        """
        with self._file.writing() as database:
            return tuple(_accept(self._file, database, version) for version in new)

    def current(self, zone: str) -> Current | None:
        """The version to enforce, which is the last accepted one."""
        query = _VERSIONS + "WHERE zone = ? ORDER BY number DESC LIMIT 1"
        return _only(self._file.made(_current, query, (self._zone_id(zone),)))

    def start_with(self, enforced: Iterable[Current]) -> None:
        """Records the enforced versions in a new history that replaces a corrupt one.

        They keep their numbers and times, but their differences are lost.
        """
        with self._file.writing() as database:
            for current in enforced:
                version = current.version
                zone = _ensure_zone(database, version.zone)
                _insert_version(
                    *(database, zone, version.compiled),
                    number=version.number,
                    accepted_at=text_of(version.accepted_at),
                    how=version.how,
                    note=version.note,
                )
                _set_fingerprint(database, zone, current.fingerprint)

    def set_fingerprint(self, zone: str, fingerprint: str) -> None:
        """Updates the fingerprint of the current version, after the same content was written again."""
        with self._file.writing() as database:
            _set_fingerprint(database, _ensure_zone(database, zone), fingerprint)

    # ------- Versions -------

    def versions(self, zone: str, limit: int = 100) -> tuple[Version, ...]:
        """The newest versions of a zone, newest first."""
        return tuple(
            _versions(self._file, "WHERE zone = ? ORDER BY number DESC LIMIT ?", self._zone_id(zone), limit)
        )

    def version(self, zone: str, number: int) -> Version | None:
        """One version; None if it does not exist."""
        return _only(_versions(self._file, "WHERE zone = ? AND number = ?", self._zone_id(zone), number))

    def beginnings(self, zone: str) -> tuple[Version, ...]:
        """The versions without a difference, oldest first: the first version, and later ones."""
        where = "WHERE zone = ? AND added IS NULL ORDER BY number"
        return tuple(_versions(self._file, where, self._zone_id(zone)))

    def was_accepted(self, zone: str, source_sha256: str) -> Version | None:
        """The newest version with this content; None if it is the current version's content."""
        where = "WHERE zone = ? AND source_sha256 = ? ORDER BY number DESC LIMIT 1"
        version = _only(_versions(self._file, where, self._zone_id(zone), source_sha256))
        current = self.current(zone)
        if current is None or current.version.compiled.source_sha256 == source_sha256:
            return None
        return version

    def prune(self, zone: str, generations: int) -> tuple[str, ...]:
        """Drops the compiled files of all but the newest versions. The current version always keeps its file.

        The reported lines of a pruned version are deleted, too: they are most of its size, and only useful
        while it may be served again. Returns the file_sha256 that no version of any zone uses: remove these.
        """
        with self._file.writing() as database:
            before = self.files()
            database.execute(
                "UPDATE versions SET keeps_file = 0, report = json_set(report, '$.reported', json('[]')) "
                "WHERE zone = :zone AND keeps_file = 1 "
                "AND number <= (SELECT max(number) FROM versions WHERE zone = :zone) - :generations",
                {"zone": self._zone_id(zone), "generations": max(generations, 1)},
            )
            return tuple(sorted(before - self.files()))

    def files(self) -> frozenset[str]:
        """The file_sha256 of every compiled file that a version uses."""
        query = "SELECT file_sha256 FROM versions WHERE keeps_file = 1"
        return frozenset(self._file.made(lambda row: _digest(row, "file_sha256"), query))

    # ------- What changed -------

    def difference(self, zone: str, a: int, b: int) -> Iterator[Change]:
        """The changes from version a to version b, sorted by name. Either may be the older one.

        Raises `Refused` if a version does not exist, or if one between them has no difference.
        """
        older, newer = sorted((a, b))
        (found,) = self._file.rows(
            "SELECT count(*) AS versions, sum(number > :older AND added IS NULL) AS not_compared "
            "FROM versions WHERE zone = :zone AND number BETWEEN :older AND :newer",
            {"zone": self._zone_id(zone), "older": older, "newer": newer},
        )
        if found["versions"] != newer - older + 1:
            reason = "one of these versions does not exist; `dnsblock versions ZONE` lists them"
            raise _unknown(self._file, f"{zone} {a} {b}", reason)
        if found["not_compared"]:
            reason = "the changes of a version between them are unknown"
            raise _unknown(self._file, f"{zone} {a} {b}", reason)
        return changes.between(self._file, self._zone_id(zone), older, newer, backwards=a > b)

    def events_of(self, zone: str, name: str) -> tuple[NameEvent, ...]:
        """The changes of a name, oldest first. Its listing in the first version is not among them."""
        return changes.of_name(self._file, self._zone_id(zone), name)

    def scope_at(self, zone: str, name: str, when: datetime, scope_now: str | None) -> Past:
        """The scope of a name at a time. `scope_now` is its scope in the current compiled list.

        The name did not change between that time and its next event, so `before` of that event is the scope.
        """
        # If the clock was set back, the higher number counts: that version came later.
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
        later = _only(changes.of_name(self._file, self._zone_id(zone), name, later_than=version))
        if hidden["number"] is not None and (later is None or later.version > hidden["number"]):
            return Past(version, None, is_known=False)
        return Past(version, scope_now if later is None else later.before, is_known=True)

    # ------- Rejections and overrides -------

    def record_rejection(self, rejected: RejectedContent) -> None:
        """Records a rejection. A repetition, of the same content by the same guard, increments its count."""
        with self._file.writing() as database:
            values = asdict(rejected) | {
                "zone": _ensure_zone(database, rejected.zone),
                "at": text_of(rejected.at),
            }
            database.execute(
                "INSERT INTO events (zone, kind, source_sha256, code, message, numbers, first_at, last_at) "
                "VALUES (:zone, 'rejected', :source_sha256, :code, :message, :numbers, :at, :at) "
                "ON CONFLICT (zone, source_sha256, code) WHERE kind = 'rejected' DO UPDATE SET "
                "times = times + 1, message = :message, numbers = :numbers, last_at = :at",
                values,
            )
            # A feed that is broken for years brings new content each time.
            database.execute(
                "DELETE FROM events WHERE zone = :zone AND kind = 'rejected' AND last_at < ("
                "SELECT last_at FROM events WHERE zone = :zone AND kind = 'rejected' "
                "ORDER BY last_at DESC LIMIT 1 OFFSET :others)",
                {"zone": values["zone"], "others": MAX_REJECTIONS - 1},
            )

    def approve(self, approval: Approval) -> None:
        """Records an operator's override. It is valid (`approved`) until other content is accepted."""
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
        """The codes of the guards that an operator overrides for this content with these options."""
        found = self._file.made(
            lambda row: [str(code) for code in json.loads(row["codes"])],
            "SELECT codes FROM approvals WHERE zone = ? AND source_sha256 = ? AND options = ?",
            (self._zone_id(zone), source_sha256, options),
        )
        return frozenset(code for codes in found for code in codes)

    def events(self, zone: str, limit: int = 100) -> tuple[Event, ...]:
        """The latest events of a zone, newest first."""
        query = "SELECT * FROM events WHERE zone = ? ORDER BY last_at DESC, id DESC LIMIT ?"
        return tuple(self._file.made(_event, query, (self._zone_id(zone), limit)))

    # ------- Snapshots -------

    def record_snapshot(self, snapshot: Published, *, keep: int) -> None:
        """Records a served snapshot, and deletes all but the newest `keep`.

        The same snapshot again, as after a restart, only updates its versions: a list with other content but
        the same rules has a newer version.
        """
        with self._file.writing() as database:
            # The same serial with other content: the last serial was lost, and numbering restarted.
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

    def snapshots(self, until: datetime = ALL_TIME, limit: int = -1) -> tuple[Published, ...]:
        """The recorded snapshots up to a time, newest first."""
        query = "SELECT * FROM snapshots WHERE published_at <= ? ORDER BY position DESC LIMIT ?"
        return tuple(self._file.made(_published, query, (text_of(until), limit)))

    def snapshot(self, serial: int) -> Published | None:
        """The snapshot with a serial; None if it is not recorded."""
        return _only(self._file.made(_published, "SELECT * FROM snapshots WHERE serial = ?", (serial,)))

    def serial_at(self, when: datetime) -> int:
        """The serial that was served at a time; 0 if it is not recorded."""
        query = "SELECT serial FROM snapshots WHERE published_at <= ? ORDER BY position DESC LIMIT 1"
        return _only(self._file.made(lambda row: _count(row, "serial"), query, (text_of(when),))) or 0

    def last_serial(self) -> int:
        """The highest recorded serial; 0 if there is none."""
        query = "SELECT serial FROM snapshots ORDER BY serial DESC LIMIT 1"
        return _only(self._file.made(lambda row: _count(row, "serial"), query)) or 0

    def last_position(self) -> Position | None:
        """The end of the ledger when a snapshot was last served; None if unknown."""
        query = (
            "SELECT ledger_records, ledger_last FROM snapshots WHERE ledger_records IS NOT NULL "
            "ORDER BY position DESC LIMIT 1"
        )
        return _only(self._file.made(_position, query))

    def forget_positions(self) -> None:
        """Deletes the recorded positions of the ledger: the operator has accepted another ledger."""
        with self._file.writing() as database:
            database.execute("UPDATE snapshots SET ledger_records = NULL, ledger_last = NULL")

    # ------- Implementation -------

    def _zone_id(self, zone: str) -> int:
        rows = self._file.rows("SELECT id FROM zones WHERE name = ?", (zone,))
        return int(rows[0]["id"]) if rows else 0  # no zone has the id 0


# ------- Writing rows -------


def _insert_version(database: Connection, zone: int, compiled: Compiled, **values: object) -> None:
    row = {
        "zone": zone,
        "source_sha256": compiled.source_sha256,
        "file_sha256": compiled.file_sha256,
        "names_digest": compiled.names_digest,
        "options": compiled.options,
        "report": json.dumps(compiled.report.as_json()),
        **values,
    }
    columns, places = ", ".join(row), ", ".join(f":{column}" for column in row)
    database.execute(f"INSERT INTO versions ({columns}) VALUES ({places})", row)  # noqa: S608  # our own names


def _accept(file: HistoryFile, database: Connection, new: NewVersion) -> Version:
    zone = _ensure_zone(database, new.zone)
    (last,) = database.execute("SELECT max(number) FROM versions WHERE zone = ?", (zone,)).fetchone()
    number = 1 if last is None else last + 1
    added = removed = None
    if new.difference is not None:
        if last is None:
            raise ValueError(f"{new.zone}: the first version of a list has no difference")
        added, removed = changes.insert(database, zone, number, new.difference)
    _insert_version(
        *(database, zone, new.compiled),
        number=number,
        added=added,
        removed=removed,
        accepted_at=text_of(new.accepted_at),
        how=new.how,
        note=new.note,
    )
    _set_fingerprint(database, zone, new.fingerprint)
    if new.withdraws is not None:
        _withdraw(file, database, zone, new.withdraws, new)
    # An override is for the content as seen then, not for an old copy of it in half a year.
    database.execute(
        "DELETE FROM approvals WHERE zone = ? AND source_sha256 <> ?", (zone, new.compiled.source_sha256)
    )
    (accepted,) = _versions(file, "WHERE zone = ? AND number = ?", zone, number)
    return accepted


def _withdraw(file: HistoryFile, database: Connection, zone: int, number: int, rollback: NewVersion) -> None:
    (withdrawn,) = _versions(file, "WHERE zone = ? AND number = ?", zone, number)
    database.execute("UPDATE versions SET is_withdrawn = 1 WHERE zone = ? AND number = ?", (zone, number))
    _note(
        database,
        zone,
        kind="rolled back",
        source_sha256=withdrawn.compiled.source_sha256,
        message=f"version {number} is withdrawn: {rollback.note}",
        at=rollback.accepted_at,
    )


def _versions(file: HistoryFile, where: str, *values: object) -> Iterator[Version]:
    return file.made(_version, _VERSIONS + where, values)


def _ensure_zone(database: Connection, zone: str) -> int:
    database.execute("INSERT INTO zones VALUES (NULL, ?, '') ON CONFLICT DO NOTHING", (zone,))
    (number,) = database.execute("SELECT id FROM zones WHERE name = ?", (zone,)).fetchone()
    return int(number)


def _set_fingerprint(database: Connection, zone: int, fingerprint: str) -> None:
    database.execute("UPDATE zones SET fingerprint = ? WHERE id = ?", (fingerprint, zone))


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
    return Current(_version(row), _text(row, "fingerprint"))


def _version(row: Row) -> Version:
    compiled = Compiled(
        source_sha256=_digest(row, "source_sha256"),  # paths are built from these two
        file_sha256=_digest(row, "file_sha256"),
        names_digest=_text(row, "names_digest"),
        options=_text(row, "options"),
        report=Report.from_text(_text(row, "report")),
    )
    return Version(
        zone=_text(row, "zone_name"),
        number=_count(row, "number"),
        compiled=compiled,
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


# A failing disk may return any value. Each of these functions raises `ValueError` for an invalid one.


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise ValueError(f"{column} is not text")
    return value


def _count(row: Row, column: str) -> int:
    value = row[column]
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{column} is not a count")
    return value


def _digest(row: Row, column: str) -> str:
    value = _text(row, column)
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"{column} is not a SHA-256")
    return value


def _unknown(file: HistoryFile, versions: str, reason: str) -> Refused:
    return Refused([Problem(str(file.path), None, versions, reason)])
