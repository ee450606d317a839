"""A constant stream of queries during a test, and the metrics before and after it.

The stream is open: it sends at its own rate whether responses come or not, as many clients do. Half of the
names are blocked. Every query must have exactly one response; each test checks which.
"""

import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from . import wire
from .clients import Metrics
from .harness import TIMEOUT, Subject, is_forwarded, is_sinkholed
from .tools import wait_for

BLOCKED = "blocked.example"
SOCKETS = 16
Record = Callable[[str, object], None]  # pytest's record_property
Judge = Callable[[int, wire.Reply], bool]

# ------- The figures before and after ------------------------------------------------

# Shown whether they have moved or not.
ALWAYS = (
    "dnsblock_packet_panics_total",
    "dnsblock_tcp_connections",
    "dnsblock_outstanding_queries",
    "dnsblock_unsent_responses_total",
    "process_open_fds",
    "process_resident_memory_bytes",
)
NEVER = ("_bucket", "_seconds", "_seconds_total", "_sum", "process_virtual_memory_bytes")


def mebibytes(count: float) -> float:
    return round(count / (1 << 20), 1)


@dataclass
class Figures:
    """Two scrapes of the metrics, and what has moved between them."""

    before: Metrics
    after: Metrics = field(default_factory=lambda: Metrics(""))

    def rise(self, name: str, **labels: str) -> float:
        return self.after.total(name, **labels) - self.before.total(name, **labels)

    def outcomes(self, **labels: str) -> dict[str, float]:
        """How the queries ended that came in between: the outcomes that are not 0."""
        found = {dict(pairs)["outcome"] for name, pairs in self.after if name == "dnsblock_queries_total"}
        rises = {what: self.rise("dnsblock_queries_total", outcome=what, **labels) for what in sorted(found)}
        return {what: rise for what, rise in rises.items() if rise}

    def rows(self) -> Iterator[tuple[str, float, float]]:
        for name, pairs in sorted({**self.before, **self.after}):
            before, after = self.before.get((name, pairs), 0), self.after.get((name, pairs), 0)
            if name in ALWAYS or (before != after and not name.endswith(NEVER)):
                labels = ",".join(f"{label}={value}" for label, value in pairs)
                yield f"{name}{{{labels}}}" if labels else name, before, after

    def __str__(self) -> str:
        rows = list(self.rows())
        width = max((len(name) for name, _, _ in rows), default=0)
        lines = [f"{'':{width}} {'before':>12} {'after':>12} {'rise':>12}"]
        lines += [
            f"{name:{width}} {before:12.0f} {after:12.0f} {after - before:12.0f}"
            for name, before, after in rows
        ]
        return "\n".join(lines)


@contextmanager
def measured(subject: Subject, record: Record) -> Iterator[Figures]:
    """The figures before and after the block: printed, kept in the test's record, and there to be asserted.

    No packet may have caused a panic, whatever the block does.
    """
    figures = Figures(subject.metrics())
    try:
        yield figures
    finally:
        figures.after = subject.metrics()
        print(f"\n{figures}")
        for name, before, after in figures.rows():
            record(name, f"{before:.0f} -> {after:.0f}")
    assert figures.rise("dnsblock_packet_panics_total") == 0


# ------- The stream of queries -------------------------------------------------------


@dataclass(slots=True)
class Asked:
    """One query of the stream, and what came back."""

    number: int
    name: str
    is_blocked: bool
    sent_at: float
    replies: list[wire.Reply] = field(default_factory=list)
    seconds: float = 0.0  # until the first answer


def is_right(_number: int, reply: wire.Reply) -> bool:
    """The response of the decent upstream for every name."""
    return is_forwarded(reply)


