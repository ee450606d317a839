"""The servers of `fleet_tree.py`: the origin, Knot DNS on two levels, and the leaves. docs/fleet-tree.md.

All listen on 127.0.0.1, each on a port of its own. Every message between them is signed with one TSIG key.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ports import free_port

from . import processes
from .servers import dnsblock

ZONE = "rpz.isp.example"
ISSUER = "bench.example"
KEY, SECRET = "transfer", "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgbG9uZyE="  # docs/export.md
PROCESSORS = "0-1"
START_SECONDS = 120.0
TICK = os.sysconf("SC_CLK_TCK")


class Program:
    """A server in a folder of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.folder, self.port = name, folder / name, free_port()
        self.folder.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self, command: Sequence[str]) -> None:
        self._process = processes.launch(PROCESSORS, command, self.folder)

    def wait_blocks(self, name: str) -> None:
        self.wait(lambda: processes.is_blocked(self.port, name), "it blocks")

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        assert self._process is not None
        processes.wait_until(condition, self._process, f"{self.name}: {what}", START_SECONDS)

    def cpu(self) -> float:
        """Its processor time in seconds."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss_mib(self) -> float:
        assert self._process is not None
        return processes.rss_kib(self._process.pid) / 1024

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def end(self) -> None:
        """Asks it to end; `close` waits for that."""
        if self._process is not None:
            self._process.terminate()

    def close(self) -> None:
        if self._process is not None:
            processes.stop(self._process)
            self._process = None


# ------- dnsblock -------


class Daemon(Program):
    """dnsblock with one worker thread. All options that are not named here have their defaults."""

    def __init__(self, folder: Path, name: str, upstream: int) -> None:
        super().__init__(folder, name)
        self._upstream = upstream
        self.metrics_port = free_port()
        self.control = self.folder / "control.sock"

    def serve(self, **options: object) -> None:
        config = {
            "listen": [f"127.0.0.1:{self.port}"],
            "workers": 1,
            "upstream": {"servers": [f"127.0.0.1:{self._upstream}"], "health_check": None},
            "probes": None,
            "control": str(self.control),
            "metrics": f"127.0.0.1:{self.metrics_port}",
        }
        (self.folder / "dnsblock.yaml").write_text(json.dumps(config | options))
        self.launch([dnsblock(), "serve", "-c", "dnsblock.yaml", "--json"])

    def metrics(self) -> Counter[str]:
        """The samples, by name and labels as they are written."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=60) as response:
            lines = response.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if line.startswith("dnsblock_"))
        return Counter({name: int(float(value)) for name, _, value in samples})

    def events(self, text: str) -> list[float]:
        """The times of the lines of the log that begin with this text."""
        found = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return [
            datetime.fromisoformat(line["time"]).timestamp()
            for line in found
            if line["event"].startswith(text)
        ]


class Origin(Daemon):
    """Receives the orders, and keeps the RPZ file current."""

    def __init__(self, folder: Path, upstream: int) -> None:
        super().__init__(folder, "origin", upstream)
        self.export = self.folder / "rpz.zone"

    def start(self, names: int) -> None:
        """With one order of that many names."""
        orders = self.folder / "orders"
        orders.mkdir()
        entries = "".join(f"n{number}.names{number % 97}.example\n" for number in range(names))
        (orders / "entries.txt").write_text(entries)
        digest = hashlib.sha256(entries.encode()).hexdigest()
        fields = {"entries_file": {"path": "entries.txt", "sha256": digest, "lines": names}}
        (orders / "base.json").write_bytes(document("BASE", "block", **fields))
        zone = {"name": "orders", "issuer": ISSUER, "unsigned": "accept", "answer": "nxdomain"}
        self.serve(
            orders="orders",
            zones=[zone],
            guards={"bulk": {"entries": "off"}},
            exports=[{"file": str(self.export), "format": "rpz", "origin": ZONE}],
        )
        self.wait_blocks("n0.names0.example")
        self.wait(self.export.exists, "it writes the file")


class Leaf(Daemon):
    """A secondary, with the guards of a feed, which are the default."""

    def __init__(self, folder: Path, number: int, upstream: int, primary: "Knot") -> None:
        super().__init__(folder, f"leaf{number}", upstream)
        self.primary = primary

    def start(self) -> None:
        secret = self.folder / "transfer.key"
        secret.write_text(f"{SECRET}\n")
        secret.chmod(0o600)
        key = {"name": KEY, "algorithm": "hmac-sha256", "secret_file": secret.name}
        rpz = {"primaries": [f"127.0.0.1:{self.primary.port}"], "key": key}
        self.serve(zones=[{"name": ZONE, "answer": "given", "rpz": rpz}])


def document(order_id: str, action: str, **fields: object) -> bytes:
    """An order of the issuer."""
    head = {"schema": "dnsblock.order/1", "issuer": ISSUER, "order_id": order_id, "action": action}
    return json.dumps(head | {"issued_at": "2026-01-01T00:00:00Z"} | fields).encode()


