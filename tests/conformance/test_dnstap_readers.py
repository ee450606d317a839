"""dnstap with readers that are slow, stopped, absent, killed or no readers at all: no answer is lost.

Sent and dropped frames are together the queries that were answered.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from . import wire
from .dnstap import CONTENT_TYPE, Capture
from .harness import Subject
from .orders import block
from .tools import wait_for

NAME = "blocked.example"
FULL = 20_000  # queries whose events are more than all queues and the socket hold


@pytest.fixture
def capture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Capture]:
    with closing(Capture(tmp_path_factory.mktemp("tap"))) as reader:
        yield reader


def begin(subject: Subject, capture: Capture, **options: object) -> None:
    dnstap = capture.options | {"identity": "i" * 200} | options
    subject.start(orders=[block("1", [NAME])], dnstap=dnstap, limits={"queries_per_second": 0})


def ask(subject: Subject, count: int) -> None:
    """Each query is answered before the next ones are sent, some at a time."""
    with subject.udp() as sock:
        for start in range(0, count, 32):
            ids = range(start, min(start + 32, count))
            for number in ids:
                sock.send(wire.query(NAME, qid=number & 0xFFFF))
            answered = {wire.read(sock.recv(65535)).qid for _ in ids}
            assert answered == {number & 0xFFFF for number in ids}


def counted(subject: Subject) -> tuple[int, int]:
    """Sent and dropped frames."""
    metrics = subject.metrics()
    sent = metrics.total("dnsblock_dnstap_frames_total")
    return int(sent), int(metrics.total("dnsblock_dnstap_dropped_frames_total"))


def is_connected(subject: Subject) -> bool | None:
    metrics = subject.metrics()
    if "dnsblock_dnstap_connected" not in metrics.names():
        return None
    return metrics.total("dnsblock_dnstap_connected") == 1


def test_every_answer_is_sent_or_counted_as_dropped(subject: Subject, capture: Capture):
    """A reader that is stopped (SIGSTOP) costs frames, and no answer. It reads on when it continues."""
    begin(subject, capture.start())
    capture.wait_connected()
    ask(subject, 100)
    wait_for(lambda: counted(subject) == (100, 0), "100 events")
    capture.pause()
    ask(subject, FULL)
    sent, dropped = counted(subject)
    assert 0 < dropped < FULL
    assert sent < FULL
    capture.resume()
    wait_for(lambda: sum(counted(subject)) == FULL + 100, "the rest of the queue")
    sent, dropped = counted(subject)
    ask(subject, 10)
    wait_for(lambda: counted(subject) == (sent + 10, dropped), "10 events more")
    assert subject.stop() == 0
    capture.wait_closed()
    assert len(capture.end()) == sent + 10 == FULL + 110 - dropped


def test_without_a_reader_answers_go_on(subject: Subject, capture: Capture):
    """The daemon starts without the reader, and connects when it comes. The oldest events were kept."""
    begin(subject, capture)
    wait_for(lambda: "dnstap: connection to" in subject.stderr(), "the failure is logged")
    ask(subject, 50)
    assert (counted(subject), is_connected(subject)) == ((0, 0), False)
    capture.start()
    wait_for(lambda: counted(subject) == (50, 0), "50 events")
    assert is_connected(subject)
    wait_for(lambda: "dnstap: connected to" in subject.stderr(), "the connection is logged")
    assert subject.stop() == 0
    capture.wait_closed()
    assert len(capture.end()) == 50
    assert subject.stderr().count("dnstap: connection to") == 1
    assert subject.stderr().count("dnstap: connected to") == 1


def test_a_killed_reader_is_replaced_by_the_next_one(subject: Subject, capture: Capture):
    """Later events reach the next reader whole."""
    begin(subject, capture.start())
    capture.wait_connected()
    ask(subject, 10)
    wait_for(lambda: counted(subject) == (10, 0), "10 events")
    capture.kill()
    wait_for(lambda: is_connected(subject) is False, "the connection is lost")
    ask(subject, 20)
    capture.start()
    wait_for(lambda: counted(subject) == (30, 0), "20 events more")
    assert subject.stop() == 0
    capture.wait_closed()
    assert len(capture.end()) == 20


def test_a_reader_that_reads_slowly_gets_whole_frames(subject: Subject, tmp_path: Path):
    """A connection that is cut within a frame: the next connection begins with a whole one."""
    with ScriptedReader(tmp_path / "r.sock") as reader:
        begin(subject, reader)
        first = reader.accept()
        first.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.shake_hands(first)
        ask(subject, FULL // 4)
        cut = first.recv(10_001, socket.MSG_WAITALL)
        assert len(cut) == 10_001
        first.close()
        second = reader.accept()
        reader.shake_hands(second)
        length = int.from_bytes(second.recv(4, socket.MSG_WAITALL))
        assert 250 < length < 500
        assert second.recv(length, socket.MSG_WAITALL).startswith(b"\x0a\xc8\x01" + b"i" * 200)


GARBAGE = {
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "endless control frame": b"\0\0\0\0\xff\xff\xff\xff" + bytes(1000),
    "another content type": b"\0\0\0\0\0\0\0\x0d\0\0\0\x01\0\0\0\x01\0\0\0\x01X",
    "finish instead of accept": b"\0\0\0\0\0\0\0\x04\0\0\0\x05",
    "nothing": b"",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_reader_that_does_not_speak_frame_streams_gets_no_event(
    subject: Subject, tmp_path: Path, garbage: bytes
):
    """The connection is closed, and tried again. Answers go on."""
    with ScriptedReader(tmp_path / "r.sock") as reader:
        begin(subject, reader)
        for _ in range(2):
            connection = reader.accept()
            ready = control(4, with_type=True)
            assert connection.recv(len(ready), socket.MSG_WAITALL) == ready
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            assert is_ended(connection)
            ask(subject, 10)
        assert (counted(subject), is_connected(subject)) == ((0, 0), False)
        subject.wait_for_metric("dnsblock_dnstap_failed_connections_total", at_least=2)
        good = reader.accept()
        reader.shake_hands(good)
        wait_for(lambda: counted(subject) == (20, 0), "the events that were kept")


def test_a_reader_that_speaks_in_the_middle_is_left(subject: Subject, tmp_path: Path):
    """Nothing is expected from it then, so this is no reader."""
    with ScriptedReader(tmp_path / "r.sock") as reader:
        begin(subject, reader)
        connection = reader.accept()
        reader.shake_hands(connection)
        wait_for(lambda: is_connected(subject), "the connection")
        connection.sendall(b"garbage")
        reader.shake_hands(reader.accept())
        ask(subject, 10)
        wait_for(lambda: counted(subject) == (10, 0), "10 events")


def test_a_stopped_reader_does_not_delay_the_end(subject: Subject, capture: Capture):
    """The daemon gives it a moment, not the time limit of queries."""
    subject.start(orders=[block("1", [NAME])], dnstap=capture.start().options, stop_timeout_ms=600_000)
    capture.wait_connected()
    capture.pause()
    ask(subject, 2000)
    assert subject.stop(within=300) == 0


def test_a_reload_switches_the_output_on_and_off_under_load(subject: Subject, capture: Capture):
    """Each event is complete, no answer is lost, and the counters go on."""
    capture.start()
    subject.start(orders=[block("1", [NAME])], limits={"queries_per_second": 0})
    assert is_connected(subject) is None
    without = subject.config_path.read_text()
    rounds = 5
    with load(subject) as answered:
        for number in range(rounds):
            options = capture.options | {"identity": f"round {number}"}
            lines = "".join(f"  {key}: {value}\n" for key, value in options.items())
            subject.config_path.write_text(f"{without}dnstap:\n{lines}")
            subject.reload()
            capture.wait_connected(2 * number + 1)
            before = sum(counted(subject))
            wait_for(lambda before=before: sum(counted(subject)) > before, "an event")
            # Another target at once: the output ends, and another one starts.
            subject.config_path.write_text(f"{without}dnstap:\n{lines}  messages: all\n")
            subject.reload()
            capture.wait_connected(2 * number + 2)
            subject.config_path.write_text(without)
            subject.reload()
            capture.wait_closed(2 * number + 2)
            assert is_connected(subject) is None
        wait_for(lambda: answered[0] > 0, "answers")
    wait_for(lambda: sum(counted(subject)) == sum(counted(subject)), "the last frames")
    sent, dropped = counted(subject)
    assert dropped == 0
    assert subject.stop() == 0
    events = capture.end()
    assert len(events) == sent
    assert {event.dnstap.identity.decode() for event in events} == {f"round {n}" for n in range(rounds)}


@contextmanager
def load(subject: Subject) -> Iterator[list[int]]:
    """Queries one after the other, each answered, until the end."""
    answered, is_over, failures = [0], threading.Event(), []

    def run() -> None:
        try:
            while not is_over.is_set():
                ask(subject, 32)
                answered[0] += 32
        except BaseException as err:
            failures.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield answered
    finally:
        is_over.set()
        thread.join()
    assert not failures


def is_ended(connection: socket.socket) -> bool:
    """Whether the connection ends before anything else is sent."""
    try:
        return connection.recv(4096) == b""
    except ConnectionResetError:  # it was closed before all was read
        return True


def control(kind: int, *, with_type: bool = False) -> bytes:
    body = kind.to_bytes(4)
    if with_type:
        body += (1).to_bytes(4) + len(CONTENT_TYPE).to_bytes(4) + CONTENT_TYPE.encode()
    return bytes(4) + len(body).to_bytes(4) + body


class ScriptedReader:
    """A listening Unix socket, whose connections the test handles."""

    def __init__(self, path: Path) -> None:
        self.options = {"socket": str(path)}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(120)
        self._socket.bind(str(path))
        self._socket.listen()
        self._accepted: list[socket.socket] = []

    def __enter__(self) -> "ScriptedReader":
        return self

    def __exit__(self, *_: object) -> None:
        for one in [*self._accepted, self._socket]:
            one.close()

    def accept(self) -> socket.socket:
        connection, _ = self._socket.accept()
        connection.settimeout(120)
        self._accepted.append(connection)
        return connection

    def shake_hands(self, connection: socket.socket) -> None:
        ready = control(4, with_type=True)
        assert connection.recv(len(ready), socket.MSG_WAITALL) == ready
        connection.sendall(control(1, with_type=True))
        start = control(2, with_type=True)
        assert connection.recv(len(start), socket.MSG_WAITALL) == start
