"""Tries an order or a list before it counts: what it would block, counted on live queries for a while.

Its names become a zone of their own. The engine counts each entry of it and enforces none, so a trial is in
no snapshot, serial, digest, ledger or history, and no answer knows of it.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from tempfile import NamedTemporaryFile
from typing import Literal, TypedDict

from dnsblock._engine import Answer, Engine, ListUnfit, NotCompiled, PolicyZone, Rule, Tally, Trial
from dnsblock.config import Config
from dnsblock.errors import Problem, Refused
from dnsblock.lists.compile import Options
from dnsblock.lists.guards import rejected
from dnsblock.lists.report import Report
from dnsblock.log import event
from dnsblock.orders.order import Entry, Order, parse
from dnsblock.orders.schema import DOCUMENT_SUFFIXES
from dnsblock.policy import ReadingProgress

MAX_SECONDS = 3600  # the engine's counters are made for no longer
REJECTED_PERCENT = 1.0  # of the lines of a list, as the option of a zone is by default
MAX_TOP = 1000  # a report is for a person: of ten million names it tells counts and the most asked

Match = Literal["exact", "subtree", "below"]


class Named(TypedDict):
    """A name of the list, and how many queries its entry would have blocked, those below it included."""

    name: str
    queries: int


class Facts(TypedDict):
    """A trial that runs."""

    file: str
    seconds: int  # how long it is to run
    elapsed: float
    names: int  # 0 while they are read


class Progress(Facts):
    """What was counted so far."""

    queries: int  # that were decided, whatever their name
    blocked: int  # of them, by the names of the list
    decided: int  # for names of the list about which a zone that is enforced decides already


class Impact(Progress):
    """What enforcing the list behind all zones would have touched."""

    share: float  # of all queries
    blocking_names: int  # names by which at least one query would have been blocked
    decided_names: int  # names that were asked for, and all of it is decided already
    unasked_names: int  # names nobody asked for
    top: list[Named]
    passed_over: dict[str, int]  # lines of a list that would not be enforced, by reason


# ------- What is tried


@dataclass(frozen=True, slots=True)
class Tried:
    """What is tried, and what of its text is passed over, as it would be in a zone: lines, by reason."""

    zone: PolicyZone
    passed_over: dict[str, int] = field(default_factory=dict)


def compile_trial(
    file: str, data: bytes, match: Match | None, config: Config, source: str | None = None
) -> Tried:
    """The zone of an order document, by its file's ending, or of a list. Raises `Refused`.

    No signature and no guard: it is to be seen what the names would touch, not whether they may be blocked.
    `source`: the zone by whose options a list is read.
    """
    if file.lower().endswith(DOCUMENT_SUFFIXES):
        if match is not None:
            reason = "match belongs to a plain file: an order says itself what its entries match"
            raise Refused([Problem(file, None, match, reason)])
        tried = Tried(_of_order(parse(file, data), config))
    else:
        tried = _of_names(file, data, _options(match, config, source))
    if tried.zone.entries == 0:
        reason = "holds no name" if not tried.passed_over else "holds no name that a list may block"
        raise Refused([Problem(file, None, "", reason)])
    return tried


_NAME = "trial"
_BLOCKS = Rule(Answer("nodata", ttl=0))
_BLOCKS_OVER_UDP = Rule(Answer("truncate", ttl=0))
_LETS_PASS = Rule(Answer("passthru", ttl=0))
_RULES = (_BLOCKS, _BLOCKS_OVER_UDP, _LETS_PASS)


def _of_order(order: Order, config: Config) -> PolicyZone:
    if order.action != "block":
        raise Refused([order.problem(("action",), order.action, "only an order that blocks can be tried")])
    if order.entries_file is not None:
        reason = "its names are in a file of their own: try that one"
        raise Refused([order.problem(("entries_file",), order.entries_file.path, reason)])
    usual = next((zone.answer for zone in config.zones if zone.issuer == order.issuer), "nodata")
    lines = [
        f"{entry.match} {_RULES.index(_rule(entry, usual, config))} {entry.name}\n" for entry in order.entries
    ]
    return PolicyZone.from_entries(_NAME, _RULES, "".join(lines).encode())


def _rule(entry: Entry, usual: str, config: Config) -> Rule:
    """Whether the entry's answer would block: how it would is nothing that is counted."""
    profile = entry.answer if entry.answer in config.answer_names else usual
    actions = {"passthru": _LETS_PASS, "truncate": _BLOCKS_OVER_UDP}
    return actions.get(config.answer(profile or usual).action, _BLOCKS)


def _options(match: Match | None, config: Config, source: str | None) -> Options:
    """How a list is read: as that of a zone, or in any format that is recognised."""
    if source is None:
        return Options.for_trial(match, config)
    zone = next((zone for zone in config.zones if zone.name == source and zone.kind == "list"), None)
    if zone is None:
        raise Refused([Problem(f"list {source}", None, "", "there is no such list")])
    options = Options.of(zone, config)
    return options if match is None else replace(options, match=match)


