"""A ledger without acknowledged records is not used: the last state is served until an operator acts."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from .clocks import begun_before
from .harness import ORDERS_ZONE, Subject, is_forwarded, is_sinkholed
from .lists import list_zone, source
from .orders import block, stamp, unblock
from .tools import wait_for
from .upstreams import StubUpstream

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
STAYS, LIFTED, LATE, LISTED = "stays.example", "lifted.example", "late.example", "listed.example"
ORDERS = [block("B-1", [STAYS]), block("B-2", [LIFTED])]
ZONES = [ORDERS_ZONE, list_zone(every_s=1)]


def start_and_stop(subject: Subject, upstream: StubUpstream) -> None:
    """Two blocks from yesterday; today one was unblocked and another one came. The inbox is empty."""
    subject.start(zones=ZONES, orders=ORDERS, lists={"list.txt": [LISTED]}, upstreams=[upstream.address])
    assert subject.stop() == 0
    shutil.copytree(state(subject), subject.folder / "yesterday")
    subject.put_order(unblock("U-1", "B-2"))
    subject.put_order(block("B-3", [LATE]))
    subject.launch()
    assert subject.stop() == 0
    for document in subject.orders_folder.iterdir():
        document.unlink()


def state(subject: Subject) -> Path:
    return subject.folder / "state"


def ledger(subject: Subject) -> Path:
    return state(subject) / "ledger.jsonl"


def records(subject: Subject) -> list[dict]:
    return [json.loads(line) for line in ledger(subject).read_bytes().splitlines()]


def sealed(fields: dict) -> bytes:
    """A record as docs/ledger.md describes it."""
    fields = {key: value for key, value in fields.items() if key != "digest"}
    line = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return line[:-1] + b',"digest":"%s"}' % hashlib.sha256(line).hexdigest().encode()


def write(subject: Subject, written: list[dict]) -> None:
    """A ledger of these records whose chain is right."""
    lines: list[bytes] = []
    for record in written:
        previous = hashlib.sha256(lines[-1]).hexdigest() if lines else None
        lines.append(sealed(record | {"prev_record": previous}))
    ledger(subject).write_bytes(b"".join(line + b"\n" for line in lines))


# ------- What may have happened to the state folder -------


def first_of(subject: Subject, order_id: str) -> int:
    """The place of the first record of an order."""
    return next(place for place, record in enumerate(records(subject)) if record.get("order_id") == order_id)


def cut_off(subject: Subject) -> None:
    """The two orders of today, and what came after them."""
    lines = ledger(subject).read_bytes().splitlines(keepends=True)
    ledger(subject).write_bytes(b"".join(lines[: first_of(subject, "B-3")]))


def cut_in_a_record(subject: Subject) -> None:
    """As a crash would, but the record was acknowledged."""
    lines = ledger(subject).read_bytes().splitlines(keepends=True)
    ledger(subject).write_bytes(b"".join(lines[: first_of(subject, "U-1") + 1])[:-50])


def without_the_last_event(subject: Subject) -> None:
    """No order is missing, only the record of the stop."""
    lines = ledger(subject).read_bytes().splitlines(keepends=True)
    ledger(subject).write_bytes(b"".join(lines[:-1]))


def lost(subject: Subject) -> None:
    ledger(subject).unlink()


def emptied(subject: Subject) -> None:
    ledger(subject).write_bytes(b"")


def restored(subject: Subject) -> None:
    """The ledger of yesterday alone."""
    shutil.copy(subject.folder / "yesterday" / "ledger.jsonl", ledger(subject))


def restored_with_its_checkpoint(subject: Subject) -> None:
    """They agree with each other; the history of lists and the signed checkpoints know better."""
    for name in ("ledger.jsonl", "checkpoint.json"):
        shutil.copy(subject.folder / "yesterday" / name, state(subject) / name)


def restored_but_for_the_signed_checkpoints(subject: Subject) -> None:
    """Ledger, checkpoint and history of yesterday agree with each other."""
    for name in ("ledger.jsonl", "checkpoint.json", "lists.sqlite"):
        shutil.copy(subject.folder / "yesterday" / name, state(subject) / name)


def restored_but_for_the_history(subject: Subject) -> None:
    """Only the history of lists knows better: somebody has removed the signed checkpoints, too."""
    restored_with_its_checkpoint(subject)
    shutil.rmtree(state(subject) / "checkpoints")


def forged(subject: Subject) -> None:
    """Another name in one record, and every hash made to fit."""
    written = records(subject)
    received, accepted = written[first_of(subject, "B-3") :][:2]
    received["document"] = received["document"].replace(LATE, "harmless.example")
    received["sha256"] = accepted["sha256"] = hashlib.sha256(received["document"].encode()).hexdigest()
    accepted["entries_sha256"] = None
    write(subject, written)


def forged_with_its_checkpoint(subject: Subject) -> None:
    """Checkpoint and copy fit, and the history is gone. The signed checkpoints cannot be made to fit."""
    forged(subject)
    lines = ledger(subject).read_bytes().splitlines()
    path = state(subject) / "checkpoint.json"
    fields = json.loads(path.read_bytes())
    fields["ledger"]["last"] = hashlib.sha256(lines[-1]).hexdigest()
    fields["root"] = None
    path.write_bytes(sealed(fields).ljust(1023) + b"\n")
    (state(subject) / "lists.sqlite").unlink()


def forged_from_the_start(subject: Subject) -> None:
    """As many records as there were, all with another time."""
    at = "2020-01-01T00:00:00.000+00:00"
    write(subject, [record | {"at": at} for record in records(subject)])


def without_checkpoint(subject: Subject) -> None:
    (state(subject) / "checkpoint.json").unlink()


def checkpoint_corrupt(subject: Subject) -> None:
    path = state(subject) / "checkpoint.json"
    path.write_bytes(re.sub(rb'"records":[0-9]+', b'"records":2', path.read_bytes()))


def checkpoint_half(subject: Subject) -> None:
    path = state(subject) / "checkpoint.json"
    path.write_bytes(path.read_bytes()[:40])


WHATEVER = [
    cut_off, cut_in_a_record, without_the_last_event, lost, emptied, restored, restored_with_its_checkpoint,
    restored_but_for_the_signed_checkpoints, restored_but_for_the_history, forged, forged_with_its_checkpoint,
    forged_from_the_start, without_checkpoint, checkpoint_corrupt, checkpoint_half,
]  # fmt: skip
USABLE = {without_checkpoint, checkpoint_corrupt, checkpoint_half}  # the ledger itself


@pytest.mark.parametrize("happened", WHATEVER, ids=lambda one: one.__name__)
def test_the_last_state_is_served_when_acknowledged_records_are_missing(
    subject: Subject, upstream: StubUpstream, happened: Callable[[Subject], None]
):
    """A backup of yesterday would enforce a block that was unblocked today."""
    start_and_stop(subject, upstream)
    happened(subject)
    before = ledger(subject).read_bytes() if ledger(subject).exists() else b""
    subject.launch()
    assert in_force(subject) == (True, False, True, True)
    assert is_forwarded(subject.query("harmless.example"))
    status = subject.cli("status")
    assert status.code == 1
    mismatch = status.json["ledger"]["mismatch"]
    assert mismatch["reason"] in status.json["last_publish"]["error"]
    assert bool(mismatch["missing"]) == (happened not in USABLE)
    if happened not in USABLE | {without_the_last_event}:
        missing = [(one["kind"], one["issuer"], one["order_id"]) for one in mismatch["missing"]]
        assert ("unblock", ORDERS_ZONE["issuer"], "U-1") in missing
    assert subject.metrics().total("dnsblock_ledger_mismatch") == 1
    assert "the ledger is not used, and nothing is published" in subject.stderr()
    subject.put_order(block("B-4", ["new.example"]))
    said = subject.cli("reload")
    assert said.code == 4
    assert "dnsblock log accept-restore" in said.problems[0]["reason"]
    assert is_forwarded(subject.query("new.example"))
    assert subject.cli("check").code == 1
    assert ledger(subject).read_bytes() == before, "the ledger is neither written to nor truncated"
    subject.restart()
    assert in_force(subject) == (True, False, True, True)

    said = subject.cli("log accept-restore", "--reason", "the disk broke")
    assert said.code == 0, said
    assert is_sinkholed(subject.query("new.example"))
    expected = in_force(subject)
    accepted = next(record for record in records(subject) if record["kind"] == "restore_accepted")
    assert accepted["reason"] == "the disk broke"
    assert accepted["found"]["records"] == accepted["n"] - 1
    assert subject.cli("status").code == 0
    assert subject.metrics().total("dnsblock_ledger_mismatch") == 0
    if happened in USABLE:
        assert expected == (True, False, True, True)
    if "restored" in happened.__name__ or happened is cut_off:
        assert expected == (True, True, False, True), "the operator has accepted what the ledger says"
    if happened is cut_in_a_record:
        assert expected == (True, True, True, True)
    subject.kill()
    subject.launch()
    assert in_force(subject) == expected
    status = subject.cli("status")
    assert status.code == 0, status


def in_force(subject: Subject) -> tuple[bool, ...]:
    return tuple(is_sinkholed(subject.query(name)) for name in (STAYS, LIFTED, LATE, LISTED))


def test_lists_are_not_published_when_acknowledged_records_are_missing(
    subject: Subject, upstream: StubUpstream
):
    """Neither by their own change nor on request, nor at a restart; accepted, they are."""
    start_and_stop(subject, upstream)
    cut_off(subject)
    subject.put_list("list.txt", [LISTED, "new.example"])
    subject.launch()
    said = subject.cli("source refresh", "listed")
    assert said.code == 4
    assert is_forwarded(subject.query("new.example"))
    assert is_sinkholed(subject.query(LISTED))
    assert source(subject)["version"] == 1
    subject.cli("log accept-restore", "--reason", "as it is")
    assert is_sinkholed(subject.query("new.example"))


def test_an_order_still_ends_on_time_when_acknowledged_records_are_missing(
    subject: Subject, upstream: StubUpstream
):
    """The orders are served with their times, not as a snapshot of one moment."""

    def begin(moment: datetime) -> None:
        subject.start(
            orders=[
                block("B-1", [STAYS]),
                block("B-2", [LIFTED], expires_at=stamp(moment)),
                block("B-3", [LATE], effective_at=stamp(moment)),
            ],
            upstreams=[upstream.address],
        )
        subject.stop()
        lines = ledger(subject).read_bytes().splitlines(keepends=True)
        ledger(subject).write_bytes(lines[0])
        subject.launch()
        assert is_sinkholed(subject.query(LIFTED))
        assert is_forwarded(subject.query(LATE))

    begun_before(subject, 6, begin)
    wait_for(lambda: is_forwarded(subject.query(LIFTED)), "the block has ended")
    wait_for(lambda: is_sinkholed(subject.query(LATE)), "the other one has begun")
    assert subject.cli("status").code == 1


def test_a_start_without_records_or_a_copy_is_refused_with_advice(subject: Subject, upstream: StubUpstream):
    """The state in force is unknown: enforcing everything or nothing would both be wrong."""
    start_and_stop(subject, upstream)
    cut_off(subject)
    (state(subject) / "acknowledged.jsonl").unlink()
    said = subject.serve_refused()
    assert said.code == 4
    assert "restore a backup of the state folder" in said.stderr


def test_a_modified_copy_is_not_served(subject: Subject, upstream: StubUpstream):
    """It must hold exactly what the checkpoint says."""
    start_and_stop(subject, upstream)
    cut_off(subject)
    shutil.copy(subject.folder / "yesterday" / "acknowledged.jsonl", state(subject) / "acknowledged.jsonl")
    assert subject.serve_refused().code == 4


# ------- What is no mismatch -------


def backup_commands(subject: Subject, backup: Path) -> list[str]:
    """The commands of docs/operations.md, one a line, for the folders of this test."""
    (block_of_sh,) = re.findall(r"\n### The state folder and its backup\n.*?```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = block_of_sh.replace("/var/lib/dnsblock", str(state(subject)))
    return lines.replace("/var/backups/dnsblock", str(backup)).splitlines()


def many(number: int, subject: Subject) -> dict:
    """An order whose names are in a file."""
    names = f"n{number}.example\n".encode()
    subject.put_order(names, f"{number}.txt")
    entries_file = {"path": f"{number}.txt", "sha256": hashlib.sha256(names).hexdigest(), "lines": 1}
    order = block(f"N-{number}", [], entries_file=entries_file)
    del order["entries"]
    return order


@pytest.mark.parametrize("goes_on", [False, True], ids=["at rest", "while orders come"])
def test_a_restore_from_the_files_of_the_documented_backup_starts_normally(
    subject: Subject, upstream: StubUpstream, goes_on: bool
):
    """No file may be missing among those that docs/operations.md copies, whatever comes between."""
    subject.configure(zones=ZONES, lists={"list.txt": [LISTED]}, upstreams=[upstream.address])
    subject.put_order(many(0, subject))
    subject.put_order(block("B-1", [STAYS]))
    subject.launch()
    backup = subject.folder / "backup"
    for number, command in enumerate(backup_commands(subject, backup), start=1):
        subprocess.run(["/bin/sh", "-ec", command], check=True)
        if goes_on:
            subject.put_order(many(number, subject))
            assert subject.cli("reload").code == 0
    subject.stop()
    shutil.rmtree(state(subject))
    shutil.rmtree(subject.orders_folder)
    subject.orders_folder.mkdir()
    shutil.copytree(backup, state(subject))
    subject.launch()
    status = subject.cli("status")
    assert (status.code, status.json["ledger"]["mismatch"]) == (0, None)
    part = PAGE.split("\n### The state folder and its backup\n", 1)[1].split("\n### ", 1)[0]
    documented = {name.strip("/") for name in re.findall(r"`([\w./]+)`", part)}
    files = {path.name.removesuffix("-wal").removesuffix("-shm") for path in state(subject).iterdir()}
    assert files <= documented, "the page says what each file in the state folder is"
    assert all(is_sinkholed(subject.query(name)) for name in ("n0.example", STAYS, LISTED))
    subject.put_order(block("B-9", ["new.example"]))
    assert subject.cli("reload").code == 0
    subject.restart()
    assert is_sinkholed(subject.query("new.example"))


def behind(subject: Subject) -> None:
    """The crash came after the ledger was written and before the checkpoint was."""
    shutil.copy(subject.folder / "yesterday" / "checkpoint.json", state(subject) / "checkpoint.json")
    (state(subject) / "lists.sqlite").unlink()


def half_written(subject: Subject) -> None:
    with ledger(subject).open("ab") as file:
        file.write(b'{"at":"2026-')


def without_line_end(subject: Subject) -> None:
    os.truncate(ledger(subject), ledger(subject).stat().st_size - 1)


def without_copy(subject: Subject) -> None:
    (state(subject) / "acknowledged.jsonl").unlink()


def copy_corrupt(subject: Subject) -> None:
    (state(subject) / "acknowledged.jsonl").write_bytes(b"\0" * 5000)


def without_history(subject: Subject) -> None:
    (state(subject) / "lists.sqlite").unlink()


@pytest.mark.parametrize(
    "happened",
    [behind, half_written, without_line_end, without_copy, copy_corrupt, without_history],
    ids=lambda one: one.__name__,
)
def test_a_crash_or_a_lost_checkpoint_is_no_mismatch(
    subject: Subject, upstream: StubUpstream, happened: Callable[[Subject], None]
):
    """As long as the ledger extends the checkpoint, the daemon starts normally."""
    start_and_stop(subject, upstream)
    whole = ledger(subject).read_bytes()
    happened(subject)
    subject.launch()
    assert in_force(subject) == (True, False, True, True)
    assert subject.cli("status").code == 0
    assert ledger(subject).read_bytes().startswith(whole)
    wait_for(
        lambda: (state(subject) / "acknowledged.jsonl").read_bytes().startswith(whole),
        "there is a whole copy again",
    )
    subject.put_order(block("B-4", ["new.example"]))
    subject.reload()
    subject.restart()
    assert is_sinkholed(subject.query("new.example"))
    assert subject.cli("status").code == 0


def test_a_kill_at_any_moment_of_a_publish_is_no_mismatch(subject: Subject, upstream: StubUpstream):
    """Ledger, copy, checkpoint, snapshot: whatever of them was written, the next start is a normal one."""
    subject.start(upstreams=[upstream.address])
    for number in range(8):
        subject.put_order(block(f"B-{number}", [f"n{number}.example"]))
        size = ledger(subject).stat().st_size
        subject.hup()
        if number % 2:
            wait_for(lambda: ledger(subject).stat().st_size > size, "the ledger is written")  # noqa: B023
        subject.kill()
        subject.launch()
        assert subject.status()["ledger"]["mismatch"] is None
        assert all(is_sinkholed(subject.query(f"n{count}.example")) for count in range(number + 1))


def test_accept_restore_does_nothing_without_a_mismatch(subject: Subject):
    """A command that was run by mistake leaves nothing in the ledger."""
    subject.start(orders=ORDERS)
    said = subject.cli("log accept-restore", "--reason", "just so")
    assert said.code == 4
    assert "nothing to accept" in said.problems[0]["reason"]
    assert "restore_accepted" not in [record["kind"] for record in records(subject)]


def test_a_corrupt_ledger_cannot_be_accepted(subject: Subject, upstream: StubUpstream):
    """The last state is served, but only a backup repairs it: nothing can be appended."""
    start_and_stop(subject, upstream)
    data = ledger(subject).read_bytes()
    ledger(subject).write_bytes(data.replace(b"lifted.example", b"lifted.exampel", 1))
    subject.launch()
    assert in_force(subject) == (True, False, True, True)
    said = subject.cli("log accept-restore", "--reason", "never mind")
    assert said.code == 4
    assert "the ledger is corrupt" in said.problems[0]["reason"]
    assert subject.stop() == 0
    ledger(subject).write_bytes(data)
    subject.launch()
    assert subject.cli("status").code == 0
