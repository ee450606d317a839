"""A fleet on a network: a primary, three instances, and an engineer, each on a host of its own.

Each instance gets the policy zone by zone transfer. One loses its network, one can reach no primary,
and one is restarted. `fleet status` must show this, and each must catch up without help.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from unit.https_server import Authority

from .harness import Subject
from .issuing import CLIENTS, TOKENS, IssuersApi
from .networks import Host, Network
from .primaries import KnotPrimary, Timers
from .tools import dnsblock, tool, wait_for
from .transfers import KEY, ZONE, blocks, put_secret, zone_from

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces take root; CI runs as root")

MINISTRY, ENGINEER, INSTANCES = "ministry", "engineer", ("one", "two", "three")
PORT = 5300
QUICK = Timers(refresh=2, retry=1)  # an instance that has missed NOTIFY asks after two seconds
FIRST = "n0.example"


class Ministry(KnotPrimary):
    """The primary, on a host of its own."""

    network = "192.0.2.0/24"

    def __init__(self, folder: Path, host: Host) -> None:
        super().__init__(folder)
        self.host, self.under, self._on = host.address, host.under, host

    def served_serial(self) -> int | None:
        key = f"{KEY.algorithm}:{KEY.name}:{KEY.secret}"
        place = [f"@{self.host}", "-p", str(self.port), "-y", key]
        shown = self._on.run(tool("dig"), "+short", *place, self.zone_name, "SOA").stdout.split()
        return int(shown[2]) if len(shown) == 7 else None


class Instance:
    """A dnsblock on a host of its own, with the API of issuers at the address of the host."""

    def __init__(self, folder: Path, host: Host, servers: Authority, clients: Authority) -> None:
        self.host = host
        self.subject = Subject(folder)
        self.subject.under = host.under
        self._api = IssuersApi(self.subject, servers, clients)

    def start(self, primary: Ministry) -> None:
        put_secret(self.subject, KEY)
        self._api.renew(f"IP:{self.host.address}")
        self._api.know(CLIENTS)
        (self.subject.folder / "clients.pem").write_bytes(self._api.clients.pem.read_bytes())
        self.subject.start(
            listen=[f"127.0.0.1:{PORT}", f"{self.host.address}:{PORT}"],
            api=self._api.options(f"{self.host.address}:0"),
            zones=[zone_from(primary.address, key=KEY)],
            answers={},
            inbox=None,
            metrics=None,
        )
        self.url = self._api.url

    def blocks(self, name: str) -> bool:
        """Whether it answers a client on its host by NXDOMAIN."""
        shown = self.host.run(tool("dig"), "@127.0.0.1", "-p", str(PORT), name, "A").stdout
        assert "status: " in shown, shown
        return "status: NXDOMAIN" in shown


class Fleet:
    """The zone of the ministry and the instances that enforce it."""

    def __init__(self, network: Network, primary: Ministry, instances: dict[str, Instance], ca: Path) -> None:
        self.network, self.primary, self.instances, self._ca = network, primary, instances, ca
        self._blocked = [FIRST]

    def blocks(self, name: str, on: tuple[str, ...]) -> None:
        """The ministry adds a name. Returns when the instances on these hosts enforce it."""
        self._blocked.append(name)
        self.primary.replace(blocks(*self._blocked))
        self.wait(on, lambda one: one.blocks(name), f"{name} is blocked")

    def lifts(self, name: str, on: tuple[str, ...]) -> None:
        """The ministry removes a name. Returns when the instances on these hosts no longer enforce it."""
        self._blocked.remove(name)
        self.primary.replace(blocks(*self._blocked))
        self.wait(on, lambda one: not one.blocks(name), f"{name} is open")

    def wait(self, on: tuple[str, ...], condition: Callable[[Instance], bool], what: str) -> None:
        for name in on:
            wait_for(lambda one=self.instances[name]: condition(one), f"{what} on host {name}")

    def status(self) -> tuple[int, list[str]]:
        """The exit code of `fleet status` on the engineer's host, and the states it shows."""
        engineer = self.network.hosts[ENGINEER]
        token = self._ca.parent / "reader.token"
        token.write_text(f"{TOKENS['reader']}\n")
        options = ["--token-file", str(token), "--ca", str(self._ca), "--timeout", "60", "--json"]
        for one in self.instances.values():
            options += ["--to", one.url]
            if one.subject.is_running():
                one.blocks(FIRST)  # so that it is not idle
        said = engineer.run(dnsblock(), "fleet", "status", "-c", "/nonexistent/dnsblock.yaml", *options)
        return said.returncode, [found["state"] for found in json.loads(said.stdout)["instances"]]


