"""Talks to the issuers' APIs of several instances at once: pushes orders, and compares what they enforce.

A push is repeated after a lost connection, which is safe: an instance recognises a document that it has.
"""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import httpx

from dnsblock.client import SignedFile, form, is_refused, order_path
from dnsblock.errors import Exit, printable

Stage = Literal["accepted", "enforced", "verified"]

CONNECT_SECONDS = 10.0
RETRY_SECONDS = 1.0
FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.05, 1.0
MAX_RESPONSE_BYTES = 64 << 20
MAX_QUERIES, MAX_SECONDS = 1 << 53, 1e9  # of a snapshot
TEMPORARY = (502, 503, 504)
STAGES: tuple[Stage, ...] = ("accepted", "enforced", "verified")
OVER = frozenset({"lifted", "expired", "superseded", "revoked"})  # its time has come, and has passed
IDLE = frozenset({"annulled", "held", "proposed", "refused"})


@dataclass(frozen=True, slots=True)
class Goal:
    """What to wait for, and for how long."""

    stage: Stage
    seconds: float


@dataclass(frozen=True, slots=True)
class Credentials:
    """The tokens or the certificate of this client, and the authorities that it trusts."""

    context: ssl.SSLContext
    tokens: Mapping[str | None, str]  # by URL; None: for all others

    def headers(self, url: str) -> dict[str, str]:
        """The credentials for an instance."""
        token = self.tokens.get(url, self.tokens.get(None))
        return {} if token is None else {"Authorization": f"Bearer {token}"}


class _Failed(Exception):  # noqa: N818  # house style: named for what happened
    """A request that cannot go on; `code` is that of the command."""

    def __init__(self, code: Exit, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Temporary(Exception):  # noqa: N818
    """A failure that another try may overcome."""


@dataclass(slots=True)
class Push:
    """The push to one instance. Another task may read it while it goes on."""

    url: str
    doing: str = "connecting"  # for people who wait
    documents: list[dict[str, Any]] = field(default_factory=list)  # verdicts, each with the facts in `order`
    error: str | None = None
    code: Exit = Exit.DONE

    def reached(self, stage: Stage) -> bool:
        """Whether every document is accepted and has reached a stage here."""
        return self.error is None and all(reached(one, stage) for one in self.documents)

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {"url": self.url, "error": self.error, "documents": self.documents}


def reached(document: Mapping[str, Any], stage: Stage) -> bool:
    """Whether a document is accepted, and has reached a stage or the last one that it can reach."""
    if document["verdict"] == "refused":
        return False
    if stage == "accepted":
        return True
    order = document["order"]
    if order is None or order["state"] in IDLE:
        return False
    # A block and its unblock may come together: then neither takes effect any more.
    last = min(stage, order.get("last_stage", "verified"), key=STAGES.index)
    return last == "accepted" or order["state"] in OVER or bool(order.get(f"{last}_at"))


async def push_all(
    pushes: Sequence[Push], files: Sequence[SignedFile], credentials: Credentials, goal: Goal
) -> None:
    """Pushes to all instances at once, until each has reached the stage, or the time is over."""
    async with asyncio.TaskGroup() as tasks:
        for push in pushes:
            tasks.create_task(_push(push, files, credentials, goal))


async def _push(push: Push, files: Sequence[SignedFile], credentials: Credentials, goal: Goal) -> None:
    until = asyncio.get_running_loop().time() + goal.seconds
    client = httpx.AsyncClient(
        base_url=push.url,
        headers=credentials.headers(push.url),
        verify=credentials.context,
        timeout=httpx.Timeout(goal.seconds, connect=min(goal.seconds, CONNECT_SECONDS)),
    )
    try:
        async with asyncio.timeout_at(until), client:
            push.documents = await _submit(push, client, files)
            if goal.stage != "accepted":
                await _follow(push, client, goal.stage, until)
    except TimeoutError:
        if not push.documents:
            push.code = Exit.UNREACHABLE
            push.error = f"{push.doing}: no response within {goal.seconds:g} s; to submit again is safe"
    except _Failed as err:
        push.code, push.error = err.code, str(err)
    push.doing = "done"


async def _submit(push: Push, client: httpx.AsyncClient, files: Sequence[SignedFile]) -> list[dict[str, Any]]:
    content, kind = form(files)
    while True:
        try:
            push.doing = "sending"
            status, answer = await _ask(client, "POST", "/v1/orders", content, {"Content-Type": kind})
            break
        except _Temporary as err:
            push.doing = f"trying again ({err})"
            await asyncio.sleep(RETRY_SECONDS)
    documents = answer.get("documents")
    if not isinstance(documents, list) or not documents:
        raise _not_ours(status) if status < 400 else _refused(status, answer)
    found = [_verdict(one, status) for one in documents]
    if any(map(is_refused, found)):
        push.code = Exit.REFUSED
    return found


def _verdict(value: Any, status: int) -> dict[str, Any]:
    """A verdict of a response, with a place for the facts about the order. Raises `_Failed`."""
    match value:
        case {"file": str(), "verdict": "refused", "entry_verdicts": [*_], "problems": [*_]}:
            return {**value, "order": None}
        case {"file": str(), "issuer": str(), "order_id": str(), "entry_verdicts": [*_], "problems": [*_]}:
            return {**value, "order": None}
    raise _not_ours(status)


async def _follow(push: Push, client: httpx.AsyncClient, stage: Stage, until: float) -> None:
    """Reads the facts of each accepted order until it has reached the stage, or cannot in time."""
    waiting = [one for one in push.documents if one["verdict"] != "refused"]
    pause = FIRST_POLL_SECONDS
    while waiting:
        push.doing = f"waiting until {stage}"
        for one in waiting:
            with contextlib.suppress(_Temporary):
                status, order = await _ask(client, "GET", order_path(one["issuer"], one["order_id"]))
                one["order"] = _order(status, order)
        left = until - asyncio.get_running_loop().time()
        waiting = [one for one in waiting if not reached(one, stage) and not cannot_reach(one["order"], left)]
        if waiting:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_POLL_SECONDS)


