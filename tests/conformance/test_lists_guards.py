"""When a whole list is rejected (trap 18): which guard fires, and with which figures."""

import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from .guarding import BASE, HTML, STRICT, reload_refused, start
from .harness import Subject
from .lists import (
    DAY,
    NO_PROXY,
    Feed,
    Unchanged,
    enforced,
    is_logged,
    list_zone,
    log,
    names,
    refresh,
    refused_by,
    reports,
    sha256,
    source,
    sources,
    text_of,
    versions,
)

# ------- Each guard -------

ODD = {
    "HTML": (HTML, "HTML", []),
    "EMPTY": ("# nothing\n\n", "EMPTY", []),
    "TOO_MANY_REJECTED": (
        text_of([*BASE, *["a..example"] * 10]),
        "TOO_MANY_REJECTED",
        ["10", "210", "4.76", "1 %"],
    ),
    "SHRANK": (text_of(BASE[:140]), "SHRANK", ["60 names", "200", "50"]),
    "GREW": (text_of(names(280)), "GREW", ["80 names", "200", "50"]),
    "TRUNCATED": (text_of(BASE)[:-1], "TRUNCATED", []),
}


@pytest.mark.parametrize(("text", "code", "figures"), ODD.values(), ids=ODD.keys())
def test_a_suspicious_list_is_rejected_with_its_figures_and_changes_nothing(
    subject: Subject, text: str | bytes, code: str, figures: list[str]
):
    """Half a list or a login page must not unblock thousands; serial, digest and answers stay."""
    start(subject, guards=STRICT)
    with Unchanged(subject, BASE[0], BASE[-1], "n250.example"):
        subject.put_list("list.txt", text)
        said = reload_refused(subject)
        (line,) = [line for line in said.splitlines() if line.startswith(f"{code}:")]
        assert [figure for figure in figures if figure not in line] == [], line
        assert sha256(text) in said, "what to accept it by"
    found = source(subject)
    assert code in found["rejected"]["codes"]
    assert (found["version"], found["rejected"]["sha256"]) == (1, sha256(text))
    metrics = subject.metrics()
    assert metrics.total("dnsblock_source_rejected", zone="listed") == 1
    assert metrics.total("dnsblock_source_rejections_total", zone="listed") >= 1
    assert is_logged(subject, "listed", code, levels=["error"])


def test_a_replayed_version_is_rejected(subject: Subject):
    """An attacker who can delay updates may replay yesterday's list, which is well-formed."""
    start(subject, guards=STRICT)
    subject.put_list("list.txt", [*BASE, "new.example"])
    subject.reload()
    with Unchanged(subject, "new.example"):
        subject.put_list("list.txt", BASE)
        assert "REPLAYED:" in reload_refused(subject)
    assert source(subject)["rejected"]["codes"] == ["REPLAYED"]


def test_small_changes_pass_the_guards(subject: Subject):
    """A guard that cries every day is switched off by its operator."""
    start(subject, guards=STRICT)
    subject.put_list("list.txt", [*BASE[2:], "new.example"])
    assert subject.reload()["changed"] is True
    assert enforced(subject, BASE[0], BASE[2], "new.example") == [False, True, True]


HALVES = {
    "cut in half": (text_of(BASE[:100]), "SHRANK"),
    "cut in the middle of a name": (text_of(BASE)[:-5], "TRUNCATED"),
    "another list's names beside it": (text_of([*BASE, *names(25, first=5000)]), "GREW"),
}


@pytest.mark.parametrize(("text", "code"), HALVES.values(), ids=HALVES.keys())
@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_file_has_the_guards_against_broken_copies_by_default(
    subject: Subject, place: str, text: bytes, code: str
):
    """Most providers get the ministry's list as a file: half a copy must not unblock half of it."""
    if place == "file":
        start(subject)
    else:
        subject.configure(zones=[list_zone("lists", every_s=DAY)], inbox=None)
        (subject.folder / "lists").mkdir()
        subject.put_list("lists/list.txt", BASE)
        subject.launch()
    with Unchanged(subject, BASE[0], BASE[-1], "n5000.example"):
        subject.put_list("list.txt" if place == "file" else "lists/list.txt", text)
        assert f"{code}:" in reload_refused(subject)
    assert refused_by(subject) == [code]


