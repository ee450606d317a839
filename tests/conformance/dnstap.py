"""Readers of dnstap: the real ones of Debian, and events as a generated decoder of the schema sees them."""

import ipaddress
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dnstap_pb import dnstap_pb2
from ports import free_port

from . import wire
from .tools import run, tool, wait_for

CONTENT_TYPE = "protobuf:dnstap.Dnstap"
CLIENT_QUERY, CLIENT_RESPONSE = 5, 6


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy of an event; names as text, addresses as text."""

    type: str
    rule: str
    action: str | None
    match: str
    value: str


class Event:
    """One event, decoded by the generated code of the schema."""

    def __init__(self, frame: bytes) -> None:
        self.dnstap = dnstap_pb2.Dnstap()
        assert self.dnstap.ParseFromString(frame) == len(frame)
        self.message = self.dnstap.message
        assert self.dnstap.type == 1

    @property
    def kind(self) -> str:
        return dnstap_pb2.Message.Type.Name(self.message.type)

    @property
    def client(self) -> tuple[str, int]:
        return str(ipaddress.ip_address(self.message.query_address)), self.message.query_port

    @property
    def server(self) -> tuple[str, int]:
        return str(ipaddress.ip_address(self.message.response_address)), self.message.response_port

    @property
    def transport(self) -> str:
        family = dnstap_pb2.SocketFamily.Name(self.message.socket_family)
        return f"{dnstap_pb2.SocketProtocol.Name(self.message.socket_protocol)} {family}"

    @property
    def raw(self) -> bytes:
        """The DNS message."""
        is_query = self.message.type == CLIENT_QUERY
        return self.message.query_message if is_query else self.message.response_message

    @property
    def dns(self) -> wire.Reply:
        return wire.read(self.raw)

    @property
    def queried_at(self) -> float:
        return self.message.query_time_sec + self.message.query_time_nsec / 1e9

    @property
    def responded_at(self) -> float:
        return self.message.response_time_sec + self.message.response_time_nsec / 1e9

    @property
    def extra(self) -> str:
        return self.dnstap.extra.decode()

    @property
    def policy(self) -> Policy | None:
        if not self.message.HasField("policy"):
            return None
        policy = self.message.policy
        match = dnstap_pb2.Policy.Match.Name(policy.match)
        value = name(policy.value) if match == "QNAME" else str(ipaddress.ip_address(policy.value))
        action = dnstap_pb2.Policy.Action.Name(policy.action) if policy.HasField("action") else None
        return Policy(policy.type, name(policy.rule), action, match, value)


def name(data: bytes) -> str:
    """A name in wire format as text; nothing if it is not sent."""
    labels, at = [], 0
    while at < len(data) and data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    assert not data or at + 1 == len(data), data
    return ".".join(labels)


def frames(stream: bytes) -> list[bytes]:
    """The data frames of a stream that a reader has written."""
    found, at = [], 0
    while at < len(stream):
        length = int.from_bytes(stream[at : at + 4])
        at += 4
        if length == 0:  # a control frame
            at += 4 + int.from_bytes(stream[at : at + 4])
            continue
        found.append(stream[at : at + length])
        assert len(found[-1]) == length, "the last frame is cut"
        at += length
    return found


class Capture:
    """fstrm_capture (Debian's fstrm-bin), which writes what it reads to a file."""

    def __init__(self, folder: Path, *, over_tcp: bool = False) -> None:
        self.folder = folder
        self.path = folder / "dnstap.sock"
        self.port = free_port() if over_tcp else None
        self.process: subprocess.Popen[bytes] | None = None
        self._runs = 0

    @property
    def options(self) -> dict[str, object]:
        """Of the daemon."""
        return {"socket": str(self.path)} if self.port is None else {"tcp": f"127.0.0.1:{self.port}"}

    def start(self) -> "Capture":
        self._runs += 1
        self.path.unlink(missing_ok=True)
        place = ["-u", str(self.path)] if self.port is None else ["-a", "127.0.0.1", "-p", str(self.port)]
        command = [tool("fstrm_capture"), "-dddd", "-t", CONTENT_TYPE, *place, "-w", str(self.file)]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log)
        wait_for(lambda: "opened output file" in self.log, "fstrm_capture listens")
        return self

    @property
    def file(self) -> Path:
        return self.folder / f"captured-{self._runs}.fstrm"

    @property
    def log_path(self) -> Path:
        return self.folder / f"capture-{self._runs}.log"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait_connected(self, times: int = 1) -> None:
        wait_for(lambda: self.log.count("received FSTRM_CONTROL_START") >= times, "a connection")

    def wait_closed(self, times: int = 1) -> None:
        """Until it has read the end of this many connections."""
        wait_for(lambda: self.log.count(": closing (read") >= times, "the end of a connection")

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.process.pid}/stat")
        wait_for(lambda: state.read_text().rpartition(") ")[2][0] == "T", "fstrm_capture is stopped")

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def end(self) -> list[Event]:
        """Ends it, and returns the events that it has read."""
        self.process.terminate()
        assert self.process.wait(60) == 0
        return [Event(frame) for frame in frames(self.file.read_bytes())]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


def printed(capture: Capture, *options: str) -> str:
    """The captured stream as dnstap-ldns prints it."""
    done = run([tool("dnstap-ldns"), *options, "-r", str(capture.file)])
    assert done.returncode == 0, done
    return done.stdout
