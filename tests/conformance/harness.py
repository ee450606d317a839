"""The resolver under test: started as its operator starts it, asked and told as its users do.

Everything that knows how dnsblock is configured and run is in `Subject`; the tests ask and look.
"""

import json
import os
import select
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import wire
from .clients import Metrics, Said, Stream
from .orders import ISSUER, as_yaml
from .tools import dnsblock, run, tool, wait_for

SINKHOLE4, SINKHOLE6 = "192.0.2.53", "2001:db8::53"
PROFILES = {"sinkhole": {"action": "sinkhole", "ipv4": [SINKHOLE4], "ipv6": [SINKHOLE6], "ttl": 30}}
ORDERS_ZONE = {"name": "ministry", "issuer": ISSUER, "unsigned": "accept", "answer": "sinkhole"}
CLOSED_UPSTREAM = "127.0.0.1:1"  # tcpmux: nothing listens there, ICMP says so at once
PATIENCE = 5.0


class Subject:
    """One dnsblock in a folder of its own, on free ports of the loopback addresses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_path = folder / "dnsblock.yaml"
        self.orders_folder = folder / "orders"
        self.stderr_path = folder / "stderr.log"
        self.environment: dict[str, str] = {}  # beside that of the tests
        self.under: list[str] = []  # a program that runs daemon and commands, such as setpriv
        self.ready: dict = {}
        self.ports: dict[int, int] = {}
        self.process: subprocess.Popen[bytes] | None = None

    # ------- Its files ---------------------------------------------------------

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
            "upstream": {"servers": list(upstreams), **config.pop("upstream", {})},
            "answers": PROFILES if answers is None else answers,
            "orders": inbox,
            "zones": list(zones),
            "metrics": "127.0.0.1:0",
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

    def start(self, *, within: float = 20.0, **config: object) -> dict:
        """Configure and launch; returns what the daemon said when it was ready."""
        self.configure(**config)
        return self.launch(within=within)

    def launch(self, within: float = 20.0, meanwhile: Callable[[], bool] | None = None) -> dict:
        """`meanwhile` is called again and again until it is true, before the daemon says that it is ready."""
        with self.stderr_path.open("ab") as stderr:
            self.process = subprocess.Popen(
                [*self.under, dnsblock(), "serve", "-c", str(self.config_path), "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                env=os.environ | self.environment,
            )
        if meanwhile is not None:
            wait_for(meanwhile, "what was to be done before ready")
        self.ready = json.loads(self._first_line(within))
        if self.ready.get("event") != "ready":
            pytest.fail(f"dnsblock serve: exit code {self.process.wait(5)}; stderr:\n{self.stderr()}")
        self.ports = {6 if place.startswith("[") else 4: _port(place) for place in self.ready["listening"]}
        return self.ready

    def _first_line(self, within: float) -> bytes:
        line, deadline = b"", time.monotonic() + within
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            octets = os.read(self.process.stdout.fileno(), 4096) if readable else b""
            if not octets:
                state = f"exit code {self.process.wait(5)}" if readable else f"not ready in {within} s"
                pytest.fail(f"dnsblock serve: {state}; stdout {line!r}; stderr:\n{self.stderr()}")
            line += octets
        return line

    def serve_refused(self, timeout: float = 20.0) -> Said:
        """Start and expect that the daemon refuses to."""
        return self.cli("serve", timeout=timeout)

    def hup(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self, within: float = 10.0) -> int:
        """Stop it as systemd does; returns the exit code."""
        self.terminate()
        return self.wait_stopped(within)

    def wait_stopped(self, within: float = 10.0) -> int:
        code = self.process.wait(within)
        rest = self.process.stdout.read()
        self.process.stdout.close()
        self.process = None
        assert rest == b"", f"stdout is one line with --json, and then: {rest!r}"
        return code

    def restart(self) -> dict:
        assert self.stop() == 0
        return self.launch()

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

    def cli(self, *arguments: str, as_json: bool = True, timeout: float = 20.0) -> Said:
        command, *rest = arguments
        flags = ["--json"] if as_json else []
        command_line = [*self.under, dnsblock(), command, "-c", str(self.config_path), *flags, *rest]
        done = run(command_line, timeout=timeout, env=os.environ | self.environment)
        parsed = json.loads(done.stdout) if as_json and done.stdout.strip() else None
        return Said(done.returncode, parsed, done.stdout, done.stderr)

    def reload(self) -> dict:
        """`dnsblock reload`, which must succeed."""
        said = self.cli("reload")
        assert said.code == 0, said
        return said.json

    def status(self) -> dict:
        return self.cli("status").json

    def metrics(self) -> Metrics:
        with urllib.request.urlopen(f"http://{self.ready['metrics']}/metrics", timeout=PATIENCE) as response:
            return Metrics(response.read().decode())

    def wait_for_metric(self, name: str, at_least: float = 1, **labels: str) -> None:
        wait_for(lambda: self.metrics().total(name, **labels) >= at_least, f"{name} {labels} >= {at_least}")

    # ------- Its sockets ---------------------------------------------------------

    @contextmanager
    def udp(self, family: int = 4, source: str | None = None) -> Iterator[socket.socket]:
        """A connected UDP socket: what comes from another address than was asked is not seen."""
        with socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE)
            if source:
                sock.bind((source, 0))
            sock.connect(self._place(family))
            yield sock

    @contextmanager
    def tcp(self, family: int = 4) -> Iterator[Stream]:
        with socket.create_connection(self._place(family), timeout=PATIENCE) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield Stream(sock)

    def _place(self, family: int) -> tuple[str, int]:
        return ("::1" if family == 6 else "127.0.0.1"), self.ports[family]

    def exchange(self, data: bytes, transport: str = "udp", family: int = 4) -> bytes | None:
        """The first response to these octets; None when the patience or the connection ends without one."""
        if transport == "tcp":
            with self.tcp(family) as stream:
                stream.send(data)
                return stream.receive()
        with self.udp(family) as sock:
            sock.send(data)
            try:
                return sock.recv(65535)
            except TimeoutError:
                return None

    def query(
        self,
        name: str | bytes,
        qtype: str | int = "A",
        *,
        transport: str = "udp",
        family: int = 4,
        **flags: object,
    ) -> wire.Reply:
        """Ask once; the response must repeat id and question (RFC 5452 section 9.1)."""
        asked = wire.query(name, qtype, **flags)
        raw = self.exchange(asked, transport, family)
        assert raw is not None, f"no answer to {name!r} {qtype}"
        reply = wire.read(raw)
        assert (reply.qid, reply.flags & wire.QR) == (int.from_bytes(asked[:2]), wire.QR)
        assert reply.question == wire.question(name, qtype, flags.get("qclass", 1))
        return reply

    def dig(self, *arguments: str, family: int = 4) -> str:
        return self._client("dig", *arguments, family=family)

    def kdig(self, *arguments: str, family: int = 4) -> str:
        return self._client("kdig", *arguments, family=family)

    def _client(self, name: str, *arguments: str, family: int) -> str:
        host, port = self._place(family)
        done = run([tool(name), f"@{host}", "-p", str(port), *arguments])
        assert done.returncode == 0, done
        return done.stdout


def _port(place: str) -> int:
    return int(place.rsplit(":", 1)[1])


def is_sinkholed(reply: wire.Reply) -> bool:
    """The A record of the profile and nothing else."""
    return reply.rcode == "NOERROR" and reply.addresses == [SINKHOLE4] and len(reply.answer) == 1


def is_forwarded(reply: wire.Reply) -> bool:
    """The decent upstream's A record and nothing else."""
    return reply.rcode == "NOERROR" and reply.addresses == ["198.51.100.7"]


def assert_silent(subject: Subject, *unanswered: bytes, ask: str = "blocked.example") -> None:
    """None of the messages is answered: a good query sent behind them is answered first, and alone.

    One socket is one flow, and a flow stays with one packet thread, so the order of answers means something.
    """
    with subject.udp() as sock:
        for octets in unanswered:
            sock.send(octets)
        for _ in range(2):
            good = wire.query(ask)
            sock.send(good)
            reply = sock.recv(65535)
            assert reply[:2] == good[:2], f"answered: {reply.hex()}"
