"""The clients of the HTTPS API: who they are, by token or by certificate, and what they may do.

The file `api.tokens` lists them. It holds the SHA-256 of each token, never a token.
"""

import hashlib
import hmac
import re
import secrets
import ssl
import time
from asyncio import BaseTransport
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, model_validator

from dnsblock import document
from dnsblock.config import ApiOptions
from dnsblock.errors import Refused
from dnsblock.tls import MAX_BYTES, server_context
from dnsblock.values import Identifier, NotEmpty

Role = Literal["submit", "read", "watch", "operate"]
STAFF_ROLES: frozenset[Role] = frozenset({"watch", "operate"})  # of the provider's own staff
# Each role that a request needs, and the roles of a client that allow it.
ALLOWED_BY: Mapping[Role, frozenset[Role]] = {
    "submit": frozenset({"submit", "operate"}),
    "read": frozenset({"read", "watch", "operate"}),
    "watch": STAFF_ROLES,
    "operate": frozenset({"operate"}),
}

MAX_CLIENTS_BYTES = 1 << 20
MAX_CLIENTS = 1000
MAX_TOKEN_CHARACTERS = 200
PREFIX = "dnsblock-"  # of a token, for programs that search files for secrets
FINGERPRINT = "sha256:"  # of a certificate; no other name of one may begin with it
TOKEN_BYTES = 32  # random: so a plain hash is enough, and nobody can guess a token


def _token_digest(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("must be the SHA-256 of a token, 64 hexadecimal digits: see `dnsblock order token`")
    return value


class ApiClient(BaseModel):
    """One line of the file `api.tokens`: a token or a certificate, and what its holder may do."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    name: Identifier  # recorded in the ledger
    sha256: Annotated[str, AfterValidator(_token_digest)] | None = None  # of the token
    certificate: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    roles: Annotated[tuple[Role, ...], Field(max_length=10), NotEmpty]
    issuers: Annotated[tuple[Identifier, ...], Field(max_length=1000)] = ()  # of staff: none

    @property
    def is_staff(self) -> bool:
        """Whether the holder is of the provider's own staff, and not an issuer's."""
        return not STAFF_ROLES.isdisjoint(self.roles)

    def may(self, role: Role) -> bool:
        """Whether the roles allow a request that needs this one."""
        return not ALLOWED_BY[role].isdisjoint(self.roles)

    @model_validator(mode="after")
    def _is_of_issuers_or_of_staff(self) -> Self:
        if self.is_staff and not STAFF_ROLES.issuperset(self.roles):
            raise ValueError(
                "roles: must be of issuers (submit, read) or of staff (watch, operate), not of both"
            )
        if self.is_staff and self.issuers:
            raise ValueError("issuers: must be absent with watch and operate, which concern all issuers")
        if not self.is_staff and not self.issuers:
            raise ValueError("issuers: must name at least one issuer with the roles submit and read")
        return self

    @model_validator(mode="after")
    def _has_one_credential(self) -> Self:
        if (self.sha256 is None) == (self.certificate is None):
            raise ValueError("must have one of sha256 (of a token) and certificate")
        return self


class _Clients(RootModel[Annotated[tuple[ApiClient, ...], Field(max_length=MAX_CLIENTS), NotEmpty]]):
    model_config = ConfigDict(defer_build=True)


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """The credentials of the API in force: its TLS settings, and its clients."""

    context: ssl.SSLContext
    clients: tuple[ApiClient, ...]
    files: Mapping[str, tuple[Path, str]]  # by option: the path, and the SHA-256 of the content

    def by_token(self, token: str) -> ApiClient | None:
        """The client with this token. The time that it takes does not depend on the stored hashes."""
        found: ApiClient | None = None
        presented = hashlib.sha256(token.encode()).hexdigest()
        for client in self.clients:
            if client.sha256 is not None and hmac.compare_digest(client.sha256, presented):
                found = client
        return found

    def by_certificate(self, certificate: "PeerCertificate") -> ApiClient | None:
        """The client with this certificate. None if it has expired, or if several clients match."""
        if certificate.expires <= time.time():
            return None
        found = [client for client in self.clients if client.certificate in certificate.names]
        return found[0] if len(found) == 1 else None


def read_access(options: ApiOptions, former: ApiAccess | None = None, *, of: str = "api") -> ApiAccess:
    """Reads all files of the API, or of the console. Raises `Refused`.

    If none has changed, returns the `former` access. `of`: the option with the paths.
    """
    files: dict[str, tuple[Path, str]] = {}
    for option in ("certificate", "key", "clients", "tokens"):
        path: Path | None = getattr(options, option)
        if path is not None:
            data = document.read_bytes(path, max_bytes=MAX_BYTES)
            files[f"{of}.{option}"] = (path, hashlib.sha256(data).hexdigest())
    if former is not None and former.files == files:
        return former
    clients = read_clients(options.tokens)
    context = server_context(options.certificate, options.key, options.clients)
    return ApiAccess(context, clients, files)


def read_clients(path: Path) -> tuple[ApiClient, ...]:
    """Reads the file of clients. Raises `Refused` with all problems."""
    data = document.read_bytes(path, max_bytes=MAX_CLIENTS_BYTES)
    read = document.read(str(path), data, max_bytes=MAX_CLIENTS_BYTES)
    clients = read.validate(_Clients).root
    first: dict[str, int] = {}
    named: dict[str, ApiClient] = {}  # the first one with each name: further ones are further credentials
    problems = []
    for index, client in enumerate(clients):
        if named.setdefault(client.name, client).is_staff != client.is_staff:
            reason = "another client of this name has roles of issuers (submit, read) or of staff: rename one"
            problems.append(read.problem((index,), client.name, reason))
        credential = client.sha256 or client.certificate or ""
        if credential in first:
            reason = f"the client on line {first[credential]} has this token or certificate already"
            problems.append(read.problem((index,), client.name, reason))
        first.setdefault(credential, read.line((index,)))
    if problems:
        raise Refused(problems)
    return clients


# ------- Credentials -------


def new_token() -> tuple[str, str]:
    """A new random token, and its SHA-256."""
    token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    return token, hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The verified certificate of a client."""

    names: frozenset[str]  # its common name, alternative names and fingerprint
    expires: float  # Unix time

    @classmethod
    def of(cls, transport: BaseTransport) -> "PeerCertificate | None":
        """The certificate of the other side of a TLS connection, if it has presented one."""
        tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
        facts, der = tls.getpeercert(), tls.getpeercert(binary_form=True)
        if not facts or not der:
            return None
        names = (name for name in _names(facts) if not name.startswith(FINGERPRINT))
        digest = FINGERPRINT + hashlib.sha256(der).hexdigest()
        return cls(frozenset([*names, digest]), ssl.cert_time_to_seconds(str(facts["notAfter"])))


def _names(facts: Mapping[str, Any]) -> Iterator[str]:
    for attributes in facts.get("subject", ()):
        yield from (value for key, value in attributes if key == "commonName")
    for kind, value in facts.get("subjectAltName", ()):
        if kind in ("DNS", "email", "URI"):
            yield value
