"""A TCP connection, a scrape of the metrics, and the output of a command."""

import re
import socket
import time
from dataclasses import dataclass

from . import wire


@dataclass(frozen=True, slots=True)
class Said:
    """The output of a `dnsblock` command, and its exit code."""

    code: int
    json: dict | None
    stdout: str
    stderr: str

    @property
    def problems(self) -> list[dict]:
        return self.json["problems"]

    @property
    def refusal(self) -> list[str]:
        """The lines of a refused start, exit code 4; a program reads the same problems on stdout."""
        assert self.code == 4, self
        assert "Traceback" not in self.stderr
        assert self.json["error"] == "refused"
        assert len(self.problem_lines) == min(len(self.problems), 11), self
        # For people, problems of a whole file come first, and at most ten lines are shown.
        ordered = sorted(self.problems, key=lambda problem: problem["line"] is not None)
        for line, problem in zip(self.problem_lines, ordered[:10], strict=False):
            place = problem["file"] if problem["line"] is None else f"{problem['file']}:{problem['line']}"
            assert line.startswith(place)
            assert problem["value"] in line
            assert line.endswith(problem["reason"])
        return self.problem_lines

    @property
    def problem_lines(self) -> list[str]:
        """The lines of stderr for people; log lines are JSON objects."""
        return [line for line in self.stderr.splitlines() if line.strip() and not line.startswith("{")]


class Metrics(dict):
    """Samples of one scrape: (name, labels as sorted pairs) -> value."""

    _SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
    _LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

    def __init__(self, text: str) -> None:
        self.text = text
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, labels, value = self._SAMPLE.match(line).groups()
                self[name, tuple(sorted(self._LABEL.findall(labels or "")))] = float(value)

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels."""
        wanted = set(labels.items())
        return sum(value for (found, pairs), value in self.items() if found == name and wanted <= set(pairs))

    def names(self) -> set[str]:
        return {name for name, _ in self}


class Stream:
    """A TCP connection that carries DNS messages (RFC 1035 section 4.2.2)."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def send(self, *messages: bytes) -> None:
        self.sock.sendall(b"".join(len(message).to_bytes(2) + message for message in messages))

    def receive(self) -> bytes | None:
        """The next message, or None if the connection or the timeout ends."""
        try:
            while len(self._buffer) < 2 or len(self._buffer) < 2 + int.from_bytes(self._buffer[:2]):
                content = self.sock.recv(65535)
                if not content:
                    return None
                self._buffer += content
        except (TimeoutError, ConnectionError):
            return None
        end = 2 + int.from_bytes(self._buffer[:2])
        message, self._buffer = self._buffer[2:end], self._buffer[end:]
        return message

    def reply(self) -> wire.Reply:
        raw = self.receive()
        assert raw is not None, "the connection ended without the answer"
        return wire.read(raw)

    def is_closed_within(self, seconds: float) -> bool:
        """True as soon as the other side closes; bytes that still arrive are dropped."""
        deadline = time.monotonic() + seconds
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.sock.settimeout(left)
                if not self.sock.recv(65535):
                    return True
        except ConnectionError:
            return True
        except TimeoutError:
            pass
        return False
