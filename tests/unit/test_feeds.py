"""Feeds over HTTPS, from a real server that does what servers do when they break or are forged."""

import asyncio
import gc
import gzip
import hashlib
import logging
import re
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from random import Random
from typing import get_args

import pytest

from dnsblock.errors import FetchCode
from dnsblock.lists.feed import https
from dnsblock.lists.feed.download import Download
from dnsblock.lists.feed.fetch import Feed, Fetched, FetchFailed, Validators, fetch
from dnsblock.lists.feed.schedule import Schedule, retry_after_seconds

from .https_server import (
    Authority,
    Server,
    chunk,
    for_ever,
    gzipped,
    head,
    then_silent,
    tunnels_to,
    whole,
)

LIST = b"".join(b"name%06d.example\n" % number for number in range(100_000))
BEFORE = b"before.example\n"
MIB = 1 << 20
CHUNKED = head(transfer_encoding="chunked")
PROXIES = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("feeds") / "authority")


@pytest.fixture(scope="module")
def module_server(authority: Authority) -> Iterator[Server]:
    with Server(authority.certificate()) as server:
        yield server


@pytest.fixture
def server(module_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    module_server.requests.clear()
    return module_server


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Where the list goes, which holds that of before."""
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "list.txt").write_bytes(BEFORE)
    return folder / "list.txt"


@pytest.fixture
def get(authority: Authority, into: Path) -> "Getter":
    return Getter(authority, into)


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


# ------- What goes well -------


def test_a_list_is_fetched_whole(server: Server, get: Getter):
    url = server.serve(whole(LIST, content_type="text/plain; charset=utf-8", etag='"7"'))
    fetched = get(url)
    assert isinstance(fetched, Fetched)
    assert fetched.path.read_bytes() == LIST
    assert (fetched.octets, fetched.sha256) == (len(LIST), hashlib.sha256(LIST).hexdigest())
    assert (fetched.validators, fetched.content_type) == (Validators('"7"'), "text/plain; charset=utf-8")
    assert list(get.into.parent.iterdir()) == [get.into]


def test_a_list_in_chunks_is_fetched_whole(server: Server, get: Getter):
    get(server.serve(CHUNKED + chunk(LIST[:1000]) + chunk(LIST[1000:]) + chunk(b"")))
    assert get.into.read_bytes() == LIST


@pytest.mark.parametrize("name", ["gzip", "GZIP", "x-gzip"])
def test_a_list_comes_compressed(server: Server, get: Getter, name: str):
    body = gzip.compress(LIST)
    fetched = get(server.serve(whole(body, content_encoding=name)))
    assert server.requests[0].headers["accept-encoding"] == "gzip"
    assert isinstance(fetched, Fetched)
    assert (fetched.octets, fetched.sha256) == (len(LIST), hashlib.sha256(LIST).hexdigest())
    assert get.into.read_bytes() == LIST


def test_gzip_of_several_members_is_one_list(server: Server, get: Getter):
    """RFC 1952, section 2.2: the first member alone would be half of a list."""
    body = gzip.compress(LIST[:1000]) + gzip.compress(b"") + gzip.compress(LIST[1000:])
    get(server.serve(whole(body, content_encoding="gzip")))
    assert get.into.read_bytes() == LIST


def test_gzip_that_is_not_made_of_whole_pieces_loses_nothing(server: Server, get: Getter):
    """What a few octets become may be more than is decoded at once, and end at any place."""
    for size in (MIB - 1, MIB, MIB + 1, 3 * MIB):
        body = (b"a.example\n" * MIB)[:size]
        get(server.serve(gzipped(body)))
        assert get.into.read_bytes() == body


def test_gzip_needs_no_length_since_it_has_its_own(server: Server, get: Getter):
    get(server.serve(head(content_encoding="gzip") + gzip.compress(LIST)))
    assert get.into.read_bytes() == LIST


def test_progress_is_told_to_the_end(server: Server, get: Getter):
    told: list[tuple[int, int | None]] = []
    feed = get.feed(server.serve(whole(LIST)))
    asyncio.run(fetch(feed, get.into, None, lambda octets, of: told.append((octets, of))))
    assert told[-1] == (len(LIST), len(LIST))
    assert told == sorted(told)
    assert len(told) > 1


def test_a_half_that_a_power_cut_left_behind_is_replaced(server: Server, get: Getter):
    get.into.with_name("list.txt.part").write_bytes(b"half")
    get(server.serve(whole(LIST)))
    assert get.into.read_bytes() == LIST
    assert list(get.into.parent.iterdir()) == [get.into]


def test_nothing_is_written_through_a_link_in_the_place_of_the_half(
    server: Server, get: Getter, tmp_path: Path
):
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    get.into.with_name("list.txt.part").symlink_to(target)
    get(server.serve(whole(LIST)))
    assert (target.read_bytes(), get.into.read_bytes()) == (b"untouched", LIST)


def test_a_large_list_costs_little_memory(server: Server, get: Getter):
    url = server.serve(gzipped(b"name.example\n" * (5 * MIB)))
    assert peak_of(lambda: get(url, max_bytes=100 * MIB)) < 8 * MIB
    assert get.into.stat().st_size == 65 * MIB


def peak_of(work: object) -> int:
    """How many octets of memory Python had at once."""
    tracemalloc.start()
    try:
        work()  # type: ignore[operator]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ------- The same list again -------


def test_a_list_that_is_not_modified_is_not_sent_again(server: Server, get: Getter):
    """RFC 9110, section 13.1."""
    first = get(server.serve(whole(LIST, etag='W/"7"', last_modified="Tue, 01 Sep 2026 10:00:00 GMT")))
    assert isinstance(first, Fetched)
    second = get(server.serve(head("304 Not Modified", etag='W/"7"')), first.validators)
    assert second is None
    asked = server.requests[-1].headers
    assert asked["if-none-match"] == 'W/"7"'
    assert asked["if-modified-since"] == "Tue, 01 Sep 2026 10:00:00 GMT"
    assert get.into.read_bytes() == LIST


@pytest.mark.parametrize("known", [None, Validators()])
def test_not_modified_is_no_answer_to_who_knows_nothing(
    server: Server, get: Getter, known: Validators | None
):
    failed = get.fails(server.serve(head("304 Not Modified")), known)
    assert failed.code == "STATUS"
    assert not {"if-none-match", "if-modified-since"} & server.requests[-1].headers.keys()


@pytest.mark.parametrize("etag", ['"caf\xe9"', '"\x1b[2J"', '"' + "7" * 300 + '"'])
def test_validators_that_could_not_be_sent_back_are_not_kept(server: Server, get: Getter, etag: str):
    fetched = get(server.serve(whole(LIST, etag=etag, last_modified="today")))
    assert isinstance(fetched, Fetched)
    assert fetched.validators == Validators(None, "today")


# ------- To whom it speaks -------


def test_only_https_is_fetched():
    for url in (
        "http://feed.example/list",
        "ftp://feed.example/",
        "feed.example/list",
        "https://",
        "https://[::",
    ):
        with pytest.raises(ValueError, match=r"."):
            Feed(url, MIB, 60)


def test_a_password_in_a_url_is_refused():
    with pytest.raises(ValueError, match="authorization") as caught:
        Feed("https://user:secret@feed.example/", MIB, 60)
    assert "secret" not in str(caught.value)


def test_another_authority_is_not_believed(server: Server, get: Getter, tmp_path: Path):
    get.authority = Authority(tmp_path / "other")
    failed = get.fails(server.serve(whole(LIST)))
    assert failed.code == "TLS"
    assert str(get.authority.pem) in str(failed)
    assert server.requests == []


def test_the_systems_authorities_do_not_believe_a_strange_one(server: Server, into: Path):
    with pytest.raises(FetchFailed) as caught:
        asyncio.run(fetch(Feed(server.serve(whole(LIST)), MIB, 60), into, None))
    assert caught.value.code == "TLS"
    assert server.requests == []


@pytest.mark.parametrize(
    ("names", "days", "said"),
    [
        ("DNS:localhost,IP:127.0.0.1", 0, "expired"),
        ("DNS:other.example,IP:192.0.2.1", 2, "127.0.0.1"),
    ],
)
def test_a_certificate_that_is_not_right_is_not_accepted(
    server: Server, get: Getter, names: str, days: int, said: str
):
    with Server(get.authority.certificate(names, days)) as wrong:
        failed = get.fails(wrong.serve(whole(LIST)))
        assert failed.code == "TLS"
        assert said in str(failed)
        assert wrong.requests == []


def test_a_server_that_does_not_speak_tls_gets_nothing(server: Server, get: Getter):
    with Server(None) as clear:
        url = clear.serve(whole(LIST)).replace("http:", "https:")
        assert get.fails(url).code == "TLS"
        assert clear.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nobody_listens(server: Server, get: Getter, host: str):
    """A name with several addresses, as `localhost` often is, says no less about it."""
    with Server(None) as gone:
        url = f"https://{host}:{gone.port}/list.txt"
    failed = get.fails(url)
    assert failed.code == "UNREACHABLE"
    assert "Connection refused" in str(failed)


def test_a_host_that_does_not_exist_is_unreachable(server: Server, get: Getter):
    """RFC 6761, section 6.4: `invalid` never does."""
    assert get.fails("https://feed.invalid/list.txt", timeout=20).code == "UNREACHABLE"


@pytest.mark.parametrize("content", [None, b"", b"no certificate\n", b"\xff\0"])
def test_an_authority_that_cannot_be_read_is_told(
    server: Server, get: Getter, tmp_path: Path, content: bytes | None
):
    pem = tmp_path / "bundle.pem"
    if content is not None:
        pem.write_bytes(content)
    feed = Feed(server.serve(whole(LIST)), MIB, 60, ca=pem)
    with pytest.raises(FetchFailed, match=r"bundle\.pem") as caught:
        asyncio.run(fetch(feed, get.into, None))
    assert caught.value.code == "UNREADABLE"
    assert server.requests == []


# ------- Authorization -------


@pytest.fixture
def token(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("Bearer s3cret\n")
    return tmp_path / "token"


def test_authorization_goes_to_the_feeds_own_host_and_no_further(server: Server, get: Getter, token: Path):
    with Server(get.authority.certificate()) as elsewhere:
        there = elsewhere.serve(whole(LIST))
        near = server.serve(whole(b"", "302 Found", location=there))
        get(server.serve(whole(b"", "302 Found", location=near)), authorization=token)
        assert [request.headers.get("authorization") for request in server.requests] == ["Bearer s3cret"] * 2
        assert [request.headers.get("authorization") for request in elsewhere.requests] == [None]


def test_secrets_are_never_told(server: Server, get: Getter, token: Path, caplog: pytest.LogCaptureFixture):
    """Neither the token nor what a URL's query holds, whatever fails."""
    caplog.set_level(logging.WARNING)
    url = server.serve(whole(b"", "403 Forbidden"))
    failed = get.fails(f"{url}?key=s3cret", authorization=token)
    assert server.requests[-1].target.endswith("?key=s3cret")
    assert server.requests[-1].headers["authorization"] == "Bearer s3cret"
    assert "s3cret" not in f"{failed} {failed!r} {caplog.text} {get.feed(url, authorization=token)}"


@pytest.mark.parametrize(
    "content", [None, b"", b"\n", b"Bearer s3cret\nX: y\n", b"Bearer s3cr\xe9t", b"s3cret" * 2000]
)
def test_authorization_that_cannot_be_sent_is_told_without_it(
    server: Server, get: Getter, tmp_path: Path, content: bytes | None
):
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    failed = get.fails(server.serve(whole(LIST)), authorization=tmp_path / "token")
    assert failed.code == "UNREADABLE"
    assert str(tmp_path / "token") in str(failed)
    assert "s3cr" not in str(failed)
    assert server.requests == []


# ------- Redirects -------


def chain(server: Server, redirects: int) -> str:
    url = server.serve(whole(LIST))
    for _ in range(redirects):
        url = server.serve(
            whole(b"moved", "301 Moved Permanently", location=url.partition(str(server.port))[2])
        )
    return url


def test_five_redirects_are_followed(server: Server, get: Getter):
    get(chain(server, 5))
    assert get.into.read_bytes() == LIST


def test_the_sixth_redirect_is_not(server: Server, get: Getter):
    assert get.fails(chain(server, 6)).code == "REDIRECT"
    assert len(server.requests) == 6


def test_a_redirect_loop_ends(server: Server, get: Getter):
    url = server.serve(whole(b"", "302 Found", location="/loop"), "/loop")
    assert get.fails(url).code == "REDIRECT"
    assert len(server.requests) == 6


def test_a_redirect_out_of_https_is_not_followed(server: Server, get: Getter):
    with Server(None) as clear:
        failed = get.fails(server.serve(whole(b"", "302 Found", location=clear.serve(whole(LIST)))))
        assert failed.code == "REDIRECT"
        assert clear.requests == []


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "https:evil",
        "https://user:s3cret@127.0.0.1:{port}/x",
        "gopher://127.0.0.1/",
        "ftp:\x1b[31m",
        "https://127.0.0.1:0/x",
        "https://127.0.0.1:-1/x",
        "//127.0.0.1:65536/x",
        "https://127.0.0.1:99999/x",
        "https://[::1]:{port}9/x",
    ],
)
def test_a_redirect_to_elsewhere_is_not_followed(server: Server, get: Getter, location: str):
    location = location.format(port=server.port)
    failed = get.fails(server.serve(whole(b"", "302 Found", location=location)))
    assert failed.code in ("REDIRECT", "PROTOCOL")
    assert "s3cret" not in str(failed)
    assert len(server.requests) == 1


