"""The resolver under test: started as an operator starts it, and queried as its users do.

`Subject` is the only part that knows how dnsblock is configured and run; `asking` sends queries.
"""

import json
import os
import select
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from dnsblock.client import Client, SignedFile

from .asking import SINKHOLE4, SINKHOLE6, TIMEOUT, Asking, assert_silent, is_forwarded, is_sinkholed
from .clients import Metrics, Said
from .forkserver import PRELOAD, ForkedProgram
from .orders import ISSUER, as_yaml
from .tools import dnsblock, wait_for

__all__ = [
    "CLOSED_UPSTREAM", "ISSUER", "ORDERS_ZONE", "PROFILES", "SINKHOLE4", "SINKHOLE6", "TIMEOUT", "Subject",
    "assert_silent", "is_forwarded", "is_sinkholed",
]  # fmt: skip
PROFILES = {"sinkhole": {"action": "sinkhole", "ipv4": [SINKHOLE4], "ipv6": [SINKHOLE6], "ttl": 30}}
ORDERS_ZONE = {"name": "ministry", "issuer": ISSUER, "unsigned": "accept", "answer": "sinkhole"}
CLOSED_UPSTREAM = "127.0.0.1:1"  # tcpmux: nothing listens there, and ICMP reports it immediately
# A stub upstream is a thread of the tests, which may have to wait for a processor.
GENEROUS = {"timeout_ms": 30_000, "health_check": {"timeout_ms": 10_000}}


