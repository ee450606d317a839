"""Lists in files and folders (trap 18): watched; one that is missing or invalid affects no other."""

import os
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TextIO

import pytest

from .asking import is_sinkholed
from .bad_files import Bad
from .harness import ORDERS_ZONE, Subject
from .lists import (
    ANY_CHANGE,
    DAY,
    Unchanged,
    break_list,
    enforced,
    events,
    findings,
    is_logged,
    list_zone,
    names,
    refresh,
    refused_by,
    reports,
    source,
    stored_texts,
    text_of,
    versions,
    wait_enforced,
    wait_refused,
    wait_version,
)
from .orders import block
from .test_bad_start import WITHOUT_OVERRIDE
from .tools import tool, wait_for

WATCHED = list_zone(every_s=1)
BASE = names(50)


def put_in_folder(subject: Subject, name: str, lines: list[str]) -> Path:
    (subject.folder / "lists").mkdir(exist_ok=True)
    return subject.put_list(f"lists/{name}", lines)


# ------- Watched -------


def test_a_changed_file_is_enforced_without_a_signal(subject: Subject):
    """No command is needed: a changed list is enforced within seconds."""
    subject.start(zones=[list_zone()], lists={"list.txt": BASE}, inbox=None)
    subject.put_list("list.txt", [*BASE[1:], "new.example"])
    wait_enforced(subject, "new.example")
    assert enforced(subject, BASE[0], BASE[1]) == [False, True]
    # The metrics follow a moment after the first enforced response.
    expected = subject.ready["serial"] + 1
    wait_for(lambda: subject.metrics().total("dnsblock_snapshot_serial") == expected, "the next serial")


def test_a_file_that_is_still_being_written_is_not_enforced(subject: Subject):
    """An editor or scp writes in pieces: half a list would unblock the other half."""
    subject.start(zones=[list_zone(every_s=1, guards=ANY_CHANGE)], lists={"list.txt": BASE}, inbox=None)
    looks: list[int] = []
    with Unchanged(subject, BASE[0], BASE[-1]), (subject.folder / "list.txt").open("w") as file:

        def write_on() -> bool:
            file.write(f"piece{len(looks)}.example\n")
            file.flush()
            looks.append(0)
            assert is_sinkholed(subject.query(BASE[0])), "half of the list is enforced"
            return len(looks) > 400

        wait_for(write_on, "the list is written", timeout=60)
    wait_enforced(subject, "piece400.example")
    assert [one["entries"] for one in versions(subject)] == [401, 50]


def test_a_file_being_written_is_not_enforced_by_another_publish(subject: Subject):
    """Another list that changed is no reason to take half of this one.

    A thread of its own writes, so that only the machine, and no slow daemon, can interrupt it. Where it was
    interrupted for long, the file was not being written any more, and all is tried again.
    """
    other = list_zone("other.txt", name="other", every_s=1)
    zones = [list_zone(every_s=1, guards=ANY_CHANGE), other]
    subject.start(zones=zones, lists={"list.txt": BASE, "other.txt": ["other.example"]}, inbox=None)
    while True:
        more, ends = f"more{time.monotonic_ns()}.example", threading.Event()
        pieces, written_at = [f"first-{more}"], [time.monotonic()]

        def write(file: TextIO, pieces: list[str], written_at: list[float], ends: threading.Event) -> None:
            while not ends.wait(0.01):
                file.write(f"{pieces[-1]}\n")
                file.flush()
                written_at.append(time.monotonic())
                pieces.append(f"piece{len(pieces)}.{more}")  # noqa: B023  # ended within this turn

        with (subject.folder / "list.txt").open("w") as file:
            writer = threading.Thread(target=write, args=(file, pieces, written_at, ends))
            writer.start()
            try:
                subject.put_list("other.txt", ["other.example", more])
                wait_for(lambda name=more: is_sinkholed(subject.query(name)), "the other list is enforced")
                found = enforced(subject, BASE[0], pieces[0])
            finally:
                ends.set()
                writer.join()
        if max(later - at for at, later in pairwise(written_at)) < 0.5:
            break
        subject.put_list("list.txt", BASE)
        wait_enforced(subject, BASE[0])
    assert found == [True, False], "half of the list is enforced"
    wait_enforced(subject, pieces[-2])


