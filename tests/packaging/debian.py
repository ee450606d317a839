"""The Debian package, and a bare Debian to install it on: a folder, or booted by systemd-nspawn(1)."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from conformance.networks import Host
from conformance.restarts import GOOD, Load
from conformance.tools import wait_for
from running import ROOT

PACKAGES = {
    "apt-get": "apt",
    "dh": "debhelper",
    "dpkg-deb": "dpkg",
    "lintian": "lintian",
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
}
QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
INSTALL = ["apt-get", "install", "-qq", "-y", "--no-install-recommends"]
UP = ("running", "degraded")
GROUPS = Path("/sys/fs/cgroup")


def run(*command: str | Path, timeout: float = 600, **more: object) -> subprocess.CompletedProcess[str]:
    """A command of Debian's."""
    program = str(command[0])
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"{program} is missing: apt-get install {PACKAGES[program]}", pytrace=False)
    return subprocess.run([found, *command[1:]], capture_output=True, text=True, timeout=timeout, **more)


# ------- The package


def make_deb(dist: Path, wheel: Path, *options: str) -> Path:
    """`make deb` in a folder of its own, with a wheel that exists already."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", "deb", f"DIST={dist}", f"WHEEL={wheel}", *options]
    done = run(*command, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (package,) = dist.glob("dnsblock_*.deb")
    return package


def unpack(package: Path, to: Path) -> Path:
    """The files of a package, and its metadata in the folder DEBIAN."""
    done = run("dpkg-deb", "--raw-extract", package, to)
    assert done.returncode == 0, done.stderr
    return to


# ------- A bare root


def bare_root(folder: Path) -> Path:
    """The smallest Debian of this release that boots, from where this machine gets its packages."""
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=systemd-sysv", "--skip=cleanup/apt"]
    done = run(*command, codename(), folder, *mirror())
    assert done.returncode == 0, done.stderr
    return folder


def codename() -> str:
    text = Path("/etc/os-release").read_text()
    return next(line.partition("=")[2] for line in text.splitlines() if line.startswith("VERSION_CODENAME="))


def mirror() -> list[str]:
    """The line of sources.list(5) with this release; none: mmdebstrap takes the one of Debian."""
    form = "$(CREATED_BY) $(ORIGIN) $(CODENAME) $(COMPONENT) deb $(REPO_URI) $(CODENAME) $(COMPONENT)"
    listed = run("apt-get", "indextargets", "--format", form).stdout.splitlines()
    wanted = f"Packages Debian {codename()} main "
    return [line.removeprefix(wanted) for line in listed if line.startswith(wanted)][:1]


def inside(root: Path, *command: str, **more: object) -> subprocess.CompletedProcess[str]:
    """A command in a root that is not booted, with the network of this machine."""
    return run("chroot", root, *command, env=QUIET, **more)


def files(root: Path) -> set[str]:
    """Every path of a root, but for logs, caches, and what a running system makes, such as daily backups."""
    skipped = {
        "dev",
        "proc",
        "run",
        "sys",
        "tmp",
        "var/backups",
        "var/cache",
        "var/lib/apt",
        "var/lib/systemd/timers",
        "var/log",
        "var/tmp",
    }
    found = set()
    for folder, folders, names in os.walk(root):
        here = Path(folder).relative_to(root)
        folders[:] = [name for name in folders if (here / name).as_posix() not in skipped]
        found |= {(here / name).as_posix() for name in (*folders, *names)}
    return found


# ------- A machine


class Machine:
    """A root that systemd has booted, in a network namespace that has nothing but loopback addresses."""

    def __init__(self, root: Path, host: Host, leader: int) -> None:
        self.root, self.host, self._leader = root, host, leader

    def run(self, *command: str, timeout: float = 600, **more: object) -> subprocess.CompletedProcess[str]:
        """A command on this machine."""
        return run(
            "nsenter", f"--target={self._leader}", "--all", *command, env=QUIET, timeout=timeout, **more
        )

    def shown(self, *command: str) -> str:
        """The output of a command that must succeed."""
        done = self.run(*command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}{self.journal()}"
        return done.stdout.strip()

    def install(self, package: Path, *options: str) -> str:
        """The standard output and standard error of apt, which must succeed."""
        shutil.copy(package, self.root / "var" / "tmp")
        done = self.run(*INSTALL, *options, f"/var/tmp/{package.name}", stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{self.journal()}"
        return done.stdout + done.stderr

    def journal(self) -> str:
        return self.run("journalctl", "--no-pager", "--unit=dnsblock").stdout

    def property(self, name: str) -> str:
        """A property of the service."""
        return self.shown("systemctl", "show", f"--property={name}", "--value", "dnsblock.service")

    def wait_for_service(self, state: str = "active") -> None:
        wait_for(lambda: self.property("ActiveState") == state, f"the service is {state}")


@contextmanager
def booted(root: Path) -> Iterator[Machine]:
    """Boots the root, and powers it off at the end."""
    with ExitStack() as stack:
        host = Host()
        stack.callback(host.close)
        host.ip("link set lo up")
        command = [
            "systemd-nspawn",
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
            f"--directory={root}",
        ]
        command += ["--resolv-conf=off", f"--network-namespace-path=/proc/{host.pid}/ns/net"]
        command = [*stack.enter_context(control_group()), *command]
        log = stack.enter_context(root.with_suffix(".log").open("wb"))
        nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            leader = wait_for(lambda: systemd_of(nspawn), f"systemd runs: {log.name}")
            machine = Machine(root, host, leader)
            wait_for(
                lambda: machine.run("systemctl", "is-system-running").stdout.strip() in UP, "it has booted"
            )
            yield machine
        finally:
            nspawn.terminate()  # powers the machine off
            with suppress(subprocess.TimeoutExpired):
                nspawn.wait(120)
            if leader := systemd_of(nspawn) if nspawn.poll() is None else None:
                os.kill(leader, signal.SIGKILL)  # ends all processes of the machine
            nspawn.kill()
            nspawn.wait()


def systemd_of(nspawn: subprocess.Popen[bytes]) -> int | None:
    """The first process of the machine, once it is systemd: other children prepare the namespaces."""
    assert nspawn.poll() is None, "systemd-nspawn has ended"
    for child in Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split():
        with suppress(OSError):  # it has ended
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
    return None


@contextmanager
def control_group() -> Iterator[list[str]]:
    """A control group for one machine. Yields a command that joins it and executes its arguments.

    The machine powers off when the test process ends, whatever happens.
    """
    trees = [
        tree for tree in (GROUPS / "systemd", GROUPS / "unified", GROUPS) if (tree / "cgroup.procs").exists()
    ]
    groups = [tree / f"dnsblock-test-{os.getpid()}" for tree in trees]
    for group in groups:
        group.mkdir()
    joins = "".join(f"echo $$ > {group}/cgroup.procs && " for group in groups)
    try:
        yield ["sh", "-c", f'{joins}exec setpriv --pdeathsig TERM "$@"', "sh"]
    finally:
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):  # a process of the machine has not ended yet
                    os.rmdir(folder)


class LoadOnHost(Load):
    """The steady load of `conformance.restarts`, from sockets in another network namespace."""

    def __init__(self, host: Host, port: int, names: dict[str, GOOD], rate: int) -> None:
        super().__init__(Ports(port), names, rate)
        self._host = host

    def run(self) -> None:
        self._host.inside(super().run)


class Ports:
    """Where the load is sent to."""

    def __init__(self, port: int) -> None:
        self.ports = {4: port}