def _order(status: int, answer: dict[str, Any]) -> dict[str, Any]:
    match answer:
        case {"state": str(), "action": str(), "effective_at": str(), "time_zone": str()} if status == 200:
            return answer
    raise _refused(status, answer)


def cannot_reach(order: Mapping[str, Any] | None, seconds: float) -> bool:
    """Whether an order cannot take effect in this time: it is annulled, or scheduled for later."""
    if order is None:
        return False
    if order["state"] == "annulled":
        return True
    starts = datetime.fromisoformat(order["effective_at"])
    return order["state"] == "scheduled" and starts > datetime.now(UTC) + timedelta(seconds=seconds)


# ------- The same question to all instances -------


@dataclass(frozen=True, slots=True)
class _Question:
    path: str
    is_answer: Callable[[dict[str, Any]], bool]
    is_patient: bool  # whether an instance that cannot be reached is asked again


@dataclass(slots=True)
class Fetched:
    """The answer of one instance, or the reason why there is none."""

    url: str
    answer: dict[str, Any] | None = None
    error: str | None = None
    code: Exit = Exit.DONE


async def fetch_receipts(
    urls: Sequence[str], issuer: str, number: str, credentials: Credentials, seconds: float
) -> list[Fetched]:
    """Asks all instances at once for a receipt of an order, and again while they cannot be reached."""
    question = _Question(f"{order_path(issuer, number)}/receipt", _is_receipt, is_patient=True)
    return await _from_all(urls, question, credentials, seconds)


async def fetch_snapshots(urls: Sequence[str], credentials: Credentials, seconds: float) -> list[Fetched]:
    """Asks all instances at once what they enforce, and none twice: who is down now is what matters."""
    question = _Question("/v1/snapshot", _is_snapshot, is_patient=False)
    return await _from_all(urls, question, credentials, seconds)


def _is_receipt(answer: dict[str, Any]) -> bool:
    match answer:
        case {"receipt": str(), "signature": str()}:
            return True
    return False