def test_what_the_libraries_stumble_over_is_a_failure_of_the_feed(
    server: Server, get: Getter, monkeypatch: pytest.MonkeyPatch
):
    """A server finds a way that nobody has thought of: whoever asks hears `FetchFailed`, and nothing else."""

    async def stumble(*_: object, **__: object) -> None:
        raise ExceptionGroup("many", [OverflowError("port must be 0-65535")])

    monkeypatch.setattr("httpx.AsyncClient.send", stumble)
    assert get.fails(server.serve(whole(LIST))).code == "PROTOCOL"


def test_a_redirect_to_nowhere_is_a_status(server: Server, get: Getter):
    assert get.fails(server.serve(whole(b"", "302 Found"))).code == "STATUS"


# ------- Proxies -------


def test_the_environments_proxy_is_used(server: Server, get: Getter, monkeypatch: pytest.MonkeyPatch):
    """Where the way out is a proxy; it sees where to, not what."""
    with Server(None) as proxy:
        proxy.serve(tunnels_to(server.port), f"127.0.0.1:{server.port}")
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        get(server.serve(whole(LIST)))
        assert get.into.read_bytes() == LIST
        assert [request.target for request in proxy.requests] == [f"127.0.0.1:{server.port}"]


def test_a_proxy_that_refuses_is_told(server: Server, get: Getter, monkeypatch: pytest.MonkeyPatch):
    with Server(None) as proxy:
        proxy.serve(head("407 Proxy Authentication Required"), f"127.0.0.1:{server.port}")
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        failed = get.fails(server.serve(whole(LIST)))
    assert failed.code == "UNREACHABLE"
    assert "407" in str(failed)


