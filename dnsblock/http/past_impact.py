"""The handler for the impact of past days, from counts of queried names. Only the control socket has it."""

import asyncio
from typing import Annotated

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dnsblock.client import MAX_CANDIDATE_BYTES
from dnsblock.errors import Refused
from dnsblock.http.answers import asked, body, refused
from dnsblock.http.callers import local_caller, view_of
from dnsblock.http.control import Control, View
from dnsblock.http.impact import order_of
from dnsblock.policy.impact import MAX_TOP, Candidate, Match
from dnsblock.policy.past_impact import MAX_DAYS


class PastImpactQuery(BaseModel):
    """The query of POST /v1/impact/past."""

    file: Annotated[str, Field(max_length=4096)]
    days: Annotated[int, Field(ge=1, le=MAX_DAYS)]
    top: Annotated[int, Field(ge=0, le=MAX_TOP)]
    match: Match | None = None
    zone: Annotated[str, Field(max_length=63)] | None = None
    issuer: Annotated[str, Field(max_length=63)] | None = None  # with order_id: an order in the ledger
    order_id: Annotated[str, Field(max_length=200)] | None = None


def past_impact_routes(control: Control) -> list[Route]:
    """`/v1/impact/past`."""

    async def post_past(request: Request) -> JSONResponse:
        """Takes an order document or a list as the body."""
        what, view = asked(request, PastImpactQuery), await view_of(control, local_caller, request)
        data = await body(request, what.file, MAX_CANDIDATE_BYTES)
        try:
            candidate = await asyncio.to_thread(_compiled, view, what, data)
            report = await view.counting.impact(what.file, candidate, what.days, what.top)
        except Refused as err:
            raise refused(err) from err
        return JSONResponse(dict(report))

    return [Route("/v1/impact/past", post_past, methods=["POST"])]


def _compiled(view: View, what: PastImpactQuery, data: bytes) -> Candidate:
    if what.order_id is not None:
        return view.impact_runs.compile_order(order_of(view, what.issuer or "", what.order_id), view.config)
    return view.impact_runs.compile(what.file, data, what.match, view.config, what.zone)
