"""Identical outstanding queries are coalesced, and each client is answered individually (trap 16).

This holds across worker threads: there are four of them here.
"""

import queue
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from . import wire
from .asking import SINKHOLE6, is_forwarded, is_sinkholed
from .caching import NAME, cname, gives, number_of, numbered, says, soa, start
from .clients import Stream
from .harness import Subject
from .orders import block
from .tools import wait_for
from .upstreams import Asked, StubUpstream, silent

PATIENT = {"timeout_ms": 60_000, "tries": 1}
BLOCKED = "blocked.example"
COOKIE = wire.opt(options=wire.option(wire.COOKIE_OPTION, b"12345678"))


def begin(subject: Subject, upstream: StubUpstream, /, **config: object) -> None:
    """The upstream says nothing until the test replies."""
    upstream.script = silent
    orders = [block("B-0", [BLOCKED])]
    start(subject, upstream, **{"orders": orders, "upstream": PATIENT, "workers": 4} | config)


class Crowd:
    """Clients that have asked and wait: over UDP and TCP, of both families."""

    def __init__(self, subject: Subject, stack: ExitStack) -> None:
        self._subject, self._stack = subject, stack
        self.waiting: list[tuple[object, bytes]] = []

    def ask(
        self, name: str = NAME, qtype: str = "A", *, transport: str = "udp", family: int = 4, **flags: object
    ) -> None:
        connection = self._stack.enter_context(getattr(self._subject, transport)(family))
        asked = wire.query(name, qtype, **flags)
        connection.send(asked)
        self.waiting.append((connection, asked))

    def has_arrived(self) -> None:
        """A blocked name is answered at once, to each client: what it had sent before has been read."""
        for connection, _ in self.waiting:
            connection.send(wire.query(BLOCKED, edns=False))
            raw = connection.receive() if isinstance(connection, Stream) else connection.recv(65535)
            assert is_sinkholed(wire.read(raw))

    def replies(self) -> list[wire.Reply]:
        """One for each, with its own id and its own question."""
        found = []
        for connection, asked in self.waiting:
            raw = connection.receive() if isinstance(connection, Stream) else connection.recv(65535)
            assert raw is not None, "the connection ended without the answer"
            reply = wire.read(raw)
            assert reply.qid == int.from_bytes(asked[:2])
            assert reply.question == asked[12 : 12 + len(reply.question)]
            found.append(reply)
        return found


@contextmanager
def crowd(subject: Subject) -> Iterator[Crowd]:
    with ExitStack() as stack:
        yield Crowd(subject, stack)


def under_way(upstream: StubUpstream, name: str = NAME) -> Asked:
    """The one question that the upstream was asked about this name."""
    upstream.wait_for_query(name)
    (asked,) = upstream.asked_for(name)
    return asked


# ------- One question, many answers ---------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_identical_outstanding_queries_are_coalesced(subject: Subject, upstream: StubUpstream, workers: int):
    """RFC 5452 section 5: each further question with the same answer is one more chance to guess it."""
    begin(subject, upstream, workers=workers)
    with crowd(subject) as clients:
        for family in (4, 6):
            for transport in ("udp", "tcp"):
                for _ in range(10):
                    clients.ask(transport=transport, family=family)
        clients.has_arrived()
        asked = under_way(upstream)
        asked.reply(asked.address())
        assert all(is_forwarded(reply) for reply in clients.replies())
    assert upstream.count(NAME) == 1
    assert subject.metrics().total("dnsblock_coalesced_queries_total") == 39


def test_coalesced_clients_are_answered_individually(subject: Subject, upstream: StubUpstream):
    """Traps 3 and 4: each has its own id, its own letters, its own OPT, and what was cut for its own size."""
    begin(subject, upstream)
    texts = [wire.record(b"\xc0\x0c", "TXT", b"\xc8" + b"%03d" % number + b"x" * 197) for number in range(4)]
    asks = [
        {"name": name, "edns": edns, "transport": transport}
        for name in (NAME, NAME.upper(), "kEpT.exAMple")
        for edns in (
            False,
            True,
            wire.opt(512),
            wire.opt(4096),
            COOKIE,
        )
        for transport in ("udp", "tcp")
    ]
    with crowd(subject) as clients:
        for ask in asks:
            clients.ask(qtype="TXT", **ask)
        clients.has_arrived()
        asked = under_way(upstream)
        asked.reply(asked.response(texts))
        for ask, reply in zip(asks, clients.replies(), strict=True):
            assert (reply.opt is not None) is bool(ask["edns"])
            small = ask["transport"] == "udp" and ask["edns"] in (False, wire.opt(512))
            assert (reply.truncated, len(reply.answer)) == (small, 0 if small else 4)
            cookies = [data[:8] for code, data in reply.options if code == wire.COOKIE_OPTION]
            assert cookies == ([b"12345678"] if ask["edns"] == COOKIE else [])
    assert upstream.count(NAME) == 1