def test_each_list_is_checked_at_its_own_interval(subject: Subject):
    """`every_s` is of one source: a list that is looked at once a day waits for that, or for a command."""
    zones = [list_zone("daily.txt", name="daily", every_s=DAY), list_zone(every_s=1)]
    subject.start(zones=zones, lists={"daily.txt": BASE, "list.txt": BASE}, inbox=None)
    subject.put_list("daily.txt", [*BASE, "daily.example"])
    subject.put_list("list.txt", [*BASE, "new.example"])
    wait_enforced(subject, "new.example")
    assert enforced(subject, "daily.example") == [False]
    assert refresh(subject, "daily").code == 0
    assert enforced(subject, "daily.example", "new.example") == [True, True]


def test_a_symlink_to_another_file_is_a_change(subject: Subject):
    """Deployments keep each version in a file of its own and turn a link."""
    subject.configure(zones=[WATCHED], lists={"one.txt": BASE, "two.txt": [*BASE, "new.example"]}, inbox=None)
    (subject.folder / "list.txt").symlink_to("one.txt")
    subject.launch()
    (subject.folder / "next").symlink_to("two.txt")
    (subject.folder / "next").rename(subject.folder / "list.txt")
    wait_enforced(subject, "new.example")


@pytest.mark.parametrize("how", ["in place", "another file"])
def test_a_change_of_the_same_size_and_time_is_a_change(subject: Subject, how: str):
    """`rsync -t` and `cp -p` keep the time of the file: what was ordered on the same day would be missed."""
    subject.start(zones=[WATCHED], lists={"list.txt": [*BASE, "old.example"]}, inbox=None)
    path = subject.folder / "list.txt"
    before = path.stat()
    written = subject.put_list("other.txt", [*BASE, "new.example"])
    os.utime(written, ns=(before.st_atime_ns, before.st_mtime_ns))
    if how == "in place":
        path.write_bytes(written.read_bytes())
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        written.rename(path)
    wait_enforced(subject, "new.example")
    assert enforced(subject, "old.example") == [False]


@pytest.mark.parametrize("ahead", [3, 7200])
def test_a_file_with_a_time_in_the_future_is_a_change(subject: Subject, ahead: int):
    """Copied with its time from a machine whose clock is fast; or our clock was put back."""
    subject.start(zones=[WATCHED], lists={"list.txt": BASE}, inbox=None)
    half = subject.put_list("half.txt", [*BASE, "new.example"])
    os.utime(half, (time.time() + ahead, time.time() + ahead))
    half.rename(subject.folder / "list.txt")
    wait_enforced(subject, "new.example")
    wait_version(subject, 2)
    with (subject.folder / "list.txt").open("a") as file:
        file.write("more.example\n")
    wait_enforced(subject, "more.example")


def test_a_touched_file_is_no_new_version(subject: Subject):
    """A version is content, not a time: the history has only changes."""
    subject.start(zones=[list_zone(every_s=DAY)], lists={"list.txt": BASE}, inbox=None)
    subject.put_list("list.txt", BASE)
    assert subject.reload()["changed"] is False
    assert [one["version"] for one in versions(subject)] == [1]


# ------- Folders -------


