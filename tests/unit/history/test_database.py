"""The file of the history: sorting, schema, a writer that dies, a full disk."""

import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dnsblock.errors import HistoryUnwritable, Refused
from dnsblock.lists.history.database import SCHEMA_VERSION
from dnsblock.lists.history.history import History

from .helpers import BIG, THREE, ZONE, new, numbers, reasons

# ------- The file -------


def test_nobody_else_may_read_the_history(folder: Path):
    """A list may be secret; the write-ahead log holds the same."""
    with History.open(folder) as history:
        history.accept([new("four", b"", hour=3)])
        modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    assert modes == {"lists.sqlite": 0o600, "lists.sqlite-wal": 0o600, "lists.sqlite-shm": 0o600}


def test_a_missing_history_reads_as_empty(tmp_path: Path):
    """`check` looks before the daemon was ever started, and makes nothing."""
    with History.open(tmp_path, read_only=True) as history:
        assert history.current(ZONE) is None
        assert history.snapshots() == ()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "lists.sqlite").touch()  # the daemon died at its very first step
    with History.open(tmp_path, read_only=True) as history:
        assert history.current(ZONE) is None
    with History.open(tmp_path) as history:
        history.accept(THREE)


def test_a_reader_writes_nothing(folder: Path, tmp_path: Path):
    """The daemon is the only writer."""
    for readable in (folder, tmp_path):
        with History.open(readable, read_only=True) as history, pytest.raises(HistoryUnwritable):
            history.accept([new("x", None, zone="other")])


def test_a_reader_sees_committed_data_and_blocks_no_writer(folder: Path):
    """`check` and questions run beside the daemon, here in another process."""
    reads = """
        with History.open(folder, read_only=True) as history:
            print(history.current("national").version.number, flush=True)
            rest = history.difference("national", 1, 3)
            print(next(rest).name, flush=True)
            input()  # in the middle of an answer
            print([change.name for change in rest], history.current("national").version.number)
    """
    with History.open(folder) as history:
        reader = started(folder, reads)
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "3\n"
        assert reader.stdout.readline() == "a.example\n"
        history.accept([new("four", b"- exact c.example\n", hour=3)])
        reader.stdin.write("\n")
        output, errors = reader.communicate(timeout=60)
    assert (output, errors) == ("['b.example', 'c.example'] 4\n", "")


def test_opening_a_writer_does_not_release_the_locks_of_a_reader(folder: Path):
    """fcntl(2): closing any descriptor of a file takes away all locks that the process has on it."""
    try_to_lock = """
        import sqlite3
        database = sqlite3.connect(folder / "lists.sqlite", timeout=0)
        print(database.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone())
        try:
            database.execute("PRAGMA journal_mode = DELETE")  # needs the file to itself
        except sqlite3.OperationalError as err:
            print(err)
    """
    with History.open(folder, read_only=True) as reader:
        assert numbers(reader) == [3, 2, 1]
        with History.open(folder) as writer:
            assert numbers(writer) == [3, 2, 1]
            output, errors = started(folder, try_to_lock).communicate(timeout=60)
    assert (output, errors) == ("('exclusive',)\ndatabase is locked\n", "")


def test_a_file_that_is_no_database_is_refused_with_what_to_do(tmp_path: Path):
    """At 3 a.m.: which file, what it is, and what can be done."""
    (tmp_path / "lists.sqlite").write_bytes(b"<html>" * 1000)
    for read_only in (False, True):
        with pytest.raises(Refused) as refused:
            History.open(tmp_path, read_only=read_only)
        assert str(tmp_path / "lists.sqlite") in reasons(refused)
        assert "restore the file from a backup" in reasons(refused)


def test_a_corrupt_database_is_refused(folder: Path):
    """Rather no answer than one out of rubbish."""
    file = folder / "lists.sqlite"
    data = bytearray(file.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)  # all but the first page, which holds the schema
    file.write_bytes(data)
    with pytest.raises(Refused) as refused, History.open(folder) as history:
        history.current(ZONE)
    assert f"{file}: " in reasons(refused)
    assert "corrupt" in reasons(refused)


