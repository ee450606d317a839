"""What `make` says on a machine that lacks something: one line, with what to install."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "make", "cc", "cargo", "python3", "touch", "echo", "env")


@pytest.mark.parametrize(
    ("target", "missing", "advice"),
    [
        ("toolchain", "cargo", "cargo is missing: install Rust 1.88 or newer, see https://rustup.rs"),
        ("toolchain", "cc", "a C compiler is missing: apt-get install gcc"),
        ("toolchain", "python3", "Python 3.11 or newer is missing: set PYTHON=/path/to/python3"),
        ("fuzzer", "c++", "a C++ compiler is missing: apt-get install g++"),
        ("fuzzer", "cargo-fuzz", "cargo-fuzz is missing: cargo install cargo-fuzz --locked"),
    ],
)
def test_a_missing_tool_is_named_in_one_line(tmp_path: Path, target: str, missing: str, advice: str):
    """Where cargo is missing, it says so in one line with what to install."""
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        if tool != missing:
            (tmp_path / tool).symlink_to(found)
    if missing != "c++":
        (tmp_path / "c++").symlink_to(tmp_path / "cc")  # looked for, and not run
    done = subprocess.run(
        ["make", target],
        cwd=ROOT,
        # Cargo looks for its subcommands there, too.
        env={"PATH": str(tmp_path), "CARGO_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    said = [
        line for line in done.stderr.splitlines() if not line.startswith(("make: ***", "make[", "/bin/sh"))
    ]
    assert said == [advice]
    assert done.stdout == ""


def test_help_lists_every_target_a_person_calls():
    """Commands explain themselves."""
    # Not as a make below another make, which would say where it is.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    targets = {
        "bench",
        "build",
        "check",
        "clean",
        "conformance",
        "fuzz",
        "help",
        "install",
        "run",
        "test",
        "wheel",
    }
    assert listed == targets
