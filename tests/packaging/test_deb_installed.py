"""The Debian package on a bare Debian that systemd has booted: installation, upgrade, removal and purge."""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conformance import wire
from conformance.asking import Asking, is_forwarded, is_sinkholed
from conformance.orders import as_yaml, block
from conformance.tools import wait_for
from conformance.upstreams import StubUpstream
from debian import INSTALL, LoadOnHost, Machine, bare_root, booted, files, inside, run, unpack
from running import ROOT

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a machine with its own root takes root; CI runs as root"),
    pytest.mark.timeout(3600),
]
CONFIGURATION = "etc/dnsblock/dnsblock.yaml"
UNIT = "etc/systemd/system/dnsblock.service"  # of an administrator
STATE = "var/lib/dnsblock"
# The daemon is not root. With the default net.core.rmem_max, a queue holds 500 queries: those of 25 seconds.
RATE = 20
NAMES = {"blocked.example": is_sinkholed, "forwarded.example": is_forwarded}
ZONE = """
# A change of the administrator.
answers: {sinkhole: {action: sinkhole, ipv4: [192.0.2.53]}}
zones: [{name: ministry, issuer: ministry.example, unsigned: accept, answer: sinkhole}]
"""


@pytest.fixture(scope="module")
def newer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same content with a higher version."""
    folder = tmp_path_factory.mktemp("newer")
    unpack(package, folder / "files")
    control = folder / "files" / "DEBIAN" / "control"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 1:"))
    packed = folder / "dnsblock_newer.deb"
    assert (
        run("dpkg-deb", "-Znone", "--build", "--root-owner-group", folder / "files", packed).returncode == 0
    )
    return packed


@pytest.fixture(scope="module")
def root(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare root in which the package has been installed and purged: what the package needs is there."""
    root = bare_root(tmp_path_factory.mktemp("root") / "debian")
    shutil.copy(package, root / "var" / "tmp")
    before = files(root)
    for command in (
        [*INSTALL, f"/var/tmp/{package.name}"],
        ["dnsblock", "--version"],
        ["dnsblock", "check", "--startup"],
        ["dpkg", "--purge", "dnsblock"],
    ):
        done = inside(root, *command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert [path for path in files(root) - before if "dnsblock" in path] == []
    return root


@pytest.fixture(scope="module")
def machine(root: Path) -> Iterator[Machine]:
    (root / "etc" / "resolv.conf").write_text("nameserver 127.0.0.2\n")
    with booted(root) as machine, upstream(machine):
        yield machine


@pytest.fixture(autouse=True)
def clean(machine: Machine) -> Iterator[None]:
    """Each test begins without the package."""
    yield
    machine.shown("dpkg", "--purge", "dnsblock")
    for folder in (STATE, "etc/dnsblock", "opt/dnsblock"):
        shutil.rmtree(machine.root / folder, ignore_errors=True)
    (machine.root / UNIT).unlink(missing_ok=True)


@contextmanager
def upstream(machine: Machine) -> Iterator[None]:
    """The resolver of the machine, on port 53 of 127.0.0.2."""
    stub = StubUpstream(host="127.0.0.2")
    stub.close()
    stub.port = 53
    machine.host.inside(stub.reopen)
    try:
        yield
    finally:
        stub.close()


def ask(machine: Machine, name: str, transport: str = "udp") -> wire.Reply:
    asking = Asking()
    asking.ports = {4: 53}
    replies = []
    machine.host.inside(lambda: replies.append(asking.query(name, transport=transport)))
    return replies[0]


def configure(machine: Machine) -> str:
    """Adds a zone to the configuration, and submits an order. Returns the whole configuration."""
    path = machine.root / CONFIGURATION
    path.write_text(path.read_text() + ZONE)
    machine.shown("systemctl", "reload", "dnsblock")
    (machine.root / "var" / "tmp" / "order.yaml").write_text(as_yaml(block("B-1", ["blocked.example"])))
    machine.shown("dnsblock", "order", "submit", "/var/tmp/order.yaml")
    assert is_sinkholed(ask(machine, "blocked.example"))
    return path.read_text()


def status(machine: Machine) -> dict[str, object]:
    return json.loads(machine.shown("dnsblock", "status", "--json"))


# ------- The tests


def test_the_service_answers_after_the_installation_and_a_purge_leaves_nothing(
    machine: Machine, package: Path
):
    """It starts with the configuration of the package. Without an order or list, nothing is to be proved."""
    before = files(machine.root)
    machine.install(package)
    assert is_forwarded(ask(machine, "forwarded.example"))
    assert is_forwarded(ask(machine, "forwarded.example", "tcp"))
    assert machine.shown("systemctl", "is-enabled", "dnsblock") == "enabled"
    assert machine.shown("dnsblock", "status")
    assert machine.shown("stat", "--format=%U", f"/proc/{machine.property('MainPID')}") == "dnsblock"
    process = machine.property("MainPID")
    purged = machine.run("apt-get", "purge", "-qq", "-y", "dnsblock")
    assert (purged.returncode, "warning" in purged.stdout + purged.stderr) == (0, False), purged
    assert machine.run("test", "-e", f"/proc/{process}").returncode == 1
    assert files(machine.root) == before


def test_an_upgrade_loses_no_query_and_keeps_state_and_configuration(
    machine: Machine, package: Path, newer: Path
):
    """systemd keeps the sockets while the next process starts, with the queries that wait in them."""
    machine.install(package)
    configuration = configure(machine)
    ledger = (machine.root / STATE / "ledger.jsonl").read_text()
    serial, process = status(machine)["serial"], machine.property("MainPID")
    with LoadOnHost(machine.host, 53, NAMES, RATE) as load:
        wait_for(lambda: load.answered > RATE, "queries are answered")
        machine.install(newer)
        reached = load.answered
        wait_for(lambda: load.answered > reached + RATE, "the next process answers")
    print(f"{load.answered} queries over the upgrade, the slowest took {load.slowest:.2f} s")
    assert (load.lost, load.wrong) == (0, [])
    assert machine.property("MainPID") != process
    assert machine.shown("dpkg-query", "--show", "--showformat=${Version}", "dnsblock").startswith("1:")
    assert (machine.root / CONFIGURATION).read_text() == configuration
    assert (machine.root / STATE / "ledger.jsonl").read_text().startswith(ledger)
    assert status(machine)["serial"] >= serial


def test_an_upgrade_with_a_broken_configuration_ends_well_and_the_previous_version_answers(
    machine: Machine, package: Path, newer: Path
):
    """Otherwise a typo that nobody has reloaded yet would become an outage, and dpkg would be stuck."""
    machine.install(package)
    good = configure(machine)
    process = machine.property("MainPID")
    (machine.root / CONFIGURATION).write_text(good + "lisen: nowhere\n")
    said = machine.install(newer)
    assert "dnsblock was not restarted: the previous version still answers queries" in said
    assert "'lisen'" in said
    assert "systemctl restart dnsblock" in said
    assert machine.property("MainPID") == process
    assert is_sinkholed(ask(machine, "blocked.example"))
    assert (
        machine.shown("dpkg-query", "--show", "--showformat=${Status}", "dnsblock") == "install ok installed"
    )
    (machine.root / CONFIGURATION).write_text(good)
    machine.shown("systemctl", "restart", "dnsblock")
    assert machine.property("MainPID") != process
    assert is_sinkholed(ask(machine, "blocked.example"))


def test_a_purge_keeps_the_ledger_of_orders_and_a_new_installation_enforces_them(
    machine: Machine, package: Path
):
    """The ledger is the proof of what was ordered: only a person deletes it."""
    machine.install(package)
    configuration = configure(machine)
    removed = machine.run("apt-get", "remove", "-qq", "-y", "dnsblock")
    assert removed.returncode == 0, removed.stderr
    assert machine.run("systemctl", "is-active", "dnsblock").stdout == "inactive\n"
    assert (machine.root / CONFIGURATION).read_text() == configuration
    machine.install(package)
    assert is_sinkholed(ask(machine, "blocked.example"))
    ledger = (machine.root / STATE / "ledger.jsonl").read_text()
    purged = machine.run("apt-get", "purge", "-qq", "-y", "dnsblock")
    assert purged.returncode == 0, purged.stderr
    assert (
        "/var/lib/dnsblock was kept: its ledger is the proof of what was blocked."
        in purged.stdout + purged.stderr
    )
    assert not (machine.root / "etc" / "dnsblock").exists()
    assert (machine.root / STATE / "ledger.jsonl").read_text().startswith(ledger)
    assert machine.shown("stat", "--format=%U %a", f"/{STATE}") == "dnsblock 700"


def test_the_package_takes_over_from_an_installation_at_opt_without_losing_a_query(
    machine: Machine, package: Path
):
    """As docs/operations.md describes it: with its configuration and state, and the sockets of its daemon."""
    machine.install(package)
    configuration = configure(machine)
    library = machine.root / "usr" / "lib" / "dnsblock"
    shutil.copytree(library, machine.root / "opt" / "dnsblock", symlinks=True)
    program = machine.root / "opt" / "dnsblock" / "bin" / "dnsblock"
    program.write_text(program.read_text().replace("/usr/lib", "/opt"))
    shutil.copy(ROOT / "config" / "dnsblock.service", machine.root / UNIT)
    machine.shown("dpkg", "--purge", "dnsblock")
    path = machine.root / CONFIGURATION
    path.parent.mkdir(exist_ok=True)
    path.write_text(configuration)
    machine.shown("systemctl", "daemon-reload")
    machine.shown("systemctl", "enable", "--now", "dnsblock")
    assert "/opt/dnsblock" in machine.property("ExecStart")
    with LoadOnHost(machine.host, 53, NAMES, RATE) as load:
        wait_for(lambda: load.answered > RATE, "queries are answered")
        (machine.root / UNIT).unlink()
        machine.install(package, "-o", "Dpkg::Options::=--force-confold")
        reached = load.answered
        wait_for(lambda: load.answered > reached + RATE, "the daemon of the package answers")
    assert (load.lost, load.wrong) == (0, [])
    assert "/opt" not in machine.property("ExecStart")
    process = machine.shown("cat", f"/proc/{machine.property('MainPID')}/cmdline")
    assert process.split("\0")[2:4] == ["/usr/bin/dnsblock", "serve"]
    assert path.read_text() == configuration


def test_the_package_installs_while_another_server_uses_the_port(machine: Machine, package: Path):
    """apt ends well and says where to look. The service starts as soon as the port is free."""
    taken: list[socket.socket] = []

    def take() -> None:
        taken.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        taken[0].bind(("127.0.0.1", 53))

    machine.host.inside(take)
    said = machine.install(package)
    assert "dnsblock is installed, but could not start: journalctl -u dnsblock" in said
    taken[0].close()
    machine.wait_for_service()
    assert is_forwarded(ask(machine, "forwarded.example"))