class Traffic(threading.Thread):
    """Sends queries over many sockets of both families until stopped; every other name is blocked."""

    def __init__(self, subject: Subject, rate: int, free: str) -> None:
        super().__init__(name="traffic")
        self.asked: list[Asked] = []
        self._subject, self._rate, self._free = subject, rate, free
        self._finish, self._is_open = threading.Event(), threading.Event()
        self._failure: Exception | None = None
        self._unanswered = 0

    def run(self) -> None:
        try:
            with ExitStack() as stack, selectors.DefaultSelector() as selector:
                families = [4, 6] if 6 in self._subject.ports else [4]
                sockets = [
                    stack.enter_context(self._subject.udp(families[place % len(families)]))
                    for place in range(SOCKETS)
                ]
                for sock in sockets:
                    selector.register(sock, selectors.EVENT_READ)
                self._is_open.set()
                self._ask_and_listen(sockets, selector)
                self._listen_to_the_last(sockets, selector)
        except Exception as err:  # shown by finish
            self._failure = err
            self._is_open.set()

    def _ask_and_listen(self, sockets: list[socket.socket], selector: selectors.BaseSelector) -> None:
        due = time.monotonic()
        while not self._finish.is_set():
            now = time.monotonic()
            if now >= due:
                number = len(self.asked)
                self._ask(sockets[number // 2 % SOCKETS], is_blocked=number % 2 == 0)
                due += 1 / self._rate
            self._listen(selector, max(0.0, due - time.monotonic()))

    def _listen_to_the_last(self, sockets: list[socket.socket], selector: selectors.BaseSelector) -> None:
        """Waits for outstanding responses; then a last query on each socket shows that none came twice.

        One socket is one flow and stays with one worker thread, so responses keep their order.
        """
        deadline = time.monotonic() + TIMEOUT
        for _ in range(2):
            while self._unanswered and time.monotonic() < deadline:
                self._listen(selector, 0.1)
            for sock in sockets:
                self._ask(sock, is_blocked=True)
        while self._unanswered and time.monotonic() < deadline:
            self._listen(selector, 0.1)

    def _ask(self, sock: socket.socket, *, is_blocked: bool) -> None:
        number = len(self.asked)
        name = f"n{number}.{BLOCKED}" if is_blocked else self._free.format(number)
        self.asked.append(Asked(number, name, is_blocked, time.monotonic()))
        self._unanswered += 1
        sock.send(wire.query(name, qid=number & 0xFFFF, edns=number % 4 < 2))

    def _listen(self, selector: selectors.BaseSelector, timeout: float) -> None:
        for key, _ in selector.select(timeout):
            reply = wire.read(key.fileobj.recv(65535))
            last = len(self.asked) - 1
            asked = self.asked[last - (last - reply.qid & 0xFFFF)]  # the latest with this id
            assert reply.question == wire.question(asked.name), (asked, reply)
            if not asked.replies:
                asked.seconds = time.monotonic() - asked.sent_at
                self._unanswered -= 1
            asked.replies.append(reply)

    # ------- For the tests

    def begin(self) -> None:
        """Returns with the sockets open: none has the port of a client that is gone, and gets its answers."""
        self.start()
        self._is_open.wait()

    def wait_for_more(self, count: int, timeout: float = TIMEOUT) -> None:
        """Returns when this many more queries were asked."""
        wanted = len(self.asked) + count
        wait_for(lambda: len(self.asked) >= wanted or self._failure, "traffic goes on", timeout)

    def finish(self) -> None:
        self._finish.set()
        self.join()

    @property
    def free(self) -> list[Asked]:
        return [asked for asked in self.asked if not asked.is_blocked]

    def tally(self, is_right: Judge = is_right) -> Counter[str]:
        """How the queries were answered: `blocked`, `right`, `truncated` or the RCODE.

        Fails unless each had exactly one answer and each blocked name the answer that was ordered.
        """
        assert self._failure is None, repr(self._failure)
        odd = [(asked.name, len(asked.replies)) for asked in self.asked if len(asked.replies) != 1]
        assert odd == [], f"of {len(self.asked)} queries these have not one answer"
        counted: Counter[str] = Counter()
        for asked in self.asked:
            (reply,) = asked.replies
            if asked.is_blocked:
                assert is_sinkholed(reply), (asked.name, reply)
                counted["blocked"] += 1
            elif reply.rcode == "NOERROR" and reply.truncated:
                assert not reply.answer, "no part of an answer with TC"
                counted["truncated"] += 1
            elif reply.rcode == "NOERROR":
                assert is_right(asked.number, reply), (asked.name, reply)
                counted["right"] += 1
            else:
                counted[reply.rcode] += 1
        print(f"answers: {dict(counted)}; slowest blocked {self.slowest_blocked():.3f} s")
        return counted

    def slowest_blocked(self) -> float:
        return max(asked.seconds for asked in self.asked if asked.is_blocked)


@contextmanager
def traffic(subject: Subject, *, rate: int = 500, free: str = "n{}.free.example") -> Iterator[Traffic]:
    """The stream goes on while the block runs; afterwards every answer that was owed has come."""
    stream = Traffic(subject, rate, free)
    stream.begin()
    try:
        yield stream
    finally:
        stream.finish()
