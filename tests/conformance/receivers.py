"""Servers of issuers that receive webhooks. They verify signatures with another implementation."""

import base64
import json
import os
import secrets
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from standardwebhooks import Webhook
from unit.https_server import Authority

from .harness import ISSUER, Subject
from .tools import wait_for

Behaviour = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Delivery:
    """A request whose signature is valid."""

    id: str
    timestamp: int
    body: dict
    headers: dict[str, str]

    @property
    def kind(self) -> str:
        return self.body["data"]["kind"]

    @property
    def order_id(self) -> str:
        return self.body["data"]["order_id"]

    @property
    def n(self) -> int:
        return self.body["data"]["n"]


class Receiver:
    """Serves over HTTPS in a thread, until the end of the `with`. By default it accepts every event."""

    def __init__(self, certificate: ssl.SSLContext, secret: str | None = None, port: int = 0) -> None:
        self.secret = secret or new_secret()
        self.tries: list[Delivery] = []  # every valid request, whatever it was answered
        self.accepted: list[Delivery] = []  # those answered with 204
        self.invalid: list[str] = []  # why a request was not valid
        self.answers: deque[int | Behaviour] = deque()  # what to do instead, in order
        self.always: int | Behaviour = 204
        self.paths: list[str] = []
        self.judges_time = True  # a timestamp must be that of now, as Standard Webhooks advises
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 120

            def do_POST(self) -> None:
                receiver._received(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that does not trust the certificate goes away

            def finish_request(self, request: object, client_address: object) -> None:
                with certificate.wrap_socket(request, server_side=True) as wrapped:
                    super().finish_request(wrapped, client_address)

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def _received(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["Content-Length"])
        data = handler.rfile.read(length)
        if len(data) < length:
            return  # a daemon that was killed
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.paths.append(handler.path)
        try:
            body = self._verified(data, headers)
        except Exception as err:
            self.invalid.append(repr(err))
            answer(401)(handler)
            return
        delivery = Delivery(headers["webhook-id"], int(headers["webhook-timestamp"]), body, headers)
        self.tries.append(delivery)
        behaviour = self.answers.popleft() if self.answers else self.always
        if behaviour == 204:
            self.accepted.append(delivery)
        (answer(behaviour) if isinstance(behaviour, int) else behaviour)(handler)

    def _verified(self, data: bytes, headers: dict[str, str]) -> dict:
        """The body, if its signature is valid."""
        reference = Webhook(self.secret)
        if self.judges_time:
            return reference.verify(data, headers)
        at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert reference.sign(headers["webhook-id"], at, data.decode()) == headers["webhook-signature"]
        return json.loads(data)

    def url(self, path: str = "/events") -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    @property
    def kinds(self) -> list[str]:
        """The kinds of the accepted events."""
        return [one.kind for one in self.accepted]

    def wait_for_kind(self, kind: str, order_id: str | None = None) -> Delivery:
        """The first accepted event of a kind."""

        def found() -> list[Delivery]:
            return [one for one in self.accepted if one.kind == kind and order_id in (None, one.order_id)]

        wait_for(lambda: bool(found()), f"the event {kind} of {order_id}")
        return found()[0]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def answer(status: int, body: bytes = b"", **fields: str) -> Behaviour:
    """A response; `retry_after="7"` becomes a header."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in fields.items():
            handler.send_header(name.replace("_", "-"), value)
        if status != 204:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def raw(data: bytes) -> Behaviour:
    """Sends bytes that need not be HTTP, and closes the connection."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return behave


def dripping(begin: bytes, piece: bytes, pause: float) -> Behaviour:
    """A response that does not end: this piece again and again, until the client closes the connection."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.write(begin)
            while True:
                handler.wfile.write(piece)
                time.sleep(pause)

    return behave


class Held:
    """A response that comes only when it is released."""

    def __init__(self, then: Behaviour) -> None:
        self._then = then
        self.arrived, self._released = threading.Event(), threading.Event()

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        self.arrived.set()
        assert self._released.wait(300)
        self._then(handler)

    def release(self) -> None:
        self._released.set()


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def write_secrets(subject: Subject, name: str, *some: str) -> None:
    """The file of secrets of a webhook."""
    path = subject.folder / f"{name}.secret"
    partial = path.with_suffix(".tmp")
    partial.write_text("".join(f"{one}\n" for one in some))
    partial.chmod(0o600)
    partial.rename(path)


def webhook(
    subject: Subject,
    receiver: Receiver,
    authority: Authority,
    *,
    name: str = "ministry",
    issuer: str = ISSUER,
    path: str = "/events",
    **more: object,
) -> dict:
    """An item of the option `webhooks`; writes its files."""
    write_secrets(subject, name, receiver.secret)
    files = {"secret_file": f"{name}.secret", "ca": str(authority.pem)}
    return {"name": name, "issuer": issuer, "url": receiver.url(path), **files, **more}


def listed(subject: Subject, name: str = "ministry") -> dict:
    """The state of a webhook, as `dnsblock webhook list --json` prints it."""
    return next(one for one in subject.control.webhooks()["webhooks"] if one["name"] == name)


def events_in_ledger(subject: Subject, issuer: str = ISSUER) -> list[tuple[int, str]]:
    """Number and kind of each record of an issuer that is sent by default."""
    kinds = {"received", "accepted", "held", "approved", "refused", "annulled"}
    kinds |= {"activated", "verified", "lifted", "expired"}
    whole = (Path(subject.folder) / "state" / "ledger.jsonl").read_bytes().rpartition(b"\n")[0]
    records = [json.loads(line) for line in whole.splitlines()]  # the last one may be written just now
    return [
        (one["n"], one["kind"]) for one in records if one.get("issuer") == issuer and one["kind"] in kinds
    ]


def free_of(text: str, *values: str) -> bool:
    """Whether none of the secrets is in a text, with or without its prefix."""
    return not any(value.removeprefix("whsec_") in text for value in values)


def all_text(folder: Path) -> str:
    """Everything that is in files below a folder."""
    files = [Path(at) / name for at, _, names in os.walk(folder) for name in names]
    return "".join(path.read_bytes().decode("latin-1") for path in files)
