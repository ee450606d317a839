"""Files of lists (trap 18): compiled once, rejected when corrupt; kills, full disks, two daemons."""

import gzip
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from unit.https_server import Authority, Server, head

from .harness import ORDERS_ZONE, Subject
from .lists import (
    ANY_CHANGE,
    DAY,
    NO_PROXY,
    Feed,
    assert_named_by_content,
    break_list,
    compiled,
    enforced,
    files_below,
    is_logged,
    list_zone,
    names,
    refresh,
    roll_back,
    source,
    stored_texts,
    text_of,
    texts_in,
    versions,
    wait_enforced,
    wait_refused,
    wait_stored,
    watching_reads,
)
from .orders import block
from .test_bad_start import WITHOUT_OVERRIDE, only_line
from .tools import tool, wait_for

ZONE = list_zone(every_s=DAY)
BASE = names(500)
LATER = [*BASE[1:], "new.example"]


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Subject]:
    """Another daemon in another folder."""
    folder = tmp_path / "second"
    folder.mkdir()
    with closing(Subject(folder)) as daemon:
        yield daemon


def start(subject: Subject, **more: object) -> None:
    subject.start(zones=[ORDERS_ZONE, ZONE], lists={"list.txt": BASE}, **more)
    wait_stored(subject)


def only_compiled(subject: Subject) -> Path:
    (path,) = (subject.folder / "state" / "lists").iterdir()
    return path


def files(subject: Subject) -> list[str]:
    """The files in the state folder, but not the signed checkpoints: one may be written at any time."""
    state = subject.folder / "state"
    found = [path.relative_to(state) for path in files_below(state)]
    return sorted(str(path) for path in found if path.parts[0] != "checkpoints")


# ------- Compiled once -------


def test_a_compiled_list_is_named_by_its_content_and_the_same_everywhere(subject: Subject, second: Subject):
    """The same input gives the same file on all servers, byte for byte: comparing names is enough."""
    for daemon in (subject, second):
        daemon.start(zones=[ZONE], lists={"list.txt": BASE}, inbox=None)
        assert_named_by_content(daemon)
    assert compiled(subject) == compiled(second)
    assert len(compiled(subject)) == 1
    for daemon in (subject, second):
        daemon.put_list("list.txt", LATER)
        daemon.reload()
        assert_named_by_content(daemon)
    assert compiled(subject) == compiled(second)
    assert len(compiled(subject)) == 2, "one file for each version"


def test_a_restart_maps_the_compiled_list_and_reads_no_list(subject: Subject):
    """Ten million names are mapped, not parsed: a restart is the only time at which no query is answered."""
    subject.configure(zones=[ZONE], lists={"list.txt": BASE}, inbox=None)
    path = subject.folder / "list.txt"
    wait_for(
        lambda: time.time() > path.stat().st_ctime + 2.1, "the file is old enough to know it by its times"
    )
    subject.launch()
    wait_stored(subject)
    before = compiled(subject)
    assert subject.stop() == 0
    with watching_reads(subject.folder / "list.txt") as reads:
        subject.launch()
    assert reads == []
    assert enforced(subject, BASE[0], BASE[-1]) == [True, True]
    assert compiled(subject) == before
    assert [one["version"] for one in versions(subject)] == [1]


