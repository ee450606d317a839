"""The control API for impact runs: counts what an order or a list would block, and shows the progress."""

import asyncio
from typing import Annotated

from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dnsblock.client import MAX_TRIED_BYTES
from dnsblock.errors import Refused
from dnsblock.http.answers import asked, body, view_of
from dnsblock.http.control import Control, View
from dnsblock.policy.trial import MAX_SECONDS, MAX_TOP, Match, Turn


class Impact(BaseModel):
    """The query of POST /v1/impact."""

    file: Annotated[str, Field(max_length=4096)]
    seconds: Annotated[int, Field(ge=1, le=MAX_SECONDS)]
    top: Annotated[int, Field(ge=0, le=MAX_TOP)]
    match: Match | None = None
    zone: Annotated[str, Field(max_length=63)] | None = None


def impact_routes(control: Control) -> list[Route]:
    """`/v1/impact`: POST starts a trial, GET returns its progress, DELETE ends it early."""

    async def post_impact(request: Request) -> JSONResponse:
        """Takes an order document or a list as the body, and responds after the requested time.

        A client that disconnects ends the trial.
        """
        what, view = asked(request, Impact), await view_of(control, request)
        try:
            with view.trials.turn(what.file, what.seconds) as turn:
                return await _tried(view, request, what, turn)
        except Refused as err:
            return JSONResponse({"error": "refused", "problems": err.as_json()}, status_code=409)
        except ClientDisconnect:
            return JSONResponse({"error": "gone"}, status_code=400)  # the client has disconnected

    async def get_impact(request: Request) -> JSONResponse:
        """The counts so far of the running trial; null if none runs."""
        turn = (await view_of(control, request)).trials.running
        return JSONResponse({"running": None if turn is None else await asyncio.to_thread(turn.progress)})

    async def delete_impact(request: Request) -> JSONResponse:
        """Ends the running trial, if any. The client that started it gets the counts so far."""
        turn = (await view_of(control, request)).trials.running
        if turn is not None:
            turn.end()
        return JSONResponse({"ended": turn is not None})

    return [
        Route("/v1/impact", post_impact, methods=["POST"]),
        Route("/v1/impact", get_impact),
        Route("/v1/impact", delete_impact, methods=["DELETE"]),
    ]


async def _tried(view: View, request: Request, what: Impact, turn: Turn) -> JSONResponse:
    data = await body(request, what.file, MAX_TRIED_BYTES)
    watcher = asyncio.create_task(_end_when_gone(request, turn))
    try:
        compile_it = view.trials.compile
        tried = await asyncio.to_thread(compile_it, what.file, data, what.match, view.config, what.zone)
        return JSONResponse(dict(await turn.count(tried, what.top)))
    finally:
        watcher.cancel()


async def _end_when_gone(request: Request, turn: Turn) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    turn.end()
