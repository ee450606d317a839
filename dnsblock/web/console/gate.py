"""The gate of the console: credentials in force, sessions, protection against forged requests, counts."""

import hashlib
import hmac
import secrets
import time
from collections import Counter
from dataclasses import dataclass

from starlette.requests import Request

from dnsblock.access import MAX_TOKEN_CHARACTERS, ApiAccess, ApiClient, PeerCertificate
from dnsblock.http.answers import TITLES, ApiError
from dnsblock.http.connections import TlsConnections
from dnsblock.web.console.sessions import FailedTries, Sessions

# The prefix `__Host-` makes browsers refuse the cookie from other hosts, and without TLS (RFC 6265bis).
COOKIE = "__Host-dnsblock"
CROSS_SITE = "CROSS_SITE"  # the code of a request that another site has caused
CODES = (*TITLES, CROSS_SITE)


@dataclass(frozen=True, slots=True)
class Visitor:
    """A client that is signed in, by its session or by its certificate."""

    client: ApiClient
    csrf: str  # the value that each of its forms must send back
    session: str | None  # the identifier; None: signed in by certificate


class ConsoleGate:
    """The credentials in force, the sessions and the counts of the console."""

    def __init__(self, access: ApiAccess | None, most: int) -> None:
        """`most`: connections at the same time, if the console has its own listener."""
        self.connections, self.sessions = TlsConnections(most), Sessions()
        self.refused: Counter[str] = Counter(dict.fromkeys(CODES, 0))  # requests, by code
        self._failures, self._secret = FailedTries(), secrets.token_bytes(32)
        self._access = access
        self.connections.context = None if access is None else access.context

    @property
    def open_sessions(self) -> int:
        """Sessions of people who signed in with a token."""
        return len(self.sessions)

    def renew(self, access: ApiAccess | None) -> None:
        """Uses the credentials that a reload has read. Sessions of removed clients end."""
        if access is self._access:
            return
        self._access = access
        clients = () if access is None else access.clients
        self.sessions.keep({one.sha256 for one in clients if one.sha256 is not None})
        if access is not None:
            self.connections.renew(access.context)

    def count_refused(self, code: str) -> None:
        """Counts a request that is refused."""
        self.refused[code] += 1

    # ------- Who it is -------

    def visitor(self, request: Request, *, is_use: bool = True) -> Visitor | None:
        """The client of a request: of its session, or else of its certificate. None: not signed in."""
        if self._access is None:
            return None
        identifier = request.cookies.get(COOKIE)
        if identifier is not None:
            session = self.sessions.find(identifier, time.monotonic(), is_use=is_use)
            client = None if session is None else self._of(session.credential)
            if client is not None:
                return Visitor(client, self._csrf(identifier), identifier)
        certificate: PeerCertificate | None = getattr(request.state, "certificate", None)
        client = None if certificate is None else self._access.by_certificate(certificate)
        if client is None:
            return None
        return Visitor(client, self._csrf(f"certificate {client.certificate}"), None)

    def sign_in(self, token: str, former: str | None) -> str:
        """Starts a session for a token in place of the former one; its identifier. Raises `ApiError`."""
        access = self._access
        is_possible = 0 < len(token) <= MAX_TOKEN_CHARACTERS and token.isascii()
        client = access.by_token(token) if access is not None and is_possible else None
        now = time.monotonic()
        if client is None or client.sha256 is None:
            if not self._failures.take(now):
                raise ApiError(429, "BUSY", "too many failed tries: wait a minute, then try again")
            raise ApiError(401, "UNAUTHENTICATED", "this token is not valid here")
        if former is not None:
            self.sessions.end(former)
        return self.sessions.open(client.sha256, now)

    def _of(self, credential: str) -> ApiClient | None:
        clients = () if self._access is None else self._access.clients
        return next((one for one in clients if one.sha256 == credential), None)

    # ------- Forged requests -------

    def _csrf(self, of: str) -> str:
        return hmac.new(self._secret, of.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def check_form(self, visitor: Visitor, sent: str) -> None:
        """Raises `ApiError` if a form does not have the secret of its visitor."""
        if not hmac.compare_digest(visitor.csrf.encode(), sent.encode("utf-8", "surrogatepass")):
            raise ApiError(403, CROSS_SITE, "this form is not from this session: open the page again")


def check_same_site(request: Request) -> None:
    """Raises `ApiError` for a change that another site may have caused. Every browser sends these headers."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    is_own = origin is not None or site is not None
    if origin is not None:
        is_own = origin == f"https://{request.headers.get('host', '')}"
    if site is not None:
        is_own = is_own and site == "same-origin"
    if not is_own:
        raise ApiError(403, CROSS_SITE, "the request does not come from a page of this console")
