"""The metrics of the HTTP listeners, of the issuers' API and of the console, for `metrics.py`."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from dnsblock.http.control import View


def listeners(view: View) -> Iterator[Metric]:
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
    yield from (open_now, closed)
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
    yield from _console(view)


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
