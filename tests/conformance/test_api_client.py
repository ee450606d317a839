"""`dnsblock.client` over HTTPS: the same methods as on the control socket, and its messages."""

from pathlib import Path

import pytest

from dnsblock.client import Client, Remote
from dnsblock.errors import DaemonUnreachable, Refused

from .furnished import furnish
from .harness import ISSUER
from .issuing import TOKENS, IssuersApi


def remote(api: IssuersApi, token: str = "chief") -> Client:
    return Client(Remote(api.url, token=TOKENS[token], ca=api.servers.pem))


def test_the_client_says_the_same_over_https_and_on_the_socket(api: IssuersApi):
    """One class for both; the role `operate` allows what the socket allows."""
    furnish(api)
    over_https, local = remote(api), api.subject.control
    assert over_https.is_ready()
    assert local.is_ready()
    for ask in (
        lambda client: client.why("one.example")["decided_by"],
        lambda client: client.why("one.example", at="2026-11-30T00:00:00Z")["verdict"],
        lambda client: client.versions(None),
        lambda client: client.versions("listed"),
        lambda client: client.diff(1, 2, 10),
        lambda client: client.history("one.example"),
        lambda client: client.sources(),
        lambda client: client.snapshot()["digest"],
        lambda client: client.checks(ISSUER, "B-1", 10)["probed"],
        lambda client: b"".join(client.export("text", ["listed"], None)),
        lambda client: next(client.events(after=0)),
    ):
        assert ask(over_https) == ask(local)
    assert over_https.roll_back(1, "a test")["changes"]["zones"][0]["zone"] == "listed"
    with pytest.raises(Refused, match="held"):
        over_https.approve(ISSUER, "B-1", [], "a test")


def test_the_client_presents_a_certificate(api: IssuersApi):
    """Instead of a token."""
    api.start()
    certificate, key = api.clients.issue("officer.ministry.example", "")
    client = Client(Remote(api.url, certificate=certificate, key=key, ca=api.servers.pem))
    assert client.orders()["orders"] == []
    with pytest.raises(Refused, match="does not have the role watch"):
        client.status()


def test_the_client_says_why_there_is_no_response(api: IssuersApi, tmp_path: Path):
    """Each message says what to do; a token is in none."""
    api.start()
    token = "dnsblock-" + "s" * 40
    with pytest.raises(DaemonUnreachable, match=r"certificate is not valid .*: name its authority with `ca`"):
        Client(Remote(api.url, token=token)).status()
    with pytest.raises(Refused, match="send a bearer token of this server"):
        Client(Remote(api.url, token=token, ca=api.servers.pem)).status()
    api.subject.stop()
    with pytest.raises(DaemonUnreachable, match="nothing is listening") as caught:
        Client(Remote(f"https://{api.subject.ready['api']}", token=token, ca=api.servers.pem)).status()
    assert token not in str(caught.value) + repr(Remote(f"https://{api.subject.ready['api']}", token=token))
    for url in ("http://dns.example", "https://", "https://dns.example/v1", "dns.example:8443"):
        with pytest.raises(ValueError, match="not the URL of an API"):
            Remote(url)
