"""Compiled lists that are truncated or overwritten while the daemon has them mapped (SIGBUS)."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .harness import Subject, is_forwarded, is_sinkholed
from .lists import wait_stored
from .tools import wait_for
from .upstreams import StubUpstream

ZONE = {"name": "national", "list": "national.txt", "answer": "sinkhole"}
NAMES = [f"listed{number:05}.example" for number in range(20_000)]  # about seventy pages
ASKED = NAMES[::1000]


def start(subject: Subject, upstream: StubUpstream) -> Path:
    subject.start(zones=[ZONE], lists={"national.txt": NAMES}, upstreams=[upstream.address], inbox=None)
    (compiled,) = (subject.folder / "state" / "lists").glob("*.names")
    # Kept for this case after the daemon is ready.
    wait_stored(subject)
    return compiled


def cut_off(compiled: Path) -> None:
    os.truncate(compiled, 0)


def cut_in_half(compiled: Path) -> None:
    os.truncate(compiled, compiled.stat().st_size // 2)


def cut_by_a_byte(compiled: Path) -> None:
    os.truncate(compiled, compiled.stat().st_size - 1)


def is_whole(subject: Subject) -> bool:
    return all(is_sinkholed(subject.query(name)) for name in ASKED)


@pytest.mark.parametrize("damage", [cut_off, cut_in_half])
def test_a_compiled_list_truncated_while_in_use_is_read_again(
    subject: Subject, upstream: StubUpstream, damage: Callable[[Path], None]
):
    """mmap(2): a page that the file no longer has is SIGBUS. The daemon survives, and reads the list."""
    compiled = start(subject, upstream)
    before = subject.status()["digest"]
    damage(compiled)
    wait_for(lambda: is_whole(subject), "all names are blocked again")
    assert is_forwarded(subject.query("open.example"))
    wait_for(lambda: "list national is complete again" in subject.stderr(), "the log tells")
    assert subject.metrics().total("dnsblock_source_corrupt_total", zone="national") == 1
    assert subject.status()["digest"] == before
    assert subject.is_running()


def test_a_truncation_within_the_last_page_is_found_at_the_next_start(
    subject: Subject, upstream: StubUpstream
):
    """The kernel keeps that page, so nothing is lost while the daemon runs."""
    compiled = start(subject, upstream)
    cut_by_a_byte(compiled)
    assert is_whole(subject)
    subject.restart()
    assert is_whole(subject)
    assert "cannot be used" in subject.stderr()


def test_without_the_stored_file_the_list_itself_is_read_again(subject: Subject, upstream: StubUpstream):
    """The last resort: what a start would do."""
    compiled = start(subject, upstream)
    shutil.rmtree(subject.folder / "state" / "texts")
    cut_off(compiled)
    wait_for(lambda: is_whole(subject), "all names are blocked again")


def test_without_any_readable_copy_the_daemon_keeps_running_and_reports_it(
    subject: Subject, upstream: StubUpstream
):
    """Names that are lost are open; orders, other lists and open names are served."""
    compiled = start(subject, upstream)
    shutil.rmtree(subject.folder / "state" / "texts")
    (subject.folder / "national.txt").unlink()
    cut_in_half(compiled)
    wait_for(lambda: all(subject.query(name).rcode == "NOERROR" for name in ASKED), "it answers")
    subject.wait_for_metric("dnsblock_source_corrupt_total", zone="national")
    assert is_forwarded(subject.query("open.example"))
    assert any(is_sinkholed(subject.query(name)) for name in NAMES[::100]), "what is left is enforced"
    subject.put_list("national.txt", NAMES)
    subject.cli("reload")
    wait_for(lambda: is_whole(subject), "all names are blocked again")
