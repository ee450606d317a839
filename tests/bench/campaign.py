"""One run of the bench from top to bottom: tools, lists, servers, rounds, results."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ports import free_port
from rich.console import Console

from . import machine, processes
from .figures import spread
from .load import (
    WORKLOADS,
    Loader,
    Workload,
    compressed_bytes,
    fill_cache,
    make_lists,
    make_tools,
    reading_seconds,
)
from .loading import Loaded, measure_loading
from .overload import Overloaded, measure_overload
from .peers import PEERS
from .publish import PUBLISHES, Published, measure_publishes
from .servers import BUILD, Daemon, LimitEcho, LimitForward, Server, Setting
from .steady import Measured, measure_round

SCHEMA = "dnsblock.bench/1"
MEASURED: tuple[type[Server], ...] = (Daemon, *PEERS)
SERVERS = {kind.name: kind for kind in MEASURED}
EXTRAS = ("publish", "overload")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line, documented in `__main__`."""

    names: int = 1_000_000
    workers: int = 1
    rounds: int = 5
    seconds: float = 4
    warm_up: float = 1
    only: tuple[str, ...] = (*WORKLOADS, *EXTRAS)
    servers: tuple[str, ...] = tuple(SERVERS)
    limited: bool = False
    load_timeout: float = 300
    publishes: int = PUBLISHES
    quiet: float = 0

    @property
    def server_processors(self) -> str:
        """The first ones, one for each worker."""
        return ",".join(str(number) for number in machine.processors()[: self.workers])

    @property
    def load_processor(self) -> str:
        """The last one."""
        return str(machine.processors()[-1])


@dataclass(slots=True)
class Results:
    """All results of a run, as written to the JSON, and the console for progress."""

    console: Console
    options: Options
    machine: dict[str, object]
    versions: dict[str, str | None]
    names: dict[
        str, float
    ]  # of the list: count, bytes per name, compressed bytes per name, seconds to read it
    loaded: list[Loaded] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    overloaded: list[Overloaded] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "versions": self.versions,
            "options": asdict(self.options),
            "list": self.names,
            "loading": [loaded.as_json() for loaded in self.loaded],
            "rounds": [measured.as_json() for measured in self.measured],
            "publish": [published.as_json() for published in self.published],
            "overload": [overloaded.as_json() for overloaded in self.overloaded],
            "notes": self.notes,
        }

    def best_qps(self, workload: str, server: str) -> float:
        """Useful answers per second when saturated: the median of the rounds."""
        found = spread(
            m.run.useful_qps
            for m in self.measured
            if (m.workload, m.server, m.mode) == (workload, server, "saturated")
        )
        return found.median if found else 0


def run(options: Options, console: Console) -> Results:
    make_tools()
    console.print(f"List of {options.names:,} names ...")
    lists = make_lists(options.names)
    results = Results(
        console, options, machine.describe(), versions(options), about_list(lists, options.names)
    )
    stolen = machine.stolen_ticks()
    chosen = [WORKLOADS[name] for name in WORKLOADS if name in options.only]
    with tempfile.TemporaryDirectory(prefix="dnsblock-bench-", dir=BUILD) as folder:
        for cached in (True, False):
            group = [workload for workload in chosen if workload.cached == cached]
            extras = [extra for extra in EXTRAS if cached and extra in options.only]
            if group or extras:
                measure_group(results, group, extras, setting_of(options, Path(folder), cached), lists)
    results.machine["stolen_ticks"] = machine.stolen_ticks() - stolen
    return results


def setting_of(options: Options, folder: Path, cached: bool) -> Setting:
    return Setting(
        folder=folder,
        workers=options.workers,
        server_processors=options.server_processors,
        upstream_port=free_port(),
        cached=cached,
        limited=options.limited,
        load_timeout=options.load_timeout,
    )


def versions(options: Options) -> dict[str, str | None]:
    return {name: SERVERS[name].version() for name in options.servers}


