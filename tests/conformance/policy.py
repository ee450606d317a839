"""The one policy of the portable tests: as an RPZ zone, and as an order with a configuration of dnsblock.

RPZ is draft-vixie-dnsop-dns-rpz; a subtree is two records there, the name and everything below it.
"""

import random
from dataclasses import dataclass

from .asking import SINKHOLE4, SINKHOLE6
from .orders import ISSUER, block

ZONE = "policy.rpz"
TTL = 30
LANDING = "landing.example"

# Blocked, each with all that is below it.
SINKHOLED = "sinkholed.example"
SINKHOLED4 = "four.example"  # its sinkhole has an IPv4 address only
NO_SUCH_NAME = "nxdomain.example"
NO_DATA = "nodata.example"
DROPPED = "dropped.example"
TCP_ONLY = "tcponly.example"
LANDED = "landed.example"  # a CNAME to LANDING
HOSTED = "hosted.example"  # a CNAME to BLOCK_PAGE, which lies in a blocked subtree itself
PAGES = "pages.example"  # blocked by a list: an order may not block its own landing name
BLOCK_PAGE = f"page.{PAGES}"
GARDEN = "garden.example"  # a CNAME to the queried name below LANDING
SHORT = "t.me"
RELAY = "mask.icloud.com"
# Not blocked: passthru.
PASSED = "passed.example"
# The name alone, and what is below it alone.
EXACT = "exact.example"
EXACT_NO_SUCH_NAME = "exact-nxdomain.example"
BELOW = "below.example"
# Entries beneath entries.
WITH_EXEMPTION = "holey.example"
EXEMPT = f"hole.{WITH_EXEMPTION}"  # passed
BLOCKED_IN_EXEMPT = f"blocked.{EXEMPT}"
NO_SUCH_NAME_WITH_EXEMPTION = "holey-nxdomain.example"
DEEP_EXEMPT = f"ok.deep.{NO_SUCH_NAME_WITH_EXEMPTION}"  # passed
LONG = "long.example"
LONGER = f"longer.{LONG}"  # NODATA
EXACT_IN_LONG = f"alone.{LONG}"  # NODATA, the name alone
DEEP_IN_LONG = f"a.b.c.d.{LONG}"  # NODATA, the name alone, with empty names above it
MANY_LABELS = "a.b.c.d.e.f.g.h.i.j.many.example"  # the name alone


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    action: str
    match: str = "subtree"


ENTRIES = (
    Entry(SINKHOLED, "sinkhole"),
    Entry(PAGES, "sinkhole"),
    Entry(SINKHOLED4, "sinkhole4"),
    Entry(NO_SUCH_NAME, "nxdomain"),
    Entry(NO_DATA, "nodata"),
    Entry(DROPPED, "drop"),
    Entry(TCP_ONLY, "truncate"),
    Entry(LANDED, "landing"),
    Entry(HOSTED, "hosted"),
    Entry(GARDEN, "garden"),
    Entry(SHORT, "sinkhole"),
    Entry(RELAY, "nxdomain"),
    Entry(PASSED, "passthru"),
    Entry(EXACT, "sinkhole", "exact"),
    Entry(EXACT_NO_SUCH_NAME, "nxdomain", "exact"),
    Entry(BELOW, "sinkhole", "below"),
    Entry(WITH_EXEMPTION, "sinkhole"),
    Entry(EXEMPT, "passthru"),
    Entry(BLOCKED_IN_EXEMPT, "sinkhole"),
    Entry(NO_SUCH_NAME_WITH_EXEMPTION, "nxdomain"),
    Entry(DEEP_EXEMPT, "passthru"),
    Entry(LONG, "sinkhole"),
    Entry(LONGER, "nodata"),
    Entry(EXACT_IN_LONG, "nodata", "exact"),
    Entry(DEEP_IN_LONG, "nodata", "exact"),
    Entry(MANY_LABELS, "sinkhole", "exact"),
)

RPZ = {
    "sinkhole": (f"A {SINKHOLE4}", f"AAAA {SINKHOLE6}"),
    "sinkhole4": (f"A {SINKHOLE4}",),
    "nxdomain": ("CNAME .",),
    "nodata": ("CNAME *.",),
    "passthru": ("CNAME rpz-passthru.",),
    "drop": ("CNAME rpz-drop.",),
    "truncate": ("CNAME rpz-tcp-only.",),
    "landing": (f"CNAME {LANDING}.",),
    "hosted": (f"CNAME {BLOCK_PAGE}.",),
    "garden": (f"CNAME *.{LANDING}.",),
}

PROFILES = {
    "sinkhole": {"action": "sinkhole", "ipv4": [SINKHOLE4], "ipv6": [SINKHOLE6], "ttl": TTL},
    "sinkhole4": {"action": "sinkhole", "ipv4": [SINKHOLE4], "ttl": TTL},
    "landing": {"action": "cname", "target": f"{LANDING}.", "ttl": TTL},
    "hosted": {"action": "cname", "target": f"{BLOCK_PAGE}.", "ttl": TTL},
    "garden": {"action": "cname", "target": f"*.{LANDING}.", "ttl": TTL},
}


def rpz_zone() -> str:
    """The policy as a zone file. Only 127.0.0.1 and ::1 are clients, which no zone can say."""
    lines = [
        f"$ORIGIN {ZONE}.",
        f"$TTL {TTL}",
        f"@ SOA localhost. nobody.invalid. 1 3600 900 604800 {TTL}",
        "@ NS localhost.",
    ]
    for entry in ENTRIES:
        owners = {"exact": ("",), "below": ("*.",), "subtree": ("", "*.")}[entry.match]
        lines += [f"{owner}{entry.name} {data}" for owner in owners for data in RPZ[entry.action]]
    return "\n".join(lines) + "\n"


def configuration(upstream: str) -> dict:
    """The policy for `Subject.start`."""
    entries = [
        {"name": entry.name, "match": entry.match, "answer": entry.action}
        for entry in ENTRIES
        if entry.name != PAGES
    ]
    return {
        "orders": [block("PORTABLE-1", entries, acks=["POPULAR"])],
        "answers": PROFILES,
        "zones": [
            {"name": "policy", "issuer": ISSUER, "unsigned": "accept", "answer": "sinkhole"},
            {"name": "pages", "list": "pages.txt", "match": "subtree", "answer": "sinkhole"},
        ],
        "lists": {"pages.txt": [PAGES]},
        "access_control": {"allow": ["127.0.0.1/32", "::1/128"]},
        "upstreams": [upstream],
    }


def free(name: str = "free.example") -> str:
    """A name that no entry covers and that no cache has seen."""
    return f"n{random.randrange(1 << 40)}.{name}"
