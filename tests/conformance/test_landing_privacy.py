"""The landing page keeps nothing about visitors: after 100,000 visits, no trace is on disk or in a log."""

import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from .harness import Subject
from .landing import BLOCKED, Landing
from .tools import wait_for

VISITS = 100_000
CONNECTIONS = 200  # each from an address of its own
NAMES = 200  # below the blocked one
ROUND = 20  # requests that are sent before their responses are read
AGAIN = b"503"
# Each visit has these words, with a number.
HOST, PATH, AGENT, COOKIE, FORWARDED = (
    f"zz{word}" for word in ("host", "path", "agent", "cookie", "forwarded")
)
MARKERS = [word.encode() for word in (HOST, PATH, AGENT, COOKIE, FORWARDED)]


def address(number: int) -> str:
    return f"127.{77 + number // 100}.{1 + number % 100}.{1 + number % 7}"


def request(number: int) -> bytes:
    lines = [
        f"GET /{PATH}{number}?q={PATH}{number} HTTP/1.1",
        f"Host: {HOST}{number % NAMES}.{BLOCKED}",
        f"User-Agent: {AGENT}{number}",
        f"Cookie: id={COOKIE}{number}",
        f"X-Forwarded-For: {FORWARDED}{number}",
        f"Referer: http://{HOST}.example/{PATH}{number}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class Crowd:
    """Clients that visit on many connections at once."""

    def __init__(self, page: Landing) -> None:
        self.page = page
        self.statuses: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def visit(self, first: int, last: int, source: str) -> None:
        """These visits from one address, several at a time.

        After a minute, the page asks the daemon for the names again. Meanwhile it sends 503, or closes a
        connection with many requests. Such visits come again.
        """
        left = deque(range(first, last))
        wait_for(lambda: self._visit(left, source), "each visit has had its response")

    def _visit(self, left: deque[int], source: str) -> bool:
        """Visits over one connection. False: some are left, and must come again."""
        with self.page.connection(source) as sock, suppress(ConnectionError):
            while left:
                sent = list(islice(left, ROUND))
                sock.sendall(b"".join(map(request, sent)))
                for status in self._read(sock, len(sent)):
                    with self._lock:
                        self.statuses[status] = self.statuses.get(status, 0) + 1
                    if status == AGAIN:
                        return False
                    left.popleft()
        return not left

    def _read(self, sock: socket.socket, count: int) -> Iterator[bytes]:
        data = b""
        while count:
            head, separator, rest = data.partition(b"\r\n\r\n")
            size = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0] or 0)
            if not separator or len(rest) < size:
                chunk = sock.recv(1 << 18)
                if not chunk:
                    raise ConnectionResetError
                data += chunk
                continue
            yield head[9:12]
            data, count = rest[size:], count - 1


def test_nothing_about_100_000_visits_is_kept(subject: Subject, tmp_path: Path):
    """Addresses, names, paths, browsers and cookies: none is in a file, the log, the metrics or a command."""
    page = Landing(subject).start(log={"level": "debug", "format": "json"})
    for number in range(NAMES):  # the daemon answers at its own rate
        wait_for(
            lambda number=number: page.get(f"{HOST}{number}.{BLOCKED}").status == 451, "the name is known"
        )
    crowd, share = Crowd(page), VISITS // CONNECTIONS
    visits = [(n * share, (n + 1) * share, address(n)) for n in range(CONNECTIONS)]
    for group in (visits[start : start + 8] for start in range(0, CONNECTIONS, 8)):
        threads = [threading.Thread(target=crowd.visit, args=one) for one in group]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert crowd.statuses.keys() <= {b"451", AGAIN}
    assert crowd.statuses[b"451"] == VISITS
    for garbage in (f"GARBAGE {PATH}\r\n\r\n", f"GET / HTTP/1.1\r\nHost: {HOST} {HOST}\r\n\r\n"):
        page.send(garbage.encode())
    page.kill()
    page.wait_until_served()
    metrics = subject.metrics().text
    status = subject.cli("status").stdout + subject.cli("order show", "84/2017").stdout
    assert subject.stop() == 0
    wanted = [*MARKERS, *(one[2].encode() for one in visits)]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert subject.stderr_path in files
    assert len(files) > 5
    found = {str(path): [one for one in wanted if one in path.read_bytes()] for path in files}
    assert {path: marks for path, marks in found.items() if marks} == {}
    assert [one for one in wanted if one in (metrics + status).encode()] == []
