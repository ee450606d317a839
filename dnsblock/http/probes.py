"""The handler for `dnsblock probe`: the checks of an order."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dnsblock.errors import printable
from dnsblock.http.answers import ApiError, answer, asked
from dnsblock.http.callers import Identify, view_of
from dnsblock.http.control import Control
from dnsblock.http.models_operations import ProbePlan
from dnsblock.http.models_queries import ProbeQuery
from dnsblock.http.paths import order_in
from dnsblock.probe.checks import as_json


def probe_routes(control: Control, identify: Identify) -> list[Route]:
    """`/v1/orders/ISSUER/NUMBER/probe`: the queries for an order, and the expected responses."""

    async def get_probe(request: Request) -> Response:
        view, probe = await view_of(control, identify, request), asked(request, ProbeQuery)
        issuer, number = order_in(request)
        found = await asyncio.to_thread(view.verification.plan, issuer, number, probe.most)
        if found is None:
            reason = f"there is no order {printable(number)} of {printable(issuer)}"
            raise ApiError(404, "NOT_FOUND", reason)
        return answer(ProbePlan, await asyncio.to_thread(as_json, *found))

    return [Route("/v1/orders/{issuer}/{number}/probe", get_probe)]
