"""The cost of a list for a server: memory per name, and time until it is in force."""

from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

from . import processes
from .servers import Daemon, Server


@dataclass(frozen=True, slots=True)
class Loaded:
    """Seconds, and kibibytes of resident memory."""

    server: str
    empty_kib: int  # with a list of one name
    loaded_kib: int
    peak_kib: int
    names: int
    load_seconds: float  # from the start of the process to the first right answer
    again_seconds: float | None = None  # the daemon: second startup, with the state folder of the first
    reload_seconds: float | None = None  # the daemon: one more name in the list, until it is blocked

    def as_json(self) -> dict[str, object]:
        return asdict(self)

    @property
    def bytes_per_name(self) -> float:
        return (self.loaded_kib - self.empty_kib) * 1024 / max(1, self.names - 1)


def measure_loading(server: Server, lists: Path, names: int) -> Loaded:
    """Starts the server. Afterwards it runs with the whole list."""
    server.start(lists / "one.txt")
    server.settle()
    empty = processes.rss_kib(server.pid)
    server.stop()
    seconds = server.start(lists / "names.txt")
    server.settle()
    loaded, peak = processes.rss_kib(server.pid), processes.rss_kib(server.pid, "VmHWM")
    again = reload = None
    if isinstance(server, Daemon):
        server.stop()
        again = server.start_again(lists / "names.txt")
        reload = reload_seconds(server)
    return Loaded(server.name, empty, loaded, peak, names, seconds, again, reload)


def reload_seconds(daemon: Daemon) -> float:
    """Appends a name to the list and reloads."""
    name = "appended.bench.example"
    with daemon.list_path.open("a", encoding="ascii") as file:
        file.write(f"{name}\n")
    began = monotonic()
    daemon.reload()
    seconds = monotonic() - began
    if not processes.is_blocked(daemon.port, name, timeout=60):
        raise RuntimeError("dnsblock reload returned, but the new name is not blocked")
    return seconds
