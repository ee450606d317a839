"""Lists of addresses are lists: bad lines cost themselves, guards, versions, watching, feeds, folders."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from . import wire
from .harness import ORDERS_ZONE, Subject
from .lists import (
    ANY_CHANGE,
    DAY,
    NO_PROXY,
    UNWATCHED,
    Feed,
    accept,
    events,
    findings,
    is_logged,
    refresh,
    refused_by,
    reports,
    roll_back,
    sha256,
    source,
    text_of,
    versions,
    wait_refused,
)
from .orders import block, unblock
from .tools import wait_for
from .upstreams import Asked, StubUpstream

NAME = "www.example"
LISTED = [f"198.51.{third}.0/24" for third in range(200)]
HTML = "<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>\n"


def zone(place: str = "nets.txt", *, name: str = "listed", **source: object) -> dict:
    return {"name": name, "addresses": place, "answer": "nodata", "source": {"every_s": DAY, **source}}


def leads_to(address: str) -> Callable[[Asked], bytes]:
    qtype = 28 if ":" in address else 1
    record = wire.address_record(NAME, address)
    return lambda asked: asked.response([record] if asked.qtype == qtype else [])


def start(subject: Subject, upstream: StubUpstream, lines: object = LISTED, **config: object) -> None:
    settings = {"zones": [zone()], "inbox": None} | config
    subject.start(lists={"nets.txt": lines}, upstreams=[upstream.address], **settings)


def is_listed(subject: Subject, upstream: StubUpstream, address: str) -> bool:
    """Whether a response with this address is not passed on."""
    upstream.script = leads_to(address)
    return subject.query(NAME, "AAAA" if ":" in address else "A").is_nodata


# ------- Lines -------

BAD = {
    "192.0.2.085": "leading zero",
    "225.223.48": "four numbers",
    "www.bad.example": "a name, not an address",
    "172.104.128.199.108.166": "run together",
    "192.0.2.1 192.0.2.2": "two addresses on one line",
    "192.0.2.1/24": "bits are set after the prefix",
    "192.0.2.0/33": "number of bits",
    "2001:db8::/129": "number of bits",
    "192.0.2.1-192.0.2.9": "a range",
    "::ffff:192.0.2.1": "write it as IPv4",
}


@pytest.mark.parametrize(("line", "reason"), BAD.items(), ids=BAD.keys())
def test_an_invalid_line_is_reported_and_affects_no_other(
    subject: Subject, upstream: StubUpstream, line: str, reason: str
):
    """National lists of 100,000 lines have one to five such lines; the other lines are enforced."""
    start(subject, upstream, [*LISTED[:100], line, *LISTED[100:]])
    assert is_listed(subject, upstream, "198.51.199.7")
    assert not is_listed(subject, upstream, "192.0.2.1")
    said = subject.cli("check")
    assert said.code == 0, said
    report = reports(said)["listed"]
    assert (report["format"], report["accepted"], report["rejected"]) == ("addresses", 200, 1)
    ((file, number, value, code),) = findings(report, "rejected")
    assert (file, number, value) == ("nets.txt", 101, line)
    assert code in ("not_an_address", "host_bits")
    (one,) = [one for one in report["reported"] if one["kind"] == "rejected"]
    assert reason in one["reason"]
    metrics = subject.metrics()
    assert metrics.total("dnsblock_source_rejected_lines", zone="listed", reason=code) == 1
    assert metrics.total("dnsblock_source_lines", zone="listed", result="accepted") == 200


def test_a_long_list_with_few_invalid_lines_is_used(subject: Subject, upstream: StubUpstream):
    """As the ministry's: 100,000 lines, five of them bad."""
    good = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(100_000)]
    lines = good.copy()
    for place, bad in zip(range(10_000, 60_000, 10_000), BAD, strict=False):
        lines.insert(place, bad)
    start(subject, upstream, lines)
    found = source(subject)
    assert (found["entries"], found["report"]["rejected"]) == (100_000, 5)
    assert is_listed(subject, upstream, "10.0.0.0")
    assert is_listed(subject, upstream, "10.1.134.159")
    assert not is_listed(subject, upstream, "10.1.134.160")


