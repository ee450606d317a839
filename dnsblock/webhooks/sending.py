"""One try to deliver an event: a signed POST, and what its response means."""

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dnsblock import https
from dnsblock.clock import utc_now
from dnsblock.orders.events import facts_of
from dnsblock.orders.records import Record
from dnsblock.retries import retry_after_seconds
from dnsblock.standard_webhooks import headers

if TYPE_CHECKING:
    import httpx

DRAIN_SECONDS = 1.0  # for the body of a response, which does not matter
MAX_DRAINED_BYTES = 64 << 10

Reason = Literal[
    "unreachable",
    "tls",
    "timeout",
    "protocol",
    "unreadable",
    "status",
    "redirect",
    "rejected",
    "gone",
    "internal",
]
_REJECTED = frozenset({400, 413, 415, 422})  # another event may be accepted


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an event was not delivered."""

    reason: Reason
    text: str  # for the operator
    retry_after: float | None = None  # seconds, as the server asks


def body_of(record: Record, origin: str) -> bytes:
    """The body for an event. `origin`: the name of the ledger. Its `data` is that of `GET /v1/events`."""
    content = {
        "type": f"order.{record.kind}",
        "timestamp": record.at.isoformat(),
        "origin": origin,
        "data": facts_of(record),
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


async def post(
    client: "httpx.AsyncClient", url: str, event_id: str, body: bytes, secrets: Sequence[bytes]
) -> Failure | None:
    """Sends an event; None if the server has accepted it. Raises `Unreachable`."""
    signed = headers(event_id, int(time.time()), body, secrets)
    sent = {"Content-Type": "application/json", **signed}
    with https.explained():
        async with (
            asyncio.timeout(https.SECONDS),
            client.stream("POST", url, content=body, headers=sent) as response,
        ):
            await _drain(response)
            return _failure(response.status_code, response.headers.get("retry-after", ""))


async def _drain(response: "httpx.Response") -> None:
    """Reads a short body, so that the connection can be used again. Otherwise it is closed."""
    import httpx

    with contextlib.suppress(httpx.HTTPError, OSError, ValueError, TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            size = 0
            async for part in response.aiter_raw():
                size += len(part)
                if size > MAX_DRAINED_BYTES:
                    return


def _failure(status: int, retry_after: str) -> Failure | None:
    """The meaning of a status. Standard Webhooks, "Delivery success and failure"."""
    if 200 <= status < 300:
        return None
    text = f"HTTP {status}"
    if status == 410:
        return Failure("gone", text)
    if 300 <= status < 400:
        return Failure("redirect", f"{text}: redirects are not followed: configure the final URL")
    if status in _REJECTED:
        return Failure("rejected", text)
    return Failure("status", text, retry_after_seconds(retry_after, utc_now()))