def test_a_folder_is_one_list(subject: Subject):
    """Its files together are the list, with each of them watched: one more, one changed, one less."""
    put_in_folder(subject, "a.txt", ["a.example"])
    put_in_folder(subject, "b.txt", ["b.example", "a.example"])
    subject.start(zones=[list_zone("lists", every_s=1)], inbox=None)
    assert (subject.ready["entries"], source(subject)["report"]["duplicate"]) == (2, 1)
    put_in_folder(subject, "c.txt", ["c.example"])
    wait_enforced(subject, "c.example")
    put_in_folder(subject, "b.txt", ["d.example"])
    wait_enforced(subject, "d.example")
    assert enforced(subject, "a.example", "b.example") == [True, False]
    (subject.folder / "lists" / "c.txt").unlink()
    wait_for(lambda: enforced(subject, "c.example") == [False], "c.txt is no part of the list any more")
    assert enforced(subject, "a.example", "d.example") == [True, True]


@pytest.mark.parametrize(
    ("text", "code"),
    [("<!DOCTYPE html>\n<html>\n<body>502</body>\n</html>\n", "HTML:"), ("", "EMPTY:"), ("# x\n", "EMPTY:")],
    ids=["a page", "nothing", "comments"],
)
def test_guards_apply_to_each_file_of_a_folder(subject: Subject, text: str, code: str):
    """Beside five thousand good lines three hundred that became a page are less than one in a hundred."""
    put_in_folder(subject, "a.txt", names(5000))
    path = put_in_folder(subject, "b.txt", ["b.example"])
    subject.start(zones=[list_zone("lists", every_s=DAY)], inbox=None)
    with Unchanged(subject, "b.example"):
        path.write_text(text)
        said = subject.cli("reload")
        assert said.code == 4
        assert any(one["reason"].startswith(code) and "b.txt" in one["reason"] for one in said.problems), said


def test_each_file_of_a_folder_is_read_in_its_own_format(subject: Subject):
    """`*.name` in one file must not turn the plain names of another into names alone."""
    put_in_folder(subject, "a.txt", ["*.a.example"])
    put_in_folder(subject, "b.txt", ["b.example"])
    subject.start(zones=[list_zone("lists", every_s=DAY)], inbox=None)
    assert enforced(subject, "a.example", "www.a.example", "b.example", "www.b.example") == [
        False,
        True,
        True,
        True,
    ]
    assert source(subject)["format"] == "plain, wildcard"


def test_backup_and_temporary_files_in_a_folder_are_ignored(subject: Subject):
    """The swap file of an editor, yesterday's copy, an unfinished download: none of them is a list."""
    names_of = {
        "a.txt": "a",
        ".hidden": "hidden",
        "a.txt~": "backup",
        "b.tmp": "tmp",
        "b.part": "part",
        "b.swp": "swp",
    }
    for file, name in names_of.items():
        put_in_folder(subject, file, [f"{name}.example"])
    subject.start(zones=[list_zone("lists")], inbox=None)
    assert (subject.ready["entries"], enforced(subject, "a.example")) == (1, [True])


def test_errors_in_a_folder_are_reported_with_their_file(subject: Subject):
    """A line number without its file is looked for in every one of them."""
    put_in_folder(subject, "a.txt", ["a.example", "a..example"])
    put_in_folder(subject, "b.txt", ["# b", "b.example", "b..example"])
    zone = list_zone("lists", guards={"rejected_percent": "off"})
    subject.configure(zones=[zone], inbox=None)
    report = reports(subject.cli("check"))["listed"]
    assert findings(report, "rejected") == [
        ("a.txt", 2, "a..example", "empty_label"),
        ("b.txt", 3, "b..example", "empty_label"),
    ]


SPLITS = {
    "in a name": len("two.shop.com"),  # and `.br` follows
    "in a label": len("two.sh"),
    "before the line feed": len("two.shop.com.br"),
}


