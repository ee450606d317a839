"""Random policy zones (RPZ), what an upstream knows of their names, and the queries that show the policy.

Names, addresses and clients are few, so that entries meet: exact names below wildcards, names and addresses
of one chain in several zones, prefixes in prefixes. Everything follows from the seed.
"""

import ipaddress
import itertools
import random
import struct
from dataclasses import dataclass, field

from . import wire
from .upstreams import Asked

DNAME = 39  # RFC 6672; wire has no name for it
QTYPES = ("ANY", "A", "AAAA", "TXT", "MX", "CNAME")
CLIENTS = ("127.0.0.1", "127.0.0.66", "127.0.0.67", "127.0.0.68", "::1")
WITNESS = "127.0.0.129"  # a client that no trigger covers
WITNESSED = "free"  # and the parent of names that none covers
LANDING, GARDEN = "one.land", "g.land"

# Triggers are of the labels a and b; c is only in queries.
ABOVE = [labels for depth in (1, 2, 3) for labels in itertools.product("abc", repeat=depth)]
BELOW_T = [".".join((*labels, "t")) for labels in ABOVE]
NAMES = ("t", *BELOW_T, "u", "a.u", "b.u", "c.u", "a.b.u", "b.a.u")
# Of plain CNAMEs. Nobody asks for them, and no chain leads there: a client's rule would make loops of them.
TARGETS = (LANDING, "two.land", "in.t")
OWNERS = tuple(name for name in (*NAMES, *TARGETS) if "c." not in name)
BEHIND_DNAME = ("a.dn", "b.dn", "a.b.dn")  # the upstream has `dn. DNAME t.`

IPV4 = [f"{net}.{last}" for net in ("192.0.2", "198.18.200", "198.51.100") for last in (1, 2, 130)]
IPV6 = [f"2001:db8:{net}::{last}" for net in (1, 2, 13) for last in (1, 2)]
LENGTHS = {4: (32, 32, 31, 25, 24, 24, 16, 8), 6: (128, 128, 127, 64, 48, 32)}
LENGTHS_OF_CLIENTS = {4: (32, 32, 32, 32, 31, 31, 30, 26, 26, 25), 6: (128,)}  # 25 covers all of IPv4

# BIND's `policy` of a zone, and the same in `answer`, beside `given`. Those with a target are profiles.
OVERRIDES = {
    "nxdomain": "nxdomain",
    "nodata": "nodata",
    "passthru": "passthru",
    "drop": "drop",
    "tcp-only": "truncate",
    f"cname {LANDING}": "landing",
    f"cname *.{GARDEN}": "garden",
}
PROFILES = {
    "landing": {"action": "cname", "target": f"{LANDING}.", "ttl": 300},
    "garden": {"action": "cname", "target": f"*.{GARDEN}.", "ttl": 300},
}
GIVEN, DISABLED = "given", "disabled"


# ------- A policy zone ---------------------------------------------------------------


@dataclass
class PolicyZone:
    """One zone file, and how it is used: `given`, `disabled`, or what takes the place of its records."""

    origin: str
    use: str = GIVEN
    entries: dict[str, list[str]] = field(default_factory=dict)  # owner as written -> its records

    @property
    def file(self) -> str:
        return f"{self.origin}.zone"

    def text(self) -> str:
        head = [
            f"$ORIGIN {self.origin}.",
            "$TTL 300",
            "@ SOA localhost. nobody.invalid. 1 3600 900 604800 60",
            "@ NS localhost.",
        ]
        records = [f"{owner} {record}" for owner, records in self.entries.items() for record in records]
        return "\n".join([*head, *records]) + "\n"

    def of_bind(self) -> str:
        """Its place in BIND's `response-policy`."""
        return f'zone "{self.origin}" policy {self.use};'

    def of_dnsblock(self, primary: str | None = None) -> dict:
        """Its place in dnsblock's `zones`: from its file, or by zone transfer."""
        return {
            "name": self.origin,
            "rpz": {"file": self.file} if primary is None else {"primaries": [primary]},
            "answer": OVERRIDES.get(self.use, GIVEN),
            "mode": "shadow" if self.use == DISABLED else "enforce",
            "source": {"guards": {"public_suffix": "accept"}},
        }


