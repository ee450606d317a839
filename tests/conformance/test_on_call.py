"""Faults that the engineer on call sees: each is reported, and everything else keeps working."""

import shutil
from datetime import datetime
from pathlib import Path

from .clocks import begun_before
from .harness import Subject, is_forwarded, is_sinkholed
from .orders import LONG_AGO, block, stamp
from .tools import wait_for
from .upstreams import StubUpstream

NAME = "held.example"


def test_commands_reach_a_daemon_whose_configuration_file_is_invalid(
    subject: Subject, upstream: StubUpstream
):
    """Error policy, publish: the caller, the log and a metric get the reason."""
    subject.start(orders=[block("B-1", [NAME])], upstreams=[upstream.address])
    good = subject.config_path.read_text()
    subject.config_path.write_text(good + "lisen: 1\n")
    said = subject.cli("reload")
    assert (said.code, said.json["problems"][0]["value"]) == (4, "lisen")
    assert subject.metrics().total("dnsblock_publish_failures_total", reason="refused") == 1
    assert subject.cli("status").code == 1
    assert subject.cli("why", NAME).json["verdict"] == "blocked"
    subject.config_path.write_text(good)
    assert subject.reload()["changed"] is False
    assert subject.cli("status").code == 0


def test_a_held_order_is_reported_by_check_and_by_each_reload(subject: Subject, upstream: StubUpstream):
    """A gap in the numbers holds the order and alerts, so that a withheld unblock is noticed."""
    subject.start(orders=[], upstreams=[upstream.address])
    subject.put_order(block("B-2", [NAME], seq=2, prev="0" * 64))
    assert "HELD" in subject.cli("check").json["notes"][0]
    for _ in range(2):
        (note,) = subject.reload()["notes"]
        assert "B-2" in note
        assert "HELD: the order with seq 1 has not been received" in note
    assert "HELD" in subject.cli("reload", as_json=False).stdout
    assert is_forwarded(subject.query(NAME))


def test_orders_that_no_zone_enforces_are_not_shown_as_in_force(subject: Subject, upstream: StubUpstream):
    """Removing a zone opens what its issuer ordered blocked: that must be visible."""
    subject.start(orders=[block("B-1", [NAME])], upstreams=[upstream.address])
    assert is_sinkholed(subject.query(NAME))
    subject.configure(upstreams=[upstream.address], zones=[], orders=[])
    (note,) = subject.reload()["notes"]
    assert "no zone enforces them" in note
    assert is_forwarded(subject.query(NAME))
    (order,) = subject.status()["orders"]
    assert order["in_force"] == 0
    assert order["notes"] == ["no zone enforces the orders of this issuer"]


def test_a_block_ends_at_its_time_although_the_serial_cannot_be_written(
    subject: Subject, upstream: StubUpstream
):
    """Error policy, disk full: what is enforced goes on, and never longer than ordered."""

    def begin(moment: datetime) -> None:
        subject.start(orders=[block("B-1", [NAME], expires_at=stamp(moment))], upstreams=[upstream.address])
        assert is_sinkholed(subject.query(NAME))
        # A folder where the file has to go: for root, too, it cannot be written.
        checkpoint().rename(checkpoint().with_suffix(".kept"))
        checkpoint().mkdir()

    def checkpoint() -> Path:
        return subject.folder / "state" / "checkpoint.json"

    begun_before(subject, 2, begin)
    wait_for(lambda: is_forwarded(subject.query(NAME)), "the block has ended")
    assert "the checkpoint could not be written" in subject.stderr()
    # Answers are a moment ahead of `status`.
    wait_for(lambda: subject.status()["orders"][0]["state"] == "expired", "status has the state")
    serial = subject.status()["serial"]
    checkpoint().rmdir()
    checkpoint().with_suffix(".kept").rename(checkpoint())
    assert subject.reload()["serial"] == serial
    assert subject.restart()["serial"] == serial


def test_a_sighup_before_ready_is_served(subject: Subject, upstream: StubUpstream):
    """A service manager may send SIGHUP at any time; only SIGTERM and SIGINT end the process."""
    names = (f"n{number}.example" for number in range(300_000))
    zones = [{"name": "big", "list": "big.txt", "answer": "sinkhole"}]
    subject.configure(zones=zones, lists={"big.txt": names}, upstreams=[upstream.address])

    def hang_up() -> bool:
        """As soon as the daemon has begun to read: its state folder is there, and it is not ready."""
        return (subject.folder / "state" / "ledger.lock").exists() and (subject.hup() or True)

    subject.launch(meanwhile=hang_up)
    assert is_sinkholed(subject.query("n1.example"))
    wait_for(lambda: '"reason": "SIGHUP"' in subject.stderr(), "the early SIGHUP was served")


def test_an_accepted_order_outlives_the_orders_folder(subject: Subject, upstream: StubUpstream):
    """The folder is an inbox: taking it away is reported, and lifts nothing."""
    orders = [block("B-1", [NAME], issued_at=LONG_AGO)]
    subject.start(orders=orders, upstreams=[upstream.address])
    shutil.rmtree(subject.orders_folder)
    assert subject.cli("reload").code == 4
    assert is_sinkholed(subject.query(NAME))


def test_check_reads_lists_although_the_configuration_file_is_invalid(
    subject: Subject, upstream: StubUpstream
):
    """Every problem of every file with file, line, value and reason, not only the first."""
    zones = [
        {"name": "bad", "list": "bad.txt", "answer": "nxdomain"},
        {"name": "odd", "list": "odd.txt", "answer": "nxdomain", "match": "everything"},
    ]
    lists = {"bad.txt": "fine.example\nno spaces.example\n", "odd.txt": "fine.example\n"}
    subject.configure(zones=zones, lists=lists, upstreams=[upstream.address], lisen=1)
    said = subject.cli("check")
    assert said.code == 1
    found = {(one["file"].rpartition("/")[2], one["value"]) for one in said.problems if one["line"]}
    assert found == {
        ("dnsblock.yaml", "everything"),
        ("dnsblock.yaml", "lisen"),
        ("bad.txt", "no spaces.example"),
    }
