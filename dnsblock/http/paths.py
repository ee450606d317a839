"""Paths with percent-encoded segments: the number of an order may contain a slash (`84%2F2017`)."""

from urllib.parse import unquote

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from dnsblock.http.answers import ApiError


class RawPath:
    """Routes by the path as it was sent. Servers decode it before, which would split such a segment."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["raw_path"].decode("latin-1")}
        await self._app(scope, receive, send)


def order_in(request: Request) -> tuple[str, str]:
    """The issuer and the number of the order in a path. Raises `ApiError`."""
    try:
        issuer, number = (unquote(request.path_params[key], errors="strict") for key in ("issuer", "number"))
    except UnicodeDecodeError as err:
        raise ApiError(400, "MALFORMED", "the path is not UTF-8") from err
    return issuer, number
