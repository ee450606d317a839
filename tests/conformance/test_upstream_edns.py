"""An upstream that does not understand EDNS is queried without it (RFC 6891 section 7)."""

import pytest

from . import wire
from .harness import Subject, is_forwarded
from .tools import wait_for
from .upstreams import Asked, MakeUpstream, Script, StubUpstream, decent

WITHOUT = "dnsblock_upstream_without_edns"
SELDOM = {"interval_ms": 600_000, "timeout_ms": 1000}
LOGGED = "refuses EDNS"
FORMERR, NOTIMP = 1, 4


def refusing(how: str | int, script: Script = decent) -> Script:
    """Refuses each query with OPT: by FORMERR or NOTIMP without an OPT, or with one, or by BADVERS."""

    def answer(asked: Asked) -> bytes | None:
        if asked.message.opt is None:
            return script(asked)
        if how == "BADVERS":
            return asked.response(edns=wire.opt(extended_rcode=1))
        if how == "FORMERR with OPT":
            return asked.response(rcode=FORMERR)
        head = wire.QR | wire.RA | (asked.message.flags & wire.RD) | how
        return wire.message(asked.message.qid, head, [asked.message.question])

    return answer


def start(
    subject: Subject, *upstreams: StubUpstream, health_check: dict | None = SELDOM, **settings: object
) -> None:
    addresses = [one.address for one in upstreams]
    subject.start(upstreams=addresses, upstream={"health_check": health_check, **settings}, workers=1)


REFUSALS = pytest.mark.parametrize("how", [FORMERR, NOTIMP, "FORMERR with OPT", "BADVERS"])


@REFUSALS
@pytest.mark.parametrize("health_check", [SELDOM, None], ids=["checked", "not checked"])
def test_an_upstream_that_refuses_opt_is_queried_without(
    subject: Subject, make_upstream: MakeUpstream, how: str | int, health_check: dict | None
):
    """RFC 6891 section 7: retried without OPT and remembered; clients still get EDNS."""
    upstream = make_upstream(refusing(how), may_die=True)
    start(subject, upstream, health_check=health_check)
    for number in range(5):
        for edns in (False, True, wire.opt(do=True)):
            for transport in ("udp", "tcp"):
                reply = subject.query(f"n{number}.example", edns=edns, transport=transport)
                assert is_forwarded(reply)
                assert (reply.opt is not None) is bool(edns)
    refused = [asked for asked in upstream.queries if asked.message.opt is not None]
    assert len(refused) <= 1
    assert len(upstream.queries) == 30 + len(refused)
    assert subject.metrics().total(WITHOUT, upstream=upstream.address) == 1
    assert subject.metrics().total("dnsblock_upstream_up", upstream=upstream.address) == 1
    wait_for(lambda: LOGGED in subject.stderr(), "it is logged")
    assert subject.stderr().count(LOGGED) == 1


@REFUSALS
def test_refused_opt_is_omitted_over_tcp_too(subject: Subject, make_upstream: MakeUpstream, how: str | int):
    """RFC 6891 section 7: an upstream may answer over UDP, and refuse OPT over TCP."""

    def script(asked: Asked) -> bytes | None:
        cut = asked.response(flags=wire.RA | wire.TC)
        return cut if asked.transport == "udp" else refusing(how)(asked)

    upstream = make_upstream(script)
    start(subject, upstream)
    assert is_forwarded(subject.query("long.example"))
    over = [(asked.transport, asked.message.opt is not None) for asked in upstream.queries]
    assert over == [("udp", True), ("tcp", True), ("tcp", False)]
    assert is_forwarded(subject.query("again.example"))
    assert [asked.message.opt for asked in upstream.asked_for("again.example")] == [None, None]


def test_without_opt_a_long_response_comes_over_tcp(subject: Subject, make_upstream: MakeUpstream):
    """RFC 1035 section 4.2.1: 512 bytes over UDP."""
    texts = [wire.record(b"\xc0\x0c", "TXT", b"\xc8" + b"%03d" % number + b"x" * 197) for number in range(4)]

    def script(asked: Asked) -> bytes:
        return asked.response(flags=wire.RA | wire.TC) if asked.transport == "udp" else asked.response(texts)

    start(subject, make_upstream(refusing(FORMERR, script), may_die=True))
    reply = subject.query("long.example", "TXT", edns=wire.opt(4096), transport="tcp")
    assert len(reply.answer) == 4


@pytest.mark.parametrize("rcode", [FORMERR, NOTIMP])
def test_a_query_refused_with_and_without_opt_says_nothing_about_edns(
    subject: Subject, upstream: StubUpstream, rcode: int
):
    """RFC 6891 section 7: the upstream does not take the question; one more query, no memory."""
    upstream.script = lambda asked: asked.response(rcode=rcode) if "odd" in asked.name else decent(asked)
    start(subject, upstream)
    for number in range(3):
        name = f"odd{number}.example"
        assert subject.query(name).rcode == wire.RCODES[rcode]
        assert [asked.message.opt is not None for asked in upstream.asked_for(name)] == [True, False]
    assert is_forwarded(subject.query("even.example"))
    assert upstream.wait_for_query("even.example").message.opt is not None
    assert subject.metrics().total(WITHOUT, upstream=upstream.address) == 0
    assert LOGGED not in subject.stderr()


def test_a_client_cannot_make_an_upstream_lose_edns_for_others(subject: Subject, upstream: StubUpstream):
    """A flag of the client may be what an upstream refuses: its query goes without OPT, others with."""

    def script(asked: Asked) -> bytes:
        opt = asked.message.opt
        return asked.response(rcode=FORMERR) if opt is not None and opt.ttl & wire.DE else decent(asked)

    upstream.script = script
    start(subject, upstream)
    for number in range(3):
        assert is_forwarded(subject.query(f"de{number}.example", edns=wire.opt(flags=wire.DE)))
    assert is_forwarded(subject.query("plain.example", edns=wire.opt(do=True)))
    assert upstream.wait_for_query("plain.example").message.opt.ttl == wire.DO
    assert subject.metrics().total(WITHOUT, upstream=upstream.address) == 0


def test_edns_support_is_remembered_for_each_upstream(subject: Subject, make_upstream: MakeUpstream):
    """One of two refuses OPT: queries to the other keep it, and DNSSEC with it."""
    old, new = make_upstream(refusing(FORMERR), may_die=True), make_upstream()
    start(subject, old, new, selection="weighted")
    for number in range(40):
        assert is_forwarded(subject.query(f"n{number}.example", edns=wire.opt(do=True)))
    assert len(new.queries) > 0
    assert all(asked.message.opt.ttl == wire.DO for asked in new.queries)
    assert sum(asked.message.opt is not None for asked in old.queries) <= 1
    assert subject.metrics().total(WITHOUT, upstream=new.address) == 0


def test_health_checks_detect_missing_edns_support(subject: Subject, make_upstream: MakeUpstream):
    """A health check that is answered FORMERR is sent again without OPT: the upstream is healthy."""
    upstream = make_upstream(refusing(FORMERR), may_die=True)
    start(subject, upstream, health_check={"interval_ms": 50})
    wait_for(lambda: len(upstream.health_checks) >= 6, "six health checks")
    assert [asked.message.opt is not None for asked in upstream.health_checks[:6]] == [True] + [False] * 5
    assert subject.metrics().total("dnsblock_upstream_up", upstream=upstream.address) == 1
    assert is_forwarded(subject.query("free.example"))
    assert [asked.message.opt for asked in upstream.queries] == [None]
