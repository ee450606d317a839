"""A hundred reloads under constant load: no query lost, none answered wrongly or by two snapshots mixed."""

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from . import wire
from .harness import Subject, is_sinkholed
from .orders import block, unblock
from .tools import run, tool, wait_for
from .upstreams import Unbound

RELOADS = 100
PAIR = ("one.pair.example", "two.pair.example")
ALWAYS = [f"b{i}.always.example" for i in range(500)]
pytestmark = pytest.mark.timeout(1200)


def dnsperf(subject: Subject, names: Path, *more: str) -> list[str]:
    place = ["-s", "127.0.0.1", "-p", str(subject.ports[4])]
    return [tool("dnsperf"), *place, "-d", str(names), "-c", "8", "-T", "1", "-t", "45", "-e", *more]


def figure(output: str, label: str) -> float:
    return float(re.search(rf"{label}:\s+([\d.]+)", output)[1])


@contextmanager
def constant_load(subject: Subject, names: Path) -> Iterator[list[str]]:
    """dnsperf at half of what the daemon can do (at most 20,000 a second); its report is there afterwards."""
    measured = run(dnsperf(subject, names, "-l", "2", "-q", "200"))
    rate = min(figure(measured.stdout, "Queries per second") / 2, 20000)
    report: list[str] = []
    with subprocess.Popen(
        dnsperf(subject, names, "-l", "86400", "-q", "1000", "-Q", str(int(rate))),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as load:
        try:
            yield report
            assert load.poll() is None, "the load ended before the reloads"
        finally:
            load.send_signal(signal.SIGINT)
            report.append(load.communicate(timeout=60)[0])


class Checker(threading.Thread):
    """Asks one name after another, over sockets of many flows, and keeps what the answers say in order.

    Each blocked answer names its snapshot twice: by the serial in the SOA, and by the order in the EDE.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__(name="checker")
        self.subject = subject
        self.seen: list[tuple[str, int, str]] = []
        self.wrong: list[str] = []
        self.finished = threading.Event()

    def run(self) -> None:
        with ExitStack() as stack:
            sockets = [stack.enter_context(self.subject.udp()) for _ in range(16)]
            turn = 0
            while not self.finished.is_set() and not self.wrong:
                sock, name = sockets[turn % 16], PAIR[turn % 2]
                turn += 1
                try:
                    sock.send(wire.query(name, "TXT", qid=turn & 0xFFFF, edns=True))
                    reply = wire.read(sock.recv(4096))
                    assert reply.qid == turn & 0xFFFF
                    self.seen.append((name, reply.soa.serial, reply.extended_errors[16]))
                except Exception as err:
                    self.wrong.append(f"{name}: {err!r}")


def test_a_hundred_reloads_under_load_lose_no_query_and_mix_no_snapshots(
    subject: Subject, unbound: Unbound, tmp_path: Path
):
    """Trap 11: each reload replaces the order that blocks the pair: one in, one out."""
    orders = [block("ALWAYS", ALWAYS), block("PAIR-0", PAIR)]
    subject.start(orders=orders, upstreams=[unbound.address], udp={"max_payload": 1232})
    names = tmp_path / "queries.txt"
    asked = [name for i in range(500) for name in (ALWAYS[i], f"n{i}.load.example")]
    names.write_text("".join(f"{name} A\n" for name in asked))
    order_of = {subject.ready["serial"]: "PAIR-0"}
    checker = Checker(subject)
    with constant_load(subject, names) as report:
        checker.start()
        try:
            for number in range(1, RELOADS + 1):
                replace_the_pair(subject, number)
                serial = publish(subject, number)
                order_of[serial] = f"PAIR-{number}"
                assert not checker.wrong
        finally:
            checker.finished.set()
            checker.join()
    assert figure(report[0], "Queries lost") == 0, report[0]
    assert re.search(r"Response codes:\s+NOERROR \d+ \(100.00%\)", report[0]), report[0]
    assert checker.wrong == []
    assert_one_snapshot_after_the_other(checker.seen, order_of)


def replace_the_pair(subject: Subject, number: int) -> None:
    """Two files for one publish; the unblock alone would open the pair, and the checker would see that."""
    subject.put_order(block(f"PAIR-{number}", PAIR))
    subject.put_order(unblock(f"LIFT-{number}", f"PAIR-{number - 1}"))


def publish(subject: Subject, number: int) -> int:
    """By signal and by command in turn; returns the new serial."""
    if number % 10 == 0:
        return subject.reload()["serial"]
    before = subject.query(PAIR[0], "TXT").soa.serial
    subject.hup()
    return wait_for(
        lambda: (serial := subject.query(PAIR[0], "TXT").soa.serial) != before and serial, "the next serial"
    )


def assert_one_snapshot_after_the_other(seen: list[tuple[str, int, str]], order_of: dict[int, str]) -> None:
    assert len(order_of) == RELOADS + 1
    assert len({serial for _, serial, _ in seen}) > RELOADS / 2, "the checker saw the reloads happen"
    mixed = [row for row in seen if order_of[row[1]] != row[2]]
    assert mixed == [], "serial and order of one answer belong to one snapshot"
    serials = [serial for _, serial, _ in seen]
    assert serials == sorted(serials), "an earlier snapshot never answers after a later one"


def test_names_that_one_publish_opens_and_closes_change_together(subject: Subject, unbound: Unbound):
    """No mixture: each publish blocks one name and opens the other; never are both blocked or both open."""
    red, green = "n1.load.example", "n2.load.example"
    subject.start(orders=[block("A-0", [red])], upstreams=[unbound.address])
    finished, wrong, rounds = threading.Event(), [], [0]

    def ask() -> None:
        with subject.udp() as sock:
            while not finished.is_set():
                began = time.monotonic()
                states = [blocked(sock, name) for name in (red, green, red)]
                # One swap between the questions shows by red changing; two need the time of a reload.
                if len(set(states)) == 1 and time.monotonic() - began < 0.05:
                    wrong.append(str(states))
                rounds[0] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for number in range(1, 31):
            closes, opens = (green, red) if number % 2 else (red, green)
            subject.put_order(block(f"A-{number}", [closes]))
            subject.put_order(unblock(f"L-{number}", f"A-{number - 1}"))
            subject.hup()
            wait_for(lambda: is_sinkholed(subject.query(closes)), "the next snapshot")  # noqa: B023
            assert not is_sinkholed(subject.query(opens))
    finally:
        finished.set()
        thread.join()
    assert (wrong, rounds[0] > 100) == ([], True)


def blocked(sock: object, name: str) -> bool:
    sock.send(wire.query(name))
    reply = wire.read(sock.recv(4096))
    assert reply.addresses
    return is_sinkholed(reply)
