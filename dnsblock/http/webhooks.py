"""The control API for webhooks: their state and dead letters, and sending events again."""

import logging

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dnsblock.errors import Refused
from dnsblock.http.answers import answer, asked, body, refused
from dnsblock.http.callers import Identify, view_of
from dnsblock.http.control import Control
from dnsblock.http.models_operations import Resent, Webhooks
from dnsblock.http.models_queries import ResendQuery
from dnsblock.log import event

MAX_IDS_BYTES = 1 << 20


def webhook_routes(control: Control, identify: Identify) -> list[Route]:
    """`/v1/webhooks` and `/v1/webhooks/resend`."""

    async def get_webhooks(request: Request) -> Response:
        view = await view_of(control, identify, request)
        facts = {"webhooks": list(view.webhooks.facts()), "time_zone": view.config.time_zone.key}
        return answer(Webhooks, facts)

    async def post_resend(request: Request) -> Response:
        """Responds when the events are in the queue."""
        by, resend = (await identify(request, "operate")).principal, asked(request, ResendQuery)
        try:
            ids = (await body(request, "ids", MAX_IDS_BYTES)).decode("utf-8", "replace").split()
            done = control.view(by).webhooks.resend(None if resend.all else ids, resend.webhook)
        except Refused as err:
            raise refused(err) from err
        for name in done["webhooks"]:
            event(logging.WARNING, f"webhook {name}: events are sent again", by=by)
        return answer(Resent, done)

    return [
        Route("/v1/webhooks", get_webhooks),
        Route("/v1/webhooks/resend", post_resend, methods=["POST"]),
    ]
