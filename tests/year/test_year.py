"""A year of a national feed with all its faults, in a minute: 8,760 hours, each compared with a model.

`YEAR_HOURS`, `YEAR_NAMES` and `YEAR_SEED` change hours, names and random seed.
"""

import asyncio
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dnsblock.change import ListsChanged, Reload, RollBack
from dnsblock.errors import Refused
from dnsblock.policy.past import differences
from dnsblock.principal import DAEMON, Principal

from . import feed as feeds
from .feed import Fault, Feed
from .model import Model, above
from .provider import GENERATIONS, ZONE, Clock, Provider

HOURS = int(os.environ.get("YEAR_HOURS", "8760"))
NAMES = int(os.environ.get("YEAR_NAMES", "2000"))
SEED = int(os.environ.get("YEAR_SEED", "20170714"))
ANI = Principal("local", 1000, "ani")
START = datetime(2037, 1, 1, tzinfo=UTC)  # later than the ctime of all files here: see Provider.put
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory if possible: a year has thousands of fsyncs."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


def test_each_hour_of_a_year_enforces_and_records_the_accepted_versions(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Bad downloads change nothing, the history is exact, and a restart loses nothing (docs/lists.md)."""
    clock = Clock(START, monkeypatch)
    with closing(Provider(folder, clock, monkeypatch)) as provider:
        asyncio.run(Year(provider, random.Random(SEED)).run())


# ------- Faults by day of the year -------

# The fault of the server, and its duration in hours.
FAULTS: dict[int, tuple[Fault, int]] = {
    12: (feeds.instead(feeds.NOT_FOUND), 3),
    31: (feeds.instead(b""), 2),
    52: (feeds.truncated_in_the_middle, 2),
    68: (feeds.truncated_last_line, 5),
    75: (feeds.truncated_lines_in_the_middle, 1),
    89: (feeds.with_invalid_lines(0.05), 14),
    97: (feeds.with_invalid_lines(0.005), 1),
    121: (feeds.list_of_another_country, 3),
    142: (feeds.without_last_line_feed, 1),
    158: (feeds.with_protected_names, 4),
    190: (feeds.with_top_levels, 3),
    222: (feeds.instead(feeds.LOGIN), 26),
    260: (feeds.repeated, 1),
    277: (feeds.truncated_last_line, 13),
    301: (feeds.truncated_in_the_middle, 1),
    318: (feeds.instead(b"\r\n# nothing\n\n"), 1),
    340: (feeds.list_of_another_country, 15),
}
# The server sends an old version again: how many versions old, and for how many hours.
REPLAYED = {44: (1, 3), 133: (2, 2), 199: (60, 20), 290: (5, 1), 330: (300, 2)}
SHRINKS = {100: 0.04, 205: 0.10}  # the share of names that the publisher removes
ACCEPTED_BY_HAND = 101  # the list of day 100, after three more changes that were rejected
UNDONE_BY_THE_FEED = 208  # the names of day 205 are listed again
ACCEPTED_AND_REPLAYED = (247, 6)  # the file that was accepted by hand is sent again
ROLLED_BACK = 150
WITHDRAWN_AND_REPLAYED = (155, 2)
FILE_IS_GONE = 182
RESTARTS = (3, 32, 61, 99, 122, 184, 230, 280, 331, 350)
KILLED_BEFORE_SERVING = 215
EVERY_GUARD = {
    *("HTML", "EMPTY", "TRUNCATED", "TOO_MANY_REJECTED", "REPLAYED", "SHRANK", "GREW", "UNREADABLE"),
}
CORRUPTED = {110: "changed", 240: "truncated", 310: "deleted"}  # the compiled file, at a restart


class Year:
    """Steps through the hours: the feed, the operator, and the checks."""

    def __init__(self, provider: Provider, rng: random.Random) -> None:
        self.provider, self.random = provider, rng
        self.feed = Feed(random.Random(rng.random()))
        self.feed.fill(NAMES)
        self.model = Model()
        self.hour = 0
        self.sent = b""  # the last file that the server sent
        self.fault: tuple[Callable[[bytes], bytes], int] | None = None  # and its last hour
        self.removed: list[str] = []
        self.accepted_by_hand = self.withdrawn = b""
        self.digests: dict[frozenset[str], str] = {}
        # Names, and whether each is blocked, for a version and a number of names ever listed.
        self.expected: tuple[tuple[int, int], list[str], list[bool]] | None = None

    @property
    def now(self) -> datetime:
        return self.provider.clock.now

    async def run(self) -> None:
        self.provider.put(self.feed.content)
        self.sent = self.feed.content
        self.model.fetched(self.feed.content, self.now)
        self.model.served(self.now)
        self.provider.start()
        for self.hour in range(1, HOURS + 1):
            # Seven seconds later, because the refresher ignores files that are younger.
            self.provider.clock.now = START + timedelta(hours=self.hour, seconds=7)
            await self.pass_hour()
            self.check()
        self.check_the_whole_history()

    async def pass_hour(self) -> None:
        day, hour = divmod(self.hour, 24)
        self.feed.pass_hour(self.hour)
        self.start_faults(day, hour)
        await self.fetch()
        await self.act(day, hour)

    # ------- The feed -------

    def start_faults(self, day: int, hour: int) -> None:
        if self.fault is not None and self.hour >= self.fault[1]:
            self.fault = None
        if hour == 4 and day in FAULTS:
            fault, hours = FAULTS[day]
            self.fault = (lambda text: fault(text, self.random), self.hour + hours)
        elif hour == 7 and day in REPLAYED:
            back, hours = REPLAYED[day]
            old = self.model.versions[-1 - back].content.data
            self.fault = (lambda _: old, self.hour + hours)
        elif hour == 9 and day == ACCEPTED_AND_REPLAYED[0]:
            self.fault = (lambda _: self.accepted_by_hand, self.hour + ACCEPTED_AND_REPLAYED[1])
        elif hour == 9 and day == WITHDRAWN_AND_REPLAYED[0]:
            self.fault = (lambda _: self.withdrawn, self.hour + WITHDRAWN_AND_REPLAYED[1])
        elif hour == 3 and day in SHRINKS:
            listed = list(self.feed.listed)
            self.removed = self.random.sample(listed, int(len(listed) * SHRINKS[day]))
            for name in self.removed:
                self.feed.remove(name)
            self.feed.revision += 1
        elif hour == 15 and day == UNDONE_BY_THE_FEED:
            for name in self.removed:
                self.feed.add(name)
            self.feed.revision += 1

    async def fetch(self) -> None:
        text = self.feed.content if self.fault is None else self.fault[0](self.feed.content)
        # Usually the server answers 304 if nothing changed.
        is_same = text == self.sent and self.random.random() < 0.9
        is_accepted = await self.provider.fetch(None if is_same else text)
        if is_same:
            assert is_accepted
            return
        self.sent = text
        self.model.fetched(text, self.now)
        self.model.served(self.now)
        assert is_accepted == (not self.model.rejected_by), self.at(
            "a fetch returns whether the file was accepted"
        )

    # ------- The operator -------

    async def act(self, day: int, hour: int) -> None:
        if hour == 13 and day in RESTARTS:
            self.restart()
        elif hour == 13 and day in CORRUPTED:
            self.corrupt(CORRUPTED[day])
            self.restart()
        elif hour == 18 and day == KILLED_BEFORE_SERVING:
            await self.be_killed_before_serving()
        elif hour == 12 and day == ACCEPTED_BY_HAND:
            await self.accept_by_hand()
        elif hour == 6 and day == ROLLED_BACK:
            await self.roll_back()
        elif hour == 11 and day == FILE_IS_GONE:
            await self.lose_the_file()
        elif hour == 20 and day % 7 == 0:
            is_accepted = await self.provider.publish(Reload(DAEMON, "SIGHUP"))
            assert is_accepted == (not self.model.rejected_by), self.at(
                "a reload fails if the list is rejected"
            )

    def restart(self) -> None:
        self.provider.restart()
        if self.model.rejected_by:
            self.model.read(self.now)  # the new process reads the file again
        self.model.served(self.now)

    def corrupt(self, how: str) -> None:
        """Corrupts the compiled file as a bad disk does."""
        sha256 = self.provider.daemon.publisher.lists.listed[ZONE].names.sha256
        self.provider.end()
        path = self.provider.state / "lists" / f"{sha256}.names"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.unlink()
        if how != "deleted":
            path.write_bytes(data if how == "changed" else data[:-1])

    async def be_killed_before_serving(self) -> None:
        """The version is recorded, but the snapshot is not, and old files are not deleted."""
        self.feed.add(self.feed.new_name())
        self.feed.revision += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.provider.daemon.publisher, "settle", lambda *_: None)
            await self.fetch()
        self.provider.restart()

    async def accept_by_hand(self) -> None:
        """`dnsblock source accept`."""
        assert self.model.rejected_by == {"SHRANK"}, "the feed shrank; nothing else is wrong"
        self.accepted_by_hand = self.sent
        sha256 = self.provider.daemon.publisher.lists.rejections[ZONE].source_sha256
        assert await self.provider._is_accepted(
            self.provider.daemon.actions.accept_list(ANI, ZONE, sha256, "a court has ordered it")
        )
        self.model.approved = sha256
        self.model.read(self.now)
        self.model.served(self.now)
        assert self.model.current.how == "accepted by hand"

    async def roll_back(self) -> None:
        """`dnsblock rollback`, first to a deleted version. The withdrawn version is not installed again."""
        daemon = self.provider.daemon
        old = next(
            one for one in self.model.snapshots if one.version == self.model.current.number - GENERATIONS - 3
        )
        with pytest.raises(Refused, match="was removed"):
            await daemon.publisher.publish(RollBack(DAEMON, old.serial, "a mistake"))
        withdrawn = self.model.current.content.data
        wanted = next(one for one in self.model.snapshots if one.version >= self.model.current.number - 4)
        await daemon.publisher.publish(RollBack(DAEMON, wanted.serial, "a popular name was blocked"))
        self.model.rolled_back(wanted.serial, self.now)
        self.model.served(self.now)
        self.check()
        assert await self.provider.publish(
            ListsChanged(DAEMON, "SIGHUP")
        )  # the file is the withdrawn version
        self.check()
        self.restart()
        self.check()
        self.provider.clock.now += timedelta(minutes=10)
        assert await self.provider.fetch(withdrawn)
        self.model.fetched(withdrawn, self.now)
        self.withdrawn = withdrawn

    async def lose_the_file(self) -> None:
        """An administrator deletes the file to free disk space."""
        self.provider.feed_file.unlink()
        self.sent = b""  # the next fetch is unconditional
        self.model.fetched(None, self.now)
        assert not await self.provider.publish(Reload(DAEMON, "SIGHUP"))
        self.check()
        self.restart()

    # ------- Checks -------

    def at(self, what: str) -> str:
        return f"hour {self.hour} (day {self.hour // 24}, {self.hour % 24}:00, seed {SEED}): {what}"

    def check(self) -> None:
        """Checks what is enforced now."""
        daemon, model = self.provider.daemon, self.model
        lists, snapshot = daemon.publisher.lists, daemon.publisher.policy.snapshot
        assert snapshot.serial == model.serial, self.at("the serial rises when the content changes")
        assert lists.versions == {ZONE: model.current.number}, self.at("each accepted file is a version")
        rejection = lists.rejections.get(ZONE)
        codes = set() if rejection is None else {finding.code for finding in rejection.findings}
        assert codes == model.rejected_by, self.at("guards reject as in docs/lists.md")
        digest = self.digests.setdefault(model.names, snapshot.digest)
        assert snapshot.digest == digest, self.at("the digest depends only on the names")
        assert snapshot.entries == len(model.names), self.at("each name is an entry")
        self.check_lookups()
        self.check_disk()
        if self.hour % 24 == 0:
            self.check_the_past()
        self.check_answers()

    def check_lookups(self) -> None:
        """Looks up each name ever listed, and names above, below and similar to some of them."""
        key = self.model.current.number, len(self.feed.ever)
        if self.expected is None or self.expected[0] != key:
            names = list(self.feed.ever)
            queried = [*names, *(f"x.{name}" for name in names[::7]), *(f"x{name}" for name in names[::7])]
            queried += {one for name in names[::5] for one in above(name)}
            queried += ["portal.negara.go.id", "negara.go.id", "silakan.masuk.example", "unlisted.example"]
            self.expected = key, queried, [self.model.is_blocked(name) for name in queried]
        _, queried, expected = self.expected
        found = self.provider.covers(queried)
        if found != expected:
            wrong = [name for name, a, b in zip(queried, found, expected, strict=True) if a != b]
            pytest.fail(self.at(f"{len(wrong)} lookups differ from the model: {wrong[:5]}"))

    def check_answers(self) -> None:
        """Queries a listed name, one that was removed, and a public suffix."""
        queried = [self.random.choice(list(self.model.names)), *self.feed.gone[-1:], "kementerian.co.id"]
        for name in queried:
            is_blocked = self.provider.is_answered_as_blocked(name)
            assert is_blocked == self.model.is_blocked(name), self.at(f"a query for {name}")

    def check_disk(self) -> None:
        """Only the compiled files of the newest versions are stored, and the contents of these versions."""
        versions = self.model.versions
        stored = {version.content.names for version in versions[-GENERATIONS:]}
        contents = {one.content.sha256 for one in versions[-100:] if one.content.names in stored}
        files = [path.name for path in (self.provider.state / "lists").iterdir()]
        assert len(files) == len(stored), self.at(f"compiled files of {GENERATIONS} versions: {files}")
        texts = {path.name for path in (self.provider.state / "texts").iterdir()}
        assert texts == {f"{ZONE}@{sha256}" for sha256 in contents}, self.at("contents of these versions")

    # ------- The history -------

    def check_the_past(self) -> None:
        """Random `why --at`, `diff` and `history` commands."""
        rng, model = self.random, self.model
        ever = list(self.feed.ever)
        with self.provider.daemon.past() as past:
            for _ in range(3):
                when = START + timedelta(hours=rng.uniform(-2, self.hour))
                name = rng.choice(["", "", "x."]) + rng.choice([*ever, "co.id", "unlisted.example"])
                then = model.at(when)
                is_blocked = then is not None and model.is_blocked(name, then.content.names)
                explained = past.explain(name, when)
                assert (explained["verdict"] == "blocked") == is_blocked, self.at(f"why {name} --at {when}")
                assert then is None or not explained["notes"]
                listed = [one for one in above(name) if then is not None and one in then.content.names]
                assert [one["entry"] for one in explained["covering"]] == listed, self.at(name)
            a, b = rng.randint(1, len(model.versions)), rng.randint(1, len(model.versions))
            changes = [(one.name, one.before, one.after) for one in past.history.difference(ZONE, a, b)]
            assert changes == model.difference(a, b), self.at(f"from version {a} to version {b}")
            self.check_events(past, rng.choice(ever))
            one, other = rng.choice(model.snapshots), rng.choice(model.snapshots)
            (difference,) = differences(past, one.serial, other.serial, 10_000) or [{"changes": []}]
            assert list(difference["changes"]) == model.difference(one.version, other.version)

    def check_events(self, past: object, name: str) -> None:
        events = past.history.events_of(ZONE, name)
        found = [(event.version, event.at, event.before, event.after) for event in events]
        assert found == self.model.events_of(name), self.at(f"the history of {name}")

    def check_the_whole_history(self) -> None:
        """All versions, snapshots and events, at the end of the year."""
        model = self.model
        with self.provider.daemon.past() as past:
            for name in self.feed.ever:
                self.check_events(past, name)
            versions = past.history.versions(ZONE, len(model.versions) + 1)
            for recorded, version in zip(reversed(versions), model.versions, strict=True):
                assert (recorded.number, recorded.accepted_at, recorded.how) == (
                    version.number,
                    version.at,
                    version.how,
                )
                assert recorded.compiled.source_sha256 == version.content.sha256
                assert recorded.is_withdrawn == version.is_withdrawn
            for recorded, snapshot in zip(reversed(past.history.snapshots()), model.snapshots, strict=True):
                assert (recorded.serial, recorded.published_at) == (snapshot.serial, snapshot.at)
                assert recorded.versions == {ZONE: snapshot.version}
            rejected = [one for one in past.history.events(ZONE, 1000) if one.kind == "rejected"]
            assert {(one.source_sha256, one.code): one.times for one in rejected} == dict(model.rejections)
        if HOURS >= 8760:
            assert {one.code for one in rejected} == EVERY_GUARD, "the year has all faults"
        sizes = [path.stat().st_size for path in self.provider.state.rglob("*") if path.is_file()]
        assert sum(sizes) < 100 << 20
        print(f"{len(model.versions)} versions, {len(self.feed.ever)} names, {len(rejected)} files rejected")
