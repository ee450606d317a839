"""The landing page. `Config.landing` has its options."""

import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from dnsblock.names import NameRefused, canonical
from dnsblock.values import Listen, NotEmpty, Options, as_written, from_text

Text = Annotated[str, Field(min_length=1, max_length=1000)]


def _site(text: str) -> str:
    """The URL of the landing site, without a slash at the end."""
    try:
        parts = urlsplit(text)
        is_valid = parts.port != 0 and bool(parts.hostname)
        canonical(parts.hostname or "")
    except (NameRefused, ValueError):
        is_valid = False
    if not is_valid or not re.fullmatch(r"https?://[a-z0-9_.-]+(:[0-9]+)?/?", text):
        raise ValueError("must be http://NAME or https://NAME, in lower case, with a port or without")
    return text.rstrip("/")


def _reachable(text: str) -> str:
    if not re.fullmatch(r"(tel:|mailto:|https?://)[\x21-\x7e]{1,200}", text):
        raise ValueError("must be a tel:, mailto:, http: or https: URI of at most 200 characters")
    return text


class Appeal(Options):
    """How to object to a block: a text in Indonesian and in English, and a page."""

    id: Text | None = None
    en: Text | None = None
    url: Annotated[str, from_text(_reachable)] | None = None


class LandingOptions(Options):
    """The page that a browser sees instead of a blocked name, over HTTP."""

    listen: Annotated[tuple[Listen, ...], Field(max_length=16), NotEmpty]
    url: Annotated[str, from_text(_site)]  # of the landing site, for links to the pages of orders
    organization: Annotated[str, Field(min_length=1, max_length=100)]  # who carries out the orders
    contact: Annotated[str, from_text(_reachable)]  # of the organization
    appeal: Appeal = as_written({})

    @model_validator(mode="after")
    def _is_listed_once(self) -> Self:
        fixed = [endpoint for endpoint in self.listen if endpoint.port]
        if len(set(fixed)) < len(fixed):
            raise ValueError("listen has an address twice")
        return self

    @property
    def name(self) -> str:
        """The domain name of the landing site."""
        return canonical(urlsplit(self.url).hostname or "")
