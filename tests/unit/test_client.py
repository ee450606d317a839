"""The connection of commands to the daemon, and their messages if no response comes."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from dnsblock import client
from dnsblock.client import Client, order_path
from dnsblock.errors import DaemonUnreachable

WORK = b'{"fetching": {"ads": {"bytes": 1, "announced": null}}, "reading": {"bytes": 5}}'


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


def test_a_slow_daemon_is_reported_as_busy(tmp_path: Path):
    """Somebody who reads "no daemon" restarts it, in the middle of what it is busy with."""
    with listening(tmp_path / "s", lambda _: None):
        text = said(tmp_path / "s", timeout=0.2)
    assert "did not respond within 0.2 s" in text
    assert "busy" in text
    assert "no daemon" not in text


def test_the_work_of_a_busy_daemon_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nobody should restart a daemon that is compiling a list."""
    monkeypatch.setattr(client, "BUSY_SECONDS", 60.0)  # this test is not about a daemon that is too slow

    def serve(connection: socket.socket) -> None:
        if b"/v1/work" in connection.recv(4096):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(WORK), WORK))

    with listening(tmp_path / "s", serve):
        text = said(tmp_path / "s", timeout=0.2)
    assert "it is busy with fetching list ads, reading lists" in text


def test_a_missing_or_unserved_socket_means_no_daemon(tmp_path: Path):
    """Exit code 3, whichever of the two it is."""
    assert "no daemon is listening (No such file or directory)" in said(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    assert "no daemon is listening" in said(tmp_path / "left")


def test_a_closed_connection_is_reported_as_such(tmp_path: Path):
    """The daemon may have been stopped meanwhile: that is not "no daemon"."""
    with listening(tmp_path / "s", lambda connection: connection.close()):
        text = said(tmp_path / "s")
    assert "the daemon closed the connection" in text
    assert "no daemon" not in text


def test_a_fault_of_the_daemon_is_reported_as_a_fault(tmp_path: Path):
    """A status of 500 is a bug to be reported, not a mistake of the operator."""
    body = b'{"error": "internal error", "detail": "internal error (KeyError)"}'

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 500 It\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with listening(tmp_path / "s", serve):
        text = said(tmp_path / "s")
    assert "internal error (KeyError)" in text
    assert "no daemon" not in text


@pytest.mark.parametrize(
    ("number", "segment"),
    [("84/2017", "84%2F2017"), ("..", "%2E%2E"), (".", "%2E"), ("a.b", "a.b"), ("%2F", "%252F")],
)
def test_any_number_of_an_order_is_one_segment_of_a_path(number: str, segment: str):
    """Clients and proxies remove the segments `.` and `..` (RFC 3986, section 5.2.4)."""
    assert order_path("a", number) == f"/v1/orders/a/{segment}"
    assert httpx.URL(f"https://localhost{order_path('a', number)}").raw_path.decode() == order_path(
        "a", number
    )