@pytest.mark.parametrize("at", SPLITS.values(), ids=SPLITS.keys())
@pytest.mark.parametrize("truncated", ["reject", "accept"])
def test_a_list_that_was_split_within_a_name_is_rejected(subject: Subject, truncated: str, at: int):
    """`two.shop.com` and `.br` are two wrong names, of which the first blocks half a country's shops."""
    whole = "one.shop.com.br\ntwo.shop.com.br\nthree.shop.com.br\n"
    cut = whole.index("two") + at
    put_in_folder(subject, "part1", ["one.shop.com.br", "two.shop.com.br"])
    zone = list_zone("lists", every_s=DAY, guards={"truncated": truncated})
    subject.start(zones=[zone], inbox=None)
    with Unchanged(subject, "shop.com", "two.shop.com", "two.shop.com.br"):
        subject.put_list("lists/part1", whole[:cut])
        subject.put_list("lists/part2", whole[cut:])
        said = subject.cli("reload")
        assert said.code == 4
        assert any(
            f"SPLIT: {subject.folder}/lists/part1 does not end with a line feed" in one["reason"]
            for one in said.problems
        )
    (subject.folder / "lists" / "part2").unlink()
    subject.put_list("lists/part1", whole)
    subject.reload()
    assert enforced(subject, "three.shop.com.br", "shop.com") == [True, False]


def test_a_split_by_size_is_detected_by_the_sizes_of_its_parts(subject: Subject):
    """`split -b 100` says where the parts come from, and so what to do about it."""
    whole = text_of(names(50))
    (subject.folder / "lists").mkdir()
    for number, start in enumerate(range(0, len(whole), 100)):
        subject.put_list(f"lists/x{number:02}", whole[start : start + 100])
    subject.configure(zones=[list_zone("lists")], inbox=None)
    said = subject.cli("check")
    (reason,) = [one["reason"] for one in said.problems if one["reason"].startswith("SPLIT:")]
    assert "100-byte parts made by `split -b`" in reason
    assert "join them into one file" in reason


def test_a_split_at_line_ends_is_one_list(subject: Subject):
    """`split -l` cuts no name; nor does the cut of a split by size that falls behind a line feed."""
    put_in_folder(subject, "xaa", names(10))
    put_in_folder(subject, "xab", names(10, first=10))
    subject.start(zones=[list_zone("lists")], inbox=None)
    assert subject.ready["entries"] == 20


def test_ignored_files_of_a_folder_are_reported(subject: Subject):
    """A list that somebody put a level too deep blocks nothing: the operator must see that."""
    put_in_folder(subject, "a.txt", ["a.example"])
    folder = subject.folder / "lists"
    (folder / "2026").mkdir()
    subject.put_list("lists/2026/b.txt", ["b.example"])
    os.mkfifo(folder / "pipe")
    (folder / "linked").symlink_to("2026")
    (folder / ".hidden").write_text("c.example\n")
    subject.start(zones=[list_zone("lists", every_s=1)], inbox=None)
    assert enforced(subject, "a.example", "b.example") == [True, False]
    for name, why in (("2026", "a folder"), ("pipe", "not a regular file"), ("linked", "a folder")):
        assert is_logged(subject, f"list listed does not read {name}: {why}", levels=["warning"]), name
        assert any(f"does not read {name}" in note for note in subject.cli("check").json["notes"]), name
        assert f"does not read {name}: {why}" in subject.cli("source list", as_json=False).stdout
    skipped = {one["name"]: one["reason"] for one in source(subject)["skipped"]}
    assert skipped.keys() == {"2026", "pipe", "linked", ".hidden"}
    assert "dot" in skipped[".hidden"]
    assert not is_logged(subject, ".hidden")
    (folder / "later").mkdir()
    wait_for(lambda: is_logged(subject, "does not read later", levels=["warning"]), "a new folder is seen")


def test_a_folder_with_only_subfolders_is_refused(subject: Subject):
    """Nothing is read of it: the message says what is there instead."""
    (subject.folder / "lists" / "sub").mkdir(parents=True)
    subject.configure(zones=[list_zone("lists")], inbox=None)
    said = subject.cli("check")
    assert said.code == 1
    assert "the folder contains no list; it contains sub (a folder" in said.problems[0]["reason"]


