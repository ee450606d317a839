"""`dnsblock export` and `exports`: other resolvers that read the file decide as dnsblock does."""

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from . import policy, wire
from .harness import ISSUER, ORDERS_ZONE, TIMEOUT, Subject, is_sinkholed
from .lists import UNWATCHED
from .orders import block, exempt, unblock
from .peers import BindPeer, Peer, RecursorPeer, UnboundPeer
from .tools import wait_for
from .upstreams import StubUpstream

PEERS = {"bind": BindPeer, "unbound": UnboundPeer, "recursor": RecursorPeer}
ORIGIN = policy.ZONE
LIST = {"name": "ads", "list": "ads.txt", "answer": "nxdomain", "source": UNWATCHED}


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    folder = tmp_path / "peer"
    folder.mkdir()
    with closing(PEERS[request.param](folder)) as peer:
        yield peer


def exported(subject: Subject, kind: str, *options: str) -> list[str]:
    said = subject.cli("export", kind, *options, as_json=False)
    assert said.code == 0, said
    return said.stdout.splitlines()


def entries(lines: list[str]) -> list[str]:
    """The records or names, without the head and the comments."""
    return [line for line in lines if not re.match(r"[;#@$]", line)]


def counts(lines: list[str]) -> dict:
    return json.loads(lines[-1].partition(" end: ")[2])


# ------- Other resolvers --------------------------------------------------------


def asked_names() -> list[str]:
    """The names of the policy, those below them and beside them, and two without an entry."""
    names = [entry.name for entry in policy.ENTRIES]
    return [
        *names,
        *(f"{below}.{name}" for name in names for below in ("x", "y.x")),
        *(f"beside.{name.partition('.')[2]}" for name in names if name.count(".") > 1),
        "free.example",
        "x.free.example",
    ]


def answer(resolver: Subject | Peer, name: str, qtype: str) -> tuple:
    """The part of a response that a client uses. A machine that is busy may need several tries."""
    asked = wire.query(name, qtype)
    with resolver.udp() as sock:
        sock.settimeout(5)
        for _ in range(20):
            sock.send(asked)
            with suppress(TimeoutError):
                reply = wire.read(sock.recv(65535))
                return (reply.rcode, bool(reply.flags & wire.TC), sorted(reply.addresses))
    pytest.fail(f"no response for {name} {qtype}")


def test_other_resolvers_decide_as_dnsblock(subject: Subject, upstream: StubUpstream, peer: Peer):
    """Every action, match and exception of the portable policy, each name over UDP."""
    subject.start(**policy.configuration(upstream.address))
    zone = "\n".join(exported(subject, "rpz", "--origin", ORIGIN)) + "\n"
    peer.start(upstream.address, zone)
    dropped = f".{policy.DROPPED}"
    different = {}
    for name in asked_names():
        if f".{name}".endswith(dropped):
            continue  # no response, and the time until that is sure
        for qtype in ("A", "TXT"):
            ours, theirs = answer(subject, name, qtype), answer(peer, name, qtype)
            if ours != theirs:
                different[name, qtype] = ours, theirs
    assert different == {}
    assert f"\n{policy.DROPPED} 30 CNAME rpz-drop.\n" in zone


def test_overlapping_zones_are_no_union(subject: Subject, upstream: StubUpstream, peer: Peer):
    """An exemption lets a later zone decide; an earlier zone hides entries of a later one."""
    zones = [
        {"name": "policy", "issuer": ISSUER, "unsigned": "accept", "answer": "sinkhole"},
        {"name": "allowed", "list": "allowed.txt", "answer": "passthru"},
        LIST,
    ]
    orders = [
        block("B-1", [policy.SINKHOLED, "t.example"]),
        exempt("E-1", ["cdn.t.example"]),
    ]
    lists = {
        "allowed.txt": ["good.ads.example", "deep.ok.sinkholed.example"],
        "ads.txt": ["ads.example", "x.cdn.t.example", "a.b.c.ads.example"],
    }
    subject.start(zones=zones, orders=orders, lists=lists, upstreams=[upstream.address])
    zone = "\n".join(exported(subject, "rpz", "--origin", ORIGIN)) + "\n"
    peer.start(upstream.address, zone)
    for name in (
        *(
            "t.example",
            "a.t.example",
            "cdn.t.example",
            "a.cdn.t.example",
            "x.cdn.t.example",
            "y.x.cdn.t.example",
        ),
        *("ads.example", "n.ads.example", "good.ads.example", "n.good.ads.example", "c.ads.example"),
        *(
            "n.c.ads.example",
            "b.c.ads.example",
            "n.b.c.ads.example",
            "a.b.c.ads.example",
            "deep.ok.sinkholed.example",
        ),
        *("ok.sinkholed.example", "n.ok.sinkholed.example", "free.example"),
    ):
        assert answer(peer, name, "A") == answer(subject, name, "A"), name


