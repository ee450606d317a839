"""Reports of `reload` and `status`: first the changes, then the problems, each of them once."""

import json
import shlex
from collections import Counter
from pathlib import Path

import pytest

from .harness import ORDERS_ZONE, PROFILES, Subject
from .lists import DAY, accept, list_zone, names
from .orders import block, exempt, unblock
from .tools import dnsblock, run

BASE = names(300)
ZONES = [ORDERS_ZONE, list_zone(every_s=DAY)]
NODATA = PROFILES | {"sinkhole": {"action": "nodata", "ttl": 30}}


def start(subject: Subject, **more: object) -> None:
    subject.start(zones=ZONES, lists={"list.txt": BASE}, time_zone="Asia/Jakarta", **more)


def reload_shown(subject: Subject) -> str:
    said = subject.cli("reload", as_json=False)
    assert said.code == 0, said
    return said.stdout


def test_reload_reports_names_orders_and_options_that_changed(subject: Subject):
    """One line for each zone and order, before anything else."""
    start(subject, orders=[block("B-1", ["a.example", "b.example"])])
    subject.put_list("list.txt", [*BASE[2:], "new.example"])
    subject.put_order(block("B-2", ["b.example", "c.example"]))
    subject.put_order(unblock("U-1", "B-1"))
    subject.put_order(exempt("E-1", ["d.example"]))
    assert reload_shown(subject).splitlines() == [
        "now serving serial 2, 301 names enforced",
        "  zone ministry: 2 names added, 1 removed",
        "  zone listed: 1 name added, 2 removed",
        "  accepted: blocked by order B-2 of ministry.example, 2 entries (active)",
        "  accepted: exempted by order E-1 of ministry.example, 1 entry (active)",
        "  accepted: lifted by order U-1 of ministry.example, 2 entries (active)",
    ]
    assert reload_shown(subject) == "nothing changed: still serving serial 2, 301 names enforced\n"


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"access_control": {"allow": ["127.0.0.0/8", "::1/128"]}}, "access_control.allow"),
        ({"limits": {"queries_per_second": 77}}, "limits.queries_per_second"),
        ({"answers": NODATA}, "answers.sinkhole.action"),
        ({"cache": {"size_mb": 1, "max_ttl": 77}}, "cache.max_ttl, cache.size_mb"),
        ({"protected": ["bank.example"]}, "protected"),
        ({"zones": [ORDERS_ZONE | {"targets": "ignore"}, ZONES[1]]}, "zones.ministry.targets"),
        ({"zones": ZONES[::-1]}, "zones (their order)"),
        ({"history": {"generations": 7}}, "history.generations"),
    ],
)
def test_a_changed_option_is_reported_by_name(subject: Subject, options: dict, changed: str):
    """It is not "nothing changed" when others may ask, or get another answer."""
    start(subject)
    subject.configure(**({"zones": ZONES, "time_zone": "Asia/Jakarta"} | options))
    said = subject.cli("reload", as_json=False)
    assert "nothing changed" not in said.stdout
    (line,) = [line for line in said.stdout.splitlines() if "options changed" in line]
    assert set(changed.split(", ")) <= set(line.removeprefix("  options changed: ").split(", ")), said.stdout
    assert "nothing changed" in reload_shown(subject)


FEED = list_zone("https://127.0.0.1:1/list", name="feed", missing="start", ca="ca.pem", authorization="token")
FILES = {
    "cookies.secrets": "secrets",
    "zones.feed.source.ca": "ca.pem",
    "zones.feed.source.authorization": "token",
}
SECRETS = ["00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"]


@pytest.mark.parametrize("option", FILES)
def test_new_content_of_a_file_that_an_option_names_is_reported(subject: Subject, option: str):
    """A roll-over of secrets or certificates leaves the path as it is. A broken file is no new content."""
    path = subject.folder / FILES[option]
    for name in FILES.values():
        (subject.folder / name).write_text(f"{SECRETS[0]}\n")
        (subject.folder / name).chmod(0o600)
    subject.start(zones=[ORDERS_ZONE, FEED], cookies={"secrets": "secrets"})
    assert "options changed" not in subject.cli("reload", as_json=False).stdout
    path.write_text(f"{SECRETS[1]}\n")
    said = subject.cli("reload", as_json=False)
    assert f"  options changed: {option} (file)\n" in said.stdout
    assert not any(secret in f"{said}{subject.stderr()}" for secret in SECRETS)
    path.unlink()
    assert "options changed" not in subject.cli("reload", as_json=False).stdout
    path.write_text(f"{SECRETS[1]}\n")
    path.chmod(0o600)
    assert "options changed" not in subject.cli("reload", as_json=False).stdout, "it is what it was"


