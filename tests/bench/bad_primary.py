"""Queries at a fixed rate while a primary misbehaves: how many are lost, and how long they take.

    PYTHONPATH=tests .venv/bin/python -m bench.bad_primary --rate 50000

The misbehaving primary, its victim and dnsperf share the processors. Compare with the line `quiet`.
"""

import argparse
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from conformance.harness import PROFILES, Subject
from conformance.primaries import Timers
from conformance.scripted_primary import Asked, Close, Rule, ScriptedPrimary, Sent, soa
from conformance.tools import tool
from conformance.transfers import ZONE, blocks, notify, zone_from
from conformance.upstreams import StubUpstream

BLOCKED = [f"n{number}.example" for number in range(1000)]
SERIAL = 99
BURST, PAUSE_SECONDS = 200, 0.01  # of the flood: about 20,000 messages per second

# ------- Bad input ------------------------------------------------------------------------


def endless(asked: Asked) -> Iterator[Sent]:
    """A transfer that never ends."""
    yield asked.response([soa(SERIAL)])
    more = asked.response([f"x{number}.endless.example CNAME ." for number in range(700)], question=None)
    message = more.to_wire()
    while not asked.stopped.is_set():
        yield message


def interrupted(asked: Asked) -> Iterator[Sent]:
    """A transfer whose connection ends before the last SOA record; dnsblock tries it again each second."""
    yield from asked.responses([soa(SERIAL), *blocks(*(f"y{number}.example" for number in range(20_000)))])
    yield Close()


def transfer(rule: Rule) -> dict[str, Rule]:
    """The rules of a primary that announces a new serial, and sends this."""
    return {"SOA": lambda asked: [asked.response([soa(SERIAL)])], "AXFR": rule, "IXFR": rule}


@contextmanager
def flood(port: int, source: str) -> Iterator[list[int]]:
    """NOTIFY messages from this address; the list has their number."""
    data, over, sent = notify().to_wire(), threading.Event(), [0]

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((source, 0))
            while not over.wait(PAUSE_SECONDS):
                for _ in range(BURST):
                    sock.sendto(data, ("127.0.0.1", port))
                sent[0] += BURST

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


# ------- The measurement ------------------------------------------------------------------


def load(port: int, folder: Path, options: argparse.Namespace) -> str:
    """Runs dnsperf with blocked names."""
    file = folder / "queries"
    file.write_text("".join(f"{name} A\n" for name in BLOCKED))
    fixed = ["-Q", str(options.rate), "-l", str(options.seconds), "-c", "20", "-T", "1"]
    command = [tool("dnsperf"), "-s", "127.0.0.1", "-p", str(port), "-d", str(file), *fixed]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def figure(pattern: str) -> float:
        found = re.search(pattern, shown)
        assert found, shown
        return float(found[1])

    sent, lost = figure(r"Queries sent:\s+(\d+)"), figure(r"Queries lost:\s+(\d+)")
    average, longest = figure(r"Average Latency \(s\):\s+([\d.]+)"), figure(r"max ([\d.]+)")
    rate = figure(r"Queries per second:\s+([\d.]+)")
    times = f"{average * 1e3:.2f} ms, at most {longest * 1e3:.0f} ms"
    return f"{sent:,.0f} sent, {lost:,.0f} lost, {rate:,.0f}/s, {times}"


def measure(options: argparse.Namespace, rules: dict[str, Rule], source: str | None) -> str:
    """One line of figures, with a daemon of its own."""
    folder = Path(tempfile.mkdtemp(prefix="bad-primary-"))
    timers = Timers(refresh=1, retry=1)
    with (
        closing(StubUpstream()) as upstream,
        ScriptedPrimary(blocks(*BLOCKED), timers=timers) as primary,
        closing(Subject(folder)) as subject,
    ):
        zone = zone_from(primary.address)
        subject.start(zones=[zone], answers=PROFILES, inbox=None, upstreams=[upstream.address])
        primary.rules = rules
        time.sleep(2)  # the zone's REFRESH
        if source is None:
            line = load(subject.ports[4], folder, options)
        else:
            with flood(subject.ports[4], source) as sent:
                line = f"{load(subject.ports[4], folder, options)}, {sent[0]:,} NOTIFY"
        assert subject.query(BLOCKED[0]).rcode == "NXDOMAIN"
        assert subject.query("x1.endless.example").rcode == "NOERROR"
        assert subject.metrics().total("dnsblock_zone_serial", zone=ZONE) == 1
        return line


CASES: dict[str, tuple[Callable[[], dict[str, Rule]], str | None]] = {
    "quiet": (dict, None),
    "endless transfer": (lambda: transfer(endless), None),
    "interrupted transfers": (lambda: transfer(interrupted), None),
    "NOTIFY from strangers": (dict, "127.0.0.9"),
    "NOTIFY from the primary": (dict, "127.0.0.1"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=int, default=50_000)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for _ in range(options.rounds):
        for title, (rules, source) in CASES.items():
            print(f"{title:24} {measure(options, rules(), source)}", flush=True)


if __name__ == "__main__":
    main()
