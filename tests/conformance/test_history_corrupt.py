"""A corrupt history of lists costs the past of lists, and nothing else: no start, no order, no answer."""

import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from dnsblock.errors import Refused

from .harness import ORDERS_ZONE, Subject, is_sinkholed
from .lists import DAY, enforced, is_logged, list_zone, names, versions
from .orders import block, unblock
from .tools import wait_for

BASE = names(400)
PAGE = 4096
Break = Callable[[Path], object]


def cut(share: float) -> Break:
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def overwrite(where: Callable[[int], range], what: bytes) -> Break:
    """Every page of a range of pages is replaced."""

    def breaks(path: Path) -> None:
        data = bytearray(path.read_bytes())
        for page in where(len(data) // PAGE):
            data[page * PAGE : (page + 1) * PAGE] = (what * PAGE)[:PAGE]
        path.write_bytes(data)

    return breaks


def flip(seed: int, count: int) -> Break:
    """Bytes anywhere behind the magic of the header are changed."""

    def breaks(path: Path) -> None:
        data, chance = bytearray(path.read_bytes()), random.Random(seed)
        for _ in range(count):
            data[chance.randrange(16, len(data))] ^= chance.randrange(1, 256)
        path.write_bytes(data)

    return breaks


def sql(*statements: str) -> Break:
    """Damage by another program."""

    def breaks(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            for statement in statements:
                database.execute(statement)

    return breaks


def side(name: str, content: bytes) -> Break:
    return lambda path: path.with_name(f"lists.sqlite-{name}").write_bytes(content)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


BROKEN: dict[str, Break] = {
    "empty": cut(0),
    "cut in its header": lambda path: os.truncate(path, 50),
    "cut after a page": lambda path: os.truncate(path, PAGE),
    "cut in half": cut(0.5),
    "another header": lambda path: path.write_bytes(b"<html>" * 4000),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a first page of zeros": overwrite(lambda _: range(1), b"\0"),
    "pages of zeros": overwrite(lambda pages: range(1, pages), b"\0"),
    "every other page of zeros": overwrite(lambda pages: range(2, pages, 2), b"\0"),
    "pages of rubbish": overwrite(lambda pages: range(1, pages), b"\xa5"),
    **{f"flipped bytes {seed}": flip(seed, 400) for seed in range(4)},
    "another version": sql("PRAGMA user_version = 99"),
    "another program": lambda path: [path.unlink(), sql("CREATE TABLE recipes (name TEXT)")(path)],
    "another table": sql("DROP TABLE events", "CREATE TABLE events (id TEXT)"),
    "times that are none": sql("UPDATE versions SET accepted_at = 'yesterday'"),
    "numbers that are none": sql("UPDATE versions SET added = x'00ff'"),
    "digests that are paths": sql("UPDATE versions SET source_sha256 = '../..', file_sha256 = '../../x'"),
    "a report that is none": sql("UPDATE versions SET report = '{'"),
    "text that is no UTF-8": sql("UPDATE versions SET note = CAST(x'ff' AS TEXT)"),
    "snapshots that are none": sql("UPDATE snapshots SET versions = '[]'"),
    "a folder": folder_instead,
    "a log of rubbish": side("wal", b"\xa5" * 50_000),
    "an index of the log of rubbish": side("shm", b"\xa5" * 32_768),
}


def start(subject: Subject) -> Path:
    """Stopped after two versions and an order; returns the path of its history."""
    subject.start(
        zones=[ORDERS_ZONE, list_zone(every_s=DAY)],
        orders=[block("B-1", ["ordered.example"])],
        lists={"list.txt": BASE},
    )
    subject.put_list("list.txt", [*BASE[1:], "new.example"])
    subject.reload()
    assert subject.stop() == 0
    return subject.folder / "state" / "lists.sqlite"


def aside(subject: Subject) -> list[Path]:
    return sorted((subject.folder / "state").glob("lists.sqlite.corrupt-*"))


@pytest.mark.parametrize("how", sorted(BROKEN))
def test_a_corrupt_history_does_not_prevent_startup(subject: Subject, how: str):
    """It starts, enforces orders and lists, and its commands end without a traceback."""
    BROKEN[how](start(subject))
    subject.launch()
    assert enforced(subject, "ordered.example", "new.example", BASE[0]) == [True, True, False]
    for ask in (lambda: subject.control.versions(None), lambda: subject.control.diff(1, 2, 10)):
        with suppress(Refused):  # never `DaemonUnreachable`, as a fault of the daemon would be
            ask()
    assert subject.control.history("new.example")["events"]
    subject.put_list("list.txt", [*BASE[1:], "newer.example"])
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    assert enforced(subject, "ordered.example", "newer.example", "new.example") == [False, True, False]
    assert versions(subject)[0]["added"] == 1
    assert "Traceback" not in subject.stderr()


@pytest.mark.parametrize("how", ["zeros", "another version", "empty", "times that are none"])
def test_a_corrupt_history_is_kept_and_reported_until_it_is_removed(subject: Subject, how: str):
    """By log, `status`, `check` and metric; the lists are first versions again."""
    path = start(subject)
    BROKEN[how](path)
    if how != "empty":
        said = subject.cli("check")
        assert said.code == 1
        assert any("lists.sqlite" in problem["file"] for problem in said.problems)
    subject.launch()
    (moved,) = (file for file in aside(subject) if not file.name.endswith(("-wal", "-shm")))
    assert is_logged(subject, str(moved), "guards have nothing to compare with", levels=["error"])
    assert [version["version"] for version in versions(subject)] == [1]
    assert subject.metrics().total("dnsblock_list_history_corrupt_files") == 1
    assert str(moved) in subject.cli("status", as_json=False).stdout
    assert subject.cli("check").code == 0
    for file in aside(subject):
        file.unlink()
    assert subject.metrics().total("dnsblock_list_history_corrupt_files") == 0
    assert "corrupt" not in subject.cli("status", as_json=False).stdout


@pytest.mark.parametrize("how", ["zeros", "pages of rubbish", "times that are none", "cut in half"])
def test_corruption_found_while_running_costs_only_the_past(subject: Subject, how: str):
    """The enforced version stays, with its number, and the next versions are compared with it."""
    path = start(subject)
    subject.launch()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    BROKEN[how](path)
    wait_for(lambda: [subject.cli("versions", "listed"), aside(subject)][1], "the corrupt file is set aside")
    assert [(one["version"], one["entries"]) for one in versions(subject)] == [(2, 400)]
    assert enforced(subject, "ordered.example", "new.example", BASE[0]) == [True, True, False]
    subject.put_list("list.txt", BASE[1:])
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    assert enforced(subject, "ordered.example", "new.example") == [False, False]
    assert [(one["version"], one["added"], one["removed"]) for one in versions(subject)] == [
        (3, 0, 1),
        (2, None, None),
    ]
    assert subject.cli("history", "new.example").json["events"][-1]["what"] == "gone"
    subject.restart()
    assert [one["version"] for one in versions(subject)] == [3, 2]
    assert not is_sinkholed(subject.query("new.example"))
    assert "Traceback" not in subject.stderr()
