"""The two ways to reach a daemon: its control socket, and its HTTPS API. `dnsblock.client` uses them.

This module imports nothing slow (pydantic, httpx): a person waits for each command.
"""

import socket
import ssl
import struct
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPConnection, HTTPSConnection, RemoteDisconnected
from pathlib import Path
from urllib.parse import urlsplit

from dnsblock.errors import printable


class SocketConnection(HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("dnsblock", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Blocking, with a timeout of the kernel: a full backlog would be an error (EAGAIN) otherwise.
        waits = struct.pack("@ll", int(self.timeout or 0), int((self.timeout or 0) % 1 * 1e6))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, waits)
        try:
            self.sock.connect(str(self._path))
        except BlockingIOError as err:
            raise TimeoutError("too many other connections") from err
        self.sock.settimeout(self.timeout)


@dataclass(frozen=True)
class ControlSocket:
    """The control socket of a daemon on this server."""

    path: Path
    headers: dict[str, str] = field(default_factory=dict, init=False)

    def __str__(self) -> str:
        return str(self.path)

    def open(self, timeout: float) -> HTTPConnection:
        """A new connection, which connects at its first request."""
        return SocketConnection(self.path, timeout)

    def why_unreachable(self, err: Exception) -> str:
        """The reason why there is no response, with advice."""
        match err:
            case FileNotFoundError() | ConnectionRefusedError():
                reason, advice = "no daemon is listening", "start it, or give its configuration with -c"
            case PermissionError():
                reason = "permission denied"
                advice = "run this as root, as the user of dnsblock, or as a member of its group"
            case ConnectionError() | RemoteDisconnected():
                reason, advice = (
                    "the daemon closed the connection",
                    "see its log, and check that it is running",
                )
            case OSError():
                reason, advice = "cannot connect", "check that `control` is the socket of the daemon"
            case _:
                reason = "the response is not from dnsblock, or from another version of it"
                advice = "restart the daemon, or give its configuration with -c"
        cause = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
        return printable(f"{self.path}: {reason} ({cause}): {advice}")


@dataclass(frozen=True)
class Remote:
    """The HTTPS API of a daemon, and the credentials for it: a token, or a client certificate.

    Raises `ValueError` if the URL is not `https://HOST:PORT`. The files are read at the first request.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    certificate: Path | None = None  # PEM: of this client, followed by intermediate certificates
    key: Path | None = None  # PEM: the private key of `certificate`; None: it is in the same file
    ca: Path | None = None  # PEM: the authority of the server's certificate; None: those of the system

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"not the URL of an API, such as https://dns.isp.example:8443: {self.url}")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise ValueError("the token has a character that no token has")

    def __str__(self) -> str:
        return self.url

    @property
    def headers(self) -> dict[str, str]:
        """The credentials of each request."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    @cached_property
    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def open(self, timeout: float) -> HTTPConnection:
        """A new connection, which connects at its first request. Raises `OSError` for unreadable files."""
        parts = urlsplit(self.url)
        return HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=self._context)

    def why_unreachable(self, err: Exception) -> str:
        """The reason why there is no response, with advice."""
        match err:
            case ssl.SSLCertVerificationError():
                reason, advice = "its certificate is not valid", "name its authority with `ca`"
            case ssl.SSLError() | ConnectionResetError():
                reason = "the TLS connection failed"
                advice = "check the client certificate, and that this is the port of `api`"
            case ConnectionRefusedError():
                reason, advice = "nothing is listening", "check the address, and that `api` is configured"
            case OSError():
                reason, advice = (
                    "cannot connect",
                    "check the address, the files of credentials and the firewall",
                )
            case _:
                reason = "the response is not from dnsblock, or from another version of it"
                advice = "check the address"
        return printable(f"{self.url}: {reason} ({err}): {advice}")