def reversed_prefix(prefix: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    """The prefix as RPZ writes it, such as 24.0.2.0.192 and 48.zz.1.db8.2001."""
    if prefix.version == 4:
        parts = str(prefix.network_address).split(".")
    else:
        parts = str(prefix.network_address).replace("::", ":zz:").strip(":").split(":")
    return ".".join([str(prefix.prefixlen), *reversed(parts)])


class Writer:
    """Writes the entries of one zone."""

    def __init__(self, rng: random.Random, zone: PolicyZone, taken: set[str]) -> None:
        self.rng = rng
        self.zone = zone
        self._taken = taken  # the owners in their first spelling, and prefixes that other zones have

    def names(self, count: int) -> None:
        rng = self.rng
        for _ in range(count):
            name = rng.choice(OWNERS)
            owner = f"*.{name}" if rng.random() < 0.4 else name
            self._entry(owner, old_passthru=None if owner.startswith("*") else name)
        if rng.random() < 0.15:
            # It makes an empty name of the parent, so that the next entry does not cover the witness.
            self.zone.entries[f"entry.{WITNESSED}"] = ["CNAME rpz-passthru."]
            self._entry("*", old_passthru=None)

    def addresses(self, count: int) -> None:
        """At most one prefix of each length, counted as IPv6.

        Among several, BIND takes the one with the smaller name, not with the smaller address (section 5.7).
        """
        lengths = set()
        for _ in range(count):
            address = ipaddress.ip_address(self.rng.choice(self.rng.choice((IPV4, IPV4, IPV6))))
            length = self.rng.choice(LENGTHS[address.version])
            as_ipv6 = length + 96 if address.version == 4 else length
            if as_ipv6 not in lengths:
                lengths.add(as_ipv6)
                self._prefix(address, length, "rpz-ip")

    def clients(self, count: int) -> None:
        for _ in range(count):
            address = ipaddress.ip_address(self.rng.choice(CLIENTS[1:]))
            self._prefix(address, self.rng.choice(LENGTHS_OF_CLIENTS[address.version]), "rpz-client-ip")

    def _prefix(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int, kind: str) -> None:
        name = reversed_prefix(ipaddress.ip_network((address, length), strict=False))
        self._entry(f"{name}.{kind}", old_passthru=name)

    def _entry(self, owner: str, old_passthru: str | None) -> None:
        """`old_passthru`: the name in a CNAME that says passthru, without the zone's and the trigger's."""
        if owner not in self._taken:
            self._taken.add(owner)
            self.zone.entries[self._spelt(owner)] = self._records(old_passthru)

    def _spelt(self, owner: str) -> str:
        """The same owner in any spelling of RFC 1035 section 5.1 that BIND accepts for it."""
        style = self.rng.random()
        if style < 0.15:
            return f"{owner}.{self.zone.origin}."
        if style < 0.25:
            return owner.upper()
        if style < 0.35 and owner[0] in "ab":
            return f"\\{ord(owner[0]):03}{owner[1:]}"
        return owner

    def _records(self, old_passthru: str | None) -> list[str]:
        passthru = self.rng.choice(("rpz-passthru.", "RPZ-Passthru."))
        if old_passthru is not None and self.rng.random() < 0.3:
            passthru = f"{old_passthru}."
        weighted = {
            "CNAME .": 3,
            "CNAME *.": 2,
            f"CNAME {passthru}": 3,
            "CNAME rpz-drop.": 1,
            "CNAME rpz-tcp-only.": 2,
            f"CNAME {self.rng.choice(TARGETS)}.": 2,
            f"CNAME *.{GARDEN}.": 2,
            "data": 4,
        }
        (action,) = self.rng.choices(list(weighted), list(weighted.values()))
        return self._data() if action == "data" else [action]

    def _data(self) -> list[str]:
        """Records of one or several types, which no other entry has."""
        rng = self.rng
        number = f"{rng.randrange(1, 255)}.{rng.randrange(1, 255)}"
        choices = [
            [f"A 203.0.{number}", f"A 233.252.{number}"][: rng.randint(1, 2)],
            [f"AAAA 2001:db8:ffff::{number.replace('.', ':')}"],
            [f'600 TXT "{self.zone.origin} {number}"', 'TXT "more"'][: rng.randint(1, 2)],
            [f"MX 10 m{number.replace('.', '-')}.land."],
        ]
        kinds = rng.sample(range(len(choices)), rng.choice((1, 1, 2, 3)))
        return [record for kind in sorted(kinds) for record in choices[kind]]


def policy_zones(rng: random.Random) -> list[PolicyZone]:
    """Without what BIND decides by accident (rpz_rewrite_ip in its lib/ns/query.c).

    A long prefix of a disabled zone hides a shorter one of the zones behind it. And if two zones have the
    same prefix for an address of a response, what they do depends on the other addresses and their order.

    Addresses are in the last zones, and behind the first of them are no names and clients. dnsblock does
    not ask the upstream if one of these decides, whatever address an earlier zone may have.
    """
    zones = []
    prefixes: set[str] = set()
    count = rng.choice((1, 2, 2, 3, 3, 4))
    first_with_addresses = rng.randint(1, count + 1)
    for number in range(1, count + 1):
        (use,) = rng.choices([GIVEN, DISABLED, *OVERRIDES], [16, 2, *[1] * len(OVERRIDES)])
        zone = PolicyZone(f"rpz{number}", use)
        if number <= first_with_addresses:
            Writer(rng, zone, set()).names(rng.randint(4, 14))
        if use != DISABLED or number == count:
            if number >= first_with_addresses:
                Writer(rng, zone, prefixes).addresses(rng.choice((1, 2, 4, 8)))
            if number <= first_with_addresses:
                Writer(rng, zone, set()).clients(rng.choice((0, 0, 1, 2, 3)))
        zones.append(zone)
    return zones


# ------- The upstream ----------------------------------------------------------------


class Table:
    """The names of the upstream: chains that end in addresses, in other types, or in no name at all."""

    def __init__(self, rng: random.Random) -> None:
        self._chains: dict[str, str] = {}
        self._records: dict[str, list[tuple[str, str]]] = {}
        for name in TARGETS:
            if rng.random() < 0.8:
                self._records[name] = self._of(rng)
        order = rng.sample(NAMES, len(NAMES))
        lengths = dict.fromkeys(order, 0)
        for at, name in enumerate(order):
            target = rng.choice(order[:at]) if at else name
            if at and rng.random() < 0.4 and lengths[target] < 4:
                self._chains[name] = target
                lengths[name] = lengths[target] + 1
            elif rng.random() < 0.9:
                self._records[name] = self._of(rng)
            # else: there is no such name

    def __str__(self) -> str:
        lines = [f"{name} CNAME {target}" for name, target in self._chains.items()]
        lines += [f"{name} {one[0]} {one[1]}" for name, found in self._records.items() for one in found]
        return "\n".join(sorted(lines))

    @staticmethod
    def _of(rng: random.Random) -> list[tuple[str, str]]:
        ipv4 = rng.sample(IPV4, rng.choice((0, 1, 1, 2, 3)))
        ipv6 = rng.sample(IPV6, rng.choice((0, 0, 1, 2)))
        found = [("A", address) for address in ipv4] + [("AAAA", address) for address in ipv6]
        if rng.random() < 0.4:
            found.append(("TXT", "of the upstream"))
        if rng.random() < 0.3:
            found.append(("MX", "mail.land"))
        return found

    def answer(self, asked: Asked) -> bytes:
        """The script of a stub upstream."""
        name, answer, is_followed = asked.name.lower(), [], asked.qtype not in (wire.QTYPES["CNAME"], 255)
        while target := self._target(name, answer):
            answer.append(wire.record(name, "CNAME", wire.name_to_wire(target)))
            if not is_followed:
                return asked.response(answer)
            name = target
        records = self._known(name)
        found = [
            wire.record(name, rtype, _rdata(rtype, data))
            for rtype, data in records or ()
            if asked.qtype in (wire.QTYPES[rtype], 255)
        ]
        soa = wire.name_to_wire("ns.upstream.example") * 2 + struct.pack("!5I", 7, 60, 60, 60, 60)
        authority = [] if found else [wire.record(b"\0", "SOA", soa)]
        return asked.response(answer + found, authority, rcode=3 if records is None else 0)

    def _target(self, name: str, answer: list[bytes]) -> str | None:
        """The target of its alias, if any. A DNAME above it is added to the answer."""
        if name.endswith(".dn"):
            answer.append(wire.record("dn", DNAME, wire.name_to_wire("t")))
            return name.removesuffix("dn") + "t"
        if name.endswith(f".{WITNESSED}") and name.count(".") < 7:
            return f"x.{name}"
        return self._chains.get(name)

    def _known(self, name: str) -> list[tuple[str, str]] | None:
        """Its records. Names below the garden are all there, with the address of none that is a trigger."""
        if name.endswith(f".{GARDEN}"):
            return [("A", "233.252.0.1"), ("TXT", "garden")]
        if name.endswith(f".{WITNESSED}") or name == "dn":
            return []
        return self._records.get(name)


def _rdata(rtype: str, data: str) -> bytes:
    if rtype == "TXT":
        return bytes([len(data)]) + data.encode("ascii")
    if rtype == "MX":
        return struct.pack("!H", 10) + wire.name_to_wire(data)
    return ipaddress.ip_address(data).packed


# ------- Zones, upstream and queries of one seed -----------------------------------------


@dataclass(frozen=True)
class Ask:
    """One query, and the address that it comes from."""

    name: str
    qtype: str
    client: str = CLIENTS[0]
    transport: str = "udp"

    @property
    def family(self) -> int:
        return ipaddress.ip_address(self.client).version


class Generation:
    """The zones of one seed, the upstream behind them, and what is asked."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.zones = policy_zones(rng)
        self.table = Table(rng)
        self.asks = self._asks(rng)

    @staticmethod
    def _asks(rng: random.Random) -> list[Ask]:
        """Every name and type from the first client, and a sample from the others and over TCP.

        ANY comes first: what is in BIND's cache already would be its whole answer.
        """
        names = [*NAMES, *BEHIND_DNAME, f"a.t.{GARDEN}", "absent"]
        asks = [Ask(name, qtype) for qtype in QTYPES for name in names]
        for client in CLIENTS[1:]:
            some = rng.sample(names, 12)
            asks += [Ask(name, qtype, client) for qtype in ("ANY", "A", "TXT") for name in some]
        over_tcp = [Ask(one.name, one.qtype, one.client, "tcp") for one in rng.sample(asks, 60)]
        return sorted([*asks, *over_tcp], key=lambda ask: QTYPES.index(ask.qtype))
