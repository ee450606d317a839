"""The metrics of the dnstap output, for `metrics.py`."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from dnsblock.policy import Counts


def dnstap(counts: Counts) -> Iterator[Metric]:
    """Frames, failed connections, and while there is an output, whether its reader is connected."""
    yield CounterMetricFamily(
        "dnsblock_dnstap_frames", "dnstap frames sent to the reader.", value=counts.dnstap_sent
    )
    yield CounterMetricFamily(
        "dnsblock_dnstap_failed_connections",
        "Connections to the dnstap reader that failed, or that it ended.",
        value=counts.dnstap_failed_connections,
    )
    dropped = CounterMetricFamily(
        "dnsblock_dnstap_dropped_frames", "dnstap frames that were not sent, by reason.", labels=["reason"]
    )
    for reason, count in sorted(counts.dnstap_dropped.items()):
        dropped.add_metric([reason], count)
    yield dropped
    if counts.is_dnstap_connected is not None:
        yield GaugeMetricFamily(
            "dnsblock_dnstap_connected",
            "1 while the dnstap output is connected to its reader, else 0.",
            value=float(counts.is_dnstap_connected),
        )
