"""Health of upstreams: health checks, hysteresis, back-off; slow ones are kept, dead ones are not."""

import itertools
import time
from functools import partial
from itertools import pairwise

import pytest

from . import wire
from .harness import CLOSED_UPSTREAM, Subject, is_forwarded, is_sinkholed
from .orders import block
from .tools import wait_for
from .upstreams import (
    HEALTH_CHECK,
    Asked,
    MakeUpstream,
    Script,
    StubUpstream,
    decent,
    only_health_checks,
    silent,
)

BLOCKED = "blocked.example"
HEALTH_CHECKS = "dnsblock_upstream_health_checks_total"
ERRORS = "dnsblock_upstream_errors_total"
OFTEN = {"interval_ms": 50, "timeout_ms": 1000}
SELDOM = {"interval_ms": 600_000, "timeout_ms": 10_000}
PATIENT = {"timeout_ms": 60_000, "tries": 3}


def start(subject: Subject, *upstreams: StubUpstream | str, **upstream: object) -> None:
    addresses = [one if isinstance(one, str) else one.address for one in upstreams]
    subject.start(orders=[block("B-1", [BLOCKED])], upstreams=addresses, upstream=upstream)


def is_up(subject: Subject, upstream: StubUpstream) -> bool:
    return subject.metrics().total("dnsblock_upstream_up", upstream=upstream.address) == 1


def wait_until_up(subject: Subject, upstream: StubUpstream) -> None:
    wait_for(lambda: is_up(subject, upstream), f"{upstream.address} is up")


def wait_until_down(subject: Subject, upstream: StubUpstream) -> None:
    wait_for(lambda: not is_up(subject, upstream), f"{upstream.address} is down")


def health_checks(subject: Subject, upstream: StubUpstream, result: str) -> float:
    return subject.metrics().total(HEALTH_CHECKS, upstream=upstream.address, result=result)


@pytest.fixture
def make_upstream(make_upstream: MakeUpstream) -> MakeUpstream:
    """Upstreams whose script also answers health checks."""
    return partial(make_upstream, may_die=True)


# ------- Health checks --------------------------------------------------------------------------


def test_health_checks_have_random_ids_and_ports(subject: Subject, upstream: StubUpstream):
    """RFC 5452 section 9.2, as for every query; recursion desired, with our own OPT (RFC 6891)."""
    start(subject, upstream, health_check=OFTEN)
    wait_for(lambda: len(upstream.health_checks) >= 20, "twenty health checks")
    probed = upstream.health_checks[:20]
    assert {one.message.question for one in probed} == {HEALTH_CHECK}
    assert {(one.message.flags, one.message.opt.rclass, one.transport) for one in probed} == {
        (wire.RD, 1232, "udp")
    }
    assert len({one.message.qid for one in probed}) > 15
    assert len({one.source[1] for one in probed}) > 15
    assert upstream.queries == []


def test_health_checks_are_configurable(subject: Subject, upstream: StubUpstream):
    """`upstream.health_check`: name, type and interval, or `null`."""
    start(subject, upstream, health_check={"name": "probe.example", "type": "AAAA", "interval_ms": 50})
    assert upstream.wait_for_query("probe.example").qtype == wire.QTYPES["AAAA"]
    assert subject.stop() == 0
    upstream.forget()
    start(subject, upstream, health_check=None)
    assert is_forwarded(subject.query("free.example"))
    assert [asked.name for asked in upstream.queries] == ["free.example"]
    assert (upstream.health_checks, is_up(subject, upstream)) == ([], True)


def test_health_checks_back_off_while_an_upstream_returns_errors(subject: Subject, upstream: StubUpstream):
    """An upstream that answers with errors is down: each failed health check doubles the time to the next."""
    upstream.script = lambda asked: asked.response(rcode=5)
    began = time.monotonic()
    start(subject, upstream, health_check={"interval_ms": 50})
    wait_for(lambda: len(upstream.health_checks) >= 8, "eight health checks")
    took = time.monotonic() - began
    # Three make it down; then 0.1, 0.2, 0.4 and 0.8 seconds pass, a tenth less at least.
    assert took >= 0.9 * 1.5
    assert len(upstream.health_checks) <= 8 + took
    assert not is_up(subject, upstream)


