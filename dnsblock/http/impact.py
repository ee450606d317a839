"""What the control API offers of trials: count what an order or a list would block, and see how far it is."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query
from fastapi.requests import Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from dnsblock.client import MAX_TRIED_BYTES
from dnsblock.errors import Problem, Refused
from dnsblock.policy.impact import MAX_SECONDS, MAX_TOP, Match, Turn

if TYPE_CHECKING:
    from dnsblock.daemon import Daemon

BODY_SECONDS = 60.0  # for 64 MiB over a socket of this machine


def add_impact(app: FastAPI, daemon: "Daemon") -> None:
    """Adds `/v1/impact`: POST tries, GET tells how far it is, DELETE ends it before its time."""

    @app.post("/v1/impact")
    async def post_impact(  # noqa: PLR0917  # FastAPI gives them by keyword
        request: Request,
        file: Annotated[str, Query(max_length=4096)],
        seconds: Annotated[int, Query(ge=1, le=MAX_SECONDS)],
        top: Annotated[int, Query(ge=0, le=MAX_TOP)],
        match: Match | None = None,
        zone: Annotated[str | None, Query(max_length=63)] = None,
    ) -> JSONResponse:
        """Takes an order document or a list as the body, and answers when it was tried for so long.

        Who hangs up before ends it.
        """
        try:
            with daemon.trials.turn(file, seconds) as turn:
                data = await _body(request, file)
                watcher = asyncio.create_task(_end_when_gone(request, turn))
                try:
                    compile_it = daemon.trials.compile
                    tried = await asyncio.to_thread(compile_it, file, data, match, daemon.config, zone)
                    return JSONResponse(dict(await turn.count(tried, top)))
                finally:
                    watcher.cancel()
        except Refused as err:
            return JSONResponse({"error": "refused", "problems": err.as_json()}, status_code=409)
        except ClientDisconnect:
            return JSONResponse({"error": "gone"}, status_code=400)  # to nobody

    @app.get("/v1/impact")
    async def get_impact() -> JSONResponse:
        """What was counted so far of the trial that runs; null where none does."""
        turn = daemon.trials.running
        return JSONResponse({"running": None if turn is None else await asyncio.to_thread(turn.progress)})

    @app.delete("/v1/impact")
    async def delete_impact() -> dict[str, Any]:
        """Ends the trial that runs, if one does; whoever began it is told what was counted."""
        turn = daemon.trials.running
        if turn is not None:
            turn.end()
        return {"ended": turn is not None}


async def _body(request: Request, file: str) -> bytes:
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                data += part
                if len(data) > MAX_TRIED_BYTES:
                    raise Refused([Problem(file, None, "", f"larger than {MAX_TRIED_BYTES:,} octets")])
    except TimeoutError as err:
        reason = f"did not come within {BODY_SECONDS:.0f} seconds"
        raise Refused([Problem(file, None, "", reason)]) from err
    return bytes(data)


async def _end_when_gone(request: Request, turn: Turn) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    turn.end()
