"""The versions of a list of national size, one after the other: `python -m bench.year`. docs/performance.md.

Prints the cost of each version: time, memory, disk, and the delay of orders in the meantime. Then it measures
queries about the past, a rollback and restarts. Nothing is compared with a target.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from ports import free_port

from . import machine, processes
from .campaign import log_end
from .load import make_lists, make_tools
from .publish import look
from .servers import BUILD, Daemon, Setting, dnsblock

LOOK_SECONDS = 0.01  # interval of the memory samples
TIMEOUT = 900.0
MIB = 1 << 20


class YearDaemon(Daemon):
    """A daemon that reads its list only after a `source refresh`."""

    def settings(self) -> dict[str, object]:
        settings = super().settings()
        zones = settings["zones"]
        assert isinstance(zones, list)
        # Each version changes thousands of names, which these guards would reject.
        guards = {"shrank_names": "off", "grew_names": "off"}
        zones[-1]["source"] = {"every_s": 86_400, "format": "plain", "guards": guards}
        return settings | {"history": {"generations": self.generations}}

    generations = 30

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def request(self, method: str, target: str) -> dict[str, object]:
        """A request to the control socket, as commands send it. Raises `RuntimeError` if it fails."""
        with closing(OverUnix(self.control)) as connection:
            connection.request(method, target)
            response = connection.getresponse()
            answer: dict[str, object] = json.loads(response.read())
        if response.status != 200:
            raise RuntimeError(f"{target}: {answer}")
        return answer

    def command_seconds(self, *arguments: str) -> float:
        began = time.monotonic()
        command = [dnsblock(), *arguments, "-c", str(self.config), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        if done.returncode > 1:
            raise RuntimeError(f"{arguments}: {done.stdout}{done.stderr}")
        return time.monotonic() - began


class OverUnix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("dnsblock", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))


# ------- Memory and disk -------


@dataclass(slots=True)
class Memory:
    """Memory of a process in MiB: its own, and the total with mapped files."""

    own: float
    total: float

    @classmethod
    def of(cls, pid: int) -> "Memory":
        return cls(processes.rss_kib(pid, "RssAnon") / 1024, processes.rss_kib(pid) / 1024)

    def __str__(self) -> str:
        return f"{self.total:,.0f} MiB, {self.own:,.0f} without mapped files"


@contextmanager
def watched(pid: int) -> Iterator[Memory]:
    """The maximum memory of a process during the block."""
    most, is_over = Memory.of(pid), threading.Event()

    def watch() -> None:
        while not is_over.wait(LOOK_SECONDS):
            now = Memory.of(pid)
            most.own, most.total = max(most.own, now.own), max(most.total, now.total)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        is_over.set()
        thread.join()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def disk_mib(place: Path) -> float:
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return sum(path.stat().st_blocks * 512 for path in files) / MIB


# ------- Orders in the meantime -------


@dataclass(slots=True)
class Orders:
    """Publishes orders one after the other. Measures the time until each is in force."""

    daemon: YearDaemon
    number: int = 0
    seconds: list[float] = field(default_factory=list)

    @contextmanager
    def published(self, pause: float = 0.25) -> Iterator[list[float]]:
        is_over = threading.Event()
        self.seconds = []

        def publish() -> None:
            while not is_over.wait(pause):
                self.seconds.append(self.one())

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            yield self.seconds
        finally:
            is_over.set()
            thread.join()

    def one(self) -> float:
        self.number += 1
        return self.daemon.push(self.number).in_force


def spread(seconds: list[float]) -> str:
    """Median and maximum, in milliseconds."""
    if not seconds:
        return "none"
    median, most = statistics.median(seconds) * 1000, max(seconds) * 1000
    return f"{median:,.1f} ms, at most {most:,.1f} ms of {len(seconds)}"


# ------- The list -------


@dataclass(slots=True)
class Growing:
    """A list that loses names at its start and gains names at its end."""

    path: Path
    added: int
    removed: int
    version: int = 1

    def change(self) -> str:
        """Replaces the file by the next version. Returns a new name."""
        self.version += 1
        partial = self.path.with_suffix(".tmp")
        with self.path.open("rb") as old, partial.open("wb") as new:
            for _ in range(self.removed):
                old.readline()
            shutil.copyfileobj(old, new, MIB)
            for number in range(self.added):
                new.write(f"new{number}.v{self.version}.bench.example\n".encode())
        partial.rename(self.path)
        return f"new0.v{self.version}.bench.example"


# ------- History -------


def fill_past(state: Path, versions: int, changed: int) -> float:
    """Records versions of the list without compiled files. Returns the seconds per version.

    Each version adds some names, and removes those that were added ten versions earlier.
    """
    from dnsblock.lists.history.facts import NewVersion, Published
    from dnsblock.lists.history.history import History
    from dnsblock.orders.checkpoint import CheckpointFile

    rng = random.Random(versions)
    names = [[f"p{rng.randrange(10**12)}.example" for _ in range(changed)] for _ in range(versions)]
    with History.open(state) as history:
        current = history.current("list")
        serial = history.snapshots()[0].serial
        if current is None:
            raise RuntimeError("the list has no version yet")
        start = datetime.now(UTC) - timedelta(hours=versions)
        began = time.monotonic()
        for number in range(versions):
            gone = names[number - 10] if number >= 10 else []
            lines = [
                *(f"+ subtree {name}\n" for name in names[number]),
                *(f"- subtree {name}\n" for name in gone),
            ]
            (accepted,) = history.accept(
                [
                    NewVersion(
                        zone="list",
                        compiled=current.version.compiled,
                        difference="".join(lines).encode(),
                        accepted_at=start + timedelta(hours=number),
                        how="refresh",
                        fingerprint=current.fingerprint,
                    )
                ]
            )
            history.record_snapshot(
                Published(
                    *(serial + number, f"{number}", accepted.accepted_at, "filled"),
                    *({"list": accepted.number}, accepted.accepted_at),
                ),
                keep=10_000,
            )
        seconds = (time.monotonic() - began) / max(1, versions)
    file = CheckpointFile(state)
    if file.content is not None:
        file.keep(replace(file.content, serial=serial + versions))
    return seconds


# ------- The run -------


@dataclass(slots=True)
class Run:
    """Prints and stores the figures."""

    found: list[dict[str, object]] = field(default_factory=list)

    def say(self, what: str, **figures: object) -> None:
        self.found.append({"what": what} | {key: _plain(value) for key, value in figures.items()})
        print(
            f"{what:34}",
            ", ".join(f"{key.replace('_', ' ')} {_text(value)}" for key, value in figures.items()),
        )
        sys.stdout.flush()


def _text(value: object) -> str:
    if isinstance(value, list):
        return spread(value)
    return f"{value:,.3f}" if isinstance(value, float) else str(value)


def _plain(value: object) -> object:
    return [value.own, value.total] if isinstance(value, Memory) else value


def measure(chosen: argparse.Namespace, run: Run) -> None:
    make_tools()
    lists = make_lists(chosen.names)
    setting = Setting(
        folder=Path(tempfile.mkdtemp(prefix="dnsblock-year-", dir=chosen.folder)),
        workers=1,
        server_processors=",".join(map(str, machine.processors())),
        upstream_port=free_port(),
        cached=True,
        limited=False,
        load_timeout=TIMEOUT,
    )
    daemon = YearDaemon(setting)
    daemon.generations = chosen.generations
    try:
        measure_daemon(daemon, lists, chosen, run)
    except processes.DidNotStart as err:
        raise processes.DidNotStart(f"{err}: {log_end(daemon)}") from err
    finally:
        daemon.stop()
        shutil.rmtree(setting.folder, ignore_errors=True)


def measure_daemon(daemon: YearDaemon, lists: Path, chosen: argparse.Namespace, run: Run) -> None:
    daemon.start(lists / "one.txt")
    small = Memory.of(daemon.pid)
    daemon.stop()
    empty_start = daemon.start_again(lists / "one.txt")
    daemon.stop()
    shutil.rmtree(daemon.state)
    run.say("restart with one name", seconds=empty_start, memory=small)
    seconds = daemon.start(lists / "names.txt")
    steady = settled(daemon)
    peak = processes.rss_kib(daemon.pid, "VmHWM") / 1024
    run.say("first start, from the text", seconds=seconds, memory=steady, peak_MiB=peak)
    orders = Orders(daemon)
    with orders.published(0.05) as alone:
        time.sleep(3)
    run.say("orders, nothing else to do", in_force=list(alone))

    growing = Growing(daemon.list_path, chosen.changed, chosen.changed // 100)
    for _ in range(chosen.versions):
        one_version(daemon, growing, orders, run)
    if chosen.past:
        daemon.stop()
        each = fill_past(daemon.state, chosen.past, chosen.changed)
        run.say(f"{chosen.past:,} more recorded versions", seconds_each=each, history_MiB=history_mib(daemon))
        daemon.start_again(daemon.list_path)
        one_version(daemon, growing, orders, run)
    look_back(daemon, growing, chosen, run)
    roll_back(daemon, growing, run)
    start_again(daemon, empty_start, run)


def one_version(daemon: YearDaemon, growing: Growing, orders: Orders, run: Run) -> None:
    name = growing.change()
    before = settled(daemon)
    cpu = cpu_seconds(daemon.pid)
    with watched(daemon.pid) as most, orders.published() as meanwhile:
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(daemon.request, "POST", "/v1/sources/list/refresh")
            while not look(daemon, name) and not done.done():
                pass  # `look` sleeps
            enforced = time.monotonic() - began
            done.result()
        seconds = time.monotonic() - began
    cpu = cpu_seconds(daemon.pid) - cpu
    if not processes.is_blocked(daemon.port, name, timeout=60):
        raise RuntimeError(f"{name} is not blocked")
    time.sleep(2.1)  # until the file is old enough to be trusted (SETTLED_NS); the next refresh records that
    daemon.request("POST", "/v1/sources/list/refresh")
    began = time.monotonic()
    daemon.request("POST", "/v1/sources/list/refresh")
    unchanged = time.monotonic() - began
    run.say(
        f"version {growing.version}",
        enforced_after=enforced,
        seconds=seconds,
        of_CPU=cpu,
        unchanged=unchanged,
        before=before,
        most=most,
        ratio=most.total / before.total,
        orders_meanwhile=list(meanwhile),
        lists_MiB=disk_mib(daemon.state / "lists"),
        texts_MiB=disk_mib(daemon.state / "texts"),
        history_MiB=history_mib(daemon),
    )


def settled(daemon: YearDaemon) -> Memory:
    time.sleep(1)
    return Memory.of(daemon.pid)


def history_mib(daemon: YearDaemon) -> float:
    return sum(disk_mib(path) for path in daemon.state.glob("lists.sqlite*"))


def look_back(daemon: YearDaemon, growing: Growing, chosen: argparse.Namespace, run: Run) -> None:
    snapshots = daemon.request("GET", "/v1/versions")["snapshots"]
    assert isinstance(snapshots, list)
    serials = [one["serial"] for one in snapshots]
    begin = datetime.fromisoformat(snapshots[-1]["published_at"])
    span = datetime.now(UTC) - begin
    rng = random.Random(1)
    with growing.path.open("rb") as file:
        size = growing.path.stat().st_size

        def listed() -> str:
            file.seek(rng.randrange(size - 1000))
            file.readline()
            return file.readline().decode().strip()

        def why() -> str:
            at = (begin + rng.random() * span).isoformat()
            return f"/v1/why?name={quote(listed())}&at={quote(at)}"

        def changed() -> str:
            return f"/v1/history?name=new{rng.randrange(chosen.changed)}.v{growing.version}.bench.example"

        targets: dict[str, Callable[[], str]] = {
            "why NAME --at": why,
            "history NAME": lambda: f"/v1/history?name={quote(listed())}",
            "history NAME, a new one": changed,
            "diff of neighbours": lambda: _diff(serials[0], serials[1]),
            "diff of two in a hundred": lambda: _diff(serials[0], serials[min(100, len(serials) - 1)]),
            "diff of the first and the last": lambda: _diff(serials[-1], serials[0]),
            "versions": lambda: "/v1/versions",
            "versions list": lambda: "/v1/versions?zone=list",
        }
        for what, target in targets.items():
            times = []
            for _ in range(chosen.questions):
                began = time.monotonic()
                daemon.request("GET", target())
                times.append(time.monotonic() - began)
                if sum(times) > 20:
                    break
            run.say(what, seconds=times)
        name = listed()
    run.say(
        "commands",
        why=daemon.command_seconds("why", name, "--at", begin.isoformat()),
        history=daemon.command_seconds("history", name),
        diff=daemon.command_seconds("diff", str(serials[1]), str(serials[0])),
    )


def _diff(a: int, b: int) -> str:
    return f"/v1/diff?a={a}&b={b}&limit=1000"


def roll_back(daemon: YearDaemon, growing: Growing, run: Run) -> None:
    """Rolls back from the latest version to the previous one."""
    snapshots = daemon.request("GET", "/v1/versions")["snapshots"]
    assert isinstance(snapshots, list)
    now = snapshots[0]["versions"]["list"]
    serial = next(one["serial"] for one in snapshots if one["versions"]["list"] < now)
    name = f"new0.v{growing.version}.bench.example"
    with watched(daemon.pid) as most:
        began = time.monotonic()
        daemon.request("POST", f"/v1/rollback?serial={serial}&reason=bench")
        seconds = time.monotonic() - began
        while processes.is_blocked(daemon.port, name):
            if time.monotonic() - began > TIMEOUT:
                raise RuntimeError(f"{name} is blocked after the rollback")
    run.say("rollback", seconds=seconds, most=most)


def start_again(daemon: YearDaemon, empty: float, run: Run) -> None:
    last = growing_last(daemon)
    for what in ("restart", "restart with a cold disk cache"):
        daemon.stop()
        if "cold" in what:
            drop_from_page_cache(daemon.state / "lists")
        seconds = daemon.start_again(last)
        run.say(what, seconds=seconds, above_one_name=seconds - empty, memory=settled(daemon))


def growing_last(daemon: YearDaemon) -> Path:
    """A file whose last name is listed in all versions."""
    place = daemon.folder / "last.txt"
    with daemon.list_path.open("rb") as file:
        file.seek(daemon.list_path.stat().st_size // 2)
        file.readline()
        place.write_bytes(file.readline())
    return place


def drop_from_page_cache(folder: Path) -> None:
    """Drops these files from the page cache (posix_fadvise(2))."""
    import os

    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.year", description=__doc__)
    parser.add_argument("--names", type=int, default=10_000_000, help="names in the list (%(default)s)")
    parser.add_argument("--versions", type=int, default=5, help="versions after the first (%(default)s)")
    parser.add_argument("--changed", type=int, default=3000, help="new names in each (%(default)s)")
    parser.add_argument(
        "--past",
        type=int,
        default=0,
        help="versions that are only recorded, for queries about the past (%(default)s)",
    )
    parser.add_argument("--generations", type=int, default=30, help="history.generations (%(default)s)")
    parser.add_argument(
        "--questions", type=int, default=50, help="queries of each kind about the past (%(default)s)"
    )
    parser.add_argument("--folder", type=Path, default=BUILD, help="parent of the state folder (%(default)s)")
    parser.add_argument("--results", type=Path, help="JSON file for all figures")
    return parser


def main() -> int:
    chosen = parser().parse_args()
    run = Run()
    about = machine.describe()
    print(
        ", ".join(
            f"{key} {about[key]}" for key in ("date", "cpu", "processors", "kernel", "load_average", "commit")
        )
    )
    measure(chosen, run)
    if chosen.results:
        chosen.results.write_text(json.dumps({"machine": about, "figures": run.found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