# ------- Gone -------


@pytest.mark.parametrize("place", ["list.txt", "lists"])
def test_a_list_that_disappears_stays_in_force(subject: Subject, place: str):
    """A lost mount or a wrong `rm` unblocks nothing; it is reported until the list is back."""
    path = put_in_folder(subject, "a.txt", BASE) if place == "lists" else subject.put_list(place, BASE)
    away = subject.folder / "away"
    subject.start(zones=[list_zone(place, every_s=1)], inbox=None)
    with Unchanged(subject, BASE[0], BASE[-1]):
        (subject.folder / place).rename(away)
        wait_refused(subject)
        wait_for(lambda: is_logged(subject, str(subject.folder / place), levels=["error"]), "it is logged")
        said = subject.cli("source list")
        assert said.code == 1
        problems = said.json["sources"][0]["rejected"]["problems"]
        assert place in problems[0]["file"]
        for_people = subject.cli("source list", as_json=False)
        assert str(subject.folder / place) in for_people.stdout
    away.rename(subject.folder / place)
    subject.put_list(str(path.relative_to(subject.folder)), [*BASE, "new.example"])
    wait_enforced(subject, "new.example")
    wait_for(lambda: source(subject)["rejected"] is None, "nothing is reported any more")


def test_an_emptied_folder_stays_in_force(subject: Subject):
    """An empty mount point is a folder, too."""
    put_in_folder(subject, "a.txt", BASE)
    subject.start(zones=[list_zone("lists", every_s=DAY)], inbox=None)
    with Unchanged(subject, BASE[0], BASE[-1]):
        (subject.folder / "lists" / "a.txt").unlink()
        said = subject.cli("reload")
        assert said.code == 4
        assert any("lists" in problem["file"] for problem in said.problems)


def empty_folder(folder: Path) -> str:
    (folder / "a.txt").unlink()
    (folder / "folder").mkdir()
    return "no list"


def dangling_link(folder: Path) -> str:
    (folder / "b.txt").symlink_to("/nowhere/b.txt")
    return "b.txt"


def no_utf_8(folder: Path) -> str:
    Path(os.fsdecode(bytes(folder) + b"/\xff.txt")).write_text("b.example\n")
    return r"\xff.txt"


def closed_file(folder: Path) -> str:
    (folder / "b.txt").write_text("b.example\n")
    (folder / "b.txt").chmod(0)
    return "b.txt"


@pytest.mark.parametrize("spoil", [empty_folder, dangling_link, no_utf_8, closed_file])
def test_an_unreadable_folder_stays_in_force_and_delays_no_order(
    subject: Subject, spoil: Callable[[Path], str]
):
    """Whatever lies in a folder: the file is named, the last version stays, also over a restart."""
    if os.geteuid() == 0:
        dropped = (f"--bounding-set={WITHOUT_OVERRIDE}", f"--inh-caps={WITHOUT_OVERRIDE}")
        subject.under = [tool("setpriv"), *dropped]
    put_in_folder(subject, "a.txt", BASE)
    subject.start(zones=[ORDERS_ZONE, list_zone("lists", every_s=DAY)])
    word = spoil(subject.folder / "lists")
    subject.put_order(block("B-1", ["ordered.example"]))
    said = subject.cli("reload")
    assert (said.code, refused_by(subject)) == (4, ["UNREADABLE"])
    assert any(word in f"{one['file']} {one['value']} {one['reason']}" for one in said.problems), said
    assert word in subject.cli("source list", as_json=False).stdout
    if spoil is not closed_file:  # root may read it
        assert any(word in str(one) for one in subject.cli("check").problems)
    subject.restart()
    assert enforced(subject, "ordered.example", BASE[0], BASE[-1]) == [True, True, True]
    assert refused_by(subject) == ["UNREADABLE"]
    assert "Traceback" not in subject.stderr()


