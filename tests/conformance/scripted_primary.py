"""A primary that answers SOA, AXFR and IXFR queries as a test scripts it, also in ways that no server would.

By default it serves what `publish` gave it, and answers IXFR with the difference of the last two versions.
"""

import functools
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig
import pytest
from ports import free_port

from .clients import Stream
from .primaries import USUAL, Key, Timers
from .tools import wait_for

TTL = 300


# ------- What it sends --------------------------------------------------------------------


@dataclass(frozen=True)
class Unsigned:
    """A response without TSIG, though the query had one."""

    message: dns.message.Message


@dataclass(frozen=True)
class Raw:
    """Bytes that are sent as they are, without the length of a message."""

    data: bytes


class Close:
    """The end of the connection."""


# `bytes`: a message that is sent as it is, after its length.
Sent = dns.message.Message | Unsigned | bytes | Raw | Close
Rule = Callable[["Asked"], Iterable[Sent]]


@functools.cache
def record(text: str, zone: str, rdclass: str = "IN") -> dns.rrset.RRset:
    """One record, relative to the zone: `n0.example CNAME .`. Nothing changes the value, which is cached."""
    owner, rtype, data = text.split(maxsplit=2)
    name = dns.name.from_text(owner, dns.name.from_text(zone))
    return dns.rrset.from_text(name, TTL, rdclass, rtype, data)


def soa(serial: int, timers: Timers = USUAL) -> str:
    """The SOA record of the zone."""
    return f"@ SOA localhost. nobody.invalid. {serial} {timers}"


NS = "@ NS localhost."


def axfr(serial: int, records: Iterable[str], timers: Timers = USUAL) -> list[str]:
    """The records of a whole zone, as AXFR sends them (RFC 5936 section 2.2)."""
    return [soa(serial, timers), NS, *records, soa(serial, timers)]


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference sequence (RFC 1995 section 4)."""

    before: int  # serial
    after: int
    deleted: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def ixfr(differences: Iterable[Difference], timers: Timers = USUAL) -> list[str]:
    """The records of an incremental transfer, from oldest to newest."""
    differences = list(differences)
    last = soa(differences[-1].after, timers)
    middle = [
        line
        for one in differences
        for line in (soa(one.before, timers), *one.deleted, soa(one.after, timers), *one.added)
    ]
    return [last, *middle, last]


# ------- What it was asked ----------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A query to the primary."""

    raw: bytes
    message: dns.message.Message
    connection: int  # its number: queries with the same one came over the same connection
    stopped: threading.Event

    @property
    def qtype(self) -> str:
        return dns.rdatatype.to_text(self.message.question[0].rdtype)

    @property
    def zone(self) -> str:
        return self.message.question[0].name.to_text(omit_final_dot=True)

    @property
    def serial(self) -> int | None:
        """The serial in the authority section of an IXFR query (RFC 1995 section 3)."""
        found = [one for one in self.message.authority if one.rdtype == dns.rdatatype.SOA]
        return found[0][0].serial if found else None

    @property
    def key(self) -> str | None:
        """The name of its TSIG key; None: it is not signed."""
        return self.message.keyname.to_text(omit_final_dot=True) if self.message.had_tsig else None

    def response(
        self,
        records: Iterable[str | dns.rrset.RRset] = (),
        *,
        rcode: int = 0,
        rdclass: str = "IN",
        question: str | None = "",
        qid: int | None = None,
        flags: int = dns.flags.QR | dns.flags.AA,
    ) -> dns.message.Message:
        """One message. `question`: of another zone; None: without a question."""
        message = dns.message.Message(id=self.message.id if qid is None else qid)
        message.flags = flags
        message.set_rcode(rcode)
        if question is not None:
            name = dns.name.from_text(question) if question else self.message.question[0].name
            rtype = self.message.question[0].rdtype
            message.question.append(dns.rrset.RRset(name, dns.rdataclass.from_text(rdclass), rtype))
        for one in records:
            message.answer.append(record(one, self.zone, rdclass) if isinstance(one, str) else one)
        return message

    def responses(
        self, records: Iterable[str], per_message: int = 100, **more: object
    ) -> Iterator[dns.message.Message]:
        """The records in as many messages as that takes. Only the first has the question (RFC 5936 2.2.1)."""
        records = list(records)
        for at in range(0, len(records), per_message):
            again = {} if at == 0 else {"question": None}
            yield self.response(records[at : at + per_message], **(more | again))


