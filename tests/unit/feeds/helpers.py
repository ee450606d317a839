"""Fetches lists from a server of the tests, with limits that suit a test."""

import asyncio
import tracemalloc
from pathlib import Path

import pytest

from dnsblock.lists.feed.fetch import Feed, Fetched, FetchFailed, Validators, fetch

from ..https_server import (
    Authority,
    head,
)

LIST = b"".join(b"name%06d.example\n" % number for number in range(100_000))
BEFORE = b"before.example\n"
MIB = 1 << 20
CHUNKED = head(transfer_encoding="chunked")
PROXIES = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


class Getter:
    """Fetches from a URL, with limits that suit a test."""

    def __init__(self, authority: Authority, into: Path) -> None:
        self.authority = authority
        self.into = into

    def feed(
        self, url: str, *, max_bytes: int = 8 * MIB, timeout: float = 60, authorization: Path | None = None
    ) -> Feed:
        return Feed(url, max_bytes, timeout, self.authority.pem, authorization)

    def __call__(self, url: str, known: Validators | None = None, **limits: object) -> Fetched | None:
        return asyncio.run(fetch(self.feed(url, **limits), self.into, known))  # type: ignore[arg-type]

    def fails(self, url: str, known: Validators | None = None, **limits: object) -> FetchFailed:
        """The failure; it has touched nothing, and can be shown to anybody."""
        with pytest.raises(FetchFailed) as caught:
            self(url, known, **limits)
        self.has_touched_nothing()
        assert str(caught.value).isprintable()
        assert str(caught.value).startswith(f"{url.partition('?')[0]}: {caught.value.code}: ")
        return caught.value

    def has_touched_nothing(self) -> None:
        assert {file.name: file.read_bytes() for file in self.into.parent.iterdir()} == {"list.txt": BEFORE}


def peak_of(work: object) -> int:
    """The most bytes of memory that Python had at once."""
    tracemalloc.start()
    try:
        work()  # type: ignore[operator]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