def test_a_long_file_may_not_lose_a_thousand_names(subject: Subject):
    """A tenth of a national list is a million names: a number is the limit there."""
    lines = names(12_000)
    start(subject, lines=lines)
    subject.put_list("list.txt", lines[:-1001])
    assert "SHRANK: 1,001 names are gone, of 12,000 before: more than 1,000" in reload_refused(subject)
    subject.put_list("list.txt", [*lines, *names(1001, first=50_000)])
    assert "GREW: 1,001 names are new, of 12,000 before: more than 1,000" in reload_refused(subject)
    subject.put_list("list.txt", [*lines[1000:], *names(1000, first=50_000)])
    assert subject.reload()["changed"] is True


@pytest.mark.parametrize(("count", "code"), [(11, None), (49, None), (10, "SHRANK"), (50, "GREW")], ids=str)
def test_fewer_than_twenty_names_of_a_short_list_may_change(subject: Subject, count: int, code: str | None):
    """Of a list of thirty names, each edit by hand is a large share."""
    start(subject, lines=names(30))
    subject.put_list("list.txt", names(count))
    if code is None:
        assert subject.reload()["changed"] is True
    else:
        assert f"{code}:" in reload_refused(subject)


def test_changed_options_for_the_same_content_reject_nothing(subject: Subject):
    """The operator's own configuration is intended: guards are for content from others."""
    zone = list_zone(match="subtree", every_s=DAY)
    subject.start(zones=[zone], lists={"list.txt": BASE}, inbox=None)
    for match, covered in (("exact", [True, False]), ("subtree", [True, True])):
        subject.configure(zones=[zone | {"match": match}], inbox=None)
        subject.reload()
        assert enforced(subject, BASE[0], f"www.{BASE[0]}") == covered


def test_an_edit_of_a_file_may_be_undone(subject: Subject):
    """An operator who restores a file means it: only an old list from a feed is suspicious."""
    start(subject)
    subject.put_list("list.txt", [*BASE, "new.example"])
    subject.reload()
    subject.put_list("list.txt", BASE)
    assert subject.reload()["changed"] is True
    assert enforced(subject, "new.example") == [False]


def test_a_number_of_names_is_a_limit_as_it_is_set(subject: Subject):
    """Twenty is the least for percentages alone: `shrank_names: 0` lets no name go."""
    start(subject, guards={"shrank_names": 0})
    subject.put_list("list.txt", BASE[1:])
    assert "SHRANK:" in reload_refused(subject)


def test_the_printed_command_adds_a_missing_last_line_feed(subject: Subject):
    """A first list has no version before it: what to do is all that helps then."""
    subject.configure(zones=[list_zone("my list.txt", every_s=DAY)], inbox=None)
    subject.put_list("my list.txt", text_of(BASE)[:-1])
    said = subject.cli("check")
    assert said.code == 1
    (reason,) = [one["reason"] for one in said.problems if one["reason"].startswith("TRUNCATED")]
    paste(reason.partition("add a line feed: ")[2])
    subject.launch()
    assert enforced(subject, BASE[-1]) == [True]


def paste(command: str) -> subprocess.CompletedProcess:
    """Runs a command as a person does who copies it unchanged into a shell, from another folder."""
    environment = {key: value for key, value in os.environ.items() if key != "DNSBLOCK_CONFIG"}
    return subprocess.run(
        command, shell=True, cwd="/", env=environment, capture_output=True, text=True, check=True, timeout=60
    )


@pytest.mark.parametrize("where", ["reload", "check", "source list", "log"])
def test_the_command_that_a_rejection_prints_works_unchanged(tmp_path: Path, where: str):
    """A deliberate edit is one command away: with the digest, the reason, and the configuration's file."""
    folder = tmp_path / "it's a folder"  # as a shell would misread it
    folder.mkdir()
    with closing(Subject(folder)) as subject:
        start(subject)
        subject.put_list("list.txt", BASE[:100])
        if where == "check":  # which no daemon has seen yet
            printed = subject.cli("check", as_json=False)
        else:
            printed = subject.cli("reload", as_json=False)
            assert printed.code == 4
        if where == "source list":
            printed = subject.cli("source list", as_json=False)
        text = printed.stdout + printed.stderr
        if where == "log":
            text = "\n".join(log(subject, "error"))
        (command,) = {
            line.partition("To accept this content anyway: ")[2]
            for line in text.splitlines()
            if "To accept this content anyway: " in line
        }
        done = paste(command)
        assert "serving serial 2, 100 names enforced" in done.stdout
        assert enforced(subject, BASE[0], BASE[-1]) == [True, False]
        assert [one["how"] for one in versions(subject)] == ["accepted by hand", "first"]


