"""A command at a terminal that is asked and answers: each question is awaited before it is answered."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from .tools import dnsblock, tool

DEADLINE = 90.0  # seconds for each question: a busy machine may be slow
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@dataclass
class Dialog:
    """A running command, and everything that it has printed."""

    process: subprocess.Popen[bytes]
    terminal: int
    shown: str = ""
    _seen: int = 0

    def expect(self, text: str) -> None:
        """Waits until the command prints a text after the last one that was awaited."""
        deadline = time.monotonic() + DEADLINE
        while text not in self.shown[self._seen :]:
            if not self._read(deadline):
                pytest.fail(f"{text!r} was not printed, but this:\n{self.shown}")
        self._seen = self.shown.index(text, self._seen) + len(text)

    def answer(self, *lines: str) -> None:
        for line in lines:
            os.write(self.terminal, f"{line}\n".encode())

    def ask(self, question: str, *lines: str) -> None:
        """Waits for a question, and answers it."""
        self.expect(question)
        self.answer(*lines)

    def interrupt(self, key: bytes) -> int:
        """Presses a key until the command ends, and returns its exit code.

        Python does not see a Ctrl-C in the moment before it begins to read. A person presses it again.
        """
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                os.write(self.terminal, key)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
        return self.end()

    def end(self) -> int:
        """The exit code, after everything was printed."""
        deadline = time.monotonic() + DEADLINE
        while self._read(deadline):
            pass
        return self.process.wait(DEADLINE)

    def _read(self, deadline: float) -> bool:
        readable, _, _ = select.select([self.terminal], [], [], max(0.0, deadline - time.monotonic()))
        try:
            chunk = os.read(self.terminal, 65536) if readable else b""
        except OSError:  # how Linux tells that nobody has the terminal open
            chunk = b""
        self.shown += _CONTROL.sub("", chunk.decode("utf-8", "replace"))
        return bool(chunk)


def dialog(
    folder: Path, *command: str, environment: Mapping[str, str] | None = None
) -> contextlib.AbstractContextManager[Dialog]:
    """A command of dnsblock in a folder, with a terminal for input and output."""
    return terminal(folder, dnsblock(), *command, environment=environment)


@contextlib.contextmanager
def terminal(folder: Path, *command: str, environment: Mapping[str, str] | None = None) -> Iterator[Dialog]:
    """A program in a folder, with a terminal for input and output."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [tool("setsid"), "--ctty", *command],  # the terminal is its own: Ctrl-C interrupts it
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        # Where the tests run in the background, a shell has made them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LC_ALL": "C.UTF-8", **(environment or {})},
    )
    os.close(theirs)
    try:
        yield Dialog(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
