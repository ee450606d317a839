"""The metrics: readable to Prometheus, complete, up to date, and without clients and queried names."""

import pytest

from . import wire
from .clients import Metrics
from .harness import CLOSED_UPSTREAM, ORDERS_ZONE, Subject, is_forwarded, is_sinkholed
from .orders import block
from .tools import run, tool, wait_for
from .upstreams import StubUpstream

LIST_ZONE = {"name": "malware", "list": "malware.txt", "match": "exact", "answer": "nodata"}
METRICS = {
    "dnsblock_queries_total": {"transport", "outcome"},
    "dnsblock_blocked_total": {"zone", "action"},
    "dnsblock_upstream_queries_total": {"upstream", "transport"},
    "dnsblock_upstream_errors_total": {"upstream", "reason"},
    "dnsblock_upstream_latency_seconds_bucket": {"upstream", "le"},
    "dnsblock_upstream_latency_seconds_sum": {"upstream"},
    "dnsblock_upstream_latency_seconds_count": {"upstream"},
    "dnsblock_snapshot_serial": set(),
    "dnsblock_snapshot_info": {"digest"},
    "dnsblock_snapshot_published_timestamp_seconds": set(),
    "dnsblock_zone_entries": {"zone"},
    "dnsblock_orders": {"issuer", "state"},
    "dnsblock_publish_duration_seconds_bucket": {"le"},
    "dnsblock_publish_duration_seconds_sum": set(),
    "dnsblock_publish_duration_seconds_count": set(),
    "dnsblock_publish_failures_total": {"reason"},
    "dnsblock_publish_last_success_timestamp_seconds": set(),
    "dnsblock_publish_last_attempt_timestamp_seconds": set(),
    "dnsblock_tcp_connections": set(),
    "dnsblock_packet_panics_total": set(),
    "dnsblock_workers": set(),
    "dnsblock_cache_bytes": set(),
    "dnsblock_cache_entries": set(),
    "dnsblock_cache_evictions_total": set(),
    "dnsblock_cache_prefetches_total": set(),
    "dnsblock_coalesced_queries_total": set(),
    "dnsblock_build_info": {"version"},
}
OUTCOMES = {
    "blocked",
    "forwarded",
    "cached",
    "stale",
    "late",
    "local",
    "failed",
    "refused",
    "malformed",
    "not_implemented",
    "bad_version",
    "dropped",
    "limited",
    "overloaded",
}


@pytest.fixture
def running(subject: Subject, upstream: StubUpstream) -> Subject:
    """The daemon after one query of each kind, and one reload that was refused."""
    subject.start(
        zones=[ORDERS_ZONE, LIST_ZONE],
        orders=[block("B-1", ["blocked.example", {"name": "drop.example", "answer": "drop"}])],
        lists={"malware.txt": ["listed.example"]},
        upstreams=[upstream.address],
    )
    return subject


def labels_of(metrics: Metrics, name: str) -> set[str]:
    return {label for found, pairs in metrics if found == name for label, _ in pairs}


def ask_everything(subject: Subject) -> None:
    assert is_sinkholed(subject.query("blocked.example"))
    assert is_sinkholed(subject.query("blocked.example", transport="tcp"))
    assert subject.query("listed.example").is_nodata
    assert is_forwarded(subject.query("free.example"))
    subject.exchange(wire.query("free.example", qclass=3))
    subject.exchange(wire.query("free.example", flags=wire.TC))
    subject.exchange(wire.query("free.example", opcode=5))
    subject.exchange(wire.query("free.example", edns=wire.opt(version=1)))
    with subject.udp() as sock:
        sock.send(wire.query("drop.example"))
    subject.put_order("broken: [", "bad.yaml")
    assert subject.cli("reload").code == 4


def test_promtool_reports_no_problem(running: Subject):
    """`promtool check metrics` is happy, before the first query and after all of them."""
    for _ in range(2):
        done = run([tool("promtool"), "check", "metrics"], input=running.metrics().text)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        ask_everything(running)


def test_every_metric_has_its_labels(running: Subject):
    """Dashboards and alerts break silently when a metric or label is renamed."""
    ask_everything(running)
    metrics = running.metrics()
    assert {name: labels_of(metrics, name) for name in METRICS if name in metrics.names()} == {
        name: labels
        for name, labels in METRICS.items()
        if name != "dnsblock_upstream_errors_total" or name in metrics.names()
    }
    assert {name for name in metrics.names() if name.startswith("process_")} >= {
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    }


def test_every_counter_is_there_from_the_start(running: Subject):
    """A counter that appears with its first event hides that event from rate()."""
    metrics = running.metrics()
    outcomes = {
        (dict(pairs)["transport"], dict(pairs)["outcome"])
        for name, pairs in metrics
        if name == "dnsblock_queries_total"
    }
    assert outcomes == {(transport, outcome) for transport in ("udp", "tcp") for outcome in OUTCOMES}
    assert metrics.total("dnsblock_queries_total") == 0
    for name in (
        "dnsblock_upstream_queries_total",
        "dnsblock_upstream_errors_total",
        "dnsblock_packet_panics_total",
    ):
        assert name in metrics.names()


