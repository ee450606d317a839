"""Impact runs: count for a limited time which live queries an order or a list would block.

The names become a shadow zone after all others, with a counter for each entry. It is not part of any
snapshot, serial, digest, ledger or history, and does not affect answers.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from tempfile import NamedTemporaryFile
from typing import Literal, TypedDict

from dnsblock._engine import (
    Answer,
    Engine,
    ImpactCounts,
    ImpactRun,
    ListUnreadable,
    NotCompiled,
    PolicyZone,
    Rule,
)
from dnsblock.config import Config
from dnsblock.config_zones import Zone
from dnsblock.errors import Problem, Refused
from dnsblock.lists.compile import Options
from dnsblock.lists.guards import rejected
from dnsblock.lists.report import Report
from dnsblock.log import event
from dnsblock.orders.entry import Entry
from dnsblock.orders.order import Order, parse
from dnsblock.orders.schema import DOCUMENT_SUFFIXES
from dnsblock.policy import ReadingProgress
from dnsblock.policy.zones import list_zone

MAX_SECONDS = 3600  # the limit of the engine's counters
REJECTED_PERCENT = 1.0  # of a list's lines; the default of the zone option
MAX_TOP = 1000  # a report is for people: even for ten million names, it lists only the most queried ones

Match = Literal["exact", "subtree", "below"]


class Named(TypedDict):
    """A name of the list, and how many queries its entry would have blocked, including subdomains."""

    name: str
    queries: int


class Facts(TypedDict):
    """A running impact run."""

    file: str
    seconds: int  # planned duration
    elapsed: float
    names: int  # 0 while the names are being read


class Progress(Facts):
    """The counts so far."""

    queries: int  # decided queries, for any name
    blocked: int  # those that the list would block
    decided: int  # those for names of the list that an enforced zone already decides


class Impact(Progress):
    """The effect of enforcing the list after all zones."""

    share: float  # of all queries
    blocking_names: int  # names that would have blocked at least one query
    decided_names: int  # queried names for which every query is already decided
    unasked_names: int  # names without a query
    top: list[Named]
    passed_over: dict[str, int]  # lines that would not be enforced, by reason


# ------- Input


@dataclass(frozen=True, slots=True)
class Candidate:
    """The zone to count, and the number of skipped lines by reason, as they would be in a zone."""

    zone: PolicyZone
    passed_over: dict[str, int] = field(default_factory=dict)


def compile_candidate(
    file: str, data: bytes, match: Match | None, config: Config, source: str | None = None
) -> Candidate:
    """Compiles the zone of an order document (by file extension) or of a list. Raises `Refused`.

    Signatures and guards are not checked: an impact run authorizes nothing. `source`: the zone whose options
    are used to read a list.
    """
    if file.lower().endswith(DOCUMENT_SUFFIXES):
        if match is not None:
            reason = "match belongs to a list: an order says itself what its entries match"
            raise Refused([Problem(file, None, match, reason)])
        candidate = candidate_of(parse(file, data), config)
    else:
        zone = _zone(source, config)
        if zone is not None and zone.kind == "rpz" and match is not None:
            raise Refused(
                [Problem(file, None, match, "match belongs to a list: a policy zone has wildcards")]
            )
        candidate = _of_names(file, data, zone, match, config)
    if candidate.zone.entries == 0:
        reason = "holds no name" if not candidate.passed_over else "holds no name that a list may block"
        raise Refused([Problem(file, None, "", reason)])
    return candidate


def candidate_of(order: Order, config: Config) -> Candidate:
    """Compiles the zone of an order in the ledger, such as a notice. Raises `Refused`."""
    passed_over = Counter(one.code.lower() for one in order.refused if one.index is not None)
    return Candidate(_of_order(order, config), passed_over)


_NAME = "impact"
_BLOCKS = Rule(Answer("nodata", ttl=0))
_BLOCKS_OVER_UDP = Rule(Answer("truncate", ttl=0))
_LETS_PASS = Rule(Answer("passthru", ttl=0))
_RULES = (_BLOCKS, _BLOCKS_OVER_UDP, _LETS_PASS)


def _of_order(order: Order, config: Config) -> PolicyZone:
    if order.action not in ("block", "supersede", "notice"):
        reason = "only an order that blocks, or a notice, can have an impact run"
        raise Refused([order.problem(("action",), order.action, reason)])
    if order.entries_file is not None and not order.entries:
        reason = "its names are in a separate file: run `dnsblock impact` on that file"
        raise Refused([order.problem(("entries_file",), order.entries_file.path, reason)])
    usual = next((zone.answer for zone in config.zones if zone.issuer == order.issuer), "nodata")
    lines = [
        f"{entry.match} {_RULES.index(_rule(entry, usual, config))} {entry.name}\n" for entry in order.entries
    ]
    return PolicyZone.from_entries(_NAME, _RULES, "".join(lines).encode())


def _rule(entry: Entry, usual: str, config: Config) -> Rule:
    """The rule to count: only whether the entry's answer would block matters, not how."""
    profile = entry.answer if entry.answer in config.answer_names else usual
    actions = {"passthru": _LETS_PASS, "truncate": _BLOCKS_OVER_UDP}
    return actions.get(config.answer(profile or usual).action, _BLOCKS)


def _zone(source: str | None, config: Config) -> Zone | None:
    """The zone whose options are used to read the names; None: any detected format of lists."""
    if source is None:
        return None
    kinds = ("list", "rpz")
    zone = next((zone for zone in config.zones if zone.name == source and zone.kind in kinds), None)
    if zone is None:
        raise Refused([Problem(f"list {source}", None, "", "there is no such list")])
    return zone


