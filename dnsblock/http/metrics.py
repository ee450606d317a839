"""The Prometheus metrics, described in docs/metrics.md. No label holds a client or a queried name."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import product
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    make_asgi_app,
)
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.types import Receive, Scope, Send

from dnsblock import __version__
from dnsblock.clock import utc_now
from dnsblock.config_zones import Zone
from dnsblock.errors import FetchCode
from dnsblock.http.control import View
from dnsblock.http.count_metrics import query_counts
from dnsblock.http.dnstap_metrics import dnstap
from dnsblock.http.export_metrics import exports
from dnsblock.http.list_metrics import lists
from dnsblock.http.listener_metrics import listeners
from dnsblock.http.order_metrics import OrderTimes, blocked_by_orders
from dnsblock.http.probe_metrics import probes
from dnsblock.http.transfer_metrics import KINDS, transfers
from dnsblock.http.webhook_metrics import webhooks
from dnsblock.lists.guards import CODES
from dnsblock.policy import Counts
from dnsblock.policy.order_facts import open_deadline
from dnsblock.publishing import PARTLY_REFUSED, Publisher

# The creation time of each counter equals process_start_time_seconds.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types for it

PUBLISH_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
FAILURE_REASONS = ("refused", PARTLY_REFUSED, "unwritable", "internal")


class Metrics(Collector):
    """All metrics of one daemon: its own counters, and those of its worker threads."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._order_times = OrderTimes()
        self._last_success: float | None = None
        self._last_attempt: float | None = None
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._duration = Histogram(
            *(
                "dnsblock_publish_duration_seconds",
                "Time from the signal, command or scheduled time until the new snapshot is in force.",
            ),
            buckets=PUBLISH_BUCKETS,
            registry=self.registry,
        )
        self._failures = CounterMetric(
            *("dnsblock_publish_failures_total", "Failed publishes, by reason."),
            labelnames=["reason"],
            registry=self.registry,
        )
        for reason in FAILURE_REASONS:
            self._failures.labels(reason)
        self._fetches = CounterMetric(
            *("dnsblock_source_fetches_total", "Fetches of a feed, by result."),
            labelnames=["zone", "result"],
            registry=self.registry,
        )
        self._transfers = CounterMetric(
            *("dnsblock_transfers_total", "Zone transfers that brought a new copy, by kind."),
            labelnames=["zone", "kind"],
            registry=self.registry,
        )
        self._rejections = CounterMetric(
            *("dnsblock_source_rejections_total", "Rejected versions of a list, by code."),
            labelnames=["zone", "code"],
            registry=self.registry,
        )
        self._corrupt = CounterMetric(
            *(
                "dnsblock_source_corrupt_total",
                "Times that the compiled file of a list was truncated or unreadable while in use.",
            ),
            labelnames=["zone"],
            registry=self.registry,
        )
        self.registry.register(self)

    def published(self, seconds: float | None, *, clears: bool) -> None:
        """Counts a successful publish; the one at startup has no duration.

        Without `clears`, an earlier failure stands: something else failed.
        """
        if clears:
            self._last_success = self._last_attempt = utc_now().timestamp()
        if seconds is not None:
            self._duration.observe(seconds)

    def failed(self, reason: str) -> None:
        """Counts a failed publish. Refused documents and rejected lists have alerts of their own."""
        if reason != PARTLY_REFUSED:
            self._last_attempt = utc_now().timestamp()
        self._failures.labels(reason).inc()

    def follow(self, lists: Iterable[str], zones: Iterable[Zone]) -> None:
        """Creates all series of these lists, so that `rate()` counts the first event."""
        for zone, code in product(lists, CODES):
            self._rejections.labels(zone, code.lower())
        for zone in lists:
            self._corrupt.labels(zone)
        feeds = [zone for zone in zones if zone.is_feed]
        for feed, result in product(feeds, ("ok", "not_modified", *get_args(FetchCode))):
            self._fetches.labels(feed.name, result.lower())
        for zone, kind in product((feed.name for feed in feeds if feed.is_transferred), KINDS):
            self._transfers.labels(zone, kind)

    def fetched(self, zone: str, result: str) -> None:
        """Counts a fetch of a feed: `ok`, `not_modified`, or the error code; a zone transfer by its kind."""
        if result in KINDS:
            self._transfers.labels(zone, result).inc()
            result = "ok"
        self._fetches.labels(zone, result.lower()).inc()

    def corrupt(self, zone: str) -> None:
        """Counts a corrupt compiled file: truncated or unreadable while in use."""
        self._corrupt.labels(zone).inc()

    def rejected(self, zone: str, code: str) -> None:
        """Counts a list that a guard rejected."""
        self._rejections.labels(zone, code.lower()).inc()

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        counts = self._view.counters()
        yield from _queries(counts, {zone.name for zone in self._view.config.zones if zone.is_shadow})
        yield from _upstreams(counts)
        yield from _engine(counts, self._view.workers)
        yield from _responses(counts)
        yield from _cache(counts)
        yield from dnstap(counts)
        yield from _enforced(self._view)
        yield from _statements(self._view)
        yield from self._order_times.collect(self._view)
        yield blocked_by_orders(counts)
        yield from probes(self._view)
        yield from lists(self._view)
        yield from listeners(self._view)
        yield _time_gauge("publish_last_success", "Time of the last successful publish.", self._last_success)
        yield _time_gauge(
            "publish_last_attempt", "Time of the last publish, successful or not.", self._last_attempt
        )
        yield InfoMetricFamily("dnsblock_build", "Running version.", {"version": __version__})


