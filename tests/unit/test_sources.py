"""Lists as they are read: all of a changed one, nothing of an unchanged one."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dnsblock.config import Config
from dnsblock.config_file import load
from dnsblock.errors import Problem, Refused
from dnsblock.lists import files, records
from dnsblock.lists.history.facts import Published
from dnsblock.lists.lists import Lists
from dnsblock.lists.reader import ListVersion, Reader, Rejection
from dnsblock.lists.store import Store
from dnsblock.policy.zones import compile_lists

NAMES = 10_000
NOW = datetime(2026, 8, 1, tzinfo=UTC)
CONFIG = """
upstream: {servers: [192.0.2.1]}
zones: [{name: listed, list: names.txt, answer: nxdomain}]
"""


def bytes_read() -> int:
    """By this process so far, from files and all else."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "dnsblock.yaml").write_text(CONFIG)
    (tmp_path / "names.txt").write_text("".join(f"name{number:05}.example\n" for number in range(NAMES)))
    return load(tmp_path / "dnsblock.yaml")


def first_reading(config: Config) -> Lists:
    """The lists as a start has them: read, and on record."""
    lists = Lists(Store(config.state)).read(config, NOW)
    records.accept(lists)
    return lists


def covers(lists: Lists, name: str) -> bool:
    return lists.listed["listed"].names.scope(name) is not None


def test_an_unchanged_list_is_not_read_again(config: Config, monkeypatch: pytest.MonkeyPatch):
    """A publish for an order does not take as long as ten million names do."""
    monkeypatch.setattr(files, "TICKS_NS", 0)
    first = first_reading(config)
    before = bytes_read()
    second = first.read(config, NOW)
    assert bytes_read() - before < NAMES
    zones = compile_lists(config, first, {})
    assert compile_lists(config, second, zones)["listed"] is zones["listed"]


def test_a_written_list_is_read_whatever_its_time_and_size(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`cp -p` and rsync give a file an older time; the time at which it was changed is the kernel's."""
    monkeypatch.setattr(files, "TICKS_NS", 0)
    lists = first_reading(config)
    file = tmp_path / "names.txt"
    times = file.stat()
    file.write_text(file.read_text().replace("name00000", "else00000"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    lists = lists.read(config, NOW)
    assert (covers(lists, "name00000.example"), covers(lists, "else00000.example")) == (False, True)


def test_a_recently_written_list_is_read_again(config: Config, monkeypatch: pytest.MonkeyPatch):
    """Within a tick of the kernel's clock two versions look the same."""
    monkeypatch.setattr(files, "TICKS_NS", 1 << 62)
    lists = first_reading(config)
    before = bytes_read()
    again = lists.read(config, NOW)
    assert bytes_read() - before > NAMES
    zones = compile_lists(config, lists, {})
    assert compile_lists(config, again, zones)["listed"] is zones["listed"]


def test_a_list_with_a_future_time_is_read_until_it_is_stable(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The server of a network disk has another clock: half of a list is none, there either."""
    lists, watch, file = first_reading(config), files.Watch(), tmp_path / "names.txt"
    monkeypatch.setattr(files, "SETTLED_NS", 1 << 60)
    zone = config.zones[0]
    os.utime(file, (2e9, 2e9))
    assert not lists.is_changed(zone, watch)
    os.utime(file, (2e9 + 1, 2e9 + 1))
    monkeypatch.setattr(files, "SETTLED_NS", 1)
    assert not lists.is_changed(zone, watch), "it looks otherwise than a moment ago"
    assert lists.is_changed(zone, watch)


def test_another_answer_is_compiled_from_the_same_file(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The names are mapped from the same file; only the answer and the digest change."""
    monkeypatch.setattr(files, "TICKS_NS", 0)
    lists = first_reading(config)
    (tmp_path / "dnsblock.yaml").write_text(CONFIG.replace("nxdomain", "nodata"))
    changed = load(tmp_path / "dnsblock.yaml")
    zones = compile_lists(config, lists, {})
    again = compile_lists(changed, lists.read(changed, NOW), zones)
    assert again["listed"].names is zones["listed"].names
    assert again["listed"].compiled.digest != zones["listed"].compiled.digest


FAULTS = [
    RuntimeError("nobody has thought of this"),
    Refused([Problem("lists.sqlite", None, "", "is broken")]),
]


@pytest.mark.parametrize("fault", FAULTS, ids=["an exception", "a history"])
def test_a_fault_in_one_list_affects_no_other(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
):
    """Its last version stays, also over a restart; orders and other lists are read on."""
    zones = "{name: listed, list: names.txt, answer: nxdomain}, {name: other, list: o.txt, answer: nxdomain}"
    (tmp_path / "dnsblock.yaml").write_text(CONFIG[: CONFIG.index("zones")] + f"zones: [{zones}]")
    (tmp_path / "o.txt").write_text("other.example\n")
    config = load(tmp_path / "dnsblock.yaml")
    lists = first_reading(config)
    (tmp_path / "o.txt").write_text("another.example\n")
    reads = Reader.read

    def fails(self: Reader, held: ListVersion | None) -> ListVersion | Rejection:
        if self.zone.name == "listed":
            raise fault
        return reads(self, held)

    monkeypatch.setattr(Reader, "read", fails)
    for read in (lists.read(config, NOW), Lists(lists.store).read(config, NOW)):
        assert covers(read, "name00000.example")
        assert read.listed["other"].names.scope("another.example") is not None
        assert [one.code for one in read.rejections["listed"].findings] == ["NOT_COMPILED"]


def test_the_compiled_file_of_a_rejected_list_is_not_stored(config: Config, tmp_path: Path):
    """A feed that is rejected for weeks would fill the disk with full-size lists, twice a day."""
    lists = first_reading(config)
    before = {path.name for path in lists.store.compiled.iterdir()}
    rubbish = "".join(f"not a name {number}\nname{number:05}.example\n" for number in range(NAMES))
    (tmp_path / "names.txt").write_text(rubbish + "another.example\n")
    read = lists.read(config, NOW)
    records.record_rejection(read, "listed", read.rejections["listed"])
    assert {path.name for path in lists.store.compiled.iterdir()} == before
    assert covers(read, "name00000.example")


def test_storing_a_download_does_not_cause_another_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A hard link that is added or removed changes the ctime of the file, but not its content.

    Another read would delay orders, and reject the download again after a rollback.
    """
    monkeypatch.setattr(files, "TICKS_NS", 0)
    (tmp_path / "dnsblock.yaml").write_text(CONFIG.replace("names.txt", '"https://feed.example/names.txt"'))
    config = load(tmp_path / "dnsblock.yaml")
    store = Store(config.state)
    store.download("listed").write_text("".join(f"name{number:05}.example\n" for number in range(NAMES)))
    first = Lists(store).read(config, NOW)
    records.accept(first)
    records.served(first, Published(1, "a", NOW, "test", first.versions, NOW), config.history, None)
    assert store.content(first.listed["listed"].version)
    assert first.read(config, NOW).listed["listed"] is first.listed["listed"]
    store.drop_content("listed", "of another")  # as a rollback does
    assert first.read(config, NOW).listed["listed"] is first.listed["listed"]
