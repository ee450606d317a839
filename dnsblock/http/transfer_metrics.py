"""The metrics of zone transfers, for `metrics.py`."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from dnsblock.clock import utc_now
from dnsblock.http.control import View
from dnsblock.lists.refresh import FetchStatus

KINDS = ("axfr", "ixfr")  # of a zone transfer


def transfers(view: View) -> Iterator[Metric]:
    """The copies of transferred zones, and NOTIFY messages."""
    notifies = CounterMetricFamily("dnsblock_notifies", "NOTIFY messages, by result.", labels=["result"])
    for result, count in sorted(view.counters().notifies.items()):
        notifies.add_metric([result], count)
    serial = GaugeMetricFamily(
        "dnsblock_zone_serial",
        "Serial of the version in force of a policy zone in RPZ format.",
        labels=["zone"],
    )
    expires = GaugeMetricFamily(
        "dnsblock_zone_expires_timestamp_seconds",
        "When the copy counts as too old unless a primary is reached before. Unix time.",
        labels=["zone"],
    )
    expired = GaugeMetricFamily(
        "dnsblock_zone_expired", "1 while the copy counts as too old, else 0.", labels=["zone"]
    )
    unsigned = GaugeMetricFamily(
        "dnsblock_zone_transfer_unsigned",
        "1 if the zone is transferred without a key (TSIG) and without TLS.",
        labels=["zone"],
    )
    for zone in view.config.zones:
        listed = view.publisher.lists.listed.get(zone.name)
        compiled = view.publisher.policy.lists.get(zone.name)
        ahead = None if compiled is None else compiled.ahead
        if listed is not None and listed.report.serial is not None:
            serial.add_metric([zone.name], listed.report.serial if ahead is None else ahead)
        if zone.rpz is None or not zone.is_transferred:
            continue
        unsigned.add_metric([zone.name], int(not zone.rpz.is_authentic))
        last = view.refresher.states.get(zone.name, FetchStatus()).transfer
        if last is not None:
            expires.add_metric([zone.name], last.expires_at.timestamp())
            expired.add_metric([zone.name], int(last.expires_at <= utc_now()))
    yield from (notifies, serial, expires, expired, unsigned)