class MetricsApp:
    """The application behind `/metrics`: a class, since starlette takes a function for a handler."""

    def __init__(self, metrics: Metrics) -> None:
        self._app = make_asgi_app(metrics.registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


# ------- Counters of the worker threads -------


def _queries(counts: Counts, in_shadow: set[str]) -> Iterator[Metric]:
    queries = CounterMetricFamily(
        "dnsblock_queries", "Client queries, by transport and outcome.", labels=["transport", "outcome"]
    )
    for labels, count in sorted(counts.queries.items()):
        queries.add_metric(labels, count)
    yield queries
    blocked = CounterMetricFamily(
        "dnsblock_blocked",
        "Queries decided by a policy zone, by action of the response.",
        labels=["zone", "action"],
    )
    for labels, count in sorted(counts.blocked.items()):
        if labels[1] != "passthru":  # a passthru is counted as forwarded
            blocked.add_metric(labels, count)
    yield blocked
    shadow = CounterMetricFamily(
        "dnsblock_shadow_blocked",
        "Queries that a zone in shadow mode would have blocked, by action.",
        labels=["zone", "action"],
    )
    # Zones that are or were in shadow mode: a counter does not disappear.
    shown = in_shadow | {zone for (zone, _), count in counts.shadow_blocked.items() if count}
    for labels, count in sorted(counts.shadow_blocked.items()):
        if labels[0] in shown and labels[1] != "passthru":
            shadow.add_metric(labels, count)
    yield shadow


def _upstreams(counts: Counts) -> Iterator[Metric]:
    queries = CounterMetricFamily(
        "dnsblock_upstream_queries", "Queries sent to an upstream.", labels=["upstream", "transport"]
    )
    errors = CounterMetricFamily(
        "dnsblock_upstream_errors",
        "Errors of an upstream, by reason.",
        labels=["upstream", "reason"],
    )
    latency = HistogramMetricFamily(
        "dnsblock_upstream_latency_seconds",
        "Time from an upstream query to its response.",
        labels=["upstream"],
    )
    up = GaugeMetricFamily(
        "dnsblock_upstream_up",
        "1 if the upstream is up (in use), 0 if it is marked down.",
        labels=["upstream"],
    )
    without_edns = GaugeMetricFamily(
        "dnsblock_upstream_without_edns",
        "1 while an upstream is queried without EDNS because it refused OPT, else 0.",
        labels=["upstream"],
    )
    outstanding = GaugeMetricFamily(
        "dnsblock_upstream_outstanding_queries", "Queries outstanding at an upstream.", labels=["upstream"]
    )
    health_checks = CounterMetricFamily(
        "dnsblock_upstream_health_checks",
        "Health checks of an upstream, by result.",
        labels=["upstream", "result"],
    )
    for upstream in counts.upstreams:
        host, port = upstream.address
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        queries.add_metric([name, "udp"], upstream.udp_queries)
        queries.add_metric([name, "tcp"], upstream.tcp_queries)
        errors.add_metric([name, "timeout"], upstream.timeouts)
        errors.add_metric([name, "network"], upstream.network_errors)
        errors.add_metric([name, "mismatch"], upstream.mismatches)
        errors.add_metric([name, "lost"], upstream.taken_over)
        errors.add_metric([name, "refused"], upstream.refused)
        errors.add_metric([name, "servfail"], upstream.failures)
        up.add_metric([name], float(upstream.is_up))
        without_edns.add_metric([name], float(upstream.is_without_edns))
        outstanding.add_metric([name], upstream.outstanding)
        for result, count in sorted(upstream.health_checks.items()):
            health_checks.add_metric([name, result], count)
        latency.add_metric([name], _cumulative(upstream.latency_buckets), upstream.latency_seconds)
    yield from (queries, errors, latency, up, without_edns, outstanding, health_checks)


def _cumulative(buckets: list[tuple[float, int]]) -> list[tuple[str, float]]:
    total = 0
    summed: list[tuple[str, float]] = []
    for bound, count in buckets:
        total += count
        summed.append(("+Inf" if bound == float("inf") else str(bound), total))
    return summed


def _engine(counts: Counts, workers: int) -> Iterator[Metric]:
    yield GaugeMetricFamily("dnsblock_workers", "Worker threads.", workers)
    yield GaugeMetricFamily(
        "dnsblock_tcp_connections", "Open TCP connections of clients.", counts.tcp_connections
    )
    yield GaugeMetricFamily(
        "dnsblock_outstanding_queries", "Client queries that wait for an upstream.", counts.outstanding
    )
    tcp_refused = CounterMetricFamily(
        "dnsblock_tcp_refused_connections",
        "TCP connections closed immediately, by the limit that was reached.",
        labels=["reason"],
    )
    for reason, count in sorted(counts.tcp_refused.items()):
        tcp_refused.add_metric([reason], count)
    yield tcp_refused
    yield CounterMetricFamily(
        "dnsblock_truncated_responses", "Truncated UDP responses (TC=1).", counts.truncated
    )
    yield CounterMetricFamily(
        "dnsblock_dropped_records",
        "Records removed from responses: of blocked names, or with listed addresses.",
        counts.dropped_records,
    )
    limited = CounterMetricFamily(
        "dnsblock_rate_limited",
        "Queries and error responses over a client's rate limit, by treatment.",
        labels=["answer"],
    )
    for answer, count in sorted(counts.limited.items()):
        limited.add_metric([answer], count)
    yield limited
    yield CounterMetricFamily(
        "dnsblock_coalesced_queries",
        "Queries that were coalesced with an outstanding query.",
        counts.joined,
    )
    yield CounterMetricFamily(
        "dnsblock_packet_panics", "Packets lost to a fault in the engine.", counts.panics
    )
    yield CounterMetricFamily(
        "dnsblock_unsent_responses", "UDP responses that the kernel did not accept.", counts.unsent
    )


def _responses(counts: Counts) -> Iterator[Metric]:
    responses = CounterMetricFamily("dnsblock_responses", "Responses to clients, by RCODE.", labels=["rcode"])
    for rcode, count in counts.rcodes.items():
        responses.add_metric([rcode], count)
    yield responses
    latency = HistogramMetricFamily(
        "dnsblock_response_latency_seconds",
        "Time from reading a query to its response, by the source of the response.",
        labels=["made"],
    )
    for made, (buckets, seconds) in sorted(counts.waited.items()):
        latency.add_metric([made], _cumulative(buckets), seconds)
    yield latency


def _cache(counts: Counts) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "dnsblock_cache_entries",
        "Cached responses, expired ones included.",
        counts.cache_entries,
    )
    yield GaugeMetricFamily(
        "dnsblock_cache_bytes", "Memory of cached responses, in bytes.", counts.cache_bytes
    )
    yield CounterMetricFamily(
        "dnsblock_cache_evictions", "Cached responses evicted for others.", counts.cache_evictions
    )
    yield CounterMetricFamily(
        "dnsblock_cache_prefetches",
        "Upstream queries to refresh a record that was about to expire.",
        counts.prefetched,
    )
    refused = CounterMetricFamily(
        "dnsblock_outstanding_refused",
        "Queries not sent upstream because too many are outstanding, by limit.",
        labels=["reason"],
    )
    for reason, count in sorted(counts.refused.items()):
        refused.add_metric([reason], count)
    yield refused