def test_each_query_is_counted_once_by_its_outcome(running: Subject, upstream: StubUpstream):
    """The outcomes add up to the number of queries, so shares can be computed."""
    ask_everything(running)
    expected = {
        "blocked": 4,  # drop is an action of policy
        "forwarded": 1,
        "refused": 1,
        "malformed": 1,
        "not_implemented": 1,
        "bad_version": 1,
    }

    def counted() -> dict[str, float]:
        metrics = running.metrics()
        totals = {outcome: metrics.total("dnsblock_queries_total", outcome=outcome) for outcome in OUTCOMES}
        return {outcome: total for outcome, total in totals.items() if total}

    wait_for(lambda: sum(counted().values()) == sum(expected.values()), "every query is counted")
    assert counted() == expected
    metrics = running.metrics()
    assert metrics.total("dnsblock_queries_total", transport="tcp") == 1
    assert metrics.total("dnsblock_blocked_total", zone="ministry", action="sinkhole") == 2
    assert metrics.total("dnsblock_blocked_total", zone="ministry", action="drop") == 1
    assert metrics.total("dnsblock_blocked_total", zone="malware", action="nodata") == 1
    assert metrics.total("dnsblock_upstream_queries_total", upstream=upstream.address, transport="udp") == 1
    assert metrics.total("dnsblock_upstream_latency_seconds_count", upstream=upstream.address) == 1


def test_metrics_show_the_snapshot_and_its_publishing(running: Subject):
    """Serial and time of the last publish show whether all instances enforce the same."""
    before = running.metrics()
    assert before.total("dnsblock_snapshot_serial") == running.ready["serial"]
    assert before.total("dnsblock_snapshot_info", digest=running.ready["digest"]) == 1
    assert before.total("dnsblock_zone_entries", zone="ministry") == 2
    assert before.total("dnsblock_zone_entries", zone="malware") == 1
    assert before.total("dnsblock_orders", issuer="ministry.example", state="active") == 1
    assert before.total("dnsblock_workers") == 2
    assert before.total("dnsblock_build_info", version=running.status()["version"]) == 1
    running.put_order(block("B-2", ["more.example"]))
    result = running.reload()
    after = running.metrics()
    assert after.total("dnsblock_snapshot_serial") == result["serial"]
    assert [pairs for name, pairs in after if name == "dnsblock_snapshot_info"] == [
        (("digest", result["digest"]),)
    ]
    assert after.total("dnsblock_zone_entries", zone="ministry") == 3
    count, success = (
        "dnsblock_publish_duration_seconds_count",
        "dnsblock_publish_last_success_timestamp_seconds",
    )
    assert after.total(count) == before.total(count) + 1
    assert after.total(success) > before.total(success)
    good = running.config_path.read_text()
    running.config_path.write_text(good + "lisen: 1\n")
    assert running.cli("reload").code == 4
    running.config_path.write_text(good)
    failed, attempt = running.metrics(), "dnsblock_publish_last_attempt_timestamp_seconds"
    assert failed.total("dnsblock_publish_failures_total") == 1
    assert failed.total(success) == after.total(success)
    assert failed.total(attempt) > after.total(attempt)


def test_metrics_have_no_client_and_no_queried_name(running: Subject):
    """Trap 14: no name or client in a label; CVE-2026-40011 is a crafted name in a peer's metrics."""
    names = [b"secret-blocked", b'quote"\n{}\\'], [b"secret-free", b"\xff\x00\n"]
    with running.udp(source="127.44.55.66") as client:
        for labels, parent in zip(names, (b"blocked", b"free"), strict=True):
            client.send(wire.query(wire.labels_to_wire([*labels, parent, b"example"])))
            client.recv(4096)
    text = running.metrics().text
    assert "127.44.55.66" not in text
    assert "secret" not in text


def test_connections_are_counted_while_they_last(running: Subject):
    """A gauge that only rises would hide a leak."""
    with running.tcp() as one, running.tcp() as two:
        for stream in (one, two):
            stream.send(wire.query("blocked.example"))
            assert is_sinkholed(stream.reply())
        # A worker thread counts them at the end of the turn in which it answers.
        wait_for(lambda: running.metrics().total("dnsblock_tcp_connections") == 2, "both are counted")
    wait_for(lambda: running.metrics().total("dnsblock_tcp_connections") == 0, "both are gone")


def test_a_failing_upstream_is_counted_under_its_address(subject: Subject):
    """The alert must name the resolver that fails."""
    subject.start(upstream={"tries": 2})
    assert subject.query("free.example").rcode == "SERVFAIL"
    metrics = subject.metrics()
    assert metrics.total("dnsblock_upstream_errors_total", upstream=CLOSED_UPSTREAM, reason="network") >= 1
    assert metrics.total("dnsblock_queries_total", outcome="failed", transport="udp") == 1


def test_without_a_metrics_listener_there_is_none(subject: Subject):
    """`metrics: null` opens no port."""
    assert subject.start(metrics=None)["metrics"] is None
    assert subject.status()["metrics"] is None
