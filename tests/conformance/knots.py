"""Knot DNS as the primary of an exported policy zone, and resolvers that transfer the zone from it."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from ports import free_port

from . import policy
from .harness import Subject
from .peers import BindPeer, Peer, RecursorPeer, UnboundPeer
from .tools import run, tool, wait_for

PAGE = Path(__file__).parents[2] / "docs" / "export.md"

KEY, SECRET = "transfer", "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgbG9uZyE="
KEYLESS = "::1"  # the only address that may transfer without TSIG
CATALOG = "catalog.example"


class Primary:
    """Knot DNS: it turns each new version of the file into IXFR, and notifies the secondaries."""

    def __init__(self, folder: Path, zone: Path) -> None:
        self._folder, self._zone = folder, zone
        (folder / "db").mkdir()
        self._config, self._socket = folder / "knot.conf", folder / "knot.sock"
        self.log_path = folder / "log"
        self.port = free_port()
        self._configure([], [])
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen([tool("knotd"), "-c", str(self._config)], stdout=log, stderr=log)
        wait_for(lambda: self._control("status").returncode == 0 or self._failed(), "Knot DNS runs")

    def _failed(self) -> bool:
        if self._process.poll() is not None:
            pytest.fail(f"Knot DNS does not start: {self.log()}")
        return False

    def _configure(self, plain: list[int], signed: list[int]) -> None:
        """`signed`: the ports at which NOTIFY must be signed."""
        remotes = "".join(f"  - id: r{port}\n    address: 127.0.0.1@{port}\n" for port in plain)
        remotes += "".join(
            f"  - id: r{port}\n    address: 127.0.0.1@{port}\n    key: {KEY}\n" for port in signed
        )
        secondaries = [f"r{port}" for port in plain + signed]
        notify = f"    notify: [{', '.join(secondaries)}]\n" if secondaries else ""
        self._config.write_text(
            f"""server:
  rundir: "{self._folder}"
  listen: [127.0.0.1@{self.port}, "::1@{self.port}"]
database:
  storage: "{self._folder}/db"
log:
  - target: stderr
    any: info
key:
  - id: {KEY}
    algorithm: hmac-sha256
    secret: {SECRET}
acl:
  - id: signed
    key: {KEY}
    action: transfer
  - id: keyless
    address: "{KEYLESS}"
    action: transfer
{"remote:" if remotes else ""}
{remotes}
template:
  - id: default
    storage: "{self._folder}"
    semantic-checks: off
    zonefile-load: difference
    zonefile-sync: -1
    journal-content: all
    acl: [signed, keyless]
{notify}
  - id: catalog
    storage: "{self._folder}"
    catalog-role: generate
    zonefile-sync: -1
    acl: signed
zone:
  - domain: {policy.ZONE}
    file: "{self._zone}"
    catalog-role: member
    catalog-zone: {CATALOG}
  - domain: {CATALOG}
    template: catalog
"""
        )

    def notifies(self, secondaries: "Iterable[Secondary]") -> None:
        """From now on, it notifies these secondaries. Only dnsblock requires that NOTIFY is signed."""
        by_kind: dict[bool, list[int]] = {False: [], True: []}
        for one in secondaries:
            by_kind[isinstance(one, DnsblockSecondary)].append(one.ports[4])
        self._configure(by_kind[False], by_kind[True])
        assert self._control("reload").returncode == 0

    def reload_zone(self) -> None:
        """As an operator does after a change of the file."""
        done = self._control("zone-reload", policy.ZONE)
        assert done.returncode == 0, done

    def serial(self) -> int:
        """The serial of the zone that it serves; 0 if it has none yet."""
        words = self._control("zone-status", policy.ZONE).stdout.replace("|", " ").split()
        found = words[words.index("serial:") + 1] if "serial:" in words else ""
        return int(found) if found.isdecimal() else 0

    def _control(self, *words: str) -> subprocess.CompletedProcess:
        return run([tool("knotc"), "-s", str(self._socket), *words])

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class BindSecondary(BindPeer):
    """With TSIG."""

    def __init__(self, folder: Path, primary: int) -> None:
        super().__init__(folder)
        self._primary = primary

    def zone(self) -> str:
        return f"""key {KEY} {{ algorithm hmac-sha256; secret "{SECRET}"; }};
zone "{policy.ZONE}" {{
  type secondary; primaries {{ 127.0.0.1 port {self._primary} key {KEY}; }};
  file "{self.folder}/copy"; masterfile-format text;
}};"""


class UnboundSecondary(UnboundPeer):
    """Without TSIG, which it does not have: its address is permitted."""

    def __init__(self, folder: Path, primary: int) -> None:
        super().__init__(folder)
        self._primary = primary

    def zone(self) -> str:
        return f"""  primary: {KEYLESS}@{self._primary}
  allow-notify: 127.0.0.1
  zonefile: "{self.folder}/copy\""""


class RecursorSecondary(RecursorPeer):
    """With TSIG. It does not transfer a policy zone when it is notified: it asks every second."""

    def __init__(self, folder: Path, primary: int) -> None:
        super().__init__(folder)
        self._primary = primary

    def zone(self) -> str:
        tsig = f'tsigname="{KEY}", tsigalgo="hmac-sha256", tsigsecret="{SECRET}"'
        options = f'{tsig}, refresh=1, policyName="policy"'
        return f'rpzPrimary("127.0.0.1:{self._primary}", "{policy.ZONE}", {{{options}}})'


class DnsblockSecondary(Subject):
    """With TSIG, as docs/export.md configures it."""

    program = "dnsblock"

    def __init__(self, folder: Path, primary: int) -> None:
        super().__init__(folder)
        self._primary = primary

    def start(self, upstream: str) -> None:
        """Returns when the zone is enforced: the first startup waits for the transfer."""
        (zone,) = yaml.load(documented("yaml", "primaries:"), yaml.BaseLoader)["zones"]
        secret = self.folder / zone["rpz"]["key"]["secret_file"]
        secret.write_text(SECRET)
        secret.chmod(0o600)
        zone["name"] = policy.ZONE
        zone["rpz"]["primaries"] = [f"127.0.0.1:{self._primary}"]
        super().start(zones=[zone], answers={}, inbox=None, upstreams=[upstream])


def documented(language: str, part: str) -> str:
    """The only block of docs/export.md in this language that has this part."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if part in block)
    return found


Secondary = Peer | DnsblockSecondary
SECONDARIES: dict[str, type[BindSecondary | UnboundSecondary | RecursorSecondary | DnsblockSecondary]] = {
    "bind": BindSecondary,
    "unbound": UnboundSecondary,
    "recursor": RecursorSecondary,
    "dnsblock": DnsblockSecondary,
}


def secondary(kind: str, folder: Path, primary: Primary) -> Secondary:
    """A resolver in a folder of its own that is to transfer the zone."""
    own = folder / kind
    own.mkdir()
    return SECONDARIES[kind](own, primary.port)
