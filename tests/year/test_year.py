"""A year in a minute: 8,760 hours of a national feed with all that breaks, and what is enforced in each.

`YEAR_HOURS`, `YEAR_NAMES` and `YEAR_SEED` make it another one.
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

from dnsblock.errors import Refused
from dnsblock.policy.past import differences
from dnsblock.principal import DAEMON, Principal
from dnsblock.publishing import ListsChanged, Reload, RollBack

from . import feed as feeds
from .feed import Breakage, Feed
from .model import Model, above
from .provider import GENERATIONS, ZONE, Clock, Provider

HOURS = int(os.environ.get("YEAR_HOURS", "8760"))
NAMES = int(os.environ.get("YEAR_NAMES", "2000"))
SEED = int(os.environ.get("YEAR_SEED", "20170714"))
ANI = Principal("local", 1000, "ani")
START = datetime(2037, 1, 1, tzinfo=UTC)  # later than any file of the test: see Provider.put
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: a year has thousands of fsyncs."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


def test_each_hour_of_a_year_enforces_what_was_accepted_and_remembers_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Broken downloads change nothing, history is what happened, a restart loses nothing (docs/lists.md)."""
    clock = Clock(START, monkeypatch)
    with closing(Provider(folder, clock, monkeypatch)) as provider:
        asyncio.run(Year(provider, random.Random(SEED)).run())


# ------- What goes wrong, and when -------

# Day of the year: what the server sends instead of the list, for how many hours.
BROKEN: dict[int, tuple[Breakage, int]] = {
    12: (feeds.instead(feeds.NOT_FOUND), 3),
    31: (feeds.instead(b""), 2),
    52: (feeds.cut_in_the_middle, 2),
    68: (feeds.half_a_last_line, 5),
    75: (feeds.half_lines_in_the_middle, 1),
    89: (feeds.with_rubbish(0.05), 14),
    97: (feeds.with_rubbish(0.005), 1),
    121: (feeds.of_another_country, 3),
    142: (feeds.without_last_line_feed, 1),
    158: (feeds.with_protected_names, 4),
    190: (feeds.with_top_levels, 3),
    222: (feeds.instead(feeds.LOGIN), 26),
    260: (feeds.twice, 1),
    277: (feeds.half_a_last_line, 13),
    301: (feeds.cut_in_the_middle, 1),
    318: (feeds.instead(b"\r\n# nothing\n\n"), 1),
    340: (feeds.of_another_country, 15),
}
# Day: how many versions ago the copy was current that is sent again, for so many hours.
REPLAYED = {44: (1, 3), 133: (2, 2), 199: (60, 20), 290: (5, 1), 330: (300, 2)}
SHRINKS = {100: 0.04, 205: 0.10}  # day: the share of names that is really taken off the list
ACCEPTED_BY_HAND = 101  # what is left on day 100, after three changes that nobody took
UNDONE_BY_THE_FEED = 208  # what was taken off on day 205 is listed again
ACCEPTED_AND_REPLAYED = (247, 6)  # the very text that was accepted by hand is sent again
ROLLED_BACK = 150
WITHDRAWN_AND_REPLAYED = (155, 2)
FILE_IS_GONE = 182
RESTARTS = (3, 32, 61, 99, 122, 184, 230, 280, 331, 350)
DIED_BEFORE_IT_WAS_SERVED = 215
EVERY_GUARD = {
    *("HTML", "EMPTY", "TRUNCATED", "TOO_MANY_REJECTED", "REPLAYED", "SHRANK", "GREW", "UNREADABLE"),
}
DAMAGED = {110: "changed", 240: "cut", 310: "gone"}  # the compiled file, at a restart


