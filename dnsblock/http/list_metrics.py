"""The metrics of lists and their age, for `metrics.py`."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from dnsblock.clock import utc_now
from dnsblock.http.control import View
from dnsblock.lists.refresh import FetchStatus


def lists(view: View) -> Iterator[Metric]:
    """The versions in force, rejected content, and the age of feeds."""
    lines = GaugeMetricFamily(
        "dnsblock_source_lines",
        "Lines of the list version in force, by result.",
        labels=["zone", "result"],
    )
    rejected_lines = GaugeMetricFamily(
        "dnsblock_source_rejected_lines", "Rejected lines of a list, by reason.", labels=["zone", "reason"]
    )
    not_applicable = GaugeMetricFamily(
        "dnsblock_source_not_applicable_lines",
        "Lines that are valid but that names cannot express, by reason.",
        labels=["zone", "reason"],
    )
    version = GaugeMetricFamily(
        "dnsblock_source_version", "Number of the list version in force.", labels=["zone"]
    )
    accepted = GaugeMetricFamily(
        "dnsblock_source_accepted_timestamp_seconds",
        "When this version of the list was accepted. Unix time.",
        labels=["zone"],
    )
    rejected = GaugeMetricFamily(
        "dnsblock_source_rejected",
        "1 while the current content of the list is rejected or cannot be read, else 0.",
        labels=["zone"],
    )
    for zone, listed in sorted(view.publisher.lists.listed.items()):
        report = listed.report
        for result in ("accepted", "repaired", "duplicate", "not_applicable", "rejected"):
            lines.add_metric([zone, result], getattr(report, result))
        for reason, count in report.rejected_by.items():
            rejected_lines.add_metric([zone, reason], count)
        for reason, count in report.not_applicable_by.items():
            not_applicable.add_metric([zone, reason], count)
        if listed.version is not None:
            version.add_metric([zone], listed.version.number)
            accepted.add_metric([zone], listed.version.accepted_at.timestamp())
    for zone in sorted(view.publisher.lists.listed.keys() | view.publisher.lists.missing.keys()):
        rejected.add_metric([zone], float(zone in view.publisher.lists.rejections))
    yield from (lines, rejected_lines, not_applicable, version, accepted, rejected)
    yield from _ages(view)
    allowed = view.publisher.policy.allowed
    yield GaugeMetricFamily(
        "dnsblock_allowed_names",
        "Exemptions from all lists that are in force, by `dnsblock allow`.",
        0 if allowed is None else len(allowed.allowances),
    )


def _ages(view: View) -> Iterator[Metric]:
    fetched = GaugeMetricFamily(
        "dnsblock_source_fetched_timestamp_seconds",
        "Time of the last successful fetch of a feed (200 or 304); 0 if none. Unix time.",
        labels=["zone"],
    )
    max_age = GaugeMetricFamily(
        "dnsblock_source_max_age_seconds",
        "How long after its last successful fetch a feed counts as current.",
        labels=["zone"],
    )
    expired = GaugeMetricFamily(
        "dnsblock_source_expired", "1 while a feed is older than its limit, else 0.", labels=["zone"]
    )
    for zone in view.config.zones:
        if not zone.is_feed:
            continue
        at = view.refresher.states.get(zone.name, FetchStatus()).fetched_at
        fetched.add_metric([zone.name], 0.0 if at is None else at.timestamp())
        if zone.source.max_age_s is not None:
            max_age.add_metric([zone.name], zone.source.max_age_s)
            until = view.refresher.expires_at(zone)
            expired.add_metric([zone.name], int(until is not None and until <= utc_now()))
    yield from (fetched, max_age, expired)
