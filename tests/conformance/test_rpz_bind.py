"""Policy zones from RPZ files decide as in BIND: random zones, and the same queries to both (trap 19).

BIND's settings let differences come from the policy alone: it forwards everything to the same upstream,
validates nothing, and does not wait for the upstream where a name decides.
"""

import itertools
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from dnslib import QTYPE, DNSRecord
from ports import free_port

from . import wire
from .asking import TIMEOUT, Asking
from .clients import Stream
from .harness import Subject
from .peers import BindPeer
from .primaries import PRIMARIES
from .rpz_zones import CLIENTS, PROFILES, WITNESS, WITNESSED, Ask, Generation
from .tools import wait_for
from .upstreams import MakeUpstream, StubUpstream

SEEDS = range(80)
TOGETHER = 40  # queries that are outstanding at once
HINFO = "HINFO \\# 9 075246433834383200"  # "RFC8482", as dnslib writes it
RULES = {"CLIENT-IP", "QNAME", "IP"}
ACTIONS = {"NXDOMAIN", "NODATA", "PASSTHRU", "DROP", "TCP-ONLY", "Local-Data", "CNAME"}
REWRITE = re.compile(r"rpz (CLIENT-IP|QNAME|IP) (\S+) rewrite ")
REWRITTEN_ANY = re.compile(
    r" (\S+)#[0-9]+ \S+: rpz (?:CLIENT-IP|QNAME) (?!PASSTHRU)\S+ rewrite (\S+)/ANY/IN "
)


# ------- BIND ------------------------------------------------------------------------


class RpzBind(BindPeer):
    """BIND with several policy zones."""

    timeout = TIMEOUT
    generation: Generation

    def start_with(self, generation: Generation, upstream: StubUpstream) -> None:
        """Returns when every zone is in force."""
        self.generation = generation
        for zone in generation.zones:
            (self.folder / zone.file).write_text(zone.text(), encoding="ascii")
        for _ in range(5):  # another program may take the port between looking and binding
            port = free_port()
            with self.log_path.open("wb") as log:
                self._process = subprocess.Popen(
                    self.command(port, upstream.address), stdout=log, stderr=log, cwd=self.folder
                )
            self.ports = {4: port, 6: port}
            wait_for(lambda: self._process.poll() is not None or self.is_in_force(), "BIND has the zones")
            if self._process.poll() is None:
                return
        pytest.fail(f"BIND does not start: {self.log()}")

    def is_in_force(self) -> bool:
        """Whether it has loaded all zones, and listens. A zone that it refuses is for `complaints`."""
        log = self.log()
        if "not loaded" in log:
            return True
        loaded = set(re.findall(r"rpz: (\S+): reload done", log))
        return " running" in log and loaded >= {zone.origin for zone in self.generation.zones}

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def complaints(self) -> list[str]:
        """The lines of its log about records that it does not accept."""
        found = re.compile(r"invalid rpz|not the canonical|not loaded|out-of-zone|\.zone:[0-9]+: (?!TTL set)")
        return [line for line in self.log().splitlines() if found.search(line)]

    def rewritten_any(self) -> set[tuple[str, str]]:
        """The clients and names of ANY queries that it does not send to the upstream, because of them."""
        return set(REWRITTEN_ANY.findall(self.log()))

    def command(self, port: int, upstream: str) -> list[str]:
        command = super().command(port, upstream)
        zones = self.generation.zones
        policy = "\n".join(zone.of_bind() for zone in zones)
        options = """qname-wait-recurse no break-dnssec yes recursive-only no
    nsip-enable no nsdname-enable no min-update-interval 0"""
        files = "\n".join(
            f'zone "{zone.origin}" {{ type primary; file "{zone.file}"; check-names ignore; notify no; }};'
            for zone in zones
        )
        (self.folder / "named.conf").write_text(
            f"""
options {{
  directory "{self.folder}";
  pid-file none;
  session-keyfile none;
  lock-file none;
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 port {port} {{ ::1; }};
  allow-query {{ any; }};
  allow-recursion {{ any; }};
  forward only;
  forwarders {{ 127.0.0.1 port {upstream.split(":")[1]}; }};
  dnssec-validation no;
  empty-zones-enable no;
  minimal-any no;
  minimal-responses yes;
  prefetch 0;
  send-cookie no;
  tcp-listen-queue 200;
  {f"response-policy {{ {policy} }} {options};" if zones else ""}
}};
controls {{ }};
{files}
""",
            encoding="ascii",
        )
        return command