def test_comments_marks_and_line_ends_are_those_of_lists(subject: Subject, upstream: StubUpstream):
    """Spamhaus' DROP has `; SBL…` behind each network; a file from Windows has its own line ends."""
    text = "\ufeff; DROP\r\n192.0.2.0/24 ; SBL1\r\n# more\r\n2001:DB8:BAD::/48 # why\r\n\r\n192.0.2.0/24\r\n"
    start(subject, upstream, text.encode())
    report = source(subject)["report"]
    assert (report["entries"], report["repaired"], report["duplicate"]) == (2, 2, 1)
    assert is_listed(subject, upstream, "192.0.2.9")
    assert is_listed(subject, upstream, "2001:db8:bad::9")


@pytest.mark.parametrize("line", ["0.0.0.0/0", "::/0", "10.0.0.0/7", "2000::/3"])
def test_a_network_that_is_too_wide_is_skipped_and_reported(
    subject: Subject, upstream: StubUpstream, line: str
):
    """A slip must not close the Internet; the rest of the list is enforced."""
    start(subject, upstream, [LISTED[0], line])
    assert is_listed(subject, upstream, "198.51.0.7")
    assert not is_listed(subject, upstream, "192.0.2.1")
    assert not is_listed(subject, upstream, "2001:db8::1")
    assert is_logged(subject, line, "TOO_WIDE", levels=["warning"])
    assert any("TOO_WIDE" in note for note in subject.cli("check").json["notes"])
    assert subject.metrics().total("dnsblock_source_rejected_lines", zone="listed", reason="too_wide") == 1


# ------- Whole lists -------

ODD = {
    "HTML": HTML,
    "EMPTY": "# nothing\n",
    "TOO_MANY_REJECTED": text_of([*LISTED, *BAD]),
    "SHRANK": text_of(LISTED[:150]),
    "GREW": text_of([*LISTED, *(f"203.0.{n}.0/24" for n in range(100, 130))]),
    "TRUNCATED": text_of(LISTED)[:-3],
    "UNREADABLE": None,
}


@pytest.mark.parametrize(("code", "text"), ODD.items(), ids=ODD.keys())
def test_an_odd_list_is_rejected_and_delays_no_order(
    subject: Subject, upstream: StubUpstream, code: str, text: str | bytes | None
):
    """A bad file must delay no unblock order of the same reload, and must not unblock anything."""
    start(
        subject,
        upstream,
        zones=[ORDERS_ZONE, zone()],
        inbox="orders",
        orders=[block("B-1", ["ordered.example"])],
    )
    first = "198.51.0.7"
    assert is_listed(subject, upstream, first)
    path = subject.folder / "nets.txt"
    path.unlink() if text is None else subject.put_list("nets.txt", text)
    subject.put_order(unblock("U-1", "B-1", ["ordered.example"]))
    said = subject.cli("reload")
    assert said.code == 4, said
    assert any(one["reason"].startswith(f"{code}:") or text is None for one in said.problems), said.problems
    upstream.script = leads_to("192.0.2.1")
    assert subject.query("ordered.example").addresses == ["192.0.2.1"], "the unblock is in force"
    assert code in refused_by(subject)
    assert is_listed(subject, upstream, first)
    assert is_listed(subject, upstream, "198.51.199.7")
    assert subject.metrics().total("dnsblock_source_rejected", zone="listed") == 1
    subject.restart()
    assert is_listed(subject, upstream, first), "the last good version is used at startup"
    subject.put_list("nets.txt", [*LISTED, "192.0.2.0/24"])
    subject.reload()
    assert is_listed(subject, upstream, "192.0.2.1")
    assert refused_by(subject) == []


def test_a_rejected_list_is_accepted_by_its_digest(subject: Subject, upstream: StubUpstream):
    """As a list of names is."""
    start(subject, upstream)
    subject.put_list("nets.txt", LISTED[:100])
    said = subject.cli("reload")
    assert "SHRANK: 100 prefixes are gone, of 200 before" in said.problems[0]["reason"]
    assert accept(subject, sha256(text_of(LISTED[:100]))).code == 0
    assert not is_listed(subject, upstream, "198.51.150.1")
    assert [one["how"] for one in versions(subject)] == ["accepted by hand", "first"]
    assert any("hand" in event["kind"] for event in events(subject))