@pytest.mark.parametrize(
    "proxy", ["gopher://user:s3cret@127.0.0.1", "socks5://user:s3cret@127.0.0.1:1", "http://["]
)
def test_a_proxy_that_cannot_be_meant_is_told(
    server: Server, get: Getter, monkeypatch: pytest.MonkeyPatch, proxy: str
):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    failed = get.fails(server.serve(whole(LIST)))
    assert failed.code == "UNREACHABLE"
    assert "HTTPS_PROXY" in str(failed)
    assert "s3cret" not in str(failed)


# ------- What breaks monthly -------


def test_a_list_cut_short_of_its_length_is_refused(server: Server, get: Getter):
    failed = get.fails(server.serve(whole(LIST)[:-100]))
    assert failed.code == "TRUNCATED"
    assert f"{len(LIST) - 100:,} octets of {len(LIST):,}" in str(failed)


@pytest.mark.parametrize("end", [b"", b"3\r\nabc", b"3\r\nabc\r\n", b"3\r\nabc\r\n0\r\n"])
def test_chunks_cut_short_are_refused(server: Server, get: Getter, end: bytes):
    assert get.fails(server.serve(CHUNKED + chunk(LIST) + end)).code == "TRUNCATED"


def test_chunks_that_are_none_are_refused(server: Server, get: Getter):
    assert get.fails(server.serve(CHUNKED + chunk(LIST) + b"no number\r\n")).code == "TRUNCATED"


