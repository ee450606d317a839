"""The landing page of the daemon under test, and a client that sends it any bytes."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .harness import ORDERS_ZONE, TIMEOUT, Subject
from .orders import block
from .tools import wait_for

ORGANIZATION, SITE, CONTACT = "Example ISP", "landing.isp.example", "help@isp.example"
OPTIONS = {
    "listen": ["127.0.0.1:0"],
    "url": f"http://{SITE}",
    "organization": ORGANIZATION,
    "contact": f"mailto:{CONTACT}",
}
NUMBER = "84/2017"
BLOCKED = "blocked.example"
ORDER = block(
    NUMBER,
    [BLOCKED],
    category="gambling",
    legal_basis=["UU 11/2008 Pasal 40 ayat (2b)", "Permenkominfo 5/2020 Pasal 13"],
    reason={"id": "Perjudian daring", "en": "Online gambling"},
    contact="blokir@ministry.example",
    subject={"name": "Slot Ltd", "contact": "abuse@slot.example"},
    notices=[{"at": "2017-07-01T10:00:00+07:00", "by": "e-mail", "about": "remove the games"}],
    conditions={"id": "Permainan dihapus", "en": "The games are removed"},
)
LISTED = {"name": "malware", "list": "malware.txt", "answer": "sinkhole"}


@dataclass(frozen=True)
class Response:
    """A response; the names of its fields are in lower case."""

    status: int
    fields: dict[str, str]
    body: str

    @property
    def text(self) -> str:
        """The words of the page."""
        return re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", self.body, flags=re.S))


class Landing:
    """The landing page of a daemon."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def start(self, *, landing: dict | None = None, **config: object) -> "Landing":
        """Starts the daemon with an order, unless the configuration has others."""
        config = {"orders": [ORDER], "zones": [ORDERS_ZONE, LISTED]} | config
        lists = {"malware.txt": ["listed.example"]} | config.pop("lists", {})
        self.subject.start(landing=OPTIONS | (landing or {}), lists=lists, **config)
        self.wait_until_served()
        return self

    def wait_until_served(self) -> None:
        """The process answers, and the daemon answers its questions."""
        wait_for(lambda: self._status() == 421, "the landing page is served")

    def _status(self) -> int | None:
        try:
            return self.get("open.example").status
        except (AssertionError, OSError):
            return None

    @property
    def place(self) -> tuple[str, int]:
        host, port = self.subject.ready["landing"][0].rsplit(":", 1)
        return host, int(port)

    @contextmanager
    def connection(self, source: str = "127.0.0.1") -> Iterator[socket.socket]:
        with socket.create_connection(self.place, TIMEOUT, (source, 0)) as sock:
            yield sock

    def get(self, host: str, path: str = "/", *, method: str = "GET", **fields: str) -> Response:
        """One request on a connection of its own."""
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        return self.send(
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n".encode()
        )

    def order(self, number: str = NUMBER, issuer: str = "ministry.example", **fields: str) -> Response:
        """The page of an order."""
        return self.get(SITE, f"/order/{issuer}/{number.replace('/', '%2F')}", **fields)

    def send(self, request: bytes) -> Response:
        """The response to these bytes."""
        with self.connection() as sock:
            with suppress(ConnectionError):  # refused before all of it was sent
                sock.sendall(request)
            return read_all(sock)

    def metric(self, name: str, **labels: str) -> float:
        return self.subject.metrics().total(f"dnsblock_landing_{name}", **labels)

    # ------- Its process

    def processes(self) -> list[int]:
        """The processes of all landing pages that this daemon has started and that are alive."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
                parent = re.search(r"^PPid:\s+(\d+)$", (folder / "status").read_text(), re.MULTILINE)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"dnsblock.web.landing" in command and parent and int(parent[1]) == self.subject.process.pid:
                found.append(int(folder.name))
        return found

    @property
    def process(self) -> int:
        (only,) = self.processes()
        return only

    def kill(self) -> int:
        """kill -9 of the process; returns its number."""
        killed = self.process
        os.kill(killed, signal.SIGKILL)
        return killed


def read_all(sock: socket.socket) -> Response:
    """The one response until the server closes the connection."""
    data = b""
    try:
        while chunk := sock.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass  # it has not read what came after a refused request
    assert data, "the connection ended without a response"
    return parse(data)


def parse(data: bytes) -> Response:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert len(fields) == len(lines), lines
    return Response(int(first.split(" ")[1]), {k.lower(): v for k, v in fields.items()}, body.decode())
