"""The metrics of the counts of queried names, for `metrics.py`."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from dnsblock.http.control import View


def query_counts(view: View) -> Iterator[Metric]:
    """The files of counts; nothing while queried names are not counted."""
    kept = view.counting.kept
    if kept is None:
        return
    yield GaugeMetricFamily("dnsblock_query_counts_days", "Days with counts of queried names.", kept.days)
    yield GaugeMetricFamily(
        "dnsblock_query_counts_names",
        "Names in the counts of this day, when they were last written.",
        kept.names,
    )
    yield GaugeMetricFamily(
        "dnsblock_query_counts_failing",
        "1 if counts of queried names could not be written, and are only in memory.",
        int(kept.is_failing),
    )
