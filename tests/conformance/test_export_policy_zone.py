"""A policy zone that is exported alone and read again is the same zone."""

import random

import pytest

from .harness import Subject
from .policy_zones import start
from .rpz_zones import DISABLED, GIVEN, policy_zones
from .upstreams import StubUpstream

SEEDS = range(16)
OWN = """\
@ 60 SOA localhost. nobody.invalid. 1 3600 900 604800 60
$TTL 3600
long.example A 192.0.2.7
long.example AAAA 2001:db8::7
*.wild.example CNAME .
passed.wild.example 7 CNAME rpz-passthru.
deep.below.wild.example CNAME rpz-passthru.
* CNAME rpz-tcp-only.
24.0.2.0.192.rpz-ip CNAME rpz-passthru.
32.1.2.0.192.rpz-client-ip CNAME rpz-drop.
"""


def configured(origin: str, **options: object) -> dict:
    """The zone with this name, from its file."""
    guards = {"public_suffix": "accept"}
    return {
        "name": origin,
        "rpz": {"file": f"{origin}.zone", **options},
        "answer": GIVEN,
        "source": {"guards": guards},
    }


def copies(subject: Subject, origins: list[str]) -> dict[str, str]:
    """The export of each zone."""
    found = {}
    for origin in origins:
        said = subject.cli("export", "rpz", "--zone", origin, "--origin", origin, as_json=False)
        assert said.code == 0, said
        found[origin] = said.stdout
    return found


def digests(subject: Subject) -> dict[str, str]:
    return {zone["name"]: zone["digest"] for zone in subject.status()["zones"]}


def records(text: str) -> list[str]:
    return sorted(line for line in text.splitlines() if not line.startswith((";", "$", "@ ")))


@pytest.fixture
def zones() -> dict[str, str]:
    """The text of random policy zones with every trigger and action, and of one with its own TTLs."""
    texts = {}
    for seed in SEEDS:
        for zone in policy_zones(random.Random(seed)):
            if zone.use != DISABLED:
                origin = f"{zone.origin}-{seed}"
                texts[origin] = zone.text().replace(f"{zone.origin}.", f"{origin}.")
    return texts | {"own": OWN}


def test_a_policy_zone_has_the_same_digest_after_a_round_trip(
    subject: Subject, upstream: StubUpstream, zones: dict[str, str]
):
    """Passthru, wildcards, empty non-terminals, triggers of addresses, and TTLs above `max_ttl`."""
    all_of_them = [configured(origin) for origin in zones]
    files = {f"{origin}.zone": text for origin, text in zones.items()}
    start(subject, upstream, *all_of_them, files=files)
    before, written = digests(subject), copies(subject, list(zones))
    subject.stop()
    subject.configure(
        zones=all_of_them,
        lists={f"{origin}.zone": text for origin, text in written.items()},
        upstreams=[upstream.address],
        state="another state",
    )
    subject.launch()
    assert digests(subject) == before
    assert {origin: records(text) for origin, text in copies(subject, list(zones)).items()} == {
        origin: records(text) for origin, text in written.items()
    }


def test_a_policy_zone_keeps_its_records_and_ttls(subject: Subject, upstream: StubUpstream):
    """The TTLs of answers are at most `max_ttl`; those of the copy are those of the zone."""
    start(subject, upstream, configured("own", max_ttl=10), files={"own.zone": OWN})
    expected = [
        "* 3600 CNAME rpz-tcp-only.",
        "*.wild.example 3600 CNAME .",
        "24.0.2.0.192.rpz-ip 3600 CNAME rpz-passthru.",
        "32.1.2.0.192.rpz-client-ip 3600 CNAME rpz-drop.",
        "deep.below.wild.example 3600 CNAME rpz-passthru.",
        "long.example 3600 A 192.0.2.7",
        "long.example 3600 AAAA 2001:db8::7",
        "passed.wild.example 7 CNAME rpz-passthru.",
    ]
    assert records(copies(subject, ["own"])["own"]) == expected