# ------- Scripts --------------------------------------------------------------------------


def sends(records: Iterable[str], per_message: int = 100, **more: object) -> Rule:
    """A rule that answers with these records; `more` is for `Asked.response`."""
    lines = list(records)
    return lambda asked: asked.responses(lines, per_message, **more)


def refuses(rcode: int) -> Rule:
    """A rule that answers with an error."""
    return lambda asked: [asked.response(rcode=rcode)]


def then_closes(rule: Rule) -> Rule:
    """The same answer, and then the end of the connection."""
    return lambda asked: [*rule(asked), Close()]


def says_nothing(_asked: Asked) -> Iterable[Sent]:
    """The query arrives, and nothing comes back."""
    return ()


def waits_for(event: threading.Event, rule: Rule) -> Rule:
    """The same answer, once the event has happened or the test has ended."""

    def wait(asked: Asked) -> Iterator[Sent]:
        while not (event.is_set() or asked.stopped.is_set()):
            event.wait(0.05)
        yield from rule(asked)

    return wait


def for_ever(start: Iterable[str], rest: Iterable[str], pause: float = 0.0) -> Rule:
    """A rule that sends the rest again and again, until the client closes the connection or the test ends."""

    def rule(asked: Asked) -> Iterator[Sent]:
        yield asked.response(start)
        again = asked.response(rest, question=None).to_wire(max_size=65535)
        while not asked.stopped.wait(pause):
            yield again

    return rule


# ------- The server -----------------------------------------------------------------------


