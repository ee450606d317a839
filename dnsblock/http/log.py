"""The handlers for the ledger."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dnsblock.http.answers import asked, changed
from dnsblock.http.callers import Identify
from dnsblock.http.control import Control
from dnsblock.http.models_queries import ReasonQuery


def log_routes(control: Control, identify: Identify) -> list[Route]:
    """`/v1/log/accept-restore`."""

    async def post_accept_restore(request: Request) -> Response:
        """Responds when publishing has resumed."""
        by, query = (await identify(request, "operate")).principal, asked(request, ReasonQuery)
        return await changed(control.actions.accept_restore(by, query.reason))

    return [Route("/v1/log/accept-restore", post_accept_restore, methods=["POST"])]