# ------- What is enforced -------


def _enforced(view: View) -> Iterator[Metric]:
    publisher = view.publisher
    snapshot = publisher.policy.snapshot
    yield GaugeMetricFamily("dnsblock_snapshot_serial", "Serial of the snapshot in force.", snapshot.serial)
    yield InfoMetricFamily(
        "dnsblock_snapshot", "Digest of the snapshot in force.", {"digest": snapshot.digest}
    )
    yield _time_gauge(
        "snapshot_published", "Since when the snapshot has been in force.", _unix(publisher.published_at)
    )
    yield GaugeMetricFamily(
        "dnsblock_list_history_corrupt_files",
        "Corrupt histories of lists in the state folder.",
        len(view.store.histories_aside),
    )
    entries = GaugeMetricFamily("dnsblock_zone_entries", "Entries of a policy zone.", labels=["zone"])
    for zone in publisher.policy.zones:
        entries.add_metric([zone.name], zone.entries)
    yield entries
    digests = InfoMetricFamily("dnsblock_zone", "Kind and digest of a policy zone.", labels=["zone"])
    for configured, zone in zip(view.config.zones, publisher.policy.zones, strict=True):
        digests.add_metric([zone.name], {"kind": configured.kind, "digest": zone.digest})
    yield digests
    orders = GaugeMetricFamily(
        "dnsblock_orders", "Orders in the ledger, by state.", labels=["issuer", "state"]
    )
    known = publisher.recorder.state(publisher.policy)
    by_state = Counter((order.issuer, order.state) for order in known.orders)
    for (issuer, state), count in sorted(by_state.items()):
        orders.add_metric([issuer, state.replace(" ", "_")], count)
    yield orders
    yield from _deadlines(view)
    recorder = publisher.recorder
    yield GaugeMetricFamily(
        "dnsblock_ledger_records", "Records in the ledger in force.", len(recorder.ledger.records)
    )
    lacks = "1 if the ledger lacks acknowledged records; nothing is published then."
    yield GaugeMetricFamily("dnsblock_ledger_mismatch", lacks, int(recorder.mismatch is not None))
    yield from _checkpoints(view)
    yield from exports(view)
    yield from query_counts(view)
    yield from transfers(view)
    yield from webhooks(view)
    yield GaugeMetricFamily(
        "dnsblock_clock_behind_seconds",
        "How far the system clock is behind the last record of the ledger.",
        recorder.behind.total_seconds(),
    )
    yield from _refusals(publisher)
    due = publisher.policy.state.next_change_at
    yield _time_gauge("next_change", "Next time at which an order starts or ends; 0 for none.", _unix(due))


