"""Output of commands for people: narrow terminals, pipes, and time zones."""

import os
import pty
import re
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from .harness import ORDERS_ZONE, PROFILES, Subject
from .lists import DAY, list_zone
from .orders import block, stamp, unblock
from .tools import dnsblock

ORDER = "PRESIDENTIAL-ADVISORY-BOARD-2026-000000000000001"
LIFTING = "PRESIDENTIAL-ADVISORY-BOARD-2026-000000000000002"
NAME = "a-name-that-is-as-long-as.those.in-lists-of-generated-domains-are.example"
ZONE = {"name": "a-zone-with-quite-a-long-name", "list": "list.txt", "answer": "sinkhole"}
FUTURE = datetime(2099, 1, 1, tzinfo=UTC)
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d WIB")


@pytest.fixture(scope="module")
def running(shared_subject: Subject) -> Subject:
    """Serial 1: a list and an order. Serial 2: the order is unblocked. One more order is scheduled."""
    subject = shared_subject
    subject.start(
        zones=[ORDERS_ZONE, list_zone(name=ZONE["name"], every_s=DAY)],
        orders=[block(ORDER, [NAME, "b.example"])],
        lists={"list.txt": [NAME, "c.example"]},
        time_zone="Asia/Jakarta",
        answers=PROFILES,
    )
    subject.put_list("list.txt", [NAME, "d.example"])
    subject.put_order(unblock(LIFTING, ORDER))
    subject.put_order(block("FUTURE-1", ["later.example"], effective_at=stamp(FUTURE)))
    subject.reload()
    return subject


COMMANDS = {
    "check": ["check"],
    "status": ["status"],
    "why": ["why", NAME],
    "source list": ["source", "list"],
    "versions": ["versions"],
    "versions of a list": ["versions", ZONE["name"]],
    "history": ["history", NAME],
    "diff": ["diff", "1", "2"],
}


def on_terminal(subject: Subject, *command: str, columns: int = 80) -> str:
    """The output on a terminal of this width."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "dumb"}
    line = [dnsblock(), *command, "-c", str(subject.config_path)]
    process = subprocess.Popen(line, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # EIO: the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    process.wait(30)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")


def words_of(subject: Subject, command: list[str]) -> set[str]:
    """Words that somebody may want to copy: names, identifiers, digests, and printed times."""
    shown = subject.cli(*command[:1], *command[1:], as_json=False).stdout if command[0] != "source" else ""
    shown = shown or subject.cli("source list", as_json=False).stdout
    words = set(re.findall(r"sha256:[0-9a-f]{64}", shown)) | set(TIME.findall(shown))
    return words | {word for word in (ORDER, LIFTING, NAME, ZONE["name"], "FUTURE-1") if word in shown}


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_identifier_name_or_time_is_broken_on_a_narrow_terminal(
    running: Subject, command: list[str], columns: int
):
    """Whatever can be copied from a pipe can be copied from a terminal of 80 columns."""
    words = words_of(running, command)
    assert words, "the command prints something to copy"
    shown = on_terminal(running, *command, columns=columns)
    for word in words:
        assert word in shown, f"{word} is broken in:\n{shown}"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_row_in_a_pipe_is_one_line(running: Subject, command: list[str]):
    """grep, awk and cut work on lines."""
    name, *rest = ["source list"] if command[0] == "source" else command
    running.environment = {"COLUMNS": "40"}
    narrow = running.cli(name, *rest, as_json=False).stdout
    running.environment = {}
    wide = running.cli(name, *rest, as_json=False).stdout
    # Rates and ages change from one to the next.
    assert [re.sub(r"[0-9.]+", "0", line).split() for line in narrow.splitlines()] == [
        re.sub(r"[0-9.]+", "0", line).split() for line in wide.splitlines()
    ]
    # A title and rows below it, each with all of its cells in one line.
    if command == ["versions"]:
        assert [line.split()[0] for line in wide.splitlines()] == ["serial", "2", "1"]


@pytest.mark.parametrize(
    "command",
    [["status"], ["versions"], ["history", NAME], ["diff", "1", "2"], ["why", NAME, "--at", "2026-01-01"]],
)
def test_times_are_shown_in_the_configured_time_zone_with_its_name(running: Subject, command: list[str]):
    """Every command uses the same time zone, so that two outputs can be compared."""
    shown = running.cli(*command, as_json=False).stdout
    times = re.findall(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\S| [A-Z]{2,5})?\S*", shown)
    assert times
    assert all(TIME.fullmatch(time.rstrip(",")) for time in times), times


def test_why_at_a_future_time_shows_the_schedule(running: Subject):
    """`why --at` a future time includes orders that take effect until then, and marks the answer."""
    for at, code, words in (
        (
            FUTURE + timedelta(days=1),
            0,
            "blocked at 2099-01-02 07:00:00 WIB (as scheduled today)",
        ),
        (FUTURE - timedelta(days=1), 1, "not blocked at 2098-12-31 07:00:00 WIB"),
    ):
        said = running.cli("why", "later.example", "--at", at.isoformat(), as_json=False)
        assert (said.code, f"later.example: {words}" in said.stdout) == (code, True), said.stdout
        assert "may change it" in said.stdout
    past = running.cli("why", "later.example", "--at", "2026-01-01T00:00:00Z")
    assert past.json["is_scheduled"] is False


def test_why_and_history_show_scheduled_orders(running: Subject):
    """An accepted order that is not in force yet must be visible for its names."""
    for command in ("why", "history"):
        said = running.cli(command, "www.later.example")
        assert [(one["what"], one["by"]) for one in said.json["scheduled"]] == [
            ("in force", "order FUTURE-1")
        ]
        shown = running.cli(command, "www.later.example", as_json=False).stdout
        assert re.search(r"scheduled:\n.*\n2099-01-01 07:00:00 WIB +ministry +in force", shown), shown
    assert running.cli("why", "www.later.example").json["verdict"] == "not blocked"
    assert running.cli("history", "www.later.example").json["events"] == []
