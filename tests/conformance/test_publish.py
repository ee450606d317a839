"""One publish at a time, whole or not at all: nothing slow or invalid changes what was ordered."""

import contextlib
import os
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from .clocks import begun_before
from .harness import ORDERS_ZONE, PROFILES, Subject, is_forwarded, is_sinkholed
from .orders import block, exempt, in_seconds, stamp, unblock
from .tools import dnsblock, wait_for
from .upstreams import StubUpstream

NAME = "timed.example"


def test_a_slow_reload_delays_the_end_of_no_block(subject: Subject, upstream: StubUpstream):
    """Reading has a lock of its own: the clock does not wait for a list that takes its time."""
    slow = "näme.example\n".encode() * 8_000_000  # letters outside ASCII cost time
    path = subject.put_list("slow.txt", slow)

    def begin(moment: datetime) -> None:
        orders = [block("B-1", [NAME], expires_at=stamp(moment))]
        subject.start(orders=orders, upstreams=[upstream.address])

    begun_before(subject, 3, begin)
    zones = [ORDERS_ZONE, {"name": "slow", "list": str(path), "answer": "nodata"}]
    subject.configure(zones=zones, upstreams=[upstream.address])
    reload = subprocess.Popen(
        [dnsblock(), "reload", "-c", subject.config_path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: is_forwarded(subject.query(NAME)), "the block has ended")
        assert reload.poll() is None, "the reload was over before the block ended: the list is too short"
    finally:
        reload.kill()
        reload.wait()


def test_an_order_does_not_wait_for_a_list_that_is_being_read(subject: Subject, upstream: StubUpstream):
    """A list of ten million names takes seconds to compile, each hour: an order takes effect meanwhile."""
    zones = [
        ORDERS_ZONE,
        {"name": "slow", "list": "slow.txt", "answer": "nodata", "source": {"every_s": 86_400}},
    ]
    subject.start(zones=zones, lists={"slow.txt": ["first.example"]}, upstreams=[upstream.address])
    path = subject.put_list("slow.txt", "näme.example\n".encode() * 8_000_000)
    refresh = subprocess.Popen(
        [dnsblock(), "source", "refresh", "slow", "-c", subject.config_path], stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: is_open(subject.process.pid, path), "the list is being read")
        subject.put_order(block("B-1", [NAME]))
        subject.reload()
        assert is_sinkholed(subject.query(NAME))
        assert refresh.poll() is None, "the list was read before: it is too short"
        assert refresh.wait(500) == 0
    finally:
        refresh.kill()
        refresh.wait()
    assert is_sinkholed(subject.query(NAME))
    assert not is_forwarded(subject.query("xn--nme-qla.example"))
    assert is_forwarded(subject.query("first.example"))


def is_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if descriptor.readlink() == path:
                return True
    return False


def test_a_profile_that_a_scheduled_order_needs_cannot_be_removed(subject: Subject, upstream: StubUpstream):
    """One order that cannot be compiled at its time would keep all others from ending at theirs."""
    later = stamp(in_seconds(3600))
    entry = {"name": NAME, "answer": "special"}
    special = {"special": {"action": "nodata"}}
    orders = [block("B-1", [entry], effective_at=later), block("B-2", ["now.example"])]
    subject.start(answers=PROFILES | special, orders=orders, upstreams=[upstream.address])
    subject.configure(upstreams=[upstream.address])
    for command in ("check", "reload"):
        said = subject.cli(command)
        assert said.code in (1, 4)
        assert [(problem["value"], "B-1" in problem["reason"]) for problem in said.problems] == [
            ("special", True)
        ]
    assert is_sinkholed(subject.query("now.example"))


def test_a_scheduled_publish_does_not_hide_a_failed_reload(subject: Subject, upstream: StubUpstream):
    """The refused document may be an unblock, and is still not in force."""

    def begin(moment: datetime) -> None:
        subject.start(orders=[block("B-1", [NAME], expires_at=stamp(moment))], upstreams=[upstream.address])
        subject.put_order("{", "bad.yaml")
        assert subject.cli("reload").code == 4

    begun_before(subject, 3, begin)
    wait_for(lambda: is_forwarded(subject.query(NAME)), "the block has ended")
    said = subject.cli("status")
    assert (said.code, said.json["last_publish"]["ok"], said.json["last_publish"]["reason"]) == (
        1,
        False,
        "reload",
    )
    assert subject.metrics().total("dnsblock_orders_refused") == 1
    (subject.orders_folder / "bad.yaml").unlink()
    subject.reload()
    assert subject.cli("status").code == 0


def test_a_change_that_the_engine_refuses_is_not_recorded(subject: Subject, upstream: StubUpstream):
    """256 zone names in a life are counted apart; what is refused for that is refused whole."""
    subject.start(orders=[], upstreams=[upstream.address])
    refused = None
    for turn in range(5):
        names = [f"z{turn}-{number}" for number in range(60)]
        zones = [ORDERS_ZONE, *({"name": name, "list": "l.txt", "answer": "nodata"} for name in names)]
        subject.configure(zones=zones, lists={"l.txt": ["listed.example"]}, upstreams=[upstream.address])
        if turn == 4:
            subject.put_order(block("B-1", [NAME]))
        refused = subject.cli("reload")
        assert refused.code == (4 if turn == 4 else 0)
    assert "restart" in refused.problems[0]["reason"]
    assert subject.status()["orders"] == []
    assert "accepted order" not in subject.stderr()
    assert is_forwarded(subject.query(NAME))


@pytest.mark.parametrize(
    ("line", "match"),
    [("co.id", "below"), ("co.id", "subtree"), ("co.ck", "subtree"), ("anything.kawasaki.jp", "exact")],
)
def test_a_list_never_covers_a_public_suffix(subject: Subject, upstream: StubUpstream, line: str, match: str):
    """Fact 3 of the design: a half line that became a suffix must not block a country; wildcard rules too."""
    zones = [{"name": "list", "list": "l.txt", "answer": "nodata", "match": match}]
    lists = {"l.txt": ["fine.example", line, "www.fine.co.id"]}
    subject.configure(zones=zones, lists=lists, upstreams=[upstream.address])
    said = subject.cli("check")
    (note,) = said.json["notes"]
    assert (said.code, "PUBLIC_SUFFIX" in note, f"l.txt:2: '{line}'" in note) == (0, True, True)
    assert subject.start(zones=zones, lists=lists, upstreams=[upstream.address])["entries"] == 2
    assert is_forwarded(subject.query(line))


def test_a_regular_file_at_the_control_path_is_refused_and_kept(subject: Subject, upstream: StubUpstream):
    """A slip in `control` must not delete a file."""
    precious = subject.folder / "precious.txt"
    precious.write_text("proof")
    subject.configure(upstreams=[upstream.address], control="precious.txt")
    assert subject.serve_refused().code == 4
    assert precious.read_text() == "proof"


@pytest.mark.parametrize("odd", [b"z\x1b]0;pwn\x07.yaml", b"z\xff.yaml"])
def test_an_odd_file_name_is_shown_escaped(subject: Subject, upstream: StubUpstream, odd: bytes):
    """A name from the orders folder reaches terminals, logs and JSON: none may obey it or break on it."""
    subject.start(upstreams=[upstream.address])
    held = subject.put_order(block("B-2", [NAME], seq=2, prev="0" * 64))
    os.rename(held, os.fsencode(held.parent) + b"/" + odd)
    said = subject.cli("reload")
    assert said.code == 0
    assert "HELD" in said.json["notes"][0]
    shown = subject.cli("check", as_json=False).stdout + subject.stderr()
    assert not set(shown) & {"\x1b", "\x07", "\udcff"}


def test_an_exemption_without_effect_is_reported(subject: Subject, upstream: StubUpstream):
    """At equal length `exact` goes before `subtree`: the officer must hear that the name stays blocked."""
    orders = [block("B-1", [{"name": NAME, "match": "exact"}])]
    subject.start(orders=orders, upstreams=[upstream.address])
    subject.put_order(exempt("E-1", [NAME]))
    (note,) = subject.reload()["notes"]
    assert "NO_EFFECT" in note
    assert "B-1" in note
    assert is_sinkholed(subject.query(NAME))
    subject.put_order(exempt("E-2", [{"name": NAME, "match": "exact"}]))
    assert subject.reload()["notes"] == []
    assert is_forwarded(subject.query(NAME))


def test_a_refused_start_has_accepted_nothing(subject: Subject, upstream: StubUpstream):
    """Sockets are bound before the record is written: an order that is not enforced is not accepted."""
    (subject.folder / "in-the-way").write_text("")
    orders = [block("B-1", [NAME]), unblock("U-1", "B-1")]
    subject.configure(orders=orders, upstreams=[upstream.address], control="in-the-way")
    assert subject.serve_refused().code == 4
    assert (subject.folder / "state" / "ledger.jsonl").read_bytes() == b""