# ------- Knot DNS -------


@dataclass(frozen=True, slots=True)
class Traffic:
    """The messages of a Knot server for the zone since its start, and their bytes without UDP, TCP and IP."""

    notifies_sent: int
    notifies_received: int
    soa_queries: int  # received
    ixfr: int  # sent, and so below
    axfr: int
    ixfr_bytes: int
    ixfr_messages: int

    def since(self, before: "Traffic") -> "Traffic":
        return Traffic(*(getattr(self, one) - getattr(before, one) for one in self.__slots__))

    def plus(self, other: "Traffic") -> "Traffic":
        return Traffic(*(getattr(self, one) + getattr(other, one) for one in self.__slots__))


class Knot(Program):
    """The root, which reads the file, or a secondary of the root. Each is a primary of `secondaries`."""

    def __init__(self, folder: Path, name: str, *, file: Path | None = None, primary: "Knot | None" = None):
        super().__init__(folder, name)
        self._file, self._primary = file, primary
        self._is_signed = True
        self.timeout_ms = 5000  # for a secondary that does not answer NOTIFY; the default

    def start(self, secondaries: Sequence[int], *, signed: bool = True) -> None:
        """`secondaries`: the ports of 127.0.0.1 that it notifies, in this order."""
        self._is_signed = signed
        (self.folder / "db").mkdir()
        (self.folder / "knot.conf").write_text(self._configuration(secondaries))
        self.launch([tool("knotd"), "-c", str(self.folder / "knot.conf")])
        self.wait(lambda: self.control("status").returncode == 0, "it runs")
        self.wait(lambda: self.serial() > 0, "it has the zone")

    def _configuration(self, secondaries: Sequence[int]) -> str:
        key = f"\n    key: {KEY}" if self._is_signed else ""
        remotes = [f"  - id: r{port}\n    address: 127.0.0.1@{port}{key}" for port in secondaries]
        if self._primary is not None:
            remotes.append(f"  - id: primary\n    address: 127.0.0.1@{self._primary.port}{key}")
        notified = ", ".join(f"r{port}" for port in secondaries)
        source = "    master: primary" if self._file is None else f'    file: "{self._file}"'
        return f"""server:
  rundir: "{self.folder}"
  listen: 127.0.0.1@{self.port}
  udp-workers: 1
  tcp-workers: 2
  background-workers: 2
  tcp-remote-io-timeout: {self.timeout_ms}
database:
  storage: "{self.folder}/db"
log:
  - target: stderr
    any: info
key:
  - id: {KEY}
    algorithm: hmac-sha256
    secret: {SECRET}
{"remote:" if remotes else ""}
{chr(10).join(remotes)}
acl:
  - id: own
    address: 127.0.0.0/8{key}
    action: [transfer, notify]
mod-stats:
  - id: counted
    query-type: on
template:
  - id: default
    storage: "{self.folder}"
    semantic-checks: off
    zonefile-load: {"none" if self._file is None else "difference"}
    zonefile-sync: -1
    journal-content: all
    acl: own
    module: mod-stats/counted
zone:
  - domain: {ZONE}
{source}
    {f"notify: [{notified}]" if secondaries else ""}
"""

    def control(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [tool("knotc"), "-s", str(self.folder / "knot.sock"), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def serial(self) -> int:
        """The serial of the zone; 0 if it has none yet."""
        words = self.control("zone-status", ZONE).stdout.replace("|", " ").split()
        found = words[words.index("serial:") + 1] if "serial:" in words else ""
        return int(found) if found.isdecimal() else 0

    def reload_zone(self) -> None:
        """As the path unit of docs/export.md does after a change of the file."""
        if (done := self.control("zone-reload", ZONE)).returncode != 0:
            raise RuntimeError(f"knotc zone-reload: {done.stdout}{done.stderr}")

    def traffic(self) -> Traffic:
        """From its log, and the queries from its statistics: the log does not have those."""
        stats = self.control("zone-stats", ZONE, "mod-stats.query-type").stdout
        soa = re.search(r"query-type\[SOA\] = (\d+)", stats)
        log = self.log()
        sent = re.findall(r"IXFR, outgoing.* finished, .*?, (\d+) messages, (\d+) bytes", log)
        return Traffic(
            notifies_sent=len(re.findall(r"notify, outgoing.* serial \d+", log)),
            notifies_received=len(re.findall(r"notify, incoming.* serial \d+", log)),
            soa_queries=int(soa[1]) if soa else 0,
            ixfr=len(sent),
            axfr=len(re.findall(r"AXFR, outgoing.* finished", log)),
            ixfr_bytes=sum(int(size) for _, size in sent),
            ixfr_messages=sum(int(messages) for messages, _ in sent),
        )


def tool(name: str) -> str:
    """Its path: the PATH of an ordinary user often lacks the folders of servers."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise SystemExit(f"{name} is missing: apt-get install knot")
    return found
