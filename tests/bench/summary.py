"""Converts the JSON of a run to the rows of the tables. Pure, so that `--show` can use it."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .figures import Run, Spread, ratio, spread, target

LIMIT = "limit"
PERCENTILES = ("p50_us", "p90_us", "p99_us", "p999_us")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure in its own unit, and the ratio to the limit, or `None`."""

    value: float | None
    ratio: Spread | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of a server in a workload. CPU time and latencies are in microseconds."""

    workload: str
    server: str
    cpu: Figure
    qps: Figure
    half: dict[str, Figure]  # percentiles at half load
    saturated: dict[str, Figure]  # percentiles at saturation
    target: float | None  # the maximum for the ratio of `cpu`
    busy: float  # processors that the server used when saturated
    waited: float  # share of the time in which it waited for one
    load_idle: float  # share of the load tool's turns without a response when saturated
    lost_half: float  # share of the offered queries
    lost_saturated: float
    wrong: int
    disturbed: int  # runs in which another process used the load tool's processor


@dataclass(frozen=True, slots=True)
class LoadingRow:
    server: str
    bytes: Figure  # per name; the limit is the compressed list
    seconds: Figure  # from startup to in force; the limit is reading the file
    again_seconds: float | None
    reload_seconds: float | None
    peak_kib: float


def rows(data: dict[str, Any]) -> list[Row]:
    """The rows by workload, in the order of measurement. The limit comes first."""
    found: list[Row] = []
    for workload in unique(entry["workload"] for entry in data["rounds"]):
        entries = [entry for entry in data["rounds"] if entry["workload"] == workload]
        found.append(limit_row(workload, entries))
        for server in unique(entry["server"] for entry in entries):
            bound = target(workload, data["options"]["names"]) if server == "daemon" else None
            found.append(server_row(workload, server, entries, bound))
    return found


def server_row(workload: str, server: str, entries: Sequence[dict[str, Any]], bound: float | None) -> Row:
    saturated = pairs(entries, server, "saturated")
    half = pairs(entries, server, "half")
    every = [*all_pairs(entries, server, "saturated"), *all_pairs(entries, server, "half")]
    return Row(
        workload=workload,
        server=server,
        cpu=figure(saturated, lambda run: run.cpu_us),
        qps=figure(saturated, lambda run: run.useful_qps),
        half=percentiles(half),
        saturated=percentiles(saturated),
        target=bound,
        busy=median(run.busy for run, _ in saturated),
        waited=median(e["waited"] for e in entries if (e["server"], e["mode"]) == (server, "saturated")),
        load_idle=median(run.idle for run, _ in saturated),
        lost_half=share_lost(run for run, _ in half),
        lost_saturated=share_lost(run for run, _ in saturated),
        wrong=sum(run.wrong for run, _ in every),
        disturbed=sum(is_disturbed(pair) for pair in every),
    )


def limit_row(workload: str, entries: Sequence[dict[str, Any]]) -> Row:
    """The figures of the limit program. Its latencies at half load are at the rate of the first server."""
    first = entries[0]["server"]
    saturated = [run for _, limits in pairs(entries, None, "saturated") for run in limits]
    half = [run for _, limits in pairs(entries, first, "half") for run in limits]
    return Row(
        workload=workload,
        server=LIMIT,
        cpu=Figure(median(run.cpu_us for run in saturated)),
        qps=Figure(median(run.useful_qps for run in saturated)),
        half={name: Figure(median(getattr(run, name) for run in half)) for name in PERCENTILES},
        saturated={name: Figure(median(getattr(run, name) for run in saturated)) for name in PERCENTILES},
        target=None,
        busy=median(run.busy for run in saturated),
        waited=0,
        load_idle=median(run.idle for run in saturated),
        lost_half=share_lost(half),
        lost_saturated=share_lost(saturated),
        wrong=0,
        disturbed=0,
    )


def loading_rows(data: dict[str, Any]) -> list[LoadingRow]:
    compressed, reading = data["list"]["compressed_bytes_per_name"], data["list"]["reading_seconds"]
    return [
        LoadingRow(
            server=entry["server"],
            bytes=one_figure(bytes_per_name(entry), compressed),
            seconds=one_figure(entry["load_seconds"], reading),
            again_seconds=entry["again_seconds"],
            reload_seconds=entry["reload_seconds"],
            peak_kib=entry["peak_kib"],
        )
        for entry in data["loading"]
    ]


def bytes_per_name(entry: dict[str, Any]) -> float:
    added: float = (entry["loaded_kib"] - entry["empty_kib"]) * 1024 / max(1, entry["names"] - 1)
    return added


def one_figure(value: float, limit: float) -> Figure:
    over = ratio(value, [limit])
    return Figure(value, None if over is None else Spread(over, over, over))


# ------- Runs with the runs of the limit

Pair = tuple[Run, list[Run]]


def pairs(entries: Iterable[dict[str, Any]], server: str | None, mode: str) -> list[Pair]:
    """The rounds in which no other process used the load tool's processor, or all rounds."""
    found = all_pairs(entries, server, mode)
    return [pair for pair in found if not is_disturbed(pair)] or found


def is_disturbed(pair: Pair) -> bool:
    run, limits = pair
    return any(found.disturbed for found in [run, *limits])


def all_pairs(entries: Iterable[dict[str, Any]], server: str | None, mode: str) -> list[Pair]:
    return [
        (Run(**entry["run"]), [Run(**limit) for limit in entry["limits"]])
        for entry in entries
        if entry["mode"] == mode and server in {None, entry["server"]}
    ]


def figure(found: Sequence[Pair], take: Callable[[Run], float]) -> Figure:
    """The median of the rounds, and the spread of the ratios of each round."""
    ratios = [ratio(take(run), [take(limit) for limit in limits]) for run, limits in found]
    return Figure(median(take(run) for run, _ in found), spread(r for r in ratios if r is not None))


def percentiles(found: Sequence[Pair]) -> dict[str, Figure]:
    def taking(name: str) -> Callable[[Run], float]:
        return lambda run: float(getattr(run, name))

    return {name: figure(found, taking(name)) for name in PERCENTILES}


def share_lost(runs: Iterable[Run]) -> float:
    found = list(runs)
    offered = sum(run.offered for run in found)
    return sum(run.lost for run in found) / offered if offered else 0


def median(values: Iterable[float]) -> float:
    found = list(values)
    return statistics.median(found) if found else 0


def unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
