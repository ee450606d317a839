"""Helpers of the cache tests: distinguishable answers, and the passing of time."""

import itertools
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from . import wire
from .asking import Asking
from .harness import Subject
from .upstreams import Asked, Script, StubUpstream, decent

NAME = "kept.example"
CACHE = {"size_mb": 4, "prefetch": False}  # prefetch has tests of its own
QUICK = {"timeout_ms": 400, "tries": 2}  # for an upstream that is dead
SLACK = 0.15  # how late or early a life of some seconds may end
STALE_ANSWER, STALE_NXDOMAIN = 3, 19  # RFC 8914 sections 4.4 and 4.20
STALE_TTL = 30


def start(subject: Subject, *upstreams: StubUpstream, cache: dict | None = None, **config: object) -> None:
    """The daemon with a cache; `cache` is what the test wants of it."""
    addresses = [one.address for one in upstreams]
    subject.start(cache=CACHE | (cache or {}), upstreams=addresses, **config)


def set_cache(subject: Subject, *upstreams: StubUpstream, cache: dict, **config: object) -> dict:
    """Change the configuration of the daemon that runs; returns what the reload said."""
    addresses = [one.address for one in upstreams]
    subject.configure(cache=CACHE | cache, upstreams=addresses, **config)
    return subject.reload()


# ------- What upstreams say --------------------------------------------------------------


def numbered(ttl: int = 300) -> Script:
    """Each answer is different, starting with number 1, so a cached one is recognised."""
    numbers = itertools.count(1)
    return lambda asked: asked.response([numbered_record(asked, next(numbers), ttl=ttl)])


def numbered_record(asked: Asked, number: int, *, ttl: int, owner: bytes = b"\xc0\x0c") -> bytes:
    if asked.qtype == wire.QTYPES["A"]:
        return wire.address_record(owner, f"198.51.{100 + number // 256}.{number % 256}", ttl=ttl)
    if asked.qtype == wire.QTYPES["AAAA"]:
        return wire.address_record(owner, f"2001:db8:7::{number:x}", ttl=ttl)
    return wire.record(owner, asked.qtype, b"\x04%04d" % number, ttl=ttl)


def number_of(reply: wire.Reply) -> int:
    """Which of the numbered answers this is."""
    assert (reply.rcode, len(reply.answer)) == ("NOERROR", 1), reply
    (record,) = reply.answer
    if record.rtype == wire.QTYPES["A"]:
        return (record.rdata[2] - 100) * 256 + record.rdata[3]
    if record.rtype == wire.QTYPES["AAAA"]:
        return int.from_bytes(record.rdata[-2:])
    return int(record.rdata[1:])


def soa(ttl: int = 300, minimum: int = 300, owner: str = "example") -> bytes:
    rdata = wire.name_to_wire("ns.upstream.example") * 2 + struct.pack("!5I", 7, 60, 60, 60, minimum)
    return wire.record(owner, "SOA", rdata, ttl=ttl)


def cname(owner: str | bytes, target: str, *, ttl: int = 300) -> bytes:
    return wire.record(owner, "CNAME", wire.name_to_wire(target), ttl=ttl)


def says(
    answer: Iterable[bytes] = (),
    authority: Iterable[bytes] = (),
    additional: Iterable[bytes] = (),
    **more: object,
) -> Script:
    """The same to everybody."""
    answer, authority, additional = list(answer), list(authority), list(additional)
    return lambda asked: asked.response(answer, authority, additional, **more)


def gives(address: str = "198.51.100.7", *, ttl: int = 300) -> Script:
    return says([wire.address_record(b"\xc0\x0c", address, ttl=ttl)])


def unusable(what: str) -> Script:
    """Responses that match the query but cannot be used. Health checks get a good response."""
    answers: dict[str, Callable[[Asked], bytes]] = {
        "truncated": lambda asked: asked.response([b"\xc0\x0c\0\1\0\1\0\0\1\x2c\0\x40abc"]),
        "two CNAMEs": lambda asked: asked.response(
            [cname(b"\xc0\x0c", "one.example"), cname(b"\xc0\x0c", "two.example")]
        ),
        # Also to a query without OPT, which nobody does.
        "BADVERS": lambda asked: asked.response(
            additional=[wire.opt(extended_rcode=1)] if asked.message.opt is None else [],
            edns=wire.opt(extended_rcode=1),
        ),
    }
    return lambda asked: decent(asked) if asked.is_health_check else answers[what](asked)


