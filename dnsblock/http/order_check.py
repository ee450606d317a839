"""The handlers for the authors of orders: a dry run of documents, and what their next order refers to."""

import asyncio
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dnsblock.errors import printable
from dnsblock.http.answers import ApiError, asked
from dnsblock.http.callers import Caller
from dnsblock.http.control import Control
from dnsblock.http.orders import Site
from dnsblock.http.submissions import Turns, submission
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.statement import content_of
from dnsblock.times import moment

Issuer = Annotated[str, Field(max_length=63)]


class Last(BaseModel):
    """The query of GET /v1/orders/last."""

    issuer: Issuer


class StatementQuery(BaseModel):
    """The query of GET /v1/orders/statement."""

    issuer: Issuer
    at: Annotated[str, Field(max_length=64)]  # RFC 3339


def order_check_routes(control: Control, site: Site) -> list[Route]:
    """`/v1/orders/check`, `/v1/orders/last`, `/v1/orders/statement`. Put them before `orders_routes`."""
    turns = Turns(1)

    async def post_check(request: Request) -> JSONResponse:
        """Takes a form with documents as POST /v1/orders, and responds with what would become of them."""
        caller = await site.identify(request, "submit")
        async with submission(request, site.limits, turns, str(caller.principal)) as documents:
            found = await control.actions.try_out(documents, caller.issuers)
        zone = control.view(caller.principal).config.time_zone.key
        return JSONResponse({"trials": found, "time_zone": zone})

    async def get_last(request: Request) -> JSONResponse:
        """The last numbered order of an issuer without a gap before it, and the first missing number."""
        caller, query = await site.identify(request, "read"), asked(request, Last)
        orders = _orders(control, caller, query.issuer)
        order = orders.chain.last
        last = (
            None if order is None else {"order_id": order.order_id, "seq": order.seq, "sha256": order.sha256}
        )
        gap, count = orders.chain.gap, len(orders.lives)
        return JSONResponse({"issuer": query.issuer, "last": last, "gap": gap, "orders": count})

    async def get_statement(request: Request) -> JSONResponse:
        """The `seq`, count and digest for a status statement that is made at a time."""
        caller, query = await site.identify(request, "read"), asked(request, StatementQuery)
        orders = _orders(control, caller, query.issuer)
        try:
            at = moment(query.at)
        except ValueError as err:
            raise ApiError(400, "INVALID", f"not a time: {printable(query.at)}") from err
        return JSONResponse(await asyncio.to_thread(_statement, orders, at))

    return [
        Route("/v1/orders/check", post_check, methods=["POST"]),
        Route("/v1/orders/last", get_last),
        Route("/v1/orders/statement", get_statement),
    ]


def _orders(control: Control, caller: Caller, issuer: str) -> IssuerOrders:
    """The orders of an issuer. Raises `ApiError` if the caller may not see them."""
    if not caller.sees(issuer):
        raise ApiError(404, "NOT_FOUND", f"there is no issuer {printable(issuer)}")
    return control.view(caller.principal).publisher.recorder.ledger.orders.of(issuer)


def _statement(orders: IssuerOrders, at: datetime) -> dict[str, int | str | None]:
    content = content_of(orders, at)
    return {
        "seq": content.seq,
        "entries": content.entries,
        "digest": content.digest,
        "gap": orders.chain.gap,
    }
