"""The client of probes: random IDs and ports, checked responses, retries, TC, limits and timeouts."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from typing import TypeVar

import pytest
from conformance import wire
from conformance.tools import wait_for
from conformance.upstreams import Asked, Script, StubUpstream, decent
from ports import free_port

from dnsblock.probe.messages import ExtendedError, NotAReply, Question, Record, Reply, query, read
from dnsblock.probe.queries import Client, Limits, Result, Server, ServerQueries
from dnsblock.values import Endpoint

T = TypeVar("T")

QUESTION = Question("one.example", "A")
ADDRESS = Record("one.example", "A", "198.51.100.7")
PATIENT = Limits(timeout_s=45)
HASTY = Limits(timeout_s=0.2, tries=3)  # for servers that never respond


@pytest.fixture
def make_server() -> Iterator[Callable[..., StubUpstream]]:
    """Makes scripted servers."""
    with ExitStack() as stack:
        yield lambda script, **options: stack.enter_context(closing(StubUpstream(script, **options)))


MakeServer = Callable[..., StubUpstream]


def at(stub: StubUpstream) -> Server:
    return Server(Endpoint.parse(stub.address))


def use(server: Server, limits: Limits, work: Callable[[ServerQueries], Awaitable[T]]) -> T:
    async def run() -> T:
        async with Client(limits) as client:
            return await work(client.server(server))

    return asyncio.run(run())


def ask(stub: StubUpstream, transport: str = "udp", limits: Limits = PATIENT, **options: bool) -> Result:
    return use(at(stub), limits, lambda server: server.ask(QUESTION, transport, **options))


def many(stub: StubUpstream, transport: str, count: int, limits: Limits = PATIENT) -> list[Result]:
    """The results of this many queries at once."""

    async def all_of(server: ServerQueries) -> list[Result]:
        questions = [Question(f"n{number}.example", "A") for number in range(count)]
        return list(await asyncio.gather(*(server.ask(question, transport) for question in questions)))

    return use(at(stub), limits, all_of)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_query_is_answered_over_both_transports_and_families(
    make_server: MakeServer, host: str, transport: str
):
    """RD is set, and an OPT record asks for extended errors."""
    stub = make_server(decent, host=host)
    result = ask(stub, transport)
    assert result.reply == Reply("NOERROR", is_truncated=False, answer=(ADDRESS,))
    assert result.milliseconds > 0
    [asked] = stub.queries
    assert (asked.transport, asked.message.flags, asked.message.opt is not None) == (transport, wire.RD, True)


def test_ids_and_ports_are_random(make_server: MakeServer):
    """RFC 5452 section 9.2: a forged response has to guess both."""
    stub = make_server(decent)
    assert all(result.reply for result in many(stub, "udp", 500))
    ports = Counter(asked.source[1] for asked in stub.queries)
    assert len(ports) > 8
    assert max(ports.values()) <= 250  # a socket is replaced
    numbers = [asked.message.qid for asked in stub.queries]
    assert len(set(numbers)) > 400
    assert max(numbers) - min(numbers) > 30_000


def wrong(asked: Asked) -> Iterator[bytes]:
    """Everything that is no response to the query, and then the response."""
    yield b""
    yield decent(asked)[:11]
    yield asked.data  # QR is not set
    yield asked.address("192.0.2.1", qid=asked.message.qid ^ 1)
    yield asked.address("192.0.2.2", question=wire.question("two.example"))
    yield asked.address("192.0.2.3", question=wire.question("one.example", "AAAA"))
    yield asked.address("192.0.2.4", question=wire.question("one.example", "A", 3))
    yield asked.response([wire.address_record(b"\xc0\xff", "192.0.2.5")])  # a pointer ahead
    yield asked.response([wire.record(b"\xc0\x0c", "A", b"\x01")])
    yield asked.response([], question=b"")
    yield decent(asked)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_only_the_response_to_the_query_is_believed(make_server: MakeServer, transport: str):
    """RFC 5452 section 9.1: ID, question and QR."""
    assert ask(make_server(wrong), transport).reply.answer == (ADDRESS,)


def test_the_case_of_the_question_does_not_matter(make_server: MakeServer):
    """RFC 4343."""
    stub = make_server(lambda asked: asked.address(question=wire.question("ONE.exAmple")))
    assert ask(stub).reply.answer == (ADDRESS,)


def test_a_lost_response_is_asked_for_again(make_server: MakeServer):
    """With another ID, and perhaps from another port."""
    seen: list[Asked] = []

    def losing(asked: Asked) -> bytes | None:
        seen.append(asked)
        return decent(asked) if len(seen) > 2 else None

    assert ask(make_server(losing), limits=Limits(timeout_s=1, tries=45)).reply is not None
    assert len({asked.message.qid for asked in seen}) > 2


def test_a_truncated_response_is_followed_over_tcp(make_server: MakeServer):
    """RFC 7766; where a truncated one is expected it is the result."""

    def truncating(asked: Asked) -> bytes:
        return asked.response(flags=wire.RA | wire.TC) if asked.transport == "udp" else decent(asked)

    stub = make_server(truncating)
    assert ask(stub).reply.answer == (ADDRESS,)
    assert [asked.transport for asked in stub.queries] == ["udp", "tcp"]
    reply = ask(stub, follows_truncation=False).reply
    assert (reply.is_truncated, reply.answer) == (True, ())


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_outstanding_queries_are_limited(make_server: MakeServer, transport: str):
    """A probe must not harm the server that it probes."""
    waiting: list[Asked] = []
    most = 0
    changed = threading.Condition()

    def holding(asked: Asked) -> None:
        nonlocal most
        with changed:
            waiting.append(asked)
            most = max(most, len(waiting))
            changed.notify()

    def release() -> None:
        for _ in range(100):
            with changed:
                assert changed.wait_for(lambda: waiting, 45)
                asked = waiting.pop(0)
            asked.reply(decent(asked))

    stub = make_server(holding)
    releasing = threading.Thread(target=release)
    releasing.start()
    results = many(stub, transport, 100, Limits(outstanding=7, timeout_s=45))
    releasing.join()
    assert all(result.reply for result in results)
    assert most <= 7


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_server_that_never_responds_is_asked_no_more(make_server: MakeServer, transport: str):
    """After the tries of one query, and of a control query, all others have the same result at once."""
    stub = make_server(lambda _: None, may_die=True)
    results = many(stub, transport, 200, Limits(outstanding=10, timeout_s=0.2, tries=3))
    assert {result.reply for result in results} == {None}
    assert {result.failure for result in results} == {"no response within 0.2 s, 3 tries"}
    wait_for(lambda: len(stub.health_checks) >= 3, "the server has read the control query and its retries")
    assert len(stub.queries) <= 10 * 3
    assert len(stub.health_checks) == 3


def test_a_name_without_response_does_not_condemn_the_server(make_server: MakeServer):
    """Only a control query without response does."""
    stub = make_server(lambda asked: None if asked.name == "n7.example" else decent(asked))
    results = many(stub, "udp", 20, Limits(timeout_s=0.25, tries=20))
    assert [number for number, result in enumerate(results) if result.reply is None] == [7]


def test_expected_silence_takes_one_try(make_server: MakeServer):
    """The answer `drop`: a second try would prove nothing more."""
    stub = make_server(lambda _: None)
    result = ask(stub, limits=HASTY, expects_silence=True)
    assert (result.reply, result.failure) == (None, "no response")
    stub.wait_until(bool)
    assert (len(stub.queries), len(stub.health_checks)) == (1, 0)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_closed_port_is_reported_as_such(transport: str):
    """ICMP port unreachable, or a reset: no reason to wait for the timeout."""
    server = Server(Endpoint.parse(f"127.0.0.1:{free_port()}"))
    result = use(server, PATIENT, lambda queries: queries.ask(QUESTION, transport))
    assert (result.reply, result.failure) == (None, "connection refused")


def closing_after(count: int) -> Script:
    """A server that ends each connection after some responses."""
    answered: Counter[tuple[str, int]] = Counter()

    def script(asked: Asked) -> Iterator[bytes]:
        answered[asked.source] += 1
        if answered[asked.source] <= count:
            yield decent(asked)
        if answered[asked.source] == count:
            asked.hang_up()

    return script


@pytest.mark.parametrize("count", [1, 5])
def test_a_server_may_close_a_connection_after_any_response(make_server: MakeServer, count: int):
    """RFC 7766 section 6.2.3: outstanding queries go to another connection."""
    assert all(result.reply for result in many(make_server(closing_after(count)), "tcp", 40))


def test_a_server_that_closes_every_connection_is_given_up(make_server: MakeServer):
    """Within the time of the tries."""

    def script(asked: Asked) -> None:
        asked.hang_up()

    result = ask(make_server(script, may_die=True), "tcp", Limits(timeout_s=2, tries=2))
    assert (result.reply, result.failure) == (None, "the server closed the connection")


def test_queries_over_tcp_share_few_connections(make_server: MakeServer):
    """Pipelining, RFC 7766 section 6.2.1.1."""
    stub = make_server(decent)
    assert all(result.reply for result in many(stub, "tcp", 300))
    assert len({asked.source for asked in stub.queries}) <= 4


def test_the_rate_of_queries_is_limited(make_server: MakeServer):
    """Twenty queries at ten per second take about two seconds, however fast the server is."""
    stub = make_server(decent)
    loop_times: list[float] = []

    async def timed(server: ServerQueries) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(server.ask(QUESTION, "udp") for _ in range(20)))
        loop_times.append(loop.time() - began)

    use(at(stub), Limits(per_second=10, timeout_s=45), timed)
    assert loop_times[0] > 1.8


def test_own_listeners_are_queried_from_a_loopback_address(make_server: MakeServer):
    """The default access control list allows these, whatever the listen address is."""
    for host in ("127.0.0.1", "::1"):
        stub = make_server(decent, host=host)
        wildcard = "0.0.0.0" if host == "127.0.0.1" else "[::]"
        server = Server.own(f"{wildcard}:{stub.port}")
        assert str(server) == stub.address
        for transport in ("udp", "tcp"):
            assert use(server, PATIENT, lambda queries, over=transport: queries.ask(QUESTION, over)).reply
        assert {asked.source[0] for asked in stub.queries} == {host}


# ------- Messages -------


def response(*answer: bytes, **fields: object) -> bytes:
    asked = wire.read(query(QUESTION, 7))
    return Asked(query(QUESTION, 7), "udp", ("", 0), asked, lambda _: None).response(answer, **fields)


def test_a_response_is_read_with_its_extended_errors():
    """RFC 8914; the text is shown to a person, so its length is limited."""
    options = wire.option(15, b"\0\x04") + wire.option(10, b"x" * 8) + wire.option(15, b"\0\x10" + b"a" * 500)
    reply = read(response(edns=wire.opt(options=options, extended_rcode=1)), QUESTION)
    assert reply.errors == (ExtendedError(4, ""), ExtendedError(16, "a" * 200))
    assert reply.rcode == "BADVERS"


def test_a_malformed_option_is_no_extended_error():
    """RFC 8914 section 2: the INFO-CODE has two bytes."""
    for option in (b"\0\x0f\0\x01\0", b"\0\x0f\0\x09\0\x10text", b"\0\x0f\0"):
        assert read(response(edns=wire.opt(options=option)), QUESTION).errors == ()


def test_records_of_any_type_are_read():
    """RDATA that no library knows makes no response unreadable."""
    https = wire.record(b"\xc0\x0c", "HTTPS", b"\0\1\0\0\xff\0\1x")
    cname = wire.record("One.example", "CNAME", b"\3www\xc0\x0c")
    unknown = wire.record(b"\xc0\x0c", 65280, b"\xff" * 40)
    six = wire.address_record("www.ONE.example", "2001:db8::1")
    reply = read(response(https, cname, unknown, six, wire.record(b"\xc0\x0c", "TXT", b"")), QUESTION)
    assert reply.answer == (
        Record("one.example", "HTTPS", ""),
        Record("one.example", "CNAME", "www.one.example"),
        Record("one.example", "65280", ""),
        Record("www.one.example", "AAAA", "2001:db8::1"),
        Record("one.example", "TXT", ""),
    )


@pytest.mark.parametrize("length", range(12, 60, 3))
def test_a_response_that_is_cut_anywhere_is_refused(length: int):
    """It proves nothing."""
    whole = response(wire.address_record(b"\xc0\x0c", "192.0.2.1"))
    with pytest.raises(NotAReply):
        read(whole[: min(length, len(whole) - 1)], QUESTION)


def test_a_response_with_very_many_records_is_refused():
    """A hostile server must not keep the daemon busy."""
    record = wire.address_record(b"\xc0\x0c", "192.0.2.1")
    with pytest.raises(NotAReply, match="more than 500 records"):
        read(response(*[record] * 501), QUESTION)
    assert len(read(response(*[record] * 499), QUESTION).answer) == 499
