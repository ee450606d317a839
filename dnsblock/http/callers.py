"""The caller of a request: a local user on the control socket, or a client of the HTTPS API."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request

from dnsblock.access import MAX_TOKEN_CHARACTERS, ApiAccess, ApiClient, PeerCertificate, Role
from dnsblock.errors import Refused
from dnsblock.http.answers import ApiError, principal_of
from dnsblock.http.control import Control, View
from dnsblock.log import event
from dnsblock.principal import Principal

CHALLENGE = {"www-authenticate": 'Bearer realm="dnsblock"'}  # RFC 6750, section 3


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request, and the issuers whose orders it may concern."""

    principal: Principal
    issuers: frozenset[str] | None = None  # None: all

    @property
    def is_staff(self) -> bool:
        """Whether the caller is of the provider's own staff, who may see paths and users of this server."""
        return self.issuers is None

    @property
    def is_remote(self) -> bool:
        """Whether the request came over HTTPS, where responses are limited."""
        return self.principal.client is not None

    def sees(self, issuer: str | None) -> bool:
        """Whether the orders of an issuer exist for this caller."""
        return self.issuers is None or issuer in self.issuers


def unavailable(caller: Caller, what: str, err: OSError | Refused) -> ApiError:
    """The error if this server itself cannot do what is requested. Only staff get the reason."""
    if caller.is_staff:
        problems = err.problems if isinstance(err, Refused) else ()
        return ApiError(503, "UNAVAILABLE", f"{what}: {err}", problems)
    event(logging.WARNING, f"a request of the issuers' API failed: {what}: {err}", by=caller.principal)
    return ApiError(503, "UNAVAILABLE", f"{what}: the operator of this server has the reason in its log")


# Finds the caller of a request, who must have the role. Raises `ApiError`.
Identify = Callable[[Request, Role], Awaitable[Caller]]


async def view_of(control: Control, identify: Identify, request: Request) -> View:
    """The readable state, for a caller who may read everything. Raises `ApiError`."""
    return control.view((await identify(request, "watch")).principal)


async def local_caller(request: Request, _: Role) -> Caller:
    """The user of the control socket. Permission to open the socket allows every request."""
    return Caller(await principal_of(request))


def api_caller(access: ApiAccess, request: Request, role: Role) -> Caller:
    """The client of the HTTPS API, by its token or else by its certificate. Raises `ApiError`."""
    client = _client(access, request)
    if client is None:
        reason = "send a bearer token of this server, or present a client certificate that it knows"
        raise ApiError(401, "UNAUTHENTICATED", reason, headers=CHALLENGE)
    return caller_of(client, role)


def caller_of(client: ApiClient, role: Role) -> Caller:
    """A client whose credentials are verified. Raises `ApiError` if it lacks the role."""
    if not client.may(role):
        raise ApiError(403, "FORBIDDEN", f"the client {client.name} does not have the role {role}")
    if client.is_staff:
        return Caller(Principal("operator", client=client.name))
    return Caller(Principal("issuer", client=client.name), frozenset(client.issuers))


def _client(access: ApiAccess, request: Request) -> ApiClient | None:
    header = request.headers.get("authorization")
    if header is not None:
        # An invalid token is an error, even beside a valid certificate: the client means the token.
        scheme, _, token = header.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not 0 < len(token) <= MAX_TOKEN_CHARACTERS or not token.isascii():
            return None
        return access.by_token(token)
    certificate: PeerCertificate | None = getattr(request.state, "certificate", None)
    return None if certificate is None else access.by_certificate(certificate)