def test_five_hundred_clients_of_one_name_cost_one_upstream_query(subject: Subject, upstream: StubUpstream):
    """RFC 9520 section 1: a popular name that has just expired is asked for by everybody at once."""
    begin(subject, upstream)
    with ExitStack() as stack:
        sockets = [stack.enter_context(subject.udp(family)) for family in (4, 6) * 5]
        for qid in range(50):
            for sock in sockets:
                sock.send(wire.query(NAME, qid=qid))
        for sock in sockets:
            sock.send(wire.query(BLOCKED))
            assert is_sinkholed(wire.read(sock.recv(4096)))
        asked = under_way(upstream)
        asked.reply(asked.address())
        for sock in sockets:
            replies = [wire.read(sock.recv(4096)) for _ in range(50)]
            assert sorted(reply.qid for reply in replies) == list(range(50))
            assert all(is_forwarded(reply) for reply in replies)
    assert upstream.count(NAME) == 1


def test_a_large_response_is_complete_over_tcp_and_truncated_over_udp(
    subject: Subject, upstream: StubUpstream
):
    """Trap 5: the first client and its transport decide nothing for the others."""
    texts = [wire.record(b"\xc0\x0c", "TXT", b"\xc8" + b"x" * 200) for _ in range(20)]
    begin(subject, upstream)
    with crowd(subject) as clients:
        for transport in ("udp", "tcp", "udp", "tcp"):
            clients.ask(qtype="TXT", transport=transport, edns=True)
        clients.has_arrived()
        asked = under_way(upstream)
        upstream.script = lambda asked: asked.response(texts)
        asked.reply(asked.response(flags=wire.RA | wire.TC))
        sizes = [(reply.truncated, len(reply.answer)) for reply in clients.replies()]
        assert sizes == [(True, 0), (False, 20)] * 2
    assert [asked.transport for asked in upstream.asked_for(NAME)] == ["udp", "tcp"]


def test_an_uncacheable_response_answers_all_coalesced_clients(subject: Subject, upstream: StubUpstream):
    """RFC 1035 section 3.2.1: a TTL of 0 is for the transaction in progress, and that is theirs together."""
    begin(subject, upstream)
    with crowd(subject) as clients:
        for _ in range(5):
            clients.ask()
        clients.has_arrived()
        asked = under_way(upstream)
        asked.reply(gives(ttl=0)(asked))
        assert all(reply.ttls == {0} for reply in clients.replies())
    upstream.script = gives(ttl=0)
    assert is_forwarded(subject.query(NAME))
    assert upstream.count(NAME) == 2


@pytest.mark.parametrize("rcode", [2, 3, 5], ids=lambda number: wire.RCODES[number])
def test_a_failure_answers_all_coalesced_clients(subject: Subject, upstream: StubUpstream, rcode: int):
    """RFC 9520 section 3.2: one failure is one, not one for each client."""
    begin(subject, upstream)
    with crowd(subject) as clients:
        for transport in ("udp", "tcp") * 3:
            clients.ask(transport=transport)
        clients.has_arrived()
        asked = under_way(upstream)
        asked.reply(says(authority=[soa()], rcode=rcode)(asked))
        assert {reply.rcode for reply in clients.replies()} == {wire.RCODES[rcode]}
    assert upstream.count(NAME) == 1


def test_when_no_upstream_answers_all_coalesced_clients_get_servfail(
    subject: Subject, upstream: StubUpstream
):
    """RFC 8914 section 4.23: 22 is No Reachable Authority; and the attempts are those of one question."""
    begin(subject, upstream, upstream={"timeout_ms": 2000, "tries": 2})  # all have asked before these end
    with crowd(subject) as clients:
        for transport in ("udp", "tcp") * 5:
            clients.ask(transport=transport, edns=True)
        replies = clients.replies()
    assert {(reply.rcode, *reply.extended_errors) for reply in replies} <= {
        ("SERVFAIL", 22),
        ("SERVFAIL", 13),
    }
    assert upstream.count(NAME) == 2


# ------- Not the same question -----------------------------------------------------------------


