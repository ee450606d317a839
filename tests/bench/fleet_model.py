"""Times and messages of a large tree, computed from the measured times of a small one. Pure.

docs/fleet-tree.md states the model and its assumptions.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .figures import percentile

NOTIFY_TRIPS = 2.0  # until the next secondary is notified: a TCP connection, and NOTIFY with its answer
NOTIFIED_TRIPS = 1.5  # until this one has the message
FETCH_TRIPS = 3.0  # a TCP connection, SOA, IXFR


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of single steps. Of each with several figures, one is drawn at random for each server."""

    head: Sequence[float]  # from the order until the root serves the change
    middle: Sequence[float]  # from then until a second-level server does
    pause: Sequence[float]  # from then until its first leaf has NOTIFY
    leaf: Sequence[float]  # from NOTIFY until the leaf enforces the change
    notify: float  # that a primary needs for one NOTIFY
    serve: float  # processor time of a primary for one secondary and change
    ixfr_bytes: float  # of one response


@dataclass(frozen=True, slots=True)
class Tree:
    """A root, second-level servers and leaves."""

    middles: int  # 0: the leaves are secondaries of the root
    fan_out: int  # leaves of each second-level server, or of the root if there is none
    near: float  # round-trip time in seconds between a leaf and its primary
    far: float  # between the root and a second-level server

    @property
    def leaves(self) -> int:
        return max(self.middles, 1) * self.fan_out


@dataclass(frozen=True, slots=True)
class Computed:
    """Seconds from the order until a leaf enforces it, and messages of one change."""

    p50: float  # of all leaves and changes
    p99: float
    last_p50: float  # of the last leaf of each change
    last_p99: float
    notifies: int
    soa: int
    ixfr: int
    ixfr_bytes: float


def computed(measured: Measured, tree: Tree, changes: int = 1000, seed: int = 1) -> Computed:
    """Many changes, each with its own random times."""
    rng = random.Random(seed)
    leaves, last = [], []
    for _ in range(changes):
        times = one_change(measured, tree, rng)
        leaves += times
        last.append(max(times))
    servers = tree.middles + tree.leaves
    return Computed(
        percentile(leaves, 0.5),
        percentile(leaves, 0.99),
        percentile(last, 0.5),
        percentile(last, 0.99),
        *(servers, servers, servers, servers * measured.ixfr_bytes),
    )


def one_change(measured: Measured, tree: Tree, rng: random.Random) -> list[float]:
    """The seconds until each leaf enforces one change."""
    head = rng.choice(measured.head)
    if not tree.middles:
        return _below(measured, tree, head, rng)
    times = []
    for number in range(tree.middles):
        served = head + _handed_down(measured, tree.far, number) + rng.choice(measured.middle)
        times += _below(measured, tree, served + rng.choice(measured.pause), rng)
    return times


def _below(measured: Measured, tree: Tree, begin: float, rng: random.Random) -> list[float]:
    """The leaves of a primary that begins to notify them."""
    return [
        begin + _handed_down(measured, tree.near, number) + rng.choice(measured.leaf)
        for number in range(tree.fan_out)
    ]


def _handed_down(measured: Measured, trip: float, number: int) -> float:
    """The time that distance and other secondaries add for the `number`-th secondary.

    Knot DNS sends NOTIFY to one after the other, each after the answer of the one before.
    """
    notified = number * (measured.notify + NOTIFY_TRIPS * trip) + NOTIFIED_TRIPS * trip
    return notified + FETCH_TRIPS * trip + number * measured.serve
