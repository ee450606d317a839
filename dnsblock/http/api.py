"""All routes of the API, and the application behind the control socket."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dnsblock import __version__
from dnsblock.client import MAX_SUBMITTED_BYTES, MAX_SUBMITTED_DOCUMENTS
from dnsblock.errors import Refused, printable
from dnsblock.http.allow import allow_routes
from dnsblock.http.answers import answer, asked, changed, not_a_name, refusals, utc
from dnsblock.http.callers import Identify, local_caller, view_of
from dnsblock.http.control import Control, View
from dnsblock.http.events import Streams, events_routes
from dnsblock.http.exports import export_routes
from dnsblock.http.health import health_routes
from dnsblock.http.impact import impact_routes
from dnsblock.http.instance import snapshot_routes
from dnsblock.http.lists import explain_at, lists_routes, sources
from dnsblock.http.log import log_routes
from dnsblock.http.models_operations import Purged
from dnsblock.http.models_policy import WhyAnswer
from dnsblock.http.models_queries import PurgeQuery, WhyQuery
from dnsblock.http.models_status import Status, Work
from dnsblock.http.order_check import order_check_routes
from dnsblock.http.orders import Site, operator_routes, orders_routes
from dnsblock.http.past_impact import past_impact_routes
from dnsblock.http.paths import RawPath
from dnsblock.http.probes import probe_routes
from dnsblock.http.receipts import receipt_routes
from dnsblock.http.submissions import Limits
from dnsblock.http.webhooks import webhook_routes
from dnsblock.names import NameRefused, address, canonical, suffixes
from dnsblock.orders.known import about
from dnsblock.orders.state import OrderState
from dnsblock.policy.explain import Address
from dnsblock.policy.past import not_enforced
from dnsblock.policy.recorder import facts_of_ledger

# The orders of all issuers on a new server may come in one request.
LIMITS = Limits(MAX_SUBMITTED_BYTES, MAX_SUBMITTED_DOCUMENTS, large=1)


def control_app(control: Control, streams: Streams, count_refused: Callable[[str], None]) -> ASGIApp:
    """The application behind the control socket. Permission to open the socket allows every request."""
    site = Site(local_caller, LIMITS, lambda _: None)
    app = Starlette(
        routes=routes(control, site, streams),
        exception_handlers=refusals(count_refused),
    )
    return RawPath(app)


def routes(control: Control, site: Site, streams: Streams) -> list[Route]:
    """All paths, which docs/openapi.json describes. The control socket and the HTTPS API serve the same."""
    identify = site.identify
    return [
        *orders_routes(control, site),  # the first ones: an order does not wait for the others
        *_instance_routes(control, identify),
        *lists_routes(control, identify),
        *log_routes(control, identify),
        *impact_routes(control, identify),
        *past_impact_routes(control, identify),
        *export_routes(control, identify),
        *allow_routes(control, identify),
        *webhook_routes(control, identify),
        *operator_routes(control, identify),
        *order_check_routes(control, site),
        *probe_routes(control, identify),
        *receipt_routes(control, identify),
        *events_routes(control, identify, streams),
        *snapshot_routes(control, identify),
        *health_routes(control),
    ]


def _instance_routes(control: Control, identify: Identify) -> list[Route]:
    """`/v1/status`, `/v1/work`, `/v1/why`, `/v1/reload` and `/v1/cache/purge`."""

    async def get_status(request: Request) -> Response:
        return answer(Status, status(await view_of(control, identify, request)))

    async def get_work(request: Request) -> Response:
        return answer(Work, work(await view_of(control, identify, request)))

    async def post_reload(request: Request) -> Response:
        """Responds when the new snapshot is in force, or with the problems."""
        caller = await identify(request, "operate")
        return await changed(control.actions.reload(caller.principal))

    async def get_why(request: Request) -> Response:
        view, why = await view_of(control, identify, request), asked(request, WhyQuery)
        if why.at is not None or why.known_at is not None:
            return await explain_at(view, why.name, why.at, why.known_at)
        try:
            return answer(WhyAnswer, await asyncio.to_thread(why_now, view, why.name, why.client))
        except NameRefused as err:
            raise not_a_name(err) from err

    async def post_purge(request: Request) -> Response:
        """Purges a name from the cache, or without a name the whole cache."""
        caller, purge = await identify(request, "operate"), asked(request, PurgeQuery)
        try:
            name = None if purge.name is None else canonical(purge.name)
        except NameRefused as err:
            raise not_a_name(err) from err
        purged = await asyncio.to_thread(control.actions.purge, caller.principal, name, purge.below)
        return answer(Purged, {"purged": purged})

    return [
        Route("/v1/status", get_status),
        Route("/v1/work", get_work),
        Route("/v1/reload", post_reload, methods=["POST"]),
        Route("/v1/why", get_why),
        Route("/v1/cache/purge", post_purge, methods=["POST"]),
    ]


def why_now(view: View, text: str, client: Address | None = None) -> dict[str, Any]:
    """Explains why a name or an address is or is not blocked now, for a client. Raises `NameRefused`.

    For a name with its scheduled changes.
    """
    if (place := address(text)) is not None:
        return dict(view.explain(place, client))
    name = canonical(text)
    now, orders = view.publisher.recorder.now(), view.publisher.recorder.ledger.orders
    covers = suffixes(name)
    held = list(not_enforced(view.config, about(orders, covers), covers, now))
    return {
        **view.explain(name, client),
        "not_enforced": held,
        "scheduled": view.scheduled(name),
        "time_zone": view.config.time_zone.key,
    }


def work(view: View) -> dict[str, Any]:
    """Progress of work in the background: downloads of feeds, and reading of lists."""
    fetching = {
        zone: {"bytes": received, "announced": announced}
        for zone, (received, announced) in view.refresher.fetching.items()
    }
    reading = view.publisher.inputs.progress
    return {"fetching": fetching, "reading": None if reading is None else {"bytes": reading.bytes}}


def status(view: View) -> dict[str, Any]:
    """The enforced state and the last errors; times are RFC 3339 in UTC."""
    policy, config, last = view.publisher.policy, view.config, view.publisher.last_publish
    counts = view.counters()
    issuers = {zone.issuer for zone in config.zones if not zone.is_shadow}
    return {
        "version": __version__,
        "pid": os.getpid(),
        "started_at": utc(view.started_at),
        "serial": policy.snapshot.serial,
        "digest": policy.snapshot.digest,
        "published_at": utc(view.publisher.published_at),
        "entries": view.publisher.entries,
        "zones": [
            {
                "name": zone.name,
                "kind": zone.kind,
                "mode": "shadow" if placed.is_shadow else "enforce",  # also of a zone that has expired
                "answer": zone.answer,
                "entries": placed.zone.entries,
                "digest": placed.zone.digest,
            }
            for zone, placed in zip(config.zones, policy.plan, strict=True)
        ],
        "sources": sources(view),
        "histories_aside": [str(path) for path in view.store.histories_aside],
        "orders": [_order(order, issuers, view) for order in view.state.orders],
        "refused_documents": [
            {
                "file": printable(one.file),
                "issuer": one.issuer,
                "order_id": one.order_id,
                "problems": Refused(one.problems).as_json(),
            }
            for one in view.publisher.inbox
        ],
        "listening": view.listening,
        **view.http_endpoints(),
        "landing": view.landing.endpoints,
        "control": str(config.control),
        "upstreams": [str(server) for server in config.upstream.servers],
        "upstreams_down": view.upstreams_down,
        "upstream_states": view.traffic.upstreams(counts),
        "traffic": view.traffic.facts(counts),
        "restart_needed": list(view.publisher.inputs.restart_needed),
        "workers": view.workers,
        "next_change_at": utc(policy.state.next_change_at),
        "last_publish": {"ok": last.ok, "at": utc(last.at), "reason": last.reason, "error": last.error},
        "ledger": {**facts_of_ledger(view.publisher.recorder), "checkpoint": view.checkpoints.facts()},
        "probes": None if config.probes is None else probe_facts(view),
        "impact_run": None if view.impact_runs.running is None else view.impact_runs.running.facts(),
        "time_zone": config.time_zone.key,
    }


def probe_facts(view: View) -> dict[str, Any]:
    """The results of scheduled probes. The open names have neither issuer nor number."""
    counts, in_effect = view.verification.counts, view.verification.orders()
    return {
        "last_at": utc(counts.last_at),
        "unverified": sum(not one.is_verified for one in in_effect),
        "misses": [
            {
                "issuer": key.issuer or None,
                "order_id": key.order_id or None,
                "at": utc(outcome.at),
                "asked": outcome.asked,
                "missed": outcome.responses,
                "first": outcome.first,
            }
            for key, outcome in counts.misses
        ],
    }


def _order(order: OrderState, issuers: set[str | None], view: View) -> dict[str, Any]:
    enforced = order.issuer in issuers
    notes = order.notes if enforced else (*order.notes, "no zone enforces the orders of this issuer")
    if order.action == "snapshot":
        now = view.publisher.recorder.now()
        notes = (*notes, *view.statements.notes(order.issuer, order.sha256, now, view.config.time_zone))
    return {
        "issuer": order.issuer,
        "order_id": order.order_id,
        "action": order.action,
        "state": order.state,
        "entries": order.entries,
        "in_force": order.in_force if enforced else 0,
        "effective_at": utc(order.effective_at),
        "expires_at": utc(order.expires_at),
        "notes": list(notes),
    }
