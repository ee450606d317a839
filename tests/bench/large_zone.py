"""Measures zone transfer of a large zone: BIND and Knot DNS as the primary, dnsblock as the secondary.

    .venv/bin/python tests/bench/large_zone.py --pairs 1000000

For each primary it prints:

* seconds of an AXFR to a client that only reads
* seconds from the start of dnsblock's AXFR, in the log of the primary, until a query shows the last name
* after a change of `--changed` names, half removed and half added: seconds from the NOTIFY, in the log of the
  primary, until queries show all of it
"""

import argparse
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import yaml

ZONE = "trustpositifkominfo"
TARGET = "lamanlabuh.aduankonten.id."
SECRET = "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgbG9uZyE="
POLL_SECONDS = 0.002
TIMEOUT_SECONDS = 1800


def name(number: int) -> str:
    return f"situs-{number:x}.blocked{number % 997}.com"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Log:
    """Reads a pipe line by line and remembers when each line came (monotonic)."""

    def __init__(self, stream, copy: Path) -> None:
        self.lines: list[tuple[float, str]] = []
        self._changed = threading.Condition()
        self._copy = copy.open("w")
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream) -> None:
        for raw in stream:
            line = (time.monotonic(), raw.decode("utf-8", "replace").rstrip())
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
            print(f"{line[0]:.3f} {line[1]}", file=self._copy, flush=True)

    def wait(self, pattern: str, after: float = 0.0) -> float:
        """The time of the first line since `after` with this pattern."""
        expression = re.compile(pattern)

        def found():
            return next((at for at, text in self.lines if at >= after and expression.search(text)), None)

        with self._changed:
            if not self._changed.wait_for(lambda: found() is not None, TIMEOUT_SECONDS):
                sys.exit(f"no line {pattern!r} in the log")
            return found()


def write_zone(path: Path, numbers, serial: int) -> None:
    partial = path.with_suffix(".tmp")
    with partial.open("w", buffering=1 << 20) as file:
        file.write(
            f"$TTL 300\n@ SOA localhost. nobody.invalid. {serial} 3600 900 604800 60\n@ NS localhost.\n"
        )
        for number in numbers:
            one = name(number)
            file.write(f"{one} CNAME {TARGET}\n*.{one} CNAME {TARGET}\n")
    now = time.time_ns()
    os.utime(partial, ns=(now, now))
    partial.rename(path)


# ------- DNS ------------------------------------------------------------------------------


