"""No cache keeps an answer beyond the time at which an order is known to start or to end (trap 11)."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from .clocks import FakeClock
from .harness import PROFILES, Subject
from .orders import block, exempt, order, stamp, unblock
from .tools import wait_for
from .upstreams import StubUpstream

TTL = 3600
SECONDS = 1000  # until the change
COURT = "court.example"
ANSWERS = {"sinkhole": PROFILES["sinkhole"] | {"ttl": TTL}}
STAYS = block("STAYS", ["stays.example"])
OTHER = block("OTHER", ["other.example"])


def ends(order_id: str, action: str, target: str, **fields: object) -> dict[str, object]:
    return order(order_id, action, targets=[{"order_id": target, "entries": "all"}], **fields)


def notice(order_id: str, **fields: object) -> dict[str, object]:
    return order(order_id, "notice", entries=["new.example"], **fields)


# Orders of which something changes at a time.
CHANGES = {
    "a-block-begins": lambda then: [block("B", ["new.example"], effective_at=then)],
    "a-block-expires": lambda then: [block("B", ["old.example"], expires_at=then)],
    "an-unblock-takes-effect": lambda then: [OTHER, unblock("U", "OTHER", effective_at=then)],
    "an-unblock-of-one-entry": lambda then: [
        block("B", ["a.example", "b.example"]),
        unblock("U", "B", ["a.example"], effective_at=then),
    ],
    "an-order-is-revoked": lambda then: [OTHER, ends("R", "revoke", "OTHER", effective_at=then)],
    "an-order-is-superseded": lambda then: [
        OTHER,
        ends("S", "supersede", "OTHER", entries=["new.example"], effective_at=then),
    ],
    "an-exemption-begins": lambda then: [exempt("E", ["www.stays.example"], effective_at=then)],
    "an-exemption-expires": lambda then: [exempt("E", ["www.stays.example"], expires_at=then)],
    "an-exemption-is-revoked": lambda then: [
        exempt("E", ["www.stays.example"]),
        ends("R", "revoke", "E", effective_at=then),
    ],
}
NONE = {
    "a-notice-begins": lambda then: [notice("N", effective_at=then)],
    "a-notice-expires": lambda then: [notice("N", expires_at=then)],
    "a-held-block-begins": lambda then: [block("B", ["popular.example"], effective_at=then)],
    "an-ended-block-expires": lambda then: [block("B", ["old.example"], expires_at=then), unblock("U", "B")],
    "an-unblock-of-ended-entries": lambda then: [
        OTHER,
        unblock("U-1", "OTHER"),
        unblock("U-2", "OTHER", effective_at=then),
    ],
    "a-status-statement-is-over": lambda then: [
        order("P", "snapshot", statement={"entries": "0", "digest": "ab" * 32, "valid_until": then})
    ],
}


def start(subject: Subject, upstream: StubUpstream, orders: Callable[[str], list[dict]]) -> datetime:
    """Returns when something changes. Another issuer has a zone of its own, and an earlier change."""
    then = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=SECONDS)
    popular = subject.folder / "popular.csv"
    popular.write_text("popular.example\n")
    zones = [
        {"name": issuer, "issuer": issuer, "unsigned": "accept", "answer": "sinkhole"}
        for issuer in ("ministry.example", COURT)
    ]
    soon = stamp(then - timedelta(seconds=SECONDS / 2))
    others = [
        block("C-1", ["court-name.example"], issuer=COURT),
        block("C-2", ["court-soon.example"], issuer=COURT, effective_at=soon),
    ]
    subject.start(
        orders=[STAYS, *orders(stamp(then)), *others],
        zones=zones,
        answers=ANSWERS,
        upstreams=[upstream.address],
        guards={"popular": str(popular)},
    )
    assert subject.status()["refused_documents"] == []
    return then


def dig_ttls(subject: Subject, name: str) -> set[int]:
    """The TTLs of the answer for addresses, and of the SOA of a negative answer."""
    found: set[int] = set()
    for rrtype, section in (("A", "answer"), ("AAAA", "answer"), ("TXT", "authority")):
        said = subject.dig("+noall", f"+{section}", name, rrtype)
        records = re.findall(rf"^{re.escape(name)}\.?\s+(\d+)\s+IN\s+(?:A|AAAA|SOA)\s", said, re.MULTILINE)
        assert records, said
        found |= {int(ttl) for ttl in records}
    return found


@pytest.mark.parametrize("change", CHANGES)
def test_ttls_end_with_a_change_of_the_same_issuer(
    subject: Subject, upstream: StubUpstream, clock: FakeClock, change: str
):
    """All answers of the zone, whichever of its names change."""
    then = start(subject, upstream, CHANGES[change])
    before = (then - datetime.now(UTC)).total_seconds()
    ttls = dig_ttls(subject, "stays.example")
    after = (then - datetime.now(UTC)).total_seconds()
    assert all(int(after) <= ttl <= before + 1 for ttl in ttls), ttls
    clock.step_to(SECONDS + 5)
    wait_for(lambda: dig_ttls(subject, "stays.example") == {TTL}, "the change is over")


@pytest.mark.parametrize("change", NONE)
def test_ttls_are_not_shortened_if_no_entry_starts_or_ends(
    subject: Subject, upstream: StubUpstream, change: str
):
    """A notice, for example, blocks nothing. The change of another issuer concerns its own zone."""
    start(subject, upstream, NONE[change])
    assert dig_ttls(subject, "stays.example") == {TTL}
    assert max(dig_ttls(subject, "court-name.example")) <= SECONDS / 2 + 1
