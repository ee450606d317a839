"""Other resolvers with the same policy zone: Unbound and BIND of Debian, or one that runs already.

All of them forward to one upstream and are asked as dnsblock is. Each is set up to keep as many promises
as it knows how to; what its defaults would do instead is not held against it.
"""

import ipaddress
import shlex
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path

import pytest
from ports import free_port

from . import policy, wire
from .asking import Asking, is_sinkholed
from .tools import run, tool, wait_for

TIMEOUT = 2.0


class Peer(Asking, ABC):
    """A resolver of another make in a folder of its own, on one free port of both loopback addresses."""

    timeout = TIMEOUT
    program = ""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.zone_path = folder / "policy.zone"
        self.log_path = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self, port: int, upstream: str) -> list[str]:
        """Writes the configuration, and returns the command."""

    def start(self, upstream: str, zone: str | None = None) -> None:
        """Returns when the policy is in force, which with BIND is later than when it answers.

        `zone`: the content of another policy zone with the same name, in which SINKHOLED is blocked, too.
        """
        self.zone_path.write_text(zone or policy.rpz_zone(), encoding="ascii")
        for _ in range(5):  # another program may take the port between looking and binding
            port = free_port()
            command = self.command(port, upstream)
            with self.log_path.open("wb") as log:
                self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
            self.ports = {4: port, 6: port}
            wait_for(lambda: self._process.poll() is not None or enforces(self), f"{self.program} enforces")
            if self._process.poll() is None:
                return
        pytest.fail(f"{self.program} does not start: {self.log_path.read_text(errors='replace')}")

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class UnboundPeer(Peer):
    program = "unbound"

    def command(self, port: int, upstream: str) -> list[str]:
        config = self.folder / "unbound.conf"
        config.write_text(
            f"""
server:
  interface: 127.0.0.1@{port}
  interface: ::1@{port}
  username: ""
  chroot: ""
  directory: "{self.folder}"
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  do-not-query-localhost: no
  num-threads: 1
  module-config: "respip iterator"
  access-control: 127.0.0.0/8 refuse
  access-control: 127.0.0.1/32 allow
  access-control: ::1/128 allow
  max-udp-size: 1232
  ede: yes
  edns-tcp-keepalive: yes
  deny-any: yes
rpz:
  name: {policy.ZONE}.
{self.zone()}
forward-zone:
  name: "."
  forward-addr: {upstream.replace(":", "@")}
remote-control:
  control-enable: no
""",
            encoding="ascii",
        )
        return [tool(self.program), "-d", "-c", str(config)]

    def zone(self) -> str:
        """The source of the policy zone."""
        return f'  zonefile: "{self.zone_path}"'


class BindPeer(Peer):
    """Without cookies to the upstream: it would remember of one test that the upstream knows them."""

    program = "named"

    def command(self, port: int, upstream: str) -> list[str]:
        host, upstream_port = upstream.split(":")
        config = self.folder / "named.conf"
        config.write_text(
            f"""
options {{
  directory "{self.folder}";
  pid-file none;
  session-keyfile none;
  lock-file none;
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 port {port} {{ ::1; }};
  allow-query {{ 127.0.0.1; ::1; }};
  allow-recursion {{ 127.0.0.1; ::1; }};
  forward only;
  forwarders {{ {host} port {upstream_port}; }};
  dnssec-validation no;
  minimal-any yes;
  send-cookie no;
  response-policy {{ zone "{policy.ZONE}" max-policy-ttl 86400 min-update-interval 0; }}
    qname-wait-recurse no break-dnssec yes recursive-only no nsip-enable no nsdname-enable no;
}};
controls {{ }};
{self.zone()}
""",
            encoding="ascii",
        )
        return [tool(self.program), "-g", "-n", "1", "-c", str(config)]

    def zone(self) -> str:
        """The source of the policy zone."""
        return f'zone "{policy.ZONE}" {{ type primary; file "{self.zone_path}"; check-names ignore; }};'


class RecursorPeer(Peer):
    """PowerDNS Recursor.

    Without its packet cache: that keeps the answers of the moment before it has loaded the zone.
    """

    program = "pdns_recursor"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._sockets = tempfile.TemporaryDirectory()  # the folder of a test is too deep for its socket

    def close(self) -> None:
        super().close()
        self._sockets.cleanup()

    def command(self, port: int, upstream: str) -> list[str]:
        lua = self.folder / "rpz.lua"
        lua.write_text(self.zone() + "\n", encoding="ascii")
        config = self.folder / "recursor.conf"
        config.write_text(
            f"""
local-address=127.0.0.1, ::1
local-port={port}
allow-from=127.0.0.1, ::1
daemon=no
disable-syslog=yes
socket-dir={self._sockets.name}
lua-config-file={lua}
forward-zones-recurse=.={upstream}
dont-query=
dnssec=off
disable-packetcache=yes
threads=1
webserver=no
security-poll-suffix=
""",
            encoding="ascii",
        )
        return [tool(self.program), f"--config-dir={self.folder}"]

    def zone(self) -> str:
        """The source of the policy zone."""
        return f'rpzFile("{self.zone_path}", {{policyName="policy"}})'


class Elsewhere(Asking):
    """A resolver that somebody else runs; a command of theirs loads the policy."""

    timeout = TIMEOUT

    def __init__(self, place: str, hook: str | None, folder: Path) -> None:
        super().__init__()
        host, _, port = place.rpartition(":")
        family = ipaddress.ip_address(host.strip("[]")).version
        self.hosts = {family: host.strip("[]")}
        self.ports = {family: int(port)}
        self.hook = hook
        self.zone_path = folder / "policy.zone"

    def start(self, upstream: str) -> None:
        self.zone_path.write_text(policy.rpz_zone(), encoding="ascii")
        if self.hook is not None:
            done = run([*shlex.split(self.hook), str(self.zone_path), upstream])
            if done.returncode != 0:
                pytest.fail(f"the policy hook failed: {done.stdout}{done.stderr}", pytrace=False)
        wait_for(lambda: enforces(self), f"{self.hosts} enforces the policy")

    def close(self) -> None:
        """It goes on."""


def enforces(resolver: Asking) -> bool:
    """Whether the policy is in force already."""
    family = min(resolver.ports)
    with resolver.udp(family) as sock:
        sock.settimeout(0.2)
        try:
            sock.send(wire.query(policy.SINKHOLED))
            return is_sinkholed(wire.read(sock.recv(4096)))
        except OSError:
            return False
