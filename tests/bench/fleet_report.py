"""The printed figures of `fleet_tree.py`. Pure."""

import statistics
from collections.abc import Callable, Iterator, Sequence

from .figures import percentile
from .fleet_fanout import Fanout
from .fleet_model import Measured, Tree, computed
from .fleet_run import Change, Run

STEPS = (
    "order to origin",
    "order to file",
    "file to root",
    "root to second level",
    "second level to first NOTIFY",
    "NOTIFY to leaf",
)
MEDIANS: dict[str, Callable[[Change], Sequence[float]]] = {
    "a leaf": lambda one: one.leaves,
    "the last leaf": lambda one: [max(one.leaves)],
}


def ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f}"


def spread(seconds: Sequence[float]) -> str:
    """In milliseconds."""
    p50, p99 = percentile(seconds, 0.5), percentile(seconds, 0.99)
    return f"p50 {ms(p50)}, p99 {ms(p99)}, most {ms(max(seconds))}"


def steps(run: Run) -> dict[str, list[float]]:
    """The seconds of each step, of all changes and servers."""
    found: dict[str, list[float]] = {step: [] for step in STEPS}
    for one in run.changes:
        found["order to origin"].append(one.origin)
        found["order to file"].append(one.written)
        found["file to root"].append(one.root - one.written)
        found["root to second level"] += [at - one.root for at in one.middles]
        for number, middle in enumerate(one.middles):
            own = [at for at, parent in zip(one.notified, run.parents, strict=True) if parent == number]
            found["second level to first NOTIFY"] += [min(own) - middle] if own else []
        found["NOTIFY to leaf"] += [at - then for at, then in zip(one.leaves, one.notified, strict=True)]
    return found


def lines(run: Run) -> Iterator[str]:
    """The figures of one run."""
    for action, text in (("block", "blocked"), ("unblock", "open again")):
        times = [at for one in run.changes if one.action == action for at in one.leaves]
        if times:
            yield f"order to a leaf, {text}: {spread(times)} ms, of {len(times)}"
    yield f"order to a leaf: {spread([at for one in run.changes for at in one.leaves])} ms"
    yield f"order to the last leaf: {spread([max(one.leaves) for one in run.changes])} ms"
    for step, times in steps(run).items():
        yield f"  {step}: {spread(times)} ms"
    count = len(run.changes)
    for level, traffic in (("root", run.root), ("second level", run.middles)):
        yield (
            f"{level}, for each change: NOTIFY sent {traffic.notifies_sent / count:g}, "
            f"SOA queries {traffic.soa_queries / count:g}, IXFR {traffic.ixfr / count:g} "
            f"({traffic.ixfr_bytes / max(1, traffic.ixfr):.0f} bytes each), AXFR {traffic.axfr / count:g}"
        )
    for name, value in sorted(run.metrics.items()):
        yield f"leaves, for each change: {name} {value / count:g}"
    yield "processor time for each change and server: " + ", ".join(
        f"{level} {ms(seconds)} ms" for level, seconds in run.cpu.items()
    )
    yield "memory of a server: " + ", ".join(f"{level} {mib:.0f} MiB" for level, mib in run.rss_mib.items())


def medians(runs: Sequence[Run]) -> Iterator[str]:
    """The medians of several runs."""
    for what, of_change in MEDIANS.items():
        times = [[at for one in run.changes for at in of_change(one)] for run in runs]
        shares = (
            f"{name} {ms(statistics.median(percentile(one, share) for one in times))}"
            for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1))
        )
        yield f"order to {what}, medians of {len(runs)} runs: {', '.join(shares)} ms"


def measured_of(apart: Run, whole: Run, fanout: Fanout) -> Measured:
    """The steps of the run whose leaves do not wait for each other."""
    found = steps(apart)
    leaves = max(1, len(whole.parents) // len(whole.changes[0].middles))
    return Measured(
        head=[one.root for one in apart.changes],
        middle=found["root to second level"],
        pause=found["second level to first NOTIFY"],
        leaf=found["NOTIFY to leaf"],
        notify=fanout.each,
        serve=whole.cpu["middle"] / leaves,
        ixfr_bytes=whole.middles.ixfr_bytes / max(1, whole.middles.ixfr),
    )


def fanout_line(one: Fanout) -> str:
    return (
        f"Knot DNS notifies {one.secondaries} secondaries: {one.plain * 1000:.1f} ms from the first to the "
        f"last; {ms(one.delayed)} ms if each answers after {ms(one.delay)} ms; "
        f"{ms(one.silent)} ms if one never answers (tcp-remote-io-timeout: {one.timeout_ms})"
    )


def computed_line(measured: Measured, tree: Tree) -> str:
    found = computed(measured, tree)
    shape = f"1, {tree.middles}, {tree.leaves:,}" if tree.middles else f"1, {tree.leaves:,}"
    return (
        f"computed for {shape} servers, {ms(tree.near)} ms to a leaf, {ms(tree.far)} ms to the second level: "
        + f"p50 {ms(found.p50)}, p99 {ms(found.p99)} ms; last leaf p50 {ms(found.last_p50)}, "
        + f"p99 {ms(found.last_p99)} ms; {found.notifies:,} NOTIFY, {found.soa:,} SOA queries, "
        + f"{found.ixfr:,} IXFR with {found.ixfr_bytes / 1000:,.0f} kB"
    )
