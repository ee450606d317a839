"""Primaries of the transfer tests: BIND and Knot DNS with one policy zone, which they serve by IXFR.

Both answer a changed zone file with a difference, and send NOTIFY at once.
"""

import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import dns.exception
import dns.message
import dns.query
import dns.rdatatype
import dns.tsig
import pytest
from ports import free_port

from .tools import run, tool, wait_for

ZONE = "rpz.example"
SECRET = "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgbG9uZyE="


@dataclass(frozen=True, slots=True)
class Key:
    """A TSIG key (RFC 8945)."""

    name: str = "transfer.example"
    algorithm: str = "hmac-sha256"
    secret: str = SECRET  # base64

    def tsig(self) -> dns.tsig.Key:
        """The same key for dnspython."""
        return dns.tsig.Key(self.name, self.secret, self.algorithm)


@dataclass(frozen=True, slots=True)
class Timers:
    """The times of an SOA record, in seconds (RFC 1035 section 3.3.13)."""

    refresh: int = 3600
    retry: int = 900
    expire: int = 604_800
    minimum: int = 60

    def __str__(self) -> str:
        return f"{self.refresh} {self.retry} {self.expire} {self.minimum}"


USUAL = Timers()


def zone_file(records: Iterable[str], serial: int, timers: Timers = USUAL) -> str:
    """A policy zone; its records are relative to the zone: `n0.example CNAME .`."""
    head = f"$TTL 300\n@ SOA localhost. nobody.invalid. {serial} {timers}\n@ NS localhost.\n"
    return head + "".join(f"{record}\n" for record in records)


class RealPrimary(ABC):
    """A server in a folder of its own, on a free port; stopped at the end of the `with`."""

    program = ""
    zone_name = ZONE
    host, network = "127.0.0.1", "127.0.0.0/8"  # its address, and those that it answers
    under: Sequence[str] = ()  # a program that runs it, such as nsenter

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.program
        self.folder.mkdir()
        self.zone_path = self.folder / "policy.zone"
        self.log_path = self.folder / "log"
        self.port = free_port()
        self.serial = 0
        self._timers = Timers()
        self._key: Key | None = None
        self._secondaries: list[tuple[str, int]] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @abstractmethod
    def command(self) -> list[str]:
        """Writes the configuration, and returns the command."""

    @abstractmethod
    def reload_zone(self) -> None:
        """As an operator does after a change of the file."""

    def start(
        self,
        records: Iterable[str] = (),
        *,
        key: Key | None = None,
        secondaries: Iterable[tuple[str, int]] = (),
        serial: int = 1,
        timers: Timers = USUAL,
    ) -> Self:
        """Returns when the zone is served. `secondaries`: the addresses and ports that it notifies."""
        self._key, self._secondaries, self._timers = key, list(secondaries), timers
        self._write(records, serial)
        self.start_again()
        return self

    def start_again(self) -> None:
        """After `stop`, on the same port."""
        command = self.command()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen([*self.under, *command], stdout=log, stderr=log, cwd=self.folder)
        self._wait_served()

    def replace(self, records: Iterable[str], *, serial: int | None = None) -> None:
        """Another content, by default with the next serial. Returns when it is served and NOTIFY is sent."""
        self._write(records, self.serial + 1 if serial is None else serial)
        self.reload_zone()
        self._wait_served()

    def served_serial(self) -> int | None:
        """The serial in its SOA record; None: it does not answer."""
        query = dns.message.make_query(self.zone_name, "SOA")
        if self._key is not None:
            query.use_tsig(self._key.tsig())
        try:
            response = dns.query.udp(query, self.host, timeout=1, port=self.port)
        except (OSError, dns.exception.DNSException):
            return None
        found = [one for one in response.answer if one.rdtype == dns.rdatatype.SOA]
        return found[0][0].serial if found else None

    def stop(self) -> None:
        """Nothing listens any more; may be called again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write(self, records: Iterable[str], serial: int) -> None:
        self.serial = serial
        partial = self.zone_path.with_suffix(".tmp")
        partial.write_text(zone_file(records, serial, self._timers), encoding="ascii")
        # The kernel's own time of a file is some milliseconds old: to BIND, the file would be unchanged.
        now = time.time_ns()
        os.utime(partial, ns=(now, now))
        partial.rename(self.zone_path)

    def _wait_served(self) -> None:
        wait_for(self._is_served, f"{self.program} serves serial {self.serial}")

    def _is_served(self) -> bool:
        if self._process.poll() is not None:
            pytest.fail(f"{self.program} does not run: {self.log()}")
        return self.served_serial() == self.serial


class BindPrimary(RealPrimary):
    """BIND. With a certificate, zone transfer is over TLS only (RFC 9103), at another port."""

    program = "named"

    def __init__(self, folder: Path, certificate: tuple[Path, Path] | None = None) -> None:
        """`certificate`: the files of a certificate and its key."""
        super().__init__(folder)
        self._certificate = certificate
        self._control = free_port()
        self.tls_port = free_port()

    @property
    def address(self) -> str:
        return super().address if self._certificate is None else f"{self.host}:{self.tls_port}"

    def command(self) -> list[str]:
        config, control = self.folder / "named.conf", self.folder / "rndc.conf"
        control.write_text(f'key rndc {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n', encoding="ascii")
        key = "" if self._key is None else f" key {self._key.name}"
        notified = "".join(f"{host} port {port}{key}; " for host, port in self._secondaries)
        config.write_text(
            f"""