def _is_snapshot(answer: dict[str, Any]) -> bool:
    match answer:
        case {
            "version": str(),
            "serial": int(),
            "digest": str(digest),
            "published_at": str(published_at),
            "queries": int(queries),
            "seconds": int() | float() as seconds,
            "zones": [*zones],
        }:
            is_possible = 0 <= queries <= MAX_QUERIES and 0 <= seconds <= MAX_SECONDS  # nor is it NaN
            return is_possible and digest.isascii() and _is_time(published_at) and all(map(_is_zone, zones))
    return False


def _is_time(text: str) -> bool:
    """A time of an instance, which can be shown in every time zone."""
    with contextlib.suppress(ValueError):
        time = datetime.fromisoformat(text)
        return time.tzinfo is not None and 1970 <= time.year < 9999
    return False


def _is_zone(zone: object) -> bool:
    match zone:
        case {"name": str(name), "digest": str()}:
            return name.isprintable()
    return False


async def _from_all(
    urls: Sequence[str], question: _Question, credentials: Credentials, seconds: float
) -> list[Fetched]:
    return list(await asyncio.gather(*(_from_one(url, question, credentials, seconds) for url in urls)))


async def _from_one(url: str, question: _Question, credentials: Credentials, seconds: float) -> Fetched:
    found = Fetched(url)
    client = httpx.AsyncClient(
        base_url=url,
        headers=credentials.headers(url),
        verify=credentials.context,
        timeout=httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
    )
    try:
        async with asyncio.timeout(seconds), client:
            while found.answer is None:
                try:
                    status, answer = await _ask(client, "GET", question.path)
                except _Temporary as err:
                    if not question.is_patient:
                        raise _Failed(Exit.UNREACHABLE, str(err)) from err
                    found.error = str(err)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                if status != 200 or not question.is_answer(answer):
                    raise _refused(status, answer)
                found.answer, found.error = answer, None
    except TimeoutError:
        found.code, found.error = Exit.UNREACHABLE, found.error or f"no response within {seconds:g} s"
    except _Failed as err:
        found.code, found.error = err.code, str(err)
    return found


# ------- One request -------


async def _ask(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    content: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a response. Raises `_Temporary` and `_Failed`."""
    try:
        async with client.stream(method, path, content=content, headers=headers) as response:
            data = b"".join([part async for part in _bounded(response)])
            status = response.status_code
    except httpx.TransportError as err:
        raise _lost(err) from err
    if status in TEMPORARY:
        raise _Temporary(f"HTTP {status}")
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise _not_ours(status) from err
    if not isinstance(answer, dict):
        raise _not_ours(status)
    return status, answer


async def _bounded(response: httpx.Response) -> AsyncIterator[bytes]:
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MAX_RESPONSE_BYTES:
            raise _not_ours(response.status_code)
        yield part


def _lost(err: httpx.TransportError) -> Exception:
    """The meaning of a failed connection: another try may help, or not."""
    text = printable(str(err) or type(err).__name__)
    cause: BaseException | None = err
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return _Failed(Exit.UNREACHABLE, f"TLS: {text}")
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return _Failed(Exit.UNREACHABLE, text)
        cause = cause.__cause__ or cause.__context__
    if isinstance(err, httpx.UnsupportedProtocol | httpx.ProxyError | httpx.ProtocolError):
        return _Failed(Exit.UNREACHABLE, text)
    return _Temporary(text)


def _refused(status: int, answer: Mapping[str, Any]) -> _Failed:
    code, detail = answer.get("code"), answer.get("detail")
    if not isinstance(code, str) or not isinstance(detail, str):
        return _not_ours(status)
    exit_code = Exit.UNREACHABLE if status >= 500 else Exit.REFUSED
    return _Failed(exit_code, f"{printable(code)}: {printable(detail)}")


def _not_ours(status: int) -> _Failed:
    return _Failed(Exit.UNREACHABLE, f"the response is not from dnsblock (HTTP {status})")
