"""Fetches a blocklist feed over HTTPS, whole or not at all. The daemon calls it when `schedule.py` says so.

A feed breaks about monthly, and its server may be forged: what it sends may be huge, endless, slow, cut off,
or a page for people. All of that ends in `FetchFailed`, with the list of before where it was.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

import httpx

from dnsblock.errors import FetchFailed, shown
from dnsblock.lists.feed.download import Download, too_large
from dnsblock.lists.feed.https import SILENCE_SECONDS, Feed, ask, led_to
from dnsblock.lists.feed.schedule import retry_after_seconds

__all__ = ["Feed", "FetchFailed", "Fetched", "Validators", "fetch"]

PIECE_BYTES = 1 << 18  # handed to a thread at once

Progress = Callable[[int, int | None], None]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server knows a version of the list by; kept beside the list, and sent with the next fetch."""

    etag: str | None = None
    last_modified: str | None = None

    @classmethod
    def of(cls, response: httpx.Response) -> "Validators":
        """Those that may be sent back: others than of ASCII, or longer ones, would be refused on the way."""
        sent = (response.headers.get(name, "") for name in ("etag", "last-modified"))
        etag, last_modified = (value if re.fullmatch("[ -~]{1,256}", value) else None for value in sent)
        return cls(etag, last_modified)

    def conditions(self) -> dict[str, str]:
        """As headers (RFC 9110, section 13.1). A server goes by the first where it gets both."""
        sent = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in sent.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A list that was downloaded and is on the disk."""

    path: Path
    sha256: str
    octets: int  # of the list as it is on the disk
    validators: Validators
    content_type: str | None  # safe to print
    seconds: float


@dataclass(slots=True)
class _Arrived:
    """How much of the body has come over the network, and how much the server has announced."""

    octets: int = 0
    announced: int | None = None

    def __str__(self) -> str:
        return f"{self.octets:,} octets" + ("" if self.announced is None else f" of {self.announced:,}")


async def fetch(
    feed: Feed, into: Path, known: Validators | None, progress: Progress | None = None
) -> Fetched | None:
    """Downloads the list to `into`; None where it is still the one that is `known`. Raises `FetchFailed`.

    On any error and on cancellation `into` is as it was, and nothing is beside it; only when it is cancelled
    in the last moment, the new list may be there, whole. One fetch at a time for each `into`. `progress` is
    told how many octets have come over the network, and how many were announced.
    """
    started = time.monotonic()
    arrived = _Arrived()
    download = Download(into, feed.place, feed.max_bytes)
    try:
        async with asyncio.timeout(feed.timeout):
            head = await _receive(feed, known, download, arrived, progress)
        if head is None:
            return None
        # The network's time is over: what has arrived as a whole is not thrown away for a slow disk.
        sha256, octets = await _in_thread(download.commit)
        validators, content_type = head
        return Fetched(into, sha256, octets, validators, content_type, time.monotonic() - started)
    except TimeoutError as err:
        reason = f"not done after {feed.timeout:,g} seconds, with {arrived}"
        advice = (
            "see how fast the way is (`curl -o /dev/null`); raise `source.timeout_s` if the list has grown"
        )
        raise feed.failed("TOO_SLOW", f"{reason}: {advice}") from err
    finally:
        await _in_thread(download.discard)


async def _receive(
    feed: Feed,
    known: Validators | None,
    download: Download,
    arrived: _Arrived,
    progress: Progress | None,
) -> tuple[Validators, str | None] | None:
    """Fills the download; returns what the server says about it. None: not modified."""
    conditions = known.conditions() if known else {}
    async with ask(feed, conditions) as response:
        if response.status_code == httpx.codes.NOT_MODIFIED and conditions:
            return None
        arrived.announced = _judge(response, feed)
        await _in_thread(download.begin, gzip=_encoding(response) == "gzip")
        async with aclosing(_pieces(response, feed, arrived)) as pieces:
            async for piece in pieces:
                await _in_thread(download.add, piece)
                if progress is not None:
                    progress(arrived.octets, arrived.announced)
        content_type = response.headers.get("content-type")
        return Validators.of(response), None if content_type is None else shown(content_type)


async def _pieces(response: httpx.Response, feed: Feed, arrived: _Arrived) -> AsyncGenerator[bytes, None]:
    """The body as it comes over the network, in pieces of about `PIECE_BYTES`."""
    piece = bytearray()
    try:
        async for received in response.aiter_raw():
            arrived.octets += len(received)
            if arrived.octets > feed.max_bytes:
                raise too_large(feed.place, feed.max_bytes, "it is larger")
            piece += received
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
    except httpx.ReadTimeout as err:
        reason = f"nothing more for {SILENCE_SECONDS:g} seconds, after {arrived}"
        raise feed.failed("TOO_SLOW", f"{reason}: it is tried again; tell who runs the feed") from err
    except (httpx.HTTPError, OSError) as err:
        reason = f"broke off after {arrived} ({shown(str(err) or type(err).__name__)})"
        raise feed.failed("TRUNCATED", f"{reason}: it is tried again; tell who runs the feed") from err
    if piece:
        yield bytes(piece)


def _judge(response: httpx.Response, feed: Feed) -> int | None:
    """Whether these headers may be those of a list; returns how many octets they announce."""
    if response.status_code != httpx.codes.OK:
        raise _status(response, feed)
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in ("text/html", "application/xhtml+xml"):
        raise feed.failed("HTML", f"a page in the place of the list ({media_type}): open it in a browser")
    if (encoding := _encoding(response)) not in ("identity", "gzip"):
        reason = f"compressed with '{shown(encoding)}', where gzip was asked for"
        raise feed.failed("ENCODING", f"{reason}: tell who runs the feed")
    if "transfer-encoding" in response.headers:  # RFC 9112, section 6.3: a length beside it does not count
        return None
    announced = response.headers.get("content-length")
    if announced is None:
        if encoding == "gzip":  # which ends with a length and a checksum of its own
            return None
        reason = "neither Content-Length nor chunked, so a cut could not be told from the end"
        raise feed.failed("NO_LENGTH", f"{reason}: tell who runs the feed")
    octets = int(announced)  # at most 20 digits, or h11 would have refused it
    if octets > feed.max_bytes:
        raise too_large(feed.place, feed.max_bytes, f"{octets:,} octets are announced, more")
    return octets


def _status(response: httpx.Response, feed: Feed) -> FetchFailed:
    status, retry_after = response.status_code, None
    if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
        retry_after = retry_after_seconds(response.headers.get("retry-after", ""), datetime.now(UTC))
    match status:
        case httpx.codes.NOT_MODIFIED:
            advice = "there was nothing to compare with; tell who runs the feed"
        case httpx.codes.UNAUTHORIZED | httpx.codes.FORBIDDEN:
            advice = "see `source.authorization`, and whether this machine's address is allowed there"
        case httpx.codes.NOT_FOUND | httpx.codes.GONE:
            advice = "see whether the list has moved, and change `list`"
        case httpx.codes.TOO_MANY_REQUESTS:
            advice = "ask less often, or see who else asks from this address"
        case _:
            advice = "it is tried again; tell who runs the feed if it goes on"
    rest = "" if retry_after is None else f", not to be asked again for {retry_after:,.0f} seconds"
    said = f"{led_to(feed, response.url)}{status} {shown(response.reason_phrase)}".strip()
    return feed.failed("STATUS", f"{said}{rest}: {advice}", retry_after)


def _encoding(response: httpx.Response) -> str:
    encoding: str = response.headers.get("content-encoding", "identity").strip().lower()
    return "gzip" if encoding == "x-gzip" else encoding  # RFC 9110, section 8.4.1.3


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, but leaves no thread behind that goes on with a file which is thrown away.

    When it is cancelled, it waits for the end of the work: a piece, or at most the way of a list to the disk.
    """
    task = asyncio.create_task(asyncio.to_thread(work, *args, **kwargs))
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as err:
            cancelled = err
    if cancelled is not None:
        task.exception()  # looked at, else asyncio reports it as lost
        raise cancelled
    return task.result()
