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
async def ask(feed: Feed, conditions: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
    """Requests the feed and follows redirects; the body is not read yet. Raises `FetchFailed`."""
    context = await asyncio.to_thread(_trust, feed)
    authorization = await asyncio.to_thread(_authorization, feed)
    headers = {"User-Agent": f"dnsblock/{__version__}", "Accept-Encoding": "gzip", **conditions}
    home = url = httpx.URL(feed.url)
    async with _client(context, feed) as client:
        for _ in range(MAX_REDIRECTS + 1):
            request = client.build_request("GET", url, headers=headers)
            if authorization is not None and _origin(url) == _origin(home):
                request.headers["Authorization"] = authorization
            with _until_it_answers(feed, url):
                response = await client.send(request, stream=True)
            try:
                if response.next_request is None:
                    yield response
                    return
            finally:
                await response.aclose()
            url = _followed(feed, response.next_request.url)
    reason = f"more than {MAX_REDIRECTS} redirects, the last to {shown(_without_secrets(url))}"
    raise feed.failed("REDIRECT", f"{reason}: tell who runs the feed")


def _followed(feed: Feed, target: httpx.URL) -> httpx.URL:
    if target.scheme != "https":
        wrong = "not https"
    elif target.userinfo:
        wrong = "a URL with a password"
    elif not _is_port(target):
        wrong = "a port that there is not"
    else:
        return target
    reason = f"it leads to {shown(_without_secrets(target))}, {wrong}: nothing was asked there"
    raise feed.failed("REDIRECT", f"{reason}; tell who runs the feed")


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
        reason = (
            "the proxy of the environment cannot be used: HTTPS_PROXY or ALL_PROXY must be http://HOST:PORT"
        )
        raise feed.failed("UNREACHABLE", reason) from err


def _trust(feed: Feed) -> ssl.SSLContext:
    """The TLS context with the system trust store, or with the feed's own CA file."""
    try:
        return ssl.create_default_context(cafile=feed.ca)
    except ssl.SSLError as err:
        raise feed.failed(
            "UNREADABLE", f"`source.ca` {feed.ca}: no certificates in PEM: mend the file"
        ) from err
    except OSError as err:
        raise feed.failed(
            "UNREADABLE", f"`source.ca` {feed.ca}: {err.strerror}: mend the file or the option"
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
        reason = "must hold one line of ASCII, such as `Bearer TOKEN`"
        raise feed.failed("UNREADABLE", f"`source.authorization` {feed.authorization}: {reason}")
    return line.decode("ascii")


@contextmanager
def _until_it_answers(feed: Feed, url: httpx.URL) -> Iterator[None]:
    """Turns errors that occur before the response into messages for the operator."""
    led = led_to(feed, url)
    try:
        yield
    except httpx.ReadTimeout as err:
        reason = f"{led}no response within {SILENCE_SECONDS:g} seconds"
        raise feed.failed("TOO_SLOW", f"{reason}: it is tried again; tell who runs the feed") from err
    except httpx.RemoteProtocolError as err:
        reason = f"{led}no proper HTTP response ({shown(str(err))})"
        raise feed.failed("PROTOCOL", f"{reason}: tell who runs the feed") from err
    except (httpx.InvalidURL, UnicodeError) as err:  # httpx parses the target of a redirect immediately
        reason = f"{led}it leads to what is no URL ({shown(str(err))})"
        raise feed.failed("REDIRECT", f"{reason}: tell who runs the feed") from err
    except httpx.ConnectTimeout as err:
        raise _unreachable(feed, f"{led}no connection within {CONNECT_SECONDS:g} seconds") from err
    except httpx.ProxyError as err:
        raise _unreachable(feed, f"{led}the proxy says {shown(str(err))}") from err
    except (httpx.HTTPError, OSError) as err:
        said = _systems_error(err)
        if isinstance(said, ssl.SSLError):
            raise _untrusted(feed, led, said) from err
        raise _unreachable(feed, f"{led}{shown(_in_words(said))}") from err
    except Exception as err:  # any library error that a response causes is an error of the server
        reason = f"{led}it could not be asked ({shown(f'{type(err).__name__}: {err}')})"
        raise feed.failed("PROTOCOL", f"{reason}: tell who runs the feed") from err


def led_to(feed: Feed, url: httpx.URL) -> str:
    """The target of a redirect, as the beginning of a reason; empty if there was no redirect."""
    return "" if url == httpx.URL(feed.url) else f"redirected to {shown(_without_secrets(url))}: "


def _untrusted(feed: Feed, led: str, err: ssl.SSLError) -> FetchFailed:
    said = err.verify_message if isinstance(err, ssl.SSLCertVerificationError) else str(err)
    trusted = "the system's certificates" if feed.ca is None else f"`source.ca` {feed.ca}"
    look = f"who answers there (`openssl s_client -connect`), this machine's clock, and {trusted}"
    return feed.failed("TLS", f"{led}not to be trusted: {shown(said)}: nothing was fetched. See {look}")


def _unreachable(feed: Feed, said: str) -> FetchFailed:
    look = "that this machine resolves its name and reaches it (`curl -v`), and HTTPS_PROXY if it is set"
    return feed.failed("UNREACHABLE", f"{said}: see {look}")


def _in_words(err: BaseException) -> str:
    """The text of an error, such as "Connection refused", instead of asyncio's wording."""
    if isinstance(err, OSError) and err.errno is not None and err.errno > 0:
        return os.strerror(err.errno)
    return str(err) or type(err).__name__


def _systems_error(err: BaseException) -> BaseException:
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
