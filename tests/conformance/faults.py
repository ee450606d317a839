"""Fails or kills the daemon at a chosen write, sync, rename or removal of a file in its state folder.

`faults.c` is preloaded into it. The test chooses the call while the daemon runs, through a shared file.
"""

import mmap
import os
import struct
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from .forkserver import PRELOAD
from .harness import Subject

SOURCE = Path(__file__).with_name("faults.c")
NOTHING, KILL, NO_SPACE, SYNC_FAILS = range(4)


@cache
def library() -> Path:
    """The compiled library, made once in each process of the tests."""
    built = Path(mkdtemp(prefix="faults-")) / "faults.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    command = ["cc", *flags, "-o", str(built), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"cc: {done.stderr}", pytrace=False)
    return built


class Faults:
    """The faults of one subject; made before it is started."""

    def __init__(self, subject: Subject) -> None:
        path = subject.folder / "faults"
        path.write_bytes(bytes(32))
        with path.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), 32)
        subject.environment |= {
            PRELOAD: str(library()),
            "FAULTS_CONTROL": str(path),
            "FAULTS_FOLDER": f"{os.path.realpath(subject.folder)}/state",
        }

    def set(self, what: int, at: int = 0) -> None:
        """From now on, calls are counted from 1, and this happens at one of them."""
        struct.pack_into("4q", self._control, 0, 0, at, what, 0)

    @property
    def calls(self) -> int:
        """How many calls there were."""
        return int(struct.unpack_from("4q", self._control)[0])

    @property
    def has_happened(self) -> bool:
        """Whether the daemon has met the fault."""
        return bool(struct.unpack_from("4q", self._control)[3])