def _of_names(file: str, data: bytes, options: Options) -> Tried:
    """A list, without what no list may block: that would not be enforced either."""
    try:
        with NamedTemporaryFile(prefix="dnsblock-trial-") as text:
            text.write(data)
            text.flush()
            compiled = options.compile(
                [(file, text.name)], folder=None, before=None, progress=ReadingProgress()
            )
    except (OSError, NotCompiled) as err:
        raise Refused([Problem(file, None, "", f"cannot be compiled: {err}")]) from err
    except ListUnfit as err:
        label, code, reason = err.args
        raise Refused([Problem(label, None, "", f"{code}: {reason}")]) from err
    report = Report.of(compiled, options.match)
    if (guarded := rejected(compiled, REJECTED_PERCENT)) is not None:
        bad = [*report.of_kind("rejected"), *report.of_kind("left out")]
        lines = [told.problem for told in sorted(bad, key=lambda told: told.line)]
        raise Refused([*lines, Problem(file, None, "", str(guarded))])
    return Tried(PolicyZone.from_names(_NAME, compiled.names, _BLOCKS), report.rejected_by)


# ------- Trying it


class Turn:
    """One trial, from when its names are read until it is told."""

    def __init__(self, engine: Engine, file: str, seconds: int) -> None:
        self._engine = engine
        self._file, self._seconds = file, seconds
        self._ended = asyncio.Event()
        self._names = 0
        self._trial: Trial | None = None
        self._began_at = self._ended_at = 0.0

    def end(self) -> None:
        """Ends it before its time; what was counted until then is told."""
        self._ended.set()

    async def count(self, tried: Tried, top: int) -> Impact:
        """Counts what the zone would block, for as long as was asked for. Raises `Refused`."""
        zone = tried.zone
        try:
            # In a thread: counters for ten million names are not made at once.
            self._trial = await asyncio.to_thread(self._engine.begin_trial, zone)
            self._names, self._began_at = zone.entries, time.monotonic()
            event(logging.INFO, "a trial begins", **self.facts())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._ended.wait()
        except RuntimeError as err:
            raise Refused([Problem(self._file, None, "", "queries are not answered now")]) from err
        finally:
            self._ended_at = time.monotonic()
            self._engine.end_trial()
        event(logging.INFO, "a trial has ended", **self.facts())
        tally = await asyncio.to_thread(self._trial.tally, top)
        return {
            **self._told(tally),
            "share": tally.blocked / tally.queries if tally.queries else 0.0,
            "blocking_names": tally.blocking_names,
            "decided_names": tally.asked_names - tally.blocking_names,
            "unasked_names": self._names - tally.asked_names,
            "top": [{"name": name, "queries": queries} for name, queries in tally.top],
            "passed_over": tried.passed_over,
        }

    def progress(self) -> Progress:
        """What was counted so far; looks at each entry, so it is called in a thread."""
        return self._told(None if self._trial is None else self._trial.tally(0))

    def _told(self, tally: Tally | None) -> Progress:
        return {
            **self.facts(),
            "queries": 0 if tally is None else tally.queries,
            "blocked": 0 if tally is None else tally.blocked,
            "decided": 0 if tally is None else tally.decided,
        }

    def facts(self) -> Facts:
        """What it is, and how far."""
        elapsed = (self._ended_at or time.monotonic()) - self._began_at if self._began_at else 0.0
        return {
            "file": self._file,
            "seconds": self._seconds,
            "elapsed": round(elapsed, 3),
            "names": self._names,
        }


class Trials:
    """Lets one trial run at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stopping = False
        self.running: Turn | None = None
        self.reader_at_work = threading.Lock()  # held by the thread that reads names

    def compile(
        self, file: str, data: bytes, match: Match | None, config: Config, source: str | None
    ) -> Tried:
        """As `compile_trial`, in a thread. Raises `Refused`."""
        with self.reader_at_work:
            return compile_trial(file, data, match, config, source)

    @contextlib.contextmanager
    def turn(self, file: str, seconds: int) -> Iterator[Turn]:
        """The turn of one trial. Raises `Refused` while another has it, and while the daemon stops."""
        if self._stopping:
            raise Refused([Problem(file, None, "", "the daemon is stopping")])
        if self.running is not None:
            other = self.running.facts()
            reason = (
                f"another trial runs, for {other['elapsed']:.0f} of {other['seconds']} seconds: wait for it"
            )
            raise Refused([Problem(other["file"], None, "", reason)])
        self.running = Turn(self._engine, file, seconds)
        try:
            yield self.running
        finally:
            self.running = None

    def stop(self) -> None:
        """Ends the one that runs, and lets no other begin."""
        self._stopping = True
        if self.running is not None:
            self.running.end()