def test_different_questions_are_not_coalesced(subject: Subject, upstream: StubUpstream):
    """RFC 4035 section 3.2: DO and CD; RFC 9824 section 5.1: CO; draft-ietf-dnsop-delext: DE."""
    asks = [
        {},
        {"qtype": "AAAA"},
        {"edns": wire.opt(do=True)},
        {"flags": wire.RD | wire.CD},
        {"edns": wire.opt(flags=wire.CO)},
        {"edns": wire.opt(flags=wire.DE)},
        {"edns": wire.opt(do=True), "flags": wire.RD | wire.CD},
    ]
    begin(subject, upstream)
    with crowd(subject) as clients:
        for ask in asks * 2:
            clients.ask(**ask)
        clients.has_arrived()
        upstream.wait_until(lambda seen: len(seen) >= len(asks))
        answers = numbered()
        for asked in upstream.queries:
            asked.reply(answers(asked))
        numbers = [number_of(reply) for reply in clients.replies()]
    assert numbers[: len(asks)] == numbers[len(asks) :]
    assert sorted(numbers[: len(asks)]) == list(range(1, len(asks) + 1))
    assert len(upstream.queries) == len(asks)


class InTurn:
    """A script that keeps queries until the test answers them, and notes two at a time of one kind.

    Answers tell whether they were asked for with RD.
    """

    def __init__(self) -> None:
        self.waiting: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        self.under_way: set[tuple[int, int]] = set()
        self.too_many: list[tuple[int, int]] = []

    def __call__(self, asked: Asked) -> None:
        kind = self.kind(asked)
        if kind in self.under_way:
            self.too_many.append(kind)
        self.under_way.add(kind)
        self.waiting.put(asked)

    @staticmethod
    def kind(asked: Asked) -> tuple[int, int]:
        return asked.message.flags & wire.CD, asked.message.opt.ttl

    def answer_one(self) -> None:
        asked = self.waiting.get(timeout=45)
        self.under_way.discard(self.kind(asked))
        asked.reply(asked.address("198.51.100.1" if asked.message.flags & wire.RD else "198.51.100.2"))


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("first", [0, wire.RD], ids=["without RD first", "with RD first"])
def test_one_upstream_query_at_a_time_is_sent_for_a_name_whatever_its_flags(
    subject: Subject, upstream: StubUpstream, first: int, workers: int
):
    """RFC 5452 section 5: 16 combinations of RD, CD, AD and DO are 4 queries at a time, one per CD and DO.

    A client without RD takes the answer to a query with RD; one with RD never takes one without.
    """
    begin(subject, upstream, workers=workers)
    upstream.script = in_turn = InTurn()
    flags = [(cd, ad, do) for cd in (0, wire.CD) for ad in (0, wire.AD) for do in (False, True)]
    asks = [(rd, cd | ad, do) for rd in (first, wire.RD ^ first) for cd, ad, do in flags]
    with crowd(subject) as clients:
        for rd, others, do in asks * 3:
            clients.ask(flags=rd | others, edns=wire.opt(do=do))
        clients.has_arrived()
        upstream.wait_until(lambda seen: len(seen) >= 4)
        assert len(upstream.queries) == 4
        answering = threading.Thread(target=lambda: [in_turn.answer_one() for _ in iter(done.is_set, True)])
        done = threading.Event()
        answering.start()
        try:
            replies = clients.replies()
        finally:
            done.set()
            in_turn.waiting.put(upstream.queries[0])  # one more, that ends its wait
            answering.join()
    for (rd, *_), reply in zip(asks * 3, replies, strict=True):
        assert reply.addresses in ([["198.51.100.1"]] if rd else [["198.51.100.1"], ["198.51.100.2"]])
    assert in_turn.too_many == []
    assert len(upstream.queries) <= 8 * workers


def test_a_query_with_rd_does_not_wait_for_all_tries_of_one_without(subject: Subject, upstream: StubUpstream):
    """RFC 5452 section 5 must not delay clients: an upstream may ignore queries without RD."""
    begin(subject, upstream, upstream={"timeout_ms": 2000, "tries": 4})
    upstream.script = lambda asked: asked.address() if asked.message.flags & wire.RD else None
    with crowd(subject) as clients:
        clients.ask(flags=0)
        upstream.wait_for_query(NAME)
        clients.ask()
        without, with_rd = clients.replies()
    assert (without.rcode, is_forwarded(with_rd)) == ("SERVFAIL", True)
    *before, last = [asked.message.flags & wire.RD for asked in upstream.asked_for(NAME)]
    assert (set(before), last) == ({0}, wire.RD)
    assert len(before) < 4


def test_a_client_after_the_response_is_answered_from_the_cache(subject: Subject, upstream: StubUpstream):
    """Trap 16: it does not wait for a question that is over."""
    begin(subject, upstream)
    with crowd(subject) as clients:
        clients.ask()
        asked = under_way(upstream)
        asked.reply(asked.address())
        clients.replies()
        assert is_forwarded(subject.query(NAME))
    assert upstream.count(NAME) == 1


