"""A feed that breaks in every known way, one after the other: only accepted versions are enforced.

This test uses HTTPS, the command line and queries; tests/year has a whole year, hour by hour, without them.
The same naive model computes what must be enforced.
"""

import gzip
import http.client
import json
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from unit.https_server import Authority, Server, head, whole
from year import feed as feeds
from year.feed import Fault, Feed
from year.model import PROTECTED, Model

from .clients import Said
from .harness import Subject, is_sinkholed

NAMES = 1000
ASKED = 40  # names, after each step
ZONE = "national"
SEED = 20170714
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def web(authority: Authority) -> Iterator[Server]:
    with Server(authority.certificate()) as server:
        yield server


# Bodies that are sent instead of a complete and valid list.
FAULTS: list[Fault] = [
    feeds.truncated_in_the_middle,
    feeds.without_last_line_feed,
    feeds.truncated_last_line,
    feeds.truncated_lines_in_the_middle,
    feeds.with_invalid_lines(0.05),
    feeds.with_invalid_lines(0.005),
    feeds.list_of_another_country,
    feeds.with_protected_names,
    feeds.with_top_levels,
    feeds.repeated,
    feeds.instead(b"# an error page, as text\nnot found\n"),
]


@dataclass(frozen=True)
class NoDownload:
    """A response that no list comes of, and the code of that."""

    response: Callable[[bytes], bytes]
    code: str


