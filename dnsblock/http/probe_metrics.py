"""The metrics of scheduled probes, for `metrics.py`."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from dnsblock.http.control import View
from dnsblock.probe.schedule import OPEN


def probes(view: View) -> Iterator[Metric]:
    """The probes, and the results of the last one of each order in effect."""
    counts, in_effect = view.verification.counts, view.verification.orders()
    yield CounterMetricFamily("dnsblock_probe_queries", "Queries sent by scheduled probes.", counts.queries)
    results = CounterMetricFamily("dnsblock_probes", "Scheduled probes, by result.", labels=["result"])
    for result, count in sorted(counts.probes.items()):
        results.add_metric([result], count)
    yield results
    yield GaugeMetricFamily(
        "dnsblock_probe_last_timestamp_seconds",
        "Time of the last scheduled probe; 0 if there was none. Unix time.",
        0.0 if counts.last_at is None else counts.last_at.timestamp(),
    )
    misses = GaugeMetricFamily(
        "dnsblock_probe_misses",
        "Responses that were not as expected in the last probe of each order in effect.",
        labels=["issuer"],
    )
    verified = GaugeMetricFamily(
        "dnsblock_orders_verified", "Orders in effect that probes have verified.", labels=["issuer"]
    )
    unverified = GaugeMetricFamily(
        "dnsblock_orders_unverified",
        "Orders in effect that probes have not verified yet.",
        labels=["issuer"],
    )
    missed = Counter[str]()
    for key, outcome in counts.misses:
        missed[key.issuer] += outcome.responses
    total = Counter(one.key.issuer for one in in_effect)
    done = Counter(one.key.issuer for one in in_effect if one.is_verified)
    for issuer in sorted(total):
        misses.add_metric([issuer], missed[issuer])
        verified.add_metric([issuer], done[issuer])
        unverified.add_metric([issuer], total[issuer] - done[issuer])
    yield from (misses, verified, unverified)
    yield GaugeMetricFamily(
        "dnsblock_probe_open_misses",
        "Responses for the names in `probes.open` that were not as expected in their last probe.",
        missed[OPEN.issuer],
    )
