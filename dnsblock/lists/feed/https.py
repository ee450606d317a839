"""A feed and its HTTPS server: trust, proxies, redirects and errors. `fetch.py` makes its requests with it.

The server certificate is always verified; no option disables this.
"""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from dnsblock import __version__, document
from dnsblock.errors import FetchCode, FetchFailed, Refused, shown

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 30.0  # between two reads; `Feed.timeout` limits the whole download
MAX_REDIRECTS = 5
MAX_AUTHORIZATION_BYTES = 8192
REPORT_IT = "report it to the publisher of the feed"
RETRIED = f"it is fetched again later; if this continues, {REPORT_IT}"


@dataclass(frozen=True, slots=True)
class Feed:
    """The source of a list, and the limits of a fetch. Raises `ValueError` for an unusable URL."""

    url: str
    max_bytes: int  # of the list, and of the transfer
    timeout: float  # seconds, for the whole download
    ca: Path | None = None  # PEM; replaces the system trust store for this feed
    authorization: Path | None = None  # one line, the Authorization header, sent only to the URL's own host

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as err:
            raise ValueError(f"not a URL: {err}") from err
        if url.scheme != "https" or not url.host:
            raise ValueError("must begin with https:// and a host")
        if not _is_port(url):
            raise ValueError("must have a port from 1 to 65535, or none")
        if url.userinfo:  # it would be visible wherever the configuration is shown
            raise ValueError("must not hold a password: use `source.authorization`")

    @property
    def place(self) -> str:
        """The URL without secrets, for messages."""
        return _without_secrets(httpx.URL(self.url))

    def failed(self, code: FetchCode, reason: str, retry_after: float | None = None) -> FetchFailed:
        """The exception for an error of this feed."""
        return FetchFailed(self.place, code, reason, retry_after)