def test_a_file_has_html_empty_and_rejected_lines_guards_by_default(subject: Subject):
    """A login page, nothing at all, and rubbish are never what somebody wanted to write."""
    start(subject)
    with Unchanged(subject, *BASE[:2]):
        for text, code in (
            (HTML, "HTML"),
            ("", "EMPTY"),
            (text_of([*BASE, *["a..b"] * 5]), "TOO_MANY_REJECTED"),
        ):
            subject.put_list("list.txt", text)
            assert f"{code}:" in reload_refused(subject)


def test_each_source_has_its_own_guards(subject: Subject):
    """One list is written by hand and one by a ministry: each has limits of its own."""
    zones = [
        list_zone(
            "strict.txt", name="strict", every_s=DAY, guards={"shrank_percent": 1, "shrank_names": "off"}
        ),
        list_zone("lax.txt", name="lax", every_s=DAY, guards={"shrank_percent": 60, "shrank_names": "off"}),
    ]
    subject.start(zones=zones, lists={"strict.txt": BASE, "lax.txt": BASE}, inbox=None)
    subject.put_list("strict.txt", BASE[:100])
    subject.put_list("lax.txt", BASE[:100])
    said = subject.cli("reload")
    assert said.code == 4
    assert {problem["file"].rpartition("/")[2] for problem in said.problems} == {"strict.txt"}
    found = {name: (one["version"], one["entries"]) for name, one in sources(subject).items()}
    assert found == {"strict": (1, 200), "lax": (2, 100)}, "the other list goes on"


@pytest.mark.parametrize(
    "guards", [{"shrank_percent": "off", "shrank_names": 50}, {"shrank_percent": 20, "shrank_names": "off"}]
)
def test_one_of_two_limits_is_enough(subject: Subject, guards: dict):
    """A share is too much of a short list, a number too many of a long one."""
    start(subject, guards=guards)
    subject.put_list("list.txt", BASE[:140])
    assert "SHRANK:" in reload_refused(subject)


def test_rejected_percent_0_rejects_a_list_with_one_invalid_line(subject: Subject):
    """`rejected_percent: 0`: a list of one's own has no invalid line."""
    start(subject, guards={"rejected_percent": 0})
    subject.put_list("list.txt", [*BASE, "a..example"])
    assert "TOO_MANY_REJECTED: 1 of 201" in reload_refused(subject)


def test_a_feed_has_all_guards_on_by_default(subject: Subject, authority, web):
    """Others write it: large changes, a truncated last line and an old version are suspicious."""
    lines = names(3000)
    feed = Feed(web, text_of(lines))
    subject.environment.update(NO_PROXY)
    subject.start(zones=[feed.zone(authority.pem)], inbox=None)
    feed.put(text_of([*lines, "new.example"]))
    assert refresh(subject).code == 0
    grown = text_of([*lines, "new.example", *(f"more.{name}" for name in names(200_000))])
    with Unchanged(subject, "new.example", lines[-1], "more.n5.example"):
        for text, code in (
            (text_of(lines[:1500]), "SHRANK"),
            (text_of([*lines, "new.example", "newer.example"])[:-1], "TRUNCATED"),
            (text_of(lines), "REPLAYED"),
            (grown, "GREW"),
        ):
            feed.put(text)
            said = refresh(subject)
            assert said.code == 4, (code, said)
            assert any(code in problem["reason"] for problem in said.problems), (code, said)
            assert code in refused_by(subject)


def test_a_few_names_of_a_short_feed_may_change(subject: Subject, authority, web):
    """0.5 % of a feed of 300 names is one name: the least for a share is 20 names there, too."""
    feed = Feed(web, text_of(names(300)))
    subject.environment.update(NO_PROXY)
    subject.start(zones=[feed.zone(authority.pem)], inbox=None)
    feed.put(text_of([*names(281), *names(19, first=5000)]))
    assert refresh(subject).code == 0
    feed.put(text_of(names(261)))
    assert refresh(subject).code == 4
    assert refused_by(subject) == ["SHRANK"]