@pytest.mark.parametrize("cut", [1, 8, 9, 10_000])
def test_gzip_cut_short_is_refused(server: Server, get: Getter, cut: int):
    """Although its length on the wire is what was announced."""
    body = gzip.compress(LIST)[:-cut]
    assert get.fails(server.serve(whole(body, content_encoding="gzip"))).code == "TRUNCATED"


def test_damaged_gzip_is_refused(server: Server, get: Getter):
    body = bytearray(gzip.compress(LIST))
    body[-6] ^= 1  # of the checksum
    assert get.fails(server.serve(whole(bytes(body), content_encoding="gzip"))).code == "ENCODING"
    assert get.fails(server.serve(whole(LIST, content_encoding="gzip"))).code == "ENCODING"
    assert get.fails(server.serve(whole(gzip.compress(LIST) + b"x", content_encoding="gzip"))).code in (
        "ENCODING",
        "TRUNCATED",
    )


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "\x9b31m"])
def test_an_encoding_that_was_not_asked_for_is_refused(server: Server, get: Getter, encoding: str):
    assert get.fails(server.serve(whole(LIST, content_encoding=encoding))).code == "ENCODING"


def test_a_list_whose_end_cannot_be_told_is_refused(server: Server, get: Getter):
    """RFC 9112, section 8: without a length, a lost connection looks like the end."""
    assert get.fails(server.serve(head(content_type="text/plain") + LIST)).code == "NO_LENGTH"


