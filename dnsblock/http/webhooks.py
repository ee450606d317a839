"""The control API for webhooks: their state and dead letters, and sending events again."""

import logging
from typing import Annotated

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dnsblock.errors import Refused
from dnsblock.http.answers import asked, body, principal_of, refused, view_of
from dnsblock.http.control import Control
from dnsblock.log import event

MAX_IDS_BYTES = 1 << 20


class Resend(BaseModel):
    """The query of POST /v1/webhooks/resend. The body has the ids of events, one per line."""

    all: bool = False  # all dead letters
    webhook: Annotated[str, Field(max_length=63)] | None = None


def webhook_routes(control: Control) -> list[Route]:
    """`/v1/webhooks` and `/v1/webhooks/resend`."""

    async def get_webhooks(request: Request) -> JSONResponse:
        view = await view_of(control, request)
        return JSONResponse({"webhooks": list(view.webhooks.facts()), "time_zone": view.config.time_zone.key})

    async def post_resend(request: Request) -> JSONResponse:
        """Responds when the events are in the queue."""
        resend, by = asked(request, Resend), await principal_of(request)
        try:
            ids = (await body(request, "ids", MAX_IDS_BYTES)).decode("utf-8", "replace").split()
            done = control.view(by).webhooks.resend(None if resend.all else ids, resend.webhook)
        except Refused as err:
            return refused(err)
        for name in done["webhooks"]:
            event(logging.WARNING, f"webhook {name}: events are sent again", by=by)
        return JSONResponse(done)

    return [
        Route("/v1/webhooks", get_webhooks),
        Route("/v1/webhooks/resend", post_resend, methods=["POST"]),
    ]
