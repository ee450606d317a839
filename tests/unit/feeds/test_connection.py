"""Which servers a feed is fetched from: TLS, authorization, redirects and proxies."""

import asyncio
import logging
from pathlib import Path

import pytest

from dnsblock.lists.feed.fetch import Feed, FetchFailed, fetch

from ..https_server import (
    Authority,
    Server,
    head,
    tunnels_to,
    whole,
)
from .helpers import LIST, MIB, Getter

# ------- To whom it speaks -------


def test_only_https_is_fetched():
    """RFC 9110 section 4.2.4: over plain HTTP anybody on the path could write the list."""
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
    """RFC 9110 section 4.2.4: URLs appear in logs and messages."""
    with pytest.raises(ValueError, match="authorization") as caught:
        Feed("https://user:secret@feed.example/", MIB, 60)
    assert "secret" not in str(caught.value)


def test_a_certificate_of_another_authority_is_not_accepted(server: Server, get: Getter, tmp_path: Path):
    """RFC 9110 section 4.3.4: a server with another certificate may be an attacker's."""
    get.authority = Authority(tmp_path / "other")
    failed = get.fails(server.serve(whole(LIST)))
    assert failed.code == "TLS"
    assert str(get.authority.pem) in str(failed)
    assert server.requests == []


def test_the_system_trust_store_does_not_accept_an_unknown_authority(server: Server, into: Path):
    """Without `source.ca` only the system trust store counts."""
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
def test_an_invalid_certificate_is_not_accepted(
    server: Server, get: Getter, names: str, days: int, said: str
):
    """RFC 9110 section 4.3.4: name and dates are verified, too."""
    with Server(get.authority.certificate(names, days)) as wrong:
        failed = get.fails(wrong.serve(whole(LIST)))
        assert failed.code == "TLS"
        assert said in str(failed)
        assert wrong.requests == []


def test_a_server_without_tls_gets_no_request(server: Server, get: Getter):
    """The request may carry a credential: it must not be sent in the clear."""
    with Server(None) as clear:
        url = clear.serve(whole(LIST)).replace("http:", "https:")
        assert get.fails(url).code == "TLS"
        assert clear.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_without_a_listener_is_unreachable(server: Server, get: Getter, host: str):
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
def test_an_unreadable_ca_file_is_reported(
    server: Server, get: Getter, tmp_path: Path, content: bytes | None
):
    """The operator must see which file is wrong, not a TLS error."""
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
    """RFC 9110 section 15.4: a credential must not follow a redirect to another host."""
    with Server(get.authority.certificate()) as elsewhere:
        there = elsewhere.serve(whole(LIST))
        near = server.serve(whole(b"", "302 Found", location=there))
        get(server.serve(whole(b"", "302 Found", location=near)), authorization=token)
        assert [request.headers.get("authorization") for request in server.requests] == ["Bearer s3cret"] * 2
        assert [request.headers.get("authorization") for request in elsewhere.requests] == [None]


def test_secrets_are_never_shown(server: Server, get: Getter, token: Path, caplog: pytest.LogCaptureFixture):
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
def test_an_invalid_credential_is_reported_without_showing_it(
    server: Server, get: Getter, tmp_path: Path, content: bytes | None
):
    """RFC 9110 section 5.5; the message must not show the secret."""
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
    """RFC 9110 section 15.4: clients should limit redirects."""
    get(chain(server, 5))
    assert get.into.read_bytes() == LIST


def test_the_sixth_redirect_is_not(server: Server, get: Getter):
    """RFC 9110 section 15.4: clients should limit redirects."""
    assert get.fails(chain(server, 6)).code == "REDIRECT"
    assert len(server.requests) == 6


def test_a_redirect_loop_ends(server: Server, get: Getter):
    """RFC 9110 section 15.4: clients should detect loops."""
    url = server.serve(whole(b"", "302 Found", location="/loop"), "/loop")
    assert get.fails(url).code == "REDIRECT"
    assert len(server.requests) == 6


def test_a_redirect_out_of_https_is_not_followed(server: Server, get: Getter):
    """A redirect must not give up TLS."""
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
def test_a_redirect_to_an_invalid_url_is_not_followed(server: Server, get: Getter, location: str):
    """A `Location` that is no HTTPS URL is refused, whatever it holds."""
    location = location.format(port=server.port)
    failed = get.fails(server.serve(whole(b"", "302 Found", location=location)))
    assert failed.code in ("REDIRECT", "PROTOCOL")
    assert "s3cret" not in str(failed)
    assert len(server.requests) == 1


def test_an_exception_of_a_library_is_a_failure_of_the_feed(
    server: Server, get: Getter, monkeypatch: pytest.MonkeyPatch
):
    """Whatever a server makes a library raise, the caller gets `FetchFailed` and nothing else."""

    async def stumble(*_: object, **__: object) -> None:
        raise ExceptionGroup("many", [OverflowError("port must be 0-65535")])

    monkeypatch.setattr("httpx.AsyncClient.send", stumble)
    assert get.fails(server.serve(whole(LIST))).code == "PROTOCOL"


def test_a_redirect_without_location_is_a_status_failure(server: Server, get: Getter):
    """RFC 9110 section 15.4: without `Location` there is nothing to follow."""
    assert get.fails(server.serve(whole(b"", "302 Found"))).code == "STATUS"


# ------- Proxies -------


def test_the_proxy_of_the_environment_is_used(server: Server, get: Getter, monkeypatch: pytest.MonkeyPatch):
    """Where the way out is a proxy; it sees where to, not what."""
    with Server(None) as proxy:
        proxy.serve(tunnels_to(server.port), f"127.0.0.1:{server.port}")
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        get(server.serve(whole(LIST)))
        assert get.into.read_bytes() == LIST
        assert [request.target for request in proxy.requests] == [f"127.0.0.1:{server.port}"]


def test_a_proxy_that_refuses_is_reported(server: Server, get: Getter, monkeypatch: pytest.MonkeyPatch):
    """The operator must look at the proxy, not at the server of the list."""
    with Server(None) as proxy:
        proxy.serve(head("407 Proxy Authentication Required"), f"127.0.0.1:{server.port}")
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        failed = get.fails(server.serve(whole(LIST)))
    assert failed.code == "UNREACHABLE"
    assert "407" in str(failed)


@pytest.mark.parametrize(
    "proxy", ["gopher://user:s3cret@127.0.0.1", "socks5://user:s3cret@127.0.0.1:1", "http://["]
)
def test_an_invalid_proxy_is_reported(
    server: Server, get: Getter, monkeypatch: pytest.MonkeyPatch, proxy: str
):
    """A typing error in an environment variable is reported with its name."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    failed = get.fails(server.serve(whole(LIST)))
    assert failed.code == "UNREACHABLE"
    assert "HTTPS_PROXY" in str(failed)
    assert "s3cret" not in str(failed)