class Subject(Asking):
    """One dnsblock in a folder of its own, on free ports of the loopback addresses."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.environment: dict[str, str] = {}  # beside that of the tests
        self.under: list[str] = []  # a program that runs daemon and commands, such as setpriv
        self.is_executed = False  # the script is executed, as by an operator; else a process is forked
        self.pass_fds: list[int] = []  # that the daemon inherits
        self.ready: dict = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._move_to(folder)

    # ------- Its files ---------------------------------------------------------

    def _move_to(self, folder: Path) -> None:
        self.folder = folder
        self.config_path = folder / "dnsblock.yaml"
        self.orders_folder = folder / "orders"
        self.stderr_path = folder / "stderr.log"

    def configure(
        self,
        *,
        zones: Iterable[dict] = (ORDERS_ZONE,),
        answers: dict | None = None,
        orders: Iterable[dict] = (),
        lists: dict[str, str | Iterable[str]] | None = None,
        upstreams: Iterable[str] = (CLOSED_UPSTREAM,),
        inbox: str | None = "orders",
        **config: object,
    ) -> None:
        """Write the configuration, the orders and the lists; nothing is started."""
        self.orders_folder.mkdir(exist_ok=True)
        settings = {
            "listen": ["127.0.0.1:0", "[::1]:0"],
            "workers": 2,
            "upstream": {"servers": list(upstreams)} | GENEROUS | config.pop("upstream", {}),
            "answers": PROFILES if answers is None else answers,
            "orders": inbox,
            "zones": list(zones),
            "metrics": "127.0.0.1:0",
            "cache": {"size_mb": 0},  # most tests count what upstreams are asked
            "probes": None,  # as these do
            **config,
        }
        self.config_path.write_text(as_yaml(settings), encoding="utf-8")
        for number, order in enumerate(orders):
            self.put_order(order, f"{number:03}.yaml")
        for name, lines in (lists or {}).items():
            self.put_list(name, lines)

    def put_order(self, order: dict | str | bytes, name: str | None = None) -> Path:
        """Put an order document into the inbox, as a whole."""
        if isinstance(order, dict):
            name = name or f"{order['order_id']}.yaml"
            order = as_yaml(order)
        return self._put(self.orders_folder / name, order)

    def put_list(self, name: str, lines: str | bytes | Iterable[str]) -> Path:
        content = lines if isinstance(lines, str | bytes) else "".join(f"{line}\n" for line in lines)
        return self._put(self.folder / name, content)

    def _put(self, path: Path, content: str | bytes) -> Path:
        partial = path.with_name(path.name + ".tmp")
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        return partial.rename(path)

    # ------- Its life ----------------------------------------------------------

    def start(self, *, within: float = 120.0, **config: object) -> dict:
        """Configure and launch; returns what the daemon said when it was ready."""
        self.configure(**config)
        return self.launch(within=within)

    def launch(self, within: float = 120.0, meanwhile: Callable[[], bool] | None = None) -> dict:
        """`meanwhile` is called again and again until it is true, before the daemon says that it is ready."""
        self.launch_only()
        if meanwhile is not None:
            wait_for(meanwhile, "what was to be done before ready")
        self.ready = json.loads(self._first_line(within))
        if self.ready.get("event") != "ready":
            pytest.fail(f"dnsblock serve: exit code {self.process.wait(60)}; stderr:\n{self.stderr()}")
        self.ports = {6 if place.startswith("[") else 4: _port(place) for place in self.ready["listening"]}
        return self.ready

    def launch_only(self) -> subprocess.Popen[bytes]:
        """Starts the daemon, and does not wait until it is ready."""
        with self.stderr_path.open("ab") as stderr:
            self.process = self._popen(
                ["serve", "-c", str(self.config_path), "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                pass_fds=self.pass_fds,
            )
        return self.process

    def _popen(self, arguments: list[str], **options: object) -> subprocess.Popen:
        """Starts `dnsblock`; what a fork cannot have, such as LD_PRELOAD, takes an execution."""
        is_preloaded = PRELOAD in self.environment
        is_executed = self.is_executed or (self.environment and not is_preloaded)
        is_executed = is_executed or self.under or self.pass_fds
        kind = subprocess.Popen if is_executed else ForkedProgram
        return kind([*self.under, dnsblock(), *arguments], env=os.environ | self.environment, **options)

    def _first_line(self, within: float) -> bytes:
        line, deadline = b"", time.monotonic() + within
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(self.process.stdout.fileno(), 4096) if readable else b""
            if not chunk:
                state = f"exit code {self.process.wait(60)}" if readable else f"not ready in {within} s"
                pytest.fail(f"dnsblock serve: {state}; stdout {line!r}; stderr:\n{self.stderr()}")
            line += chunk
        return line

    def serve_refused(self, timeout: float = 120.0) -> Said:
        """Start and expect that the daemon refuses to."""
        return self.cli("serve", timeout=timeout)

    def hup(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def pause(self) -> None:
        """Stop all of its threads, as a machine does that has no time for them; `resume` lets them go on."""
        self.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: self._states() <= {"T", "t"}, "every thread is stopped")

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def _states(self) -> set[str]:
        """One letter for each state that a thread of it is in (proc(5))."""
        found = set()
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with suppress(OSError):  # the thread has ended
                found.add((task / "stat").read_text().rpartition(") ")[2][0])
        return found

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self, within: float = 60.0) -> int:
        """Stop it as systemd does; returns the exit code."""
        self.terminate()
        return self.wait_stopped(within)

    def wait_stopped(self, within: float = 60.0) -> int:
        code = self.process.wait(within)
        rest = self.process.stdout.read()
        self.process.stdout.close()
        self.process = None
        assert rest == b"", f"stdout is one line with --json, and then: {rest!r}"
        return code

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        self.process.kill()
        self.process.wait(60)
        self.process.stdout.close()
        self.process = None

    def restart(self) -> dict:
        assert self.stop() == 0
        return self.launch()

    def restart_in_place(self) -> None:
        """SIGUSR2: another program in the same process, which says when it is ready."""
        self.process.send_signal(signal.SIGUSR2)
        self.ready = json.loads(self._first_line(120))
        assert self.ready["pid"] == self.process.pid

    def begin_again(self) -> None:
        """As if nothing had been configured or started yet."""
        self.close()
        self.process = None
        folder = self.folder / "again"
        folder.mkdir()
        self._move_to(folder)

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def close(self) -> None:
        """End of the test: no packet may have caused a panic."""
        if self.process is None:
            return
        try:
            if self.is_running() and self.ready.get("metrics"):
                assert self.metrics().total("dnsblock_packet_panics_total") == 0
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            print(f"stderr of dnsblock:\n{self.stderr()[-8000:]}")

    def stderr(self) -> str:
        return self.stderr_path.read_text(encoding="utf-8", errors="replace")

    # ------- Its command line and metrics ----------------------------------------

    def cli(self, *arguments: str, as_json: bool = True, timeout: float = 120.0) -> Said:
        """A command with its arguments; one of a group is written as one: `cache purge`."""
        command, *rest = arguments
        flags = ["--json"] if as_json else []
        arguments = [*command.split(), "-c", str(self.config_path), *flags, *rest]
        piped = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
        }
        with self._popen(arguments, **piped) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        parsed = json.loads(stdout) if as_json and stdout.strip() else None
        return Said(process.returncode, parsed, stdout, stderr)

    @property
    def control(self) -> Client:
        """The client that the commands use, without the start of a process for each."""
        return Client(Path(self.ready["control"]))

    def submit(self, file: str, data: bytes) -> dict:
        """As `dnsblock order submit` of one document."""
        return self.control.submit([SignedFile(file, data)])

    def reload(self) -> dict:
        """As `dnsblock reload`; must succeed."""
        return self.control.reload()

    def status(self) -> dict:
        """As `dnsblock status --json`."""
        return self.control.status()

    def metrics(self) -> Metrics:
        with urllib.request.urlopen(f"http://{self.ready['metrics']}/metrics", timeout=TIMEOUT) as response:
            return Metrics(response.read().decode())

    def wait_recorded(self) -> None:
        """Until the ledger has its daily checkpoint, a moment after the first startup.

        From then on, only orders and decisions add records: tests can compare the whole ledger.
        """
        ledger = self.folder / "state" / "ledger.jsonl"
        wait_for(lambda: b'"kind":"checkpoint"' in ledger.read_bytes(), "a checkpoint is recorded")

    def wait_for_metric(self, name: str, at_least: float = 1, **labels: str) -> None:
        wait_for(lambda: self.metrics().total(name, **labels) >= at_least, f"{name} {labels} >= {at_least}")


def _port(place: str) -> int:
    return int(place.rsplit(":", 1)[1])
