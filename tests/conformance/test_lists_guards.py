"""When a whole list is too odd to be taken (trap 18): which guard says so, and who may overrule it."""

import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from .harness import ORDERS_ZONE, Subject
from .lists import (
    DAY,
    NO_PROXY,
    Feed,
    Unchanged,
    accept,
    break_list,
    enforced,
    events,
    is_logged,
    list_zone,
    log,
    names,
    refresh,
    refused_by,
    reports,
    roll_back,
    sha256,
    source,
    sources,
    text_of,
    told,
    versions,
    wait_enforced,
    wait_kept,
    wait_refused,
)
from .orders import block
from .tools import wait_for

HTML = "<!DOCTYPE html>\n<html><head><title>Login</title></head>\n<body>502 Bad Gateway</body></html>\n"
BASE = names(200)
STRICT = {
    "shrank_percent": 10,
    "shrank_names": 50,
    "grew_percent": 10,
    "grew_names": 50,
    "truncated": "refuse",
    "replayed": "refuse",
}


def start(subject: Subject, *, guards: dict | None = None, lines: list[str] = BASE, **config: object) -> None:
    zone = list_zone(guards=guards, every_s=DAY) if guards else list_zone(every_s=DAY)
    subject.start(zones=[zone], lists={"list.txt": lines}, inbox=None, **config)


