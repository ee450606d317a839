"""Once half of `max_outstanding` is in use, one domain and one client may each have at most a quarter.

BIND's `fetches-per-zone` is the model. All upstream queries here stay unanswered until the test replies. Only
health checks are answered, or the silence would mean that the upstream is down.
"""

import pytest

from . import wire
from .asking import is_forwarded
from .harness import Subject
from .tools import wait_for
from .upstreams import StubUpstream, silent

MOST = 40
REFUSED = "dnsblock_outstanding_refused_total"
EXEMPT = {"exempt": ["127.0.0.0/8", "::1/128"]}
PATIENT = {"timeout_ms": 60_000, "tries": 1, "max_outstanding": MOST}


def start(subject: Subject, upstream: StubUpstream, **config: object) -> None:
    upstream.script = silent
    subject.start(upstreams=[upstream.address], upstream=PATIENT, workers=1, **config)


def outstanding(subject: Subject) -> float:
    return subject.metrics().total("dnsblock_outstanding_queries")


def ask(subject: Subject, names: list[str], source: str = "127.0.0.1") -> None:
    """Sends these, one after the other, and waits for nothing."""
    with subject.udp(source=source) as client:
        for name in names:
            client.send(wire.query(name))


def refused(subject: Subject, upstream: StubUpstream, name: str, source: str = "127.0.0.1") -> str | None:
    """Why this query is refused at once; None if it is sent to the upstream, which answers it."""
    with subject.udp(source=source) as client:
        client.send(wire.query(name, edns=True))
        asked = wire.question(name)
        reply = None

        def is_there() -> bool:
            nonlocal reply
            client.settimeout(0.05)
            try:
                reply = wire.read(client.recv(4096))
            except TimeoutError:
                for one in upstream.queries:
                    if one.message.question == asked:
                        one.reply(one.address())
            return reply is not None

        wait_for(is_there, f"{name} is answered")
        if is_forwarded(reply):
            return None
        assert (reply.rcode, list(reply.extended_errors)) == ("SERVFAIL", [0])
        return reply.extended_errors[0]


DOMAIN = "too many queries are outstanding for this domain"
CLIENT = "too many queries of this client are outstanding"


@pytest.mark.parametrize(
    ("attacked", "others"),
    [
        ("victim.com", ["other.com", "com", "notvictim.com"]),
        ("victim.co.id", ["other.co.id", "other.id"]),
        ("victim.any.ck", ["other.any.ck", "www.ck"]),
        ("victim.xn--p1ai", ["other.xn--p1ai"]),
    ],
)
def test_one_domain_has_at_most_a_quarter_of_max_outstanding(
    subject: Subject, upstream: StubUpstream, attacked: str, others: list[str]
):
    """A zone that does not answer has a quarter; the public suffix list says what one domain is."""
    start(subject, upstream, limits=EXEMPT)
    ask(subject, [f"r{number}.x{number}.{attacked}" for number in range(2 * MOST)])
    subject.wait_for_metric(REFUSED, 2 * MOST - MOST // 2, reason="domain")
    # Half of all may be used before anything is counted. The gauge follows at the end of a thread's turn.
    wait_for(lambda: outstanding(subject) == MOST // 2, "half of all places are used")
    assert refused(subject, upstream, f"one.more.{attacked}") == DOMAIN
    assert refused(subject, upstream, attacked.upper()) == DOMAIN
    for name in others:
        assert refused(subject, upstream, f"www.{name}") is None
    assert subject.metrics().total(REFUSED, reason="client") == 0


def test_one_client_has_at_most_a_quarter_of_max_outstanding(subject: Subject, upstream: StubUpstream):
    """One client with many names of many domains has a quarter; another is served."""
    start(subject, upstream, limits={"exempt": []})
    ask(subject, [f"www.n{number}.com" for number in range(2 * MOST)], "127.0.0.2")
    subject.wait_for_metric(REFUSED, 2 * MOST - MOST // 2, reason="client")
    assert refused(subject, upstream, "www.more.com", "127.0.0.2") == CLIENT
    assert refused(subject, upstream, "www.more.com", "127.0.0.3") is None
    assert subject.metrics().total(REFUSED, reason="domain") == 0


def test_an_exempt_client_has_no_share(subject: Subject, upstream: StubUpstream):
    """A load balancer in front is one client: `limits.exempt` names it."""
    start(subject, upstream, limits=EXEMPT)
    ask(subject, [f"www.n{number}.com" for number in range(MOST)])
    wait_for(lambda: outstanding(subject) == MOST, "all places are used")
    subject.query("www.over.com")
    assert subject.metrics().total(REFUSED, reason="full") == 1
    assert subject.metrics().total(REFUSED, reason="client") == 0


def test_below_half_of_max_outstanding_there_are_no_shares(subject: Subject, upstream: StubUpstream):
    """Answered queries make room: below half, one domain may use all of it."""
    start(subject, upstream, limits=EXEMPT)
    for wave in range(3):
        before = subject.metrics().total(REFUSED)
        ask(subject, [f"w{wave}n{number}.victim.com" for number in range(MOST // 2)])
        upstream.wait_until(lambda seen, wave=wave: len(seen) >= (wave + 1) * (MOST // 2))
        assert subject.metrics().total(REFUSED) == before
        assert refused(subject, upstream, f"w{wave}.victim.com") == DOMAIN
        for asked in upstream.queries:
            asked.reply(asked.address())
        wait_for(lambda: outstanding(subject) == 0, "all are answered")