def _options(zone: Zone | None, match: Match | None, config: Config) -> Options:
    if zone is None:
        return Options.for_impact_run(match, config)
    options = Options.of(zone, config)
    return options if match is None else replace(options, match=match)


def _of_names(file: str, data: bytes, zone: Zone | None, match: Match | None, config: Config) -> Candidate:
    """A list or policy zone without protected names, since they would not be enforced either."""
    options = _options(zone, match, config)
    try:
        with NamedTemporaryFile(prefix="dnsblock-impact-") as text:
            text.write(data)
            text.flush()
            compiled = options.compile(
                [(file, text.name)], folder=None, before=None, progress=ReadingProgress()
            )
    except (OSError, NotCompiled) as err:
        raise Refused([Problem(file, None, "", f"cannot be compiled: {err}")]) from err
    except ListUnreadable as err:
        label, code, reason = err.args
        raise Refused([Problem(label, None, "", f"{code}: {reason}")]) from err
    report = Report.of(compiled, options.match)
    if (finding := rejected(compiled, REJECTED_PERCENT)) is not None:
        bad = [*report.of_kind("rejected"), *report.of_kind("left out")]
        lines = [one.problem for one in sorted(bad, key=lambda one: one.line)]
        raise Refused([*lines, Problem(file, None, "", str(finding))])
    if zone is not None and zone.kind == "rpz":
        return Candidate(list_zone(zone, config, compiled.names), report.rejected_by)
    return Candidate(PolicyZone.from_names(_NAME, compiled.names, _BLOCKS), report.rejected_by)


# ------- Running


class Run:
    """One impact run, from reading its names until its report."""

    def __init__(self, engine: Engine, file: str, seconds: int) -> None:
        self._engine = engine
        self._file, self._seconds = file, seconds
        self._ended = asyncio.Event()
        self._names = 0
        self._run: ImpactRun | None = None
        self._began_at = self._ended_at = 0.0

    def end(self) -> None:
        """Ends the run early; its report has the counts so far."""
        self._ended.set()

    async def count(self, candidate: Candidate, top: int) -> Impact:
        """Counts what the zone would block for the requested time. Raises `Refused`."""
        zone = candidate.zone
        try:
            # In a thread: allocating counters for ten million names takes time.
            self._run = await asyncio.to_thread(self._engine.begin_impact_run, zone)
            self._names, self._began_at = zone.entries, time.monotonic()
            event(logging.INFO, "impact run started", **self.facts())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._ended.wait()
        except RuntimeError as err:
            raise Refused([Problem(self._file, None, "", "queries are not answered now")]) from err
        finally:
            self._ended_at = time.monotonic()
            self._engine.end_impact_run()
        event(logging.INFO, "impact run ended", **self.facts())
        counts = await asyncio.to_thread(self._run.counts, top)
        return {
            **self._progress(counts),
            "share": counts.blocked / counts.queries if counts.queries else 0.0,
            "blocking_names": counts.blocking_names,
            "decided_names": counts.queried_names - counts.blocking_names,
            "unasked_names": self._names - counts.queried_names,
            "top": [{"name": name, "queries": queries} for name, queries in counts.top],
            "passed_over": candidate.passed_over,
        }

    def progress(self) -> Progress:
        """The counts so far. It reads every entry: call it in a thread."""
        return self._progress(None if self._run is None else self._run.counts(0))

    def _progress(self, counts: ImpactCounts | None) -> Progress:
        return {
            **self.facts(),
            "queries": 0 if counts is None else counts.queries,
            "blocked": 0 if counts is None else counts.blocked,
            "decided": 0 if counts is None else counts.decided,
        }

    def facts(self) -> Facts:
        """The file, and how much of the time has passed."""
        elapsed = (self._ended_at or time.monotonic()) - self._began_at if self._began_at else 0.0
        return {
            "file": self._file,
            "seconds": self._seconds,
            "elapsed": round(elapsed, 3),
            "names": self._names,
        }


class ImpactRuns:
    """Allows one impact run at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stopping = False
        self.running: Run | None = None
        self.reader_at_work = threading.Lock()  # held by the thread that is reading names

    def compile_order(self, order: Order, config: Config) -> Candidate:
        """As `candidate_of`, in a thread. Raises `Refused`."""
        with self.reader_at_work:
            return candidate_of(order, config)

    def compile(
        self, file: str, data: bytes, match: Match | None, config: Config, source: str | None
    ) -> Candidate:
        """As `compile_candidate`, in a thread. Raises `Refused`."""
        with self.reader_at_work:
            return compile_candidate(file, data, match, config, source)

    @contextlib.contextmanager
    def run(self, file: str, seconds: int) -> Iterator[Run]:
        """Reserves one run. Raises `Refused` during another run, and while the daemon stops."""
        if self._stopping:
            raise Refused([Problem(file, None, "", "the daemon is stopping")])
        if self.running is not None:
            other = self.running.facts()
            elapsed = f"{other['elapsed']:.0f} of {other['seconds']} seconds"
            reason = f"another impact run is in progress ({elapsed}): wait until it ends"
            raise Refused([Problem(other["file"], None, "", reason)])
        self.running = Run(self._engine, file, seconds)
        try:
            yield self.running
        finally:
            self.running = None

    def stop(self) -> None:
        """Ends the current run and prevents others from starting."""
        self._stopping = True
        if self.running is not None:
            self.running.end()