def corrupt(path: Path) -> None:
    chunk = bytearray(path.read_bytes())
    chunk[len(chunk) // 2] ^= 0x20
    path.write_bytes(chunk)


def foreign(path: Path) -> None:
    """A whole compiled list, of another list."""
    other = Subject(path.parents[2] / "other")
    other.folder.mkdir()
    with closing(other):
        other.start(zones=[ZONE], lists={"list.txt": ["foreign.example"]}, inbox=None)
        shutil.copy(only_compiled(other), path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a byte": corrupt,
    "the first bytes": lambda path: path.write_bytes(b"x" * 16 + path.read_bytes()[16:]),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\x00" * 64),
    "gone": Path.unlink,
    "of another list": foreign,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_corrupt_compiled_list_is_compiled_again_from_the_stored_file(
    subject: Subject, damage: Callable[[Path], object]
):
    """After a disk error or a wrong copy, the same version stays in force and the error is logged."""
    start(subject)
    before, path = compiled(subject), only_compiled(subject)
    assert subject.stop() == 0
    damage(path)
    (subject.folder / "list.txt").unlink()
    subject.launch()
    assert enforced(subject, BASE[0], BASE[-1], "foreign.example") == [True, True, False]
    assert subject.metrics().total("dnsblock_zone_entries", zone="listed") == 500
    assert is_logged(subject, path.name) or is_logged(subject, "compiled again")
    assert not is_logged(subject, "None")
    wait_for(lambda: compiled(subject) == before, "the same file is there again")


def test_the_stored_file_is_that_of_the_version(subject: Subject):
    """The file may change a moment later: what was enforced is stored."""
    long = names(100_000)
    subject.start(zones=[ZONE], lists={"list.txt": long}, inbox=None)
    subject.put_list("list.txt", ["a..example"] * 2000 + ["other.example"])
    assert subject.cli("reload").code == 4
    wait_stored(subject)
    assert subject.stop() == 0
    corrupt(only_compiled(subject))
    subject.launch()
    assert enforced(subject, long[0], long[-1], "other.example") == [True, True, False]
    assert subject.metrics().total("dnsblock_zone_entries", zone="listed") == len(long)


@pytest.mark.parametrize("how", ["a pipe", "endless"])
def test_a_pipe_or_device_in_place_of_a_list_is_not_stored(subject: Subject, how: str):
    """A pipe is waited for in vain, /dev/zero fills the disk: neither is a text, however soon it comes."""
    subject.start(zones=[ORDERS_ZONE, ZONE], lists={"list.txt": BASE})
    break_list(subject, how)
    subject.put_order(block("B-1", ["ordered.example"]))
    assert subject.cli("reload", timeout=60).code == 4
    assert enforced(subject, "ordered.example", BASE[0]) == [True, True]
    assert sum(path.stat().st_size for path in (subject.folder / "state" / "texts").rglob("*")) < 1_000_000


def test_a_corrupt_compiled_list_with_a_corrupt_stored_file_is_refused(subject: Subject):
    """Neither can be trusted: the start is refused with the reason."""
    start(subject)
    path = only_compiled(subject)
    assert subject.stop() == 0
    corrupt(path)
    for text in stored_texts(subject):
        changed = gzip.decompress(text.read_bytes()).replace(b"n1.example", b"m1.example")
        text.write_bytes(gzip.compress(changed))
    (subject.folder / "list.txt").unlink()
    assert subject.serve_refused().refusal
    subject.put_list("list.txt", BASE)
    subject.launch()
    assert enforced(subject, "n1.example", "m1.example") == [True, False]


def test_a_corrupt_compiled_list_after_a_rollback_is_compiled_again(subject: Subject):
    """The version of the rollback is enforced, though the file has other content by now."""
    start(subject)
    subject.put_list("list.txt", LATER)
    subject.reload()
    assert roll_back(subject, subject.ready["serial"]).code == 0
    assert subject.stop() == 0
    for path in (subject.folder / "state" / "lists").iterdir():
        corrupt(path)
    subject.launch()
    assert enforced(subject, "n0.example", "new.example") == [True, False]


def test_a_compiled_list_corrupted_while_in_use_keeps_being_served(subject: Subject):
    """Changes to the files alter neither the list in force nor the orders beside it."""
    start(subject)
    only_compiled(subject).unlink()
    subject.put_order(block("B-1", ["ordered.example"]))
    subject.reload()
    assert enforced(subject, BASE[0], BASE[-1], "ordered.example") == [True, True, True]
    subject.restart()
    assert enforced(subject, BASE[0], BASE[-1], "ordered.example") == [True, True, True]


# ------- Killed -------


def test_a_kill_in_the_middle_of_a_download_leaves_the_last_good_list(
    subject: Subject, web: Server, authority: Authority
):
    """A partial list on the disk is never used, and is removed."""
    subject.environment.update(NO_PROXY)
    feed = Feed(web, text_of(BASE))
    subject.start(zones=[feed.zone(authority.pem, every_s=1, guards={"grew_percent": "off"})], inbox=None)
    wait_stored(subject)
    before = files(subject)
    half = text_of(names(2000))

    async def hang(reader: object, writer: object) -> None:
        writer.write(head(content_length=str(2 * len(half)), content_type="text/plain") + half)
        await writer.drain()
        await reader.read()

    feed.behaviour = hang
    wait_for(lambda: set(files(subject)) - set(before), "a part of the download is on the disk")
    subject.kill()
    feed.put(text_of(BASE))
    subject.launch()
    assert enforced(subject, BASE[0], BASE[-1], "n1999.example") == [True, True, False]
    assert_named_by_content(subject)
    asked = len(feed.requests)
    wait_for(lambda: len(feed.requests) > asked + 1, "the feed is asked again, and that is over")
    assert {name for name in files(subject) if "half" in name or name.endswith((".part", ".tmp"))} == set()


def test_a_kill_in_the_middle_of_a_refresh_leaves_one_whole_list(subject: Subject):
    """Whenever it comes, the restart serves one of the two lists as a whole."""
    subject.start(zones=[list_zone(every_s=1, guards=ANY_CHANGE)], lists={"list.txt": BASE}, inbox=None)
    later = [*names(60_000, first=1000), "new.example"]
    known = set(files(subject))
    subject.put_list("list.txt", later)
    wait_for(lambda: set(files(subject)) - known, "something new is on the disk")
    subject.kill()
    assert not (subject.folder / "list.txt").rename(subject.folder / "away").is_symlink()
    subject.launch()
    sample = (BASE[0], BASE[-1], later[0], later[-1])
    assert enforced(subject, *sample) in ([True, True, False, False], [False, False, True, True])
    assert_named_by_content(subject)
    (subject.folder / "away").rename(subject.folder / "list.txt")
    wait_enforced(subject, "new.example")
    assert enforced(subject, *sample) == [False, False, True, True]
    assert_named_by_content(subject)


def test_partial_files_of_a_killed_daemon_are_removed(subject: Subject):
    """Files of no version fill the disk, a kill at a time."""
    start(subject)
    before = {name for name in files(subject) if not name.endswith(("-wal", "-shm"))}
    subject.kill()
    state = subject.folder / "state"
    (state / "lists" / f"{'0' * 64}.names").write_bytes(b"half")
    (state / "lists" / f"{'1' * 64}.names.tmp").write_bytes(b"half")
    (state / "lists" / "half-7U01Fx.tmp").write_bytes(b"half")
    subject.launch()
    subject.reload()
    left = {name for name in files(subject) if not name.endswith(("-wal", "-shm"))}
    assert left <= before, left - before
    assert enforced(subject, BASE[0]) == [True]


# ------- The disk -------

SHELL = """
mount -t tmpfs -o size={size}k tmpfs "{state}" || exit 99
exec "$@"
"""


def on_a_small_disk(subject: Subject, kilobytes: int) -> Path:
    """The state is on a disk of its own, which only the daemon sees; returns a way to it."""
    (subject.folder / "state").mkdir(exist_ok=True)
    script = SHELL.format(size=kilobytes, state=subject.folder / "state")
    subject.under = [tool("unshare"), "--mount", "--propagation", "private", "/bin/sh", "-c", script, "sh"]
    return subject.folder / "state"


def inside(subject: Subject) -> Path:
    """The state folder as the daemon sees it."""
    return Path(f"/proc/{subject.process.pid}/root{subject.folder}/state")


def fill(path: Path) -> None:
    """Until not one byte is left."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (4096, 1):
            with suppress(OSError):
                while True:
                    os.write(descriptor, b"x" * size)
    finally:
        os.close(descriptor)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk takes root; CI runs as root")
def test_a_full_disk_changes_nothing_that_is_enforced(subject: Subject):
    """ENOSPC in the middle of a list: a clear error, what was enforced stays; with room it is taken."""
    on_a_small_disk(subject, 4096)
    zones = [ORDERS_ZONE, list_zone(every_s=DAY, guards=ANY_CHANGE)]
    subject.start(zones=zones, lists={"list.txt": BASE}, orders=[block("B-1", ["ordered.example"])])
    subject.under = []
    filler = inside(subject) / "filler"
    fill(filler)
    subject.put_list("list.txt", [*names(20_000, first=1000), "new.example"])
    said = subject.cli("reload")
    assert said.code == 4, said
    output = f"{said.stdout}{said.stderr}"
    assert "space" in output.lower() or "disk" in output.lower(), output
    assert "Traceback" not in subject.stderr()
    assert enforced(subject, BASE[0], BASE[-1], "ordered.example", "new.example") == [True, True, True, False]
    filler.unlink()
    assert subject.reload()["changed"] is True
    assert enforced(subject, BASE[0], "ordered.example", "new.example") == [False, True, True]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk takes root; CI runs as root")
def test_a_list_delayed_by_a_full_disk_is_accepted_once_there_is_room(subject: Subject):
    """An operator who frees space need not touch the lists that were skipped meanwhile."""
    on_a_small_disk(subject, 4096)
    subject.start(zones=[list_zone(every_s=1, guards=ANY_CHANGE)], lists={"list.txt": BASE}, inbox=None)
    subject.under = []
    wait_for(lambda: texts_in(inside(subject)), "the text is kept")
    filler = inside(subject) / "filler"
    fill(filler)
    subject.put_list("list.txt", [*names(20_000, first=1000), "new.example"])
    wait_refused(subject)
    (problem,) = source(subject)["rejected"]["problems"]
    assert "free space" in problem["reason"], "what to do"
    filler.unlink()
    wait_enforced(subject, "new.example")
    wait_for(lambda: source(subject)["rejected"] is None, "nothing is refused any more")


def test_a_file_that_may_not_grow_changes_nothing_that_is_enforced(subject: Subject):
    """A quota: the same as a full disk, for one file (RLIMIT_FSIZE, setrlimit(2))."""
    zones = [ORDERS_ZONE, list_zone(every_s=DAY, guards=ANY_CHANGE)]
    subject.start(zones=zones, lists={"list.txt": BASE}, orders=[block("B-1", ["ordered.example"])])
    resource.prlimit(subject.process.pid, resource.RLIMIT_FSIZE, (256 * 1024, resource.RLIM_INFINITY))
    subject.put_list("list.txt", [*names(100_000, first=1000), "new.example"])
    said = subject.cli("reload")
    assert said.code == 4, said
    assert "Traceback" not in subject.stderr()
    assert enforced(subject, BASE[0], BASE[-1], "ordered.example", "new.example") == [True, True, True, False]
    assert_named_by_content(subject)
    resource.prlimit(
        subject.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    subject.reload()
    assert enforced(subject, BASE[0], "ordered.example", "new.example") == [False, True, True]


def test_a_second_daemon_on_the_same_lists_is_refused(subject: Subject, second: Subject):
    """Two that write one history each undo what the other did; the first goes on."""
    start(subject)
    state = str(subject.folder / "state")
    second.configure(
        zones=[list_zone(every_s=DAY)], lists={"list.txt": ["other.example"]}, inbox=None, state=state
    )
    assert state in only_line(second.serve_refused())
    assert enforced(subject, BASE[0]) == [True]
    assert refresh(subject).code == 0
    assert_named_by_content(subject)
    assert len(compiled(subject)) == 1


def without_rights(subject: Subject, folder: str) -> Path:
    """Stopped, with a list that has changed meanwhile and a folder that may not be written."""
    start(subject)
    assert subject.stop() == 0
    subject.put_list("list.txt", LATER)
    closed = subject.folder / folder
    closed.chmod(0o500)
    if os.geteuid() == 0:
        dropped = (f"--bounding-set={WITHOUT_OVERRIDE}", f"--inh-caps={WITHOUT_OVERRIDE}")
        subject.under = [tool("setpriv"), *dropped]
    return closed


def test_a_state_folder_without_rights_is_refused_with_advice(subject: Subject):
    """Made by root, run as somebody else: which folder, and what to do."""
    closed = without_rights(subject, "state")
    try:
        line = only_line(subject.serve_refused())
    finally:
        closed.chmod(0o700)
    assert str(closed) in line
    assert "owns the folder" in line


def test_a_folder_of_compiled_lists_without_rights_keeps_the_last_good_list(subject: Subject):
    """The last version stays in force and the error is reported; once writable, the list is accepted."""
    closed = without_rights(subject, "state/lists")
    try:
        subject.launch()
        assert enforced(subject, BASE[0], BASE[-1], "new.example") == [True, True, False]
        assert is_logged(subject, str(closed), levels=["error"])
        assert subject.metrics().total("dnsblock_source_rejected", zone="listed") == 1
    finally:
        closed.chmod(0o700)
    subject.reload()
    assert enforced(subject, BASE[0], "new.example") == [False, True]


def test_a_check_reads_lists_and_writes_nothing(subject: Subject):
    """A dry run beside a running daemon: no compiled file, no version, no text is left by it."""
    start(subject)
    before = dict.fromkeys(files(subject))
    subject.put_list("list.txt", LATER)
    assert subject.cli("check").code == 0
    assert dict.fromkeys(files(subject)) == before
    assert source(subject)["version"] == 1