@pytest.mark.parametrize("kind", ["addresses", "list"])
def test_a_list_that_is_new_and_broken_delays_no_order(subject: Subject, upstream: StubUpstream, kind: str):
    """The rest of the reload is published; the new zone enforces nothing until its list is there."""
    subject.start(orders=[block("B-1", ["ordered.example"])], upstreams=[upstream.address])
    new = {"name": "new", kind: "missing.txt", "answer": "nodata", "source": UNWATCHED}
    subject.configure(zones=[ORDERS_ZONE, new], upstreams=[upstream.address])
    subject.put_order(block("B-1", ["ordered.example"]))
    subject.put_order(unblock("U-1", "B-1", ["ordered.example"]))
    said = subject.cli("reload")
    assert said.code == 4
    assert [Path(one["file"]).name for one in said.problems] == ["missing.txt"]
    upstream.script = leads_to("192.0.2.1")
    assert subject.query("ordered.example").addresses == ["192.0.2.1"]
    assert refused_by(subject, "new") == ["UNREADABLE"]
    subject.put_list("missing.txt", ["192.0.2.0/24"] if kind == "addresses" else [NAME])
    subject.reload()
    assert subject.query(NAME).is_nodata


# ------- Where it comes from -------


def test_a_file_of_addresses_is_watched(subject: Subject, upstream: StubUpstream):
    """A changed file is enforced without a command; an invalid one is logged and reported."""
    start(subject, upstream, zones=[zone(every_s=1)])
    subject.put_list("nets.txt", [*LISTED, "192.0.2.0/24"])
    wait_for(lambda: is_listed(subject, upstream, "192.0.2.1"), "the new network is enforced")
    subject.put_list("nets.txt", HTML)
    wait_refused(subject)
    assert is_listed(subject, upstream, "192.0.2.1")


def test_a_folder_of_addresses_is_one_list(subject: Subject, upstream: StubUpstream):
    """Each file is judged, and each line has its file."""
    (subject.folder / "nets").mkdir()
    subject.put_list("nets/a.txt", [*LISTED, "x"])
    subject.put_list("nets/b.txt", ["192.0.2.0/24"])
    (subject.folder / "nets" / "sub").mkdir()
    start(subject, upstream, zones=[zone("nets")])
    assert source(subject)["entries"] == 201
    assert findings(source_report(subject), "rejected") == [("a.txt", 201, "x", "not_an_address")]
    assert is_logged(subject, "does not read sub")
    assert is_listed(subject, upstream, "192.0.2.1")
    subject.put_list("nets/b.txt", "")
    assert subject.cli("reload").code == 4
    assert is_listed(subject, upstream, "192.0.2.1")


def source_report(subject: Subject) -> dict:
    return reports(subject.cli("check"))["listed"]


def test_a_feed_of_addresses_is_fetched(subject: Subject, upstream: StubUpstream, authority, web):
    """Over https, with the guards of a feed, and with the last version where it fails."""
    feed = Feed(web, text_of(LISTED))
    subject.environment.update(NO_PROXY)
    start(subject, upstream, zones=[zone(feed.url, ca=str(authority.pem))])
    assert is_listed(subject, upstream, "198.51.7.7")
    feed.put(text_of([*LISTED, "192.0.2.0/24"]))
    assert refresh(subject).code == 0
    assert is_listed(subject, upstream, "192.0.2.1")
    for text, code in ((text_of(LISTED), "REPLAYED"), (text_of(LISTED[:150]), "SHRANK")):
        feed.put(text)
        assert refresh(subject).code == 4
        assert code in refused_by(subject)
        assert is_listed(subject, upstream, "192.0.2.1")


# ------- The past -------


