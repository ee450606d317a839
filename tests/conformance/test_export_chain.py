"""An order reaches other resolvers, dnsblock among them: dnsblock, a file, Knot DNS, zone transfer.

docs/export.md describes this setup.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from . import policy, wire
from .comparing import Answer, Question, answers, questions
from .harness import Subject, assert_silent, is_forwarded, is_sinkholed
from .knots import CATALOG, KEY, SECONDARIES, SECRET, Primary, Secondary, documented, secondary
from .orders import block, exempt, unblock
from .primaries import Key
from .test_export import answer, asked_names
from .tools import run, tool, wait_for
from .transfers import put_secret, serial_in_force
from .upstreams import StubUpstream

NEW = "new.example"
LISTED = 2000  # names of a list, beside the portable policy


class Chain:
    """The dnsblock that has the orders, Knot DNS with its export, and the secondaries of that."""

    def __init__(self, origin: Subject, primary: Primary, exported: Path) -> None:
        self.origin, self.primary, self._exported = origin, primary, exported
        self.secondaries: list[Secondary] = []

    def carries_out(self, *orders: dict) -> None:
        """Returns when Knot DNS serves the zone with these orders."""
        before = self.primary.serial()
        for order in orders:
            self.origin.put_order(order)
        self.origin.reload()
        wait_for(lambda: serial_of(self._exported) > before, "the file has changed")
        self.primary.reload_zone()
        wait_for(lambda: self.primary.serial() > before, "Knot DNS has read it")


@contextmanager
def chain(
    origin: Subject, upstream: StubUpstream, folder: Path, kinds: Iterable[str], **options: object
) -> Iterator[Chain]:
    """The portable policy and other `options` of the origin, enforced by secondaries of these kinds."""
    exported, own = origin.folder / "policy.zone", folder / "knot"
    own.mkdir()
    options = policy.configuration(upstream.address) | options
    origin.start(**options, exports=[{"file": str(exported), "origin": policy.ZONE}])
    wait_for(exported.exists, "the file")
    with ExitStack() as running:
        primary = running.enter_context(closing(Primary(own, exported)))
        wait_for(lambda: primary.serial() > 0, "Knot DNS has the zone")
        made = Chain(origin, primary, exported)
        for kind in kinds:
            made.secondaries.append(running.enter_context(closing(secondary(kind, folder, primary))))
            made.secondaries[-1].start(upstream.address)
        primary.notifies(made.secondaries)
        yield made


def test_an_order_and_its_end_reach_every_secondary(subject: Subject, upstream: StubUpstream, tmp_path: Path):
    """By IXFR: with TSIG to BIND, PowerDNS Recursor and dnsblock, by its address to Unbound."""
    with chain(subject, upstream, tmp_path, SECONDARIES) as made:

        def carries_out(order: dict, matches: Callable[[wire.Reply], bool]) -> None:
            made.carries_out(order)
            for one in made.secondaries:
                wait_for(partial(does, one, matches), f"{one.program}: {NEW}: {matches.__name__}")
            assert matches(subject.query(NEW))
            assert differences(made.secondaries) == {}

        carries_out(block("B-2", [NEW]), is_sinkholed)
        carries_out(unblock("U-2", "B-2"), is_forwarded)
        assert made.primary.log().count("IXFR, outgoing") >= 2 * len(made.secondaries)
        assert "AXFR-style IXFR" not in made.primary.log()


def differences(resolvers: Iterable[Secondary]) -> dict[Question, dict[str, tuple]]:
    """The queries that the resolvers do not all answer alike: names of the policy, and NEW."""
    found = {}
    for asked in questions([NEW, f"x.{NEW}", *asked_names()], "A", "AAAA", "TXT"):
        if not is_dropped(asked[0]):
            given = {one.program: answer(one, *asked) for one in resolvers}
            if len(set(map(str, given.values()))) > 1:
                found[asked] = given
    return found


def test_a_secondary_blocks_exactly_the_names_of_the_origin(
    subject: Subject, upstream: StubUpstream, tmp_path: Path
):
    """Name by name: entries of orders and a list, exemptions, names above, below and beside them."""
    chance = random.Random(2017)
    listed, ordered = random_names(chance, LISTED), random_names(chance, 200)
    exempted = [f"ok.{name}" for name in chance.sample(sorted(ordered), 100)]
    names = {*asked_names(), *around([*listed, *ordered, *exempted])}
    asked = questions(sorted(name for name in names if not is_dropped(name)), "A")
    zones = policy.configuration(upstream.address)["zones"]
    options = {
        "zones": [*zones, {"name": "listed", "list": "listed.txt", "answer": "nxdomain"}],
        "lists": {"pages.txt": [policy.PAGES], "listed.txt": sorted(listed)},
    }
    with chain(subject, upstream, tmp_path, ["dnsblock"], **options) as made:
        (copy,) = made.secondaries
        assert_silent(copy, wire.query(policy.DROPPED), ask=policy.SINKHOLED)
        before = same_names(made, asked)
        assert before > listed
        made.carries_out(block("B-2", sorted(ordered)), exempt("E-2", exempted))
        wait_for(lambda: serial_in_force(copy, policy.ZONE) == made.primary.serial(), "the order is in force")
        blocked = same_names(made, asked)
        assert blocked > ordered
        assert not blocked.issuperset(exempted)
        made.carries_out(unblock("U-2", "B-2"))
        wait_for(lambda: serial_in_force(copy, policy.ZONE) == made.primary.serial(), "it is lifted")
        assert same_names(made, asked) == before


def random_names(chance: random.Random, count: int) -> set[str]:
    """Names of one to four labels below two domains, so that many are below others."""
    found: set[str] = set()
    while len(found) < count:
        labels = [f"n{chance.randrange(9)}" for _ in range(chance.randint(0, 3))]
        found.add(".".join([*labels, f"d{chance.randrange(count)}", chance.choice(("com", "example"))]))
    return found


def around(names: Iterable[str]) -> set[str]:
    """These names, the names directly above and below them, and names beside them."""
    found: set[str] = set()
    for name in names:
        above = name.partition(".")[2]
        found |= {name, above, f"x.{name}", f"y.x.{name}", f"x.{above}", f"x{name}"}
    return found


def same_names(made: Chain, asked: list[Question]) -> set[str]:
    """The names that the origin blocks, which must be those that the secondary blocks."""

    def blocked(resolver: Subject) -> set[str]:
        return {name for (name, _), one in answers(resolver, asked).items() if data(one) != free}

    def data(one: Answer) -> tuple:
        return one[0], one[1], [rdata for _, _, rdata in one[2]]

    free = data(answers(made.origin, questions([policy.free()], "A")).popitem()[1])
    ours, theirs = (blocked(one) for one in (made.origin, *made.secondaries))
    assert ours ^ theirs == set()
    return ours


def is_dropped(name: str) -> bool:
    """Whether there is no response, and the time until that is sure."""
    return f".{name}".endswith(f".{policy.DROPPED}")


def does(resolver: Secondary, matches: Callable[[wire.Reply], bool]) -> bool:
    """Whether it responds like this. On a busy machine there may be no response in time."""
    raw = resolver.exchange(wire.query(NEW))
    return raw is not None and matches(wire.read(raw))


def serial_of(path: Path) -> int:
    """The serial in the SOA record of an export."""
    (soa,) = (line for line in path.read_text().splitlines() if line.startswith("@ SOA "))
    return int(soa.split()[4])


def test_the_zone_is_transferred_with_tsig_only_and_is_in_the_catalog(subject: Subject, tmp_path: Path):
    """The catalog zone (RFC 9432) tells secondaries which zones there are."""
    exported, folder = subject.folder / "policy.zone", tmp_path / "knot"
    folder.mkdir()
    subject.start(orders=[block("B-1", [NEW])], exports=[{"file": str(exported), "origin": policy.ZONE}])
    wait_for(exported.exists, "the file")
    with closing(Primary(folder, exported)) as primary:
        wait_for(lambda: primary.serial() > 0, "Knot DNS has the zone")

        def transfer(zone: str, *options: str) -> str:
            place = ["@127.0.0.1", "-p", str(primary.port)]
            return run([tool("kdig"), *place, *options, zone, "AXFR", "+noall", "+answer"]).stdout

        signed = ["-y", f"hmac-sha256:{KEY}:{SECRET}"]
        assert f"*.{NEW}.{policy.ZONE}." in transfer(policy.ZONE, *signed)
        assert NEW not in transfer(policy.ZONE)
        assert f"PTR\t{policy.ZONE}." in transfer(CATALOG, *signed)
    counted = json.loads(exported.read_text().splitlines()[-1].partition(" end: ")[2])
    assert counted == {"entries": 1, "records": 4, "left_out": {}}


def test_the_configuration_of_the_page_is_accepted(subject: Subject):
    """docs/export.md shows dnsblock as a secondary: `dnsblock check`, as it is printed there."""
    put_secret(subject, Key("transfer"))
    subject.config_path.write_text(documented("yaml", "primaries:"))
    said = subject.cli("check", as_json=False)
    assert said.code == 0, said