def test_addresses_are_triggers(subject: Subject, upstream: StubUpstream, tmp_path: Path):
    """The upstream's address is listed: every name that leads there is blocked."""
    zones = [
        {"name": "policy", "issuer": ISSUER, "unsigned": "accept", "answer": "sinkhole"},
        {"name": "addresses", "addresses": "addresses.txt", "answer": "nodata"},
    ]
    lists = {"addresses.txt": ["198.51.100.0/24", "2001:db8:0:1::/64"]}
    subject.start(
        zones=zones, orders=[block("B-1", [policy.SINKHOLED])], lists=lists, upstreams=[upstream.address]
    )
    lines = exported(subject, "rpz", "--origin", ORIGIN)
    assert entries(lines)[-2:] == [
        "24.0.100.51.198.rpz-ip 30 CNAME *.",
        "64.zz.1.0.db8.2001.rpz-ip 30 CNAME *.",
    ]
    with closing(BindPeer(tmp_path)) as bind:
        bind.start(upstream.address, "\n".join(lines) + "\n")
        assert (
            answer(bind, "free.example", "A")
            == answer(subject, "free.example", "A")
            == ("NOERROR", False, [])
        )
        assert "invalid rpz" not in bind.log_path.read_text(errors="replace")


def test_a_passthru_opens_addresses_and_targets_of_later_zones(
    subject: Subject, upstream: StubUpstream, tmp_path: Path
):
    """It is written even where no entry would block the name: its addresses would be blocked otherwise."""
    zones = [
        {"name": "policy", "issuer": ISSUER, "unsigned": "accept", "answer": "sinkhole"},
        {"name": "allowed", "list": "allowed.txt", "answer": "passthru"},
        {"name": "addresses", "addresses": "addresses.txt", "answer": "nodata"},
    ]
    # For BIND, the second name would be a trigger for all clients.
    lists = {
        "allowed.txt": ["good.example", "8.0.0.0.127.rpz-client-ip"],
        "addresses.txt": ["198.51.100.0/24"],
    }
    subject.start(
        zones=zones, orders=[block("B-1", [policy.SINKHOLED])], lists=lists, upstreams=[upstream.address]
    )
    lines = exported(subject, "rpz", "--origin", ORIGIN)
    assert counts(lines)["left_out"] == {"reserved by RPZ": 1}
    with closing(BindPeer(tmp_path)) as bind:
        bind.start(upstream.address, "\n".join(lines) + "\n")
        for name, addresses in (("good.example", ["198.51.100.7"]), ("free.example", [])):
            assert answer(bind, name, "A") == answer(subject, name, "A") == ("NOERROR", False, addresses)


def test_a_round_trip_gives_the_same_digest(subject: Subject):
    """A list that is exported as RPZ and read again is the same zone."""
    names = ["ads.example", "tracker.example", "@@||ok.ads.example^", "||wide.example^"]
    source = {"format": "adblock", "exceptions": "passthru"}
    subject.start(zones=[LIST | {"source": source}], lists={"ads.txt": [f"||{names[0]}^", *names[2:]]})
    before = subject.status()["zones"][0]["digest"]
    lines = exported(subject, "rpz", "--origin", ORIGIN)
    subject.stop()
    subject.configure(
        zones=[LIST | {"source": {"format": "rpz"}}], lists={"ads.txt": lines}, state="another state"
    )
    subject.launch()
    assert subject.status()["zones"][0]["digest"] == before


# ------- Lists of names ---------------------------------------------------------


def test_text_and_hosts_name_what_they_cannot_express(subject: Subject):
    """Otherwise a filter would block more than was ordered, or nobody would know what it misses."""
    orders = [
        block("B-1", ["whole.example", {"name": "alone.example", "match": "exact"}, "holey.example"]),
        exempt("E-1", ["ok.holey.example"]),
    ]
    subject.start(orders=orders)
    text = exported(subject, "text")
    assert entries(text) == ["whole.example"]
    assert "# left out (without the names below): alone.example" in text
    assert "# left out (has an exception below): holey.example" in text
    assert counts(text)["left_out"] == {"has an exception below": 1, "without the names below": 1}
    hosts = exported(subject, "hosts")
    names = {line.split()[1] for line in entries(hosts)}
    assert names == {"whole.example", "alone.example", "holey.example"}
    assert {line.split()[0] for line in entries(hosts)} == {"192.0.2.53", "2001:db8::53"}
    said = subject.cli("export", "text", "-o", str(subject.folder / "names"))
    assert said.json == {"file": str(subject.folder / "names"), **counts(text)}
    assert (subject.folder / "names").read_text().splitlines() == text