@pytest.mark.parametrize(
    "response",
    [
        whole(b"name.example\n", content_type="text/html"),
        whole(b"name.example\n", content_type="Text/HTML; charset=utf-8"),
        whole(b"<!DOCTYPE html><title>502 Bad Gateway</title>", content_type="text/plain"),
        whole(b"\xef\xbb\xbf\r\n\t <html>"),
        whole(b"\n" * (3 << 18) + b'<?xml version="1.0"?><Error/>'),
        gzipped(b"<html>\x1b[2J</html>"),
    ],
)
def test_a_page_in_the_place_of_the_list_is_refused(server: Server, get: Getter, response: bytes):
    assert get.fails(server.serve(response)).code == "HTML"


def test_the_message_shows_the_page(server: Server, get: Getter):
    failed = get.fails(server.serve(whole(b"<title>502 Bad Gateway</title>\x1b[2J")))
    assert "<title>502 Bad Gateway</title>" in str(failed)


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\t\n", b"\xef\xbb\xbf"])
def test_an_empty_list_is_refused(server: Server, get: Getter, body: bytes):
    assert get.fails(server.serve(whole(body))).code == "EMPTY"
    assert get.fails(server.serve(gzipped(body))).code == "EMPTY"


@pytest.mark.parametrize(
    "status", ["500 Internal Server Error", "404 Not Found", "206 Partial Content", "204 No Content"]
)
def test_any_other_status_is_refused(server: Server, get: Getter, status: str):
    failed = get.fails(server.serve(whole(b"name.example\n" if status[:3] != "204" else b"", status)))
    assert (failed.code, failed.retry_after) == ("STATUS", None)
    assert status in str(failed)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_a_server_that_wants_to_be_left_alone_is_heard(server: Server, get: Getter, status: str):
    failed = get.fails(server.serve(whole(b"", status, retry_after="120")))
    assert (failed.code, failed.retry_after) == ("STATUS", 120)
    assert get.fails(server.serve(whole(b"", status))).retry_after is None


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x16\x03\x01\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: https://[::1\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(server: Server, get: Getter, octets: bytes):
    assert get.fails(server.serve(octets)).code == "PROTOCOL"


