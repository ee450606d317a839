"""A small witness (C2SP tlog-witness) and a server that stores what is PUT. Imports nothing of dnsblock.

It verifies the log's signature and the consistency proof before it cosigns, as a real witness does.
"""

import base64
import hashlib
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def roots(m: int, n: int, proof: list[bytes], old: bytes, *, is_root: bool = True) -> tuple[bytes, bytes]:
    """The old and the new root that a proof leads to: SUBPROOF of RFC 6962, section 2.1.2, read backwards."""
    if m == n:
        return (old, old) if is_root else (proof[0], proof.pop(0))
    k = 1 << (n - 1).bit_length() - 1
    sibling = proof.pop()
    if m <= k:
        before, after = roots(m, k, proof, old, is_root=is_root)
        return before, node(after, sibling)
    before, after = roots(m - k, n - k, proof, old, is_root=False)
    return node(sibling, before), node(sibling, after)


class Witness:
    """Knows logs by their vkeys. `cosigned` is the last size and root for each origin."""

    def __init__(self, name: str = "witness.example/w1") -> None:
        self.name = name
        self.key = Ed25519PrivateKey.generate()
        self.public = self.key.public_key().public_bytes_raw()
        self.logs: dict[str, bytes] = {}  # origin: public key
        self.cosigned: dict[str, tuple[int, bytes]] = {}
        self.time = 1_700_000_000

    @property
    def vkey(self) -> str:
        data = base64.b64encode(b"\4" + self.public).decode()
        return f"{self.name}+{key_id(self.name, 4, self.public).hex()}+{data}"

    def trust(self, vkey: str) -> None:
        """Adds a log."""
        name, _, data = vkey.split("+", 2)
        self.logs[name] = base64.b64decode(data)[1:]

    def add_checkpoint(self, body: bytes) -> tuple[int, str, bytes]:
        """Status, media type and body of the response."""
        head, _, note = body.partition(b"\n\n")
        old_line, *proof_lines = head.decode().split("\n")
        text, _, signatures = note.decode().rpartition("\n\n")
        text += "\n"
        origin, size_line, root_line = text.split("\n")[:3]
        old, size, root = int(old_line.removeprefix("old ")), int(size_line), base64.b64decode(root_line)
        if (public := self.logs.get(origin)) is None:
            return 404, "text/plain", b"unknown log\n"
        if not is_signed(origin, public, text, signatures):
            return 403, "text/plain", b"no valid signature\n"
        if old > size or len(proof_lines) > 63:
            return 400, "text/plain", b"old size is larger\n"
        known, known_root = self.cosigned.get(origin, (0, b""))
        if old != known or (old == size and known and root != known_root):
            return 409, "text/x.tlog.size", f"{known}\n".encode()
        if not is_consistent(old, size, [base64.b64decode(line) for line in proof_lines], known_root, root):
            return 422, "text/plain", b"not consistent\n"
        self.cosigned[origin] = (size, root)
        message = f"cosignature/v1\ntime {self.time}\n{text}".encode()
        data = key_id(self.name, 4, self.public) + self.time.to_bytes(8, "big") + self.key.sign(message)
        return 200, "text/plain", f"— {self.name} {base64.b64encode(data).decode()}\n".encode()


def is_signed(origin: str, public: bytes, text: str, signatures: str) -> bool:
    for line in signatures.splitlines():
        _, name, encoded = line.split(" ")
        data = base64.b64decode(encoded)
        if (name, data[:4]) == (origin, key_id(origin, 1, public)):
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(data[4:], text.encode())
            except InvalidSignature:
                return False
            return True
    return False


def is_consistent(old: int, size: int, proof: list[bytes], old_root: bytes, root: bytes) -> bool:
    if old in (0, size):
        return not proof
    try:
        found = roots(old, size, proof, old_root)
    except IndexError:
        return False
    return found == (old_root, root) and not proof


class Service:
    """Serves over HTTPS in a thread, until the end of the `with`: a witness, and PUT into `stored`."""

    def __init__(self, certificate: ssl.SSLContext, witness: Witness | None = None) -> None:
        self.stored: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, str, bytes]] = []  # what to respond instead, in order
        service = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 60

            def do_POST(self) -> None:
                body = self._body()
                if service.answers:
                    self._respond(*service.answers.pop(0))
                elif witness is None or not re.fullmatch(r"/(.*/)?add-checkpoint", self.path):
                    self._respond(404, "text/plain", b"")
                else:
                    self._respond(*witness.add_checkpoint(body))

            def do_PUT(self) -> None:
                body = self._body()
                if service.answers:
                    self._respond(*service.answers.pop(0))
                else:
                    service.stored[self.path] = body
                    self._respond(201, "text/plain", b"")

            def _body(self) -> bytes:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.requests.append((self.command, self.path, headers, body))
                return body

            def _respond(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that does not trust the certificate goes away

            def finish_request(self, request: object, client_address: object) -> None:
                wrapped = certificate.wrap_socket(request, server_side=True)  # type: ignore[arg-type]
                with wrapped:
                    super().finish_request(wrapped, client_address)  # type: ignore[arg-type]

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
