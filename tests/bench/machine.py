"""Machine, date and versions of a run. Without them, figures have no meaning."""

import os
import platform
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

QUIET = 0.9  # share of the processors' time
LOOK_SECONDS = 0.3
ROOT = Path(__file__).parents[2]


def describe() -> dict[str, object]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": first(r"^model name\s*: (.+)$", "/proc/cpuinfo"),
        "processors": len(processors()),
        "memory_kib": int(first(r"^MemTotal:\s+(\d+)", "/proc/meminfo") or 0),
        "kernel": platform.release(),
        "rmem_max": int(Path("/proc/sys/net/core/rmem_max").read_text()),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "compiler": output_of(["cc", "--version"]),
        "commit": output_of(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]),
        "command": sys.argv[1:],
    }


def processors() -> list[int]:
    """The processors that this process may use."""
    return sorted(os.sched_getaffinity(0))


def stolen_ticks() -> int:
    """Steal time: processor time that the hypervisor gave to others, in ticks since boot (proc_stat(5))."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) if len(fields) > 8 else 0


def busy_seconds(processor: int) -> float:
    """How long this processor has worked since boot, for whatever program (proc_stat(5)); with steal time."""
    found = first(rf"^cpu{processor} (.+)$", "/proc/stat") or ""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, found.split())
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def wait_for_quiet(within: float) -> None:
    """Waits until the processors are nearly idle, up to this many seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        before = idle_ticks()
        time.sleep(LOOK_SECONDS)
        idle = (idle_ticks() - before) / os.sysconf("SC_CLK_TCK") / LOOK_SECONDS
        if idle > QUIET * (os.cpu_count() or 1):
            return


def idle_ticks() -> int:
    """Idle time of the processors, in ticks since boot (proc_stat(5))."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[4]) + int(fields[5])


def first(pattern: str, path: str) -> str | None:
    found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return found[1].strip() if found else None


def output_of(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    lines = done.stdout.splitlines()
    return lines[0] if done.returncode == 0 and lines else None
