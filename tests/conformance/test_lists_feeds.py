"""Lists over HTTPS (trap 18): fetched conditionally, verified by certificate, and never half."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from unit.https_server import (
    Authority,
    Behaviour,
    Server,
    for_ever,
    gzipped,
    head,
    sends,
    then_silent,
    whole,
)

from .harness import ORDERS_ZONE, TIMEOUT, Subject
from .lists import (
    NO_PROXY,
    Feed,
    Unchanged,
    accept,
    enforced,
    events,
    is_logged,
    list_zone,
    log,
    names,
    refresh,
    refused_by,
    sha256,
    source,
    sources,
    text_of,
    versions,
    wait_enforced,
    wait_version,
)
from .orders import block
from .tools import wait_for

BASE = names(50)
TEXT = text_of(BASE)
MORE = text_of([*BASE, "new.example"])
LAX = {"grew_percent": "off", "shrank_percent": "off"}  # these lists are short


@pytest.fixture
def subject(subject: Subject) -> Subject:
    """Feeds of the tests are on loopback, whatever proxy this machine has."""
    subject.environment.update(NO_PROXY)
    return subject


@pytest.fixture
def feed(web: Server) -> Feed:
    return Feed(web, TEXT)


def start(subject: Subject, feed: Feed, authority: Authority, **more: object) -> None:
    subject.start(zones=[ORDERS_ZONE, feed.zone(authority.pem, guards=LAX, **more)])


# ------- What goes well -------


def test_a_feed_is_fetched_again_only_if_it_has_changed(subject: Subject, feed: Feed, authority: Authority):
    """RFC 9110 section 13.1.2: a list that has not changed is not sent again, and is no new version."""
    start(subject, feed, authority)
    assert enforced(subject, BASE[0], BASE[-1]) == [True, True]
    assert "if-none-match" not in feed.requests[0].headers
    assert refresh(subject).code == 0
    assert feed.requests[-1].headers["if-none-match"]
    assert len(versions(subject)) == 1
    feed.put(MORE)
    said = refresh(subject)
    assert (said.code, said.json["entries"]) == (0, 51)
    assert enforced(subject, "new.example") == [True]
    found = source(subject)
    assert (found["version"], found["place"], found["fetch_error"]) == (2, feed.url, None)
    assert found["fetched_at"]
    metrics = subject.metrics()
    assert metrics.total("dnsblock_source_fetches_total", zone="listed") >= 3
    assert metrics.total("dnsblock_source_fetched_timestamp_seconds", zone="listed") > 0


def test_a_feed_is_fetched_conditionally_after_a_restart(subject: Subject, feed: Feed, authority: Authority):
    """RFC 9110 section 13.1: resolvers that restart do not download again the lists that they have."""
    start(subject, feed, authority)
    subject.restart()
    assert enforced(subject, BASE[0]) == [True]
    before = len(feed.requests)
    assert refresh(subject).code == 0
    assert len(feed.requests) > before
    assert all("if-none-match" in request.headers for request in feed.requests[1:])


def test_a_feed_is_fetched_by_its_own_schedule(
    subject: Subject, feed: Feed, web: Server, authority: Authority
):
    """`every_s` belongs to one source: no command is needed, and other feeds are not fetched."""
    daily = Feed(web, text_of(["daily.example"]), "/daily.txt")
    zones = [feed.zone(authority.pem, every_s=1, guards=LAX), daily.zone(authority.pem) | {"name": "daily"}]
    subject.start(zones=zones, inbox=None)
    wait_for(lambda: len(feed.requests) >= 3, "the feed is asked again and again")
    asked = len(daily.requests)
    feed.put(MORE)
    wait_enforced(subject, "new.example")
    wait_for(lambda: len(feed.requests) >= 6, "the feed is asked again and again")
    assert len(daily.requests) == asked
    assert sources(subject)["daily"]["next_at"] > sources(subject)["listed"]["next_at"]


@pytest.mark.parametrize("missing", ["reject", "start"])
def test_a_new_feed_is_fetched_at_once_after_a_reload(
    subject: Subject, feed: Feed, authority: Authority, missing: str
):
    """No restart, and no order waits for its server: the reload says that it is on its way."""
    subject.start(zones=[ORDERS_ZONE])
    zones = [ORDERS_ZONE, feed.zone(authority.pem, missing=missing)]
    subject.configure(zones=zones, orders=[block("B-1", ["ordered.example"])])
    checked = subject.cli("check")
    assert (checked.code, sum(feed.url in note for note in checked.json["notes"])) == (0, 1)
    assert "reload" in refresh(subject).problems[0]["reason"], "the daemon does not know it yet"
    reloaded = subject.reload()
    assert ["not fetched yet" in note for note in reloaded["notes"]] == [True]
    assert enforced(subject, "ordered.example") == [True]
    wait_enforced(subject, BASE[0])
    assert versions(subject)[0]["how"] == "first"
    wait_version(subject, 1)  # the state of the daemon follows the answers by a moment
    assert subject.reload()["notes"] == []
    assert log(subject, "error") == []
    assert events(subject) == []


def test_a_rejected_new_feed_delays_no_order_and_is_accepted_by_its_digest(
    subject: Subject, feed: Feed, authority: Authority
):
    """It was put into a running daemon, which goes on without it until somebody has looked."""
    subject.start(zones=[ORDERS_ZONE])
    odd = b"a..example\n" * 50 + TEXT
    feed.put(odd)
    subject.configure(zones=[ORDERS_ZONE, feed.zone(authority.pem)])
    subject.reload()
    wait_for(lambda: refused_by(subject) == ["TOO_MANY_REJECTED"], "it is fetched and refused")
    subject.put_order(block("B-1", ["ordered.example"]))
    assert subject.cli("reload").code == 4
    assert enforced(subject, "ordered.example", BASE[0]) == [True, False]
    assert sha256(odd) in subject.cli("source list", as_json=False).stdout
    assert accept(subject, sha256(odd)).code == 0
    assert enforced(subject, "ordered.example", BASE[0]) == [True, True]


def test_a_removed_download_does_not_make_a_feed_new(subject: Subject, feed: Feed, authority: Authority):
    """The version stays and the loss is reported; the next fetch downloads the whole list."""
    start(subject, feed, authority)
    (subject.folder / "state" / "feeds" / "listed.txt").unlink()
    said = subject.cli("reload")
    assert (said.code, "No such file" in str(said.problems)) == (4, True)
    assert (enforced(subject, BASE[0]), source(subject)["rejected"]["codes"]) == ([True], ["UNREADABLE"])
    assert (refresh(subject).code, source(subject)["rejected"]) == (0, None)


def test_a_new_feed_that_cannot_be_fetched_is_reported_and_retried(
    subject: Subject, feed: Feed, authority: Authority
):
    """Its server is down at the moment of the reload: all else is enforced, and the feed once it comes."""
    subject.start(zones=[ORDERS_ZONE])
    feed.behaviour = sends(whole(b"", "503 Service Unavailable"))
    subject.configure(zones=[ORDERS_ZONE, feed.zone(authority.pem, every_s=1)])
    subject.reload()
    wait_for(lambda: source(subject)["fetch_error"], "the feed has failed")
    assert subject.metrics().total("dnsblock_source_rejected", zone="listed") == 1
    said = subject.cli("source list", as_json=False)
    assert (said.code, "could not be fetched" in said.stdout, "not fetched yet" in said.stdout) == (
        1,
        True,
        True,
    )
    feed.put(TEXT)
    wait_enforced(subject, BASE[0])
    # The metric follows the answers by a moment.
    wait_for(lambda: subject.metrics().total("dnsblock_source_rejected", zone="listed") == 0, "it is there")


def test_a_start_fetches_each_feed_once(subject: Subject, feed: Feed, authority: Authority):
    """Many instances restart at the same hour: a list that was just fetched is not fetched again."""
    start(subject, feed, authority)
    wait_for(lambda: source(subject)["next_at"], "the next fetch is scheduled")
    assert refresh(subject).code == 0
    assert len(feed.requests) == 2, "one by the start, one by the command"


@pytest.mark.parametrize("option", ["how often", "where"])
def test_changed_options_of_a_feed_apply_at_once(
    subject: Subject, feed: Feed, web: Server, authority: Authority, option: str
):
    """A new interval or URL applies without a restart, and not only after the old interval."""
    start(subject, feed, authority)
    moved = Feed(web, MORE, "/moved.txt")
    if option == "where":
        zone = moved.zone(authority.pem, guards=LAX)
    else:
        zone = feed.zone(authority.pem, guards=LAX, every_s=1)
    subject.configure(zones=[ORDERS_ZONE, zone])
    subject.reload()
    feed.put(MORE)
    wait_enforced(subject, "new.example")
    asked = len(feed.requests)
    if option == "how often":
        wait_for(lambda: len(feed.requests) >= asked + 2, "it is asked again and again")


def test_a_compressed_feed_is_the_same_list(subject: Subject, feed: Feed, authority: Authority):
    """RFC 9110 section 8.4.1.3: the version is of the text, however it was sent."""
    start(subject, feed, authority)
    feed.behaviour = sends(gzipped(TEXT, content_type="text/plain"))
    assert refresh(subject).code == 0
    assert len(versions(subject)) == 1
    feed.behaviour = sends(gzipped(MORE, content_type="text/plain"))
    assert refresh(subject).code == 0
    assert enforced(subject, "new.example") == [True]


# ------- Whom it believes -------

CERTIFICATES: dict[str, Callable[[Authority], object]] = {
    "expired": lambda authority: authority.certificate(days=0),
    "of another name": lambda authority: authority.certificate("DNS:other.example"),
}


@pytest.mark.parametrize(
    "wrong", [*CERTIFICATES, "of an unknown authority", "of an authority that is not pinned"]
)
def test_an_invalid_certificate_is_never_accepted(
    subject: Subject, authority: Authority, tmp_path: Path, wrong: str
):
    """RFC 9110 section 4.3.4: a man in the middle could write the list. It cannot be disabled."""
    pinned, certificate = {"ca": str(authority.pem)}, authority.certificate()
    if wrong == "of an authority that is not pinned":
        pinned = {"ca": str(Authority(tmp_path / "another").pem)}
    elif wrong == "of an unknown authority":
        pinned = {}
    else:
        certificate = CERTIFICATES[wrong](authority)
    with Server(certificate) as server:
        url = server.serve(whole(TEXT, content_type="text/plain"))
        subject.start(
            zones=[ORDERS_ZONE, list_zone(url, missing="start", **pinned)],
            orders=[block("B-1", ["o.example"])],
        )
        wait_for(lambda: source(subject)["fetch_error"], "the feed has failed")
        assert "TLS" in source(subject)["fetch_error"]
        assert server.requests == []
    assert enforced(subject, "o.example", BASE[0]) == [True, False]
    assert is_logged(subject, "TLS", url)
    assert subject.cli("source list").code == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/list.txt",
        "ftp://127.0.0.1/list.txt",
        "https://me:secret@127.0.0.1/l",
        "https://127.0.0.1:99999/list.txt",
        "https://127.0.0.1:0/list.txt",
        "https://127.0.0.1:none/list.txt",
        "https://[::1/list.txt",
    ],
)
def test_an_insecure_feed_url_is_refused(subject: Subject, url: str):
    """RFC 9110 section 4.2.4: in the clear, anybody on the way writes the list; a URL is in logs."""
    subject.configure(zones=[list_zone(url)], inbox=None)
    said = subject.cli("check")
    assert (said.code, Path(said.problems[0]["file"]).name) == (1, "dnsblock.yaml")


def test_a_credential_is_sent_only_to_the_feed_and_never_logged(
    subject: Subject, feed: Feed, authority: Authority, tmp_path: Path
):
    """RFC 9110 section 11.6.2: it is read from its file for each fetch, and never logged or returned."""
    key = tmp_path / "key"
    key.write_text("Bearer s3cret-one\n")
    start(subject, feed, authority, authorization=str(key))
    assert feed.requests[-1].headers["authorization"] == "Bearer s3cret-one"
    key.write_text("Bearer s3cret-two\n")
    feed.behaviour = sends(whole(b"", "403 Forbidden"))
    assert refresh(subject).code == 4
    assert feed.requests[-1].headers["authorization"] == "Bearer s3cret-two"
    texts = [
        subject.stderr(),
        str(sources(subject)),
        subject.metrics().text,
        subject.cli("source list", as_json=False).stdout,
    ]
    assert not any("s3cret" in text for text in texts)


def test_the_query_of_a_url_is_never_logged(subject: Subject, web: Server, authority: Authority):
    """A key in the query of a URL is a password, and logs are sent around."""
    web.serve(whole(b"", "403 Forbidden"), "/key.txt")
    url = web.url("/key.txt?key=s3cret")
    subject.start(zones=[list_zone(url, ca=str(authority.pem), missing="start")], inbox=None)
    wait_for(lambda: source(subject)["fetch_error"], "the feed has failed")
    assert web.requests[0].target.endswith("?key=s3cret")
    texts = [
        subject.stderr(),
        str(sources(subject)),
        subject.metrics().text,
        str(subject.cli("check")),
        str(subject.status()),
    ]
    assert not any("s3cret" in text for text in texts)


# ------- What breaks -------


def breaks_off(chunk: bytes, of: int) -> Behaviour:
    return sends(head(content_length=str(of), content_type="text/plain") + chunk)


TURNS = "/turns.txt"
BROKEN: dict[str, Behaviour] = {
    "TRUNCATED": breaks_off(MORE[:300], len(MORE)),
    "TOO_SLOW": then_silent(head(content_length=str(len(MORE))) + MORE[:300]),
    "TOO_LARGE": for_ever(
        head(transfer_encoding="chunked"), b"10000\r\n" + b"a.example\n" * 6553 + b"pad..\n" + b"\r\n"
    ),
    "STATUS": sends(whole(b"gone", "404 Not Found")),
    "HTML": sends(whole(b"<!DOCTYPE html><html><body>log in</body></html>", content_type="text/html")),
    "EMPTY": sends(whole(b"\n\n", content_type="text/plain")),
    "NO_LENGTH": sends(head(content_type="text/plain") + MORE),
    "ENCODING": sends(whole(b"\x1f\x8bnot gzip", content_encoding="gzip")),
    "PROTOCOL": sends(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"),
    "REDIRECT": sends(head("302 Found", location="http://127.0.0.1/list.txt", content_length="0")),
}


def test_a_failed_download_changes_nothing_and_is_reported(
    subject: Subject, feed: Feed, authority: Authority
):
    """A cut, endless or wrong answer is no list; each has its code, and the last good one stays."""
    start(subject, feed, authority, timeout_s=5, max_mb=1)
    found = {}
    with Unchanged(subject, BASE[0], BASE[-1], "new.example"):
        for code, behaviour in BROKEN.items():
            feed.behaviour = behaviour
            said = refresh(subject)
            error = source(subject)["fetch_error"] or ""
            found[code] = (said.code, code in str(said.problems), f"{feed.url}: {code}" in error)
    assert found == dict.fromkeys(BROKEN, (4, True, True))
    assert is_logged(subject, feed.url, next(iter(BROKEN)), levels=["error"])
    metrics = subject.metrics()
    assert metrics.total("dnsblock_source_fetches_total", zone="listed") >= len(BROKEN)
    assert [path.name for path in (subject.folder / "state" / "feeds").rglob("*.part*")] == []
    said = subject.cli("source list", as_json=False)
    assert (said.code, "could not be fetched" in said.stdout) == (1, True)
    feed.put(MORE)
    assert refresh(subject).code == 0
    assert (enforced(subject, "new.example"), source(subject)["fetch_error"]) == ([True], None)


@pytest.mark.parametrize("port", ["99999", "65536", "-1", "0"])
def test_a_redirect_to_an_invalid_port_does_not_end_the_daemon(
    subject: Subject, feed: Feed, authority: Authority, port: str
):
    """RFC 9110 section 15.4: `Location` is hostile input, and DNS must not depend on it."""
    feed.behaviour = sends(head("302 Found", location=f"//127.0.0.1:{port}/x", content_length="0"))
    start(subject, feed, authority, missing="start", every_s=1)
    wait_for(lambda: len(feed.requests) >= 3, "the feed is asked again and again")
    assert "REDIRECT" in source(subject)["fetch_error"]
    feed.put(TEXT)
    wait_enforced(subject, BASE[0])


def test_a_fetched_list_that_could_not_be_recorded_is_enforced_later(
    subject: Subject, feed: Feed, authority: Authority
):
    """A backup locks the history: a later 304 is then about content that is not enforced yet."""
    start(subject, feed, authority, every_s=1)
    with closing(sqlite3.connect(subject.folder / "state" / "lists.sqlite", isolation_level=None)) as locked:
        locked.execute("BEGIN IMMEDIATE")
        feed.put(MORE)
        wait_for(lambda: is_logged(subject, "not published"), "it is not put on record", timeout=60)
        assert enforced(subject, "new.example") == [False]
    wait_enforced(subject, "new.example")
    assert [one["version"] for one in versions(subject)] == [2, 1]


def test_a_feed_that_fails_in_another_way_is_logged_again(subject: Subject, feed: Feed, authority: Authority):
    """A cut line, then a page that is gone: the second failure is not swallowed by the first."""
    start(subject, feed, authority)
    for code in ("TRUNCATED", "STATUS", "PROTOCOL"):
        feed.behaviour = BROKEN[code]
        assert refresh(subject).code == 4
        assert is_logged(subject, feed.url, code), code


def test_a_feed_without_a_listening_server_is_unreachable(subject: Subject, authority: Authority):
    """The server is down, the last good list stays; restarted without it, too."""
    with Server(authority.certificate()) as server:
        feed = Feed(server, TEXT)
        start(subject, feed, authority)
    with Unchanged(subject, BASE[0], BASE[-1]):
        said = refresh(subject)
        assert (said.code, "UNREACHABLE" in str(said.problems)) == (4, True)
        subject.restart()
    assert "UNREACHABLE" in wait_for(lambda: source(subject)["fetch_error"], "the feed has failed")


def test_a_start_without_any_version_of_a_feed_is_refused_with_the_reason(
    subject: Subject, feed: Feed, authority: Authority
):
    """A server that is down when a machine is set up: nothing half-started, one line that says why."""
    feed.behaviour = sends(whole(b"", "503 Service Unavailable"))
    subject.configure(zones=[feed.zone(authority.pem)], inbox=None)
    said = subject.serve_refused()
    assert any(feed.url in line and "STATUS" in line and "503" in line for line in said.refusal)


def test_a_feed_missing_at_startup_is_enforced_once_fetched(
    subject: Subject, feed: Feed, authority: Authority
):
    """`missing: start`: the fetch is retried automatically, and its first version is version 1."""
    feed.behaviour = sends(whole(b"", "503 Service Unavailable"))
    start(subject, feed, authority, missing="start", every_s=1)
    assert enforced(subject, BASE[0]) == [False]
    wait_for(lambda: source(subject)["fetch_error"], "the feed has failed")
    feed.put(TEXT)
    wait_enforced(subject, BASE[0])
    assert versions(subject)[0]["how"] == "first"


class Hanging:
    """Sends half of a list and is silent; `reached` says when somebody waits for the rest."""

    def __init__(self) -> None:
        self.reached = threading.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head(content_length=str(len(MORE))) + MORE[:300])
        await writer.drain()
        self.reached.set()
        await reader.read()


def test_a_hanging_download_delays_nothing_else(subject: Subject, feed: Feed, authority: Authority):
    """An order does not wait for a server: `reload` publishes it, another list is taken, a stop is a stop."""
    zones = [ORDERS_ZONE, feed.zone(authority.pem, every_s=1, guards=LAX), list_zone(name="local", every_s=1)]
    subject.start(zones=zones, lists={"list.txt": ["local.example"]})
    feed.behaviour = hanging = Hanging()
    assert hanging.reached.wait(TIMEOUT)
    subject.put_order(block("B-1", ["ordered.example"]))
    subject.reload()
    assert enforced(subject, "ordered.example", BASE[0]) == [True, True]
    subject.put_list("list.txt", ["local.example", "another.example"])
    wait_enforced(subject, "another.example")
    assert subject.stop() == 0


def test_a_start_does_not_wait_for_a_feed_with_a_stored_version(
    subject: Subject, feed: Feed, authority: Authority
):
    """No query is answered during startup; the last good list is there, and a server may hang."""
    start(subject, feed, authority)
    assert subject.stop() == 0
    feed.behaviour = Hanging()
    subject.launch()
    assert enforced(subject, BASE[0], BASE[-1]) == [True, True]


def test_a_failing_feed_affects_no_other_feed(
    subject: Subject, feed: Feed, web: Server, authority: Authority
):
    """Each source fares for itself."""
    other = Feed(web, text_of(["other.example"]), "/other.txt")
    zones = [
        feed.zone(authority.pem, every_s=1, guards=LAX),
        other.zone(authority.pem, every_s=1, guards=LAX) | {"name": "other"},
    ]
    subject.start(zones=zones, inbox=None)
    feed.behaviour = sends(whole(b"", "500 Internal Server Error"))
    other.put(text_of(["other.example", "more.example"]))
    wait_enforced(subject, "more.example")
    wait_for(lambda: sources(subject)["listed"]["fetch_error"], "the feed has failed")
    assert sources(subject)["other"]["fetch_error"] is None
    assert enforced(subject, BASE[0], "other.example") == [True, True]


def test_a_feed_rejected_by_a_guard_delays_no_order(subject: Subject, feed: Feed, authority: Authority):
    """An order has a deadline by law, and the guard of a list is none of its business."""
    start(subject, feed, authority)
    feed.put(b"a..example\n" * 50 + TEXT)
    assert refresh(subject).code == 4
    subject.put_order(block("B-1", ["ordered.example"]))
    subject.cli("reload")
    assert enforced(subject, "ordered.example", BASE[0]) == [True, True]
    assert [event["code"] for event in events(subject)] == ["TOO_MANY_REJECTED"]
