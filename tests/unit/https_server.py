"""An HTTPS server on loopback that misbehaves as scripted, with a certificate authority of its own.

A test passes the bytes to send, or a function that writes them. It gets a URL, and later the requests.
"""

import asyncio
import gzip
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Authority:
    """Makes certificates with the `openssl` command; `pem` is what to trust."""

    def __init__(self, folder: Path, days: int = 2) -> None:
        self._folder = folder
        folder.mkdir()
        self.pem = folder / "ca.pem"
        self._openssl(
            *("req", "-x509", *NEW_KEY, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority"),
            *("-days", str(days), "-addext", "keyUsage=critical,keyCertSign"),
        )

    def certificate(self, names: str = "DNS:localhost,IP:127.0.0.1", days: int = 2) -> ssl.SSLContext:
        """Of a server with these names; with no days it has expired already."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue("server", names, days))
        return context

    def issue(
        self, subject: str, names: str = "DNS:localhost,IP:127.0.0.1", days: int = 2
    ) -> tuple[Path, Path]:
        """The files of a new certificate and its key. They replace an earlier one of this subject."""
        extensions = "authorityKeyIdentifier=keyid\nbasicConstraints=CA:FALSE\n"
        extensions += f"subjectAltName={names}\n" if names else ""
        (self._folder / "extensions").write_text(extensions)
        key, request, certificate = (f"{subject}.{kind}" for kind in ("key", "csr", "pem"))
        self._openssl("req", *NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={subject}")
        self._openssl(
            *("x509", "-req", "-in", request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", str(days), "-extfile", "extensions", "-out", certificate),
        )
        return self._folder / certificate, self._folder / key

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self._folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


TLS_HANDSHAKE = b"\x16"  # RFC 8446, section 5.1
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Request:
    """The request of a client."""

    target: str
    headers: dict[str, str]  # names in lower case


class Server:
    """Serves in a thread of its own, until the end of the `with`. Without a certificate, in the clear."""

    def __init__(self, certificate: ssl.SSLContext | None) -> None:
        self._certificate = certificate
        self._behaviours: dict[str, Behaviour] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.requests: list[Request] = []  # the latest last

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=16))
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def serve(self, behaviour: bytes | Behaviour, target: str | None = None) -> str:
        """A new URL. Bytes are sent unchanged, and then the connection is closed."""
        path = target or f"/{len(self._behaviours)}.txt"
        self._behaviours[path] = sends(behaviour) if isinstance(behaviour, bytes) else behaviour
        return self.url(path)

    def url(self, path: str) -> str:
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self.port}{path}"

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    async def _close(self) -> None:
        for listening in self._server.sockets:
            self._loop.remove_reader(listening.fileno())
        await asyncio.sleep(0)  # clients accepted in this turn get a transport while the server is open
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
        self._server.close()
        await asyncio.sleep(0)  # closed transports give their sockets back in the next turn

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self._loop.create_task(self._answer(reader, writer))
        connection.add_done_callback(lambda _: writer.transport.abort())

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._certificate:  # here, where the end of the server reaches a handshake that does not end
                await writer.start_tls(self._certificate)
            first = await reader.readexactly(1)
            if first == TLS_HANDSHAKE:  # in the clear
                writer.write(head("400 Bad Request"))
                await writer.drain()
                return
            text = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            request_line, *lines = text.rstrip().split("\r\n")
            target = request_line.split(" ")[1]
            fields = (line.partition(":") for line in lines)
            self.requests.append(Request(target, {name.lower(): value.strip() for name, _, value in fields}))
            await self._behaviours.get(target.partition("?")[0], unknown)(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # a client that has seen enough goes away in the middle, which is what these tests want


def sends(raw: bytes) -> Behaviour:
    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return behave


async def unknown(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(whole(b"", "404 Not Found"))


def then_silent(raw: bytes) -> Behaviour:
    """Sends this, and nothing more until the client goes away."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        await reader.read()

    return behave


def for_ever(head: bytes, piece: bytes, pause: float = 0) -> Behaviour:
    """Sends the piece again and again, until the client goes away."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


def head(status: str = "200 OK", **fields: str) -> bytes:
    """Status line and headers; `content_type="x"` becomes `content-type: x`."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1")


def whole(body: bytes, status: str = "200 OK", **fields: str) -> bytes:
    """A response as it should be."""
    return head(status, content_length=str(len(body)), **fields) + body


def gzipped(body: bytes, **fields: str) -> bytes:
    return whole(gzip.compress(body, mtime=0), content_encoding="gzip", **fields)


def chunk(raw: bytes) -> bytes:
    """Of a body in chunks; an empty one ends it."""
    return f"{len(raw):x}\r\n".encode() + raw + b"\r\n"


def tunnels_to(port: int) -> Behaviour:
    """A CONNECT tunnel: passes bytes on in both directions."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head("200 Connection established"))
        await asyncio.gather(_pass_on(reader, to_writer), _pass_on(to_reader, writer))

    return behave


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while raw := await reader.read(1 << 16):
            writer.write(raw)
            await writer.drain()
    finally:
        writer.close()
