"""The book: ledger, checkpoints and copy, and what happens if they contradict each other."""

import asyncio
import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from dnsblock import checkpoints
from dnsblock.checkpoints import Checkpoints
from dnsblock.config_ledger import LedgerOptions
from dnsblock.errors import LedgerUnwritable, Refused
from dnsblock.orders.book import Book
from dnsblock.orders.checkpoint import Checkpoint
from dnsblock.orders.facts import Stopped
from dnsblock.orders.records import AcceptedRestore, LostCheckpoint
from dnsblock.orders.transparency.folder import CheckpointFolder
from dnsblock.orders.transparency.merkle import Tree
from dnsblock.principal import DAEMON

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def opened(folder: Path, second: Path | None = None) -> Book:
    book = Book.open(folder, LedgerOptions())
    book.compare(None, second)
    return book


def grow(book: Book, records: int) -> None:
    """Appends records, one at a time, and writes the checkpoint as a publish does."""
    for number in range(records):
        book.append([Stopped(number)], DAEMON)
    book.copy_new()
    book.sync_copy()
    position, root = book.position_and_root
    book.checkpoint.keep(Checkpoint(position, root, at=NOW))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def book(state: Path) -> Iterator[Book]:
    book = opened(state)
    grow(book, 5)
    yield book
    book.close()


def lines(state: Path) -> list[bytes]:
    return (state / "ledger.jsonl").read_bytes().splitlines()


def test_the_tree_of_the_ledger_is_that_of_its_lines(book: Book, state: Path):
    """While it grows, and after it is read again."""
    assert book.ledger.tree.root() == Tree(lines(state)).root()
    assert book.position_and_root[1] == book.ledger.tree.root()
    book.close()
    again = opened(state)
    assert again.ledger.tree.root() == Tree(lines(state)).root()
    grow(again, 2)
    assert again.ledger.tree.root() == Tree(lines(state)).root()
    again.close()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 9)


def lengthen(path: Path) -> None:
    """A record that this process did not write, with a right chain."""
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines()[-1] + b"\n")


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(10)
        file.write(b"#")


def replace_by_older(path: Path) -> None:
    older = path.with_name("older")
    older.write_bytes(b"".join(line + b"\n" for line in path.read_bytes().splitlines()[:3]))
    older.rename(path)


@pytest.mark.parametrize("change", [truncate, lengthen, flip, replace_by_older, Path.unlink])
def test_nothing_is_appended_to_a_ledger_that_somebody_has_changed(
    book: Book, state: Path, change: Callable[[Path], None]
):
    """The next append finds it, without any other check before."""
    change(state / "ledger.jsonl")
    before = (state / "ledger.jsonl").read_bytes() if (state / "ledger.jsonl").exists() else b""
    with pytest.raises(Refused, match="was changed while the daemon ran"):
        book.append([Stopped(9)], DAEMON)
    assert (state / "ledger.jsonl").read_bytes() == before
    assert len(book.ledger.records) == 5, "the acknowledged records stay in force"
    with pytest.raises(Refused):
        book.append([Stopped(9)], DAEMON)


def test_a_change_after_the_check_is_noticed_when_the_record_is_written(book: Book, state: Path):
    """Between the two, there is only the encoding of the record."""
    truncate(state / "ledger.jsonl")
    with pytest.raises(LedgerUnwritable, match="somebody else has changed it"):
        book.ledger.append([Stopped(9)], DAEMON, NOW)


@pytest.mark.parametrize("change", [truncate, lengthen])
def test_a_change_of_the_size_during_a_write_is_noticed_at_the_next_look(
    book: Book, state: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
):
    """The write does not fill the gap with zeros, and does not overwrite what came."""
    real = os.write

    def write_later(descriptor: int, data: bytes) -> int:
        monkeypatch.undo()
        change(state / "ledger.jsonl")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write_later)
    book.append([Stopped(9)], DAEMON)
    assert b"\0" not in (state / "ledger.jsonl").read_bytes()
    book.watch()
    assert book.mismatch is not None
    assert len(book.ledger.records) == 6, "the acknowledged records stay in force"


def test_a_changed_byte_during_a_write_is_noticed_when_the_whole_file_is_compared(
    book: Book, state: Path, monkeypatch: pytest.MonkeyPatch
):
    """Size and time are those of the own write."""
    real = os.write

    def write_later(descriptor: int, data: bytes) -> int:
        monkeypatch.undo()
        flip(state / "ledger.jsonl")
        return real(descriptor, data)

    assert book.is_as_written()
    monkeypatch.setattr(os, "write", write_later)
    book.append([Stopped(9)], DAEMON)
    assert not book.is_touched
    assert not book.is_as_written()
    book.distrust()
    book.watch()
    assert book.mismatch is not None
    assert len(book.mismatch.missing) == 6


