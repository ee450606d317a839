"""The shipped examples: the provider's configuration works, and the alerts fire when they should."""

import json
import re
import shutil
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dnslib import QTYPE, RCODE, RR, A, DNSRecord
from running import ROOT, running

EXAMPLE, ALERTS = ROOT / "config" / "isp.yaml", ROOT / "config" / "alerts.yaml"
UPSTREAM_ADDRESS = "203.0.113.7"
ORDER = {
    "schema": "dnsblock.order/1",
    "issuer": "kominfo.go.id",
    "order_id": "1/2026",
    "action": "block",
    "issued_at": "2026-01-01T00:00:00+07:00",
    "entries": ["ordered.example", "portal.isp.example", {"name": "page.example", "answer": "landing"}],
}


@contextmanager
def upstream() -> Iterator[str]:
    """A resolver that answers every query with one address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def answer() -> None:
            while (received := sock.recvfrom(4096))[0]:  # an empty datagram stops it
                reply = DNSRecord.parse(received[0]).reply(aa=0)
                reply.add_answer(RR(reply.q.qname, QTYPE.A, ttl=60, rdata=A(UPSTREAM_ADDRESS)))
                sock.sendto(reply.pack(), received[1])

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield "{}:{}".format(*sock.getsockname())
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"", sock.getsockname())
            thread.join(10)


def sign(order: Path, *, keys: Path) -> None:
    """Sign an order with a new key, as an officer does, and write the file of keys."""
    key = keys.with_name("officer")
    for command in (
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key],
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "dnsblock-order@v1", "-f", key, order],
    ):
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    keys.write_text(f"officer@kominfo.go.id {key.with_suffix('.pub').read_text()}")


@pytest.fixture(scope="module")
def isp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """A daemon with the example. Only addresses, paths and ports are changed."""
    folder = tmp_path_factory.mktemp("isp")
    (folder / "lists").mkdir()
    (folder / "orders").mkdir()
    (folder / "lists" / "allow.txt").write_text("isp.example\n")
    (folder / "lists" / "malware.txt").write_text("malware.example\n")
    (folder / "orders" / "1.json").write_text(json.dumps(ORDER))
    sign(folder / "orders" / "1.json", keys=folder / "kominfo.allowed_signers")
    text = EXAMPLE.read_text()
    with upstream() as address:
        for written, here in {
            '"0.0.0.0:53"': '"0.0.0.0:0"',
            '"[::]:53"': '"[::]:0"',
            "198.51.100.11,": f'"{address}",',
            "[2001:db8:53::11]:53": address,
            "192.0.2.10:9353": "127.0.0.1:0",
            "/etc/dnsblock/kominfo.allowed_signers": str(folder / "kominfo.allowed_signers"),
            "/etc/dnsblock/orders": str(folder / "orders"),
            "/etc/dnsblock/lists": str(folder / "lists"),
            "/var/lib/dnsblock": str(folder / "state"),
            "/run/dnsblock": str(folder),
        }.items():
            assert written in text, f"the example no longer has {written}"
            text = text.replace(written, here)
        (folder / "dnsblock.yaml").write_text(text)
        with running(folder / "dnsblock.yaml") as ready:
            yield ready


def query(isp: dict, name: str, *, family: int = 4, tcp: bool = False) -> DNSRecord:
    place = next(p for p in isp["listening"] if p.startswith("[") == (family == 6))
    host, port = ("::1" if family == 6 else "127.0.0.1"), int(place.rsplit(":", 1)[1])
    return DNSRecord.parse(DNSRecord.question(name).send(host, port, tcp=tcp, timeout=60, ipv6=family == 6))


def addresses(answer: DNSRecord) -> list[str]:
    return [str(record.rdata) for record in answer.rr if record.rtype == QTYPE.A]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("tcp", [False, True])
def test_the_provider_example_enforces_an_order(isp: dict, family: int, tcp: bool):
    """It listens on both wildcard addresses, over UDP and TCP."""
    assert addresses(query(isp, "www.ordered.example", family=family, tcp=tcp)) == ["198.51.100.80"]


def test_the_provider_example_forwards_names_that_are_not_blocked(isp: dict):
    """A copy of the example must be a working resolver."""
    assert addresses(query(isp, "free.example")) == [UPSTREAM_ADDRESS]


def test_the_provider_example_does_not_block_its_own_names(isp: dict):
    """The allow list comes before the order that names one of them."""
    assert addresses(query(isp, "portal.isp.example")) == [UPSTREAM_ADDRESS]


def test_the_provider_example_enforces_its_own_list(isp: dict):
    """The list in the example is the first one that a provider creates."""
    answer = query(isp, "www.malware.example")
    assert (RCODE[answer.header.rcode], answer.rr) == ("NXDOMAIN", [])


def test_the_provider_example_returns_the_landing_page(isp: dict):
    """The addresses of profile and landing page in the example must agree."""
    answer = query(isp, "page.example")
    assert [str(r.rdata) for r in answer.rr if r.rtype == QTYPE.CNAME] == ["landing.isp.example."]
    assert addresses(answer) == [UPSTREAM_ADDRESS]


# ------- Alerts


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.fail("promtool is missing: apt-get install prometheus", pytrace=False)
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)


DAY = 86_400


def daily(values: Iterable[int]) -> str:
    """A series with one value per hour that changes once a day."""
    return " ".join(f"{value}x23" for value in values)


def test_promtool_accepts_the_alerts():
    """promtool(1): `check rules`."""
    result = promtool("check", "rules", ALERTS)
    assert result.returncode == 0, result
    assert f"{len(FIRES) + len(RECORDS)} rules found" in result.stdout


def test_the_alerts_use_existing_metrics(isp: dict):
    """An alert on a metric that does not exist never fires, and nobody notices."""
    with urllib.request.urlopen(f"http://{isp['metrics']}/metrics", timeout=60) as response:
        # Without a feed, its metrics have no samples.
        exposed = set(re.findall(r"^(?:# TYPE )?([a-z_]+)[{ ]", response.read().decode(), re.MULTILINE))
    rules = re.sub(r"#.*", "", ALERTS.read_text())
    # Names with a colon are those of recording rules.
    assert set(re.findall(r"(?<![\w:])(?:dnsblock|process)_[a-z_]+\b", rules)) <= exposed


# Series on which each alert fires, and on which it does not: one value per minute.
FIRES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "DnsblockDown": ({'up{job="dnsblock"}': "0x30"}, {'up{job="dnsblock"}': "1x30"}),
    "DnsblockRestarting": (
        {'process_start_time_seconds{job="dnsblock"}': "1x9 2 3x20"},
        {'process_start_time_seconds{job="dnsblock"}': "1x9 2x20"},
    ),
    "DnsblockPublishFailed": (
        {
            "dnsblock_publish_last_attempt_timestamp_seconds": "200x30",
            "dnsblock_publish_last_success_timestamp_seconds": "100x30",
        },
        {
            "dnsblock_publish_last_attempt_timestamp_seconds": "200x30",
            "dnsblock_publish_last_success_timestamp_seconds": "200x30",
        },
    ),
    "DnsblockWebhookFailing": (
        {
            'dnsblock_webhook_oldest_event_age_seconds{webhook="kominfo"}': "0+300x30",
            'dnsblock_webhook_disabled{webhook="kominfo"}': "0x30",
        },
        {
            'dnsblock_webhook_oldest_event_age_seconds{webhook="kominfo"}': "3600x30",
            'dnsblock_webhook_disabled{webhook="kominfo"}': "0x30",
        },
    ),
    "DnsblockWebhookDeadLetters": (
        {'dnsblock_webhook_dead_letters{webhook="kominfo"}': "3x30"},
        {'dnsblock_webhook_dead_letters{webhook="kominfo"}': "0x30"},
    ),
    "DnsblockChangeOverdue": (
        {"dnsblock_next_change_timestamp_seconds": "300x30"},
        {"dnsblock_next_change_timestamp_seconds": "0x30"},
    ),
    "DnsblockListRejected": (
        {'dnsblock_source_rejected{zone="national"}': "1x30"},
        {'dnsblock_source_rejected{zone="national"}': "1x18 0x12"},
    ),
    "DnsblockListNamesTooMuch": (
        {'dnsblock_source_rejected_lines{zone="national", reason="public_suffix"}': "1x30"},
        {'dnsblock_source_rejected_lines{zone="national", reason="not_a_name"}': "9x30"},
    ),
    "DnsblockListExceptionsLost": (
        {'dnsblock_source_not_applicable_lines{zone="national", reason="lost_exception"}': "1x30"},
        {'dnsblock_source_not_applicable_lines{zone="national", reason="unsupported"}': "9x30"},
    ),
    "DnsblockListHistoryCorrupt": (
        {"dnsblock_list_history_corrupt_files": "1x30"},
        {"dnsblock_list_history_corrupt_files": "1x18 0x12"},
    ),
    "DnsblockListStopped": (
        {
            'dnsblock_source_version{zone="national"}': daily(range(1, 9)) + " 9x200",
            'dnsblock_source_accepted_timestamp_seconds{zone="national"}': (
                daily(range(0, 8 * DAY, DAY)) + f" {8 * DAY}x200"
            ),
        },
        {
            'dnsblock_source_version{zone="national"}': daily(range(1, 20)),
            'dnsblock_source_accepted_timestamp_seconds{zone="national"}': daily(range(0, 19 * DAY, DAY)),
            'dnsblock_source_version{zone="own"}': daily(range(1, 4)) + " 4x400",  # seldom changes
            'dnsblock_source_accepted_timestamp_seconds{zone="own"}': f"0x23 {DAY}x23 {2 * DAY}x400",
        },
    ),
    "DnsblockListLostNames": (
        {
            'dnsblock_zone_entries{zone="national"}': "1000x10 899x300",
            'dnsblock_zone_info{zone="national", kind="list", digest="1"}': "1x310",
        },
        {
            'dnsblock_zone_entries{zone="national"}': "1000x10 905x300",
            'dnsblock_zone_info{zone="national", kind="list", digest="1"}': "1x310",
            'dnsblock_zone_entries{zone="own"}': "30x10 11x300",  # an edit by hand
            'dnsblock_zone_info{zone="own", kind="list", digest="2"}': "1x310",
            'dnsblock_zone_entries{zone="kominfo"}': "1000x10 0x300",  # orders were lifted
            'dnsblock_zone_info{zone="kominfo", kind="orders", digest="3"}': "1x310",
        },
    ),
    "DnsblockListExpired": (
        {'dnsblock_source_expired{zone="national"}': "0x10 1x20"},
        {'dnsblock_source_expired{zone="national"}': "1x18 0x12"},
    ),
    "DnsblockListOld": (
        {
            'dnsblock_source_fetched_timestamp_seconds{zone="national"}': "-90000x30",
            'process_start_time_seconds{job="dnsblock"}': "-90000x30",
        },
        {
            'dnsblock_source_fetched_timestamp_seconds{zone="national"}': "-90000x30",
            'process_start_time_seconds{job="dnsblock"}': "0x30",
        },
    ),
    "DnsblockOrderBreached": (
        {'dnsblock_orders_breached{issuer="a"}': "1x30"},
        {'dnsblock_orders_breached{issuer="a"}': "0x30"},
    ),
    "DnsblockOrderEnforcedLate": (
        {
            'dnsblock_order_enforced_seconds_count{action="block"}': "5x10 6x20",
            'dnsblock_order_enforced_seconds_bucket{action="block", le="60.0"}': "5x30",
        },
        {
            'dnsblock_order_enforced_seconds_count{action="block"}': "5x10 6x20",
            'dnsblock_order_enforced_seconds_bucket{action="block", le="60.0"}': "5x10 6x20",
            # Old ones, in the ledger since before the last restart.
            'dnsblock_order_enforced_seconds_count{action="unblock"}': "5x30",
            'dnsblock_order_enforced_seconds_bucket{action="unblock", le="60.0"}': "2x30",
        },
    ),
    "DnsblockOrderVerifiedLate": (
        {
            'dnsblock_order_verified_seconds_count{action="unblock"}': "5x10 7x20",
            'dnsblock_order_verified_seconds_bucket{action="unblock", le="900.0"}': "5x10 6x20",
        },
        {
            'dnsblock_order_verified_seconds_count{action="unblock"}': "5x10 7x20",
            'dnsblock_order_verified_seconds_bucket{action="unblock", le="900.0"}': "5x10 7x20",
        },
    ),
    "DnsblockOrderDeadlineNear": (
        {'dnsblock_orders_next_deadline_timestamp_seconds{issuer="a"}': "3000x30"},
        {
            'dnsblock_orders_next_deadline_timestamp_seconds{issuer="a"}': "90000x30",
            'dnsblock_orders_next_deadline_timestamp_seconds{issuer="b"}': "0x30",
        },
    ),
    "DnsblockOrderEntriesHeld": (
        {'dnsblock_orders_held_entries{issuer="a"}': "7x30"},
        {'dnsblock_orders_held_entries{issuer="a"}': "7x8 0x22"},
    ),
    "DnsblockUnsignedOrders": (
        {'dnsblock_zone_accepts_unsigned{zone="a"}': "1x90"},
        {'dnsblock_zone_accepts_unsigned{zone="a"}': "0x90"},
    ),
    "DnsblockZoneTransferUnsigned": (
        {'dnsblock_zone_transfer_unsigned{zone="a"}': "1x30"},
        {'dnsblock_zone_transfer_unsigned{zone="a"}': "1x5 0x25"},
    ),
    "DnsblockZoneExpired": (
        {'dnsblock_zone_expired{zone="a"}': "0x10 1x20"},
        {'dnsblock_zone_expired{zone="a"}': "0x30"},
    ),
    "DnsblockOrdersRefused": (
        {"dnsblock_orders_refused": "1x30"},
        {"dnsblock_orders_refused": "1x18 0x12"},
    ),
    "DnsblockOrderRefusals": (
        {'dnsblock_order_refusals_total{code="UNSIGNED"}': "0x10 1x20"},
        {'dnsblock_order_refusals_total{code="UNSIGNED"}': "1x30"},
    ),
    "DnsblockProbeMisses": (
        {'dnsblock_probe_misses{issuer="a"}': "4x30"},
        {'dnsblock_probe_misses{issuer="a"}': "4x14 0x16"},
    ),
    "DnsblockOpenNameBlocked": (
        {"dnsblock_probe_open_misses": "4x30"},
        {"dnsblock_probe_open_misses": "4x4 0x26"},
    ),
    "DnsblockOrdersHeld": (
        {'dnsblock_orders{issuer="a", state="held"}': "1x30"},
        {'dnsblock_orders{issuer="a", state="active"}': "1x30"},
    ),
    "DnsblockOrderMissing": (
        {'dnsblock_order_gap{issuer="a"}': "7x30"},
        {'dnsblock_order_gap{issuer="a"}': "0x30"},
    ),
    "DnsblockStatementDiffers": (
        {'dnsblock_statement_differs{issuer="a"}': "1x30"},
        {'dnsblock_statement_differs{issuer="a"}': "0x30"},
    ),
    "DnsblockStatementPast": (  # at minute 20; 0: no statement
        {'dnsblock_statement_valid_until_seconds{issuer="a"}': "300x30"},
        {
            'dnsblock_statement_valid_until_seconds{issuer="a"}': "0x30",
            'dnsblock_statement_valid_until_seconds{issuer="x"}': "3000x30",
        },
    ),
    "DnsblockQueriesFail": (
        {
            'dnsblock_queries_total{outcome="failed"}': "0+10x30",
            'dnsblock_queries_total{outcome="forwarded"}': "0+90x30",
        },
        {
            'dnsblock_queries_total{outcome="failed"}': "0+1x30",
            'dnsblock_queries_total{outcome="forwarded"}': "0+99x30",
        },
    ),
    "DnsblockNoUpstream": (
        {'dnsblock_upstream_up{upstream="u"}': "0x30", 'dnsblock_upstream_up{upstream="v"}': "0x30"},
        {'dnsblock_upstream_up{upstream="u"}': "0x30", 'dnsblock_upstream_up{upstream="v"}': "1x30"},
    ),
    "DnsblockUpstreamDown": (
        {'dnsblock_upstream_up{upstream="u"}': "0x30", 'dnsblock_upstream_up{upstream="v"}': "1x30"},
        {'dnsblock_upstream_up{upstream="u"}': "1x30"},
    ),
    "DnsblockUpstreamFails": (
        {
            'dnsblock_upstream_errors_total{upstream="u", reason="timeout"}': "0+30x30",
            'dnsblock_upstream_queries_total{upstream="u", transport="udp"}': "0+100x30",
        },
        {
            'dnsblock_upstream_errors_total{upstream="u", reason="mismatch"}': "0+30x30",
            'dnsblock_upstream_queries_total{upstream="u", transport="udp"}': "0+100x30",
        },
    ),
    "DnsblockClientsLimited": (
        {
            'dnsblock_rate_limited_total{answer="dropped"}': "0+20x30",
            'dnsblock_queries_total{outcome="limited"}': "0+100x30",
        },
        {
            'dnsblock_rate_limited_total{answer="dropped"}': "0+1x30",
            'dnsblock_queries_total{outcome="limited"}': "0+100x30",
        },
    ),
    "DnsblockLedgerMismatch": (
        {"dnsblock_ledger_mismatch": "1x30"},
        {"dnsblock_ledger_mismatch": "0x30"},
    ),
    "DnsblockLedgerContradicted": (
        {'dnsblock_ledger_contradicted{place="witness", name="w"}': "1x30"},
        {'dnsblock_ledger_contradicted{place="witness", name="w"}': "0x30"},
    ),
    "DnsblockCheckpointNotSent": (
        {'dnsblock_ledger_checkpoint_failing{place="url", name="u"}': "1x90"},
        {'dnsblock_ledger_checkpoint_failing{place="url", name="u"}': "1x30 0x60"},
    ),
    "DnsblockExportFailing": (
        {'dnsblock_export_failing{file="/rpz.zone"}': "1x30"},
        {'dnsblock_export_failing{file="/rpz.zone"}': "1x3 0x30"},
    ),
    "DnsblockClockBehind": (
        {"dnsblock_clock_behind_seconds": "5x30"},
        {"dnsblock_clock_behind_seconds": "0.5x30"},
    ),
    "DnsblockSerialsRunOut": (
        {"dnsblock_snapshot_serial": "4293918720x30"},
        {"dnsblock_snapshot_serial": "4293918719x30"},
    ),
    "DnsblockListCorrupt": (
        {'dnsblock_source_corrupt_total{zone="national"}': "0x10 1x20"},
        {'dnsblock_source_corrupt_total{zone="national"}': "1x30"},
    ),
    "DnsblockDnstapDropping": (
        {'dnsblock_dnstap_dropped_frames_total{reason="queue_full"}': "0+60x30"},
        {'dnsblock_dnstap_dropped_frames_total{reason="stopped"}': "0+60x30"},
    ),
    "DnsblockLandingRestarted": (
        {"dnsblock_landing_restarts_total": "0x10 1x20"},
        {"dnsblock_landing_restarts_total": "1x30"},
    ),
    "DnsblockPacketPanics": (
        {"dnsblock_packet_panics_total": "0x10 1x20"},
        {"dnsblock_packet_panics_total": "1x30"},
    ),
    "DnsblockOrdersDiffer": (
        {
            'dnsblock_zone_info{instance="a", zone="z", kind="orders", digest="1"}': "1x30",
            'dnsblock_zone_info{instance="b", zone="z", kind="orders", digest="2"}': "1x30",
        },
        {
            'dnsblock_zone_info{instance="a", zone="z", kind="orders", digest="1"}': "1x30",
            'dnsblock_zone_info{instance="b", zone="z", kind="orders", digest="1"}': "1x30",
            'dnsblock_zone_info{instance="a", zone="l", kind="list", digest="1"}': "1x30",
            'dnsblock_zone_info{instance="b", zone="l", kind="list", digest="2"}': "1x30",
        },
    ),
    "DnsblockListsDiffer": (
        {
            'dnsblock_zone_info{instance="a", zone="z", kind="list", digest="1"}': "1x200",
            'dnsblock_zone_info{instance="b", zone="z", kind="list", digest="2"}': "1x200",
        },
        {
            'dnsblock_zone_info{instance="a", zone="z", kind="list", digest="1"}': "1x200",
            'dnsblock_zone_info{instance="b", zone="z", kind="list", digest="2"}': "1x100",
        },
    ),
}
# Minutes after which an alert is evaluated, if it takes longer than usual.
MINUTES = {
    "DnsblockCheckpointNotSent": 75,
    "DnsblockListsDiffer": 180,
    "DnsblockListStopped": 12 * 24 * 60,
    "DnsblockListLostNames": 24 * 60,
}
HOURLY = ("DnsblockListStopped", "DnsblockListLostNames")  # their series have one value per hour


# Series, and the value of each recording rule after 20 minutes of them.
RECORDS: dict[str, tuple[dict[str, str], float]] = {
    "zone:dnsblock_digests:count": (
        {
            'dnsblock_zone_info{instance="a", zone="z", kind="list", digest="1"}': "1x30",
            'dnsblock_zone_info{instance="b", zone="z", kind="list", digest="1"}': "1x10 _x20",
            'dnsblock_zone_info{instance="b", zone="z", kind="list", digest="2"}': "_x10 1x20",
        },
        2,
    ),
    "zone:dnsblock_converged_timestamp_seconds:last": (  # the instances differ from minute 11 on
        {
            'dnsblock_zone_info{instance="a", zone="z", kind="list", digest="1"}': "1x30",
            'dnsblock_zone_info{instance="b", zone="z", kind="list", digest="1"}': "1x10 stale",
            'dnsblock_zone_info{instance="b", zone="z", kind="list", digest="2"}': "_x11 1x19",
        },
        600,
    ),
}


@pytest.mark.parametrize("record", re.findall(r"- record: (\S+)", ALERTS.read_text()))
def test_every_recording_rule_has_the_value_that_it_should(tmp_path: Path, record: str):
    """promtool(1): `test rules`. Dashboards and alerts use the rules."""
    series, value = RECORDS[record]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": record,
                "eval_time": "20m",
                "exp_samples": [{"labels": f'{record}{{zone="z"}}', "value": value}],
            }
        ],
    }
    file = tmp_path / "test.json"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [test]}))
    result = promtool("test", "rules", file)
    assert result.returncode == 0, result


def fires(folder: Path, alert: str, series: dict[str, str]) -> bool:
    """Whether Prometheus fires the alert after 20 minutes of these series, or later."""
    eval_time = f"{MINUTES.get(alert, 20)}m"
    interval = "1h" if alert in HOURLY else "1m"
    query = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)'
    for count in (0, 1):
        test = {
            "interval": interval,
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {"expr": query, "eval_time": eval_time, "exp_samples": [{"labels": "{}", "value": count}]}
            ],
        }
        file = folder / "test.json"  # JSON is YAML
        file.write_text(
            json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": interval, "tests": [test]})
        )
        result = promtool("test", "rules", file)
        if result.returncode == 0:
            return count == 1
    pytest.fail(f"neither fires nor does not: {result}")


@pytest.mark.parametrize("alert", re.findall(r"- alert: (\w+)", ALERTS.read_text()))
def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path, alert: str):
    """promtool(1): `test rules`, with a case on both sides of each threshold."""
    wrong, right = FIRES[alert]
    assert fires(tmp_path, alert, wrong)
    assert not fires(tmp_path, alert, right)