@pytest.mark.parametrize("schema", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_schema_of_another_dnsblock_is_refused(folder: Path, schema: int, read_only: bool):
    """Nothing is written into what is not understood."""
    database = sqlite3.connect(folder / "lists.sqlite")
    database.execute(f"PRAGMA user_version = {schema}")
    database.close()
    with pytest.raises(Refused) as refused:
        History.open(folder, read_only=read_only)
    assert f"'schema {schema}': not schema {SCHEMA_VERSION} of the history" in reasons(refused)


def test_a_database_of_something_else_is_refused(tmp_path: Path):
    """Its tables are not ours to add to."""
    database = sqlite3.connect(tmp_path / "lists.sqlite")
    database.execute("CREATE TABLE recipes (name TEXT)")
    database.close()
    with pytest.raises(Refused) as refused:
        History.open(tmp_path)
    assert "'schema 0'" in reasons(refused)


def test_a_state_that_is_no_folder_is_refused_with_what_to_do(tmp_path: Path):
    """The error is the operator's, not Python's."""
    (tmp_path / "state").touch()
    with pytest.raises(Refused) as refused:
        History.open(tmp_path / "state")
    assert "`state`" in reasons(refused)


# ------- Death and a full disk -------

# The first lines of each child process; `folder` is the state folder.
PRELUDE = """
import os, resource, sys
from datetime import UTC, datetime
from pathlib import Path
from dnsblock.errors import HistoryUnwritable
from dnsblock.lists.history.history import History
from tests.unit.history.helpers import BIG, new
folder = Path(sys.argv[1])
"""


def started(folder: Path, program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program), str(folder)],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_is_as_it_was(folder: Path) -> None:
    """The three versions, nothing of a fourth, and it can be accepted now."""
    with History.open(folder) as history:
        assert numbers(history) == [3, 2, 1]
        assert history.events_of(ZONE, "name-1.example") == ()
        assert history.events(ZONE) == ()
        assert not history.versions(ZONE)[0].is_withdrawn
        (fourth,) = history.accept([new("four", BIG, hour=3)])
        assert (fourth.number, fourth.added) == (4, 50_000)
        assert len(history.events_of(ZONE, "name-1.example")) == 1


@pytest.mark.parametrize(
    "last_words", ["INSERT INTO changes", "INSERT INTO versions", "UPDATE versions", "COMMIT"]
)
def test_a_writer_that_dies_in_the_middle_leaves_the_last_state(folder: Path, last_words: str):
    """The decision falls with the commit, and not before."""
    child = started(
        folder,
        f"""
        history = History.open(folder)
        history._file.connection.execute("PRAGMA cache_size = 10")  # much is on the disk before the end
        history._file.connection.set_trace_callback(
            lambda statement: os._exit(99) if statement.startswith("{last_words}") else None
        )
        history.accept([new("four", BIG, hour=3, withdraws=3)])
        """,
    )
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (99, "")
    assert_is_as_it_was(folder)


def test_a_full_disk_leaves_the_last_state_and_is_reported(folder: Path):
    """Here no file may grow beyond a limit, so a write fails in the middle of the transaction."""
    child = started(
        folder,
        """
        history = History.open(folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        try:
            history.accept([new("four", BIG, hour=3, withdraws=3)])
        except HistoryUnwritable as err:
            print(err)
        print(history.current("national").version.number, history.events("national"))
        print(history.accept([new("small", b"", hour=3)])[0].number, flush=True)
        os._exit(0)
        """,
    )
    output, errors = child.communicate(timeout=60)
    assert errors == ""
    message, state, after = output.splitlines()
    assert message.startswith(f"{folder / 'lists.sqlite'}: ")
    assert message.endswith(": nothing was written")
    assert (state, after) == ("3 ()", "4")


def test_the_full_disk_error_of_sqlite_is_recognised(history: History, folder: Path):
    """SQLITE_FULL is what ENOSPC becomes; the history goes on when there is room again."""
    connection = history._file.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 10}")
    with pytest.raises(HistoryUnwritable, match="database or disk is full: nothing was written"):
        history.accept([new("four", BIG, hour=3, withdraws=3)])
    assert numbers(history) == [3, 2, 1]
    history.close()
    assert_is_as_it_was(folder)