@pytest.fixture
def fleet(tmp_path: Path, authority: Authority, client_authority: Authority) -> Iterator[Fleet]:
    """Three instances that enforce the same."""
    with Network(MINISTRY, ENGINEER, *INSTANCES) as network, ExitStack() as running:
        primary = running.enter_context(Ministry(tmp_path, network.hosts[MINISTRY]))
        addresses = [(network.hosts[name].address, PORT) for name in INSTANCES]
        primary.start(blocks(FIRST), key=KEY, secondaries=addresses, timers=QUICK)
        instances = {}
        for name in INSTANCES:
            (tmp_path / name).mkdir()
            one = Instance(tmp_path / name, network.hosts[name], authority, client_authority)
            running.enter_context(closing(one.subject))
            one.start(primary)
            instances[name] = one
        made = Fleet(network, primary, instances, authority.pem)
        assert made.status() == (0, ["same", "same", "same"])
        yield made


def test_an_instance_that_had_no_network_catches_up(fleet: Fleet):
    """It keeps what it enforces. Nobody sends NOTIFY again: the times of the SOA record bring it back."""
    fleet.network.unplug("one")
    fleet.blocks("late.example", on=("two", "three"))
    assert not fleet.instances["one"].blocks("late.example")
    assert fleet.instances["one"].blocks(FIRST)
    assert fleet.status() == (3, ["unknown", "same", "same"])
    fleet.network.plug("one")
    fleet.wait(("one",), lambda one: one.blocks("late.example"), "late.example is blocked")
    assert fleet.status() == (0, ["same", "same", "same"])


def test_an_instance_without_transfers_differs_until_it_has_them(fleet: Fleet):
    """Clients and the engineer reach it, and it reaches no primary. A block is lifted meanwhile."""
    fleet.blocks("lifted.example", on=INSTANCES)
    host = fleet.instances["two"].host
    host.ip(f"route add unreachable {fleet.primary.host}/32")
    fleet.lifts("lifted.example", on=("one", "three"))
    assert fleet.instances["two"].blocks("lifted.example")
    assert fleet.status() == (1, ["same", "differs", "same"])
    host.ip(f"route del unreachable {fleet.primary.host}/32")
    fleet.wait(("two",), lambda one: not one.blocks("lifted.example"), "lifted.example is open")
    assert fleet.status() == (0, ["same", "same", "same"])


def test_an_instance_that_was_down_starts_with_its_copy_and_catches_up(fleet: Fleet):
    """Changes of the time in between are enforced after its start, without NOTIFY."""
    three = fleet.instances["three"]
    assert three.subject.stop() == 0
    fleet.blocks("meanwhile.example", on=("one", "two"))
    assert fleet.status() == (3, ["same", "same", "unknown"])
    three.subject.launch()
    assert three.blocks(FIRST)
    fleet.wait(("three",), lambda one: one.blocks("meanwhile.example"), "meanwhile.example is blocked")
    three.url = f"https://{three.subject.status()['api']}"
    assert fleet.status() == (0, ["same", "same", "same"])


def test_the_zone_travels_only_with_its_key(fleet: Fleet):
    """A host of the same network without the key can neither read the zone nor announce a change."""
    stranger = fleet.network.hosts[ENGINEER]
    where = [f"@{fleet.primary.host}", "-p", str(fleet.primary.port)]
    assert "Transfer failed" in stranger.run(tool("dig"), *where, ZONE, "AXFR").stdout
    to = [f"@{fleet.instances['one'].host.address}", "-p", str(PORT)]
    assert "status: REFUSED" in stranger.run(tool("dig"), "+opcode=notify", *to, ZONE, "SOA").stdout