@pytest.mark.parametrize(
    ("order", "line"),
    [
        (block("F-1", ["a.example"]), "blocked by order F-1 of ministry.example, 1 entry"),
        (
            block("F-2", ["a.example", "b.example"], expires_at="2031-01-01T00:00:00Z"),
            "blocked by order F-2 of ministry.example, 2 entries, until 2031-01-01 07:00:00 WIB",
        ),
        (exempt("F-3", ["n1.example"]), "exempted by order F-3 of ministry.example, 1 entry"),
        (unblock("F-4", "B-1"), "lifted by order F-4 of ministry.example, 1 entry"),
    ],
)
def test_an_order_that_is_not_in_force_yet_is_reported_with_its_time(
    subject: Subject, order: dict, line: str
):
    """ "Accepted" alone would be read as "in force"."""
    start(subject, orders=[block("B-1", ["z.example"])])
    subject.put_order(order | {"effective_at": "2030-01-01T00:00:00Z"})
    assert reload_shown(subject).splitlines() == [
        "still serving serial 1, 301 names enforced",
        f"  from 2030-01-01 07:00:00 WIB: {line}",
    ]


def broken(subject: Subject) -> None:
    """Every third line is no name; an option and an order change, too."""
    lines = [line if place % 3 else f"not a name {place}!" for place, line in enumerate(BASE)]
    subject.put_list("list.txt", lines)
    subject.configure(zones=ZONES, time_zone="Asia/Jakarta", limits={"slip": 3})
    subject.put_order(block("B-1", ["a.example"]))


def test_a_rejected_list_takes_ten_lines_and_hides_no_other_change(subject: Subject):
    """The publish is on standard output, the rejection on standard error, and the exit code is 4."""
    start(subject)
    broken(subject)
    said = subject.cli("reload", as_json=False)
    assert said.code == 4
    assert said.stdout.splitlines() == [
        "now serving serial 2, 301 names enforced",
        "  zone ministry: 1 name added, 0 removed",
        "  accepted: blocked by order B-1 of ministry.example, 1 entry (active)",
        "  options changed: limits.slip",
    ]
    lines = said.stderr.splitlines()
    assert len(lines) == 11
    assert "TOO_MANY_REJECTED" in lines[0], "what is wrong with the whole comes first"
    assert "source accept" in " ".join(lines[:3])
    more, _, command = lines[-1].partition(": ")
    assert more.startswith("and ")
    assert command.startswith("dnsblock check ")
    rest = run([dnsblock(), *shlex.split(command)[1:]])
    assert rest.returncode == 1
    assert "not a name 297!" in rest.stdout
    answer = subject.cli("reload").json
    assert (len(answer["problems"]) > 50, answer["served"]["serial"]) == (True, 2)


@pytest.mark.parametrize("command", ["status", "source list"])
def test_status_shows_each_problem_once_and_at_most_ten(subject: Subject, command: str):
    """A list with a thousand errors must not hide the other problems."""
    start(subject)
    broken(subject)
    subject.put_order("order_id: [", "broken.yaml")
    subject.cli("reload")
    said = subject.cli(command, as_json=False)
    assert said.code == 1
    counts = Counter(line.strip() for line in said.stdout.splitlines() if line.strip())
    assert max(counts.values()) == 1, counts
    assert said.stdout.count("TOO_MANY_REJECTED") == 1
    assert sum("not a name" in line for line in counts) <= 10
    assert f"dnsblock check -c {subject.config_path}" in said.stdout


def test_no_line_of_the_log_is_long(subject: Subject):
    """Log collectors truncate long lines; `dnsblock check` shows everything."""
    start(subject)
    broken(subject)
    subject.cli("reload")
    lines = Path(subject.stderr_path).read_text().splitlines()
    assert max(map(len, lines)) < 2000
    (warning,) = [json.loads(line) for line in lines if "without the refused input" in line]
    assert warning["problems"] > 50
    assert "TOO_MANY_REJECTED" in warning["event"]
    assert f"dnsblock check -c {subject.config_path}" in warning["event"]
    (served,) = [json.loads(line)["event"] for line in lines if "serving serial 2" in line]
    assert "1 name added, 0 removed in 1 zone; 1 order accepted; options changed: limits.slip" in served


def test_accept_and_rollback_report_like_a_reload(subject: Subject):
    """Every command that publishes prints what changed in the same form."""
    start(subject)
    subject.put_list("list.txt", BASE[:100])
    refused = subject.cli("reload").json["problems"]
    digest = next(one["reason"] for one in refused if "source accept" in one["reason"])
    digest = next(word for word in digest.replace("'", " ").split() if len(word) == 64)
    assert accept(subject, digest).json["changes"]["zones"] == [
        {"zone": "listed", "added": 0, "removed": 200}
    ]
    said = subject.cli("rollback", "1", "--reason", "a bank", as_json=False)
    assert "  zone listed: 200 names added, 0 removed" in said.stdout.splitlines()
