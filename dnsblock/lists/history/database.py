"""The database of the history of lists: its file, schema, transactions and errors.

A corrupt file raises `HistoryCorrupt`. It must not affect anything else: the writer sets the file aside
(`set_aside`) and starts a new one (store.py).

Only the history uses it. The daemon is the only writer, since it holds the lock of the state folder
(orders/ledger.py). Any number of readers may run, and nobody waits for another (write-ahead log).
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeVar

from dnsblock.clock import utc_now
from dnsblock.errors import HistoryUnwritable, Problem, Refused

FILE = "lists.sqlite"
SCHEMA_VERSION = 7
Values = Sequence[object] | Mapping[str, object]  # for the `?` or the `:names` of a query
T = TypeVar("T")
BUSY_SECONDS = 0.5

# Times are text, RFC 3339 with microseconds in UTC: sortable and readable.
_SCHEMA = """
CREATE TABLE zones (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    fingerprint TEXT NOT NULL
);

-- The version with the highest number is the current one.
CREATE TABLE versions (
    zone INTEGER NOT NULL,
    number INTEGER NOT NULL,
    source_sha256 TEXT NOT NULL,
    file_sha256 TEXT NOT NULL,
    names_digest TEXT NOT NULL,
    options TEXT NOT NULL,
    added INTEGER,    -- NULL, as `removed`: unknown
    removed INTEGER,
    accepted_at TEXT NOT NULL,
    how TEXT NOT NULL,
    note TEXT NOT NULL,
    is_withdrawn INTEGER NOT NULL DEFAULT 0,
    keeps_file INTEGER NOT NULL DEFAULT 1,
    report TEXT NOT NULL,  -- JSON; last, since it is long
    PRIMARY KEY (zone, number)
);
CREATE INDEX versions_by_content ON versions (zone, source_sha256, number);
CREATE INDEX versions_by_time ON versions (zone, accepted_at, number);
CREATE INDEX versions_not_compared ON versions (zone, number) WHERE added IS NULL;
CREATE INDEX stored_files ON versions (file_sha256) WHERE keeps_file = 1;

CREATE VIEW known_versions AS
SELECT
    versions.*,
    zones.name AS zone_name,
    zones.fingerprint,
    -- Two versions, of two zones even, may have the same file: it is there as long as one of them keeps it.
    EXISTS (
        SELECT 1 FROM versions AS keeper
        WHERE keeper.file_sha256 = versions.file_sha256 AND keeper.keeps_file = 1
    ) AS has_file
FROM versions JOIN zones ON zones.id = versions.zone;

CREATE TABLE scopes (id INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE);
CREATE TABLE changes (
    zone INTEGER NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    before INTEGER,  -- of `scopes`; NULL: not listed
    after INTEGER,
    PRIMARY KEY (zone, number, name)
) WITHOUT ROWID;

CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    zone INTEGER NOT NULL,
    kind TEXT NOT NULL,
    source_sha256 TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    numbers TEXT NOT NULL,
    first_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    times INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX events_by_time ON events (zone, last_at);
CREATE UNIQUE INDEX rejections ON events (zone, source_sha256, code) WHERE kind = 'rejected';

CREATE TABLE approvals (
    zone INTEGER NOT NULL,
    source_sha256 TEXT NOT NULL,
    options TEXT NOT NULL,
    codes TEXT NOT NULL,  -- JSON
    who TEXT NOT NULL,
    reason TEXT NOT NULL,
    approved_at TEXT NOT NULL,
    PRIMARY KEY (zone, source_sha256, options)
) WITHOUT ROWID;

