"""Installs what the tests need and this machine lacks, or names all of it at once (`make setup`).

On Debian and Ubuntu, as root or with a sudo that asks for no password, missing packages are installed.
Otherwise the commands to run are printed. Needs nothing but Python's standard library.
"""

from __future__ import annotations  # a Python that is too old must be able to read this far

import os
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType

# Program: the Debian package that contains it.
PACKAGES = {
    "bash": "bash",
    "c++": "g++",
    "cc": "gcc",
    "chromium": "chromium",
    "curl": "curl",
    "dh": "debhelper",
    "dig": "bind9-dnsutils",
    "dnsdist": "dnsdist",
    "dnsperf": "dnsperf",
    "dnstap-ldns": "dnstap-ldns",
    "faketime": "faketime",
    "fish": "fish",
    "fstrm_capture": "fstrm-bin",
    "ip": "iproute2",
    "kdig": "knot-dnsutils",
    "knotc": "knot",
    "knotd": "knot",
    "lintian": "lintian",
    "man": "man-db",
    "mandoc": "mandoc",
    "mmdebstrap": "mmdebstrap",
    "named": "bind9",
    "openssl": "openssl",
    "pdns_recursor": "pdns-recursor",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "rndc": "bind9-utils",
    "ssh-keygen": "openssh-client",
    "systemd-analyze": "systemd",
    "systemd-nspawn": "systemd-container",
    "unbound": "unbound",
    "zsh": "zsh",
}
# Subcommand of cargo: the component of rustup that contains it.
COMPONENTS = {"clippy": "clippy", "fmt": "rustfmt"}

# An ordinary user's PATH often lacks the folders of servers.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
POLICY = Path("/usr/sbin/policy-rc.d")  # invoke-rc.d(8) asks it whether a service may start


def main() -> None:
    """Leaves a machine on which `make test` can run, or ends with everything that is missing."""
    packages = sorted({package for tool, package in PACKAGES.items() if not is_here(tool)})
    if not has_venv():
        packages.append("python3-venv")
    components = [part for part in COMPONENTS if is_here("cargo") and not works(["cargo", part, "--version"])]
    names = " ".join(COMPONENTS[part] for part in components)
    if packages and (root := as_root()) is not None:
        install(packages, root)
        packages = []
    if components and is_here("rustup"):
        print(f"Installing {names} with rustup.", file=sys.stderr)
        run(["rustup", "component", "add", *names.split()])
        components = []
    missing = []
    if sys.version_info < (3, 11):  # noqa: UP036  # this is the check for older ones
        missing.append("Python 3.11 or newer: make test PYTHON=/path/to/python3")
    if not is_here("cargo"):
        missing.append("Rust 1.88 or newer, with rustfmt and clippy: see https://rustup.rs")
    if packages:
        missing.append(f"as root: apt-get install --no-install-recommends {' '.join(packages)}")
    if components:
        missing.append(f"rustup component add {names}")
    if missing:
        sys.exit("\n  ".join(["`make test` needs more than this machine has. Install it first:", *missing]))


def is_here(tool: str) -> bool:
    """Whether a program is installed."""
    return shutil.which(tool, path=PATH) is not None


def has_venv() -> bool:
    """Whether Python can make environments: Debian has that in a package of its own."""
    return works([sys.executable, "-c", "import ensurepip"])


def works(command: list[str]) -> bool:
    """Whether a command ends well. rustup has a program for each component, also for one that is missing."""
    return subprocess.run(command, capture_output=True).returncode == 0


def as_root() -> list[str] | None:
    """The prefix of a command that installs packages; None if this user may not install any."""
    if not is_here("apt-get") or not Path("/etc/debian_version").exists():
        return None
    if os.geteuid() == 0:
        return []
    return ["sudo", "-n"] if is_here("sudo") and works(["sudo", "-n", "true"]) else None


def install(packages: list[str], root: list[str]) -> None:
    """Installs Debian packages. Their services do not start: the tests start their own."""
    print(f"Installing Debian packages: {' '.join(packages)}", file=sys.stderr)
    with ExitStack() as stack:
        if not POLICY.exists():
            stack.enter_context(NoServices(root))
        environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
        run([*root, *environment, "apt-get", "update", "-qq"])
        install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends"]
        # A machine may install its own updates meanwhile.
        run([*root, *environment, *install, "-o", "DPkg::Lock::Timeout=600", *packages])


class NoServices(AbstractContextManager[None]):
    """While this is entered, packages that are installed start no services."""

    def __init__(self, root: list[str]) -> None:
        self._root = root

    def __enter__(self) -> None:
        script = f"printf '#!/bin/sh\\nexit 101\\n' > {POLICY} && chmod 0755 {POLICY}"
        run([*self._root, "sh", "-c", script])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run([*self._root, "rm", "-f", str(POLICY)])


def run(command: list[str]) -> None:
    """Runs a command with its output on standard error. Ends this one where it fails."""
    done = subprocess.run(command, stdout=sys.stderr)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(command)}")


if __name__ == "__main__":
    main()
