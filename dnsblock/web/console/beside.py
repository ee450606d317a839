"""The console on the listener of the issuers' API, if the configuration puts it there."""

from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from dnsblock.http.control import Control

BASE = "/console"  # all its paths begin with it


class BesideApi:
    """The issuers' API, and below /console the console. `make` makes it at its first request."""

    def __init__(self, control: Control, api: ASGIApp, make: Callable[[], Any]) -> None:
        self._control, self._api, self._make = control, api, make
        self._console: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        options, path = self._control.config.console, scope.get("path", "")
        is_here = options is not None and options.listen is None
        if is_here and (path == BASE or path.startswith(f"{BASE}/")):
            self._console = self._console or self._make()
            await self._console(scope, receive, send)
        else:
            await self._api(scope, receive, send)