def test_health_checks_detect_failure_and_recovery_of_an_idle_upstream(
    subject: Subject, make_upstream: MakeUpstream
):
    """A dead standby is detected before it is needed. It is logged, and `status` reports it."""
    first, standby = make_upstream(), make_upstream()
    start(subject, first, standby, health_check=OFTEN)
    wait_for(lambda: standby.health_checks, "it is checked")
    assert is_up(subject, standby)
    standby.script = silent
    wait_until_down(subject, standby)
    assert subject.status()["upstreams_down"] == [standby.address]
    shown = subject.cli("status", as_json=False).stdout.splitlines()
    assert any(standby.address in line and "DOWN" in line for line in shown)
    wait_for(lambda: f"upstream {standby.address} does not answer" in subject.stderr(), "it is logged")
    standby.script = decent
    wait_until_up(subject, standby)
    assert subject.status()["upstreams_down"] == []
    wait_for(lambda: f"upstream {standby.address} answers again" in subject.stderr(), "it is logged")
    assert subject.stderr().count(f"upstream {standby.address}") == 2, "once each, not from each thread"
    assert is_up(subject, first)


@pytest.mark.parametrize("rcode", [1, 2, 4, 5])
def test_an_upstream_with_failing_health_checks_gets_no_queries(
    subject: Subject, make_upstream: MakeUpstream, rcode: int
):
    """A resolver without Internet connectivity, or with an ACL against this server, gets no queries."""
    useless, good = make_upstream(lambda asked: asked.response(rcode=rcode)), make_upstream()
    start(subject, useless, good, health_check=OFTEN)
    wait_until_down(subject, useless)
    assert is_forwarded(subject.query("free.example"))
    assert useless.asked_for("free.example") == []
    assert health_checks(subject, useless, "lost") == 0


def test_an_upstream_that_returns_errors_is_used_if_no_other_is_up(subject: Subject, upstream: StubUpstream):
    """The health-check query may be at fault, and a resolver without Internet connectivity has a cache."""
    upstream.script = lambda asked: asked.response(rcode=5) if asked.name == "" else decent(asked)
    start(subject, upstream, health_check=OFTEN)
    wait_until_down(subject, upstream)
    for number in range(50):
        assert is_forwarded(subject.query(f"n{number}.example"))


@pytest.mark.parametrize("reply", [{"rcode": 3}, {"flags": wire.TC}, {"rcode": 0}])
def test_any_response_but_an_error_is_healthy(subject: Subject, upstream: StubUpstream, reply: dict):
    """NXDOMAIN, TC=1 and NODATA are healthy responses."""
    upstream.script = lambda asked: asked.response(**reply)
    start(subject, upstream, health_check=OFTEN)
    wait_for(lambda: health_checks(subject, upstream, "good") >= 5, "five good health checks")
    assert is_up(subject, upstream)


def test_a_mismatched_response_does_not_count_as_a_health_check(subject: Subject, upstream: StubUpstream):
    """RFC 5452 section 9.1: spoofed responses must not keep a dead upstream up."""
    upstream.script = lambda asked: [
        asked.response(qid=asked.message.qid ^ 1),
        asked.response(question=wire.question("example", "NS")),
    ]
    start(subject, upstream, health_check=OFTEN)
    wait_until_down(subject, upstream)
    assert health_checks(subject, upstream, "good") == 0


def test_one_good_health_check_does_not_bring_an_upstream_up(subject: Subject, make_upstream: MakeUpstream):
    """Hysteresis: a flapping upstream stays down."""
    flapping, good = make_upstream(silent), make_upstream()
    start(subject, flapping, good, health_check=OFTEN | {"timeout_ms": 50, "successes": 2})
    wait_until_down(subject, flapping)
    turn = iter(range(10**6))
    flapping.script = lambda asked: decent(asked) if next(turn) % 2 else None
    wait_for(lambda: health_checks(subject, flapping, "good") >= 4, "four good ones, none after another")
    assert not is_up(subject, flapping)
    # The other one has as little time, and may be late now and then.
    assert f"upstream {flapping.address} answers again" not in subject.stderr()


@pytest.mark.parametrize("script", [silent, lambda asked: asked.response(rcode=2)], ids=["silent", "bad"])
def test_health_checks_of_a_down_upstream_back_off(
    subject: Subject, make_upstream: MakeUpstream, script: Script
):
    """A resolver that restarts must not be met by a flood of checks."""
    at: list[float] = []

    def noting(asked: Asked) -> bytes | None:
        at.append(time.monotonic())
        return script(asked)

    dead, good = make_upstream(noting), make_upstream()
    start(subject, dead, good, health_check={"interval_ms": 50, "timeout_ms": 10})
    wait_for(lambda: len(at) >= 9, "nine health checks", timeout=60)
    gaps = [later - earlier for earlier, later in pairwise(at)]
    # After the third they are 0.1, 0.2, 0.4, 0.8 and 1.6 seconds. The tests see a check late if they wait for
    # a processor. So only gaps that differ by far more than that are compared.
    assert gaps[7] > 3 * gaps[4], gaps
    assert sum(gaps[3:]) > 2, gaps
    at.clear()
    dead.script = decent
    wait_until_up(subject, dead)