# ------- Questions and answers -----------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """A response as a client sees it; TTLs and the order of records do not count.

    Nor does the RCODE of a truncated response without records: in BIND, it is that of the upstream if the
    cache has a response.
    """

    rcode: str
    truncated: bool = False
    records: tuple[str, ...] = ()

    @classmethod
    def of(cls, raw: bytes) -> "Outcome":
        reply = wire.read(raw)
        records = [
            f"{str(one.rname).lower()} {QTYPE.get(one.rtype)} {one.rdata}" for one in DNSRecord.parse(raw).rr
        ]
        rcode = "ask over TCP" if reply.truncated and not records else reply.rcode
        return cls(rcode, reply.truncated, tuple(sorted(records)))


SILENCE = Outcome("no response")


class Dialog:
    """Asks one resolver many questions, and knows when it does not answer one."""

    def __init__(self, resolver: Asking, stack: ExitStack) -> None:
        self.resolver = resolver
        self.stack = stack
        self._witness = stack.enter_context(resolver.udp(source=WITNESS))
        self._numbers = itertools.count()

    def outcomes(self, asks: Iterable[Ask]) -> dict[Ask, Outcome]:
        """The outcome of each query. Without a response it is sent a second time: the first may be lost."""
        asks = list(asks)
        found: dict[Ask, Outcome] = {}
        for _ in range(2):
            missing = [ask for ask in asks if ask not in found]
            for at in range(0, len(missing), TOGETHER):
                found |= self._together(missing[at : at + TOGETHER])
        return {ask: found.get(ask, SILENCE) for ask in asks}

    def _together(self, asks: list[Ask]) -> dict[Ask, Outcome]:
        """The responses to these queries, each on a socket of its own."""
        found = {}
        with ExitStack() as stack:
            sent = [(ask, self._send(ask, stack)) for ask in asks]
            self._pass_time()
            for ask, receive in sent:
                raw = receive()
                if raw is not None:
                    assert raw[12:].startswith(wire.question(ask.name, ask.qtype)), (ask, raw.hex())
                    found[ask] = Outcome.of(raw)
        return found

    def _send(self, ask: Ask, stack: ExitStack) -> Callable[[], bytes | None]:
        """Returns how the response is read, which is there already or never comes."""
        query = wire.query(ask.name, ask.qtype, edns=True)
        if ask.transport == "tcp":
            stream: Stream = stack.enter_context(self.resolver.tcp(ask.family, ask.client))
            stream.send(query)
            stream.sock.settimeout(0.005)
            return stream.receive
        sock = stack.enter_context(self.resolver.udp(ask.family, ask.client))
        sock.send(query)
        sock.setblocking(False)

        def receive() -> bytes | None:
            try:
                return sock.recv(65535)
            except BlockingIOError:
                return None

        return receive

    def _pass_time(self) -> None:
        """Queries of a client that no trigger covers, one after another.

        Both resolvers have one worker thread, and the upstream has one. So what was sent before is
        decided when these are answered: each of them takes more queries to the upstream.
        """
        for _ in range(4):
            query = wire.query(f"n{next(self._numbers)}.{WITNESSED}", "TXT")
            self._witness.send(query)
            try:
                while self._witness.recv(65535)[:2] != query[:2]:
                    pass
            except TimeoutError:
                pytest.fail(f"no response in {TIMEOUT} s to a client and a name without any policy")


# ------- Accepted differences --------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """`concerns` gets the query, what BIND and dnsblock answer, and the ANY queries that BIND rewrote."""

    reason: str
    concerns: Callable[[Ask, Outcome, Outcome, set[tuple[str, str]]], bool]


def is_short_any(ask: Ask, _theirs: Outcome, ours: Outcome, rewritten: set[tuple[str, str]]) -> bool:
    """Whether dnsblock answers ANY over UDP without the upstream, and BIND asks it."""
    is_short = (ask.qtype, ask.transport) == ("ANY", "udp") and ours.records == (f"{ask.name}. {HINFO}",)
    return is_short and (ask.client, ask.name) not in rewritten


def is_cname_alone(ask: Ask, theirs: Outcome, ours: Outcome, _rewritten: set[tuple[str, str]]) -> bool:
    """Whether dnsblock answers with its own CNAME, and BIND goes on to its target."""
    own = [one for one in ours.records if " CNAME " in one]
    return ask.qtype in ("ANY", "CNAME") and len(own) > 0 and set(ours.records) <= set(theirs.records)


ACCEPTED = (
    Difference(
        "For CNAME or ANY, the CNAME of a policy is the whole answer (RFC 1034 section 3.6.2). BIND goes on "
        "if the target is a wildcard or that of an override.",
        is_cname_alone,
    ),
    Difference(
        "ANY over UDP is answered with HINFO where no name or client decides (RFC 8482 section 4.2). The "
        "upstream is not asked, so no address decides either.",
        is_short_any,
    ),
)


def differences(asks: Iterable[Ask], subject: Subject, bind: RpzBind) -> dict[Ask, tuple[Outcome, Outcome]]:
    """The queries that the two answer differently, without those that are accepted."""
    asks = list(asks)
    with ExitStack() as stack:
        theirs, ours = (Dialog(one, stack).outcomes(asks) for one in (bind, subject))
    rewritten = bind.rewritten_any()
    return {
        ask: (theirs[ask], ours[ask])
        for ask in theirs
        if theirs[ask] != ours[ask]
        and not any(one.concerns(ask, theirs[ask], ours[ask], rewritten) for one in ACCEPTED)
    }


def as_text(found: dict[Ask, tuple[Outcome, Outcome]], generation: Generation) -> str:
    """A report with all that is needed to find the reason."""
    lines = [f"{ask}\n  BIND     {theirs}\n  dnsblock {ours}" for ask, (theirs, ours) in found.items()]
    zones = [f"--- {zone.of_bind()}\n{zone.text()}" for zone in generation.zones]
    return "\n".join([f"{len(found)} differences", *lines[:40], *zones, str(generation.table)])


# ------- The tests ---------------------------------------------------------------------


@pytest.fixture
def bind(tmp_path: Path) -> Iterator[RpzBind]:
    folder = tmp_path / "bind"
    folder.mkdir()
    with closing(RpzBind(folder)) as peer:
        yield peer


ORIGINS = ("file", "bind", "file", "knot")  # of dnsblock's zones, by the seed


@contextmanager
def primaries(origin: str, generation: Generation, folder: Path) -> Iterator[list[str | None]]:
    """The primary of each zone; None: it is read from its file.

    The BIND that is compared is none of them: its policy rewrites SOA queries, too.
    """
    with ExitStack() as stack:
        found: list[str | None] = []
        for zone in generation.zones:
            if origin == "file":
                found.append(None)
                continue
            (own := folder / zone.origin).mkdir()
            primary = stack.enter_context(PRIMARIES[origin](own))
            primary.zone_name = zone.origin
            primary.start(f"{owner} {one}" for owner, records in zone.entries.items() for one in records)
            found.append(primary.address)
        yield found


def compare(
    generation: Generation,
    subject: Subject,
    bind: RpzBind,
    upstream: StubUpstream,
    origin: str = "file",
) -> None:
    """Asks both the same, and fails with what differs. `origin`: that of dnsblock's zones."""
    upstream.script = generation.table.answer
    bind.start_with(generation, upstream)
    assert bind.complaints() == []
    with primaries(origin, generation, bind.folder) as found:
        start(subject, generation, upstream, found)
    compare_answers(generation, subject, bind, upstream)


