"""Feeds whose server does not answer for longer than `source.max_age_s`: each value of `source.on_late`."""

import json

import pytest
from unit.https_server import Authority, Server, sends, whole

from .clocks import HOUR, FakeClock
from .harness import Subject
from .lists import NO_PROXY, Feed, enforced, is_logged, refresh, source, sources, text_of
from .tools import wait_for
from .upstreams import StubUpstream

DOWN = sends(whole(b"", "500 Internal Server Error"))
LIMIT = 2 * HOUR
LATE = ("keep", "shadow", "withdraw")


@pytest.fixture
def subject(subject: Subject, clock: FakeClock) -> Subject:
    """Feeds of the tests are on loopback, whatever proxy this machine has. Hours pass by a fake clock."""
    subject.environment.update(NO_PROXY)
    return subject


@pytest.fixture
def feeds(web: Server) -> dict[str, Feed]:
    """One feed for each value of `on_late`."""
    return {late: Feed(web, text_of([name(late)]), f"/{late}.txt") for late in LATE}


def name(late: str) -> str:
    return f"{late}.example"


def zones(feeds: dict[str, Feed], authority: Authority, **more: object) -> list[dict]:
    options = {"every_s": HOUR, "max_age_s": LIMIT} | more
    return [
        feed.zone(authority.pem, on_late=late, **options) | {"name": late} for late, feed in feeds.items()
    ]


def in_force(subject: Subject) -> list[bool]:
    return enforced(subject, *map(name, LATE))


def modes(facts: dict) -> list[tuple[str, str, int]]:
    return [(one["name"], one["mode"], one["entries"]) for one in facts["zones"]]


ALL, AFTER_ITS_TIME = [True, True, True], [True, False, False]
EXPIRED_MODES = [("keep", "enforce", 1), ("shadow", "shadow", 1), ("withdraw", "enforce", 0)]


def assert_late(subject: Subject) -> None:
    """Answers, commands and metrics agree."""
    assert in_force(subject) == AFTER_ITS_TIME
    assert modes(subject.cli("status").json) == EXPIRED_MODES
    checked = subject.cli("check").json
    assert modes(checked) == EXPIRED_MODES
    for late, found in sources(subject).items():
        assert found["expired"].startswith("not fetched since "), found
        assert any(f"list {late} has expired: {found['expired']}" in note for note in checked["notes"])
        assert subject.metrics().total("dnsblock_source_expired", zone=late) == 1
        assert subject.metrics().total("dnsblock_source_max_age_seconds", zone=late) == LIMIT
    explained = {late: subject.cli("why", name(late)).json for late in LATE}
    assert [explained[late]["verdict"] for late in LATE] == ["blocked", "not blocked", "not blocked"]
    assert [one["mode"] for one in explained["shadow"]["covering"]] == ["shadow"]
    assert any("list withdraw has expired: " in note for note in explained["withdraw"]["notes"])
    assert explained["keep"]["notes"] == []
    listed = subject.cli("source list", as_json=False)
    assert listed.code == 1
    assert "list withdraw has expired: not fetched since " in listed.stdout
    assert "nothing of it is enforced" in listed.stdout


def test_a_feed_that_is_late_is_kept_shadowed_or_withdrawn(
    subject: Subject, upstream: StubUpstream, feeds: dict[str, Feed], authority: Authority, clock: FakeClock
):
    """`source.max_age_s` and `on_late`: by the clock alone, over reload and restart, until the next fetch."""
    subject.start(zones=zones(feeds, authority), inbox=None, upstreams=[upstream.address])
    assert in_force(subject) == ALL
    assert "expires " in subject.cli("source list", as_json=False).stdout
    for feed in feeds.values():
        feed.behaviour = DOWN
    clock.step_to(LIMIT + 1)
    wait_for(lambda: in_force(subject) == AFTER_ITS_TIME, "the feeds are late")
    assert is_logged(subject, "list shadow has expired", levels=["info", "warning", "error"])
    subject.query(name("shadow"))
    subject.wait_for_metric("dnsblock_shadow_blocked_total", zone="shadow")
    assert_late(subject)
    subject.reload()
    assert_late(subject)
    subject.restart()
    assert_late(subject)
    for late, feed in feeds.items():
        feed.put(text_of([name(late)]))
        assert refresh(subject, late).code == 0
    assert in_force(subject) == ALL
    assert {found["expired"] for found in sources(subject).values()} == {None}
    assert subject.metrics().total("dnsblock_source_expired") == 0


