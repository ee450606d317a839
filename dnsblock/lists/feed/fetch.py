"""Fetches a blocklist feed over HTTPS, completely or not at all, when `schedule.py` says that it is due.

A feed breaks about monthly, and its server may be forged. The response may be huge, endless, slow,
truncated, or a web page. All of these end in `FetchFailed`, and the previous list stays in place.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import httpx

from dnsblock.clock import utc_now
from dnsblock.errors import FetchFailed, shown
from dnsblock.lists.feed.download import Download, too_large
from dnsblock.lists.feed.https import REPORT_IT, RETRIED, SILENCE_SECONDS, Feed, redirected_to, request
from dnsblock.retries import retry_after_seconds
from dnsblock.threads import in_thread

__all__ = ["Feed", "FetchFailed", "Fetched", "Validators", "fetch"]

PIECE_BYTES = 1 << 18  # passed to a thread at a time

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Validators:
    """The HTTP validators of a list, stored beside it and sent with the next fetch."""

    etag: str | None = None
    last_modified: str | None = None

    @classmethod
    def of(cls, response: httpx.Response) -> "Validators":
        """Returns the validators that can be sent back: long or non-ASCII ones would cause an error."""
        sent = (response.headers.get(name, "") for name in ("etag", "last-modified"))
        etag, last_modified = (value if re.fullmatch("[ -~]{1,256}", value) else None for value in sent)
        return cls(etag, last_modified)

    def conditions(self) -> dict[str, str]:
        """As request headers (RFC 9110, section 13.1). A server that gets both uses the first."""
        sent = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in sent.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A downloaded list on the disk."""

    path: Path
    sha256: str
    size: int  # bytes on the disk
    validators: Validators
    content_type: str | None  # safe to print
    seconds: float


@dataclass(slots=True)
class _Arrived:
    """How many bytes of the body have arrived, and how many the server announced."""

    received: int = 0
    announced: int | None = None

    def __str__(self) -> str:
        return f"{self.received:,} bytes" + ("" if self.announced is None else f" of {self.announced:,}")


async def fetch(
    feed: Feed, into: Path, known: Validators | None, progress: Progress | None = None
) -> Fetched | None:
    """Downloads the list to `into`; None if the `known` one is not modified. Raises `FetchFailed`.

    On an error or cancellation, `into` is unchanged and no partial file remains. If cancelled at the last
    moment, the complete new list may be there. Run one fetch at a time for each `into`. `progress` is called
    with the number of bytes received and the number announced.
    """
    started = time.monotonic()
    arrived = _Arrived()
    download = Download(into, feed.place, feed.max_bytes)
    try:
        async with asyncio.timeout(feed.timeout):
            head = await _receive(feed, known, download, arrived, progress)
        if head is None:
            return None
        # Outside the network timeout: a slow disk must not discard a complete download.
        sha256, size = await in_thread(download.commit)
        validators, content_type = head
        return Fetched(into, sha256, size, validators, content_type, time.monotonic() - started)
    except TimeoutError as err:
        reason = f"not complete after {feed.timeout:,g} seconds, with {arrived}"
        advice = "check the speed (`curl -o /dev/null`); raise `source.timeout_s` if the list has grown"
        raise feed.failed("TOO_SLOW", f"{reason}: {advice}") from err
    finally:
        await in_thread(download.discard)


async def _receive(
    feed: Feed,
    known: Validators | None,
    download: Download,
    arrived: _Arrived,
    progress: Progress | None,
) -> tuple[Validators, str | None] | None:
    """Receives the body into the download; returns its validators and Content-Type. None: not modified."""
    conditions = known.conditions() if known else {}
    async with request(feed, conditions) as response:
        if response.status_code == httpx.codes.NOT_MODIFIED and conditions:
            return None
        arrived.announced = _judge(response, feed)
        await in_thread(download.begin, gzip=_encoding(response) == "gzip")
        async with aclosing(_pieces(response, feed, arrived)) as pieces:
            async for piece in pieces:
                await in_thread(download.add, piece)
                if progress is not None:
                    progress(arrived.received, arrived.announced)
        content_type = response.headers.get("content-type")
        return Validators.of(response), None if content_type is None else shown(content_type)


async def _pieces(response: httpx.Response, feed: Feed, arrived: _Arrived) -> AsyncGenerator[bytes, None]:
    """The body as received, not decoded, in pieces of about `PIECE_BYTES`."""
    piece = bytearray()
    try:
        async for received in response.aiter_raw():
            arrived.received += len(received)
            if arrived.received > feed.max_bytes:
                raise too_large(feed.place, feed.max_bytes, "it is larger")
            piece += received
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
    except httpx.ReadTimeout as err:
        reason = f"no data for {SILENCE_SECONDS:g} seconds, after {arrived}"
        raise feed.failed("TOO_SLOW", f"{reason}: {RETRIED}") from err
    except (httpx.HTTPError, OSError) as err:
        reason = f"the connection failed after {arrived} ({shown(str(err) or type(err).__name__)})"
        raise feed.failed("TRUNCATED", f"{reason}: {RETRIED}") from err
    if piece:
        yield bytes(piece)


def _judge(response: httpx.Response, feed: Feed) -> int | None:
    """Checks the headers; returns the number of bytes that they announce."""
    if response.status_code != httpx.codes.OK:
        raise _status(response, feed)
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in ("text/html", "application/xhtml+xml"):
        raise feed.failed("HTML", f"a web page instead of the list ({media_type}): open it in a browser")
    if (encoding := _encoding(response)) not in ("identity", "gzip"):
        reason = f"compressed with '{shown(encoding)}' instead of gzip"
        raise feed.failed("ENCODING", f"{reason}: {REPORT_IT}")
    if "transfer-encoding" in response.headers:  # RFC 9112, section 6.3: Content-Length is ignored then
        return None
    announced = response.headers.get("content-length")
    if announced is None:
        if encoding == "gzip":  # gzip ends with its own length and checksum
            return None
        reason = "neither Content-Length nor chunked, so a truncated list would look complete"
        raise feed.failed("NO_LENGTH", f"{reason}: {REPORT_IT}")
    size = int(announced)  # at most 20 digits: h11 rejects more
    if size > feed.max_bytes:
        raise too_large(feed.place, feed.max_bytes, f"{size:,} bytes are announced, more")
    return size


def _status(response: httpx.Response, feed: Feed) -> FetchFailed:
    status, retry_after = response.status_code, None
    if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
        retry_after = retry_after_seconds(response.headers.get("retry-after", ""), utc_now())
    match status:
        case httpx.codes.NOT_MODIFIED:
            advice = "the request had no condition; " + REPORT_IT
        case httpx.codes.UNAUTHORIZED | httpx.codes.FORBIDDEN:
            advice = "check `source.authorization`, and whether the server allows this address"
        case httpx.codes.NOT_FOUND | httpx.codes.GONE:
            advice = "check whether the list has moved, and change `list`"
        case httpx.codes.TOO_MANY_REQUESTS:
            advice = "raise `source.every_s`, or check who else fetches it from this address"
        case _:
            advice = RETRIED
    rest = "" if retry_after is None else f", retry after {retry_after:,.0f} seconds"
    text = f"{redirected_to(feed, response.url)}{status} {shown(response.reason_phrase)}".strip()
    return feed.failed("STATUS", f"{text}{rest}: {advice}", retry_after)


def _encoding(response: httpx.Response) -> str:
    encoding: str = response.headers.get("content-encoding", "identity").strip().lower()
    return "gzip" if encoding == "x-gzip" else encoding  # RFC 9110, section 8.4.1.3
