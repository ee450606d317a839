"""The console as a browser uses it, without its scripts: cookies, forms and redirects."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from .asking import TIMEOUT
from .issuing import TOKENS, IssuersApi

READERS = frozenset({"reader", "ministry", "noc", "chief"})
AUTHORS = frozenset({"ministry", "chief"})
STAFF = frozenset({"noc", "chief"})
OPERATORS = frozenset({"chief"})
EVERYONE = frozenset({"nobody", *READERS})

# Each page, and who may use it. A new page without a row fails a test.
ROLES: Mapping[tuple[str, str], frozenset[str]] = {
    ("GET", "/login"): EVERYONE,
    ("POST", "/login"): EVERYONE,
    ("POST", "/logout"): EVERYONE,
    ("POST", "/language"): EVERYONE,
    ("GET", "/"): READERS,
    ("GET", "/series"): STAFF,
    ("GET", "/orders"): READERS,
    ("GET", "/orders/{issuer}/{number}"): READERS,
    ("POST", "/orders/{issuer}/{number}/receipt"): READERS,
    ("POST", "/orders/{issuer}/{number}/approve"): OPERATORS,
    ("POST", "/orders/{issuer}/{number}/refuse"): OPERATORS,
    ("POST", "/orders/{issuer}/{number}/annul"): OPERATORS,
    ("GET", "/new-order"): AUTHORS,
    ("POST", "/new-order"): AUTHORS,
    ("POST", "/new-order/check"): AUTHORS,
    ("GET", "/submit"): AUTHORS,
    ("POST", "/submit"): AUTHORS,
    ("GET", "/lists"): STAFF,
    ("POST", "/lists/{zone}/refresh"): OPERATORS,
    ("POST", "/lists/{zone}/accept"): OPERATORS,
    ("GET", "/exceptions"): STAFF,
    ("POST", "/exceptions"): OPERATORS,
    ("POST", "/exceptions/end"): OPERATORS,
    ("GET", "/versions"): STAFF,
    ("GET", "/diff"): STAFF,
    ("POST", "/rollback"): OPERATORS,
    ("GET", "/search"): STAFF,
    ("GET", "/probes"): STAFF,
    ("GET", "/ledger"): STAFF,
    ("POST", "/ledger/accept-restore"): OPERATORS,
    ("GET", "/maintenance"): OPERATORS,
    ("POST", "/reload"): OPERATORS,
    ("POST", "/purge"): OPERATORS,
}


class Browser:
    """One browser: it keeps cookies, and follows no redirect."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.origin = str(client.base_url).rstrip("/")

    def get(self, path: str, **options: object) -> httpx.Response:
        return self.client.get(f"/console{path}", **options)

    def secret(self, path: str = "/") -> str:
        """The secret of the forms of a page; empty if it has none."""
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', self.get(path).text)
        return "" if found is None else found[1]

    def post(
        self,
        path: str,
        fields: Mapping[str, str] | None = None,
        files: Mapping[str, tuple[str, bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
        csrf: str | None = None,
    ) -> httpx.Response:
        """Sends a form of a page of this console. `csrf`: instead of the secret of the session."""
        secret = self.secret() if csrf is None else csrf
        parts = [(name, (None, value)) for name, value in {"csrf": secret, **(fields or {})}.items()]
        parts += list((files or {}).items())
        own = {"origin": self.origin, "sec-fetch-site": "same-origin"} if headers is None else headers
        return self.client.post(f"/console{path}", files=parts, headers=own)

    def sign_in(self, token: str) -> httpx.Response:
        return self.post("/login", {"token": TOKENS.get(token, token)}, csrf="")


@contextmanager
def browser(
    api: IssuersApi,
    who: str | None = None,
    *,
    url: str | None = None,
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[Browser]:
    """A browser at the console, signed in with the token of this name."""
    url = url or f"https://{api.subject.status()['console'] or api.subject.status()['api']}"
    tls = api.tls(certificate)
    with httpx.Client(base_url=url, verify=tls, timeout=TIMEOUT, trust_env=False) as client:
        found = Browser(client)
        if who is not None and who != "nobody":
            response = found.sign_in(who)
            assert response.status_code == 303, response.text
        yield found


def refused(api: IssuersApi, code: str) -> float:
    """How many requests the console has refused with this code."""
    return api.subject.metrics().total("dnsblock_console_refused_total", code=code)
