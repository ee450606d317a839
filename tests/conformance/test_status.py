"""Traffic, upstreams and failures in `status` and in the metrics."""

import time
from collections.abc import Iterable
from datetime import datetime

import pytest

from .harness import ORDERS_ZONE, Subject
from .orders import as_yaml, block
from .tools import wait_for
from .upstreams import MakeUpstream, StubUpstream

LISTED = {"name": "national", "list": "national.txt", "answer": "sinkhole"}
HEALTH_CHECK = {"name": ".", "type": "NS", "interval_ms": 50, "timeout_ms": 500}


def answered(subject: Subject, action: str) -> float:
    return subject.metrics().total("dnsblock_blocked_total", action=action)


@pytest.mark.parametrize(
    ("answer", "qtype", "action"),
    [
        ({"action": "sinkhole", "ipv4": ["192.0.2.53"]}, "A", "sinkhole"),
        ({"action": "sinkhole", "ipv4": ["192.0.2.53"]}, "AAAA", "nodata"),
        ({"action": "sinkhole", "ipv4": ["192.0.2.53"]}, "TXT", "nodata"),
        ({"action": "sinkhole", "ipv4": ["192.0.2.53"]}, "HTTPS", "nodata"),
        ({"action": "nxdomain"}, "A", "nxdomain"),
        ({"action": "refused"}, "A", "refused"),
    ],
)
def test_a_blocked_query_is_counted_by_its_response(
    subject: Subject, upstream: StubUpstream, answer: dict, qtype: str, action: str
):
    """A sinkhole without an address of this type is NODATA, and counted as that."""
    zone = {"name": "national", "list": "national.txt", "answer": "profile"}
    subject.start(
        zones=[zone],
        answers={"profile": answer},
        lists={"national.txt": ["blocked.example"]},
        upstreams=[upstream.address],
    )
    subject.query("blocked.example", qtype)
    assert answered(subject, action) == 1
    assert subject.metrics().total("dnsblock_blocked_total") == 1


def test_nxdomain_that_becomes_nodata_is_counted_as_nodata(subject: Subject, upstream: StubUpstream):
    """RFC 8020: an exact entry does not deny what is below it."""
    zone = {"name": "national", "list": "national.txt", "match": "exact", "answer": "nxdomain"}
    subject.start(zones=[zone], lists={"national.txt": ["blocked.example"]}, upstreams=[upstream.address])
    assert subject.query("blocked.example").rcode == "NOERROR"
    assert (answered(subject, "nodata"), answered(subject, "nxdomain")) == (1, 0)


def test_responses_are_counted_by_rcode_with_their_latency(subject: Subject, upstream: StubUpstream):
    """Each response once, over UDP and TCP: RCODE, and the latency by its source."""
    zone = {"name": "national", "list": "national.txt", "answer": "nxdomain"}
    subject.start(zones=[zone], lists={"national.txt": ["blocked.example"]}, upstreams=[upstream.address])
    for transport in ("udp", "tcp"):
        assert subject.query("blocked.example", transport=transport).rcode == "NXDOMAIN"
        assert subject.query(f"open-{transport}.example", transport=transport).rcode == "NOERROR"
        assert subject.query("version.bind", "TXT", qclass=3, transport=transport).rcode == "REFUSED"
    metrics = subject.metrics()
    for rcode in ("NXDOMAIN", "NOERROR", "REFUSED"):
        assert metrics.total("dnsblock_responses_total", rcode=rcode) == 2
    assert metrics.total("dnsblock_responses_total") == 6
    wait_for(  # counted at the end of the turn that sends them
        lambda: subject.metrics().total("dnsblock_response_latency_seconds_count", made="here") == 4,
        "four responses were made here",
    )
    metrics = subject.metrics()
    assert metrics.total("dnsblock_response_latency_seconds_count", made="upstream") == 2
    assert metrics.total("dnsblock_response_latency_seconds_sum", made="upstream") > 0
    traffic = subject.status()["traffic"]
    assert traffic["responses"] == {"NXDOMAIN": 2, "NOERROR": 2, "REFUSED": 2}
    assert traffic["queries"] == 6
    assert traffic["blocked"] == 2
    assert 0 < traffic["latency_ms"]["upstream"]["p50"] <= traffic["latency_ms"]["upstream"]["p99"]


