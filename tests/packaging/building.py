"""Builds the wheel as the Dockerfile does, and whatever else the tests of a session need only once."""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from running import ROOT

# The same steps and sources, without optimisation, which takes minutes.
QUICK = {
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "0",
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
    "CARGO_PROFILE_RELEASE_DEBUG": "false",
}


def build_once(to: Path, build: Callable[[Path], None]) -> Path:
    """A folder that `build` fills in the first process that asks for it; the others wait."""
    done = to.with_suffix(".done")
    with to.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(to, ignore_errors=True)  # a build that has failed
            build(to)
            done.touch()
    return to


def build_wheel(to: Path) -> None:
    """The folder `context`, which the Dockerfile gets, and the folder `wheels` with its wheel."""
    copy_context(to / "context")
    done = make(to / "context", "wheel")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (to / "wheels").mkdir()
    for wheel in (to / "context" / "dist").glob("*.whl"):
        shutil.copy(wheel, to / "wheels")


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a target as the Dockerfile does, without the variables of an outer make."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", *arguments]
    environment |= QUICK | variables
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=3000)


def copy_context(to: Path) -> None:
    for folder, folders, files in os.walk(ROOT):
        here = Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if is_sent((here / name).as_posix())]
        for name in files:
            if is_sent((here / name).as_posix()):
                (to / here).mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / here / name, to / here / name)


def is_sent(path: str) -> bool:
    """Whether Docker sends a path: by the last pattern of .dockerignore for it or a folder around it."""
    sent = True
    around = [path.rsplit("/", n)[0] for n in range(path.count("/") + 1)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, part) for part in around):
            sent = line.startswith("!")
    return sent
