"""The Indonesian case: the ministry's zone as docs/zone-transfer.md shows it, and resolvers that have it."""

import random
import re
import subprocess
from pathlib import Path

import yaml

from . import policy
from .peers import BindPeer
from .primaries import BindPrimary
from .tools import wait_for
from .upstreams import TELEGRAM, Asked, decent

ZONE = "trustpositifkominfo"
TARGET = "lamanlabuh.aduankonten.id"  # the ministry's page
TARGET_ADDRESSES = {1: "203.0.113.80", 28: "2001:db8:80::80"}  # by type
PAGE = (Path(__file__).parents[2] / "docs" / "zone-transfer.md").read_text()
SHOWN = {"primary": "192.0.2.1", "resolver": "198.51.100.53"}  # addresses of the page
WORDS = ("judi", "slot", "poker", "situs", "togel", "agen", "bola", "xn--q9jyb4c", "film_", "88", "4d")
SUFFIXES = ("com", "net", "org", "id", "co.id", "web.id", "xyz", "co.uk", "blogspot.com", "example")


def blocks(language: str) -> list[str]:
    """The code blocks of the example on the page."""
    section = PAGE.split("\n## Example: trustpositifkominfo\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def listed_names(count: int) -> list[str]:
    """Generated names, some of them below others, and the names of Telegram."""
    chance = random.Random(2017)
    found = set(TELEGRAM)
    while len(found) < count + len(TELEGRAM):
        label = "".join(chance.choices(WORDS, k=chance.randint(1, 3))) + str(chance.randrange(count))
        found.add(f"{label}.{chance.choice(SUFFIXES)}")
        found.add(f"{chance.choice(('www', 'm', 'a.b'))}.{chance.choice(sorted(found)[:50])}")
    return sorted(found)


def free_names(listed: list[str]) -> list[str]:
    """Names that no record covers: beside, above and in front of those that are listed."""
    beside = {f"not{name}" for name in listed} | {f"{name}.free.example" for name in listed[::5]}
    above = {name.partition(".")[2] for name in listed}
    found = {TARGET, TARGET.partition(".")[2], *beside, *above}
    return sorted(name for name in found if not is_covered(name, set(listed)))


def is_covered(name: str, listed: set[str]) -> bool:
    labels = name.split(".")
    return any(".".join(labels[at:]) in listed for at in range(len(labels)))


def records(names: list[str]) -> list[str]:
    """A pair of records for each name, as the ministry writes them."""
    return [f"{owner}{name} CNAME {TARGET}." for name in names for owner in ("", "*.")]


def addresses(asked: Asked) -> bytes:
    """The script of the upstream: the ministry's page has other addresses than all other names."""
    address = TARGET_ADDRESSES.get(asked.qtype)
    return asked.address(address) if address and asked.name.lower() == TARGET else decent(asked)


def zone_of_dnsblock(primary: str) -> dict:
    """The zone of the page, with another primary."""
    (zone,) = yaml.safe_load(blocks("yaml")[0])["zones"]
    assert zone["rpz"]["primaries"] == [SHOWN["primary"]]
    zone["rpz"]["primaries"] = [primary]
    return zone


class Ministry(BindPrimary):
    """BIND with the statement of the page."""

    zone_name = ZONE

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.zone_path = self.folder / f"{ZONE}.zone"

    def command(self) -> list[str]:
        command = super().command()
        notified = " ".join(f"{host} port {port};" for host, port in self._secondaries)
        (statement,) = (block for block in blocks("text") if block.startswith('zone "'))
        statement = statement.replace(f"also-notify {{ {SHOWN['resolver']};", f"also-notify {{ {notified}")
        statement = statement.replace(SHOWN["resolver"], "127.0.0.1")
        config = self.folder / "named.conf"
        options = config.read_text().partition("\nzone ")[0]
        config.write_text(f"{options}\n{statement}", encoding="ascii")
        return command


class Provider(BindPeer):
    """BIND as a secondary of the ministry: what a provider has today."""

    def __init__(self, folder: Path, primary: int) -> None:
        folder.mkdir()
        super().__init__(folder)
        self._primary = primary

    def start_at(self, port: int, upstream: str) -> None:
        """Returns when the zone is enforced."""
        command = self.command(port, upstream)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        self.ports = {4: port, 6: port}
        self.wait_enforced(1)

    def wait_enforced(self, serial: int) -> None:
        """Until this version of the zone decides about names."""
        wait_for(lambda: self._process.poll() is not None or self._enforces(serial), f"BIND has {serial}")
        assert self._process.poll() is None, self.log_path.read_text()

    def _enforces(self, serial: int) -> bool:
        received, _, after = self.log_path.read_text().rpartition(f": transferred serial {serial}")
        return bool(received) and f"rpz: {ZONE}: reload done" in after

    def command(self, port: int, upstream: str) -> list[str]:
        command = super().command(port, upstream)
        config = self.folder / "named.conf"
        config.write_text(config.read_text().replace(policy.ZONE, ZONE), encoding="ascii")
        return command

    def zone(self) -> str:
        return f"""zone "{ZONE}" {{
  type secondary; primaries {{ 127.0.0.1 port {self._primary}; }};
  file "{self.folder}/copy"; masterfile-format text;
}};"""
