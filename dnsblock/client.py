"""The client of a running daemon, for programs and for all commands except `serve` and `check`.

A person waits for each command, and a container health check runs one every 30 seconds. So this module
imports nothing slow (pydantic, httpx).
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from dnsblock.endpoints import ControlSocket, Remote
from dnsblock.errors import DaemonUnreachable, PartlyRefused, Problem, Refused, printable

MAX_CANDIDATE_BYTES = 64 << 20  # of an order document or a list for `impact`
MAX_SUBMITTED_BYTES = 320 << 20  # of all documents and entries files in one request
MAX_SUBMITTED_DOCUMENTS = 1000
PIECE_BYTES = 64 << 10  # of an export
MAX_PROBED = 10_000  # names of one order in a probe
MAX_SERIAL = (1 << 32) - 1  # of an SOA record
# Usually half a second is enough. A server short of memory or CPU time may need much longer.
TIMEOUT_SECONDS = 30.0
# For requests that compile lists or search the history: ten million names take a while.
LONG_TIMEOUT_SECONDS = 600.0
EVENTS_SECONDS = 60.0  # without an event or a heartbeat
BUSY_SECONDS = 2.0  # to ask a daemon that timed out what it is doing


@dataclass(frozen=True, slots=True)
class SignedFile:
    """An order document to submit, with the files beside it."""

    file: str  # its name in verdicts
    data: bytes
    signatures: bytes | None = None
    entries: bytes | None = None


def form(documents: Sequence[SignedFile]) -> tuple[bytes, str]:
    """The body of POST /v1/orders (RFC 7578), and its content type."""
    boundary = os.urandom(16).hex()  # so that no document contains it
    content = bytearray()
    for one in documents:
        parts = {"document": one.data, "signatures": one.signatures, "entries": one.entries}
        for name, data in parts.items():
            if data is not None:
                file = one.file if name == "document" else name
                head = f'Content-Disposition: form-data; name="{name}"; filename="{_quoted(file)}"'
                content += f"--{boundary}\r\n{head}\r\n\r\n".encode()
                content += data
                content += b"\r\n"
    content += f"--{boundary}--\r\n".encode()
    return bytes(content), f"multipart/form-data; boundary={boundary}"


def is_refused(document: Mapping[str, Any]) -> bool:
    """Whether a verdict refuses a document, wholly or in part. A repeated name is enforced once."""
    entries = (entry for entry in document["entry_verdicts"] if entry["code"] != "DUPLICATE")
    return document["verdict"] == "refused" or any(entry["verdict"] == "refused" for entry in entries)


def _quoted(file: str) -> str:
    """The name of a file in a form, without the characters that would end it."""
    return "".join(f"%{ord(c):02X}" if c in '"\\' or ord(c) < 32 else c for c in file)


def order_path(issuer: str, number: str) -> str:
    """The path of an order: the number may contain a slash, or be `..`, which clients would resolve."""
    segment = number.replace(".", "%2E") if number in (".", "..") else quote(number, safe="")
    return f"/v1/orders/{quote(issuer, safe='')}/{segment}"


class Client:
    """A client of one daemon: by its control socket, or as `Remote` by its HTTPS API.

    Results are JSON objects, which docs/openapi.json describes; times are RFC 3339 in UTC. All methods raise
    `DaemonUnreachable`, and `Refused` with all problems for a request that is not carried out.
    """

    def __init__(self, place: Path | Remote) -> None:
        self._place = place if isinstance(place, Remote) else ControlSocket(place)

    def is_ready(self) -> bool:
        """Whether queries are answered by a policy. No credentials are needed."""
        with contextlib.closing(self._place.open(TIMEOUT_SECONDS)) as connection:
            try:
                connection.request("GET", "/readyz")
                return _is_success(connection.getresponse())
            except (OSError, HTTPException) as err:
                raise DaemonUnreachable(self._place.why_unreachable(err)) from err

    def snapshot(self) -> dict[str, Any]:
        """The content that is enforced, and since when."""
        return self._ask("GET", "/v1/snapshot")

    def events(self, after: int | None = None) -> Iterator[dict[str, Any]]:
        """Follows the records of the ledger after one, or from now on, until the stream ends.

        The daemon ends a stream after an hour: continue with the `n` of the last record as `after`.
        """
        target = "/v1/events" if after is None else f"/v1/events?after={after}"
        for line in self._stream(target, EVENTS_SECONDS):
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    def status(self) -> dict[str, Any]:
        """The enforced snapshot, and the state of the daemon."""
        return self._ask("GET", "/v1/status")

    def reload(self) -> dict[str, Any]:
        """Publishes, and returns the result. Raises `Refused` with all problems."""
        return self._ask("POST", "/v1/reload", timeout=LONG_TIMEOUT_SECONDS)

    def submit(self, documents: Sequence[SignedFile]) -> dict[str, Any]:
        """Submits order documents, and returns a verdict for each."""
        content, kind = form(documents)
        timeout = LONG_TIMEOUT_SECONDS
        return self._ask("POST", "/v1/orders", content=content, kind=kind, timeout=timeout)

    def check_orders(self, documents: Sequence[SignedFile]) -> dict[str, Any]:
        """The results if order documents were submitted now. Changes nothing."""
        content, kind = form(documents)
        timeout = LONG_TIMEOUT_SECONDS
        return self._ask("POST", "/v1/orders/check", content=content, kind=kind, timeout=timeout)

    def last_order(self, issuer: str) -> dict[str, Any]:
        """The last numbered order of an issuer, and the first number that is missing."""
        return self._ask("GET", "/v1/orders/last", params={"issuer": issuer})

    def statement(self, issuer: str, at: str) -> dict[str, Any]:
        """The content of a status statement of an issuer that is made at a time."""
        params = {"issuer": issuer, "at": at}
        return self._ask("GET", "/v1/orders/statement", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def order(self, issuer: str, number: str) -> dict[str, Any]:
        """The facts of one order. Raises `Refused` if there is no such order."""
        return self._ask("GET", order_path(issuer, number))

    def checks(self, issuer: str, number: str, most: int) -> dict[str, Any]:
        """The queries of a probe of one order, and the expected responses. Raises `Refused`."""
        path, params = f"{order_path(issuer, number)}/probe", {"most": str(most)}
        return self._ask("GET", path, params=params, timeout=LONG_TIMEOUT_SECONDS)

    def orders(self, number: str | None = None, last: int | None = None) -> dict[str, Any]:
        """All orders, those with a number, or only the last ones."""
        asked = {"number": number, "limit": None if last is None else str(last)}
        params = {key: value for key, value in asked.items() if value is not None}
        return self._ask("GET", "/v1/orders", params=params)

    def receipt(self, issuer: str, number: str) -> dict[str, Any]:
        """A signed receipt of an order. Raises `Refused`."""
        return self._ask("GET", f"{order_path(issuer, number)}/receipt", timeout=LONG_TIMEOUT_SECONDS)

    def approve(self, issuer: str, order_id: str, names: Sequence[str], reason: str) -> dict[str, Any]:
        """Releases held entries of an order, or without names everything in it. Raises `Refused`."""
        params = {"issuer": issuer, "order_id": order_id, "reason": reason}
        content = "\n".join(names).encode()
        timeout = LONG_TIMEOUT_SECONDS
        return self._ask("POST", "/v1/orders/approve", params=params, content=content, timeout=timeout)

    def refuse(self, issuer: str, order_id: str, names: Sequence[str], reason: str) -> dict[str, Any]:
        """Refuses held entries of an order, or without names all that are held. Raises `Refused`."""
        params = {"issuer": issuer, "order_id": order_id, "reason": reason}
        content = "\n".join(names).encode()
        timeout = LONG_TIMEOUT_SECONDS
        return self._ask("POST", "/v1/orders/refuse", params=params, content=content, timeout=timeout)

    def annul(self, issuer: str, order_id: str, reason: str) -> dict[str, Any]:
        """Ends the entries of an order. Raises `Refused`."""
        params = {"issuer": issuer, "order_id": order_id, "reason": reason}
        return self._ask("POST", "/v1/orders/annul", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def work(self) -> dict[str, Any]:
        """The progress of work in the background."""
        return self._ask("GET", "/v1/work")

    def why(
        self, name: str, at: str | None = None, known_at: str | None = None, client: str | None = None
    ) -> dict[str, Any]:
        """Explains why a name is or is not blocked: at another time, as known at a time, or for a client."""
        asked = {"name": name, "at": at, "known_at": known_at, "client": client}
        params = {key: value for key, value in asked.items() if value is not None}
        return self._ask("GET", "/v1/why", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def sources(self) -> dict[str, Any]:
        """The state of each list."""
        return self._ask("GET", "/v1/sources")

    def refresh(self, zone: str, *, whole: bool = False) -> dict[str, Any]:
        """Fetches or reads a list now, and publishes it. Raises `Refused`.

        With `whole`, all of it is fetched, even if it is not modified.
        """
        path, params = f"/v1/sources/{quote(zone)}/refresh", {"whole": "true"} if whole else {}
        return self._ask("POST", path, params=params, timeout=LONG_TIMEOUT_SECONDS)

    def accept(self, zone: str, sha256: str, reason: str) -> dict[str, Any]:
        """Accepts rejected content of a list. Raises `Refused`."""
        params = {"sha256": sha256, "reason": reason}
        path = f"/v1/sources/{quote(zone)}/accept"
        return self._ask("POST", path, params=params, timeout=LONG_TIMEOUT_SECONDS)

    def allowed(self) -> dict[str, Any]:
        """The names that the operator exempts from lists."""
        return self._ask("GET", "/v1/allow")

    def allow(self, name: str, match: str, until: str | None, reason: str) -> dict[str, Any]:
        """Exempts a name from lists until a time; None: ends this now. Raises `Refused`."""
        params = {"name": name, "match": match, "reason": reason} | (
            {} if until is None else {"until": until}
        )
        return self._ask("POST", "/v1/allow", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def versions(self, zone: str | None) -> dict[str, Any]:
        """The published snapshots, or the versions of a list."""
        params = {} if zone is None else {"zone": zone}
        return self._ask("GET", "/v1/versions", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def diff(self, a: int, b: int, limit: int) -> dict[str, Any]:
        """The differences between two serials. Raises `Refused`."""
        params = {"a": str(a), "b": str(b), "limit": str(limit)}
        return self._ask("GET", "/v1/diff", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def history(self, name: str) -> dict[str, Any]:
        """The history of a name."""
        return self._ask("GET", "/v1/history", params={"name": name}, timeout=LONG_TIMEOUT_SECONDS)

    def roll_back(self, serial: int, reason: str) -> dict[str, Any]:
        """Rolls back to the lists of a serial. Raises `Refused`."""
        params = {"serial": str(serial), "reason": reason}
        return self._ask("POST", "/v1/rollback", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def accept_restore(self, reason: str) -> dict[str, Any]:
        """Accepts the current ledger or clock, and publishes. Raises `Refused`."""
        params = {"reason": reason}
        return self._ask("POST", "/v1/log/accept-restore", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def purge(self, name: str | None, *, below: bool) -> dict[str, Any]:
        """Purges a name from the cache; None: everything."""
        params = {} if name is None else {"name": name, "below": "true" if below else "false"}
        return self._ask("POST", "/v1/cache/purge", params=params, timeout=LONG_TIMEOUT_SECONDS)

    def impact(
        self, file: str, data: bytes, *, match: str | None, zone: str | None, seconds: int, top: int
    ) -> dict[str, Any]:
        """Counts the queries that an order or a list would block. Raises `Refused` with all problems."""
        params = {"file": file, "seconds": str(seconds), "top": str(top)}
        params |= {} if match is None else {"match": match}
        params |= {} if zone is None else {"zone": zone}
        timeout = seconds + LONG_TIMEOUT_SECONDS
        return self._ask("POST", "/v1/impact", params=params, content=data, timeout=timeout)

    def impact_of_order(self, issuer: str, order_id: str, *, seconds: int, top: int) -> dict[str, Any]:
        """Counts the queries that an order in the ledger would block, such as a notice. Raises `Refused`."""
        params = {"file": f"order {order_id} of {issuer}", "issuer": issuer, "order_id": order_id}
        params |= {"seconds": str(seconds), "top": str(top)}
        timeout = seconds + LONG_TIMEOUT_SECONDS
        return self._ask("POST", "/v1/impact", params=params, content=b"", timeout=timeout)

    def past_impact(
        self, file: str, data: bytes, *, match: str | None, zone: str | None, days: int, top: int
    ) -> dict[str, Any]:
        """The effect that an order or a list would have had on past days. Raises `Refused`."""
        params = {"file": file, "days": str(days), "top": str(top)}
        params |= {} if match is None else {"match": match}
        params |= {} if zone is None else {"zone": zone}
        return self._ask("POST", "/v1/impact/past", params=params, content=data, timeout=LONG_TIMEOUT_SECONDS)

    def past_impact_of_order(self, issuer: str, order_id: str, *, days: int, top: int) -> dict[str, Any]:
        """The same for an order in the ledger. Raises `Refused`."""
        params = {"file": f"order {order_id} of {issuer}", "issuer": issuer, "order_id": order_id}
        params |= {"days": str(days), "top": str(top)}
        return self._ask("POST", "/v1/impact/past", params=params, content=b"", timeout=LONG_TIMEOUT_SECONDS)

    def impact_progress(self) -> dict[str, Any] | None:
        """The counts so far of the impact run, if one is running."""
        running: dict[str, Any] | None = self._ask("GET", "/v1/impact")["running"]
        return running

    def end_impact(self) -> None:
        """Ends the impact run early. The client that started it gets the counts so far."""
        self._ask("DELETE", "/v1/impact")

    def webhooks(self) -> dict[str, Any]:
        """The servers that get events, with their dead letters."""
        return self._ask("GET", "/v1/webhooks")

    def resend(self, ids: Sequence[str] | None, webhook: str | None) -> dict[str, Any]:
        """Sends events to webhooks again; None: all dead letters. Raises `Refused`."""
        params = {"all": "true"} if ids is None else {}
        params |= {} if webhook is None else {"webhook": webhook}
        content = "\n".join(ids or ()).encode()
        return self._ask("POST", "/v1/webhooks/resend", params=params, content=content)

    def export(self, kind: str, zones: Sequence[str], origin: str | None) -> Iterator[bytes]:
        """The policy zones as a file, in pieces. Raises `Refused`."""
        asked = {"format": kind, "zones": ",".join(zones), "origin": origin}
        params = {key: value for key, value in asked.items() if value}
        return self._stream(f"/v1/export?{urlencode(params)}", LONG_TIMEOUT_SECONDS, by_line=False)

    def _stream(self, target: str, timeout: float, *, by_line: bool = True) -> Iterator[bytes]:
        """The body of a long response, by lines or in pieces."""
        try:
            with contextlib.closing(self._place.open(timeout)) as connection:
                connection.request("GET", target, headers=self._place.headers)
                response = connection.getresponse()
                if not _is_success(response):
                    raise self._failure(response, _read(response))
                while piece := response.readline() if by_line else response.read1(PIECE_BYTES):
                    yield piece
        except (OSError, HTTPException, ValueError, RecursionError) as err:
            raise DaemonUnreachable(self._place.why_unreachable(err)) from err

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        content: bytes | None = None,
        kind: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        headers = self._place.headers | ({} if kind is None else {"Content-Type": kind})
        target = f"{path}?{urlencode(params)}" if params else path
        try:
            with contextlib.closing(self._place.open(timeout)) as connection:
                # A server may respond without reading the whole body.
                with contextlib.suppress(BrokenPipeError):
                    connection.request(method, target, body=content, headers=headers)
                response = connection.getresponse()
                answer = _read(response)
        except TimeoutError as err:
            raise DaemonUnreachable(
                f"the daemon at {self._place} did not respond within {timeout:g} s: "
                f"it is busy{self._work()}; try again, or see its log"
            ) from err
        except (OSError, HTTPException, ValueError, RecursionError) as err:
            raise DaemonUnreachable(self._place.why_unreachable(err)) from err
        if not (_is_success(response) or "documents" in answer):
            raise self._failure(response, answer)
        return answer

    def _failure(self, response: HTTPResponse, answer: Mapping[str, Any]) -> Exception:
        why = answer.get("detail")
        if 400 <= response.status < 500 and isinstance(why, str):
            return Refused([Problem("dnsblock", None, "", why)])
        failure = f"failed to respond (HTTP {response.status}): {why or answer}"
        return DaemonUnreachable(printable(f"the daemon at {self._place} {failure}"))

    def _work(self) -> str:
        """The current work of a daemon that timed out, if it still reports that."""
        # The timeout is reported already, so errors here do not matter.
        with contextlib.suppress(
            OSError, HTTPException, ValueError, RecursionError, Refused, LookupError, TypeError
        ):
            with contextlib.closing(self._place.open(BUSY_SECONDS)) as connection:
                connection.request("GET", "/v1/work", headers=self._place.headers)
                work = _read(connection.getresponse())
            fetching = [f"fetching list {printable(str(zone))}" for zone in work["fetching"]]
            reading = [] if work["reading"] is None else ["reading lists"]
            if doing := ", ".join([*fetching, *reading]):
                return f" with {doing}"
        return ""


def _is_success(response: HTTPResponse) -> bool:
    return 200 <= response.status < 300


def _read(response: HTTPResponse) -> dict[str, Any]:
    """Parses a response. Raises `ValueError` if it is not from dnsblock, and `Refused` with its problems."""
    match json.loads(response.read()):
        case dict(answer) if isinstance(answer.get("documents"), list):
            return answer  # each document has its own verdict and problems
        case {"problems": [*problems], "served": dict(served)} if not _is_success(response):
            raise PartlyRefused([_problem(said) for said in problems], served)
        case {"problems": [*problems]} if not _is_success(response):
            raise Refused([_problem(said) for said in problems])
        case dict(answer):
            return answer
    raise ValueError("not a response of dnsblock")


def _problem(said: Any) -> Problem:
    match said:
        case {"file": str(file), "line": int() | None as line, "value": str(value), "reason": str(reason)}:
            return Problem(file, line, value, reason)
    raise ValueError("not a response of dnsblock")