def _refusals(publisher: Publisher) -> Iterator[Metric]:
    """Refused order documents."""
    yield GaugeMetricFamily(
        "dnsblock_orders_refused", "Refused documents in the orders folder.", len(publisher.inbox)
    )
    refusals = CounterMetricFamily(
        "dnsblock_order_refusals", "Order documents that were refused, by code.", labels=["code"]
    )
    for code, count in publisher.refusals.by_code.items():
        refusals.add_metric([code], count)
    yield refusals


def _checkpoints(view: View) -> Iterator[Metric]:
    """Signed checkpoints of the ledger, and the places where they are kept."""
    checkpoints = view.checkpoints
    signed = None if checkpoints.signed is None else checkpoints.signed_at
    yield _time_gauge(
        "ledger_checkpoint",
        "When the last checkpoint of the ledger was signed; 0 if none yet.",
        _unix(signed),
    )
    places = checkpoints.places
    failing = GaugeMetricFamily(
        "dnsblock_ledger_checkpoint_failing",
        "1 if a place does not have the last checkpoint of the ledger.",
        labels=["place", "name"],
    )
    contradicted = GaugeMetricFamily(
        "dnsblock_ledger_contradicted",
        "1 if a place has a checkpoint of records that the ledger does not have.",
        labels=["place", "name"],
    )
    for place in places:
        failing.add_metric([place.kind, place.name], int(place.error is not None))
        contradicted.add_metric([place.kind, place.name], int(place.contradicts))
    yield failing
    yield contradicted


