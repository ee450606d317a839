"""The commands of the systemd unit, in their order, in every state that the daemon tolerates."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.https_server import Authority, Server

from .harness import ORDERS_ZONE, Subject, is_forwarded, is_sinkholed
from .lists import Feed
from .orders import block
from .tools import dnsblock, run
from .upstreams import StubUpstream

UNIT = Path(__file__).parents[2] / "config" / "dnsblock.service"
INSTALLED = "/opt/dnsblock/bin/dnsblock"
ORDERED, LISTED, ADDRESSED = "ordered.example", "listed000.example", "192.0.2.77"
NAMES = [f"listed{number:03}.example" for number in range(200)]
ZONES = [
    ORDERS_ZONE,
    {"name": "national", "list": "national.txt", "answer": "sinkhole"},
    {"name": "networks", "addresses": "networks.txt", "answer": "nodata"},
]
HTML = "<!DOCTYPE html><html><head><title>503</title></head><body>Try again later</body></html>\n"


def command(key: str) -> list[str]:
    """A command of the unit, with the program of this environment."""
    line = next(line for line in UNIT.read_text().splitlines() if line.startswith(f"{key}="))
    return [dnsblock() if word == INSTALLED else word for word in shlex.split(line.partition("=")[2])]


def start_as_the_unit_does(subject: Subject) -> None:
    """ExecStartPre must exit with 0, or systemd does not run ExecStart."""
    done = run([*command("ExecStartPre"), "-c", str(subject.config_path)])
    assert done.returncode == 0, done.stdout + done.stderr
    start = command("ExecStart")
    subject.under = start[: start.index(dnsblock())]
    subject.launch()


def append(path: Path, data: str) -> None:
    with path.open("a") as file:
        file.write(data)


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100 : len(data) : 50] = b"\xff" * len(data[100 : len(data) : 50])
    path.write_bytes(data)


def cut_off_the_last_record(subject: Subject) -> None:
    ledger = subject.folder / "state" / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-1]))


def remove_compiled(subject: Subject) -> None:
    for path in (subject.folder / "state" / "lists").rglob("*"):
        if path.is_file():
            path.unlink()


DEGRADED: dict[str, Callable[[Subject], object]] = {
    "nothing is wrong": lambda _: None,
    "a list is a web page": lambda s: s.put_list("national.txt", HTML),
    "a list was deleted": lambda s: (s.folder / "national.txt").unlink(),
    "a list lost most of its names": lambda s: s.put_list("national.txt", NAMES[:50]),
    "a list is cut in the middle of a line": lambda s: s.put_list("national.txt", "\n".join(NAMES)[:-3]),
    "a list has become a folder": lambda s: (
        (s.folder / "national.txt").unlink(),
        (s.folder / "national.txt").mkdir(),
    ),
    "an address list is a web page": lambda s: s.put_list("networks.txt", HTML),
    "an address list was deleted": lambda s: (s.folder / "networks.txt").unlink(),
    "an address list has bad lines": lambda s: append(s.folder / "networks.txt", "192.0.2.085\n225.223.48\n"),
    "an order document is broken": lambda s: s.put_order("{", "broken.yaml"),
    "an order document is half written": lambda s: s.put_order("schema: dnsblock.order/1\n", "half.yaml"),
    "an order is held": lambda s: s.put_order(block("S-9", ["later.example"], issuer="court.example", seq=9)),
    "the inbox is gone": lambda s: (
        [path.unlink() for path in s.orders_folder.iterdir()],
        s.orders_folder.rmdir(),
    ),
    "the history of lists is corrupt": lambda s: corrupt(s.folder / "state" / "lists.sqlite"),
    "the history of lists is gone": lambda s: (s.folder / "state" / "lists.sqlite").unlink(),
    "compiled lists are gone": remove_compiled,
    "the ledger lacks its last record": cut_off_the_last_record,
    "the ledger is gone": lambda s: (s.folder / "state" / "ledger.jsonl").unlink(),
    "the ledger is garbage": lambda s: (s.folder / "state" / "ledger.jsonl").write_bytes(b"garbage\n" * 9),
    "the checkpoint is gone": lambda s: (s.folder / "state" / "checkpoint.json").unlink(),
    "the checkpoint is corrupt": lambda s: corrupt(s.folder / "state" / "checkpoint.json"),
}


@pytest.mark.parametrize("state", DEGRADED)
def test_the_unit_starts_and_enforces_in_every_state_that_the_daemon_tolerates(
    subject: Subject, upstream: StubUpstream, state: str
):
    """The check before a startup, and the startup, tolerate every fault that the running daemon tolerates."""
    court = {"name": "court", "issuer": "court.example", "unsigned": "accept", "answer": "sinkhole"}
    subject.start(
        zones=[*ZONES, court],
        orders=[block("B-1", [ORDERED])],
        lists={"national.txt": NAMES, "networks.txt": [ADDRESSED]},
        upstreams=[upstream.address],
    )
    assert is_sinkholed(subject.query(ORDERED))
    assert subject.stop() == 0
    DEGRADED[state](subject)
    start_as_the_unit_does(subject)
    assert is_sinkholed(subject.query(ORDERED))
    assert is_sinkholed(subject.query(LISTED))
    assert is_forwarded(subject.query("open.example"))
    reloaded = run([*command("ExecReload"), "-c", str(subject.config_path)])
    assert reloaded.returncode in (0, 4), reloaded.stderr
    assert is_sinkholed(subject.query(ORDERED))
    assert is_sinkholed(subject.query(LISTED))


def test_the_unit_starts_with_a_feed_that_was_rejected_and_cannot_be_reached(
    subject: Subject, upstream: StubUpstream, authority: Authority
):
    """The last good version is enforced, since no other can be fetched now."""
    with Server(authority.certificate()) as web:
        feed = Feed(web, "".join(f"{name}\n" for name in NAMES).encode())
        zone = feed.zone(authority.pem)
        subject.start(zones=[zone], upstreams=[upstream.address], inbox=None)
        feed.put(HTML.encode())
        assert subject.cli("source refresh", zone["name"]).code == 4
        assert subject.stop() == 0
    start_as_the_unit_does(subject)
    assert is_sinkholed(subject.query(LISTED))


@pytest.mark.parametrize(
    "broken",
    ["zones: [", "lisen: 1\n", "orders: orders\nzones: [{name: x, list: never-there.txt, answer: nodata}]\n"],
    ids=["not YAML", "unknown option", "a list that never was"],
)
def test_the_check_before_the_start_fails_for_what_prevents_the_start(subject: Subject, broken: str):
    """It says what prevents the start, and `serve` says the same."""
    subject.configure()
    subject.config_path.write_text(broken)
    done = run([*command("ExecStartPre"), "-c", str(subject.config_path)])
    assert done.returncode == 1
    assert "the daemon cannot start" in done.stderr
    assert str(subject.folder) in done.stdout
    assert subject.serve_refused().code == 4


def test_check_startup_distinguishes_errors_that_prevent_a_start(subject: Subject, upstream: StubUpstream):
    """The same problem: exit code 1 without --startup, 0 with it, and how many there are."""
    subject.start(zones=ZONES[:2], lists={"national.txt": NAMES}, upstreams=[upstream.address])
    subject.put_list("national.txt", HTML)
    full, startup = subject.cli("check"), subject.cli("check", "--startup")
    assert (full.code, full.json["ok"], full.json["can_start"]) == (1, False, True)
    assert (startup.code, startup.json["ok"], startup.json["can_start"]) == (0, True, True)
    assert full.json["problems"] == startup.json["problems"] != []
    said = subject.cli("check", "--startup", as_json=False)
    assert "the daemon can start" in said.stdout
    count = len(full.json["problems"])
    assert f"{count} problems do not prevent that: see `dnsblock check -c " in said.stderr
