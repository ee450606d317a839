"""Large policy zones by zone transfer: a difference is enforced before the new copy is compiled."""

import itertools
from pathlib import Path

from ports import free_port

from .harness import Subject
from .lists import source, versions
from .primaries import BindPrimary, RealPrimary
from .tools import wait_for
from .transfers import (
    ZONE,
    blocked,
    blocks,
    failures,
    serial_in_force,
    start,
    wait_blocked,
    wait_serial,
    zone_from,
)
from .upstreams import StubUpstream

NAMES = 100_000  # from here on, it is worth it: dnsblock/advance.py
BASE = [
    record
    for number in range(NAMES)
    for record in (f"n{number}.example CNAME .", f"*.n{number}.example CNAME .")
]
GUARDS = {"guards": {"shrank_names": 1500, "shrank_percent": "off", "grew_names": 1500}}


def reasons(subject: Subject) -> list[str]:
    """Why each snapshot was published, the newest first."""
    return [one["reason"] for one in subject.cli("versions").json["snapshots"]]


def is_advanced(subject: Subject, serial: int) -> bool:
    return f"serial {serial} of {ZONE}" in reasons(subject)


def wait_compiled(subject: Subject, version: int) -> None:
    """The new copy has taken the place of what was enforced in advance."""
    wait_for(lambda: versions(subject, ZONE)[0]["version"] == version, f"version {version} is accepted")


def start_large(subject: Subject, upstream: StubUpstream, primary: RealPrimary, **options: object) -> None:
    port = free_port()
    primary.start(BASE, secondaries=[("127.0.0.1", port)])
    start(subject, upstream, zone_from(primary.address, source=GUARDS, **options), port=port)
    wait_blocked(subject, "n0.example", f"x.n{NAMES - 1}.example")


def advance(subject: Subject, primary: RealPrimary) -> None:
    """Changes the zone until a difference is enforced in advance.

    The daemon prepares for it in the background. A change that comes before is compiled first.
    """
    for change in itertools.count():
        new, gone = f"new{change}.example", f"n{change}.example"
        kept = BASE[2 * (change + 1) :]
        primary.replace([*kept, *blocks(new, f"*.{new}")])
        wait_serial(subject, primary.serial)
        asked = (new, f"x.{new}", gone, f"x.{gone}", f"n{change + 1}.example")
        assert blocked(subject, *asked) == [True, True, False, False, True]
        wait_compiled(subject, change + 2)
        assert blocked(subject, *asked) == [True, True, False, False, True]
        if is_advanced(subject, primary.serial):
            return


def test_a_difference_is_enforced_before_the_copy_is_compiled(
    subject: Subject, upstream: StubUpstream, tmp_path: Path
):
    """Compiling ten million names takes seconds; an order to lift a block should not wait for that."""
    with BindPrimary(tmp_path) as primary:
        start_large(subject, upstream, primary)
        advance(subject, primary)
        subject.restart()
        assert blocked(subject, "n0.example", f"n{NAMES - 1}.example") == [False, True]


def test_changes_while_the_copy_before_them_is_compiled_are_not_lost(
    subject: Subject, upstream: StubUpstream, tmp_path: Path
):
    """Each is enforced at once, and stays in force when an older copy has been compiled."""
    with BindPrimary(tmp_path) as primary:
        start_large(subject, upstream, primary)
        advance(subject, primary)
        records = BASE[2000:]
        for change in range(6):
            new = f"late{change}.example"
            records = [*records[2:], *blocks(new, f"*.{new}")]
            primary.replace(records)
            wait_serial(subject, primary.serial)
            changed = [f"late{number}.example" for number in range(change + 1)]
            lifted = [f"n{1000 + number}.example" for number in range(change + 1)]
            assert (all(blocked(subject, *changed)), any(blocked(subject, *lifted))) == (True, False)
        compiled = f"version of serial {primary.serial}"
        wait_for(lambda: source(subject, ZONE)["report"]["serial"] == primary.serial, compiled)
        assert (all(blocked(subject, *changed)), any(blocked(subject, *lifted))) == (True, False)
        assert serial_in_force(subject) == primary.serial


def test_a_difference_that_a_guard_rejects_is_never_enforced(
    subject: Subject, upstream: StubUpstream, tmp_path: Path
):
    """The guards judge it before it is enforced, by the same limits."""
    with BindPrimary(tmp_path) as primary:
        start_large(subject, upstream, primary)
        advance(subject, primary)
        before = reasons(subject)
        primary.replace(BASE[4000:])
        wait_for(lambda: source(subject, ZONE)["rejected"], "the copy is rejected")
        assert source(subject, ZONE)["rejected"]["codes"] == ["SHRANK"]
        assert not is_advanced(subject, primary.serial)
        assert blocked(subject, "n1999.example", "x.n1999.example") == [True, True]
        assert reasons(subject)[0] == before[0]


def test_changes_whose_copy_cannot_be_stored_are_taken_back(
    subject: Subject, upstream: StubUpstream, tmp_path: Path
):
    """Otherwise a restart would enforce another zone than the one before it."""
    with BindPrimary(tmp_path) as primary:
        start_large(subject, upstream, primary, max_records=2 * NAMES + 2)
        advance(subject, primary)
        failed = failures(subject, "TOO_LARGE")
        primary.replace([*BASE, *blocks(*(f"more{number}.example" for number in range(10)))])
        wait_for(lambda: failures(subject, "TOO_LARGE") > failed, "the copy is too large")
        wait_for(
            lambda: blocked(subject, "more0.example", "n0.example") == [False, False], "it is taken back"
        )
