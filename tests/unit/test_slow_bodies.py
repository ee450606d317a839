"""The time that a client of the issuers' API has for a body, with shorter limits than the real ones."""

import asyncio
import hashlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dnsblock.access import ApiAccess, ApiClient
from dnsblock.http import connections
from dnsblock.http.issuers import Gate, issuers_app
from dnsblock.http.server import serve
from dnsblock.tls import server_context

from .https_server import Authority

TOKEN = "a-token"
TIMEOUT = 45.0
FORM = b'--b\r\nContent-Disposition: form-data; name="other"; filename="f"\r\n\r\n'


def head(size: int, token: str = TOKEN) -> bytes:
    return (
        f"POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {size}\r\n\r\n"
    ).encode()


def answered(
    folder: Path, talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]], code: str
) -> bytes:
    """The bytes that a client receives in a conversation with the API, which counts this refusal."""
    authority = Authority(folder / "ca")
    client = ApiClient(
        name="client",
        sha256=hashlib.sha256(TOKEN.encode()).hexdigest(),
        roles=("submit",),
        issuers=("a.example",),
    )
    access = ApiAccess(server_context(*authority.issue("server"), None), (client,), {})
    gate = Gate(access, 8)
    trusting = ssl.create_default_context(cafile=authority.pem)

    async def run() -> bytes:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            app = issuers_app(cast(Any, SimpleNamespace()), gate)
            async with serve(app, sock, gate.connections):
                place = sock.getsockname()
                async with asyncio.timeout(TIMEOUT):
                    reader, writer = await asyncio.open_connection(*place, ssl=trusting)
                    try:
                        return await talk(reader, writer)
                    finally:
                        writer.transport.abort()

    received = asyncio.run(run())
    assert gate.refused[code] == 1
    return received


def test_a_body_that_stops_is_refused_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """408, not a closed connection: the sender must see that the link is too slow."""
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.3)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(head(1000) + FORM)
        return await reader.readuntil(b'"TOO_SLOW"')

    assert answered(tmp_path, talk, "TOO_SLOW").startswith(b"HTTP/1.1 408 ")


def test_a_large_body_has_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A second for each 64 KiB: an order with 100,000 names arrives over a slow link, too."""
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(connections, "SLOWEST_BYTES", 100)
    body = FORM + bytes(2000) + b"\r\n--b--\r\n"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(head(len(body)) + body[:1000])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await reader.read(1)
        writer.write(body[1000:])
        return await reader.readuntil(b"unknown part")

    assert answered(tmp_path, talk, "MALFORMED").startswith(b"HTTP/1.1 400 ")


def test_a_stranger_has_no_time_for_a_large_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """401 before the body is read; then the connection is closed, however much is announced."""
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(connections, "SLOWEST_BYTES", 1)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(head(1_000_000, "another"))
        answer = await reader.readuntil(b"UNAUTHENTICATED")
        writer.write(FORM)
        with suppress(ConnectionError):
            while await reader.read(1000):
                pass
        return answer

    assert answered(tmp_path, talk, "UNAUTHENTICATED").startswith(b"HTTP/1.1 401 ")
