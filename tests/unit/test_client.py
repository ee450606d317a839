"""The way to the daemon: what a command says of a socket where no answer comes."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dnsblock.client import Client
from dnsblock.errors import DaemonUnreachable

WORK = b'{"fetching": {"ads": {"octets": 1, "announced": null}}, "reading": {"octets": 5}}'


@contextmanager
def listening(path: Path, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server at a Unix socket that does the same with each connection, and keeps it open."""
    connections: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(5)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connections.append(server.accept()[0])
                    serve(connections[-1])

        thread = threading.Thread(target=accept)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in connections:
        connection.close()


def said(path: Path, timeout: float = 45.0) -> str:
    with pytest.raises(DaemonUnreachable) as caught:
        Client(path)._ask("GET", "/v1/status", timeout=timeout)
    return str(caught.value)


def test_a_daemon_that_does_not_answer_in_time_is_busy_and_not_away(tmp_path: Path):
    """Somebody who reads "no daemon" restarts it, in the middle of what it is busy with."""
    with listening(tmp_path / "s", lambda _: None):
        text = said(tmp_path / "s", timeout=0.2)
    assert "did not answer within 0.2 s" in text
    assert "busy" in text
    assert "no daemon" not in text


def test_what_a_busy_daemon_does_is_told(tmp_path: Path):

    def serve(connection: socket.socket) -> None:
        if b"/v1/work" in connection.recv(4096):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(WORK), WORK))

    with listening(tmp_path / "s", serve):
        text = said(tmp_path / "s", timeout=0.2)
    assert "it is busy with fetching list ads, reading lists" in text


def test_a_socket_that_is_not_there_or_that_nobody_serves_is_no_daemon(tmp_path: Path):
    assert "no daemon answers here" in said(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    assert "no daemon answers here" in said(tmp_path / "left")


def test_a_connection_that_the_daemon_closes_is_told_as_such(tmp_path: Path):
    with listening(tmp_path / "s", lambda connection: connection.close()):
        text = said(tmp_path / "s")
    assert "the daemon closed the connection" in text
    assert "no daemon" not in text


def test_a_fault_of_the_daemon_is_told_as_one(tmp_path: Path):
    body = b'{"error": "a fault", "reason": "a fault in dnsblock (KeyError)"}'

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 500 It\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with listening(tmp_path / "s", serve):
        text = said(tmp_path / "s")
    assert "a fault in dnsblock (KeyError)" in text
    assert "no daemon" not in text
