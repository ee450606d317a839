"""The control API: what the command line, and later the ministry, asks of a running daemon."""

import asyncio
import os
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from dnsblock import __version__
from dnsblock.errors import Refused
from dnsblock.http.answers import refused, served, utc
from dnsblock.http.impact import add_impact
from dnsblock.http.lists import explain_at, lists_routes, sources
from dnsblock.names import NameRefused, address, canonical
from dnsblock.orders.state import OrderState

if TYPE_CHECKING:
    from dnsblock.daemon import Daemon


def control_app(daemon: "Daemon") -> FastAPI:
    """The application behind the control socket. Who may open the socket may do all of this."""
    app = FastAPI(title="dnsblock", version=__version__, docs_url=None, redoc_url=None)

    @app.exception_handler(RequestValidationError)
    async def refuse_request(_: Request, err: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in err.errors())
        return JSONResponse({"error": "not a proper request", "reason": wrong}, status_code=422)

    @app.get("/v1/status")
    async def get_status() -> dict[str, Any]:
        return status(daemon)

    @app.post("/v1/reload")
    async def post_reload() -> JSONResponse:
        """Answers when the new snapshot is served, or says why it is not."""
        try:
            return served(await daemon.publish("reload"))
        except Refused as err:
            return refused(err)

    @app.get("/v1/why")
    async def get_why(
        name: Annotated[str, Query(max_length=1024)],
        at: Annotated[str | None, Query(max_length=64)] = None,
    ) -> JSONResponse:
        if at is not None:
            return await explain_at(daemon, name, at)
        if (asked := address(name)) is not None:
            return JSONResponse(dict(daemon.explain_address(asked)))
        try:
            return JSONResponse(dict(await asyncio.to_thread(daemon.explain, canonical(name))))
        except NameRefused as err:
            return JSONResponse({"error": "not a name", "reason": str(err)}, status_code=400)

    @app.post("/v1/cache/purge")
    async def post_purge(
        name: Annotated[str | None, Query(max_length=1024)] = None, below: bool = False
    ) -> JSONResponse:
        """Drops what is kept about a name, or, without one, everything."""
        try:
            purged = await asyncio.to_thread(daemon.purge, None if name is None else canonical(name), below)
        except NameRefused as err:
            return JSONResponse({"error": "not a name", "reason": str(err)}, status_code=400)
        return JSONResponse({"purged": purged})

    app.include_router(lists_routes(daemon))
    add_impact(app, daemon)
    return app


def status(daemon: "Daemon") -> dict[str, Any]:
    """What is enforced, since when, and what went wrong last; times are RFC 3339 in UTC."""
    policy, config, last = daemon.policy, daemon.config, daemon.last_publish
    issuers = {zone.issuer for zone in config.zones if zone.mode == "enforce"}
    return {
        "version": __version__,
        "pid": os.getpid(),
        "started_at": utc(daemon.started_at),
        "serial": policy.snapshot.serial,
        "digest": policy.snapshot.digest,
        "published_at": utc(daemon.published_at),
        "entries": daemon.entries,
        "zones": [
            {
                "name": zone.name,
                "kind": zone.kind,
                "mode": zone.mode,
                "answer": zone.answer,
                "entries": compiled.entries,
                "digest": compiled.digest,
            }
            for zone, compiled in zip(config.zones, policy.zones, strict=True)
        ],
        "sources": sources(daemon),
        "orders": [_order(order, issuers) for order in policy.state.orders],
        "listening": daemon.listening,
        "metrics": daemon.metrics_endpoint,
        "control": str(config.control),
        "upstreams": [str(server) for server in config.upstream.servers],
        "upstreams_down": daemon.upstreams_down,
        "workers": daemon.workers,
        "next_change_at": utc(policy.state.next_change_at),
        "last_publish": {"ok": last.ok, "at": utc(last.at), "reason": last.reason, "error": last.error},
        "trial": None if daemon.trials.running is None else daemon.trials.running.facts(),
        "time_zone": config.time_zone.key,
    }


def _order(order: OrderState, issuers: set[str | None]) -> dict[str, Any]:
    enforced = order.issuer in issuers
    notes = order.notes if enforced else (*order.notes, "no zone enforces the orders of this issuer")
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
