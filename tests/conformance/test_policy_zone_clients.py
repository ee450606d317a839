"""Policy zones for some clients only, and triggers of clients (trap 19)."""

import pytest

from . import wire
from .asking import is_forwarded
from .harness import Subject
from .policy_zones import chain, rpz, start
from .upstreams import StubUpstream


def answer_for(subject: Subject, client: str, name: str) -> wire.Reply:
    with subject.udp(source=client) as sock:
        sock.send(wire.query(name))
        return wire.read(sock.recv(65535))


def test_a_zone_may_be_for_some_clients_only(subject: Subject, upstream: StubUpstream):
    """`clients`: what one network may not see, others get, also from the cache."""
    school = rpz("school", clients=["127.0.0.64/26"])
    records = ["a.example CNAME .", "24.0.100.51.198.rpz-ip CNAME ."]
    start(subject, upstream, school, files={"school.zone": records}, cache={"size_mb": 1})
    for _ in range(2):
        assert answer_for(subject, "127.0.0.66", "a.example").rcode == "NXDOMAIN"
        assert is_forwarded(answer_for(subject, "127.0.0.1", "a.example"))
        assert is_forwarded(answer_for(subject, "127.0.0.1", "b.example"))
        assert answer_for(subject, "127.0.0.66", "b.example").rcode == "NXDOMAIN"


def test_a_list_may_be_for_some_clients_only(subject: Subject, upstream: StubUpstream):
    """The option belongs to every zone."""
    zone = {"name": "list", "list": "list.txt", "answer": "nodata", "clients": ["127.0.0.66/32"]}
    start(subject, upstream, zone, files={"list.txt": "a.example\n"})
    assert answer_for(subject, "127.0.0.66", "a.example").is_nodata
    assert is_forwarded(answer_for(subject, "127.0.0.67", "a.example"))


def test_the_address_of_a_client_may_decide(subject: Subject, upstream: StubUpstream):
    """draft-vixie-dnsop-dns-rpz section 4.1: Client IP Address; before names, the longest prefix first."""
    records = [
        "26.64.0.0.127.rpz-client-ip CNAME .",
        "32.66.0.0.127.rpz-client-ip CNAME rpz-passthru.",
        "*.t.example CNAME *.",
    ]
    start(subject, upstream, rpz(), files={"rpz.zone": records}, cache={"size_mb": 1})
    for _ in range(2):
        assert is_forwarded(answer_for(subject, "127.0.0.66", "a.t.example"))
        assert answer_for(subject, "127.0.0.1", "a.t.example").is_nodata
        assert answer_for(subject, "127.0.0.65", "a.t.example").rcode == "NXDOMAIN"
        assert answer_for(subject, "127.0.0.65", "free.example").rcode == "NXDOMAIN"


def test_why_explains_it_for_a_client(subject: Subject, upstream: StubUpstream):
    """Without a client, zones for some clients do not count; a note names them."""
    zones = [rpz("school", clients=["127.0.0.64/26"]), rpz()]
    files = {"school.zone": ["a.example CNAME ."], "rpz.zone": ["32.1.0.0.10.rpz-client-ip CNAME ."]}
    start(subject, upstream, *zones, files=files)
    said = subject.cli("why", "a.example").json
    assert (said["verdict"], len(said["notes"])) == ("not blocked", 1)
    said = subject.cli("why", "a.example", "--client", "127.0.0.66").json
    assert (said["verdict"], said["decided_by"]["zone"], said["notes"]) == ("blocked", "school", [])
    said = subject.cli("why", "b.example", "--client", "10.0.0.1").json
    assert (said["verdict"], said["decided_by"]["entry"]) == ("blocked", "10.0.0.1/32")
    assert said["decided_by"]["match"] == "client"
    assert subject.cli("why", "b.example", "--client", "10.0.0.2").json["verdict"] == "not blocked"
    assert subject.cli("why", "b.example", "--client", "nobody").code == 2


@pytest.mark.parametrize(
    ("client", "verdict", "entry"),
    [
        ("10.0.0.1", "blocked", "10.0.0.1/32"),  # its own action, before the address of the response
        ("10.0.0.2", "passthru", "10.0.0.2/32"),
        ("10.0.0.3", "blocked", "192.0.2.0/24"),
    ],
)
def test_why_explains_an_address_for_a_client(
    subject: Subject, upstream: StubUpstream, client: str, verdict: str, entry: str
):
    """The client's address decides before those of the response (draft-vixie-dnsop-dns-rpz section 5.4)."""
    triggers = [
        "32.1.0.0.10.rpz-client-ip CNAME *.",
        "32.2.0.0.10.rpz-client-ip CNAME rpz-passthru.",
        "24.0.2.0.192.rpz-ip CNAME .",
    ]
    start(subject, upstream, rpz(), files={"rpz.zone": triggers})
    said = subject.cli("why", "192.0.2.7", "--client", client).json
    assert (said["verdict"], said["decided_by"]["entry"]) == (verdict, entry)
    assert [one["decides"] for one in said["covering"]].count(True) == 1


def test_an_earlier_list_decides_about_what_a_client_may_pass(subject: Subject, upstream: StubUpstream):
    """A passthru of a client ends policy zones in RPZ format, and not lists before it."""
    listed = {"name": "nets", "addresses": "nets.txt", "answer": "nodata"}
    files = {"rpz.zone": ["32.66.0.0.127.rpz-client-ip CNAME rpz-passthru."], "nets.txt": "192.0.2.7\n"}
    start(subject, upstream, listed, rpz(), files=files)
    said = subject.cli("why", "192.0.2.7", "--client", "127.0.0.66").json
    assert (said["verdict"], said["decided_by"]["zone"]) == ("blocked", "nets")
    upstream.script = lambda asked: asked.response(chain(asked.name, addresses=["192.0.2.7"]))
    assert answer_for(subject, "127.0.0.66", "a.example").is_nodata


def test_a_zone_for_some_clients_is_not_exported(subject: Subject, upstream: StubUpstream):
    """Other software would enforce it for all."""
    files = {"school.zone": ["a.example CNAME ."], "rpz.zone": ["b.example CNAME ."]}
    start(subject, upstream, rpz("school", clients=["127.0.0.64/26"]), rpz(), files=files)
    said = subject.cli("export", "text", as_json=False)
    assert said.code != 0
    assert "is for some clients only" in said.stderr
    said = subject.cli("export", "rpz", "--origin", "o.example", "--zone", "rpz", as_json=False)
    assert "b.example 300 CNAME ." in said.stdout


def test_names_that_are_open_for_some_clients_are_not_exported(subject: Subject, upstream: StubUpstream):
    """A passthru for clients can only be in the first zone of an RPZ file."""
    files = {
        "first.zone": ["32.1.0.0.10.rpz-client-ip CNAME rpz-passthru."],
        "rpz.zone": ["b.example CNAME ."],
    }
    start(subject, upstream, rpz("first"), rpz(), files=files)
    for kind in ("text", "hosts"):
        said = subject.cli("export", kind, as_json=False)
        assert (said.code != 0, "opens names for some clients" in said.stderr) == (True, True), said
    said = subject.cli("export", "rpz", "--origin", "o.example", as_json=False)
    assert "32.1.0.0.10.rpz-client-ip 30 CNAME rpz-passthru." in said.stdout