def test_versions_of_address_lists_are_recorded_and_can_be_rolled_back_to(
    subject: Subject, upstream: StubUpstream
):
    """Which networks were blocked when, by which version: as names are."""
    start(subject, upstream, zones=[zone(guards=ANY_CHANGE)])
    begun = datetime.fromisoformat(versions(subject)[0]["accepted_at"])
    wait_for(lambda: datetime.now(UTC) >= begun + timedelta(seconds=1), "another second, for `why --at`")
    subject.put_list("nets.txt", [*LISTED[1:], "2001:db8:bad::/48", "192.0.2.7"])
    subject.reload()
    newest, first = versions(subject)
    assert (newest["added"], newest["removed"]) == (2, 1)
    said = subject.cli("diff", "1", "2")
    changes = {name: (before, after) for name, before, after in said.json["zones"][0]["changes"]}
    assert changes == {
        "198.51.0.0/24": ("exact", None),
        "2001:db8:bad::/48": (None, "exact"),
        "192.0.2.7/32": (None, "exact"),
    }
    for address, then, now in (
        ("198.51.0.9", 0, 1),
        ("198.51.1.9", 0, 0),
        ("192.0.2.7", 1, 0),
        ("2001:db8:bad:1::1", 1, 0),
        ("203.0.113.1", 1, 1),
    ):
        assert subject.cli("why", address).code == now, address
        assert subject.cli("why", address, "--at", first["accepted_at"]).code == then, address
    decided = subject.cli("why", "198.51.0.9", "--at", first["accepted_at"]).json["decided_by"]
    assert (decided["zone"], decided["entry"], decided["match"]) == ("listed", "198.51.0.0/24", "prefix")
    happened = {
        address: [
            (one["what"], one["entry"], one["match"], one["by"])
            for one in subject.cli("history", address).json["events"]
        ]
        for address in ("198.51.0.9", "2001:db8:bad:1::1")
    }
    assert happened["198.51.0.9"] == [
        ("listed", "198.51.0.0/24", "prefix", "version 1"),
        ("gone", "198.51.0.0/24", "prefix", "version 2"),
    ]
    assert happened["2001:db8:bad:1::1"] == [("listed", "2001:db8:bad::/48", "prefix", "version 2")]
    assert subject.cli("history", "203.0.113.1").code == 1
    assert roll_back(subject, 1).code == 0
    assert is_listed(subject, upstream, "198.51.0.9")
    assert not is_listed(subject, upstream, "192.0.2.7")
    subject.restart()
    assert is_listed(subject, upstream, "198.51.0.9")


def test_a_zone_may_become_one_of_addresses(subject: Subject, upstream: StubUpstream):
    """A zone that changes from names to addresses, or back, is not compared with its previous list."""
    names = {"name": "listed", "list": "names.txt", "answer": "nodata", "source": UNWATCHED}
    lists = {"names.txt": [f"n{n}.example" for n in range(100)], "nets.txt": LISTED}
    subject.start(zones=[names], lists=lists, upstreams=[upstream.address], inbox=None)
    for kind, listed in ((zone(), True), (names, False), (zone(), True)):
        subject.configure(zones=[kind], upstreams=[upstream.address], inbox=None)
        subject.reload()
        for again in (lambda: None, subject.restart):
            again()
            assert is_listed(subject, upstream, "198.51.0.1") is listed
            has_soa = bool(subject.query("n1.example").authority)  # of our own NODATA alone
            assert has_soa is not listed
    subject.configure(zones=[names | {"list": "gone.txt"}], upstreams=[upstream.address], inbox=None)
    assert subject.cli("reload").code == 4
    assert not is_listed(subject, upstream, "198.51.0.1"), "nothing of the zone is enforced"


def test_a_compiled_list_of_addresses_is_the_same_everywhere(
    subject: Subject, upstream: StubUpstream, tmp_path: Path
):
    """Two machines compare digests: other comments, another order, the same networks."""
    start(subject, upstream)
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    with closing(Subject(other_folder)) as other:
        other.start(zones=[zone()], lists={"nets.txt": ["# head", *reversed(LISTED)]}, inbox=None)
        assert other.status()["digest"] == subject.status()["digest"]
