"""A serial identifies one content, always rises, and has 32 bits (RFC 1982, RFC 1035 3.3.13)."""

import hashlib
import json
import os
import resource
from datetime import UTC, datetime
from pathlib import Path

import pytest

from .clocks import begun_before
from .harness import Subject, is_forwarded, is_sinkholed
from .orders import block, stamp
from .test_lists_files import fill, inside, on_a_small_disk
from .tools import wait_for
from .upstreams import StubUpstream

HIGHEST = 2**32 - 1
TIMED = "timed.example"
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def checkpoint(subject: Subject) -> Path:
    return subject.folder / "state" / "checkpoint.json"


def set_serial(subject: Subject, serial: int) -> None:
    fields = json.loads(checkpoint(subject).read_bytes()) | {"serial": serial, "reserved": None}
    del fields["digest"]
    line = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(line).hexdigest()
    checkpoint(subject).write_bytes((line[:-1] + f',"digest":"{digest}"}}'.encode()).ljust(1023) + b"\n")


def served(subject: Subject) -> tuple[int, str]:
    status = subject.status()
    return status["serial"], status["digest"]


def served_after(subject: Subject, serial: int) -> tuple[int, str]:
    """The next snapshot after this serial. `status` follows a moment after the first enforced response."""
    wait_for(lambda: served(subject)[0] > serial, f"a serial after {serial}")
    return served(subject)


def test_a_block_ends_on_time_without_disk_space_and_no_serial_is_reused(
    subject: Subject, upstream: StubUpstream
):
    """Content that was enforced without being recorded must be distinguishable after a kill."""

    def begin(moment: datetime) -> None:
        orders = [block("B-1", [TIMED], expires_at=stamp(moment)), block("B-2", ["stays.example"])]
        subject.start(orders=orders, upstreams=[upstream.address])
        resource.prlimit(subject.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        assert is_sinkholed(subject.query(TIMED))

    moment = begun_before(subject, 4, begin)
    first = (subject.ready["serial"], subject.ready["digest"])
    wait_for(lambda: is_forwarded(subject.query(TIMED)), "the block has ended")
    assert datetime.now(UTC) >= moment
    unwritten = served_after(subject, first[0])
    subject.kill()
    subject.put_order(block("B-3", ["new.example"]))
    subject.launch()
    after = served(subject)
    assert after[0] > unwritten[0]
    assert len({digest for _, digest in (first, unwritten, after)}) == 3


def test_serials_are_written_again_once_there_is_disk_space(subject: Subject, upstream: StubUpstream):
    """Serials go on above those that were reserved, and a stop in order leaves no gap."""

    def begin(moment: datetime) -> None:
        subject.start(orders=[block("B-1", [TIMED], expires_at=stamp(moment))], upstreams=[upstream.address])
        resource.prlimit(subject.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    begun_before(subject, 4, begin)
    wait_for(lambda: is_forwarded(subject.query(TIMED)), "the block has ended")
    unwritten = served_after(subject, subject.ready["serial"])
    resource.prlimit(subject.process.pid, resource.RLIMIT_FSIZE, UNLIMITED)
    subject.put_order(block("B-2", ["new.example"]))
    subject.reload()
    serial, _ = served(subject)
    assert serial > unwritten[0]
    assert subject.stop() == 0
    subject.put_order(block("B-3", ["newer.example"]))
    subject.launch()
    assert served(subject)[0] == serial + 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk takes root; CI runs as root")
def test_a_serial_can_be_written_to_a_full_disk(subject: Subject, upstream: StubUpstream):
    """The checkpoint has one size for ever, and its bytes are there already."""
    moments: list[datetime] = []

    def begin(moment: datetime) -> None:
        on_a_small_disk(subject, 4096)
        subject.start(orders=[block("B-1", [TIMED], expires_at=stamp(moment))], upstreams=[upstream.address])
        subject.under = []
        fill(inside(subject) / "filler")
        moments.append(moment)

    begun_before(subject, 6, begin)
    wait_for(lambda: is_forwarded(subject.query(TIMED)), "the block has ended")
    serial, _ = served_after(subject, subject.ready["serial"])
    assert serial == subject.ready["serial"] + 1
    written = json.loads((inside(subject) / "checkpoint.json").read_bytes())
    assert written["serial"] == serial


def test_unchanged_content_keeps_its_serial_after_a_kill(subject: Subject, upstream: StubUpstream):
    """And the next content has a serial that nothing had before."""
    subject.start(orders=[block("B-1", [TIMED])], upstreams=[upstream.address])
    first = served(subject)
    subject.kill()
    subject.launch()
    assert served(subject) == first
    subject.put_order(block("B-2", ["new.example"]))
    subject.reload()
    assert served(subject)[0] > first[0]


def test_nothing_is_published_after_the_highest_serial(subject: Subject, upstream: StubUpstream):
    """It never wraps: a lower serial is an older one to every secondary. A restart serves what it was."""
    subject.start(orders=[block("B-1", ["a.example"])], upstreams=[upstream.address])
    assert subject.stop() == 0
    set_serial(subject, HIGHEST - 1)
    subject.put_order(block("B-2", ["b.example"]))
    subject.launch()
    assert served(subject)[0] == HIGHEST
    for again in (subject.restart, lambda: (subject.kill(), subject.launch())):
        again()
        assert served(subject)[0] == HIGHEST
        assert is_sinkholed(subject.query("b.example"))
    subject.put_order(block("B-3", ["c.example"]))
    said = subject.cli("reload")
    assert said.code == 4
    assert "the serials are used up" in said.problems[0]["reason"]
    assert is_forwarded(subject.query("c.example"))
    assert is_sinkholed(subject.query("b.example"))
    assert (subject.folder / "state" / "ledger.jsonl").read_bytes().count(b'"kind":"accepted"') == 2
    assert subject.stop() == 0
    said = subject.serve_refused()
    assert said.code == 4
    assert "the serials are used up" in said.stderr
    for name in ("checkpoint.json", "lists.sqlite"):
        (subject.folder / "state" / name).unlink()
    subject.launch()
    assert subject.cli("log accept-restore", "--reason", "serials begin again").code == 0
    assert is_sinkholed(subject.query("c.example"))
    assert served(subject)[0] < 10


def test_serials_continue_above_those_in_the_history(subject: Subject, upstream: StubUpstream):
    """An old checkpoint was restored: its serials stood for something else since."""
    subject.start(orders=[block("B-1", ["a.example"])], upstreams=[upstream.address])
    old = checkpoint(subject).read_bytes()
    for number in range(2, 5):
        subject.put_order(block(f"B-{number}", [f"n{number}.example"]))
        subject.reload()
    highest, _ = served(subject)
    assert subject.stop() == 0
    checkpoint(subject).write_bytes(old)
    subject.launch()
    assert served(subject)[0] > highest
    assert subject.cli("status").code == 0