@pytest.mark.parametrize("how", ["gone", "a page", "a folder", "a pipe", "endless"])
def test_a_rejected_list_delays_no_order(subject: Subject, how: str):
    """An order has a deadline by law: `reload` publishes it, and then says which list was not taken."""
    other = list_zone("other.txt", name="other", every_s=DAY)
    zones = [ORDERS_ZONE, list_zone(every_s=DAY), other]
    subject.start(zones=zones, lists={"list.txt": BASE, "other.txt": ["other.example"]})
    wait_for(lambda: len(stored_texts(subject)) == 2, "both texts are kept")
    break_list(subject, how)
    subject.put_order(block("B-1", ["ordered.example"]))
    subject.put_list("other.txt", ["other.example", "more.example"])
    said = subject.cli("reload")
    assert said.code == 4, said
    assert {Path(problem["file"]).name for problem in said.problems} == {"list.txt"}
    assert "list.txt" in said.stderr
    assert enforced(subject, "ordered.example", "more.example", BASE[0], BASE[-1]) == [True] * 4
    assert source(subject)["version"] == 1


def test_an_order_is_published_by_a_signal_while_a_list_is_broken(subject: Subject):
    """SIGHUP has no exit code; the order is what it was sent for."""
    subject.start(zones=[ORDERS_ZONE, list_zone(every_s=DAY)], lists={"list.txt": BASE})
    break_list(subject, "gone")
    subject.put_order(block("B-1", ["ordered.example"]))
    subject.hup()
    wait_enforced(subject, "ordered.example")
    assert enforced(subject, BASE[0]) == [True]


def test_an_invalid_order_delays_no_watched_list(subject: Subject):
    """An invalid list affects only itself: the other one is enforced."""
    subject.start(zones=[ORDERS_ZONE, WATCHED], lists={"list.txt": BASE})
    Bad("broken YAML", "bad.yaml", "entries: [", None).put(subject)
    subject.put_list("list.txt", [*BASE, "new.example"])
    wait_enforced(subject, "new.example")


def test_a_list_without_read_permission_is_named(subject: Subject):
    """Written by root with a mask of 077: the daemon says which file, and what it had stays."""
    if os.geteuid() == 0:
        dropped = (f"--bounding-set={WITHOUT_OVERRIDE}", f"--inh-caps={WITHOUT_OVERRIDE}")
        subject.under = [tool("setpriv"), *dropped]
    subject.start(zones=[list_zone(every_s=DAY)], lists={"list.txt": BASE}, inbox=None)
    with Unchanged(subject, BASE[0]):
        subject.put_list("list.txt", [*BASE, "new.example"]).chmod(0)
        said = subject.cli("reload")
        assert (said.code, Path(said.problems[0]["file"]).name) == (4, "list.txt")
        assert "permission" in said.problems[0]["reason"].lower() or "read" in said.problems[0]["reason"]
        assert refused_by(subject) == ["UNREADABLE"]
    (subject.folder / "list.txt").chmod(0o600)
    assert subject.reload()["changed"] is True


def test_a_list_that_is_too_large_is_refused(subject: Subject):
    """`max_mb` bounds what a source may cost: a log file in its place is not read into memory."""
    subject.start(zones=[list_zone(every_s=DAY, max_mb=1)], lists={"list.txt": BASE}, inbox=None)
    with Unchanged(subject, BASE[0], BASE[-1]):
        subject.put_list("list.txt", names(100_000))
        said = subject.cli("reload")
        assert said.code == 4
        assert Path(said.problems[0]["file"]).name == "list.txt"
        assert "max_mb" in "".join(problem["reason"] for problem in said.problems)


# ------- The start -------