@pytest.mark.parametrize("leaving", ["udp", "tcp", "tcp reset"])
def test_a_client_that_disconnects_does_not_affect_coalesced_clients(
    subject: Subject, upstream: StubUpstream, leaving: str
):
    """RFC 7766 section 6.2.4: the first client may close; the query continues for the others."""
    begin(subject, upstream)
    with crowd(subject) as clients:
        clients.ask(transport=leaving[:3])
        under_way(upstream)
        for transport in ("udp", "tcp"):
            clients.ask(transport=transport)
        clients.has_arrived()
        gone, _ = clients.waiting.pop(0)
        sock = gone.sock if isinstance(gone, Stream) else gone
        if leaving == "tcp reset":  # what is merely closed may still want its answer (RFC 7766 section 6.2.3)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        if leaving == "tcp reset":
            wait_for(lambda: subject.metrics().total("dnsblock_tcp_connections") == 1, "it has left")
        asked = under_way(upstream)
        asked.reply(asked.address())
        assert all(is_forwarded(reply) for reply in clients.replies())


# ------- Policy ---------------------------------------------------------------------------------


def chain(asked: Asked) -> bytes:
    return asked.response(
        [cname(b"\xc0\x0c", "target.example"), wire.address_record("target.example", "198.51.100.7")]
    )


@pytest.mark.parametrize("blocked", [NAME, "target.example"])
def test_coalesced_clients_are_answered_by_the_current_policy(
    subject: Subject, upstream: StubUpstream, blocked: str
):
    """Trap 11: what was asked before the block is answered after it."""
    begin(subject, upstream)
    with crowd(subject) as clients:
        for transport in ("udp", "tcp") * 3:
            clients.ask(transport=transport)
        clients.has_arrived()
        asked = under_way(upstream)
        subject.put_order(block("B-1", [blocked]))
        subject.reload()
        asked.reply(chain(asked))
        assert all(is_sinkholed(reply) for reply in clients.replies())


def test_a_client_after_the_block_does_not_wait_for_an_outstanding_query(
    subject: Subject, upstream: StubUpstream
):
    """Trap 11: even if the query is outstanding for clients from before the block."""
    begin(subject, upstream)
    with crowd(subject) as clients:
        clients.ask()
        under_way(upstream)
        subject.put_order(block("B-1", [NAME]))
        subject.reload()
        assert is_sinkholed(subject.query(NAME))
        assert subject.query(NAME, "AAAA").addresses == [SINKHOLE6]
        asked = under_way(upstream)
        asked.reply(asked.address())
        assert all(is_sinkholed(reply) for reply in clients.replies())


def test_each_query_is_counted_once(subject: Subject, upstream: StubUpstream):
    """By what became of it, and the shared ones beside that."""
    begin(subject, upstream)
    with crowd(subject) as clients:
        for _ in range(10):
            clients.ask()
        clients.has_arrived()
        asked = under_way(upstream)
        asked.reply(asked.address())
        clients.replies()

    def counted() -> dict[str, float]:
        metrics = subject.metrics()
        outcomes = ("forwarded", "cached", "blocked", "failed", "dropped")
        return {outcome: metrics.total("dnsblock_queries_total", outcome=outcome) for outcome in outcomes}

    wait_for(lambda: sum(counted().values()) == 20, "every query is counted")
    assert counted() == {"forwarded": 10, "cached": 0, "blocked": 10, "failed": 0, "dropped": 0}
    assert subject.metrics().total("dnsblock_coalesced_queries_total") == 9
    assert subject.metrics().total("dnsblock_upstream_queries_total") == 1


# ------- Bounds ---------------------------------------------------------------------------------


def test_clients_waiting_for_one_name_take_no_room_from_others(subject: Subject, upstream: StubUpstream):
    """Trap 17: `max_outstanding` queries may wait for a slow name; the rest get SERVFAIL at once."""
    begin(subject, upstream, workers=1, upstream=PATIENT | {"max_outstanding": 100})
    with subject.udp() as client:
        for qid in range(300):
            client.send(wire.query(NAME, qid=qid, edns=False))
        turned_away = [wire.read(client.recv(4096)) for _ in range(199)]
        assert {reply.rcode for reply in turned_away} == {"SERVFAIL"}
        assert subject.metrics().total("dnsblock_queries_total", outcome="overloaded") == 199
        # A gauge is set after the responses are sent.
        wait_for(lambda: subject.metrics().total("dnsblock_outstanding_queries") == 101, "the rest waits")
        upstream.script = gives()
        assert all(is_forwarded(subject.query(f"n{number}.example")) for number in range(20))
        asked = under_way(upstream)
        asked.reply(asked.address())
        assert all(is_forwarded(wire.read(client.recv(4096))) for _ in range(101))