# ------- What clients see ------------------------------------------------------------------


def records(reply: wire.Reply) -> list[list[tuple[str, int, int, bytes]]]:
    """All records of the three sections, without TTLs and the case of owners."""
    return [
        [(record.owner.lower(), record.rtype, record.rclass, record.rdata) for record in section]
        for section in (reply.answer, reply.authority, reply.additional)
    ]


def all_ttls(reply: wire.Reply) -> list[int]:
    return [record.ttl for record in (*reply.answer, *reply.authority, *reply.additional)]


def is_stale(reply: wire.Reply) -> bool:
    """Said to be stale, and with the TTL that such an answer has; both or neither (RFC 8767 section 4)."""
    said = bool({STALE_ANSWER, STALE_NXDOMAIN} & set(reply.extended_errors))
    if said:
        assert set(all_ttls(reply)) == {STALE_TTL}, reply
    return said


@dataclass(frozen=True, slots=True)
class Timed:
    """A reply, and when it was asked for and read (monotonic)."""

    reply: wire.Reply
    sent_at: float
    got_at: float

    @property
    def seconds(self) -> float:
        return self.got_at - self.sent_at


def timed(resolver: Asking, name: str = NAME, qtype: str | int = "A", **flags: object) -> Timed:
    sent_at = time.monotonic()
    reply = resolver.query(name, qtype, **flags)
    return Timed(reply, sent_at, time.monotonic())


def assert_counted_down(original: int, ttl: int, first: Timed, later: Timed) -> None:
    """The TTL is the whole seconds that are left; a clock that ticks in seconds may be one of them ahead."""
    least, most = later.sent_at - first.got_at, later.got_at - first.sent_at
    assert original - int(most) - 1 <= ttl <= original - int(max(0.0, least)), (original, ttl, least, most)
    assert ttl >= 1


def again_and_again(ask: Callable[[], Timed], *, every: float = 0.01) -> Iterator[Timed]:
    """Until the test has seen enough; it must have within two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        yield ask()
        time.sleep(every)
    raise AssertionError("nothing has changed within two minutes")


def assert_lives(
    subject: Asking,
    upstream: StubUpstream,
    seconds: float,
    name: str = NAME,
    qtype: str | int = "A",
    **flags: object,
) -> None:
    """Queried again and again, the name is sent upstream again when its TTL is over, and not before."""
    before = upstream.count(name)
    first = timed(subject, name, qtype, **flags)
    assert upstream.count(name) == before + 1, "the first answer is fresh"
    for again in again_and_again(lambda: timed(subject, name, qtype, **flags)):
        if upstream.count(name) > before + 1:
            assert again.got_at >= first.sent_at + seconds - SLACK, "queried again before its TTL is over"
            return
        assert again.sent_at <= first.got_at + seconds + SLACK, "cached longer than its TTL"
        assert all(ttl >= 1 for ttl in all_ttls(again.reply)), "no TTL falls to 0 or goes around"


def assert_not_cached(
    subject: Asking, upstream: StubUpstream, name: str = NAME, qtype: str | int = "A", **flags: object
) -> None:
    for number in range(1, 4):
        subject.query(name, qtype, **flags)
        assert upstream.count(name, qtype) == number, "each is asked for"


def assert_cached(
    subject: Asking, upstream: StubUpstream, name: str = NAME, qtype: str | int = "A", **flags: object
) -> wire.Reply:
    """The upstream answers once, then the cache does without it; returns the cached response."""
    before = upstream.count(name)
    first = subject.query(name, qtype, **flags)
    again = subject.query(name, qtype, **flags)
    assert upstream.count(name) == before + 1, "asked once"
    assert (again.rcode, records(again)) == (first.rcode, records(first))
    return again
