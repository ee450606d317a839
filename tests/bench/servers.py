"""The measured servers: the limit programs and the daemon. Other resolvers are in `peers`.

All have the same configuration: one loopback address, the same number of threads, and the load tool as the
only upstream. They have the same list: a listed name and all names below it are NXDOMAIN.
"""

import json
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ports import free_port

from . import processes
from .pushing import Pushed, push

BUILD = Path(__file__).parent / "build"


@dataclass(frozen=True, slots=True)
class Setting:
    """Settings for all servers of a run."""

    folder: Path  # of the servers' files
    workers: int
    server_processors: str  # as taskset takes it: "0", or "0,1"
    upstream_port: int
    cached: bool  # whether servers cache the upstream's responses
    limited: bool  # whether the daemon applies rate limits, which the load tool does not reach
    load_timeout: float  # seconds that a server may take to load its list


class Server(ABC):
    """A server with its own folder and port."""

    name = ""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.launched: list[str] = []
        self.folder = setting.folder / f"{self.name}-{'cached' if setting.cached else 'uncached'}"
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        if self.process is None:
            raise processes.DidNotStart("is not running")
        return self.process.pid

    def start(self, names: Path) -> float:
        """Starts with the list. Returns the seconds until its last name is blocked."""
        self.port = free_port()
        self.launched = self.command(names)
        return self.start_again(names)

    def start_again(self, names: Path) -> float:
        """Like `start`, with the files of the last start."""
        last = last_name(names)
        began = time.monotonic()
        self.process = processes.launch(self.setting.server_processors, self.launched, self.folder)
        processes.wait_until(
            lambda: self.is_ready(last), self.process, "it blocks", self.setting.load_timeout
        )
        return time.monotonic() - began

    def settle(self) -> None:  # noqa: B027  # most do none
        """Waits for the work that the server does after its first answer."""

    def is_ready(self, last: str) -> bool:
        return processes.is_blocked(self.port, last)

    def stop(self) -> None:
        if self.process is not None:
            processes.stop(self.process)
            self.process = None

    @abstractmethod
    def command(self, names: Path) -> list[str]:
        """Writes the configuration, and returns the command."""

    @classmethod
    @abstractmethod
    def version(cls) -> str | None:
        """The version that the program prints. `None` if it is not installed."""


class LimitEcho(Server):
    name = "limit_echo"

    def command(self, names: Path) -> list[str]:
        return [str(BUILD / self.name), str(self.port), str(self.setting.workers)]

    @classmethod
    def version(cls) -> str | None:
        return "of this repository"


class LimitForward(LimitEcho):
    name = "limit_forward"

    def command(self, names: Path) -> list[str]:
        upstream = str(self.setting.upstream_port)
        return [str(BUILD / self.name), str(self.port), upstream, str(self.setting.workers)]

    def is_ready(self, last: str) -> bool:
        """It has no list to load, so it is ready when the kernel lists its sockets."""
        wanted = f":{self.port:04X} "
        return wanted in Path("/proc/net/udp").read_text()


class Daemon(Server):
    """dnsblock: a list, and a zone for the orders of `publish`."""

    name = "daemon"
    issuer = "bench.example"

    @property
    def config(self) -> Path:
        return self.folder / "dnsblock.yaml"

    @property
    def orders(self) -> Path:
        return self.folder / "orders"

    @property
    def list_path(self) -> Path:
        return self.folder / "names.txt"

    @property
    def control(self) -> Path:
        return self.folder / "control.sock"

    def start_again(self, names: Path) -> float:
        self._log_before = self._log_bytes()
        return super().start_again(names)

    def settle(self) -> None:
        def is_settled() -> bool:
            with (self.folder / "log").open("rb") as log:
                log.seek(self._log_before)
                return b'"event": "ready"' in log.read()

        processes.wait_until(is_settled, self.process, "it is ready", self.setting.load_timeout)

    def _log_bytes(self) -> int:
        log = self.folder / "log"
        return log.stat().st_size if log.exists() else 0

    def command(self, names: Path) -> list[str]:
        self.orders.mkdir(exist_ok=True)
        # The history of an earlier start is deleted: recording changes is not a part of loading.
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        shutil.copyfile(names, self.list_path)
        self.metrics_port = free_port()
        self.config.write_text(json.dumps(self.settings(), indent=1))  # JSON is YAML
        return [dnsblock(), "serve", "-c", str(self.config), "--json"]

    def settings(self) -> dict[str, object]:
        """All other options have their defaults."""
        order_zone = {"name": "orders", "issuer": self.issuer, "unsigned": "accept", "answer": "nxdomain"}
        list_zone = {"name": "list", "list": self.list_path.name, "match": "subtree", "answer": "nxdomain"}
        settings: dict[str, object] = {
            "listen": [f"127.0.0.1:{self.port}"],
            "workers": self.setting.workers,
            "upstream": {"servers": [f"127.0.0.1:{self.setting.upstream_port}"]},
            "cache": {"size_mb": 64 if self.setting.cached else 0},
            "orders": self.orders.name,
            "zones": [order_zone, list_zone],
            "metrics": f"127.0.0.1:{self.metrics_port}",
        }
        if self.setting.limited:
            # Each query is counted for its client, but none of the load tool's 16 clients reaches the limit.
            settings["limits"] = {"queries_per_second": 100000, "exempt": []}
        return settings

    def reload(self) -> dict[str, object]:
        """`dnsblock reload`, which returns when the new snapshot is in force."""
        command = [dnsblock(), "reload", "-c", str(self.config), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=self.setting.load_timeout)
        if done.returncode != 0:
            raise RuntimeError(f"dnsblock reload: {done.stdout}{done.stderr}")
        result: dict[str, object] = json.loads(done.stdout)
        return result

    def push(self, number: int) -> Pushed:
        """Submits an order that blocks one name."""
        name = f"order-{number}.bench.example"
        order = {
            "schema": "dnsblock.order/1",
            "issuer": self.issuer,
            "order_id": f"BLOCK-{number}",
            "action": "block",
            "issued_at": "2017-07-14T11:30:00+07:00",
            "entries": [name],
        }
        return push(self.control, self.port, {"order.json": json.dumps(order).encode()}, name)

    @classmethod
    def version(cls) -> str | None:
        return said_by([dnsblock(), "--version"])


def dnsblock() -> str:
    """The command `dnsblock` of this Python environment."""
    return str(Path(sys.executable).parent / "dnsblock")


def said_by(command: Iterable[str]) -> str | None:
    """The first line that a program prints, on either stream."""
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        return None
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else ""


def last_name(names: Path) -> str:
    with names.open("rb") as file:
        file.seek(max(0, names.stat().st_size - 300))
        return file.read().split()[-1].decode("ascii")