@pytest.mark.parametrize("waited", ["QUIET_SECONDS", "COMPARED_SECONDS"])
def test_the_daemon_compares_the_whole_file_when_it_is_quiet_and_at_the_latest_after_an_hour(
    book: Book, state: Path, monkeypatch: pytest.MonkeyPatch, waited: str
):
    """Records that keep coming must not put it off for ever."""

    async def record(write: Callable[[], None]) -> None:
        write()

    def distrust() -> None:
        book.distrust()
        book.watch()

    recorder = SimpleNamespace(
        signer=book.signer, ledger=book.ledger, is_as_written=book.is_as_written, distrust=distrust
    )
    config = SimpleNamespace(ledger=LedgerOptions())
    task = Checkpoints(SimpleNamespace(recorder=recorder, config=config, record=record))
    flip(state / "ledger.jsonl")
    asyncio.run(task._compare())
    assert book.mismatch is None, "not yet"
    monkeypatch.setattr(checkpoints, waited, 0.0)
    asyncio.run(task._compare())
    assert book.mismatch is not None


def test_what_changed_again_after_a_mismatch_is_shown_before_it_is_accepted(book: Book, state: Path):
    """The operator accepts what `status` has shown, and is never locked out."""
    path = state / "ledger.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(line + b"\n" for line in lines(state)[:3]))
    book.watch()
    assert book.mismatch is not None
    assert [record.n for record in book.mismatch.missing] == [4, 5]
    path.write_bytes(whole[:-9])
    with pytest.raises(Refused, match="was changed again"):
        book.accept_restore("a backup", DAEMON, lambda: None)
    assert [record.n for record in book.mismatch.missing] == [5]
    path.write_bytes(whole)
    book.watch()
    assert book.mismatch.missing == ()
    book.accept_restore("a backup", DAEMON, lambda: None)
    assert book.mismatch is None
    grow(book, 1)
    assert lines(state)[:5] == whole.splitlines()


def test_a_copy_of_the_same_content_is_used(book: Book, state: Path):
    """A restore of the same file; records go on into the file that has the name."""
    (state / "copy").write_bytes((state / "ledger.jsonl").read_bytes())
    (state / "copy").rename(state / "ledger.jsonl")
    grow(book, 2)
    assert len(lines(state)) == 7
    book.close()
    assert opened(state).mismatch is None


def test_what_the_operator_accepts_stays_accepted(book: Book, state: Path, tmp_path: Path):
    """Also signed checkpoints of lost records, in both folders, after further records and restarts."""
    second = tmp_path / "second"
    second.mkdir()
    note = book.signer.checkpoint()
    CheckpointFolder(second).keep(note, book.signer.instance.public)
    book.close()
    (state / "ledger.jsonl").write_bytes(b"".join(line + b"\n" for line in lines(state)[:3]))
    book = opened(state, second)
    assert book.mismatch is not None
    assert "records 4 to 5 are missing" in str(book.mismatch)
    assert [record.n for record in book.mismatch.missing] == [4, 5]
    book.accept_restore("the disk broke", DAEMON, lambda: None)
    assert book.mismatch is None
    fact = book.ledger.records[-1].fact
    assert isinstance(fact, AcceptedRestore)
    root = base64.b64encode(note.checkpoint.root).decode()
    assert fact.checkpoint == LostCheckpoint(extended=0, records=5, root=root)
    for _ in range(3):
        grow(book, 2)
        CheckpointFolder(second).keep(book.signer.checkpoint(), book.signer.instance.public)
        book.close()
        book = opened(state, second)
        assert book.mismatch is None
    book.close()
    # A later loss is another one: nobody has accepted it.
    (state / "ledger.jsonl").write_bytes(b"".join(line + b"\n" for line in lines(state)[:8]))
    assert opened(state, second).mismatch is not None


def test_a_forged_history_of_the_same_length_needs_acceptance_too(book: Book, state: Path):
    """The checkpoint and the copy can be forged to fit; the signed checkpoint cannot."""
    book.signer.checkpoint()
    book.close()
    for name in ("ledger.jsonl", "checkpoint.json", "acknowledged.jsonl"):
        (state / name).unlink()
    forged = opened(state.parent / "forged")
    for number in range(5):
        forged.append([Stopped(100 + number)], DAEMON)
    grow(forged, 0)
    forged.close()
    for name in ("ledger.jsonl", "checkpoint.json", "acknowledged.jsonl"):
        (state.parent / "forged" / name).rename(state / name)
    book = opened(state)
    assert book.mismatch is not None
    assert "does not extend 5 records (root: " in str(book.mismatch)
    book.accept_restore("as it is", DAEMON, lambda: None)
    book.close()
    assert opened(state).mismatch is None


def test_the_root_in_the_checkpoint_is_compared(book: Book, state: Path):
    """`last` covers all records by the chain; the root does it in another way."""
    book.close()
    content = book.checkpoint.content
    assert content is not None
    book.checkpoint.keep(Checkpoint(content.ledger, hashlib.sha256(b"other").digest(), at=NOW))
    with pytest.raises(Refused, match=r"named in checkpoint\.json"):
        opened(state)