def test_a_guard_that_is_switched_off_for_a_feed_is_off(subject: Subject, authority, web):
    """The operator decides which changes are suspicious."""
    lines = names(3000)
    feed = Feed(web, text_of(lines))
    subject.environment.update(NO_PROXY)
    off = dict.fromkeys(["shrank_percent", "shrank_names", "grew_percent", "grew_names"], "off")
    guards = off | {"truncated": "accept", "replayed": "accept"}
    subject.start(zones=[feed.zone(authority.pem, guards=guards)], inbox=None)
    for text in (text_of(lines[:10])[:-1], text_of(lines)):
        feed.put(text)
        assert refresh(subject).code == 0


# ------- What unblocks without a name that is gone -------

NARROWED = {
    "a header": "[Adblock Plus 2.0]\n" + "".join(f"{name}\n" for name in BASE),
    "hosts lines": "".join(f"0.0.0.0 {name}\n" for name in BASE),
    "wildcards": "".join(f"*.{name}\n" for name in BASE),
    "exceptions below": "".join(f"||{name}^\n@@||www.{name}^\n" for name in BASE),
}


@pytest.mark.parametrize("text", NARROWED.values(), ids=NARROWED.keys())
def test_names_that_cover_less_or_are_exempt_count_as_removed(subject: Subject, text: str):
    """One line, or another format, may unblock all that is below each name, and no name need be missing."""
    start(subject, guards={"shrank_percent": 10, "grew_names": "off", "grew_percent": "off"})
    with Unchanged(subject, BASE[0], f"www.{BASE[0]}"):
        subject.put_list("list.txt", text)
        assert "200 names cover less: 0 are gone, 200 are narrower or exempt now" in reload_refused(subject)
    assert "SHRANK" in refused_by(subject)


def test_names_that_cover_more_count_as_added(subject: Subject):
    """Where each name was meant alone, all that is below is blocked now."""
    hosts = [f"0.0.0.0 {name}" for name in BASE]
    start(subject, guards={"grew_percent": 10}, lines=hosts)
    with Unchanged(subject, BASE[0], f"www.{BASE[0]}"):
        subject.put_list("list.txt", BASE)
        assert "GREW: 200 names cover more: 0 are new, 200 are wider" in reload_refused(subject)


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"{name} CNAME rpz-passthru.\n" for name in BASE),
        "".join(f"||{name}^\n@@||{name}^\n" for name in BASE),
    ],
    ids=["rpz", "adblock"],
)
def test_a_list_of_exceptions_only_is_empty(subject: Subject, text: str):
    """It blocks nothing, however long it is."""
    start(subject)
    with Unchanged(subject, *BASE[:2]):
        subject.put_list("list.txt", text)
        assert "EMPTY: all names in the list are exempt" in reload_refused(subject)


def test_exceptions_do_not_count_as_enforced_names(subject: Subject):
    """The number that an operator reports is that of blocked names."""
    start(subject, lines=["||a.example^", "||b.example^", "@@||www.a.example^", "@@||c.example^"])
    assert subject.ready["entries"] == source(subject)["entries"] == versions(subject)[0]["entries"] == 2


def test_a_changed_format_of_a_list_is_reported(subject: Subject):
    """The same names mean different things in different formats: log and `source list` report it."""
    start(subject, guards={"shrank_percent": "off", "grew_percent": "off"})
    subject.put_list("list.txt", [f"0.0.0.0 {name}" for name in BASE])
    report = reports(subject.cli("check"))["listed"]
    assert (report["format"], report["former_format"]) == ("hosts", "plain")
    subject.reload()
    assert is_logged(subject, "listed", "hosts", "previously plain", levels=["warning"])
    assert source(subject)["report"]["former_format"] == "plain"
    assert "hosts, was plain" in subject.cli("source list", as_json=False).stdout
    subject.put_list("list.txt", [f"0.0.0.0 {name}" for name in [*BASE, "new.example"]])
    subject.reload()
    assert source(subject)["report"]["former_format"] == ""
