"""Asks the running daemon over its Unix socket; every command but `serve` and `check` speaks through here.

A person waits for each command, and a health check starts one every half a minute: what takes long to import
(pydantic, httpx) is not needed here.
"""

import contextlib
import json
import socket
import struct
from http.client import HTTPConnection, HTTPException, HTTPResponse, RemoteDisconnected
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from dnsblock.errors import DaemonUnreachable, PartlyRefused, Problem, Refused, printable

MAX_TRIED_BYTES = 64 << 20  # of an order document or a list that `impact` is asked about
MAX_SUBMITTED_BYTES = 320 << 20  # of documents and their entries files, sent at once
MAX_SUBMITTED_DOCUMENTS = 1000
MAX_SERIAL = (1 << 32) - 1  # of an SOA record
# Half a second is usual; a machine that is short of memory or of processor time may need many of them.
TIMEOUT_SECONDS = 30.0
# For what compiles lists or searches the past: a list of ten million names takes a while.
LONG_TIMEOUT_SECONDS = 600.0
BUSY_SECONDS = 2.0  # for the question what a daemon that does not answer is busy with


class Client:
    """Speaks to the daemon whose control socket is at `path`. Raises `DaemonUnreachable`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def status(self) -> dict[str, Any]:
        """What is enforced and how the daemon is doing."""
        return self._ask("GET", "/v1/status")

    def reload(self) -> dict[str, Any]:
        """Publishes; returns what is served then. Raises `Refused` with every problem."""
        return self._ask("POST", "/v1/reload", timeout=LONG_TIMEOUT_SECONDS)

    def submit(self, documents: list[tuple[str, bytes, bytes | None]]) -> dict[str, Any]:
        """Sends order documents: the name of each file, its bytes, and those of its entries file."""
        manifest = [
            {"file": file, "document": len(data), "entries": None if entries is None else len(entries)}
            for file, data, entries in documents
        ]
        parts = [part for _, data, entries in documents for part in (data, entries or b"")]
        content = b"".join([json.dumps(manifest).encode(), b"\n", *parts])
        return self._ask("POST", "/v1/orders", content=content, timeout=LONG_TIMEOUT_SECONDS)

    def annul(self, issuer: str, order_id: str, reason: str) -> dict[str, Any]:
        """Ends what an order put in force. Raises `Refused`."""
        params = {"issuer": issuer, "order_id": order_id, "reason": reason}
        return self._ask("POST", "/v1/orders/annul", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def work(self) -> dict[str, Any]:
        """What the daemon is at that a person may wait for."""
        return self._ask("GET", "/v1/work")

    def why(self, name: str, at: str | None = None) -> dict[str, Any]:
        """Why a name is blocked, or is not; or was, at a time."""
        params = {"name": name} if at is None else {"name": name, "at": at}
        return self._ask("GET", "/v1/why", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def sources(self) -> dict[str, Any]:
        """Each list, and how it fares."""
        return self._ask("GET", "/v1/sources")

    def refresh(self, zone: str) -> dict[str, Any]:
        """Fetches or reads a list now, and publishes it. Raises `Refused`."""
        return self._ask("POST", f"/v1/sources/{quote(zone)}/refresh", timeout=LONG_TIMEOUT_SECONDS)

    def accept(self, zone: str, sha256: str, reason: str) -> dict[str, Any]:
        """Takes a text that was refused. Raises `Refused`."""
        params = {"sha256": sha256, "reason": reason}
        path = f"/v1/sources/{quote(zone)}/accept"
        return self._ask("POST", path, params=params, timeout=LONG_TIMEOUT_SECONDS)

    def versions(self, zone: str | None) -> dict[str, Any]:
        """The snapshots that were served, or the versions of a list."""
        params = {} if zone is None else {"zone": zone}
        return self._ask("GET", "/v1/versions", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def diff(self, a: int, b: int, limit: int) -> dict[str, Any]:
        """What serial b enforces otherwise than serial a. Raises `Refused`."""
        params = {"a": str(a), "b": str(b), "limit": str(limit)}
        return self._ask("GET", "/v1/diff", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def history(self, name: str) -> dict[str, Any]:
        """What happened to a name."""
        return self._ask("GET", "/v1/history", params={"name": name}, timeout=LONG_TIMEOUT_SECONDS)

    def roll_back(self, serial: int, reason: str) -> dict[str, Any]:
        """Goes back to the lists of a serial. Raises `Refused`."""
        params = {"serial": str(serial), "reason": reason}
        return self._ask("POST", "/v1/rollback", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def accept_restore(self, reason: str) -> dict[str, Any]:
        """Accepts the ledger, or the clock, as it is, and publishes. Raises `Refused`."""
        params = {"reason": reason}
        return self._ask("POST", "/v1/log/accept-restore", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def purge(self, name: str | None, *, below: bool) -> dict[str, Any]:
        """Drops what is kept of upstreams' answers about a name, or, for None, everything."""
        params = {} if name is None else {"name": name, "below": "true" if below else "false"}
        return self._ask("POST", "/v1/cache/purge", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def impact(
        self, file: str, data: bytes, *, match: str | None, zone: str | None, seconds: int, top: int
    ) -> dict[str, Any]:
        """Counts what an order document or a list would block. Raises `Refused` with every problem."""
        params = {"file": file, "seconds": str(seconds), "top": str(top)}
        params |= {} if match is None else {"match": match}
        params |= {} if zone is None else {"zone": zone}
        timeout = seconds + LONG_TIMEOUT_SECONDS
        return self._ask("POST", "/v1/impact", params=params, content=data, timeout=timeout)

    def impact_progress(self) -> dict[str, Any] | None:
        """What is counted so far, if anything is tried."""
        running: dict[str, Any] | None = self._ask("GET", "/v1/impact")["running"]
        return running

    def end_impact(self) -> None:
        """Ends what is tried before its time; whoever asked for it is told what was counted."""
        self._ask("DELETE", "/v1/impact")

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        content: bytes | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        target = f"{path}?{urlencode(params)}" if params else path
        try:
            with contextlib.closing(_Connection(self._path, timeout)) as connection:
                # Who refuses a body need not read all of it; what he says is there all the same.
                with contextlib.suppress(BrokenPipeError):
                    connection.request(method, target, body=content)
                response = connection.getresponse()
                answer = _read(response)
        except TimeoutError as err:
            raise DaemonUnreachable(
                f"the daemon at {self._path} did not answer within {timeout:g} s: it is busy{self._work()}; "
                "try again, or see its log"
            ) from err
        except (OSError, HTTPException, ValueError, RecursionError) as err:
            raise DaemonUnreachable(self._why_unreachable(err)) from err
        if _is_success(response):
            return answer
        why = answer.get("reason")
        if 400 <= response.status < 500 and isinstance(why, str):
            raise Refused([Problem("dnsblock", None, "", why)])
        failure = f"failed to answer (HTTP {response.status}): {why or answer}"
        raise DaemonUnreachable(printable(f"the daemon at {self._path} {failure}"))

    def _work(self) -> str:
        """What a daemon is busy with that did not answer in time, as far as it says so."""
        # Whatever goes wrong here is less than what is told already.
        with contextlib.suppress(
            OSError, HTTPException, ValueError, RecursionError, Refused, LookupError, TypeError
        ):
            with contextlib.closing(_Connection(self._path, BUSY_SECONDS)) as connection:
                connection.request("GET", "/v1/work")
                work = _read(connection.getresponse())
            fetching = [f"fetching list {printable(str(zone))}" for zone in work["fetching"]]
            reading = [] if work["reading"] is None else ["reading lists"]
            if doing := ", ".join([*fetching, *reading]):
                return f" with {doing}"
        return ""

    def _why_unreachable(self, err: Exception) -> str:
        match err:
            case FileNotFoundError() | ConnectionRefusedError():
                reason, advice = "no daemon answers here", "start it, or give its configuration with -c"
            case PermissionError():
                reason, advice = "may not be opened", "run this as root, or as the user of dnsblock"
            case ConnectionError() | RemoteDisconnected():
                reason, advice = "the daemon closed the connection", "see its log, and whether it still runs"
            case OSError():
                reason, advice = "cannot be asked", "see that `control` names the socket of the daemon"
            case _:
                reason = "what answers here is not dnsblock, or is another version of it"
                advice = "restart the daemon, or give its configuration with -c"
        return printable(f"{self._path}: {reason} ({err}): {advice}")


class _Connection(HTTPConnection):
    """One to a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("dnsblock", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Blocking, with the kernel's timeout: otherwise a queue of other clients is an error (EAGAIN).
        waits = struct.pack("@ll", int(self.timeout or 0), int((self.timeout or 0) % 1 * 1e6))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, waits)
        try:
            self.sock.connect(str(self._path))
        except BlockingIOError as err:
            raise TimeoutError("too many others connect") from err
        self.sock.settimeout(self.timeout)


def _is_success(response: HTTPResponse) -> bool:
    return 200 <= response.status < 300


def _read(response: HTTPResponse) -> dict[str, Any]:
    """What a daemon says. Raises `ValueError` for what no daemon would say; `Refused` where it refuses."""
    match json.loads(response.read()):
        case {"problems": [*problems], "served": dict(served)} if not _is_success(response):
            raise PartlyRefused([_problem(said) for said in problems], served)
        case {"problems": [*problems]} if not _is_success(response):
            raise Refused([_problem(said) for said in problems])
        case dict(answer):
            return answer
    raise ValueError("something else than dnsblock answers")


def _problem(said: Any) -> Problem:
    match said:
        case {"file": str(file), "line": int() | None as line, "value": str(value), "reason": str(reason)}:
            return Problem(file, line, value, reason)
    raise ValueError("something else than dnsblock answers")
