"""The control API for `dnsblock probe`: the checks of an order."""

import asyncio
from typing import Annotated

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dnsblock.client import MAX_PROBED
from dnsblock.errors import printable
from dnsblock.http.answers import ApiError, asked, view_of
from dnsblock.http.control import Control
from dnsblock.http.paths import order_in
from dnsblock.probe.checks import SAMPLE, as_json


class Probe(BaseModel):
    """The query of GET /v1/orders/ISSUER/NUMBER/probe."""

    most: Annotated[int, Field(ge=1, le=MAX_PROBED)] = SAMPLE


def probe_routes(control: Control) -> list[Route]:
    """`/v1/orders/ISSUER/NUMBER/probe`: the queries for an order, and the expected responses."""

    async def get_probe(request: Request) -> JSONResponse:
        probe, view = asked(request, Probe), await view_of(control, request)
        issuer, number = order_in(request)
        found = await asyncio.to_thread(view.verification.plan, issuer, number, probe.most)
        if found is None:
            reason = f"there is no order {printable(number)} of {printable(issuer)}"
            raise ApiError(404, "NOT_FOUND", reason)
        return JSONResponse(await asyncio.to_thread(as_json, *found))

    return [Route("/v1/orders/{issuer}/{number}/probe", get_probe)]
