"""While no upstream can be used, queries wait for one to come back: two seconds at most.

How long an outage lasts is measured here. A try that took too long is repeated only if the kernel gave no
processor to the daemon or to these tests meanwhile.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from . import wire
from .harness import Subject, is_forwarded, is_sinkholed
from .orders import block
from .scheduling import RunDelays
from .tools import wait_for
from .upstreams import MakeUpstream, StubUpstream, decent, silent

BLOCKED = "blocked.example"
HOLD = 2.0  # seconds that queries wait
LONG = 45.0  # how long a client waits here
PROBED = {"interval_ms": 1000, "timeout_ms": 500}
HEALTH_CHECKS = pytest.mark.parametrize(
    "health_check", [PROBED, None], ids=["with health checks", "without health checks"]
)


def start(subject: Subject, *upstreams: StubUpstream, workers: int = 2, **settings: object) -> None:
    subject.start(
        orders=[block("B-1", [BLOCKED])],
        upstreams=[one.address for one in upstreams],
        upstream={"timeout_ms": 500, **settings},
        workers=workers,
    )


class Clients:
    """Clients on many flows, and so on all worker threads, that wait long."""

    def __init__(self, subject: Subject, number: int, stack: ExitStack) -> None:
        self._sockets = [stack.enter_context(subject.udp()) for _ in range(number)]
        self._asked = 0
        for sock in self._sockets:
            sock.settimeout(LONG)

    def ask(self) -> None:
        """One new name each."""
        for sock in self._sockets:
            self._asked += 1
            sock.send(wire.query(f"n{self._asked}.example"))

    def ask_blocked(self) -> None:
        """A blocked name is answered first, whatever waits."""
        for sock in self._sockets:
            sock.send(wire.query(BLOCKED))
        for sock in self._sockets:
            assert is_sinkholed(wire.read(sock.recv(4096))), "a blocked name is never delayed"

    def replies(self) -> list[wire.Reply]:
        return [wire.read(sock.recv(4096)) for sock in self._sockets]


@contextmanager
def clients(subject: Subject, number: int = 20) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield Clients(subject, number, stack)


def within_hold(subject: Subject, one_try: Callable[[], None]) -> None:
    """Repeats a failed try only if it took longer than queries wait, for want of a processor."""
    for _ in range(20):
        began = time.monotonic()
        with RunDelays(subject) as delays:
            try:
                return one_try()
            except AssertionError:
                too_long = time.monotonic() - began - HOLD
                if too_long < 0 or delays.of_all(began) < too_long:
                    raise
    pytest.fail(f"the machine is too slow: each try took longer than {HOLD} s, for want of a processor")


@HEALTH_CHECKS
@pytest.mark.parametrize("workers", [1, 4])
def test_queries_wait_while_the_single_upstream_restarts(
    subject: Subject, upstream: StubUpstream, workers: int, health_check: dict | None
):
    """BIND asks again until its own limit of ten seconds: closed for half a second costs no query."""
    start(subject, upstream, workers=workers, health_check=health_check)

    def restart() -> None:
        upstream.close()
        try:
            with clients(subject) as waiting:
                waiting.ask()
                waiting.ask_blocked()
                time.sleep(0.3)  # of the outage itself
                waiting.ask()
                upstream.reopen()
                for _ in range(2):
                    assert [reply.rcode for reply in waiting.replies()] == ["NOERROR"] * 20
        finally:
            upstream.reopen()

    within_hold(subject, restart)
    assert is_forwarded(subject.query("after.example"))


@HEALTH_CHECKS
@pytest.mark.parametrize("closed_for", [0.02, 0.5])
def test_a_restarted_upstream_takes_over_when_the_other_goes_down(
    subject: Subject, make_upstream: MakeUpstream, closed_for: float, health_check: dict | None
):
    """The first restarts, then the second: each moment one of them listens, so no query fails."""
    first, second = make_upstream(), make_upstream()
    start(subject, first, second, health_check=health_check)

    def restart() -> None:
        try:
            with clients(subject) as waiting:
                first.close()
                for _ in range(3):  # it is found to be down, and the second answers
                    waiting.ask()
                    assert all(is_forwarded(reply) for reply in waiting.replies())
                time.sleep(closed_for)
                first.reopen()
                second.close()
                waiting.ask()
                assert all(is_forwarded(reply) for reply in waiting.replies())
        finally:
            first.reopen()
            second.reopen()
            wait_for(lambda: is_forwarded(subject.query("settled.example")), "both are up again")

    within_hold(subject, restart)


def give_up(subject: Subject, upstream: StubUpstream) -> None:
    """Until queries fail at once: the upstream is down, and the time to wait is over."""

    def is_given_up() -> bool:
        with clients(subject, 1) as one:
            one.ask()
            (reply,) = one.replies()
        return reply.rcode == "SERVFAIL" and len(upstream.health_checks) >= 20

    wait_for(is_given_up, "it is down, and probed often", timeout=LONG)


@pytest.mark.parametrize("how", ["silent", "closed"])
def test_after_a_long_outage_the_first_good_health_check_is_enough(
    subject: Subject, make_upstream: MakeUpstream, how: str
):
    """Silent for long, it is back at once: health checks do not back off while no upstream can be used.

    RFC 9520 section 3.2: what failed meanwhile is forgotten, as it was no fault of the name.
    """
    upstream = make_upstream(silent, may_die=True)
    start(subject, upstream, health_check={"interval_ms": 1000, "timeout_ms": 100}, tries=1)
    give_up(subject, upstream)
    if how == "closed":
        upstream.close()
        wait_for(lambda: subject.query("down.example").rcode == "SERVFAIL", "it fails")
    lost = [f"lost{number}.example" for number in range(20)]
    assert {subject.query(name).rcode for name in lost} == {"SERVFAIL"}
    upstream.script = decent
    upstream.reopen()
    subject.wait_for_metric("dnsblock_upstream_health_checks_total", upstream=upstream.address, result="good")
    with clients(subject) as waiting:
        for _ in range(3):
            waiting.ask()
            assert all(is_forwarded(reply) for reply in waiting.replies())
    assert all(is_forwarded(subject.query(name)) for name in lost)


def test_queries_that_wait_for_an_upstream_are_bounded(subject: Subject, upstream: StubUpstream):
    """Traps, bounds: `max_outstanding` holds for queries that wait for an upstream, too."""
    start(subject, upstream, workers=1, max_outstanding=10, health_check=PROBED)
    upstream.close()
    with clients(subject, 40) as waiting:
        waiting.ask()
        assert {reply.rcode for reply in waiting.replies()} == {"SERVFAIL"}
    assert subject.metrics().total("dnsblock_queries_total", outcome="overloaded") >= 1
    wait_for(lambda: subject.metrics().total("dnsblock_outstanding_queries") == 0, "none is left")
