"""More queries than can be answered, sent at a fixed rate whether responses come or not."""

import itertools
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from . import wire
from .asking import Asking

USEFUL = 1.0  # seconds; who has waited longer has asked again, or gone
SOCKETS = 16
Names = Callable[[int], str]


@dataclass
class Result:
    """The outcome of the queries that were sent."""

    sent: int = 0
    useful: int = 0  # answered in time, with NOERROR
    rcodes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


def offer(resolver: Asking, name: Names, *, rate: float, seconds: float) -> Result:
    """Ask at this rate for so long; then wait for the last answers that may be of use."""
    result, waiting = Result(), {}
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        sockets = [stack.enter_context(resolver.udp()) for _ in range(SOCKETS)]
        for sock in sockets:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ)
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            due = int((now - began) * rate)
            for number in range(result.sent, min(due, result.sent + 200)):
                sock, qid = sockets[number % SOCKETS], number // SOCKETS % 0x10000
                sock.send(wire.query(name(number), qid=qid))
                waiting[sock, qid] = time.monotonic()
                result.sent = number + 1
            _listen(selector, waiting, result, 0 if result.sent < due else 0.0005)
        deadline = time.monotonic() + USEFUL
        while waiting and time.monotonic() < deadline:
            _listen(selector, waiting, result, 0.05)
    return result


def _listen(
    selector: selectors.BaseSelector,
    waiting: dict[tuple[socket.socket, int], float],
    result: Result,
    timeout: float,
) -> None:
    for key, _ in selector.select(timeout):
        for _ in range(100):
            try:
                raw = key.fileobj.recv(4096)
            except BlockingIOError:
                break
            sent_at = waiting.pop((key.fileobj, int.from_bytes(raw[:2])), None)
            if sent_at is None:
                continue
            took = time.monotonic() - sent_at
            result.slowest = max(result.slowest, took)
            result.rcodes[wire.RCODES[raw[3] & 15]] += 1
            result.useful += took <= USEFUL and not raw[3] & 15


@contextmanager
def flood(resolver: Asking, name: Names, *, rate: float) -> Iterator[list[Result]]:
    """Goes on while the block runs; afterwards the list has what became of it, second by second."""
    finished = threading.Event()
    results: list[Result] = []

    numbers = itertools.count()  # no name comes twice

    def run() -> None:
        while not finished.is_set():
            results.append(offer(resolver, lambda _: name(next(numbers)), rate=rate, seconds=1))

    thread = threading.Thread(target=run, name="flood")
    thread.start()
    try:
        yield results
    finally:
        finished.set()
        thread.join()
