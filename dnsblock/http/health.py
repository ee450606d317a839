"""Health checks for Kubernetes, systemd and keepalived: `/livez` and `/readyz`, without credentials.

The JSON is that of draft-inadarei-api-health-check.
"""

import asyncio
import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dnsblock.http.answers import refusals
from dnsblock.http.control import Control
from dnsblock.http.models_status import Health
from dnsblock.principal import DAEMON
from dnsblock.probe.messages import Question
from dnsblock.probe.queries import Client, Limits, Server

MEDIA_TYPE = "application/health+json"
ANSWER_SECONDS = 1.0  # that a check is valid: no crowd of health checks becomes a flood of queries
QUESTION = Question("localhost", "A")  # no upstream is needed for it (RFC 6761)
LIMITS = Limits(timeout_s=1.0, tries=2)


def health_routes(control: Control) -> list[Route]:
    """`/livez` and `/readyz`."""
    readiness = Readiness(control)

    async def get_livez(_: Request) -> Response:
        """The process responds. If a worker thread ends, the process exits."""
        return _response("")

    async def get_readyz(_: Request) -> Response:
        """Queries are answered by a policy."""
        return _response(await readiness.failure())

    return [Route("/livez", get_livez), Route("/readyz", get_readyz)]


def with_health(control: Control, metrics: ASGIApp, count_refused: Callable[[str], None]) -> ASGIApp:
    """The application behind the metrics listener: health checks beside the metrics."""
    return Starlette(
        routes=[*health_routes(control), Route("/metrics", metrics, methods=["GET"])],
        exception_handlers=refusals(count_refused),
    )


def _response(failure: str) -> Response:
    health = Health(status="fail", output=failure) if failure else Health(status="pass")
    content = health.model_dump_json(exclude_unset=True)
    headers = {"cache-control": "no-store"}
    return Response(content, 503 if failure else 200, headers=headers, media_type=MEDIA_TYPE)


class Readiness:
    """Whether queries are answered by a policy. One check at a time."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._checking = asyncio.Lock()
        self._last = ""
        self._until = 0.0

    async def failure(self) -> str:
        """The reason why this instance is not ready; empty if it is."""
        publisher = self._control.view(DAEMON).publisher
        if publisher.is_stopping:
            return "the daemon is stopping"
        if not publisher.entries and (publisher.lists.missing or not publisher.last_publish.ok):
            return (
                "nothing is enforced: a list has no version, or the last publish failed (`dnsblock status`)"
            )
        async with self._checking:
            if time.monotonic() >= self._until:
                self._last = await self._unanswered()
                self._until = time.monotonic() + ANSWER_SECONDS
        return self._last

    async def _unanswered(self) -> str:
        """Queries each listen address, as the scheduled probes do."""
        async with Client(LIMITS) as client:
            servers = [client.server(Server.own(one)) for one in self._control.view(DAEMON).listening]
            results = await asyncio.gather(*(server.ask(QUESTION, "udp") for server in servers))
        if any(result.reply is None for result in results):
            return "a listen address does not answer queries"
        return ""
