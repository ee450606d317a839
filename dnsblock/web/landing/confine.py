"""Takes from the process of the landing page everything that it does not need, before it reads any request.

An attacker who takes over this process gets two questions to the daemon, and no file, user or capability.
"""

import contextlib
import ctypes
import os
import re
import resource
import signal
import sys
from pathlib import Path

NOBODY = 65534  # the kernel's overflow user and group
NICENESS = 19
MEMORY = 1 << 30  # bytes of address space
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4  # linux/prctl.h


def without_capabilities() -> None:
    """Executes this program again if it has inherited capabilities, as the systemd unit gives them.

    A program that is executed by another user than root has its ambient capabilities only (capabilities(7)).
    """
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^CapAmb:\s+([0-9a-f]+)$", status, re.MULTILINE)
    if found is not None and int(found[1], 16):
        prctl = ctypes.CDLL(None).prctl
        if prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0:
            os.execv(sys.executable, sys.orig_argv)  # noqa: S606  # ourselves


def give_way() -> None:
    """The lowest priority: DNS and orders come first. The daemon ends this process by closing its socket."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    with contextlib.suppress(OSError):  # a filter of system calls forbids it; then the niceness has to do
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def confine(connections: int) -> int:
    """Drops root, and what is not needed for some connections. Returns how many are possible."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = connections + SPARE if most < 0 else min(connections + SPARE, most)
    limits = {
        resource.RLIMIT_NOFILE: descriptors,
        resource.RLIMIT_FSIZE: 0,  # it writes no file
        resource.RLIMIT_CORE: 0,  # a core dump would contain requests
        resource.RLIMIT_AS: MEMORY,
    }
    for limit, value in limits.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))
    return max(1, descriptors - SPARE)


SPARE = 256  # descriptors for listening sockets, and for connections that are being closed