class Year:
    """Steps through the hours: what the feed does, what the operator does, and whether all of it is right."""

    def __init__(self, provider: Provider, rng: random.Random) -> None:
        self.provider, self.random = provider, rng
        self.feed = Feed(random.Random(rng.random()))
        self.feed.fill(NAMES)
        self.model = Model()
        self.hour = 0
        self.sent = b""  # the last text that the server has sent
        self.broken: tuple[Callable[[bytes], bytes], int] | None = None  # what it sends, and until which hour
        self.taken_off: list[str] = []
        self.accepted_by_hand = self.withdrawn = b""
        self.digests: dict[frozenset[str], str] = {}
        # Names, and whether each is blocked; for a version, and as many names as there ever were.
        self.expected: tuple[tuple[int, int], list[str], list[bool]] | None = None

    @property
    def now(self) -> datetime:
        return self.provider.clock.now

    async def run(self) -> None:
        self.provider.put(self.feed.text)
        self.sent = self.feed.text
        self.model.fetched(self.feed.text, self.now)
        self.model.served(self.now)
        self.provider.start()
        for self.hour in range(1, HOURS + 1):
            # Seven seconds past the hour, so that what came in the last one has settled.
            self.provider.clock.now = START + timedelta(hours=self.hour, seconds=7)
            await self.pass_hour()
            self.check()
        self.check_everything_that_is_remembered()

    async def pass_hour(self) -> None:
        day, hour = divmod(self.hour, 24)
        self.feed.pass_hour(self.hour)
        self.begin_what_goes_wrong(day, hour)
        await self.fetch()
        await self.act(day, hour)

    # ------- The feed -------

    def begin_what_goes_wrong(self, day: int, hour: int) -> None:
        if self.broken is not None and self.hour >= self.broken[1]:
            self.broken = None
        if hour == 4 and day in BROKEN:
            breakage, hours = BROKEN[day]
            self.broken = (lambda text: breakage(text, self.random), self.hour + hours)
        elif hour == 7 and day in REPLAYED:
            back, hours = REPLAYED[day]
            old = self.model.versions[-1 - back].text.octets
            self.broken = (lambda _: old, self.hour + hours)
        elif hour == 9 and day == ACCEPTED_AND_REPLAYED[0]:
            self.broken = (lambda _: self.accepted_by_hand, self.hour + ACCEPTED_AND_REPLAYED[1])
        elif hour == 9 and day == WITHDRAWN_AND_REPLAYED[0]:
            self.broken = (lambda _: self.withdrawn, self.hour + WITHDRAWN_AND_REPLAYED[1])
        elif hour == 3 and day in SHRINKS:
            listed = list(self.feed.listed)
            self.taken_off = self.random.sample(listed, int(len(listed) * SHRINKS[day]))
            for name in self.taken_off:
                self.feed.remove(name)
            self.feed.revision += 1
        elif hour == 15 and day == UNDONE_BY_THE_FEED:
            for name in self.taken_off:
                self.feed.add(name)
            self.feed.revision += 1

    async def fetch(self) -> None:
        text = self.feed.text if self.broken is None else self.broken[0](self.feed.text)
        # A server knows what it has sent before, mostly.
        is_same = text == self.sent and self.random.random() < 0.9
        is_taken = await self.provider.fetch(None if is_same else text)
        if is_same:
            assert is_taken
            return
        self.sent = text
        self.model.fetched(text, self.now)
        self.model.served(self.now)
        assert is_taken == (not self.model.refused), self.told("a fetch says whether the text was taken")

    # ------- The operator -------

    async def act(self, day: int, hour: int) -> None:
        if hour == 13 and day in RESTARTS:
            self.restart()
        elif hour == 13 and day in DAMAGED:
            self.damage(DAMAGED[day])
            self.restart()
        elif hour == 18 and day == DIED_BEFORE_IT_WAS_SERVED:
            await self.die_before_it_is_served()
        elif hour == 12 and day == ACCEPTED_BY_HAND:
            await self.accept_by_hand()
        elif hour == 6 and day == ROLLED_BACK:
            await self.roll_back()
        elif hour == 11 and day == FILE_IS_GONE:
            await self.lose_the_file()
        elif hour == 20 and day % 7 == 0:
            is_taken = await self.provider.publish(Reload(DAEMON, "SIGHUP"))
            assert is_taken == (not self.model.refused), self.told("a reload tells what is refused")

    def restart(self) -> None:
        self.provider.restart()
        if self.model.refused:
            self.model.judged(self.now)  # by a process that has not seen it yet
        self.model.served(self.now)

    def damage(self, how: str) -> None:
        """What a bad disk does to the file that is enforced."""
        sha256 = self.provider.daemon.publisher.lists.listed[ZONE].names.sha256
        self.provider.end()
        path = self.provider.state / "lists" / f"{sha256}.names"
        octets = bytearray(path.read_bytes())
        octets[len(octets) // 2] ^= 1
        path.unlink()
        if how != "gone":
            path.write_bytes(octets if how == "changed" else octets[:-1])

    async def die_before_it_is_served(self) -> None:
        """The version is on record; the snapshot is not, and files of before are not pruned."""
        self.feed.add(self.feed.new_name())
        self.feed.revision += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.provider.daemon.publisher, "settle", lambda *_: None)
            await self.fetch()
        self.provider.restart()

    async def accept_by_hand(self) -> None:
        """`dnsblock source accept`."""
        assert self.model.refused == {"SHRANK"}, "the feed shrank, and nothing else is wrong with it"
        self.accepted_by_hand = self.sent
        sha256 = self.provider.daemon.publisher.lists.rejections[ZONE].source_sha256
        assert await self.provider._is_taken(
            self.provider.daemon.actions.accept_list(ANI, ZONE, sha256, "a court has ordered it")
        )
        self.model.approved = sha256
        self.model.judged(self.now)
        self.model.served(self.now)
        assert self.model.current.how == "accepted by hand"

    async def roll_back(self) -> None:
        """`dnsblock rollback`, first to what is kept no more; what it goes back from does not come back."""
        daemon = self.provider.daemon
        old = next(
            one for one in self.model.snapshots if one.version == self.model.current.number - GENERATIONS - 3
        )
        with pytest.raises(Refused, match="was removed"):
            await daemon.publisher.publish(RollBack(DAEMON, old.serial, "a mistake"))
        withdrawn = self.model.current.text.octets
        wanted = next(one for one in self.model.snapshots if one.version >= self.model.current.number - 4)
        await daemon.publisher.publish(
            RollBack(DAEMON, wanted.serial, "a name that half of the country needs")
        )
        self.model.rolled_back(wanted.serial, self.now)
        self.model.served(self.now)
        self.check()
        assert await self.provider.publish(ListsChanged(DAEMON, "SIGHUP"))  # of the rolled back file
        self.check()
        self.restart()
        self.check()
        self.provider.clock.now += timedelta(minutes=10)
        assert await self.provider.fetch(withdrawn)
        self.model.fetched(withdrawn, self.now)
        self.withdrawn = withdrawn

    async def lose_the_file(self) -> None:
        """Somebody makes room on the disk."""
        self.provider.feed_file.unlink()
        self.sent = b""  # the next fetch is a whole one
        self.model.fetched(None, self.now)
        assert not await self.provider.publish(Reload(DAEMON, "SIGHUP"))
        self.check()
        self.restart()

    # ------- Whether it is right -------

    def told(self, what: str) -> str:
        return f"hour {self.hour} (day {self.hour // 24}, {self.hour % 24}:00, seed {SEED}): {what}"

    def check(self) -> None:
        """What is enforced now."""
        daemon, model = self.provider.daemon, self.model
        lists, snapshot = daemon.publisher.lists, daemon.publisher.policy.snapshot
        assert snapshot.serial == model.serial, self.told("the serial rises when the content changes")
        assert lists.versions == {ZONE: model.current.number}, self.told("a version is what was accepted")
        rejection = lists.rejections.get(ZONE)
        codes = set() if rejection is None else {finding.code for finding in rejection.findings}
        assert codes == model.refused, self.told("guards refuse what docs/lists.md says")
        digest = self.digests.setdefault(model.names, snapshot.digest)
        assert snapshot.digest == digest, self.told("the digest is of the content alone")
        assert snapshot.entries == len(model.names), self.told("each name is an entry")
        self.check_lookups()
        self.check_disk()
        if self.hour % 24 == 0:
            self.check_the_past()
        self.check_answers()

    def check_lookups(self) -> None:
        """Each name that was ever listed is looked up, and names above, below and beside some of them."""
        key = self.model.current.number, len(self.feed.ever)
        if self.expected is None or self.expected[0] != key:
            names = list(self.feed.ever)
            asked = [*names, *(f"x.{name}" for name in names[::7]), *(f"x{name}" for name in names[::7])]
            asked += {one for name in names[::5] for one in above(name)}
            asked += ["portal.negara.go.id", "negara.go.id", "silakan.masuk.example", "unlisted.example"]
            self.expected = key, asked, [self.model.is_blocked(name) for name in asked]
        _, asked, expected = self.expected
        found = self.provider.covers(asked)
        if found != expected:
            wrong = [name for name, a, b in zip(asked, found, expected, strict=True) if a != b]
            pytest.fail(self.told(f"{len(wrong)} names are not as they are listed: {wrong[:5]}"))

    def check_answers(self) -> None:
        """A listed name, one that is not listed any more, and a suffix."""
        asked = [self.random.choice(list(self.model.names)), *self.feed.gone[-1:], "kementerian.co.id"]
        for name in asked:
            is_blocked = self.provider.is_answered_as_blocked(name)
            assert is_blocked == self.model.is_blocked(name), self.told(f"a query for {name}")

    def check_disk(self) -> None:
        """As many compiled files as there are lists among the newest versions, and the texts of these."""
        versions = self.model.versions
        kept = {version.text.names for version in versions[-GENERATIONS:]}
        texts_kept = {one.text.sha256 for one in versions[-100:] if one.text.names in kept}
        files = [path.name for path in (self.provider.state / "lists").iterdir()]
        assert len(files) == len(kept), self.told(
            f"compiled files are kept for {GENERATIONS} versions: {files}"
        )
        texts = {path.name for path in (self.provider.state / "texts").iterdir()}
        assert texts == {f"{ZONE}@{sha256}" for sha256 in texts_kept}, self.told("their texts are kept")

    # ------- What is remembered -------

    def check_the_past(self) -> None:
        """Random questions, as `why --at`, `diff` and `history` ask them."""
        rng, model = self.random, self.model
        ever = list(self.feed.ever)
        with self.provider.daemon.past() as past:
            for _ in range(3):
                when = START + timedelta(hours=rng.uniform(-2, self.hour))
                name = rng.choice(["", "", "x."]) + rng.choice([*ever, "co.id", "unlisted.example"])
                then = model.at(when)
                is_blocked = then is not None and model.is_blocked(name, then.text.names)
                explained, notes = past.explain(name, when)
                assert (explained["verdict"] == "blocked") == is_blocked, self.told(f"why {name} --at {when}")
                assert then is None or not notes
                listed = [one for one in above(name) if then is not None and one in then.text.names]
                assert [one["entry"] for one in explained["covering"]] == listed, self.told(name)
            a, b = rng.randint(1, len(model.versions)), rng.randint(1, len(model.versions))
            changes = [(one.name, one.before, one.after) for one in past.history.difference(ZONE, a, b)]
            assert changes == model.difference(a, b), self.told(f"from version {a} to version {b}")
            self.check_events(past, rng.choice(ever))
            one, other = rng.choice(model.snapshots), rng.choice(model.snapshots)
            (told,) = differences(past, one.serial, other.serial, 10_000) or [{"changes": []}]
            assert list(told["changes"]) == model.difference(one.version, other.version)

    def check_events(self, past: object, name: str) -> None:
        events = past.history.events_of(ZONE, name)
        found = [(event.version, event.at, event.before, event.after) for event in events]
        assert found == self.model.events_of(name), self.told(f"what happened to {name}")

    def check_everything_that_is_remembered(self) -> None:
        """All of it, at the end of the year."""
        model = self.model
        with self.provider.daemon.past() as past:
            for name in self.feed.ever:
                self.check_events(past, name)
            versions = past.history.versions(ZONE, len(model.versions) + 1)
            for told, version in zip(reversed(versions), model.versions, strict=True):
                assert (told.number, told.accepted_at, told.how) == (version.number, version.at, version.how)
                assert told.compiled.source_sha256 == version.text.sha256
                assert told.is_withdrawn == version.is_withdrawn
            for told, snapshot in zip(reversed(past.history.snapshots()), model.snapshots, strict=True):
                assert (told.serial, told.published_at) == (snapshot.serial, snapshot.at)
                assert told.versions == {ZONE: snapshot.version}
            refused = [one for one in past.history.events(ZONE, 1000) if one.kind == "rejected"]
            assert {(one.source_sha256, one.code): one.times for one in refused} == dict(model.refusals)
        if HOURS >= 8760:
            assert {one.code for one in refused} == EVERY_GUARD, "the year had all that breaks"
        sizes = [path.stat().st_size for path in self.provider.state.rglob("*") if path.is_file()]
        assert sum(sizes) < 100 << 20
        print(
            f"{len(model.versions)} versions, {len(self.feed.ever)} names, {len(refused)} texts were refused"
        )
