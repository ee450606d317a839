"""Pushes orders to the control socket, and measures the time until they are in force."""

import http.client
import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import processes

BOUNDARY = "end-of-part"
IN_FORCE_SECONDS = 60.0
LOOK_SECONDS = 0.001  # between two queries for the same name


class Pushed(NamedTuple):
    """Seconds after the request was sent."""

    in_force: float  # the first blocked answer
    response: float  # the verdicts


def push(
    control: Path, port: int, documents: Mapping[str, bytes], name: str, *, entries: bytes = b""
) -> Pushed:
    """Submits documents, by file name, and waits until a name is blocked. `entries`: of the last document.

    Raises `RuntimeError` if they are refused, or if the name is not blocked after a minute.
    """
    sent = Sent(control, documents, entries)
    for is_blocked in processes.looks(port, name, LOOK_SECONDS):
        if is_blocked:
            break
        if time.monotonic() - sent.began > IN_FORCE_SECONDS:
            raise RuntimeError(f"{name} is not blocked after {IN_FORCE_SECONDS:.0f} s")
    in_force = time.monotonic() - sent.began
    return Pushed(in_force, sent.response())


class Sent:
    """Documents, by file name, that were sent to the control socket at `began`."""

    def __init__(self, control: Path, documents: Mapping[str, bytes], entries: bytes = b"") -> None:
        parts = [_part("document", file, data) for file, data in documents.items()]
        parts += [_part("entries", "entries.txt", entries)] if entries else []
        body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
        self._connection = http.client.HTTPConnection("localhost")
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.connect(str(control))
        self.began = time.monotonic()
        self._connection.request(
            "POST", "/v1/orders", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        )

    def response(self) -> float:
        """Waits for the verdicts; the seconds until then. Raises `RuntimeError` if one is not `accepted`."""
        response = self._connection.getresponse()
        answer = response.read()
        seconds = time.monotonic() - self.began
        self._connection.close()
        verdicts: list[dict[str, Any]] = json.loads(answer).get("documents", [])
        if response.status >= 300 or any(one["verdict"] != "accepted" for one in verdicts):
            raise RuntimeError(f"an order is not accepted: {answer[:500].decode()}")
        return seconds


def _part(name: str, file: str, data: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n\r\n'
    return head.encode() + data + b"\r\n"
