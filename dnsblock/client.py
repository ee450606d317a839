"""Asks the running daemon over its Unix socket; every command but `serve` and `check` speaks through here.

A person waits for each command, and a health check starts one every half a minute: what takes long to import
(pydantic, httpx) is not needed here.
"""

import contextlib
import json
import socket
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from dnsblock.errors import DaemonUnreachable, Problem, Refused

MAX_TRIED_BYTES = 64 << 20  # of an order document or a list that `impact` is asked about
TIMEOUT_SECONDS = 10.0
# A reload answers when the new snapshot is served; a list of ten million names takes a while.
RELOAD_TIMEOUT_SECONDS = 600.0


class Client:
    """Speaks to the daemon whose control socket is at `path`. Raises `DaemonUnreachable`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def status(self) -> dict[str, Any]:
        """What is enforced and how the daemon is doing."""
        return self._ask("GET", "/v1/status")

    def reload(self) -> dict[str, Any]:
        """Publishes; returns what is served then. Raises `Refused` with every problem."""
        return self._ask("POST", "/v1/reload", timeout=RELOAD_TIMEOUT_SECONDS)

    def work(self) -> dict[str, Any]:
        """What the daemon is at that a person may wait for."""
        return self._ask("GET", "/v1/work")

    def why(self, name: str, at: str | None = None) -> dict[str, Any]:
        """Why a name is blocked, or is not; or was, at a time."""
        params = {"name": name} if at is None else {"name": name, "at": at}
        return self._ask("GET", "/v1/why", params=params)

    def sources(self) -> dict[str, Any]:
        """Each list, and how it fares."""
        return self._ask("GET", "/v1/sources")

    def refresh(self, zone: str) -> dict[str, Any]:
        """Fetches or reads a list now, and publishes it. Raises `Refused`."""
        return self._ask("POST", f"/v1/sources/{quote(zone)}/refresh", timeout=RELOAD_TIMEOUT_SECONDS)

    def accept(self, zone: str, sha256: str, *, who: str, reason: str) -> dict[str, Any]:
        """Takes a text that was refused. Raises `Refused`."""
        params = {"sha256": sha256, "who": who, "reason": reason}
        path = f"/v1/sources/{quote(zone)}/accept"
        return self._ask("POST", path, params=params, timeout=RELOAD_TIMEOUT_SECONDS)

    def versions(self, zone: str | None) -> dict[str, Any]:
        """The snapshots that were served, or the versions of a list."""
        return self._ask("GET", "/v1/versions", params={} if zone is None else {"zone": zone})

    def diff(self, a: int, b: int, limit: int) -> dict[str, Any]:
        """What serial b enforces otherwise than serial a. Raises `Refused`."""
        params = {"a": str(a), "b": str(b), "limit": str(limit)}
        return self._ask("GET", "/v1/diff", params=params, timeout=RELOAD_TIMEOUT_SECONDS)

    def history(self, name: str) -> dict[str, Any]:
        """What happened to a name."""
        return self._ask("GET", "/v1/history", params={"name": name})

    def roll_back(self, serial: int, reason: str) -> dict[str, Any]:
        """Goes back to the lists of a serial. Raises `Refused`."""
        params = {"serial": str(serial), "reason": reason}
        return self._ask("POST", "/v1/rollback", params=params, timeout=RELOAD_TIMEOUT_SECONDS)

    def purge(self, name: str | None, *, below: bool) -> dict[str, Any]:
        """Drops what is kept of upstreams' answers about a name, or, for None, everything."""
        params = {} if name is None else {"name": name, "below": "true" if below else "false"}
        return self._ask("POST", "/v1/cache/purge", params=params)

    def impact(
        self, file: str, data: bytes, *, match: str | None, zone: str | None, seconds: int, top: int
    ) -> dict[str, Any]:
        """Counts what an order document or a list would block. Raises `Refused` with every problem."""
        params = {"file": file, "seconds": str(seconds), "top": str(top)}
        params |= {} if match is None else {"match": match}
        params |= {} if zone is None else {"zone": zone}
        timeout = seconds + RELOAD_TIMEOUT_SECONDS
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
        except (OSError, HTTPException, ValueError, RecursionError) as err:
            reason = (
                f"{self._path}: no daemon answers here ({err}); start it, or give its configuration with -c"
            )
            raise DaemonUnreachable(reason) from err
        if _is_success(response):
            return answer
        why = answer.get("reason")
        if 400 <= response.status < 500 and isinstance(why, str):
            raise Refused([Problem("dnsblock", None, "", why)])
        raise DaemonUnreachable(f"{self._path}: {answer.get('reason') or answer}")


class _Connection(HTTPConnection):
    """One to a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("dnsblock", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _is_success(response: HTTPResponse) -> bool:
    return 200 <= response.status < 300


def _read(response: HTTPResponse) -> dict[str, Any]:
    """What a daemon says. Raises `ValueError` for what no daemon would say; `Refused` where it refuses."""
    match json.loads(response.read()):
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
