"""Runs a program with a filter of system calls, as systemd does with `SystemCallFilter=`: seccomp(2).

python filtered.py FILTER... -- PROGRAM ARGUMENT...: each FILTER is the value of one directive.
"""

import ctypes
import errno
import os
import subprocess
import sys

ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.EPERM  # SystemCallErrorNumber=EPERM


def calls(group: str) -> set[str]:
    """The system calls of a group such as `@process`, or the one with this name."""
    if not group.startswith("@"):
        return {group}
    command = ["systemd-analyze", "syscall-filter", "--no-pager", group]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    lines = [line.strip() for line in text.splitlines()[1:]]
    return set().union(*(calls(line) for line in lines if line and not line.startswith("#")))


def allowed(filters: list[str]) -> set[str]:
    """The system calls that several directives allow together; the first one lists allowed calls."""
    found = calls("@default")
    for value in filters:
        names = set().union(*(calls(group) for group in value.lstrip("~").split()))
        found = found - names if value.startswith("~") else found | names
    return found


def load(names: set[str]) -> None:
    """Refuses all other system calls of this process from now on."""
    library = ctypes.CDLL("libseccomp.so.2")  # systemd uses it, too
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(REFUSE)))
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # otherwise this machine does not have it
            library.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), ctypes.c_int(number), ctypes.c_uint(0))
    if library.seccomp_load(context) != 0:
        sys.exit("the filter of system calls could not be loaded")


if __name__ == "__main__":
    end = sys.argv.index("--")
    load(allowed(sys.argv[1:end]))
    os.execv(sys.argv[end + 1], sys.argv[end + 1 :])
