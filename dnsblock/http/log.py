"""The control API for the ledger."""

from typing import Annotated

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dnsblock.errors import Refused
from dnsblock.http.answers import asked, principal_of, refused, served
from dnsblock.http.control import Control


class AcceptRestore(BaseModel):
    """The query of POST /v1/log/accept-restore."""

    reason: Annotated[str, Field(min_length=1, max_length=1000)]


def log_routes(control: Control) -> list[Route]:
    """The routes for the ledger."""

    async def post_accept_restore(request: Request) -> JSONResponse:
        """Responds when publishing has resumed."""
        reason = asked(request, AcceptRestore).reason
        try:
            return served(await control.actions.accept_restore(await principal_of(request), reason))
        except Refused as err:
            return refused(err)

    return [Route("/v1/log/accept-restore", post_accept_restore, methods=["POST"])]
