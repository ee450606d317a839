"""An order reaches resolvers of other vendors: dnsblock, a file, Knot DNS, zone transfer.

docs/export.md describes this setup.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from . import policy, wire
from .harness import Subject, is_forwarded, is_sinkholed
from .knots import CATALOG, KEY, SECONDARIES, SECRET, Primary, secondary
from .orders import block, unblock
from .peers import Peer
from .tools import run, tool, wait_for
from .upstreams import StubUpstream

NEW = "new.example"


def test_an_order_and_its_end_reach_every_secondary(subject: Subject, upstream: StubUpstream, tmp_path: Path):
    """By IXFR: with TSIG to BIND and PowerDNS Recursor, by its address to Unbound."""
    exported, folder = subject.folder / "policy.zone", tmp_path / "knot"
    folder.mkdir()
    options = policy.configuration(upstream.address)
    subject.start(**options, exports=[{"file": str(exported), "origin": policy.ZONE}])
    wait_for(exported.exists, "the file")
    with ExitStack() as running:
        primary = running.enter_context(closing(Primary(folder, exported)))
        wait_for(lambda: primary.serial() > 0, "Knot DNS has the zone")
        resolvers = [
            running.enter_context(closing(secondary(kind, tmp_path, primary))) for kind in SECONDARIES
        ]
        for resolver in resolvers:
            resolver.start(upstream.address)
        primary.notifies([resolver.ports[4] for resolver in resolvers])

        def carries_out(order: dict, expected: str) -> None:
            before = primary.serial()
            subject.put_order(order)
            subject.reload()
            wait_for(lambda: serial_of(exported) > before, "the file has changed")
            primary.reload_zone()
            wait_for(lambda: primary.serial() > before, "Knot DNS has read it")
            matches = {"blocked": is_sinkholed, "open": is_forwarded}[expected]
            for resolver in resolvers:
                wait_for(partial(does, resolver, matches), f"{resolver.program}: {NEW} is {expected}")
            assert matches(subject.query(NEW))

        carries_out(block("B-2", [NEW]), "blocked")
        carries_out(unblock("U-2", "B-2"), "open")
        assert primary.log().count("IXFR, outgoing") >= 2 * len(resolvers)
        assert "AXFR-style IXFR" not in primary.log()


def does(resolver: Peer, matches: Callable[[wire.Reply], bool]) -> bool:
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