def test_a_start_without_any_version_of_a_list_is_refused_with_the_reason(subject: Subject):
    """Nothing half-started: file, line and value of what is wrong, in one reading."""
    lines = [*names(5), "a..example", "two words.example"]
    subject.configure(zones=[list_zone()], lists={"list.txt": lines}, inbox=None)
    said = subject.serve_refused()
    found = [(Path(one["file"]).name, one["line"], one["value"]) for one in said.problems]
    assert ("list.txt", 6, "a..example") in found
    assert ("list.txt", 7, "two words.example") in found
    assert any("TOO_MANY_REJECTED" in line for line in said.refusal)


def test_missing_start_starts_without_a_list(subject: Subject):
    """`missing: start`: orders are enforced; that a list is not is logged and shown, until it is there."""
    zones = [ORDERS_ZONE, list_zone(missing="start", every_s=1)]
    subject.start(zones=zones, orders=[block("B-1", ["ordered.example"])])
    assert enforced(subject, "ordered.example", BASE[0]) == [True, False]
    assert is_logged(subject, "listed")
    assert is_logged(subject, "list.txt")
    said = subject.cli("source list")
    (found,) = said.json["sources"]
    assert (said.code, found["version"], found["entries"]) == (1, None, 0)
    assert "list.txt" in str(found["rejected"])
    assert subject.metrics().total("dnsblock_source_rejected", zone="listed") == 1
    subject.put_list("list.txt", BASE)
    wait_enforced(subject, BASE[0])
    wait_version(subject, 1)
    assert source(subject)["rejected"] is None


def test_a_start_with_a_broken_list_serves_its_last_good_version(subject: Subject):
    """A machine that restarts at night has no operator: what was enforced is enforced."""
    subject.start(zones=[list_zone(every_s=DAY)], lists={"list.txt": BASE}, inbox=None)
    for how in ("a page", "gone"):
        assert subject.stop() == 0
        break_list(subject, how)
        subject.launch()
        assert enforced(subject, BASE[0], BASE[-1]) == [True, True]
        assert subject.metrics().total("dnsblock_source_rejected", zone="listed") == 1
        assert is_logged(subject, "listed", levels=["error"])
    assert [event["kind"] for event in events(subject)].count("rejected") >= 1


def test_a_list_changed_while_the_daemon_was_down_is_enforced_at_startup(subject: Subject):
    """A reboot is not a reason to go on with yesterday's list."""
    subject.start(zones=[list_zone(every_s=DAY)], lists={"list.txt": BASE}, inbox=None)
    assert subject.stop() == 0
    subject.put_list("list.txt", [*BASE[1:], "new.example"])
    subject.launch()
    assert enforced(subject, BASE[0], BASE[1], "new.example") == [False, True, True]


def test_changed_options_of_a_list_apply_to_the_same_content(subject: Subject):
    """A format, a column or a repair that is corrected holds from the reload on, with the same text."""
    lines = ["one.example,two.example", "three.example,four.example"]
    csv = {"format": "csv", "every_s": DAY}
    subject.start(zones=[list_zone(**csv, column=1)], lists={"list.txt": lines}, inbox=None)
    assert enforced(subject, "one.example", "two.example") == [True, False]
    subject.configure(zones=[list_zone(**csv, column=2)], inbox=None)
    subject.reload()
    assert enforced(subject, "one.example", "two.example") == [False, True]


def test_a_zone_that_is_removed_and_added_again_has_its_list(subject: Subject):
    """A list is switched off by its zone; when it is there again it is enforced as before."""
    both = [list_zone(every_s=DAY), list_zone("other.txt", name="other", every_s=DAY)]
    lists = {"list.txt": BASE, "other.txt": ["other.example"]}
    subject.start(zones=both, lists=lists, inbox=None)
    subject.configure(zones=both[1:], inbox=None)
    subject.reload()
    assert enforced(subject, BASE[0], "other.example") == [False, True]
    subject.configure(zones=both, inbox=None)
    subject.reload()
    assert enforced(subject, BASE[0], "other.example") == [True, True]