def test_what_a_terminal_would_obey_is_not_shown(server: Server, get: Getter):
    r"""Octets above 127 are allowed in a header, and \x9b is one of a terminal's commands."""
    failed = get.fails(server.serve(whole(LIST, content_encoding="\x9b2J")))
    assert "\\x9b2j" in str(failed)
    failed = get.fails(server.serve(whole(b"", "500 \x1b[2J\x9b2J")))
    assert "500 \\x1b[2J" in str(failed)
    fetched = get(server.serve(whole(LIST, content_type="text/plain\x9b2J")))
    assert isinstance(fetched, Fetched)
    assert fetched.content_type == "text/plain\\x9b2J"


# ------- What never ends -------


def test_a_list_above_the_limit_is_not_even_begun(server: Server, get: Getter):
    failed = get.fails(server.serve(head(content_length="9" * 19)))
    assert failed.code == "TOO_LARGE"
    assert "9,999,999,999,999,999,999" in str(failed)


def test_an_option_that_a_failure_names_is_one_of_the_configuration(
    server: Server, get: Getter, tmp_path: Path
):
    """What is looked for in config/dnsblock.yaml has to be there."""
    too_large = head(content_length="9" * 19)
    advised = {
        "`source.max_mb`": get.fails(server.serve(too_large)),
        "`source.timeout_s`": get.fails(server.serve(then_silent(b"")), timeout=0.2),
        "`list`": get.fails(server.serve(whole(b"", "404 Not Found"))),
        "`source.authorization`": get.fails(server.serve(whole(LIST)), authorization=tmp_path / "none"),
    }
    for option, failed in advised.items():
        assert option in str(failed)
    feed = get.feed(server.serve(whole(LIST)))
    with pytest.raises(FetchFailed, match=r"`source\.ca`"):
        asyncio.run(fetch(replace(feed, ca=tmp_path / "none"), get.into, None))


def test_the_limit_is_the_largest_list_there_may_be(server: Server, get: Getter):
    get(server.serve(whole(LIST)), max_bytes=len(LIST))
    assert get.into.read_bytes() == LIST
    get.into.write_bytes(BEFORE)
    for response in (whole(LIST), gzipped(LIST), CHUNKED + chunk(LIST) + chunk(b"")):
        assert get.fails(server.serve(response), max_bytes=len(LIST) - 1).code == "TOO_LARGE"


@pytest.mark.parametrize("fields", [{}, {"content_encoding": "gzip"}])
def test_an_endless_list_ends(server: Server, get: Getter, fields: dict[str, str]):
    """Whether it is a list or, compressed, one member after another of nothing at all."""
    octets = gzip.compress(b"") if fields else LIST
    url = server.serve(
        for_ever(head(transfer_encoding="chunked", **fields), chunk(octets * 100 if fields else octets))
    )
    assert get.fails(url, max_bytes=MIB).code == "TOO_LARGE"


def test_a_gzip_bomb_fills_neither_memory_nor_disk(server: Server, get: Getter):
    body = gzip.compress(bytes(256 * MIB))
    assert len(body) < MIB
    url = server.serve(whole(body, content_encoding="gzip"))
    assert peak_of(lambda: get.fails(url, max_bytes=64 * MIB)) < 8 * MIB
    assert get.fails(url, max_bytes=64 * MIB).code == "TOO_LARGE"