def test_a_wrong_request_is_refused_with_its_reason(subject: Subject):
    """Nothing is written, not even in part."""
    zones = [LIST | {"mode": "shadow"}, LIST | {"name": "names", "targets": "ignore"}]
    subject.start(zones=zones, lists={"ads.txt": ["ads.example"]})
    for options, why in (
        (["rpz"], "rpz needs the name of the zone"),
        (["text", "--origin", ORIGIN], "only rpz has the name of a zone, not text"),
        (["text", "--zone", "none"], "no such zone; there are ads, names"),
        (["text", "--zone", "ads"], "a shadow zone enforces nothing"),
        (["rpz", "--origin", ORIGIN], "has `targets: ignore`"),
        (["rpz", "--origin", "a..b"], "origin a..b: empty label"),
        (["text", "-o", str(subject.folder / "no folder" / "file")], "cannot be written"),
    ):
        said = subject.cli("export", *options, as_json=False)
        assert (said.code, why in said.stderr) == (4, True), said
    assert subject.cli("export", "text", "--zone", "", as_json=False).code == 2
    assert entries(exported(subject, "text")) == ["ads.example"]
    assert not list(subject.folder.glob("*.tmp"))


def test_the_output_may_be_a_link_and_never_replaces_a_device(subject: Subject):
    """A link keeps its target, and a full disk is an error with its place."""
    subject.start(orders=[block("B-1", ["one.example"])])
    target, link = subject.folder / "target", subject.folder / "link"
    link.symlink_to(target)
    assert subject.cli("export", "text", "-o", str(link)).code == 0
    assert "one.example" in target.read_text()
    assert link.is_symlink()
    for place in ("/dev/null", "/dev/full"):
        said = subject.cli("export", "text", "-o", place, as_json=False)
        assert (said.code, "cannot be written" in said.stderr) == (
            (4, True) if "full" in place else (0, False)
        )
        assert Path(place).is_char_device()


