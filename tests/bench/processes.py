"""Starts programs on the processors they are to have, and sees what they use. None outlives the runner."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# A server that takes the machine's last memory is stopped before the kernel stops something else.
MEMORY_RESERVE_KIB = 1_500_000
STOP_SECONDS = 10


class DidNotStart(Exception):  # noqa: N818
    """A server ended, took too long or too much memory before it blocked what it has to."""


def pinned(processors: str, command: Sequence[str]) -> list[str]:
    """The command on these processors ("0" or "0,1"), killed by the kernel when this process is gone."""
    return ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", processors, *command]


def launch(processors: str, command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a server in its folder; what it says goes to `log` there."""
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            pinned(processors, command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def rss_kib(pid: int, field: str = "VmRSS") -> int:
    """Resident memory of a process now (`VmRSS`), or the most it ever was (`VmHWM`): proc_pid_status(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) if found else 0


def waited_ns(pid: int) -> int:
    """How long the threads of a process were ready to run and had no processor (sched-stats.rst)."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[1])
        except (OSError, IndexError):
            continue  # the thread is gone, or the kernel keeps no such figures
    return total


def available_kib() -> int:
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], what: str, within: float
) -> None:
    """Wait for a condition while the process lives and leaves memory to the others."""
    deadline = time.monotonic() + within
    while not condition():
        if process.poll() is not None:
            raise DidNotStart(f"ended with code {process.returncode} before {what}")
        if time.monotonic() > deadline:
            raise DidNotStart(f"not within {within:g} s: {what}")
        if available_kib() < MEMORY_RESERVE_KIB:
            raise DidNotStart(f"takes more memory than there is before {what}")
        time.sleep(0.002)


def query(name: str) -> bytes:
    """A query of type A in wire format (RFC 1035 4.1)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    return os.urandom(2) + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"


def is_blocked(port: int, name: str, timeout: float = 0.05) -> bool:
    """Whether the server on this port says NXDOMAIN; not where it says nothing yet."""
    asked = query(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(("127.0.0.1", port))
            sock.send(asked)
            said = sock.recv(4096)
        except OSError:
            return False
    return len(said) >= 12 and said[:2] == asked[:2] and said[3] & 15 == 3