def reload_refused(subject: Subject) -> str:
    """`reload` with a list that is not taken: exit code 4; all that it says about the whole list."""
    said = subject.cli("reload")
    assert said.code == 4, said
    assert any("list.txt" in problem["file"] for problem in said.problems)
    assert "list.txt" in said.stderr
    return "\n".join(problem["reason"] for problem in said.problems)


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
def test_an_odd_list_is_refused_with_its_figures_and_changes_nothing(
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
    assert code in found["refused"]["codes"]
    assert (found["version"], found["refused"]["sha256"]) == (1, sha256(text))
    metrics = subject.metrics()
    assert metrics.total("dnsblock_source_rejected", zone="listed") == 1
    assert metrics.total("dnsblock_source_rejections_total", zone="listed") >= 1
    assert is_logged(subject, "listed", code, levels=["error"])


def test_a_version_that_was_there_before_is_refused(subject: Subject):
    """Who can hold back an update serves yesterday's list, which is whole and well-formed."""
    start(subject, guards=STRICT)
    subject.put_list("list.txt", [*BASE, "new.example"])
    subject.reload()
    with Unchanged(subject, "new.example"):
        subject.put_list("list.txt", BASE)
        assert "REPLAYED:" in reload_refused(subject)
    assert source(subject)["refused"]["codes"] == ["REPLAYED"]


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


def test_another_option_for_the_same_content_is_no_reason_to_reject(subject: Subject):
    """What the operator sets in the configuration is meant: a guard is for what comes from elsewhere."""
    zone = list_zone(match="subtree", every_s=DAY)
    subject.start(zones=[zone], lists={"list.txt": BASE}, inbox=None)
    for match, covered in (("exact", [True, False]), ("subtree", [True, True])):
        subject.configure(zones=[zone | {"match": match}], inbox=None)
        subject.reload()
        assert enforced(subject, BASE[0], f"www.{BASE[0]}") == covered


def test_an_edit_of_a_file_may_be_undone(subject: Subject):
    """Who puts the old file back means it: only a feed's old list is suspicious."""
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


def test_a_file_without_its_last_line_feed_is_put_right_by_the_printed_command(subject: Subject):
    """A first list has no version before it: what to do is all that helps then."""
    subject.configure(zones=[list_zone("my list.txt", every_s=DAY)], inbox=None)
    subject.put_list("my list.txt", text_of(BASE)[:-1])
    said = subject.cli("check")
    assert said.code == 1
    (reason,) = [one["reason"] for one in said.problems if one["reason"].startswith("TRUNCATED")]
    paste(reason.partition("add the line feed: ")[2])
    subject.launch()
    assert enforced(subject, BASE[-1]) == [True]


def paste(command: str) -> subprocess.CompletedProcess:
    """Runs a command as a person does who copies it into a shell, from another folder and as it stands."""
    environment = {key: value for key, value in os.environ.items() if key != "DNSBLOCK_CONFIG"}
    return subprocess.run(
        command, shell=True, cwd="/", env=environment, capture_output=True, text=True, check=True, timeout=60
    )


@pytest.mark.parametrize("where", ["reload", "check", "source list", "log"])
def test_the_command_that_a_rejection_prints_works_as_it_stands(tmp_path: Path, where: str):
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


def test_the_guards_that_a_file_has_always_are_on_by_default(subject: Subject):
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
    """One list is written by hand and one by a ministry: what is too odd is said for each."""
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


def test_any_rejected_line_refuses_where_none_is_allowed(subject: Subject):
    """`rejected_percent: 0`: a list of one's own has no line that nobody understands."""
    start(subject, guards={"rejected_percent": 0})
    subject.put_list("list.txt", [*BASE, "a..example"])
    assert "TOO_MANY_REJECTED: 1 of 201" in reload_refused(subject)


def test_a_feed_has_all_guards_on_by_default(subject: Subject, authority, web):
    """Others write it: half of it gone, much more of it, a cut last line and an old version are odd."""
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
    """What is too odd is for the operator to say."""
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
def test_names_that_cover_less_or_are_excepted_count_as_gone(subject: Subject, text: str):
    """One line, or another format, may unblock all that is below each name, and no name need be missing."""
    start(subject, guards={"shrank_percent": 10, "grew_names": "off", "grew_percent": "off"})
    with Unchanged(subject, BASE[0], f"www.{BASE[0]}"):
        subject.put_list("list.txt", text)
        assert "200 names cover less: 0 are gone, 200 are narrower or excepted now" in reload_refused(subject)
    assert "SHRANK" in refused_by(subject)


def test_names_that_cover_more_count_as_new(subject: Subject):
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
def test_a_list_of_exceptions_alone_is_empty(subject: Subject, text: str):
    """It blocks nobody, however long it is."""
    start(subject)
    with Unchanged(subject, *BASE[:2]):
        subject.put_list("list.txt", text)
        assert "EMPTY: the list excepts all that it names" in reload_refused(subject)


def test_exceptions_are_no_names_that_are_enforced(subject: Subject):
    """The number that an operator reports is that of blocked names."""
    start(subject, lines=["||a.example^", "||b.example^", "@@||www.a.example^", "@@||c.example^"])
    assert subject.ready["entries"] == source(subject)["entries"] == versions(subject)[0]["entries"] == 2


def test_a_list_that_is_read_in_another_format_is_told(subject: Subject):
    """The same names mean another thing in another format: who reads the log or asks sees it."""
    start(subject, guards={"shrank_percent": "off", "grew_percent": "off"})
    subject.put_list("list.txt", [f"0.0.0.0 {name}" for name in BASE])
    report = reports(subject.cli("check"))["listed"]
    assert (report["format"], report["former_format"]) == ("hosts", "plain")
    subject.reload()
    assert is_logged(subject, "listed", "hosts", "plain before", levels=["warning"])
    assert source(subject)["report"]["former_format"] == "plain"
    assert "hosts, was plain" in subject.cli("source list", as_json=False).stdout
    subject.put_list("list.txt", [f"0.0.0.0 {name}" for name in [*BASE, "new.example"]])
    subject.reload()
    assert source(subject)["report"]["former_format"] == ""


# ------- What no list may block -------


def test_what_no_list_may_block_is_left_out_and_alerted(subject: Subject):
    """One entry `co.id`, or a bank's own name, would block thousands; the other entries are enforced."""
    lists = {"list.txt": [*BASE, "co.id", "bank.example", "www.clinic.example", "id"]}
    config = {
        "zones": [list_zone(every_s=DAY)],
        "protected": ["bank.example", "clinic.example"],
        "inbox": None,
    }
    subject.configure(lists=lists, **config)
    report = reports(subject.cli("check"))["listed"]
    left_out = {value for _, _, value, _ in told(report, "left out")}
    assert {"co.id", "bank.example"} <= left_out
    reasons = {one["value"]: one["reason"] for one in report["told"]}
    assert "PUBLIC_SUFFIX" in reasons["co.id"]
    assert "PROTECTED" in reasons["bank.example"]
    subject.launch()
    assert enforced(subject, "bank.example", "www.bank.example", "a.co.id", "a.id", BASE[7]) == [
        False
    ] * 4 + [True]
    assert is_logged(subject, "listed", "co.id", "PUBLIC_SUFFIX", levels=["warning"])
    counted = {"public_suffix": 1, "protected": 2}
    for reason, count in counted.items():  # what the alert goes by
        metrics = subject.metrics()
        assert metrics.total("dnsblock_source_rejected_lines", zone="listed", reason=reason) == count
    assert is_logged(subject, "listed", "bank.example", "PROTECTED", levels=["warning"])


def test_how_many_lines_are_left_out_is_told_where_they_are_not_all(subject: Subject):
    """A hundred lines are enough for a log, but not to know that there were more."""
    start(
        subject,
        lines=[*BASE, *(f"n{number}.bank.example" for number in range(150))],
        protected=["bank.example"],
    )
    assert is_logged(subject, "listed", "n99.bank.example", levels=["warning"])
    assert is_logged(subject, "listed", "and 50 more lines", levels=["warning"])


def test_the_name_alone_above_a_protected_one_may_be_listed(subject: Subject):
    """It blocks nothing of what is protected."""
    subject.start(
        zones=[list_zone(match="exact", every_s=DAY)],
        protected=["login.bank.example"],
        lists={"list.txt": ["bank.example"]},
        inbox=None,
    )
    assert enforced(subject, "bank.example", "login.bank.example") == [True, False]


def test_an_entry_above_a_protected_name_is_left_out_too(subject: Subject):
    """A subtree entry blocks all that is below it, and so the protected name there."""
    subject.start(
        zones=[list_zone(every_s=DAY)],
        protected=["login.bank.example"],
        lists={"list.txt": ["bank.example", "other.example"]},
        inbox=None,
    )
    assert enforced(subject, "login.bank.example", "other.example") == [False, True]
    assert is_logged(subject, "PROTECTED", "bank.example", levels=["warning"])


def test_an_order_may_block_what_no_list_may(subject: Subject):
    """Protected names are protected from lists: an order is signed for by an authority."""
    zones = [list_zone(every_s=DAY), ORDERS_ZONE]
    orders = [block("B-1", ["bank.example"])]
    subject.start(zones=zones, protected=["bank.example"], lists={"list.txt": BASE}, orders=orders)
    assert enforced(subject, "bank.example") == [True]


def test_a_name_that_becomes_protected_is_unblocked_by_a_reload(subject: Subject):
    """A feed blocks the provider's own name at night: one line and a reload end it."""
    config = {
        "zones": [list_zone(every_s=DAY)],
        "lists": {"list.txt": ["bank.example", *BASE]},
        "inbox": None,
    }
    subject.start(**config)
    assert enforced(subject, "bank.example", BASE[0]) == [True, True]
    subject.configure(protected=["bank.example"], **config)
    subject.reload()
    assert enforced(subject, "bank.example", BASE[0]) == [False, True]
    subject.configure(**config)
    subject.reload()
    assert enforced(subject, "bank.example", BASE[0]) == [True, True]


@pytest.mark.parametrize("how", ["gone", "a page"])
def test_a_name_that_becomes_protected_is_unblocked_while_the_list_is_broken(subject: Subject, how: str):
    """At night the feed is an error page, and a bank is on it: what is enforced is the version of before."""
    config = {
        "zones": [list_zone(every_s=DAY)],
        "lists": {"list.txt": ["bank.example", *BASE]},
        "inbox": None,
    }
    subject.start(**config)
    wait_kept(subject)
    break_list(subject, how)
    assert subject.cli("reload").code == 4
    assert enforced(subject, "bank.example", BASE[0]) == [True, True]
    subject.configure(protected=["bank.example"], zones=config["zones"], inbox=None)
    assert subject.cli("reload").code == 4, "the text of now is refused as before"
    assert enforced(subject, "bank.example", BASE[0]) == [False, True]
    assert versions(subject)[0]["how"] == "settings"
    subject.restart()
    assert enforced(subject, "bank.example", BASE[0]) == [False, True]
    subject.put_list("list.txt", ["bank.example", *BASE, "new.example"])
    subject.reload()
    assert enforced(subject, "bank.example", "new.example") == [False, True]


def test_a_rollback_leaves_out_what_is_protected_today(subject: Subject):
    """What no list may block by now is no part of any list, however old."""
    zones = [list_zone(every_s=DAY)]
    subject.start(zones=zones, lists={"list.txt": ["bank.example", *BASE]}, inbox=None)
    wait_kept(subject)
    subject.configure(protected=["bank.example"], zones=zones, inbox=None)
    subject.reload()
    subject.put_list("list.txt", [*BASE, "new.example"])
    subject.reload()
    assert roll_back(subject, 1).code == 0
    for again in (lambda: None, subject.reload, subject.restart):
        again()
        assert enforced(subject, "bank.example", BASE[0], "new.example") == [False, True, False]


def test_a_public_suffix_is_listed_where_that_is_accepted(subject: Subject):
    """Who really means a whole suffix says so for this source."""
    start(subject, guards={"public_suffix": "accept"}, lines=["co.id", "a.example"])
    assert enforced(subject, "any.co.id", "a.example") == [True, True]


# ------- By hand -------


def test_a_refused_list_is_taken_by_its_digest_and_put_on_record(subject: Subject):
    """Who overrules a guard names the digest of the text that was looked at, and a reason that stays."""
    start(subject, guards=STRICT)
    subject.put_list("list.txt", BASE[:20])
    reload_refused(subject)
    digest = source(subject)["refused"]["sha256"]
    said = accept(subject, digest, reason="the ministry cleaned up")
    assert said.code == 0, said
    assert (said.json["entries"], said.json["serial"]) == (20, subject.ready["serial"] + 1)
    assert enforced(subject, BASE[0], BASE[30]) == [True, False]
    by_hand = [event for event in events(subject) if "hand" in event["kind"]]
    assert [(event["sha256"], "the ministry cleaned up" in event["message"]) for event in by_hand] == [
        (digest, True)
    ]
    assert versions(subject)[0]["sha256"] == digest
    assert refused_by(subject) == []
    subject.reload()
    subject.restart()
    assert enforced(subject, BASE[0], BASE[30]) == [True, False]


def test_a_first_version_that_is_refused_is_taken_by_its_digest(subject: Subject):
    """`missing: start`: the digest is shown, below however many lines that are wrong."""
    bad = [f"a..{number}.example" for number in range(30)]
    zone = list_zone(every_s=1, missing="start")
    subject.start(zones=[zone], lists={"list.txt": [*BASE[:20], *bad]}, inbox=None)
    digest = sha256(text_of([*BASE[:20], *bad]))
    shown = subject.cli("source list", as_json=False)
    assert (shown.code, f"dnsblock source accept listed {digest}" in shown.stdout) == (1, True)
    assert accept(subject, digest).code == 0
    assert enforced(subject, BASE[0]) == [True]


def test_the_way_back_from_an_accepted_list_of_nothing_is_open(subject: Subject):
    """The operator may empty a list; the next text that names something is taken, and a restart works."""
    start(subject, guards=STRICT)
    subject.put_list("list.txt", "# nothing any more\n")
    reload_refused(subject)
    assert accept(subject, sha256("# nothing any more\n")).code == 0
    assert enforced(subject, BASE[0]) == [False]
    subject.restart()
    subject.put_list("list.txt", BASE)
    subject.reload()
    assert enforced(subject, BASE[0]) == [True]
    subject.restart()
    assert enforced(subject, BASE[0]) == [True]
    assert [one["entries"] for one in versions(subject)] == [200, 0, 200]


def test_an_acceptance_is_for_a_text_as_it_was_read_and_for_what_was_wrong(subject: Subject):
    """Who accepts that a list shrank has not accepted that it is read as something else, and is empty."""
    zone = list_zone(guards=STRICT, every_s=DAY)
    subject.start(zones=[zone], lists={"list.txt": BASE}, inbox=None)
    subject.put_list("list.txt", BASE[:50])
    reload_refused(subject)
    assert accept(subject, sha256(text_of(BASE[:50]))).code == 0
    zone["source"]["format"] = "hosts"
    subject.configure(zones=[zone], inbox=None)
    with Unchanged(subject, BASE[0], BASE[60]):
        assert "EMPTY:" in reload_refused(subject)
        assert set(refused_by(subject)) == {"EMPTY", "TOO_MANY_REJECTED"}
    assert [one["how"] for one in versions(subject)] == ["accepted by hand", "first"]
    assert accept(subject, sha256(text_of(BASE[:50]))).code == 0, "it may be accepted as it is read now"
    assert enforced(subject, BASE[0]) == [False]


def test_a_wrong_digest_is_refused(subject: Subject):
    """A digest is of one text: a typing error or last week's digest accepts nothing."""
    start(subject, guards=STRICT)
    subject.put_list("list.txt", BASE[:20])
    reload_refused(subject)
    digest = sha256(text_of(BASE[:20]))
    with Unchanged(subject, *BASE[:50:7]):
        wrong = digest[:-1] + ("0" if digest[-1] != "0" else "1")
        for asked in (wrong, sha256(b""), digest[:12], "x" * 64, "sha256:" + "0" * 57):
            assert accept(subject, asked).code == 4, asked
        assert accept(subject, digest, zone="nosuch").code == 4
    assert accept(subject, digest).code == 0


def test_a_text_that_has_changed_meanwhile_is_not_accepted(subject: Subject):
    """Between the look and the command another text came: it was not looked at."""
    start(subject, guards=STRICT)
    subject.put_list("list.txt", BASE[:20])
    reload_refused(subject)
    digest = source(subject)["refused"]["sha256"]
    subject.put_list("list.txt", BASE[:3])
    with Unchanged(subject, *BASE[:50:7]):
        assert accept(subject, digest).code == 4
    assert [event for event in events(subject) if "hand" in event["kind"]] == [], "nothing was accepted"
    subject.put_list("list.txt", BASE[:20])
    assert "SHRANK:" in reload_refused(subject), "what was refused once is not accepted behind one's back"


def test_what_was_accepted_is_measured_by_afterwards(subject: Subject):
    """The list that was accepted by hand is the one that the next is compared with."""
    start(subject, guards=STRICT)
    subject.put_list("list.txt", BASE[:20])
    reload_refused(subject)
    assert accept(subject, sha256(text_of(BASE[:20]))).code == 0
    subject.put_list("list.txt", [*BASE[:20], "new.example"])
    assert subject.reload()["changed"] is True
    subject.put_list("list.txt", BASE)
    assert "GREW:" in reload_refused(subject)


def test_a_refused_list_that_is_put_right_is_taken_at_once(subject: Subject):
    """No guard is to be reset: the next good text is the list, and nothing is refused any more."""
    subject.start(zones=[list_zone(every_s=1)], lists={"list.txt": BASE}, inbox=None)
    subject.put_list("list.txt", HTML)
    wait_refused(subject)
    subject.put_list("list.txt", [*BASE, "new.example"])
    wait_enforced(subject, "new.example")
    wait_for(lambda: subject.metrics().total("dnsblock_source_rejected") == 0, "nothing is refused any more")
    assert refused_by(subject) == []


def test_a_reload_says_that_a_list_is_refused_whoever_looked_first(subject: Subject):
    """Between the new file and the reload the watching may have come: the exit code does not depend on it."""
    subject.start(zones=[list_zone(every_s=1)], lists={"list.txt": BASE}, inbox=None)
    subject.put_list("list.txt", HTML)
    wait_refused(subject)
    assert "HTML:" in reload_refused(subject)


def test_addresses_and_names_that_are_left_out_are_no_rubbish(subject: Subject):
    """A feed with addresses among its names is a good list: they count as rejected, and refuse nothing."""
    odd = [f"192.0.2.{number}" for number in range(50)] + ["co.id", "web.id"]
    start(subject, lines=[*BASE, *odd])
    report = source(subject)["report"]
    assert (report["accepted"], report["rejected"]) == (len(BASE), len(odd))
    assert report["rejected_by"]["address"] == 50


def test_the_same_refusal_is_one_event_however_often_it_is_looked_at(subject: Subject):
    """The record of a night is read by one person: the same text refused again is the same event."""
    subject.start(zones=[list_zone(every_s=DAY)], lists={"list.txt": BASE}, inbox=None)
    for _ in range(3):
        subject.put_list("list.txt", HTML)
        subject.cli("reload")
    assert [event["code"] for event in events(subject) if event["kind"] == "refused"].count("HTML") == 1