# ------- Slow upstreams stay up ---------------------------------------------------------


def slow_names(asked: Asked) -> bytes | None:
    """Some names take as long as the test wants, the others no time."""
    return None if asked.name.startswith("slow") else decent(asked)


def test_an_upstream_that_is_slow_for_some_names_stays_up(subject: Subject, make_upstream: MakeUpstream):
    """Dead authorities make any resolver slow: its queries are not sent twice, and it stays in use."""
    slow, other = make_upstream(slow_names), make_upstream()
    start(subject, slow, other, **PATIENT, health_check=SELDOM)
    with subject.udp() as waiting, subject.udp() as client:
        for number in range(50):
            waiting.send(wire.query(f"slow{number}.example"))
        until = time.monotonic() + 1.5  # five times as long as silence is borne
        while time.monotonic() < until:
            client.send(wire.query("fast.example"))
            assert is_forwarded(wire.read(client.recv(4096)))
        for asked in [one for one in slow.queries if one.name.startswith("slow")]:
            asked.reply(asked.address())
        for _ in range(50):
            assert is_forwarded(wire.read(waiting.recv(4096)))
    assert other.queries == []
    assert is_up(subject, slow)
    assert len([one for one in slow.queries if one.name.startswith("slow")]) == 50


def test_three_slow_names_do_not_bring_an_upstream_down(subject: Subject, make_upstream: MakeUpstream):
    """Its health checks pass meanwhile, so only the names are slow."""
    slow, other = make_upstream(only_health_checks), make_upstream()
    start(subject, slow, other, timeout_ms=700, health_check=OFTEN)
    for number in range(4):
        assert is_forwarded(subject.query(f"n{number}.example"))
    assert subject.metrics().total(ERRORS, upstream=slow.address, reason="timeout") == 4
    assert is_up(subject, slow)


def test_an_upstream_that_answers_only_health_checks_is_down_until_it_answers_a_query(
    subject: Subject, make_upstream: MakeUpstream
):
    """It answers health checks from its cache without Internet connectivity: real queries show it."""
    deaf, other = make_upstream(only_health_checks), make_upstream()
    start(subject, deaf, other, health_check={"interval_ms": 1000}, timeout_ms=500, tries=3)
    numbers = itertools.count()

    def ask() -> None:
        with subject.udp() as client:
            for number in itertools.islice(numbers, 20):
                client.send(wire.query(f"n{number}.example"))
            assert all(is_forwarded(wire.read(client.recv(4096))) for _ in range(20))

    def is_left() -> bool:
        ask()
        good = health_checks(subject, deaf, "good")
        subject.wait_for_metric(HEALTH_CHECKS, good + 3, upstream=deaf.address, result="good")
        return not is_up(subject, deaf)

    wait_for(is_left, "it is down although its health checks pass", 60)
    deaf.forget()
    ask()
    assert len(deaf.queries) < 5, "one query a second tries it"
    deaf.script = decent
    wait_for(lambda: (ask(), is_up(subject, deaf))[1], "an answer to a query brings it back")


def test_a_false_suspicion_is_not_repeated_at_once(subject: Subject, make_upstream: MakeUpstream):
    """Queries are sent twice once, not repeatedly, if a resolver is slow with all but health checks."""
    slow, other = make_upstream(only_health_checks), make_upstream()
    start(subject, slow, other, **PATIENT, health_check=SELDOM)
    subject.wait_for_metric(HEALTH_CHECKS, upstream=slow.address, result="good")
    with subject.udp() as client:
        for number in range(20):
            client.send(wire.query(f"a{number}.example"))
        wait_for(lambda: "answers again" in subject.stderr(), "it was suspected, and a health check passed")
        for wave in range(3):
            good = health_checks(subject, slow, "good")
            for number in range(10):
                client.send(wire.query(f"b{wave}{number}.example"))
            # It follows upon a query that has waited for as long as silence is borne.
            wait_for(lambda good=good: health_checks(subject, slow, "good") > good, "one more health check")
        names = [asked.name for asked in other.queries]
        assert [name for name in names if name.startswith("b")] == []
        assert len(names) == len(set(names)) <= 20
        for asked in slow.queries:
            asked.reply(asked.address())
        for _ in range(50):
            assert is_forwarded(wire.read(client.recv(4096)))
    assert len(slow.queries) == 50
    assert subject.stderr().count("is not responding") == 1


