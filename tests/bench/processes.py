"""Starts programs on their processors and measures their resources. None outlives the runner."""

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# A server that needs too much memory is stopped before the kernel kills other processes.
MEMORY_RESERVE_KIB = 1_500_000
STOP_SECONDS = 10


class DidNotStart(Exception):  # noqa: N818
    """A server ended, timed out or needed too much memory before it blocked the list."""


def pinned(processors: str, command: Sequence[str]) -> list[str]:
    """The command on these processors ("0" or "0,1"), killed by the kernel when this process ends."""
    return ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", processors, *command]


def launch(processors: str, command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """Starts a server in its folder, with its output in the file `log`."""
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
    """Resident memory of a process now (`VmRSS`), or its maximum (`VmHWM`): proc_pid_status(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) if found else 0


def waited_ns(pid: int, thread: str = "") -> int:
    """The run delay of a process: how long its threads waited for a processor (sched-stats.rst).

    `thread`: only those whose name begins with it.
    """
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            if (path.parent / "comm").read_text().startswith(thread):
                total += int(path.read_text().split()[1])
        except (OSError, IndexError):
            continue  # the thread ended, or the kernel has no such statistics
    return total


def cpu_seconds(pid: int) -> float:
    """The processor time of a process and of those that it has started and that run (sched-stats.rst)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            total += int((task / "schedstat").read_text().split()[0])
            children = (task / "children").read_text().split()
        except OSError:
            continue  # the thread ended
        total += sum(int(cpu_seconds(int(child)) * 1e9) for child in children)
    return total / 1e9


def available_kib() -> int:
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], what: str, within: float
) -> None:
    """Waits for a condition, as long as the process runs and does not need too much memory."""
    deadline = time.monotonic() + within
    while not condition():
        if process.poll() is not None:
            raise DidNotStart(f"ended with code {process.returncode} before {what}")
        if time.monotonic() > deadline:
            raise DidNotStart(f"not within {within:g} s: {what}")
        if available_kib() < MEMORY_RESERVE_KIB:
            raise DidNotStart(f"needs too much memory before {what}")
        time.sleep(0.002)


def query(name: str) -> bytes:
    """A query of type A in wire format (RFC 1035 4.1)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    return os.urandom(2) + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"


def is_blocked(port: int, name: str, timeout: float = 0.05) -> bool:
    """Whether the server on this port answers NXDOMAIN. False without a response."""
    packet = query(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(("127.0.0.1", port))
            sock.send(packet)
            response = sock.recv(4096)
        except OSError:
            return False
    return is_nxdomain(response) and response[:2] == packet[:2]


def is_nxdomain(response: bytes) -> bool:
    return len(response) >= 12 and response[3] & 15 == 3


def is_listening(port: int) -> bool:
    """Whether a connection to this port is accepted."""
    with socket.socket() as sock:
        sock.settimeout(5)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def looks(port: int, name: str, every: float) -> Iterator[bool]:
    """Whether the server blocks a name, asked again and again. `every`: seconds between two queries.

    No query waits for the response to the one before: the upstream may have lost that.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        while True:
            with contextlib.suppress(OSError):
                sock.send(query(name))
            due = time.monotonic() + every
            is_blocked = False
            while not is_blocked and (left := due - time.monotonic()) > 0:
                sock.settimeout(left)
                with contextlib.suppress(OSError):
                    is_blocked = is_nxdomain(sock.recv(4096))
            yield is_blocked