def test_a_client_that_does_not_read_holds_up_nothing(subject: Subject):
    """Neither an order nor the end of the process."""
    subject.start(
        zones=[LIST, ORDERS_ZONE], lists={"ads.txt": (f"n{number}.example" for number in range(200_000))}
    )
    with ExitStack() as held:
        for _ in range(4):
            client = held.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(TIMEOUT)
            client.connect(subject.ready["control"])
            client.send(b"GET /v1/export?format=text HTTP/1.1\r\nHost: dnsblock\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        said = subject.cli("export", "text", as_json=False)
        assert (said.code, "exports are running: try again" in said.stderr) == (3, True), said
        subject.put_order(block("B-1", ["one.example"]))
        subject.reload()
        assert is_sinkholed(subject.query("one.example"))
        assert subject.stop() == 0


# ------- Files that are kept current --------------------------------------------


def serial(path: Path) -> int:
    return int(re.search(r"^@ SOA \S+ \S+ ([0-9]+) ", path.read_text(), re.MULTILINE)[1])


def test_a_file_is_kept_current(subject: Subject):
    """With each order that changes it, after a restart, and for another zone; its serial only grows."""
    path = subject.folder / "policy.zone"
    files = [{"file": str(path), "origin": ORIGIN, "zones": ["ministry"]}]
    options = {"lists": {"ads.txt": ["ads.example"]}}
    zones = [{"name": "ministry", "issuer": ISSUER, "unsigned": "accept", "answer": "sinkhole"}, LIST]
    subject.start(zones=zones, orders=[block("B-1", ["one.example"])], exports=files, **options)
    wait_for(lambda: path.exists() and "\none.example 30 A 192.0.2.53\n" in path.read_text(), "it is written")
    assert path.stat().st_mode & 0o777 == 0o644
    first = serial(path)
    subject.put_order(block("B-2", ["two.example"]))
    subject.reload()
    wait_for(lambda: "*.two.example" in path.read_text(), "the new name")
    second = serial(path)
    assert second > first
    subject.put_list("ads.txt", ["ads.example", "other.example"])
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    wait_for(lambda: "one.example" not in path.read_text(), "the lifted name is gone")
    assert "ads.example" not in path.read_text()
    third, content = serial(path), path.read_text()
    assert third > second
    # The metric follows the file by a moment.
    subject.wait_for_metric("dnsblock_export_serial", at_least=third, file=str(path))
    assert subject.metrics().total("dnsblock_export_serial", file=str(path)) == third
    assert subject.metrics().total("dnsblock_export_entries", file=str(path)) == 1
    written = path.stat().st_mtime_ns
    subject.restart()
    subject.wait_for_metric("dnsblock_export_serial", at_least=third, file=str(path))
    assert (path.read_text(), path.stat().st_mtime_ns) == (content, written)
    subject.configure(zones=zones, exports=[files[0] | {"zones": []}], **options)
    subject.reload()
    wait_for(lambda: "ads.example" in path.read_text(), "the other zone")
    assert serial(path) > third
    fourth = serial(path)
    path.unlink()
    subject.reload()
    wait_for(path.exists, "the file that somebody has removed")
    assert serial(path) > fourth
    assert not list(subject.folder.glob("policy.zone.*"))


def test_an_incomplete_file_is_written_again(subject: Subject):
    """Somebody has cut it; the remains of a process that was killed are removed."""
    path = subject.folder / "policy.zone"
    subject.start(orders=[block("B-1", ["one.example"])], exports=[{"file": str(path), "origin": ORIGIN}])
    wait_for(path.exists, "it is written")
    first = serial(path)
    subject.stop()
    path.write_text(path.read_text().rpartition("; end")[0])
    (subject.folder / "policy.zone.4194303.tmp").write_text("half")
    subject.launch()
    wait_for(lambda: "; end: " in path.read_text(), "it is complete again")
    assert serial(path) > first
    assert not list(subject.folder.glob("policy.zone.*"))


def test_a_file_that_cannot_be_written_delays_nothing(subject: Subject):
    """It is an error in the log and a metric. Orders and other files do not wait for it."""
    missing, fine = subject.folder / "missing" / "policy.zone", subject.folder / "names"
    files = [{"file": str(missing), "origin": ORIGIN}, {"file": str(fine), "format": "text"}]
    subject.start(orders=[block("B-1", ["one.example"])], exports=files)
    subject.wait_for_metric("dnsblock_export_failing", file=str(missing))
    assert subject.metrics().total("dnsblock_export_failing", file=str(fine)) == 0
    assert f"the export {missing} was not written" in subject.stderr()
    subject.put_order(block("B-2", ["two.example"]))
    subject.reload()
    assert is_sinkholed(subject.query("two.example"))
    wait_for(lambda: fine.exists() and "two.example" in fine.read_text(), "the other file")
    missing.parent.mkdir()
    subject.put_order(block("B-3", ["three.example"]))
    subject.reload()
    wait_for(lambda: missing.exists() and "three.example" in missing.read_text(), "it is written now")
    # The metric follows the file by a moment.
    wait_for(lambda: subject.metrics().total("dnsblock_export_failing") == 0, "the failure is over")


def test_a_file_of_somebody_else_is_never_replaced(subject: Subject):
    """The path may be misspelt: a list, a FIFO that somebody put there, or the configuration itself."""
    fifo, names, fine = subject.folder / "fifo", subject.folder / "ads.txt", subject.folder / "names"
    os.mkfifo(fifo)
    files = [{"file": str(file), "format": "text"} for file in (fifo, names, subject.config_path, fine)]
    subject.start(zones=[LIST], lists={"ads.txt": ["ads.example"]}, exports=files)
    for file in (fifo, names, subject.config_path):
        subject.wait_for_metric("dnsblock_export_failing", file=str(file))
    assert "is no export of dnsblock, and is not replaced" in subject.stderr()
    wait_for(lambda: fine.exists() and "ads.example" in fine.read_text(), "the last file")
    assert names.read_text() == "ads.example\n"
    assert fifo.is_fifo()
    assert subject.cli("check").code == 0
    assert subject.stop() == 0


def test_exports_are_checked_with_the_configuration(subject: Subject):
    """A zone that is misspelt would be missing in the file, and nobody would notice."""
    path = str(subject.folder / "file")
    zones = [LIST | {"mode": "shadow"}, LIST | {"name": "names", "targets": "ignore"}]
    for export, why in (
        ({"file": path}, "origin is the name of the zone: rpz needs one"),
        ({"file": path, "format": "text", "origin": ORIGIN}, "other formats have none"),
        ({"file": path, "format": "text", "zones": ["none"]}, "no zone has this name"),
        ({"file": path, "format": "text", "zones": ["ads"]}, "a shadow zone enforces nothing"),
        ({"file": path, "origin": ORIGIN}, "this zone has `targets: ignore`"),
    ):
        subject.configure(zones=zones, lists={"ads.txt": ["a.example"]}, exports=[export])
        said = subject.cli("check", as_json=False)
        assert (said.code, why in said.stdout + said.stderr) == (1, True), said
    twice = [{"file": file, "format": "text"} for file in (path, f"{subject.folder}/orders/../file")]
    subject.configure(zones=[], exports=twice)
    assert "this file is listed twice" in subject.cli("check", as_json=False).stdout
