"""The metrics of the HTTP listeners: the issuers' API, the console and the landing page. For `metrics.py`."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from dnsblock.http.answers import TITLES
from dnsblock.http.control import View
from dnsblock.landing.counts import ANSWERED, OPEN, REFUSED
from dnsblock.landing.process import Landing


def listeners(view: View) -> Iterator[Metric]:
    """The HTTP listeners, the issuers' API, the console and the landing page."""
    yield from _connections(view)
    yield from _api(view)
    yield from _console(view)
    yield from _landing(view.landing)


def _connections(view: View) -> Iterator[Metric]:
    open_now = GaugeMetricFamily(
        "dnsblock_http_connections", "Open connections of an HTTP listener.", labels=["listener"]
    )
    closed = CounterMetricFamily(
        "dnsblock_http_closed_connections",
        "Connections of an HTTP listener that were closed early, by reason.",
        labels=["listener", "reason"],
    )
    for listener, connections in sorted(view.http.items()):
        open_now.add_metric([listener], len(connections.open))
        for reason, count in connections.closed.items():
            closed.add_metric([listener, reason], count)
    refused = CounterMetricFamily(
        "dnsblock_http_refused",
        "Requests that the control socket and the metrics listener refused, by code.",
        labels=["listener", "code"],
    )
    for listener in ("control", "metrics"):
        for code in TITLES:
            refused.add_metric([listener, code], view.http[listener].refused[code])
    yield from (open_now, closed, refused)


def _api(view: View) -> Iterator[Metric]:
    responses = CounterMetricFamily(
        "dnsblock_api_requests", "Responses of the issuers' API, by HTTP status.", labels=["status"]
    )
    for status, count in sorted(view.gate.responses.items()):
        responses.add_metric([str(status)], count)
    refused = CounterMetricFamily(
        "dnsblock_api_refused",
        "Requests and documents that the issuers' API refused, by code.",
        labels=["code"],
    )
    for code, count in sorted(view.gate.refused.items()):
        refused.add_metric([code], count)
    yield from (responses, refused)
    yield GaugeMetricFamily(
        "dnsblock_api_streams", "Open streams of events of the issuers' API.", view.gate.open_streams
    )


def _console(view: View) -> Iterator[Metric]:
    """Sessions, and refused requests."""
    refused = CounterMetricFamily(
        "dnsblock_console_refused", "Requests that the console refused, by code.", labels=["code"]
    )
    for code, count in sorted(view.console.refused.items()):
        refused.add_metric([code], count)
    yield refused
    yield GaugeMetricFamily(
        *("dnsblock_console_sessions", "Sessions of people who signed in to the console with a token."),
        view.console.open_sessions,
    )


def _landing(page: Landing) -> Iterator[Metric]:
    """The families have samples only while there is a landing page. Alerts need their names anyway."""
    requests = CounterMetricFamily(
        "dnsblock_landing_requests",
        "Responses of the landing page, by kind and class of the status.",
        labels=["kind", "status"],
    )
    closed = CounterMetricFamily(
        "dnsblock_landing_closed_connections",
        "Connections of the landing page that were closed early, by reason.",
        labels=["reason"],
    )
    questions = CounterMetricFamily(
        "dnsblock_landing_questions",
        "Questions of the landing page to the daemon, answered in time or refused by the limit.",
        labels=["result"],
    )
    open_now = GaugeMetricFamily(
        "dnsblock_landing_connections", "Open connections of the landing page.", labels=[]
    )
    restarts = CounterMetricFamily(
        "dnsblock_landing_restarts", "Times that the process of the landing page ended.", labels=[]
    )
    if page.is_configured:
        for kind, status, count in page.counts.requests():
            requests.add_metric([kind, status], count)
        for reason, count in page.counts.closed():
            closed.add_metric([reason], count)
        for key in (ANSWERED, REFUSED):
            questions.add_metric([key[1]], page.counts[key])
        open_now.add_metric([], page.counts[OPEN])
        restarts.add_metric([], page.restarts)
    yield from (requests, closed, questions, open_now, restarts)