def test_a_trickle_ends(server: Server, get: Getter):
    """Each octet comes in time, the list never."""
    url = server.serve(for_ever(head(content_length="1000000"), b"a", pause=0.01))
    failed = get.fails(url, timeout=0.5)
    assert failed.code == "TOO_SLOW"
    assert "of 1,000,000" in str(failed)


@pytest.mark.parametrize("octets", [b"", b"HTTP/1.1 200 OK\r\n", head(content_length="10"), whole(LIST)[:-1]])
def test_silence_ends(server: Server, get: Getter, octets: bytes, monkeypatch: pytest.MonkeyPatch):
    url = server.serve(then_silent(octets))
    assert get.fails(url, timeout=0.5).code == "TOO_SLOW"
    monkeypatch.setattr(https, "SILENCE_SECONDS", 0.5)
    assert get.fails(url, timeout=600).code == "TOO_SLOW"


# ------- The disk, and the one who waits -------


@pytest.mark.parametrize("folder", ["missing", "list.txt"])
def test_a_folder_that_cannot_be_written_to_is_told(server: Server, get: Getter, folder: str):
    feed, into = get.feed(server.serve(whole(LIST))), get.into.parent / folder / "new.txt"
    with pytest.raises(FetchFailed, match=re.escape(str(into))) as caught:
        asyncio.run(fetch(feed, into, None))
    assert caught.value.code == "UNWRITABLE"
    get.has_touched_nothing()


FETCH_ON_A_SMALL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from dnsblock.lists.feed.fetch import Feed, FetchFailed, fetch

url, ca, into = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    asyncio.run(fetch(Feed(url, 1 << 30, 60, Path(ca)), Path(into), None))
except FetchFailed as err:
    print(err)