def query(qname: str, qtype: int, qid: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in qname.split(".") if label) + b"\0"
    return struct.pack("!6H", qid, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!HH", qtype, 1)


def is_blocked(port: int, qname: str) -> bool | None:
    """Whether the answer begins with a CNAME; None without a response."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        try:
            sock.connect(("127.0.0.1", port))
            asked = query(qname, 1, os.getpid() & 0xFFFF)
            sock.send(asked)
            raw = sock.recv(4096)
        except OSError:
            return None
    if struct.unpack_from("!H", raw, 6)[0] == 0:
        return False
    at = len(asked)
    at = at + 2 if raw[at] >= 0xC0 else raw.index(0, at) + 1
    return struct.unpack_from("!H", raw, at)[0] == 5


def wait_until(port: int, expected: dict[str, bool]) -> float:
    """The time at which every name is answered as expected."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if all(is_blocked(port, one) == wanted for one, wanted in expected.items()):
            return time.monotonic()
        time.sleep(POLL_SECONDS)
    sys.exit(f"not enforced within {TIMEOUT_SECONDS} s: {expected}")


def axfr(port: int, records: int) -> tuple[float, int, int]:
    """Seconds, bytes and messages until `records` records have come. It parses headers only."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(120)
        asked = query(ZONE, 252)
        sock.sendall(struct.pack("!H", len(asked)) + asked)
        stream = sock.makefile("rb", buffering=1 << 20)
        seen = total = messages = 0
        while seen < records:
            length = int.from_bytes(stream.read(2), "big")
            message = stream.read(length)
            if len(message) < length or message[3] & 15:
                sys.exit(f"AXFR failed after {seen} of {records} records: {message[:12].hex()}")
            seen += int.from_bytes(message[6:8], "big")
            total += length + 2
            messages += 1
    return time.monotonic() - began, total, messages


def soa_serial(port: int) -> int | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        try:
            sock.connect(("127.0.0.1", port))
            sock.send(query(ZONE, 6))
            raw = sock.recv(4096)
        except OSError:
            return None
    if struct.unpack_from("!H", raw, 6)[0] == 0:
        return None
    at = 12 + len(ZONE) + 2 + 4  # the answer: pointer, type, class, TTL, length
    data = at + 12
    for _ in range(2):
        while raw[data] and raw[data] < 0xC0:
            data += raw[data] + 1
        data += 2 if raw[data] else 1
    return struct.unpack_from("!I", raw, data)[0]


# ------- Primaries ------------------------------------------------------------------------


class Primary:
    transfer_started = notify_sent = ixfr_started = ""

    def __init__(self, folder: Path, secondary: int) -> None:
        self.folder = folder
        folder.mkdir()
        self.zone = folder / f"{ZONE}.zone"
        self.port, self.control = free_port(), free_port()
        self.secondary = secondary

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.folder
        )
        self.log = Log(self.process.stdout, self.folder / "log")
        self.wait_serial(1)

    def wait_serial(self, serial: int) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while soa_serial(self.port) != serial:
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit(
                    f"the primary does not serve serial {serial}: {(self.folder / 'log').read_text()[-2000:]}"
                )
            time.sleep(0.02)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Bind(Primary):
    name = "BIND"
    transfer_started = r"transfer of '[^']*': AXFR started"
    ixfr_started = r"transfer of '[^']*': IXFR started"
    notify_sent = r"sending notif"

    def command(self) -> list[str]:
        (self.folder / "rndc.conf").write_text(f'key rndc {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n')
        (self.folder / "named.conf").write_text(f"""
include "{self.folder}/rndc.conf";
controls {{ inet 127.0.0.1 port {self.control} allow {{ 127.0.0.1; }} keys {{ rndc; }}; }};
options {{
  directory "{self.folder}"; pid-file none; session-keyfile none; lock-file none;
  listen-on port {self.port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  allow-query {{ 127.0.0.0/8; }}; recursion no; dnssec-validation no;
  notify-delay 0; notify-rate 10000; startup-notify-rate 10000; notify-source 127.0.0.1;
}};
zone "{ZONE}" {{
  type primary; file "{self.zone}"; masterfile-format text; check-names ignore;
  ixfr-from-differences yes; max-ixfr-ratio unlimited;
  allow-transfer {{ 127.0.0.1; }}; notify explicit; also-notify {{ 127.0.0.1 port {self.secondary}; }};
}};
""")
        return ["named", "-g", "-c", str(self.folder / "named.conf")]

    def reload(self) -> float:
        command = ["rndc", "-s", "127.0.0.1", "-p", str(self.control), "-k", str(self.folder / "rndc.conf")]
        subprocess.run([*command, "reload", ZONE], check=True, stdout=subprocess.DEVNULL)
        return time.monotonic()


class Knot(Primary):
    name = "Knot DNS"
    transfer_started = r"AXFR, outgoing.*started"
    ixfr_started = r"IXFR, outgoing.*started"
    notify_sent = r"notify, outgoing"

    def command(self) -> list[str]:
        (self.folder / "db").mkdir()
        (self.folder / "knot.conf").write_text(f"""server:
  rundir: "{self.folder}"
  listen: 127.0.0.1@{self.port}
database:
  storage: "{self.folder}/db"
  journal-db-max-size: 20G
log:
  - target: stderr
    any: info
acl:
  - id: own
    address: 127.0.0.1
    action: transfer
remote:
  - id: dnsblock
    address: 127.0.0.1@{self.secondary}
zone:
  - domain: {ZONE}
    file: "{self.zone}"
    semantic-checks: off
    zonefile-load: difference
    zonefile-sync: -1
    journal-content: all
    journal-max-usage: 8G
    acl: own
    notify: [dnsblock]
""")
        return ["knotd", "-c", str(self.folder / "knot.conf")]

    def reload(self) -> float:
        command = ["knotc", "-b", "-t", "3600", "-s", str(self.folder / "knot.sock"), "zone-reload", ZONE]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic()


# ------- dnsblock -------------------------------------------------------------------------


def start_daemon(folder: Path, port: int, primary: int, upstream: int) -> subprocess.Popen:
    folder.mkdir()
    off = dict.fromkeys(("shrank_percent", "shrank_names", "grew_percent", "grew_names"), "off")
    config = {
        "listen": [f"127.0.0.1:{port}"],
        "upstream": {"servers": [f"127.0.0.1:{upstream}"]},
        "zones": [
            {
                "name": ZONE,
                "answer": "given",
                "rpz": {"primaries": [f"127.0.0.1:{primary}"]},
                "source": {"guards": off},
            }
        ],
        "orders": None,
        "probes": None,
        "metrics": None,
    }
    (folder / "dnsblock.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    program = Path(sys.executable).parent / "dnsblock"
    return subprocess.Popen(
        [program, "serve", "--json", "-c", folder / "dnsblock.yaml"],
        stdout=(folder / "stdout").open("w"),
        stderr=(folder / "stderr").open("w"),
        cwd=folder,
    )


def serve_upstream(sock: socket.socket) -> None:
    """Answers every query with no records, so that a name that is not blocked has no CNAME."""
    while True:
        data, source = sock.recvfrom(4096)
        end = data.index(0, 12) + 5
        sock.sendto(data[:2] + b"\x81\x80\0\1\0\0\0\0\0\0" + data[12:end], source)


def memory(pid: int) -> str:
    status = Path(f"/proc/{pid}/status").read_text()
    found = {key: int(re.search(rf"{key}:\s+(\d+)", status)[1]) // 1024 for key in ("VmRSS", "VmHWM")}
    return f"{found['VmRSS']} MiB now, {found['VmHWM']} MiB at most"


def daemon_said(folder: Path) -> list[str]:
    """The lines of its log about transfers."""
    words = ("by zone transfer", "accepted version", "serving serial", "rejected", "NOTIFY")
    found = []
    for line in (folder / "stderr").read_text().splitlines():
        if line.startswith("{"):
            one = json.loads(line)
            if any(word in one["event"] for word in words):
                found.append(f"{one['time'][11:23]} {one['event'][:110]}")
    return found


# ------- The measurement ------------------------------------------------------------------


def measure(kind: type[Primary], folder: Path, options: argparse.Namespace, upstream: int) -> None:
    pairs, half = options.pairs, options.changed // 2
    port = free_port()
    primary = kind(folder / kind.__name__.lower(), port)
    print(f"\n{kind.name}, {pairs:,} pairs", flush=True)
    began = time.monotonic()
    write_zone(primary.zone, range(pairs), 1)
    size = primary.zone.stat().st_size / 1e6
    print(f"  zone file: {size:.0f} MB, written in {time.monotonic() - began:.1f} s")
    with ExitStack() as stack:
        stack.callback(primary.close)
        began = time.monotonic()
        primary.start()
        print(f"  served by the primary {time.monotonic() - began:.1f} s after its start", flush=True)
        for _ in range(options.reads):
            seconds, size, messages = axfr(primary.port, 2 * pairs + 3)
            print(
                f"  AXFR to a client that only reads: {seconds:.2f} s "
                f"({size / 1e6:.0f} MB, {messages:,} messages)"
            )
        place = folder / f"dnsblock-{kind.__name__.lower()}"
        began = time.monotonic()
        daemon = start_daemon(place, port, primary.port, upstream)
        stack.callback(lambda: (daemon.kill(), daemon.wait()))
        last = {name(pairs - 1): True, f"x.{name(0)}": True, "free.example": False}
        enforced = wait_until(port, last)
        started = primary.log.wait(primary.transfer_started, began)
        print(f"  AXFR started -> enforced: {enforced - started:.2f} s ({enforced - began:.2f} s from exec)")
        print(f"  memory of dnsblock: {memory(daemon.pid)}", flush=True)
        for turn in range(1, options.turns + 1):
            time.sleep(options.rest)
            first = turn * half
            write_zone(primary.zone, range(first, pairs + first), turn + 1)
            before = time.monotonic()
            reloaded = primary.reload()
            changed = {name(first - 1): False, f"x.{name(first - half)}": False, name(first): True}
            changed |= {name(pairs + first - 1): True, f"x.{name(pairs + first - half)}": True}
            enforced = wait_until(port, changed)
            notified = primary.log.wait(primary.notify_sent, before)
            sent = primary.log.wait(primary.ixfr_started, before)
            print(
                f"  change of {2 * half:,} names: enforced {enforced - reloaded:.2f} s after the reload, "
                f"{enforced - notified:.2f} s after NOTIFY, {enforced - sent:.2f} s after the start of IXFR "
                f"(reload to NOTIFY: {notified - before:.2f} s)",
                flush=True,
            )
        print(f"  memory of dnsblock: {memory(daemon.pid)}")
        for line in daemon_said(place):
            print(f"    {line}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--changed", type=int, default=3000)
    parser.add_argument("--reads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3, help="how often the zone changes")
    parser.add_argument(
        "--rest", type=float, default=0, help="seconds before each change, for work in the background"
    )
    parser.add_argument("--only", choices=["bind", "knot"])
    parser.add_argument("--keep", action="store_true", help="keep the folder with zones and logs")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    folder = Path(tempfile.mkdtemp(prefix="large-zone-"))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    threading.Thread(target=serve_upstream, args=(sock,), daemon=True).start()
    try:
        for key, kind in (("bind", Bind), ("knot", Knot)):
            if options.only in (None, key):
                measure(kind, folder, options, sock.getsockname()[1])
    finally:
        if options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)
    print(f"load: {os.getloadavg()}")


if __name__ == "__main__":
    main()