include "{control}";
{self._declared_key()}
{self._declared_tls()}
controls {{ inet 127.0.0.1 port {self._control} allow {{ 127.0.0.1; }} keys {{ rndc; }}; }};
options {{
  directory "{self.folder}";
  pid-file none;
  session-keyfile none;
  lock-file none;
  listen-on port {self.port} {{ {self.host}; }};
  listen-on-v6 {{ none; }};
  {"" if self._certificate is None else f"listen-on port {self.tls_port} tls own {{ {self.host}; }};"}
  allow-query {{ {self.network}; }};
  recursion no;
  dnssec-validation no;
  notify-delay 0;
  notify-rate 10000;
  startup-notify-rate 10000;
  notify-source {self.host};
}};
zone "{self.zone_name}" {{
  type primary;
  file "{self.zone_path}";
  check-names ignore;
  ixfr-from-differences yes;
  max-ixfr-ratio unlimited;
  allow-transfer {self._transport()}{{ {self.network if self._key is None else key}; }};
  notify explicit;
  also-notify {{ {notified}}};
}};
""",
            encoding="ascii",
        )
        return [tool(self.program), "-g", "-n", "1", "-c", str(config)]

    def reload_zone(self) -> None:
        place = ["-s", "127.0.0.1", "-p", str(self._control), "-k", str(self.folder / "rndc.conf")]
        done = run([tool("rndc"), *place, "reload", self.zone_name])
        assert done.returncode == 0, done

    def _declared_key(self) -> str:
        if self._key is None:
            return ""
        return f'key {self._key.name} {{ algorithm {self._key.algorithm}; secret "{self._key.secret}"; }};'

    def _declared_tls(self) -> str:
        if self._certificate is None:
            return ""
        certificate, key = self._certificate
        return f'tls own {{ cert-file "{certificate}"; key-file "{key}"; protocols {{ TLSv1.3; }}; }};'

    def _transport(self) -> str:
        return "" if self._certificate is None else f"port {self.tls_port} transport tls "


class KnotPrimary(RealPrimary):
    """Knot DNS. Version 3.2 of Debian has no zone transfer over TLS."""

    program = "knotd"

    def command(self) -> list[str]:
        config = self.folder / "knot.conf"
        (self.folder / "db").mkdir(exist_ok=True)
        key = "" if self._key is None else f"\n    key: {self._key.name}"
        remotes = "".join(
            f"  - id: r{number}\n    address: {host}@{port}{key}\n"
            for number, (host, port) in enumerate(self._secondaries)
        )
        notified = ", ".join(f"r{number}" for number in range(len(self._secondaries)))
        config.write_text(
            f"""server:
  rundir: "{self.folder}"
  listen: {self.host}@{self.port}
database:
  storage: "{self.folder}/db"
log:
  - target: stderr
    any: info
{self._declared_key()}
acl:
  - id: own
    address: {self.network}{key}
    action: transfer
{"remote:" if remotes else ""}
{remotes}
zone:
  - domain: {self.zone_name}
    file: "{self.zone_path}"
    semantic-checks: off
    zonefile-load: difference
    zonefile-sync: -1
    journal-content: all
    acl: own
{f"    notify: [{notified}]" if notified else ""}
""",
            encoding="ascii",
        )
        return [tool(self.program), "-c", str(config)]

    def reload_zone(self) -> None:
        done = run([tool("knotc"), "-s", str(self.folder / "knot.sock"), "zone-reload", self.zone_name])
        assert done.returncode == 0, done

    def _declared_key(self) -> str:
        if self._key is None:
            return ""
        key = self._key
        return f"key:\n  - id: {key.name}\n    algorithm: {key.algorithm}\n    secret: {key.secret}\n"


PRIMARIES: dict[str, type[BindPrimary | KnotPrimary]] = {"bind": BindPrimary, "knot": KnotPrimary}
