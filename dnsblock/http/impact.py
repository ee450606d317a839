"""The handlers for impact runs: counts what an order or a list would block, and shows the progress."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dnsblock.client import MAX_CANDIDATE_BYTES
from dnsblock.errors import Problem, Refused
from dnsblock.http.answers import answer, asked, body, refused
from dnsblock.http.callers import Identify, view_of
from dnsblock.http.control import Control, View
from dnsblock.http.models_policy import ImpactEnded, ImpactReport, ImpactRunning
from dnsblock.http.models_queries import ImpactQuery
from dnsblock.orders.order import Order
from dnsblock.policy.impact import Run


def impact_routes(control: Control, identify: Identify) -> list[Route]:
    """`/v1/impact`: POST starts an impact run, GET returns its progress, DELETE ends it early."""

    async def post_impact(request: Request) -> Response:
        """Takes an order document or a list as the body, and responds after the requested time.

        The run ends if the client disconnects.
        """
        caller, what = await identify(request, "operate"), asked(request, ImpactQuery)
        view = control.view(caller.principal)
        try:
            with view.impact_runs.run(what.file, what.seconds) as run:
                return await _report(view, request, what, run)
        except Refused as err:
            raise refused(err) from err

    async def get_impact(request: Request) -> Response:
        """The counts so far of the current impact run; null if there is none."""
        run = (await view_of(control, identify, request)).impact_runs.running
        progress = None if run is None else await asyncio.to_thread(run.progress)
        return answer(ImpactRunning, {"running": progress})

    async def delete_impact(request: Request) -> Response:
        """Ends the current impact run, if any. The client that started it gets the counts so far."""
        run = control.view((await identify(request, "operate")).principal).impact_runs.running
        if run is not None:
            run.end()
        return answer(ImpactEnded, {"ended": run is not None})

    return [
        Route("/v1/impact", post_impact, methods=["POST"]),
        Route("/v1/impact", get_impact),
        Route("/v1/impact", delete_impact, methods=["DELETE"]),
    ]


async def _report(view: View, request: Request, what: ImpactQuery, run: Run) -> Response:
    data = await body(request, what.file, MAX_CANDIDATE_BYTES)
    watcher = asyncio.create_task(_end_when_gone(request, run))
    try:
        if what.order_id is not None:
            order = order_of(view, what.issuer or "", what.order_id)
            candidate = await asyncio.to_thread(view.impact_runs.compile_order, order, view.config)
        else:
            read = (what.file, data, what.match, view.config, what.zone)
            candidate = await asyncio.to_thread(view.impact_runs.compile, *read)
        return answer(ImpactReport, await run.count(candidate, what.top))
    finally:
        watcher.cancel()


def order_of(view: View, issuer: str, order_id: str) -> Order:
    """An order in the ledger. Raises `Refused`."""
    life = view.state.known.of(issuer).latest(order_id)
    if life is None:
        reason = "no order with this order_id is in the ledger: see `dnsblock order list`"
        raise Refused([Problem(f"issuer {issuer}", None, order_id, reason)])
    return life.order


async def _end_when_gone(request: Request, run: Run) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    run.end()
