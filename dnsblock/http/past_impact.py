"""The handler for the impact of past days, from counts of queried names."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dnsblock.client import MAX_CANDIDATE_BYTES
from dnsblock.errors import Refused
from dnsblock.http.answers import answer, asked, body, refused
from dnsblock.http.callers import Identify, view_of
from dnsblock.http.control import Control, View
from dnsblock.http.impact import order_of
from dnsblock.http.models_policy import PastImpactReport
from dnsblock.http.models_queries import PastImpactQuery
from dnsblock.policy.impact import Candidate


def past_impact_routes(control: Control, identify: Identify) -> list[Route]:
    """`/v1/impact/past`."""

    async def post_past(request: Request) -> Response:
        """Takes an order document or a list as the body."""
        view, what = await view_of(control, identify, request), asked(request, PastImpactQuery)
        data = await body(request, what.file, MAX_CANDIDATE_BYTES)
        try:
            candidate = await asyncio.to_thread(_compiled, view, what, data)
            report = await view.counting.impact(what.file, candidate, what.days, what.top)
        except Refused as err:
            raise refused(err) from err
        return answer(PastImpactReport, report)

    return [Route("/v1/impact/past", post_past, methods=["POST"])]


def _compiled(view: View, what: PastImpactQuery, data: bytes) -> Candidate:
    if what.order_id is not None:
        return view.impact_runs.compile_order(order_of(view, what.issuer or "", what.order_id), view.config)
    return view.impact_runs.compile(what.file, data, what.match, view.config, what.zone)