class ScriptedPrimary:
    """A TCP server at a port of a loopback address, with a thread per connection; runs within a `with`.

    `rules` has a rule for each QTYPE that a test has scripted; others are answered as a good primary does.
    """

    def __init__(
        self,
        records: Iterable[str] = (),
        *,
        serial: int = 1,
        key: Key | None = None,
        tls: ssl.SSLContext | None = None,
        timers: Timers = USUAL,
        host: str = "127.0.0.1",
    ) -> None:
        self.port = free_port()
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.timers = timers
        self.serial = serial
        self.records = tuple(records)
        self.rules: dict[str, Rule] = {}
        self.signs_with = key  # another key than the one that it verifies with: a wrong signature
        self.errors: list[Exception] = []
        self.handshakes: list[tuple[str | None, str | None]] = []  # version of TLS, and protocol by ALPN
        self.failed_handshakes = 0
        self._place = (host, self.port)
        self._key = key
        self._tls = tls
        self._difference: Difference | None = None
        self._queries: list[Asked] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._numbers = itertools.count()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    # ------- For the test ------------------------------------------------------------------

    def publish(self, records: Iterable[str], *, serial: int | None = None) -> None:
        """Another content, by default with the next serial."""
        records = tuple(records)
        after = (self.serial + 1) % (1 << 32) if serial is None else serial
        deleted = tuple(one for one in self.records if one not in records)
        added = tuple(one for one in records if one not in self.records)
        self._difference = Difference(self.serial, after, deleted, added)
        self.records, self.serial = records, after

    @property
    def queries(self) -> list[Asked]:
        with self._lock:
            return list(self._queries)

    def count(self, qtype: str) -> int:
        """How many queries of this type came."""
        return sum(asked.qtype == qtype for asked in self.queries)

    def wait_for_query(self, qtype: str, at_least: int = 1) -> Asked:
        """The latest query of this type, once so many have come."""
        wait_for(lambda: self.count(qtype) >= at_least, f"{at_least} {qtype} queries at {self.address}")
        return next(asked for asked in reversed(self.queries) if asked.qtype == qtype)

    # ------- A good primary ----------------------------------------------------------------

    def answer(self, asked: Asked) -> Iterable[Sent]:
        """SOA, AXFR, and IXFR as the last difference or as the whole zone (RFC 1995 section 4)."""
        if asked.qtype == "SOA":
            return [asked.response([soa(self.serial, self.timers)])]
        if asked.qtype == "IXFR" and asked.serial == self.serial:
            return [asked.response([soa(self.serial, self.timers)])]
        if asked.qtype == "IXFR" and self._difference is not None and asked.serial == self._difference.before:
            return asked.responses(ixfr([self._difference], self.timers))
        return asked.responses(axfr(self.serial, self.records, self.timers))

    # ------- Its life ----------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()
        if kind is None and self.errors:
            pytest.fail(f"the scripted primary failed: {self.errors}")

    def listen(self) -> None:
        """At first, and again after `close`."""
        family = socket.AF_INET6 if ":" in self._place[0] else socket.AF_INET
        self._stopped.clear()
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(self._place)
        self._listener.listen(64)
        self._acceptor = threading.Thread(target=self._accept, name=f"primary-{self.port}")
        self._acceptor.start()

    def close(self) -> None:
        """Nothing listens any more, and each connection ends; may be called again."""
        self._stopped.set()
        with suppress(OSError):  # wakes the thread that accepts
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    # Not that of `ssl`, which takes the session from the thread that reads.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock, next(self._numbers)))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self._tls is not None:
                sock = self._encrypted(sock)
            self._talk(Stream(sock), number)
        except OSError:
            pass  # the client has seen enough, or the test has ended
        except Exception as err:  # shown at the end of the test
            self.errors.append(err)
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def _encrypted(self, sock: socket.socket) -> ssl.SSLSocket:
        encrypted = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._open.discard(sock)  # its descriptor belongs to the other object now
            self._open.add(encrypted)
        try:
            encrypted.do_handshake()
        except OSError:
            self.failed_handshakes += 1
            encrypted.close()
            raise
        self.handshakes.append((encrypted.version(), encrypted.selected_alpn_protocol()))
        return encrypted

    def _talk(self, stream: Stream, number: int) -> None:
        while not self._stopped.is_set() and (raw := stream.receive()) is not None:
            asked = Asked(raw, self._parsed(raw), number, self._stopped)
            with self._lock:
                self._queries.append(asked)
            context = None
            for sent in self.rules.get(asked.qtype, self.answer)(asked):
                if isinstance(sent, Close):
                    return
                if isinstance(sent, Raw):
                    stream.sock.sendall(sent.data)
                    continue
                if isinstance(sent, bytes):
                    stream.send(sent)
                    continue
                data, context = self._signed(sent, asked, context)
                stream.send(data)

    def _parsed(self, raw: bytes) -> dns.message.Message:
        """The query. With a key, the signature is verified: a wrong one fails the test."""
        keyring = False if self._key is None else {dns.name.from_text(self._key.name): self._key.tsig()}
        return dns.message.from_wire(raw, keyring=keyring)

    def _signed(
        self, sent: dns.message.Message | Unsigned, asked: Asked, context: dns.tsig.HMACTSig | None
    ) -> tuple[bytes, dns.tsig.HMACTSig | None]:
        """The bytes of a message, with TSIG if the query had it (RFC 8945 section 5.3.1)."""
        if isinstance(sent, Unsigned):
            data = sent.message.to_wire(max_size=65535)
            if context is not None:
                context.update(data)  # the next signature covers it
            return data, context
        if self.signs_with is None or asked.key is None:
            return sent.to_wire(max_size=65535), context
        key = self.signs_with.tsig()
        sent.use_tsig(key, original_id=sent.id, algorithm=key.algorithm)
        sent.request_mac = asked.message.mac
        data = sent.to_wire(max_size=65535, multi=True, tsig_ctx=context)
        return data, sent.tsig_ctx
