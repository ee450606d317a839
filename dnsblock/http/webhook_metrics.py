"""The metrics of webhooks, for `metrics.py`."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from dnsblock.http.control import View
from dnsblock.webhooks.webhooks import oldest_age


def webhooks(view: View) -> Iterator[Metric]:
    """Deliveries, failures, and events that wait or were given up."""
    labels = ["webhook"]
    delivered = CounterMetricFamily("dnsblock_webhook_delivered", "Delivered events.", labels=labels)
    failures = CounterMetricFamily(
        "dnsblock_webhook_failures",
        "Failed tries to deliver an event, by reason.",
        labels=["webhook", "reason"],
    )
    queue = GaugeMetricFamily("dnsblock_webhook_queue", "Events that wait.", labels=labels)
    oldest = GaugeMetricFamily(
        "dnsblock_webhook_oldest_event_age_seconds", "Age of the oldest event that waits.", labels=labels
    )
    dead = GaugeMetricFamily("dnsblock_webhook_dead_letters", "Events that were given up.", labels=labels)
    disabled = GaugeMetricFamily(
        "dnsblock_webhook_disabled", "1 if the server wants no more events (HTTP 410), else 0.", labels=labels
    )
    for name, receiver in view.webhooks.receivers.items():
        delivered.add_metric([name], receiver.delivered)
        for reason, count in sorted(receiver.failures.items()):
            failures.add_metric([name, reason], count)
        queue.add_metric([name], len(receiver.queue))
        oldest.add_metric([name], oldest_age(receiver))
        dead.add_metric([name], len(receiver.state.dead))
        disabled.add_metric([name], int(receiver.state.is_gone))
    yield from (delivered, failures, queue, oldest, dead, disabled)
