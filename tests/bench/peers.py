"""Other resolvers with the same list, if they are installed.

Each one loads the list by the fastest method that its documentation names. It has the configured number of
threads, the load tool as its only upstream, and a cache if the workload has one. Logs are off, and so is
DNSSEC validation, which dnsblock does not do. A listed name and all names below it are NXDOMAIN, which needs
two records in an RPZ file.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from .servers import Server, said_by

# The PATH of an unprivileged user often lacks these folders.
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RPZ_HEAD = "$TTL 300\n@ SOA localhost. nobody.invalid. 1 3600 600 86400 300\n@ NS localhost.\n"
# More entries than the 35,000 names of the workloads need.
CACHED_ANSWERS = 200_000


def program(name: str) -> str | None:
    return shutil.which(name, path=SEARCH)


def lines_of(names: Path) -> Iterator[str]:
    with names.open(encoding="ascii") as file:
        for line in file:
            yield line.rstrip("\n")


def write_rpz(names: Path, zone: Path) -> None:
    """A policy zone with the action NXDOMAIN for each name and all names below it."""
    with zone.open("w", encoding="ascii") as file:
        file.write(RPZ_HEAD)
        for name in lines_of(names):
            file.write(f"{name} CNAME .\n*.{name} CNAME .\n")


class Dnsdist(Server):
    """A SuffixMatchNode. dnsdist applies rules before its packet cache."""

    name = "dnsdist"

    def command(self, names: Path) -> list[str]:
        place = f"127.0.0.1:{self.port}"
        listen = f'addLocal("{place}", {{reusePort=true}})\n' * self.setting.workers
        cache = f'getPool(""):setCache(newPacketCache({CACHED_ANSWERS}))' if self.setting.cached else ""
        config = self.folder / "dnsdist.conf"
        config.write_text(
            f"""\
setSecurityPollSuffix("")
setUDPMultipleMessagesVectorSize(64)
setUDPSocketBufferSizes(4194304, 4194304)
setMaxUDPOutstanding(65535)
{listen}
newServer({{address="127.0.0.1:{self.setting.upstream_port}", healthCheckMode="up"}})
{cache}
local listed = newSuffixMatchNode()
for line in io.lines("{names}") do
  listed:add(line)
end
addAction(SuffixMatchNodeRule(listed), RCodeAction(DNSRCode.NXDOMAIN))
"""
        )
        return [str(program("dnsdist")), "--supervised", "--disable-syslog", "-C", str(config)]

    @classmethod
    def version(cls) -> str | None:
        return said_by([path, "--version"]) if (path := program("dnsdist")) else None


class Recursor(Server):
    """An RPZ file."""

    name = "recursor"

    def command(self, names: Path) -> list[str]:
        zone, lua = self.folder / "policy.zone", self.folder / "policy.lua"
        write_rpz(names, zone)
        lua.write_text(
            f'rpzFile("{zone}", {{policyName="policy", zoneSizeHint={2 * zone.stat().st_size // 60}}})\n'
        )
        cache = "" if self.setting.cached else "disable-packetcache=yes\nmax-cache-entries=0\n"
        (self.folder / "recursor.conf").write_text(
            f"""\
local-address=127.0.0.1
local-port={self.port}
allow-from=127.0.0.0/8
threads={self.setting.workers}
reuseport=yes
pdns-distributes-queries=no
max-mthreads=4096
forward-zones-recurse=.=127.0.0.1:{self.setting.upstream_port}
dont-query=
dnssec=off
minimum-ttl-override=0
packetcache-ttl=3600
security-poll-suffix=
socket-dir={self.folder}
lua-config-file={lua}
quiet=yes
{cache}"""
        )
        return [
            str(program("pdns_recursor")),
            f"--config-dir={self.folder}",
            "--daemon=no",
            "--disable-syslog",
        ]

    @classmethod
    def version(cls) -> str | None:
        return said_by([path, "--version"]) if (path := program("pdns_recursor")) else None


class Bind(Server):
    """An RPZ file, with `qname-wait-recurse no`: it does not query the upstream for listed names."""

    name = "bind"

    def command(self, names: Path) -> list[str]:
        zone = self.folder / "policy.zone"
        write_rpz(names, zone)
        cache = "" if self.setting.cached else "max-cache-ttl 0; max-ncache-ttl 0;"
        config = self.folder / "named.conf"
        config.write_text(
            f"""\
options {{
  directory "{self.folder}";
  pid-file none; session-keyfile none; lock-file none;
  listen-on port {self.port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  allow-query {{ 127.0.0.0/8; }};
  allow-recursion {{ 127.0.0.0/8; }};
  recursion yes;
  forward only;
  forwarders {{ 127.0.0.1 port {self.setting.upstream_port}; }};
  dnssec-validation no;
  recursive-clients 20000;
  send-cookie no;
  {cache}
  response-policy {{ zone "policy"; }} qname-wait-recurse no nsip-enable no nsdname-enable no;
}};
controls {{ }};
logging {{ category default {{ default_stderr; }}; category queries {{ null; }}; category rpz {{ null; }}; }};
zone "policy" {{ type primary; file "{zone}"; check-names ignore; allow-query {{ none; }}; notify no; }};
"""
        )
        return [str(program("named")), "-g", "-n", str(self.setting.workers), "-c", str(config)]

    @classmethod
    def version(cls) -> str | None:
        return said_by([path, "-v"]) if (path := program("named")) else None


class Unbound(Server):
    """local-zone with always_nxdomain: faster than its RPZ, and one line per name."""

    name = "unbound"

    def command(self, names: Path) -> list[str]:
        zones = self.folder / "zones.conf"
        with zones.open("w", encoding="ascii") as file:
            file.write("server:\n")
            for name in lines_of(names):
                file.write(f'local-zone: "{name}." always_nxdomain\n')
        cache = "" if self.setting.cached else "  cache-max-ttl: 0\n  cache-max-negative-ttl: 0\n"
        config = self.folder / "unbound.conf"
        config.write_text(
            f"""\
server:
  interface: 127.0.0.1@{self.port}
  username: ""
  chroot: ""
  directory: "{self.folder}"
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  do-not-query-localhost: no
  access-control: 127.0.0.0/8 allow
  num-threads: {self.setting.workers}
  module-config: "iterator"
  so-reuseport: yes
  so-rcvbuf: 4m
  so-sndbuf: 4m
  outgoing-range: 8192
  num-queries-per-thread: 4096
  msg-cache-size: 64m
  rrset-cache-size: 128m
{cache}include: "{zones}"
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@{self.setting.upstream_port}
remote-control:
  control-enable: no
"""
        )
        return [str(program("unbound")), "-d", "-c", str(config)]

    @classmethod
    def version(cls) -> str | None:
        return said_by([path, "-V"]) if (path := program("unbound")) else None


PEERS: tuple[type[Server], ...] = (Dnsdist, Recursor, Bind, Unbound)
