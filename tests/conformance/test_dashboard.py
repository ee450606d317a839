"""Every expression of the dashboard and of the alerts, in a real Prometheus that scrapes a busy daemon."""

import base64
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from unit.https_server import Authority, Server

from .harness import Subject
from .issuing import CLIENTS, ZONES, IssuersApi
from .landing import OPTIONS as LANDING
from .lists import ANY_CHANGE, NO_PROXY, Feed, text_of
from .orders import block, stamp
from .prometheus import Prometheus
from .scripted_primary import ScriptedPrimary
from .tools import wait_for
from .transfers import blocks, zone_from
from .upstreams import StubUpstream, decent

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "config" / "grafana" / "dnsblock.json").read_text())
ALERTS = ROOT / "config" / "alerts.yaml"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
# As Grafana sets them for a scrape interval of a second.
VARIABLES = {"$instance": ".*", "$zone": ".*", "$__rate_interval": "1m", "$__range": "1h"}
# Panels that are empty if all is well, although their metrics exist: the reason, and a selector with series.
EMPTY = {
    "Statement is valid for": "no issuer has sent a status statement: dnsblock_statement_valid_until_seconds",
}


def rows() -> dict[str, list[dict]]:
    """The panels of each row of the dashboard."""
    found: dict[str, list[dict]] = {}
    for panel in DASHBOARD["panels"]:
        if panel["type"] == "row":
            found[panel["title"]] = []
        else:
            list(found.values())[-1].append(panel)
    return found


def expressions(panel: dict) -> list[str]:
    found = [target["expr"] for target in panel["targets"]]
    for name, value in VARIABLES.items():
        found = [expression.replace(name, value) for expression in found]
    return found


def tomorrow() -> str:
    return stamp(datetime.now(UTC) + timedelta(days=1))


ORDERS = [
    block("B-1", ["ordered.example"], urgency="routine"),
    # Not in effect yet, so its deadline stays open, and a change is scheduled.
    block("B-2", ["later.example"], effective_at=tomorrow(), deadline_at=tomorrow()),
    block("C-2", ["held.example"], issuer="court.example", seq=2, prev="0" * 64),
]
LISTED = ["listed.example", "no name", "co.id", "||adv.example^$client=192.0.2.1", "@@||ok.example/path"]
ASKED = ("ordered.example", "listed.example", "fed.example", "n0.example", "planned.example", "free.example")


# Nothing listens there, so its events wait.
WEBHOOK = {
    "name": "hook",
    "issuer": "ministry.example",
    "url": "https://127.0.0.1:1/",
    "secret_file": "hook.secret",
}


