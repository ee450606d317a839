"""HTTPS requests to a witness, to the server that stores checkpoints, and to receivers of webhooks.

The server certificate is always verified, and no redirect is followed. Everything is bounded: the time, and
the size of the response. Called in the event loop.
"""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dnsblock import __version__, document
from dnsblock.errors import Refused, shown

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 10.0
SECONDS = 30.0  # for the whole exchange
MAX_RESPONSE_BYTES = 64 << 10
MAX_AUTHORIZATION_BYTES = 8192

Kind = Literal["unreachable", "tls", "timeout", "protocol", "unreadable"]


class Unreachable(Exception):  # noqa: N818  # house style: named for what happened
    """A server gave no usable response; the message says why, for the operator.

    `kind` is for programs. `unreadable`: a file of our own that the request needs.
    """

    def __init__(self, text: str, kind: Kind = "unreachable") -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Response:
    """The response of a server."""

    status: int
    kind: str  # the media type
    body: bytes

    @property
    def text(self) -> str:
        """The beginning of the body, for messages."""
        return shown(self.body[:200].decode("utf-8", "replace").strip())


@dataclass(frozen=True, slots=True)
class Server:
    """A server, and how it is reached."""

    url: str  # a prefix; begins with https://
    ca: Path | None = None  # PEM; replaces the system trust store
    authorization: Path | None = None  # one line, the Authorization header

    async def send(self, method: str, path: str, content: bytes) -> Response:
        """Sends a request to a path below the URL. Raises `Unreachable`."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self.authorization is not None:
            headers["Authorization"] = await asyncio.to_thread(_authorization, self.authorization)
        target = self.url.rstrip("/") + "/" + path
        async with connected(self.ca) as client:
            with explained():
                async with (
                    asyncio.timeout(SECONDS),
                    client.stream(method, target, content=content, headers=headers) as response,
                ):
                    return await _read(response)


@asynccontextmanager
async def connected(ca: Path | None) -> AsyncIterator["httpx.AsyncClient"]:
    """A client that keeps its connection for several requests. Raises `Unreachable`.

    `ca` (PEM) replaces the system trust store. Proxies come from the environment (HTTPS_PROXY, NO_PROXY).
    Use the client in `explained()`.
    """
    import httpx

    try:
        context = await asyncio.to_thread(ssl.create_default_context, cafile=ca)
    except (OSError, ssl.SSLError) as err:
        raise Unreachable(f"{ca}: no certificates in PEM format can be read ({err})", "unreadable") from err
    with explained():
        client = httpx.AsyncClient(
            verify=context,
            timeout=httpx.Timeout(SECONDS, connect=CONNECT_SECONDS),
            headers={"User-Agent": f"dnsblock/{__version__}"},
        )
    async with client:
        yield client


@contextmanager
def explained() -> Iterator[None]:
    """Turns the errors of a request into `Unreachable`."""
    import httpx

    try:
        yield
    except (TimeoutError, httpx.TimeoutException) as err:
        raise Unreachable(f"no response within {SECONDS:g} s", "timeout") from err
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as err:
        found = _innermost(err)
        kind: Kind = "unreachable"
        if isinstance(found, ssl.SSLError):
            kind = "tls"
        elif isinstance(err, httpx.ProtocolError | httpx.DecodingError | ValueError):
            kind = "protocol"
        raise Unreachable(shown(_text_of(found) or str(err) or type(found).__name__), kind) from err


async def _read(response: "httpx.Response") -> Response:
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MAX_RESPONSE_BYTES:
            raise ValueError(f"the response is larger than {MAX_RESPONSE_BYTES:,} bytes")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return Response(response.status_code, kind, body)


def _authorization(path: Path) -> str:
    """Reads the header for each request: a new token needs no reload. It is never shown, even if invalid."""
    try:
        line = document.read_bytes(path, max_bytes=MAX_AUTHORIZATION_BYTES).strip()
    except Refused as err:
        raise Unreachable(str(err), "unreadable") from err
    if not re.fullmatch(rb"[ -~]+", line):
        reason = "must contain one line of ASCII, such as `Bearer TOKEN`"
        raise Unreachable(f"{path}: {reason}", "unreadable")
    return line.decode("ascii")


def _innermost(err: BaseException) -> BaseException:
    """The cause: the libraries wrap the errors of TLS and of the system."""
    found = err
    while (below := found.__cause__ or found.__context__) is not None:
        found = below
    return found.exceptions[0] if isinstance(found, BaseExceptionGroup) else found


def _text_of(err: BaseException) -> str:
    if isinstance(err, OSError) and not isinstance(err, ssl.SSLError) and (err.errno or 0) > 0:
        return os.strerror(err.errno or 0)
    return str(err)