def test_status_shows_since_when_and_why_no_upstream_is_usable(subject: Subject, make_upstream: MakeUpstream):
    """Exit code 1 while every upstream is down; state, time and reason of each."""
    first, second = make_upstream(), make_upstream()
    began = time.time()
    subject.start(upstreams=[first.address, second.address], upstream={"health_check": HEALTH_CHECK})
    assert subject.cli("status").code == 0
    first.close()
    wait_for(lambda: "down" in states(subject), "the first is down")
    assert subject.cli("status").code == 0, "the other one is used"
    second.close()
    wait_for(lambda: states(subject) == ["down", "down"], "both are down")
    status = subject.cli("status")
    assert status.code == 1
    for one in status.json["upstream_states"]:
        assert one["reason"]
        assert began - 1 <= unix(one["since"]) <= time.time() + 1
    shown = subject.cli("status", as_json=False)
    assert shown.code == 1
    assert shown.stdout.count("DOWN") == 2


def states(subject: Subject) -> list[str]:
    return [one["state"] for one in subject.status()["upstream_states"]]


def unix(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def test_status_shows_the_latency_of_each_upstream(subject: Subject, upstream: StubUpstream):
    """Percentiles over the last minute."""
    subject.start(upstreams=[upstream.address])
    for number in range(20):
        subject.query(f"n{number}.example")
    (one,) = subject.status()["upstream_states"]
    assert one["state"] == "up"
    assert 0 < one["latency_ms"]["p50"] <= one["latency_ms"]["p99"]
    assert one["reason"] is None


def refresh_times(subject: Subject) -> Iterable[float]:
    metrics = subject.metrics()
    names = ("last_attempt", "last_success")
    return [metrics.total(f"dnsblock_publish_{name}_timestamp_seconds") for name in names]


def test_a_rejected_list_is_no_failed_publish(subject: Subject, upstream: StubUpstream):
    """The alert that orders do not apply must not page for a list: it has an alert of its own."""
    subject.start(
        zones=[ORDERS_ZONE, LISTED],
        lists={"national.txt": ["listed.example"]},
        upstreams=[upstream.address],
    )
    subject.put_list("national.txt", b"<!DOCTYPE html><html><body>Not found</body></html>\n")
    subject.put_order(block("B-1", ["blocked.example"]))
    assert subject.cli("reload").code == 4
    last_attempt, last_success = refresh_times(subject)
    assert last_attempt <= last_success
    metrics = subject.metrics()
    assert metrics.total("dnsblock_source_rejected", zone="national") == 1
    assert metrics.total("dnsblock_publish_failures_total", reason="partly_refused") == 1
    assert metrics.total("dnsblock_publish_failures_total", reason="refused") == 0


def test_a_refused_configuration_is_a_failed_publish(subject: Subject, upstream: StubUpstream):
    """Its options do not apply, and the alert pages until they do; orders apply meanwhile."""
    subject.start(upstreams=[upstream.address])
    with subject.config_path.open("a") as config:
        config.write("nonsense: 1\n")
    assert subject.cli("reload").code == 4
    last_attempt, last_success = refresh_times(subject)
    assert last_attempt > last_success
    assert subject.metrics().total("dnsblock_publish_failures_total", reason="refused") == 1
    said = subject.cli(
        "order submit", subject.put_list("order.yaml", as_yaml(block("B-1", ["blocked.example"])))
    )
    assert said.code == 0
    last_attempt, last_success = refresh_times(subject)
    assert last_attempt > last_success, "an order that applies is no sign that the options do"


@pytest.mark.parametrize(
    "options",
    [
        {"listen": ["127.0.0.1:0", "192.0.2.77:53"]},
        {"cookies": {"secrets": "gone"}},
        {"metrics": "192.0.2.77:1"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_unusable_options_are_a_failed_publish(subject: Subject, options: dict):
    """Everything else is published, and the alert pages."""
    (subject.folder / "secrets").write_text("00112233445566778899aabbccddeeff\n")
    (subject.folder / "secrets").chmod(0o600)
    subject.start(cookies={"secrets": "secrets"})
    (subject.folder / "secrets").rename(subject.folder / "moved")
    subject.configure(**{"cookies": {"secrets": "moved"}, **options})
    assert subject.cli("reload").code == 4
    last_attempt, last_success = refresh_times(subject)
    assert last_attempt > last_success
    assert subject.metrics().total("dnsblock_publish_failures_total", reason="refused") == 1


def test_each_zone_shows_its_digest(subject: Subject, upstream: StubUpstream):
    """By which instances are compared: the same entries, the same digest."""
    subject.start(orders=[block("B-1", ["blocked.example"])], upstreams=[upstream.address])
    digest = subject.status()["zones"][0]["digest"]
    assert subject.metrics().total("dnsblock_zone_info", zone="ministry", kind="orders", digest=digest) == 1
