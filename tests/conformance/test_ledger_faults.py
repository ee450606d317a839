"""A kill, a full disk and a failing fsync, at every call that changes a file in the state folder.

Nothing that was acknowledged is lost, and nothing that is not in the ledger is enforced.
"""

import json
import os
import random
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dnsblock.errors import DaemonUnreachable, Refused

from .asking import SINKHOLE4
from .faults import KILL, NO_SPACE, NOTHING, SYNC_FAILS, Faults
from .harness import Subject, is_forwarded, is_sinkholed
from .orders import as_yaml, block
from .tools import wait_for
from .upstreams import StubUpstream

# `make kills` sets this. Then every call of a startup is met, not every seventh: most are of SQLite.
KILLS = int(os.environ.get("DNSBLOCK_KILLS", "0"))
STRIDE = 1 if KILLS else 7


def name_of(number: int) -> str:
    return f"n{number}.example"


def document(number: int) -> tuple[str, bytes]:
    return f"B-{number}.yaml", as_yaml(block(f"B-{number}", [name_of(number)])).encode()


def state(subject: Subject) -> Path:
    return subject.folder / "state"


def in_ledger(subject: Subject) -> set[int]:
    """The orders that the ledger accepts."""
    lines = (state(subject) / "ledger.jsonl").read_bytes().splitlines()
    found = [json.loads(line) for line in lines if line.endswith(b"}")]
    return {int(one["order_id"][2:]) for one in found if one["kind"] == "accepted"}


def submit(subject: Subject, number: int) -> bool:
    """Submits an order. True: it is acknowledged; False: it is refused, or there is no answer."""
    try:
        answer = subject.submit(*document(number))
    except (DaemonUnreachable, Refused):
        return False
    return bool(answer["documents"][0]["verdict"] == "accepted")


def records(subject: Subject) -> int:
    path = state(subject) / "ledger.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def is_settled(subject: Subject) -> bool:
    """Whether a signed checkpoint covers all records: nothing more is written then."""
    covered = f"-{records(subject):012d}-"
    return any(covered in path.name for path in (state(subject) / "checkpoints").glob("*"))


class Watch:
    """Queries a name again and again, and notes whether it was ever blocked."""

    def __init__(self, subject: Subject, name: str) -> None:
        self.was_blocked = False
        self._ends = threading.Event()
        question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
        self._query = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + question + b"\0\1\0\1"
        self._address = ("127.0.0.1", subject.ports[4])
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.2)
            client.connect(self._address)
            while not self._ends.is_set():
                try:
                    client.send(self._query)
                    response = client.recv(512)
                except OSError:  # it was killed, or it is slow
                    continue
                self.was_blocked |= socket.inet_aton(SINKHOLE4) in response

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()


@pytest.fixture
def faults(subject: Subject, upstream: StubUpstream) -> Faults:
    faults = Faults(subject)
    subject.start(orders=[block("B-0", [name_of(0)])], upstreams=[upstream.address])
    wait_for(lambda: is_settled(subject), "the first checkpoint is signed")
    return faults


def check(subject: Subject, acknowledged: set[int], tried: int) -> None:
    """After a restart: what is enforced is what the ledger accepts, and nothing acknowledged is missing."""
    accepted = in_ledger(subject)
    assert acknowledged <= accepted, "an acknowledged order is lost"
    assert subject.status()["ledger"]["mismatch"] is None
    for number in range(max(0, tried - 3), tried + 1):
        response = subject.query(name_of(number))
        assert is_sinkholed(response) if number in accepted else is_forwarded(response), number


def killed_at(subject: Subject, faults: Faults, call: int, number: int, acknowledged: set[int]) -> bool:
    """One order, with a kill at a call; then a restart. False: there are not so many calls."""
    faults.set(KILL, call)
    with Watch(subject, name_of(number)) as watch:
        if submit(subject, number):
            acknowledged.add(number)
        assert subject.process is not None
        wait_for(lambda: faults.has_happened or is_settled(subject), "it is killed, or all is written")
    was_killed = faults.has_happened
    faults.set(NOTHING)
    if not was_killed:
        return False
    subject.kill()
    if watch.was_blocked:
        assert number in in_ledger(subject), "what is not in the ledger was enforced"
    subject.launch()
    check(subject, acknowledged, number)
    return True


