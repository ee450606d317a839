"""One of two real resolvers dies under thousands of queries a second, and no query fails."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from .harness import Subject, is_sinkholed
from .orders import block
from .tools import tool, wait_for
from .upstreams import Unbound

BLOCKED = "blocked.example"
RATE = 3000
TIMEOUT_S = 10  # with one query: nobody waits for it to end
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def two_resolvers(tmp_path: Path) -> Iterator[tuple[Unbound, Unbound]]:
    """Two that a test may kill."""
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    with closing(Unbound(folders[0])) as one, closing(Unbound(folders[1])) as other:
        one.start()
        other.start()
        yield one, other


@contextmanager
def load(subject: Subject) -> Iterator[list[str]]:
    """dnsperf at RATE until the block ends; its report is there afterwards."""
    names = subject.folder / "queries.txt"
    names.write_text("".join(f"n{number}.load.example A\n{BLOCKED} A\n" for number in range(1000)))
    command = [tool("dnsperf"), "-s", "127.0.0.1", "-p", str(subject.ports[4]), "-d", str(names)]
    # A query that is not answered within dnsperf's own timeout counts as lost. Its sockets must hold all
    # responses that arrive at once when both resolvers time out, or it loses some itself.
    command += [
        "-c",
        "8",
        "-b",
        "2048",
        "-T",
        "1",
        "-t",
        str(TIMEOUT_S),
        "-l",
        "86400",
        "-q",
        "5000",
        "-Q",
        str(RATE),
    ]
    report: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            yield report
        finally:
            running.send_signal(signal.SIGINT)
            report.append(running.communicate(timeout=120)[0])


def figure(output: str, pattern: str) -> float:
    return float(re.search(pattern, output)[1])


@pytest.mark.parametrize("selection", ["first", "least_outstanding", "hashed"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_losing_one_of_two_resolvers_under_load_costs_no_query(
    subject: Subject, two_resolvers: tuple[Unbound, Unbound], selection: str, how: signal.Signals
):
    """Every query has a good answer, and the slowest waited for the silence to be noticed, and no longer."""
    dying, staying = two_resolvers
    subject.start(
        orders=[block("B-1", [BLOCKED])],
        upstreams=[dying.address, staying.address],
        upstream={"selection": selection, "timeout_ms": TIMEOUT_S * 1000, "health_check": {}},
    )
    forwarded = "dnsblock_queries_total"
    with load(subject) as report:
        subject.wait_for_metric(forwarded, at_least=RATE, outcome="forwarded")
        dying.send_signal(how)
        subject.wait_for_metric("dnsblock_upstream_errors_total", upstream=dying.address)
        before = subject.metrics().total(forwarded, outcome="forwarded")
        subject.wait_for_metric(forwarded, at_least=before + RATE, outcome="forwarded")
    print(report[0])
    assert figure(report[0], r"Queries lost:\s+(\d+)") == 0
    assert re.search(r"Response codes:\s+NOERROR \d+ \(100.00%\)", report[0])
    assert figure(report[0], r"max ([\d.]+)\)") < TIMEOUT_S / 3
    failed = {"failed", "overloaded"}
    assert sum(subject.metrics().total("dnsblock_queries_total", outcome=one) for one in failed) == 0
    assert subject.status()["upstreams_down"] == [dying.address]
    if how == signal.SIGSTOP:
        dying.send_signal(signal.SIGCONT)
    else:
        dying.close()
        assert dying.start_again()
    wait_for(lambda: subject.status()["upstreams_down"] == [], "it is asked again")


def test_blocked_names_are_answered_when_all_resolvers_are_lost_under_load(
    subject: Subject, two_resolvers: tuple[Unbound, Unbound]
):
    """With all dead: every blocked name has its answer, and everybody else hears so."""
    subject.start(
        orders=[block("B-1", [BLOCKED])],
        upstreams=[one.address for one in two_resolvers],
        upstream={"timeout_ms": 1500, "health_check": {}},
    )
    with load(subject) as report:
        subject.wait_for_metric("dnsblock_queries_total", at_least=RATE, outcome="forwarded")
        for one in two_resolvers:
            one.send_signal(signal.SIGSTOP)
        subject.wait_for_metric("dnsblock_queries_total", at_least=RATE / 2, outcome="failed")
    print(report[0])
    assert figure(report[0], r"Queries lost:\s+(\d+)") == 0
    for one in two_resolvers:
        one.send_signal(signal.SIGCONT)
    assert is_sinkholed(subject.query(BLOCKED))
    wait_for(lambda: is_forwarded_by_unbound(subject), "what is not blocked is answered")


def is_forwarded_by_unbound(subject: Subject) -> bool:
    return subject.query("n1.load.example").addresses == ["203.0.113.1"]
