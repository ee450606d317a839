"""Knot DNS as the primary of an exported policy zone, and resolvers that transfer the zone from it."""

import subprocess
from pathlib import Path

import pytest
from ports import free_port

from . import policy
from .peers import BindPeer, Peer, RecursorPeer, UnboundPeer
from .tools import run, tool, wait_for

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
        self._configure([])
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen([tool("knotd"), "-c", str(self._config)], stdout=log, stderr=log)
        wait_for(lambda: self._control("status").returncode == 0 or self._failed(), "Knot DNS runs")

    def _failed(self) -> bool:
        if self._process.poll() is not None:
            pytest.fail(f"Knot DNS does not start: {self.log()}")
        return False

    def _configure(self, secondaries: list[int]) -> None:
        remotes = "".join(f"  - id: r{port}\n    address: 127.0.0.1@{port}\n" for port in secondaries)
        notify = f"    notify: [{', '.join(f'r{port}' for port in secondaries)}]\n" if secondaries else ""
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

    def notifies(self, secondaries: list[int]) -> None:
        """From now on, it notifies secondaries at these ports."""
        self._configure(secondaries)
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


SECONDARIES: dict[str, type[BindSecondary | UnboundSecondary | RecursorSecondary]] = {
    "bind": BindSecondary,
    "unbound": UnboundSecondary,
    "recursor": RecursorSecondary,
}


def secondary(kind: str, folder: Path, primary: Primary) -> Peer:
    """A resolver in a folder of its own that is to transfer the zone."""
    own = folder / kind
    own.mkdir()
    return SECONDARIES[kind](own, primary.port)