"""


@pytest.mark.parametrize("size", [len(LIST), 100_001])
def test_a_full_disk_is_told(server: Server, get: Getter, size: int):
    """Also where it is noticed at the last octet only, which was kept in memory until then."""
    url = server.serve(whole(LIST[:size]))
    command = [sys.executable, "-c", FETCH_ON_A_SMALL_DISK, url, str(get.authority.pem), str(get.into)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.startswith(f"{url}: UNWRITABLE: {get.into}.part: File too large")
    get.has_touched_nothing()


def test_cancellation_midway_leaves_nothing(server: Server, get: Getter):
    feed = get.feed(server.serve(then_silent(whole(LIST)[:-1])))

    async def cancel_midway() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(fetch(feed, get.into, None, lambda *_: begun.set()))
        await asyncio.wait_for(begun.wait(), 30)
        assert get.into.with_name("list.txt.part").exists()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_midway())
    get.has_touched_nothing()


def test_cancellation_waits_for_the_disk(server: Server, get: Getter, monkeypatch: pytest.MonkeyPatch):
    """Else a thread would go on with a file that is thrown away, or with another one of the same number."""
    on_the_disk, disk_answers = threading.Event(), threading.Event()

    def write(*_: object) -> None:
        on_the_disk.set()
        assert disk_answers.wait(30)

    async def cancel_twice() -> None:
        task = asyncio.create_task(fetch(get.feed(server.serve(whole(LIST))), get.into, None))
        assert await asyncio.to_thread(on_the_disk.wait, 30)
        for _ in range(2):
            task.cancel()
            for _ in range(100):
                await asyncio.sleep(0)
        assert not task.done()
        disk_answers.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(Download, "add", write)
    asyncio.run(cancel_twice())
    get.has_touched_nothing()


# A handshake that is interrupted leaves its socket to the garbage collector (httpcore 1.0.9).
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_cancellation_at_any_step_leaves_a_whole_list(server: Server, get: Getter):
    """After each turn of the event loop, until one fetch is done before it would be cancelled."""
    feed = get.feed(server.serve(whole(LIST)))

    async def cancel_after(turns: int) -> bool:
        task = asyncio.create_task(fetch(feed, get.into, None))
        for _ in range(turns):
            await asyncio.sleep(0)
        was_done = task.done()
        task.cancel()
        await asyncio.wait({task})
        return was_done

    turns = 1
    while not asyncio.run(cancel_after(turns)):
        assert list(get.into.parent.iterdir()) == [get.into]
        assert get.into.read_bytes() in (BEFORE, LIST)
        turns += 1 + turns // 4
    assert get.into.read_bytes() == LIST
    gc.collect()


def test_an_error_of_the_caller_leaves_nothing(server: Server, get: Getter):
    def fail(*_: object) -> None:
        raise OSError("of the caller")

    with pytest.raises(OSError, match="of the caller"):
        asyncio.run(fetch(get.feed(server.serve(whole(LIST))), get.into, None, fail))
    get.has_touched_nothing()


# ------- When it is asked for again -------

EVERY = 3600.0


def test_good_fetches_are_a_tenth_more_or_less_apart():
    schedule = Schedule(EVERY, Random(1))
    waits = [schedule.after_success() for _ in range(1000)]
    assert EVERY * 0.9 <= min(waits) < EVERY * 0.91
    assert EVERY * 1.09 < max(waits) <= EVERY * 1.1


def test_failures_in_a_row_back_off_up_to_the_usual_wait():
    longest = [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    for seed in range(100):
        schedule = Schedule(EVERY, Random(seed))
        waits = [schedule.after_failure() for _ in longest]
        assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))


def test_a_success_ends_the_back_off():
    schedule = Schedule(EVERY, Random(1))
    for _ in range(2000):  # two to this power is no number that a float can hold
        schedule.after_failure()
    schedule.after_success()
    assert schedule.after_failure() <= 30


def test_a_feed_that_is_fetched_often_is_never_fetched_less_often_for_failing():
    schedule = Schedule(10, Random(1))
    assert all(5 <= schedule.after_failure() <= 10 for _ in range(100))


def test_providers_do_not_come_all_at_once():
    assert len({Schedule(EVERY, Random(seed)).after_failure() for seed in range(100)}) == 100
    assert len({Schedule(EVERY, Random(seed)).after_failure(600) for seed in range(100)}) == 100
    assert len({Schedule(EVERY).after_success() for _ in range(100)}) == 100


def test_a_wish_to_be_left_alone_is_honoured_within_a_day():
    for seed in range(100):
        assert 7200 <= Schedule(EVERY, Random(seed)).after_failure(7200) <= 7200 * 1.1
        assert 15 <= Schedule(EVERY, Random(seed)).after_failure(0) <= 30
        assert Schedule(EVERY, Random(seed)).after_failure(1e9) == 86_400


NOW = datetime(2026, 9, 1, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        (format_datetime(NOW + timedelta(minutes=5), usegmt=True), 300),
        ("Tuesday, 01-Sep-26 10:05:00 GMT", 300),
        ("Tue Sep  1 10:05:00 2026", 300),
        (format_datetime(NOW - timedelta(minutes=5), usegmt=True), 0),
        ("999999999", 86_400),
        ("9" * 5000, 86_400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 86_400),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("\u0661\u0662", None),
        ("Tue, 99 Sep 2026 10:00:00 GMT", None),
        ("Tue, 01 Sep 99999999999999999999 10:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None):
    """RFC 9110, sections 10.2.3 and 5.6.7: all three forms of a date."""
    assert retry_after_seconds(value, NOW) == seconds


# ------- Documentation -------


def test_every_failure_is_documented():
    docs = Path(__file__).parents[2] / "docs"
    [section] = [
        re.split(r"^#+ Feeds over HTTPS$", text, maxsplit=1, flags=re.MULTILINE)[1]
        for page in docs.glob("*.md")
        if re.search(r"^#+ Feeds over HTTPS$", text := page.read_text(), re.MULTILINE)
    ]
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE)) == set(get_args(FetchCode))