-- In the order in which they were published: if the last serial was lost, serials restart.
CREATE TABLE snapshots (
    position INTEGER PRIMARY KEY,
    serial INTEGER NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    published_at TEXT NOT NULL,
    reason TEXT NOT NULL,
    versions TEXT NOT NULL,  -- JSON: zone -> number
    ledger_records INTEGER,  -- how far the ledger went
    ledger_last TEXT,
    derived_at TEXT NOT NULL  -- the time for which the state of the orders was derived from these records
);
"""


class HistoryCorrupt(Refused):
    """`lists.sqlite` is corrupt, or another program or version wrote it."""


class HistoryFile:
    """An open `lists.sqlite`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        connection.row_factory = sqlite3.Row

    @classmethod
    def open(cls, folder: Path, *, read_only: bool, must_exist: bool = False) -> Self:
        """Opens the file in `folder`. Raises `HistoryCorrupt` if it is unusable, `Refused` for other errors.

        A writer creates a missing folder and file. For a reader, a missing file is an empty history, unless
        `must_exist`: the file existed, and somebody has moved it away.
        """
        path = folder / FILE
        if must_exist and not path.exists():
            reason = (
                "the file is gone: restore it and restart dnsblock, which still writes to the removed file"
            )
            raise Refused([Problem(str(path), None, "", reason)])
        try:
            return cls(path, _open_to_read(path) if read_only else _open_to_write(path))
        except OSError as err:
            reason = f"{err.strerror}: {_RIGHTS}"
            raise Refused([Problem(str(err.filename or path), None, "", reason)]) from err
        except sqlite3.DatabaseError as err:
            if path.is_dir() or getattr(err, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
                raise corrupt(path, "a folder" if path.is_dir() else str(err)) from err
            raise _refused(path, err) from err
        except UnicodeError as err:  # in a column name or an error text
            raise corrupt(path, str(err)) from err

    @classmethod
    def empty(cls, folder: Path) -> Self:
        """An empty history in memory, read-only."""
        return cls(folder / FILE, _open_empty())

    def rows(self, sql: str, values: Values = ()) -> list[sqlite3.Row]:
        """All rows of a query. Raises `Refused` if the file cannot be read."""
        return list(self.each(sql, values))

    def made(self, make: Callable[[sqlite3.Row], T], sql: str, values: Values = ()) -> Iterator[T]:
        """Converts each row with `make`. Raises `HistoryCorrupt` for an invalid row."""
        for row in self.each(sql, values):
            try:
                one = make(row)
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as err:
                raise corrupt(self.path, f"a row of {', '.join(row.keys()[:3])}…: {err}") from err
            yield one

    def each(self, sql: str, values: Values = ()) -> Iterator[sqlite3.Row]:
        """The rows of a query, one at a time, for results that are too large for memory."""
        try:
            yield from self.connection.execute(sql, values)
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # a bug of ours, not an error of the file
        except sqlite3.DatabaseError as err:
            raise _refused(self.path, err) from err
        except UnicodeError as err:
            raise corrupt(self.path, str(err)) from err

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: at the end of the block, all of it is on the disk; on any error, none of it.

        Raises `HistoryUnwritable` if the file cannot be written, `Refused` if it is corrupt.
        """
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException as err:
            if self.connection.in_transaction:  # SQLite ends it automatically after some errors
                with suppress(sqlite3.OperationalError):  # a failing disk: the first error says more
                    self.connection.execute("ROLLBACK")
            if isinstance(err, sqlite3.DatabaseError) and _is_corruption(err):
                raise _refused(self.path, err) from err
            if isinstance(err, sqlite3.OperationalError):
                raise HistoryUnwritable(f"{self.path}: {err}: nothing was written") from err
            raise

    def is_sound(self) -> bool:
        """Whether SQLite's integrity check passes; it reads the whole file."""
        try:
            (row,) = self.connection.execute("PRAGMA integrity_check(1)").fetchall()
        except (sqlite3.Error, ValueError):
            return False
        return bool(row[0] == "ok")

    def close(self) -> None:
        """Closes the file. The last connection to close also merges the write-ahead log into it."""
        self.connection.close()


# ------- Opening -------


def _open_to_write(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives its side files the permissions of this one, and syncs the folder when it creates them.
    # Never open an existing file here: closing it would release the locks of our other connections.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = _connect(f"{path.absolute().as_uri()}?mode=rw")
    try:
        if not _is_begun(path, connection):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        # Per connection, unlike the journal mode. A log that grew behind a slow reader is truncated later.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
    except BaseException:
        connection.close()
        raise
    return connection


def _open_to_read(path: Path) -> sqlite3.Connection:
    if path.exists():
        connection = _connect(f"{path.absolute().as_uri()}?mode=ro")
        try:
            if _is_begun(path, connection):
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
    return _open_empty()


def _open_empty() -> sqlite3.Connection:
    connection = _connect(":memory:")
    connection.executescript(_SCHEMA)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connect(database: str) -> sqlite3.Connection:
    # The daemon uses any thread of its pool; see history.py: one at a time.
    return sqlite3.connect(
        database, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )


def _is_begun(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether the schema exists. Raises `HistoryCorrupt` for a different one."""
    with closing(connection.execute("PRAGMA user_version")) as found:
        version = int(found.fetchone()[0])
    schema = _schema_of(connection)
    if version == 0 and not schema:
        return False
    with closing(_open_empty()) as expected:
        if version == SCHEMA_VERSION and schema == _schema_of(expected):
            return True
    reason = f"not schema {SCHEMA_VERSION} of the history of lists, the only one supported: {_ADVICE}"
    raise HistoryCorrupt([Problem(str(path), None, f"schema {version}", reason)])


def _schema_of(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%'"
    with closing(connection.execute(query)) as found:
        return sorted((tuple(row) for row in found), key=repr)


# ------- Setting a file aside -------

ASIDE = f"{FILE}.corrupt-"


def set_aside(folder: Path) -> Path:
    """Renames `lists.sqlite` and its side files, so that a new one can start. Raises `OSError`."""
    stamp = utc_now().strftime("%Y%m%dT%H%M%SZ")
    path, number = folder / f"{ASIDE}{stamp}", 1
    while path.exists():
        number += 1
        path = folder / f"{ASIDE}{stamp}-{number}"
    # With these names, SQLite still finds the side files, so that the data can be recovered.
    for side in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            (folder / f"{FILE}{side}").rename(f"{path}{side}")
    return path


def files_aside(folder: Path) -> list[Path]:
    """The files that were set aside and still exist, oldest first."""
    try:
        found = [path for path in folder.iterdir() if path.name.startswith(ASIDE)]
    except OSError:
        return []
    return sorted(path for path in found if not path.name.endswith(("-wal", "-shm")))


# ------- Times -------


def text_of(at: datetime) -> str:
    """Formats a time for the file."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def time_of(text: str) -> datetime:
    """Parses a time of the file: aware, UTC."""
    return datetime.fromisoformat(text)


# ------- Errors -------

_RIGHTS = "run as the user that owns the folder `state`, or grant access to it"
_ADVICE = (
    "dnsblock sets it aside and starts a new history, so the lists are accepted as for the first time. "
    "To keep the history, stop dnsblock and restore the file from a backup"
)
# Errors identified by the extended code: a page that is too short, or cannot be read.
_UNREADABLE = (sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_READ)
_CORRUPTION = (
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT),
    *(sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH),
)


def corrupt(path: Path, found: str) -> HistoryCorrupt:
    """The error for a file with invalid content."""
    return HistoryCorrupt([Problem(str(path), None, found, f"corrupt: {_ADVICE}")])


def _refused(path: Path, err: sqlite3.DatabaseError) -> Refused:
    if _is_corruption(err):
        return corrupt(path, str(err))
    return Refused([Problem(str(path), None, "", f"{err}: {_RIGHTS}; check the disk")])


def _is_corruption(err: sqlite3.DatabaseError) -> bool:
    code = getattr(err, "sqlite_errorcode", None)
    if code is None:
        # Python, not SQLite, found an unreadable value; its other errors are bugs of ours.
        return not isinstance(err, sqlite3.ProgrammingError | sqlite3.IntegrityError)
    # The low byte is the primary result code (sqlite.org/rescode.html).
    if code & 0xFF == sqlite3.SQLITE_ERROR:
        return str(err).startswith(("no such", "malformed"))
    return code in _UNREADABLE or code & 0xFF in _CORRUPTION