NO_DOWNLOADS = [
    NoDownload(lambda _: whole(feeds.NOT_FOUND, content_type="text/html"), "HTML"),
    NoDownload(lambda _: whole(feeds.LOGIN, content_type="text/plain"), "HTML"),
    NoDownload(lambda _: whole(b""), "EMPTY"),
    NoDownload(lambda _: whole(feeds.NOT_FOUND, "502 Bad Gateway"), "STATUS"),
    NoDownload(lambda text: whole(text)[: len(text) // 2], "TRUNCATED"),
    NoDownload(lambda text: head(content_encoding="gzip") + gzip.compress(text)[:-100], "TRUNCATED"),
    NoDownload(lambda text: head() + text, "NO_LENGTH"),
]


def test_a_feed_that_breaks_in_every_way_blocks_and_unblocks_nobody(
    subject: Subject, authority: Authority, web: Server
):
    """Docs/lists.md: a rejected list and a failed download change nothing."""
    replay = Replay(subject, web)
    replay.start(authority)
    for failing in NO_DOWNLOADS:
        replay.fail(failing)
    replay.change_and_fetch()
    for fault in FAULTS:
        replay.fetch(fault(replay.feed.content, replay.random))
        replay.change_and_fetch()
    replay.fetch(replay.model.versions[-2].content.data)  # an old copy
    assert "REPLAYED" in replay.model.rejected_by
    replay.restart(kill=False)
    replay.change_and_fetch()
    replay.fetch(None)  # the same again
    replay.shrink(undo=True)
    replay.shrink(undo=False)
    replay.roll_back()
    replay.restart(kill=True)
    replay.change_and_fetch()
    replay.check_versions()


class OverUnix(http.client.HTTPConnection):
    """HTTP over the control socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("dnsblock", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Replay:
    """Sends the versions of a year to the daemon, and compares it with the model."""

    def __init__(self, subject: Subject, web: Server) -> None:
        self.subject, self.web = subject, web
        self.random = random.Random(SEED)
        self.feed = Feed(random.Random(SEED))
        self.feed.fill(NAMES)
        self.model = Model()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)  # of the model alone

    def start(self, authority: Authority) -> None:
        self.subject.environment["NO_PROXY"] = "127.0.0.1"
        source = {"ca": str(authority.pem), "every_s": 86_400}
        self.send(self.response(self.feed.content))
        zone = {"name": ZONE, "list": self.web.url("/names.txt"), "answer": "sinkhole", "source": source}
        self.subject.start(zones=[zone], protected=list(PROTECTED))
        self.decide(self.feed.content)
        self.check()

    def send(self, response: bytes) -> None:
        """The response of the server from now on."""
        self.web.serve(response, "/names.txt")

    def response(self, text: bytes) -> bytes:
        return whole(text, content_type="text/plain", last_modified="Tue, 01 Sep 2026 10:00:00 GMT")

    # ------- What happens -------

    def fetch(self, text: bytes | None) -> None:
        """`dnsblock source refresh`, which gets this text, or a 304."""
        self.send(head("304 Not Modified") if text is None else self.response(text))
        said = self.refresh()
        if text is not None:
            self.decide(text)
        assert said.code == (4 if self.model.rejected_by else 0), said
        self.check()

    def change_and_fetch(self) -> None:
        """The right list again, with something new on it."""
        self.feed.pass_hour(feeds.CHANGES_AT[1])
        self.send(self.response(self.feed.content))
        self.ask(f"/v1/sources/{ZONE}/refresh", "POST")
        self.decide(self.feed.content)
        self.check()
        assert not self.model.rejected_by

    def fail(self, failing: NoDownload) -> None:
        self.send(failing.response(self.feed.content))
        said = self.refresh()
        assert said.code == 4, said
        assert f": {failing.code}: " in said.stderr
        self.check()

    def shrink(self, *, undo: bool) -> None:
        """Many names are removed: rejected, until the feed has them again or the operator accepts it."""
        gone = self.random.sample(list(self.feed.listed), NAMES // 20)
        for name in gone:
            self.feed.remove(name)
        self.feed.revision += 1
        self.fetch(self.feed.content)
        assert self.model.rejected_by == {"SHRANK"}
        if undo:
            for name in gone:
                self.feed.add(name)
        else:
            digest = self.source()["rejected"]["sha256"]
            said = self.subject.cli("source accept", ZONE, digest, "--reason", "a court has ordered it")
            assert said.code == 0, said
            self.model.approved = digest
            self.decide(self.feed.content)
            assert self.model.current.how == "accepted by hand"
            self.check()
        self.change_and_fetch()

    def roll_back(self) -> None:
        withdrawn = self.model.current.content.data
        wanted = self.model.snapshots[-2].serial
        assert self.subject.cli("rollback", str(wanted), "--reason", "a mistake").code == 0
        self.now += timedelta(hours=1)
        self.model.rolled_back(wanted, self.now)
        self.model.served(self.now)
        self.check()
        self.fetch(withdrawn)
        assert not self.model.rejected_by, "this content is already decided"
        self.change_and_fetch()
        self.fetch(withdrawn)
        assert "REPLAYED" in self.model.rejected_by

    def restart(self, *, kill: bool) -> None:
        """The server still has its previous content."""
        self.send(head("304 Not Modified"))
        if kill:
            self.subject.process.kill()
            self.subject.process.wait(60)
            self.subject.process.stdout.close()
            self.subject.launch()
        else:
            self.subject.restart()
        self.check()

    def decide(self, text: bytes) -> None:
        self.now += timedelta(hours=1)
        self.model.fetched(text, self.now)
        self.model.served(self.now)

    def refresh(self) -> Said:
        return self.subject.cli("source refresh", ZONE)

    def ask(self, target: str, method: str = "GET") -> dict:
        """A request that a command would send, in a tenth of its time."""
        with closing(OverUnix(self.subject.folder / "control.sock")) as connection:
            connection.request(method, target)
            response = connection.getresponse()
            answer = json.loads(response.read())
        assert response.status == 200, answer
        return answer

    # ------- Whether it is right -------

    def source(self) -> dict:
        (source,) = self.ask("/v1/sources")["sources"]
        return source

    def check(self) -> None:
        source, status = self.source(), self.ask("/v1/status")
        assert status["serial"] == self.model.serial
        assert (source["version"], source["entries"]) == (self.model.current.number, len(self.model.names))
        codes = source["rejected"]["codes"] if source["rejected"] else []
        assert set(codes) == self.model.rejected_by
        asked = self.random.sample(list(self.feed.ever), ASKED)
        asked += [*self.feed.gone[-3:], f"x.{asked[0]}", f"x{asked[0]}", "kementerian.co.id", *PROTECTED]
        for name in asked:
            assert is_sinkholed(self.subject.query(name)) == self.model.is_blocked(name), name

    def check_versions(self) -> None:
        """`dnsblock versions`: what was accepted, and how."""
        versions = self.subject.cli("versions", ZONE).json["versions"]
        expected = [
            (one.number, one.content.sha256, one.how, one.is_withdrawn)
            for one in reversed(self.model.versions)
        ]
        assert [
            (one["version"], one["sha256"], one["how"], one["is_withdrawn"]) for one in versions
        ] == expected
