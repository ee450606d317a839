"""One HTTPS request to a witness, or to the server that stores checkpoints. Called in the event loop.

The server certificate is always verified. Everything is bounded: the time, and the size of the response.
"""

import asyncio
import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dnsblock import __version__, document
from dnsblock.errors import Refused, shown

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 10.0
SECONDS = 30.0  # for the whole exchange
MAX_RESPONSE_BYTES = 64 << 10
MAX_AUTHORIZATION_BYTES = 8192


class Unreachable(Exception):  # noqa: N818  # house style: named for what happened
    """A server gave no usable response; the message says why, for the operator."""


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
        """Sends a request to a path below the URL. Redirects are not followed. Raises `Unreachable`."""
        import httpx

        try:
            context = await asyncio.to_thread(ssl.create_default_context, cafile=self.ca)
        except (OSError, ssl.SSLError) as err:
            raise Unreachable(f"{self.ca}: no certificates in PEM format can be read ({err})") from err
        headers = {"User-Agent": f"dnsblock/{__version__}", "Content-Type": "text/plain; charset=utf-8"}
        if self.authorization is not None:
            headers["Authorization"] = await asyncio.to_thread(_authorization, self.authorization)
        timeout = httpx.Timeout(SECONDS, connect=CONNECT_SECONDS)
        try:
            async with asyncio.timeout(SECONDS), httpx.AsyncClient(verify=context, timeout=timeout) as client:
                target = self.url.rstrip("/") + "/" + path
                async with client.stream(method, target, content=content, headers=headers) as response:
                    return await _read(response)
        except (TimeoutError, httpx.TimeoutException) as err:
            raise Unreachable(f"no response within {SECONDS:g} s") from err
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as err:
            raise Unreachable(shown(_text_of(err))) from err


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
        raise Unreachable(str(err)) from err
    if not re.fullmatch(rb"[ -~]+", line):
        raise Unreachable(f"{path}: must contain one line of ASCII, such as `Bearer TOKEN`")
    return line.decode("ascii")


def _text_of(err: BaseException) -> str:
    """The innermost text: the libraries wrap the errors of TLS and of the system."""
    found = err
    while (below := found.__cause__ or found.__context__) is not None:
        found = below
    if isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    if isinstance(found, OSError) and not isinstance(found, ssl.SSLError) and (found.errno or 0) > 0:
        return os.strerror(found.errno or 0)
    return str(found) or str(err) or type(found).__name__
