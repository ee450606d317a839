"""Finds and runs the real programs of the tests, and waits for conditions.

A program that is missing fails the test with the name of its Debian package.
"""

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

DEBIAN_PACKAGES = {
    "bash": "bash",
    "chromium": "chromium",
    "curl": "curl",
    "dig": "bind9-dnsutils",
    "fish": "fish",
    "kdig": "knot-dnsutils",
    "knotc": "knot",
    "knotd": "knot",
    "named": "bind9",
    "rndc": "bind9-utils",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "dnsdist": "dnsdist",
    "dnsperf": "dnsperf",
    "dnstap-ldns": "dnstap-ldns",
    "fstrm_capture": "fstrm-bin",
    "prlimit": "util-linux",
    "setpriv": "util-linux",
    "setsid": "util-linux",
    "ssh-keygen": "openssh-client",
    "unbound": "unbound",
    "pdns_recursor": "pdns-recursor",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "zsh": "zsh",
}


def tool(name: str) -> str:
    """The path of a client; never a silent skip, for a test that did not run promises nothing."""
    search = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    found = shutil.which(name, path=search)
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install {DEBIAN_PACKAGES[name]}", pytrace=False)
    return found


def dnsblock() -> str:
    """The `dnsblock` script of the environment that runs the tests."""
    found = Path(sys.executable).parent / "dnsblock"
    if not found.exists():
        pytest.fail(f"{found} is missing: install the package into this environment", pytrace=False)
    return str(found)


def me() -> str:
    """This user, as dnsblock records it."""
    return f"{pwd.getpwuid(os.getuid()).pw_name} (uid {os.getuid()})"


def run(command: list[str], *, timeout: float = 180, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **more)


def wait_for(condition: Callable[[], T], what: str, timeout: float = 120.0) -> T:
    """The first true value of `condition`; fails with `what` when the deadline passes."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout} s: {what} (last seen: {value!r})")
        time.sleep(0.005)
