"""`make` on a machine without some tools: it names the packages to install."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "make", "cc", "cargo", "dh", "python3", "touch", "echo", "env")


@pytest.mark.parametrize(
    ("target", "missing", "advice"),
    [
        ("toolchain", "cargo", "cargo is missing: install Rust 1.88 or newer, see https://rustup.rs"),
        ("toolchain", "cc", "a C compiler is missing: apt-get install gcc"),
        ("toolchain", "python3", "Python 3.11 or newer is missing: set PYTHON=/path/to/python3"),
        ("debian-tools", "dh", "debhelper is missing: apt-get install debhelper"),
        ("fuzzer", "c++", "a C++ compiler is missing: apt-get install g++"),
        ("fuzzer", "cargo-fuzz", "cargo-fuzz is missing: cargo install cargo-fuzz --locked"),
    ],
)
def test_a_missing_tool_is_named_in_one_line(tmp_path: Path, target: str, missing: str, advice: str):
    """The only output is one line with the missing tool and how to install it."""
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        if tool != missing:
            (tmp_path / tool).symlink_to(found)
    if missing != "c++":
        (tmp_path / "c++").symlink_to(tmp_path / "cc")  # must exist, but is not run
    done = subprocess.run(
        ["make", target],
        cwd=ROOT,
        # Cargo also searches this folder for its subcommands.
        env={"PATH": str(tmp_path), "CARGO_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    output = [
        line for line in done.stderr.splitlines() if not line.startswith(("make: ***", "make[", "/bin/sh"))
    ]
    assert output == [advice]
    assert done.stdout == ""


# ------- Tools for the tests


def setup_with(path: Path) -> subprocess.CompletedProcess[str]:
    """`make setup` as an unprivileged user with only the programs of this folder."""
    as_other = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    environment = {"PATH": str(path), "LOG": str(path / "log")}
    command = ["make", "--no-print-directory", "setup", f"PYTHON={path / 'python3'}"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, **as_other
    )


@pytest.fixture
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Debian's Python and make, but without the tools for the tests."""
    # Another user has no access to pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="bare-"))
    folder.chmod(0o777)
    for tool in ("sh", "make", "env"):
        (folder / tool).symlink_to(shutil.which(tool))
    (folder / "python3").symlink_to("/usr/bin/python3")
    yield folder
    shutil.rmtree(folder)


def fake(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_all_missing_tools_of_the_tests_are_named_at_once(bare: Path):
    """One message, before the build, lists all commands to run."""
    done = setup_with(bare)
    assert done.returncode != 0
    output = done.stderr.split("Install it first:\n")[1].splitlines()
    assert output[0].strip() == "Rust 1.88 or newer, with rustfmt and clippy: see https://rustup.rs"
    command, _, packages = output[1].strip().partition(" --no-install-recommends ")
    assert command == "as root: apt-get install"
    # Some servers may be installed in /usr/sbin, which is always searched.
    assert {"bind9-dnsutils", "curl", "dnsperf", "g++", "gcc", "knot-dnsutils"} <= set(packages.split())


def test_missing_tools_are_installed_if_sudo_needs_no_password(bare: Path):
    """Debian packages, rustfmt and clippy, and no service of a package is started."""
    fake(bare, "sudo", 'echo "$*" >> "$LOG"')
    fake(bare, "apt-get", "exit 1")  # must be called through sudo
    fake(bare, "rustup", 'echo "rustup $*" >> "$LOG"')
    fake(bare, "cargo", "exit 1")
    done = setup_with(bare)
    assert done.returncode == 0, done.stderr
    ran = (bare / "log").read_text().splitlines()
    assert "rustup component add clippy rustfmt" in ran
    installed = [line for line in ran if " apt-get install " in line]
    assert len(installed) == 1
    assert "--no-install-recommends" in installed[0]
    assert {"bind9-dnsutils", "curl", "dnsperf"} <= set(installed[0].split())
    if not Path("/usr/sbin/policy-rc.d").exists():
        assert any("exit 101" in line for line in ran)
        assert ran.index("-n rm -f /usr/sbin/policy-rc.d") > ran.index(installed[0])


def test_a_failed_installation_ends_with_the_command_that_failed(bare: Path):
    """Later steps need the tools of earlier ones."""
    fake(bare, "sudo", 'case "$*" in *"apt-get update"*) exit 100;; esac')
    fake(bare, "apt-get", "exit 1")
    fake(bare, "cargo", "exit 0")
    done = setup_with(bare)
    assert done.returncode != 0
    assert "failed: sudo -n env DEBIAN_FRONTEND=noninteractive apt-get update -qq" in done.stderr


def test_help_lists_every_target_for_people():
    """Commands explain themselves."""
    # Without the variables of an outer make, which would print the folder.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    targets = {
        "bench",
        "bench-interfaces",
        "bench-orders",
        "build",
        "check",
        "clean",
        "completion",
        "conformance",
        "deb",
        "docs",
        "fleet-tree",
        "fuzz",
        "help",
        "install",
        "kills",
        "man",
        "offline",
        "openapi",
        "restarts",
        "run",
        "setup",
        "test",
        "wheel",
    }
    assert listed == targets
