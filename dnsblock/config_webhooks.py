"""Webhooks: servers of issuers that get each event of their orders. `Config.webhooks` has them."""

from typing import Annotated, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from dnsblock.values import FilePath, HttpsUrl, Identifier, NotEmpty, Options

MAX_WEBHOOKS = 64
# The kinds of records of the ledger that name an issuer.
EventKind = Literal[
    "received",
    "signature_verified",
    "accepted",
    "held",
    "approved",
    "entries_refused",
    "refused",
    "annulled",
    "activated",
    "probed",
    "verified",
    "lifted",
    "expired",
    "receipt",
]
# Without those that change no order: a verified order is probed every hour.
CHANGES: tuple[EventKind, ...] = (
    *("received", "accepted", "held", "approved", "entries_refused", "refused", "annulled"),
    *("activated", "verified", "lifted", "expired"),
)


class Webhook(Options):
    """A server of an issuer that gets the events of its orders."""

    name: Identifier  # identifies its state over reloads and restarts
    issuer: Identifier
    url: HttpsUrl
    secret_file: FilePath  # one or two secrets, as in the specification Standard Webhooks
    ca: FilePath | None = None  # PEM; null: the system trust store
    events: Annotated[tuple[EventKind, ...], Field(max_length=14), NotEmpty] = CHANGES

    @property
    def place(self) -> str:
        """The URL without its query, which may hold a secret."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