def test_a_feed_that_is_not_modified_is_not_late(
    subject: Subject, upstream: StubUpstream, feeds: dict[str, Feed], authority: Authority, clock: FakeClock
):
    """304 counts as a fetch, also after a restart: its server says that the list is current."""
    subject.start(zones=zones(feeds, authority), inbox=None, upstreams=[upstream.address])
    clock.step_to(LIMIT - 60)
    for late in LATE:
        assert refresh(subject, late).code == 0
    for feed in feeds.values():
        assert feed.requests[-1].headers["if-none-match"]
        feed.behaviour = DOWN
    subject.stop()
    clock.step_to(LIMIT + HOUR)
    subject.launch()
    assert in_force(subject) == ALL
    found = source(subject, "withdraw")
    assert (found["expired"], subject.metrics().total("dnsblock_source_expired")) == (None, 0)
    assert found["fetched_at"], "the time of the last fetch survives a restart"
    clock.step_to(2 * LIMIT)
    wait_for(lambda: in_force(subject) == AFTER_ITS_TIME, "the feeds are late")


def test_a_limit_that_is_configured_later_applies_at_the_reload(
    subject: Subject, upstream: StubUpstream, feeds: dict[str, Feed], authority: Authority, clock: FakeClock
):
    """The age counts from the last fetch, not from the reload. Without a limit again, nothing is late."""
    free = zones(feeds, authority, max_age_s=31_536_000)
    subject.start(zones=free, inbox=None, upstreams=[upstream.address])
    for feed in feeds.values():
        feed.behaviour = DOWN
    clock.step_to(LIMIT + 1)
    assert in_force(subject) == ALL
    subject.configure(zones=zones(feeds, authority), inbox=None, upstreams=[upstream.address])
    subject.reload()
    assert in_force(subject) == AFTER_ITS_TIME
    subject.configure(zones=free, inbox=None, upstreams=[upstream.address])
    subject.reload()
    assert in_force(subject) == ALL


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"checked_at": 7}', '{"checked_at": "9"}'])
def test_an_unusable_time_of_the_last_fetch_is_replaced_by_that_of_the_download(
    subject: Subject, upstream: StubUpstream, feeds: dict[str, Feed], authority: Authority, text: str
):
    """Whatever a crash or an earlier version left there: the daemon starts, and the list is in force."""
    subject.start(zones=zones(feeds, authority), inbox=None, upstreams=[upstream.address])
    subject.stop()
    for feed in feeds.values():
        feed.behaviour = DOWN
    for path in (subject.folder / "state" / "feeds").glob("*.json"):
        assert json.loads(path.read_text())["checked_at"]
        path.write_text(text)
    subject.launch()
    assert in_force(subject) == ALL
    assert source(subject, "withdraw")["expires_at"]


WRONG: dict[str, tuple[dict, str]] = {
    "a limit below the interval": ({"every_s": HOUR, "max_age_s": HOUR}, "at least twice every_s"),
    "a limit below the default interval": ({"max_age_s": 7199}, "at least twice every_s (7,200)"),
    "a consequence without a limit": ({"on_late": "shadow"}, "on_late belongs to max_age_s"),
    "an unknown consequence": ({"max_age_s": LIMIT, "on_late": "forget"}, "on_late"),
    "no time at all": ({"max_age_s": 0}, "max_age_s"),
}


@pytest.mark.parametrize(("options", "reason"), WRONG.values(), ids=WRONG)
def test_options_of_the_age_that_are_wrong_are_refused(subject: Subject, options: dict, reason: str):
    """`dnsblock check` reports the option and the value to choose."""
    zone = {"name": "listed", "answer": "sinkhole", "list": "https://127.0.0.1:1/", "source": options}
    subject.configure(zones=[zone], inbox=None)
    said = subject.cli("check", as_json=False)
    assert (said.code, reason in said.stdout + said.stderr) == (1, True), said


@pytest.mark.parametrize(
    "place", [{"list": "list.txt"}, {"answer": "given", "rpz": {"primaries": ["127.0.0.1:1"]}}], ids=str
)
def test_a_limit_of_the_age_belongs_to_a_feed_alone(subject: Subject, place: dict):
    """A file is not fetched, and the SOA record of a zone has its own limit: `rpz.on_expire`."""
    zone = {"name": "listed.example", "answer": "sinkhole", **place, "source": {"max_age_s": LIMIT}}
    subject.configure(zones=[zone], lists={"list.txt": ["listed.example"]}, inbox=None)
    said = subject.cli("check", as_json=False)
    assert (said.code, "max_age_s: belongs to" in said.stdout + said.stderr) == (1, True), said