def test_a_kill_at_any_write_of_an_order_loses_nothing(subject: Subject, faults: Faults):
    """From the ledger to the signed checkpoint; of a write, half is on the disk."""
    acknowledged = {0}
    for call in range(1, 200):
        if not killed_at(subject, faults, call, call, acknowledged):
            break
    assert 15 < call < 100, "the calls of one order"
    assert acknowledged - {0, call}, "some were killed after the acknowledgement"
    assert set(range(1, call)) - acknowledged, "and some before it"
    said = subject.cli("log verify")
    assert said.code == 0, said


def test_a_kill_at_any_write_of_the_first_startup_loses_nothing(subject: Subject, upstream: StubUpstream):
    """The state folder is new: the key, the ledger, the order, the checkpoint."""
    faults = Faults(subject)
    subject.configure(orders=[block("B-0", [name_of(0)])], upstreams=[upstream.address])
    for call in range(1, 300, STRIDE):
        shutil.rmtree(state(subject), ignore_errors=True)
        faults.set(KILL, call)
        launched_and_killed(subject, faults)
        was_killed = faults.has_happened
        faults.set(NOTHING)
        subject.launch()
        assert is_sinkholed(subject.query(name_of(0)))
        assert subject.status()["ledger"]["mismatch"] is None
        subject.kill()
        if not was_killed:
            break
    assert call > 15, "the calls of a startup"


def launched_and_killed(subject: Subject, faults: Faults) -> None:
    """Starts the daemon, until it is killed or has written all that a startup writes."""
    before = records(subject)
    process = subject.launch_only()

    def is_over() -> bool:
        return process.poll() is not None or (records(subject) > before and is_settled(subject))

    wait_for(is_over, "it is killed, or all is written")
    assert process.poll() is None or faults.has_happened, subject.stderr()
    subject.kill()


def test_a_kill_at_any_write_of_a_restart_loses_nothing(subject: Subject, faults: Faults):
    """Even of the restart after a kill."""
    subject.kill()
    for call in range(1, 200, (STRIDE + 1) // 2):
        faults.set(KILL, call)
        launched_and_killed(subject, faults)
        if not faults.has_happened:
            break
    assert call > 10, "the calls of a restart"
    faults.set(NOTHING)
    subject.launch()
    check(subject, {0}, 0)
    assert subject.cli("log verify").code == 0


@contextmanager
def met(faults: Faults, what: int, call: int) -> Iterator[None]:
    faults.set(what, call)
    yield
    faults.set(NOTHING)


@pytest.mark.parametrize("what", [NO_SPACE, SYNC_FAILS], ids=["full disk", "failing fsync"])
def test_an_order_is_acknowledged_and_enforced_or_neither(subject: Subject, faults: Faults, what: int):
    """With a disk that is full from a call on, and with an fsync that fails. After it, all is as before."""
    acknowledged, refused = {0}, set()
    for call in range(1, 40):
        number = 2 * call
        with met(faults, what, call):
            (acknowledged if submit(subject, number) else refused).add(number)
            is_enforced = is_sinkholed(subject.query(name_of(number)))
        assert is_enforced == (number in acknowledged), f"call {call}"
        assert submit(subject, number + 1), f"after call {call}"
        acknowledged.add(number + 1)
    assert refused, "some were refused"
    assert acknowledged & set(range(2, 80, 2)), "and some were not"
    subject.restart()
    assert in_ledger(subject) == acknowledged
    for number in range(80):
        assert is_sinkholed(subject.query(name_of(number))) == (number in acknowledged)
    assert subject.status()["ledger"]["mismatch"] is None
    said = subject.cli("log verify")
    assert said.code == 0, said


def test_random_kills_lose_nothing(subject: Subject, faults: Faults):
    """At random calls of an order or of a startup; a thousand of them with `make kills`."""
    acknowledged = {0}
    chance = random.Random(1)
    for number in range(1, (KILLS or 5) + 1):
        if not killed_at(subject, faults, chance.randint(1, 30), number, acknowledged):
            subject.kill()
            faults.set(KILL, chance.randint(1, 30))
            launched_and_killed(subject, faults)
            faults.set(NOTHING)
            subject.launch()
            check(subject, acknowledged, number)
        if number % 50 == 0:
            recorded = len(in_ledger(subject))
            print(f"{number} kills, {len(acknowledged)} orders acknowledged, {recorded} recorded, none lost")
    assert subject.cli("log verify").code == 0