def test_a_single_silent_upstream_gets_each_query_as_often_as_configured(
    subject: Subject, upstream: StubUpstream
):
    """No other upstream can take over: each query has its tries, and no more."""
    upstream.script = silent
    start(subject, upstream, timeout_ms=400, tries=2, health_check=OFTEN)
    with subject.udp() as client:
        for number in range(50):
            client.send(wire.query(f"n{number}.example"))
        for _ in range(50):
            assert wire.read(client.recv(4096)).rcode == "SERVFAIL"
    assert max(len(upstream.asked_for(f"n{number}.example")) for number in range(50)) <= 2


# ------- Hanging and closed upstreams -------------------------------------------------------------


@pytest.mark.parametrize(
    ("queries", "health_check"),
    # Without health checks, silence to one query would prove nothing.
    [(1, SELDOM | {"timeout_ms": 300}), (50, SELDOM | {"timeout_ms": 300}), (50, None)],
    ids=["one query", "many", "many, without health checks"],
)
def test_a_hanging_upstream_is_replaced_long_before_the_timeout(
    subject: Subject, make_upstream: MakeUpstream, queries: int, health_check: dict | None
):
    """Failover in under a second: by its silence to many queries, or to one and a health check."""
    hung, good = make_upstream(), make_upstream()
    start(subject, hung, good, **PATIENT, health_check=health_check)
    assert is_forwarded(subject.query("before.example"))
    hung.script = silent
    with subject.udp() as client:
        for number in range(queries):
            client.send(wire.query(f"n{number}.example"))
        for _ in range(queries):
            assert is_forwarded(wire.read(client.recv(4096)))
    assert len(good.queries) == queries
    assert max(len(hung.asked_for(f"n{number}.example")) for number in range(queries)) == 1
    lost = subject.metrics().total(ERRORS, upstream=hung.address, reason="lost")
    assert lost == queries
    wait_until_down(subject, hung)


def test_without_health_checks_a_query_retries_a_down_upstream(subject: Subject, make_upstream: MakeUpstream):
    """`health_check: null`: one client query every two seconds retries it."""
    first, second = make_upstream(silent), make_upstream()
    start(subject, first, second, timeout_ms=500, health_check=None)
    for number in range(5):
        assert is_forwarded(subject.query(f"n{number}.example"))
    assert len(first.queries) == 3
    first.script = decent
    wait_for(
        lambda: is_forwarded(subject.query("again.example")) and is_up(subject, first), "it is tried again"
    )
    second.forget()
    assert is_forwarded(subject.query("after.example"))
    assert second.queries == []


def all_dead(subject: Subject, upstreams: list[StubUpstream]) -> None:
    for one in upstreams:
        wait_until_down(subject, one)


@pytest.mark.parametrize("script", [silent, None])
def test_with_all_upstreams_down_blocked_names_are_answered(
    subject: Subject, make_upstream: MakeUpstream, script: Script | None
):
    """Error policy, upstream: blocked names are answered anyway; each upstream gets one query a second."""
    two = [make_upstream(silent), make_upstream(silent)]
    start(subject, *two, timeout_ms=100, health_check=OFTEN | {"interval_ms": 1000})
    if script is None:
        for one in two:
            one.close()
    all_dead(subject, two)
    for one in two:
        one.forget()
    sent = subject.metrics().total("dnsblock_upstream_queries_total")
    began = time.monotonic()
    with subject.udp() as client:
        for number in range(2000):
            client.send(wire.query(BLOCKED))
            assert is_sinkholed(wire.read(client.recv(4096)))
            client.send(wire.query(f"n{number}.example"))
            assert wire.read(client.recv(4096)).rcode == "SERVFAIL"
    seconds = time.monotonic() - began
    sent = subject.metrics().total("dnsblock_upstream_queries_total") - sent
    assert sent <= len(two) * (seconds + 2), f"{sent} in {seconds:.1f} s"


def test_with_all_upstreams_down_one_good_response_brings_one_up(subject: Subject, upstream: StubUpstream):
    """With none up, one good response is enough: waiting for a second would help nobody."""
    upstream.script = silent
    start(subject, upstream, CLOSED_UPSTREAM, timeout_ms=500, health_check=OFTEN | {"successes": 100})
    wait_until_down(subject, upstream)
    upstream.script = decent
    wait_for(lambda: is_forwarded(subject.query("free.example")), "it answers")
    for number in range(50):
        assert is_forwarded(subject.query(f"n{number}.example"))
    assert not is_up(subject, upstream)
