"""The issuers' API as its clients see it: HTTPS, with tokens and certificates that a test makes."""

import hashlib
import http.client
import json
import shutil
import ssl
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from unit.https_server import Authority

from .asking import TIMEOUT
from .harness import ISSUER, Subject
from .orders import as_yaml

COURT = "court.example"
ZONES = [
    {"name": "ministry", "issuer": ISSUER, "unsigned": "accept", "answer": "sinkhole"},
    {"name": "court", "issuer": COURT, "unsigned": "accept", "answer": "sinkhole"},
]
NAMES = ("ministry", "reader", "court", "old", "noc", "chief")
TOKENS = {name: f"dnsblock-{name}-{'x' * 40}" for name in NAMES}


def by_token(
    name: str, roles: Iterable[str] = ("submit", "read"), issuers: Iterable[str] = (ISSUER,)
) -> dict:
    """A line of the file of clients, for the token of this name."""
    digest = hashlib.sha256(TOKENS[name].encode()).hexdigest()
    return {"name": name, "sha256": digest, "roles": list(roles), "issuers": list(issuers)}


def staff(name: str, *roles: str) -> dict:
    """A line of the file of clients, for the token of one of the provider's own staff."""
    digest = hashlib.sha256(TOKENS[name].encode()).hexdigest()
    return {"name": name, "sha256": digest, "roles": list(roles)}


def by_certificate(
    certificate: str,
    name: str = "holder",
    roles: Iterable[str] = ("submit", "read"),
    issuers: Iterable[str] = (ISSUER,),
) -> dict:
    """A line of the file of clients, for a certificate with this name or fingerprint."""
    return {"name": name, "certificate": certificate, "roles": list(roles), "issuers": list(issuers)}


CLIENTS = [
    by_token("ministry"),
    by_token("reader", roles=["read"]),
    by_token("court", issuers=[COURT]),
    staff("noc", "watch"),
    staff("chief", "operate"),
    by_certificate("officer.ministry.example"),
]


@dataclass
class IssuersApi:
    """A daemon with an API, and the authorities of its certificates."""

    subject: Subject
    servers: Authority
    clients: Authority
    config: dict = field(default_factory=dict)  # beside `api`

    def start(self, clients: Iterable[dict] = tuple(CLIENTS), **config: object) -> None:
        """Starts the daemon with a certificate for 127.0.0.1, and these clients."""
        self.renew()
        self.know(clients)
        shutil.copy(self.clients.pem, self.subject.folder / "clients.pem")
        self.config = {"zones": ZONES, **config}
        self.subject.start(api=self.options(), **self.config)

    def options(self, listen: str = "127.0.0.1:0", **more: object) -> dict:
        """The option `api`."""
        files = {
            "certificate": "api.pem",
            "key": "api.key",
            "tokens": "clients.yaml",
            "clients": "clients.pem",
        }
        return {"listen": listen, **files, **more}

    def configure(self, api: dict | None, **config: object) -> None:
        """Writes the configuration again, with the ports that are in use."""
        ready = self.subject.ready
        fixed = {"listen": ready["listening"], "metrics": ready["metrics"]}
        self.subject.configure(api=api, **(self.config | fixed | config))

    def renew(self, names: str = "DNS:localhost,IP:127.0.0.1") -> None:
        """Another certificate of the server, in its files."""
        certificate, key = self.servers.issue("api", names)
        shutil.copy(certificate, self.subject.folder / "api.pem")
        shutil.copy(key, self.subject.folder / "api.key")

    def know(self, clients: Iterable[dict]) -> None:
        """Writes the file of clients."""
        (self.subject.folder / "clients.yaml").write_text(as_yaml(list(clients)))

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.subject.status()["api"].rsplit(":", 1)
        return host, int(port)

    @property
    def url(self) -> str:
        return f"https://{self.subject.status()['api']}"

    def tls(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """The settings of a client that trusts the authority of the server."""
        context = ssl.create_default_context(cafile=self.servers.pem)
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context

    def client(self, token: str | None = None, certificate: tuple[Path, Path] | None = None) -> httpx.Client:
        """A client with these credentials; close it."""
        headers = {} if token is None else {"Authorization": f"Bearer {TOKENS.get(token, token)}"}
        return httpx.Client(
            base_url=self.url, verify=self.tls(certificate), headers=headers, timeout=TIMEOUT, trust_env=False
        )

    def connection(self) -> http.client.HTTPSConnection:
        """A connection without credentials, for requests that httpx does not send."""
        host, port = self.address
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=self.tls())

    def get(self, path: str, token: str | None = "ministry") -> httpx.Response:
        with self.client(token) as client:
            return client.get(path)

    def submit(
        self, *documents: dict | bytes, token: str | None = "ministry", **more: bytes
    ) -> httpx.Response:
        """POST /v1/orders, as curl sends it; `more` are parts after the last document."""
        with self.client(token) as client:
            return client.post("/v1/orders", files=form(*documents, **more))

    def closed(self, reason: str) -> float:
        """How many connections were closed for this reason."""
        name = "dnsblock_http_closed_connections_total"
        return self.subject.metrics().total(name, listener="api", reason=reason)

    def refused(self, code: str) -> float:
        return self.subject.metrics().total("dnsblock_api_refused_total", code=code)


Three = tuple[IssuersApi, IssuersApi, IssuersApi]


@contextmanager
def three_instances(folder: Path, servers: Authority, clients: Authority) -> Iterator[Three]:
    """Three running instances with the same clients, each in a folder of its own."""
    with ExitStack() as stack:
        found = []
        for name in ("one", "two", "three"):
            (folder / name).mkdir()
            subject = stack.enter_context(closing(Subject(folder / name)))
            found.append(IssuersApi(subject, servers, clients))
            found[-1].start()
        one, two, three = found
        yield one, two, three


def form(*documents: dict | bytes, **more: bytes) -> list:
    """The parts of a form, for httpx."""
    parts = []
    for number, document in enumerate(documents):
        data = as_yaml(document).encode() if isinstance(document, dict) else document
        parts.append(("document", (f"{number}.yaml", data)))
    return [*parts, *((name, (name, data)) for name, data in more.items())]


def problem(response: httpx.Response, status: int, code: str) -> dict:
    """The problem details of a refusal (RFC 9457)."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    details = json.loads(response.text)
    assert (response.status_code, details["status"], details["code"]) == (status, status, code), details
    assert details["type"] == f"urn:dnsblock:problem:{code.lower().replace('_', '-')}"
    assert details["title"]
    assert details["detail"].isprintable()
    return details
