"""One run of the tree of `fleet_tree.py`: starts all servers, submits orders, and watches their arrival."""

import argparse
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from .fleet_servers import Knot, Leaf, Origin, Program, Traffic, document
from .fleet_watch import Notifier, Reloader, Sight, Upstream, watch
from .pushing import Sent

COUNTED = ("dnsblock_transfers_total", "dnsblock_notifies_total", "dnsblock_source_fetches_total")


@dataclass(frozen=True, slots=True)
class Change:
    """The seconds from the submission of an order until a server has the change."""

    action: str
    origin: float  # blocks the name, or no longer does
    written: float  # the file is replaced
    root: float  # serves the change, and so for the next
    middles: tuple[float, ...]
    notified: tuple[float, ...]  # the leaves log NOTIFY
    leaves: tuple[float, ...]  # as `origin`


class Fleet:
    """All servers."""

    def __init__(self, folder: Path, chosen: argparse.Namespace, stack: ExitStack) -> None:
        upstream = stack.enter_context(closing(Upstream()))
        self.origin = stack.enter_context(closing(Origin(folder, upstream.port)))
        self.root = stack.enter_context(closing(Knot(folder, "root", file=self.origin.export)))
        self.middles = [
            stack.enter_context(closing(Knot(folder, f"middle{number}", primary=self.root)))
            for number in range(chosen.middles)
        ]
        self.leaves = [
            stack.enter_context(
                closing(Leaf(folder, number, upstream.port, self.middles[number % chosen.middles]))
            )
            for number in range(chosen.leaves)
        ]
        self.origin.start(chosen.names)
        self.root.start([one.port for one in self.middles])
        for middle in self.middles:
            middle.start([leaf.port for leaf in self.leaves if leaf.primary is middle])
        for leaf in self.leaves:
            leaf.start()
        for leaf in self.leaves:
            leaf.wait_blocks("n0.names0.example")
        self.reloader = stack.enter_context(closing(Reloader(self.origin.export, self.root)))
        for middle in self.middles if chosen.at_once else ():
            stack.enter_context(closing(Notifier(middle)))
        stack.callback(self._end)
        self._every = chosen.every / 1000

    def _end(self) -> None:
        """All at once: to stop one after the other takes half a minute."""
        for server in (self.origin, self.root, *self.middles, *self.leaves):
            server.end()

    def parent(self, leaf: int) -> int:
        return self.middles.index(self.leaves[leaf].primary)

    def change(self, order_id: str, action: str, name: str, **fields: object) -> Change:
        """Submits an order, and watches all servers until each has it."""
        is_block = action == "block"
        resolvers = [Sight.of_resolver(one.port, name, blocked=is_block) for one in self.leaves]
        primaries = [Sight.of_primary(one.port, name, blocked=is_block) for one in [self.root, *self.middles]]
        origin = Sight.of_resolver(self.origin.port, name, blocked=is_block)
        sent = Sent(self.origin.control, {f"{order_id}.json": document(order_id, action, **fields)})
        clock = time.time() - (time.monotonic() - sent.began)  # at `began`
        seen = watch([origin, *primaries, *resolvers], self._every)
        sent.response()
        own, root, *others = (one - sent.began for one in seen)
        count = len(self.middles)
        notified = [
            max((at for at in leaf.events("NOTIFY for zone") if at >= clock - 0.001), default=clock) - clock
            for leaf in self.leaves
        ]
        written = self.reloader.written[-1] - sent.began
        return Change(
            action, own, written, root, tuple(others[:count]), tuple(notified), tuple(others[count:])
        )


def changes(fleet: Fleet, rounds: int, rng: random.Random) -> Iterator[Change]:
    """Blocks a new name and lifts it, again and again."""
    for number in range(rounds):
        name = f"round{number}.more.example"
        yield fleet.change(f"BLOCK-{number}", "block", name, entries=[name])
        time.sleep(rng.uniform(1, 2))  # in step with no timer of a server
        target = {"order_id": f"BLOCK-{number}", "entries": "all"}
        yield fleet.change(f"LIFT-{number}", "unblock", name, targets=[target])
        time.sleep(rng.uniform(1, 2))


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the whole tree."""

    changes: tuple[Change, ...]
    parents: tuple[int, ...]  # of the leaves: numbers of middles
    root: Traffic
    middles: Traffic  # all of them
    metrics: dict[str, int]  # of all leaves: what these counters rose by
    cpu: dict[str, float]  # seconds of processor time for each change and server
    rss_mib: dict[str, float]  # of one server


def measure(folder: Path, chosen: argparse.Namespace, seed: int) -> Run:
    with ExitStack() as stack:
        fleet = Fleet(folder, chosen, stack)
        rng = random.Random(seed)
        time.sleep(3)  # the NOTIFY messages of the startup
        levels: dict[str, Sequence[Program]] = {
            "origin": [fleet.origin],
            "root": [fleet.root],
            "middle": fleet.middles,
            "leaf": fleet.leaves,
        }
        cpu = {level: sum(one.cpu() for one in servers) for level, servers in levels.items()}
        before = [one.traffic() for one in (fleet.root, *fleet.middles)]
        counted = [leaf.metrics() for leaf in fleet.leaves]
        found = tuple(changes(fleet, chosen.rounds, rng))
        after = [one.traffic() for one in (fleet.root, *fleet.middles)]
        deltas = [now.since(then) for now, then in zip(after, before, strict=True)]
        middles = deltas[1]
        for delta in deltas[2:]:
            middles = middles.plus(delta)
        rose: dict[str, int] = {}
        for leaf, then in zip(fleet.leaves, counted, strict=True):
            now = leaf.metrics()
            now.subtract(then)
            for name, value in now.items():
                if value and name.startswith(COUNTED):
                    rose[name] = rose.get(name, 0) + value
        return Run(
            found,
            tuple(fleet.parent(number) for number in range(chosen.leaves)),
            deltas[0],
            middles,
            rose,
            {
                level: (sum(one.cpu() for one in servers) - cpu[level]) / len(servers) / len(found)
                for level, servers in levels.items()
            },
            {level: statistics.median(one.rss_mib() for one in servers) for level, servers in levels.items()},
        )