class Traffic:
    """Queries of every kind until it is closed: for blocked, forwarded and cached names, over UDP and TCP."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            for name in ASKED:
                self._subject.query(name)
            self._subject.query("free.example", transport="tcp")

    def close(self) -> None:
        self._stop.set()
        self._thread.join(60)


@pytest.fixture(scope="module")
def busy(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, client_authority: Authority
) -> Iterator[tuple[Prometheus, Subject]]:
    """A daemon with one of everything and with traffic, and the Prometheus that scrapes it."""
    folder = tmp_path_factory.mktemp("busy")
    with ExitStack() as stack:
        subject = stack.enter_context(closing(Subject(folder)))
        upstream = stack.enter_context(closing(StubUpstream(decent)))
        web = stack.enter_context(Server(authority.certificate()))
        primary = stack.enter_context(ScriptedPrimary(blocks("n0.example")))
        subject.environment.update(NO_PROXY)
        feed = Feed(web, text_of(["fed.example"])).zone(authority.pem, every_s=1, max_age_s=3600)
        zones = [
            *ZONES,
            feed | {"name": "fed"},
            {"name": "listed", "list": "list.txt", "answer": "sinkhole"}
            | {"source": {"guards": ANY_CHANGE | {"rejected_percent": "off"}, "format": "adblock"}},
            {"name": "planned", "list": "planned.txt", "answer": "sinkhole", "mode": "shadow"},
            zone_from(primary.address, name="transferred.example"),
        ]
        (folder / "copies").mkdir()
        (folder / "hook.secret").write_text(f"whsec_{base64.b64encode(bytes(32)).decode()}\n")
        api = IssuersApi(subject, authority, client_authority)
        api.start(
            CLIENTS,
            zones=zones,
            orders=ORDERS,
            lists={"list.txt": LISTED, "planned.txt": ["planned.example"]},
            upstreams=[upstream.address],
            probes={"open": ["free.example"]},
            cache={"size_mb": 4},
            ledger={"checkpoints": {"folder": "copies"}},
            exports=[{"file": "names.txt", "format": "text"}],
            landing=LANDING,
            webhooks=[WEBHOOK],
        )
        prometheus = Prometheus(folder / "prometheus", ALERTS, subject.ready["metrics"])
        stack.callback(prometheus.close)
        prometheus.wait_ready()
        stack.enter_context(closing(Traffic(subject)))
        # After the first scrape, so that `increase()` counts it.
        assert subject.cli("order submit", str(refused_order(folder))).code == 4
        subject.put_list("list.txt", "listed.example")  # without a line feed: TRUNCATED
        close_early(subject)
        api.get("/v1/orders")
        api.get("/v1/orders", token="x" * 40)
        yield prometheus, subject


def refused_order(folder: Path) -> Path:
    path = folder / "refused.json"
    path.write_text(json.dumps(block("R-1", ["co.id"])))
    return path


def close_early(subject: Subject) -> None:
    """A connection to the metrics that is not HTTP."""
    host, port = subject.ready["metrics"].rsplit(":", 1)
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"\x00" * 64)
        client.recv(4096)


def assert_all_have_series(prometheus: Prometheus, wanted: dict[str, list[str]]) -> None:
    missing = [(place, expression) for place, several in wanted.items() for expression in several]

    def is_complete() -> bool:
        missing[:] = [one for one in missing if not prometheus.query(one[1])]
        return not missing

    try:
        wait_for(is_complete, "every expression has a series")
    except pytest.fail.Exception:
        pytest.fail("\n".join(f"no series: {place}: {expression}" for place, expression in missing))


@pytest.mark.parametrize("row", rows())
def test_every_panel_has_series_for_a_busy_daemon(busy: tuple[Prometheus, Subject], row: str):
    """A panel whose expression does not parse, or whose metric was renamed, is empty when it is needed."""
    panels = [panel for panel in rows()[row] if panel["title"] not in EMPTY]
    assert_all_have_series(busy[0], {panel["title"]: expressions(panel) for panel in panels})


def test_a_panel_that_may_be_empty_uses_metrics_that_exist(busy: tuple[Prometheus, Subject]):
    """Each of them has its reason."""
    titles = {panel["title"] for panels in rows().values() for panel in panels}
    assert set(EMPTY) <= titles
    assert_all_have_series(busy[0], {title: [text.split(": ")[1]] for title, text in EMPTY.items()})


def test_the_variables_of_the_dashboard_have_values(busy: tuple[Prometheus, Subject]):
    """`label_values` of Grafana: a metric, and the label whose values it shows."""
    wanted = {}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
            wanted[variable["name"]] = [f"count by ({label}) ({metric.replace('$instance', '.*')})"]
    assert wanted.keys() == {"instance", "zone"}
    assert_all_have_series(busy[0], wanted)


SELECTOR = re.compile(r"(?<![\w:])(?:dnsblock|process|zone:dnsblock)[\w:]*(?:\{[^}]*\})?|\bup\{[^}]*\}")


def test_every_metric_in_an_alert_or_recording_rule_has_series(busy: tuple[Prometheus, Subject]):
    """Alerts are silent if all is well. But the series that they select must exist, labels included."""
    wanted = {}
    for rule in busy[0].rules():
        wanted[rule["name"]] = SELECTOR.findall(rule["query"])
        assert wanted[rule["name"]], rule
    assert_all_have_series(busy[0], wanted)


def test_prometheus_evaluates_every_rule_without_an_error(busy: tuple[Prometheus, Subject]):
    """An error in a rule, such as many-to-many matching, shows only when it is evaluated with real series."""

    def are_healthy() -> bool:
        return all(rule["health"] == "ok" for rule in busy[0].rules())

    assert len(busy[0].rules()) == len(re.findall(r"^ +- (?:alert|record): ", ALERTS.read_text(), re.M))
    wait_for(are_healthy, "every rule was evaluated")


def test_a_refused_order_fires_its_alert(busy: tuple[Prometheus, Subject]):
    """From the daemon to the alert: the names and labels of metrics and rules agree."""
    firing = 'ALERTS{alertname="DnsblockOrderRefusals", alertstate="firing", code="PUBLIC_SUFFIX"}'
    wait_for(lambda: bool(busy[0].query(firing)), "the alert fires")


def runbook_commands() -> list[str]:
    """The `dnsblock` commands in the blocks of the runbook, each once, without what they are piped into."""
    blocks_of_code = re.findall(r"^```sh\n(.*?)^```", RUNBOOK, re.MULTILINE | re.DOTALL)
    lines = [line.split(" | ")[0] for line in "\n".join(blocks_of_code).splitlines()]
    return sorted({line.removeprefix("dnsblock ") for line in lines if line.startswith("dnsblock ")})


@pytest.mark.parametrize("command", runbook_commands())
def test_every_command_of_the_runbook_works_when_it_is_pasted(busy: tuple[Prometheus, Subject], command: str):
    """At 3 a.m. nobody looks up an argument. 1 means that something is wrong, which is why one looks."""
    said = busy[1].cli(command, as_json=False)
    assert (said.code in (0, 1), "Traceback" in said.stderr) == (True, False), said