@asynccontextmanager
async def request(feed: Feed, conditions: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
    """Requests the feed and follows redirects; the body is not read yet. Raises `FetchFailed`.

    httpx could follow redirects, too, but it reads their bodies into memory, whatever their size.
    """
    context = await asyncio.to_thread(_trust, feed)
    authorization = await asyncio.to_thread(_authorization, feed)
    headers = {"User-Agent": f"dnsblock/{__version__}", "Accept-Encoding": "gzip", **conditions}
    home = url = httpx.URL(feed.url)
    async with _client(context, feed) as client:
        for _ in range(MAX_REDIRECTS + 1):
            to_send = client.build_request("GET", url, headers=headers)
            if authorization is not None and _origin(url) == _origin(home):
                to_send.headers["Authorization"] = authorization
            with _until_response(feed, url):
                response = await client.send(to_send, stream=True)
            try:
                if response.next_request is None:
                    yield response
                    return
            finally:
                await response.aclose()
            url = _followed(feed, response.next_request.url)
    reason = f"more than {MAX_REDIRECTS} redirects, the last to {shown(_without_secrets(url))}"
    raise feed.failed("REDIRECT", f"{reason}: {REPORT_IT}")


def _followed(feed: Feed, target: httpx.URL) -> httpx.URL:
    if target.scheme != "https":
        wrong = "not https"
    elif target.userinfo:
        wrong = "a URL with a password"
    elif not _is_port(target):
        wrong = "an invalid port"
    else:
        return target
    reason = f"redirected to {shown(_without_secrets(target))}, {wrong}, which was not requested"
    raise feed.failed("REDIRECT", f"{reason}: {REPORT_IT}")


def _is_port(url: httpx.URL) -> bool:
    """Whether the port is valid: httpx accepts any number, asyncio only these."""
    return url.port is None or 1 <= url.port <= 65535


def _client(context: ssl.SSLContext, feed: Feed) -> httpx.AsyncClient:
    """The HTTP client for one fetch. Proxies come from the environment (HTTPS_PROXY, NO_PROXY).

    A provider's resolvers often have no other Internet connectivity, and only its administrator sets the
    environment of a service. A proxy tunnels TLS: it can neither read nor change the list.
    """
    timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
    try:
        return httpx.AsyncClient(verify=context, timeout=timeout, trust_env=True)
    except (ValueError, ImportError, httpx.InvalidURL) as err:
        # The error is not shown: a proxy's URL may contain a password.
        reason = "the proxy in the environment is invalid: HTTPS_PROXY or ALL_PROXY must be http://HOST:PORT"
        raise feed.failed("UNREACHABLE", reason) from err


def _trust(feed: Feed) -> ssl.SSLContext:
    """The TLS context with the system trust store, or with the feed's own CA file."""
    try:
        return ssl.create_default_context(cafile=feed.ca)
    except ssl.SSLError as err:
        raise feed.failed(
            "UNREADABLE", f"`source.ca` {feed.ca}: no certificates in PEM format: fix the file"
        ) from err
    except OSError as err:
        raise feed.failed(
            "UNREADABLE", f"`source.ca` {feed.ca}: {err.strerror}: fix the file or the option"
        ) from err


def _authorization(feed: Feed) -> str | None:
    """Reads the header for every fetch, so a new token needs no reload. Never shown, even if invalid."""
    if feed.authorization is None:
        return None
    try:
        data = document.read_bytes(feed.authorization, max_bytes=MAX_AUTHORIZATION_BYTES)
    except Refused as err:
        raise feed.failed("UNREADABLE", f"`source.authorization` {err}") from err
    line = data.strip()
    if not re.fullmatch(rb"[ -~]+", line):
        reason = "must contain one line of ASCII, such as `Bearer TOKEN`"
        raise feed.failed("UNREADABLE", f"`source.authorization` {feed.authorization}: {reason}")
    return line.decode("ascii")


@contextmanager
def _until_response(feed: Feed, url: httpx.URL) -> Iterator[None]:
    """Turns errors that occur before the response into messages for the operator."""
    prefix = redirected_to(feed, url)
    try:
        yield
    except httpx.ReadTimeout as err:
        reason = f"{prefix}no response within {SILENCE_SECONDS:g} seconds"
        raise feed.failed("TOO_SLOW", f"{reason}: {RETRIED}") from err
    except httpx.RemoteProtocolError as err:
        reason = f"{prefix}not a valid HTTP response ({shown(str(err))})"
        raise feed.failed("PROTOCOL", f"{reason}: {REPORT_IT}") from err
    except (httpx.InvalidURL, UnicodeError) as err:  # httpx parses the target of a redirect immediately
        reason = f"{prefix}redirected to an invalid URL ({shown(str(err))})"
        raise feed.failed("REDIRECT", f"{reason}: {REPORT_IT}") from err
    except httpx.ConnectTimeout as err:
        raise _unreachable(feed, f"{prefix}no connection within {CONNECT_SECONDS:g} seconds") from err
    except httpx.ProxyError as err:
        raise _unreachable(feed, f"{prefix}error of the proxy: {shown(str(err))}") from err
    except (httpx.HTTPError, OSError) as err:
        cause = _system_error(err)
        if isinstance(cause, ssl.SSLError):
            raise _untrusted(feed, prefix, cause) from err
        raise _unreachable(feed, f"{prefix}{shown(_text_of(cause))}") from err
    except Exception as err:  # any library error that a response causes is an error of the server
        reason = f"{prefix}the request failed ({shown(f'{type(err).__name__}: {err}')})"
        raise feed.failed("PROTOCOL", f"{reason}: {REPORT_IT}") from err


def redirected_to(feed: Feed, url: httpx.URL) -> str:
    """The target of a redirect, as the beginning of a reason; empty if there was no redirect."""
    return "" if url == httpx.URL(feed.url) else f"redirected to {shown(_without_secrets(url))}: "


def _untrusted(feed: Feed, prefix: str, err: ssl.SSLError) -> FetchFailed:
    text = err.verify_message if isinstance(err, ssl.SSLCertVerificationError) else str(err)
    trusted = "the system's certificates" if feed.ca is None else f"`source.ca` {feed.ca}"
    advice = f"check the server (`openssl s_client -connect`), the clock of this machine, and {trusted}"
    return feed.failed("TLS", f"{prefix}the server is not trusted: {shown(text)}: {advice}")


def _unreachable(feed: Feed, text: str) -> FetchFailed:
    advice = "check that this machine can resolve and reach it (`curl -v`), and HTTPS_PROXY if it is set"
    return feed.failed("UNREACHABLE", f"{text}: {advice}")


def _text_of(err: BaseException) -> str:
    """The text of an error, such as "Connection refused", instead of asyncio's wording."""
    if isinstance(err, OSError) and err.errno is not None and err.errno > 0:
        return os.strerror(err.errno)
    return str(err) or type(err).__name__


def _system_error(err: BaseException) -> BaseException:
    """The error of the system or of TLS, under the less specific exceptions of the libraries."""
    found: BaseException | None = err
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    if found is None:
        return err
    # All addresses of a name failed; anyio wraps their errors in one.
    below = found.__cause__
    if isinstance(below, BaseExceptionGroup):
        below = below.exceptions[0]
    return below if isinstance(below, OSError) else found


def _origin(url: httpx.URL) -> tuple[str, int]:
    """The origin (RFC 6454, section 4); the scheme is always https."""
    return url.host, url.port or 443


def _without_secrets(url: httpx.URL) -> str:
    """The URL without user, password and query."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))
