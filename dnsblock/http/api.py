"""The control API: what the command line, and later the ministry, asks of a running daemon."""

import asyncio
import os
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query
from fastapi.responses import JSONResponse

from dnsblock import __version__
from dnsblock.errors import Refused
from dnsblock.names import NameRefused, address, canonical
from dnsblock.orders.state import OrderState

if TYPE_CHECKING:
    from dnsblock.daemon import Daemon


def control_app(daemon: "Daemon") -> FastAPI:
    """The application behind the control socket. Who may open the socket may do all of this."""
    app = FastAPI(title="dnsblock", version=__version__, docs_url=None, redoc_url=None)

    @app.get("/v1/status")
    async def get_status() -> dict[str, Any]:
        return status(daemon)

    @app.post("/v1/reload")
    async def post_reload() -> JSONResponse:
        """Answers when the new snapshot is served, or says why it is not."""
        try:
            published = await daemon.publish("reload")
        except Refused as err:
            return JSONResponse({"error": "refused", "problems": err.as_json()}, status_code=409)
        return JSONResponse(
            {
                "serial": published.serial,
                "digest": published.digest,
                "entries": published.entries,
                "changed": published.changed,
                "restart_needed": list(published.restart_needed),
                "notes": list(published.notes),
            }
        )

    @app.get("/v1/why")
    async def get_why(name: Annotated[str, Query(max_length=1024)]) -> JSONResponse:
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

    return app


def status(daemon: "Daemon") -> dict[str, Any]:
    """What is enforced, since when, and what went wrong last; times are RFC 3339 in UTC."""
    policy, config, last = daemon.policy, daemon.config, daemon.last_publish
    issuers = {zone.issuer for zone in config.zones}
    return {
        "version": __version__,
        "pid": os.getpid(),
        "started_at": _utc(daemon.started_at),
        "serial": policy.snapshot.serial,
        "digest": policy.snapshot.digest,
        "published_at": _utc(daemon.published_at),
        "entries": daemon.entries,
        "zones": [
            {
                "name": zone.name,
                "kind": zone.kind,
                "answer": zone.answer,
                "entries": compiled.entries,
                "digest": compiled.digest,
            }
            for zone, compiled in zip(config.zones, policy.zones, strict=True)
        ],
        "orders": [_order(order, issuers) for order in policy.state.orders],
        "listening": daemon.listening,
        "metrics": daemon.metrics_endpoint,
        "control": str(config.control),
        "upstreams": [str(server) for server in config.upstream.servers],
        "upstreams_down": daemon.upstreams_down,
        "workers": daemon.workers,
        "next_change_at": _utc(policy.state.next_change_at),
        "last_publish": {"ok": last.ok, "at": _utc(last.at), "reason": last.reason, "error": last.error},
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
        "effective_at": _utc(order.effective_at),
        "expires_at": _utc(order.expires_at),
        "notes": list(notes),
    }


def _utc(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds").replace("+00:00", "Z")
