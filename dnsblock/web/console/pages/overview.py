"""The overview: what is enforced now, what needs attention, and the traffic."""

import asyncio
from typing import Any

from starlette.responses import JSONResponse, Response

from dnsblock import __version__
from dnsblock.policy.order_facts import OrderFacts, list_orders
from dnsblock.web.console.page import Page, Visit
from dnsblock.web.console.pages.alerts import alerts_of


async def _overview(visit: Visit) -> Response:
    orders = await asyncio.to_thread(orders_of, visit)
    view, sees = visit.view, visit.by.sees
    policy = view.publisher.policy
    zones = [
        {
            "name": zone.name,
            "kind": zone.kind,
            "mode": "shadow" if placed.is_shadow else "enforce",
            "entries": placed.zone.entries,
            "digest": placed.zone.digest,
        }
        for zone, placed in zip(view.config.zones, policy.plan, strict=True)
        if visit.may("watch") or (zone.issuer is not None and sees(zone.issuer))
    ]
    own: dict[str, Any] = {"staff": False, "names": sum(one["entries"] for one in zones)}
    if visit.may("watch"):
        counts = view.counters()
        own = {
            "staff": True,
            "names": view.publisher.entries,
            "traffic": view.traffic.facts(counts),
            "upstreams": view.traffic.upstreams(counts),
            "now": visit.now,
        }
    return visit.render(
        "overview.html",
        serial=policy.snapshot.serial,
        digest=policy.snapshot.digest,
        published_at=view.publisher.published_at,
        started_at=view.started_at,
        version=__version__,
        zones=zones,
        alerts=alerts_of(visit, orders),
        **own,
    )


async def _series(visit: Visit) -> Response:
    return JSONResponse(visit.view.series.as_json())


def orders_of(visit: Visit) -> list[OrderFacts]:
    """The orders that the visitor may see, in ledger order. Takes long if they are many."""
    view = visit.view
    return list_orders(view.state, view.config, visit.now, visit.by.issuers)


PAGES = (
    Page("/", _overview, "read"),
    Page("/series", _series, "watch", is_use=False),
)