def start(
    subject: Subject, generation: Generation, upstream: StubUpstream, found: Iterable[str | None]
) -> None:
    subject.start(
        zones=[zone.of_dnsblock(primary) for zone, primary in zip(generation.zones, found, strict=True)],
        lists={zone.file: zone.text() for zone in generation.zones},
        answers=PROFILES,
        upstreams=[upstream.address],
        inbox=None,
        workers=1,
    )


def compare_answers(generation: Generation, subject: Subject, bind: RpzBind, upstream: StubUpstream) -> None:
    found = differences(generation.asks, subject, bind)
    for _ in range(3):
        if not found:
            return
        # A response of the upstream that is lost delays BIND by a second, and its cache changes ANY.
        bind.close()
        bind.start_with(generation, upstream)
        found = differences(found, subject, bind)
    pytest.fail(as_text(found, generation), pytrace=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_policy_zones_decide_as_in_bind(
    subject: Subject, bind: RpzBind, upstream: StubUpstream, seed: int
):
    """draft-vixie-dnsop-dns-rpz sections 3 to 5, as BIND implements it: every trigger, action and order.

    Also if the zones come by zone transfer, from BIND or from Knot DNS.
    """
    compare(Generation(seed), subject, bind, upstream, ORIGINS[seed % len(ORIGINS)])


def test_without_a_policy_zone_both_answer_the_same(subject: Subject, bind: RpzBind, upstream: StubUpstream):
    """Differences in the other tests come from the policy: both forward alike."""
    generation = Generation(0)
    generation.zones.clear()
    compare(generation, subject, bind, upstream)


def test_the_random_zones_have_every_trigger_with_every_action(make_upstream: MakeUpstream, tmp_path: Path):
    """A comparison of what never occurs would promise nothing: BIND logs what decides."""
    missing = set(itertools.product(RULES, ACTIONS))
    for seed in SEEDS:
        if not missing:
            break
        folder = tmp_path / str(seed)
        folder.mkdir()
        generation = Generation(seed)
        with ExitStack() as stack:
            upstream = make_upstream(generation.table.answer)
            peer = stack.enter_context(closing(RpzBind(folder)))
            peer.start_with(generation, upstream)
            asks = [ask for ask in generation.asks if ask.qtype in ("A", "TXT") or ask.client != CLIENTS[0]]
            Dialog(peer, stack).outcomes(asks)
            missing -= set(REWRITE.findall(peer.log()))
            upstream.close()
    assert missing == set()