def about_list(lists: Path, count: int) -> dict[str, float]:
    names = lists / "names.txt"
    return {
        "names": count,
        "bytes_per_name": names.stat().st_size / count,
        "compressed_bytes_per_name": compressed_bytes(names, count),
        "reading_seconds": reading_seconds(names),
    }


def measure_group(
    results: Results,
    workloads: Sequence[Workload],
    extras: Sequence[str],
    setting: Setting,
    lists: Path,
) -> None:
    """Starts all servers once, with or without a cache. They are idle while another one is measured."""
    options, console = results.options, results.console
    loader = Loader(
        lists, options.load_processor, setting.upstream_port, options.seconds, options.warm_up, options.quiet
    )
    limit: Server = LimitEcho(setting) if setting.cached else LimitForward(setting)
    with ExitStack() as stack:
        stack.enter_context(stopped_in_the_end(limit))
        limit.start(lists / "one.txt")
        servers = [limit, *start_servers(results, setting, lists, stack)]
        if setting.cached:
            for server in servers[1:]:
                console.print(f"Filling the cache of {server.name} ...")
                fill_cache(loader, server)
        for number in range(1, options.rounds + 1):
            for workload in workloads:
                say = Progress(console, options.rounds)
                results.measured += measure_round(loader, workload, servers, number, say)
        measure_extras(results, extras, loader, servers)


def start_servers(results: Results, setting: Setting, lists: Path, stack: ExitStack) -> Iterator[Server]:
    """The servers that are installed and can load the list. The others get a note in the results."""
    options, console = results.options, results.console
    for name in options.servers:
        if results.versions[name] is None:
            results.notes.append(f"{name} is not installed")
            continue
        server = SERVERS[name](setting)
        stack.enter_context(stopped_in_the_end(server))
        console.print(f"Starting {name} ...")
        try:
            if name in {loaded.server for loaded in results.loaded}:
                server.start(lists / "names.txt")
            else:
                loaded = measure_loading(server, lists, options.names)
                results.loaded.append(loaded)
                console.print(f"  {loaded.load_seconds:.2f} s, {loaded.bytes_per_name:.0f} bytes per name")
        except processes.DidNotStart as err:
            server.stop()
            kind = "cached" if setting.cached else "uncached"
            results.notes.append(f"{name} ({kind}): {err}: {log_end(server)}")
            console.print(results.notes[-1], markup=False)
            continue
        yield server


@contextmanager
def stopped_in_the_end(server: Server) -> Iterator[None]:
    try:
        yield
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


def log_end(server: Server) -> str:
    log = server.folder / "log"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1][-300:] if lines else "its log is empty"


class Progress:
    """Prints a line after each run."""

    def __init__(self, console: Console, rounds: int) -> None:
        self.console = console
        self.rounds = rounds

    def __call__(self, measured: Measured) -> None:
        run, limits = measured.run, measured.limits
        against = sum(limit.cpu_us for limit in limits) / len(limits)
        self.console.print(
            f"round {measured.round}/{self.rounds} {measured.workload:9} {measured.server:9} "
            f"{measured.mode:9} {run.cpu_us:6.2f} us of CPU (limit {against:.2f}), {run.qps:9,.0f}/s, "
            f"p99 {run.p99_us} us (limit {limits[0].p99_us}), lost {run.lost}, wrong {run.wrong}",
            highlight=False,
        )


def measure_extras(
    results: Results, extras: Iterable[str], loader: Loader, servers: Sequence[Server]
) -> None:
    """`publish` and `overload`, with mixed queries."""
    console = results.console
    mix = WORKLOADS["mix"]
    if "publish" in extras:
        for server in servers:
            if isinstance(server, Daemon):
                console.print(f"{results.options.publishes} publishes at half load ...")
                rate = (results.best_qps(mix.name, server.name) or loader.run(server, mix).useful_qps) / 2
                found = measure_publishes(loader, server, mix, rate, results.options.publishes)
                results.published.append(found)
    if "overload" in extras:
        for server in servers:
            console.print(f"Overload: {server.name} ...")
            results.overloaded.append(measure_overload(loader, server, mix))