def _deadlines(view: View) -> Iterator[Metric]:
    """Deadlines and held entries of orders, by issuer, and zones that accept unsigned orders."""
    state, now = view.state, view.publisher.recorder.now()
    breached = GaugeMetricFamily(
        "dnsblock_orders_breached", "Orders whose deadline has passed without proof.", labels=["issuer"]
    )
    due = GaugeMetricFamily(
        "dnsblock_orders_next_deadline_timestamp_seconds",
        "The next deadline of an order that is not met yet; 0 if there is none. Unix time.",
        labels=["issuer"],
    )
    held = GaugeMetricFamily("dnsblock_orders_held_entries", "Entries that a guard holds.", labels=["issuer"])
    for issuer, own in sorted(state.by_issuer.items()):
        deadlines = [
            deadline
            for order in own.orders.orders
            if (deadline := open_deadline(order, own.states[order.sha256], own.orders, view.config))
            is not None
        ]
        breached.add_metric([issuer], sum(deadline <= now for deadline in deadlines))
        due.add_metric([issuer], min((at.timestamp() for at in deadlines if at > now), default=0))
        held.add_metric([issuer], sum(one.held for one in own.states.values()))
    yield from (breached, due, held)
    unsigned = GaugeMetricFamily(
        "dnsblock_zone_accepts_unsigned",
        "1 if orders of the zone's issuer need no signature.",
        labels=["zone"],
    )
    for zone in view.config.zones:
        if zone.issuer is not None:
            unsigned.add_metric([zone.name], int(zone.accepts_unsigned))
    yield unsigned


def _statements(view: View) -> Iterator[Metric]:
    """Whether an order may be withheld from this server."""
    gap = GaugeMetricFamily(
        "dnsblock_order_gap",
        "The first missing seq of an issuer, if later orders were received; else 0.",
        labels=["issuer"],
    )
    differs = GaugeMetricFamily(
        "dnsblock_statement_differs",
        "1 if the last status statement of an issuer differs from its orders here, else 0.",
        labels=["issuer"],
    )
    valid_until = GaugeMetricFamily(
        "dnsblock_statement_valid_until_seconds",
        "When the last status statement of an issuer ends; 0 if it has sent none. Unix time.",
        labels=["issuer"],
    )
    for issuer, orders in sorted(view.publisher.recorder.ledger.orders.issuers.items()):
        gap.add_metric([issuer], orders.chain.gap or 0)
        statement = view.statements.of(issuer)
        differs.add_metric([issuer], float(statement is not None and statement.differs))
        until = None if statement is None else statement.statement.valid_until
        valid_until.add_metric([issuer], _unix(until))
    yield from (gap, differs, valid_until)


def _unix(at: datetime | None) -> float:
    return 0.0 if at is None else at.timestamp()


def _time_gauge(name: str, text: str, at: float | None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"dnsblock_{name}_timestamp_seconds", f"{text} Unix time.", at or 0.0)
