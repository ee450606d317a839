"""Primaries that are behind, close connections early, hang, or give odd times."""

import json
from collections.abc import Iterable
from contextlib import suppress

import dns.flags
import dns.message
import pytest

from .harness import Subject
from .lists import source
from .primaries import Timers
from .scripted_primary import (
    Asked,
    Close,
    Rule,
    ScriptedPrimary,
    Sent,
    axfr,
    refuses,
    says_nothing,
    sends,
    soa,
    then_closes,
)
from .tools import wait_for
from .transfers import (
    LAX,
    ZONE,
    assert_fails,
    assert_refreshes,
    block_range,
    blocked,
    blocks,
    notify,
    send_notify,
    serial_in_force,
    start,
    transfers,
    wait_blocked,
    zone_from,
)
from .upstreams import StubUpstream

BASE = block_range(30)
CHANGED = [*BASE, *blocks("new.example")]


def closes(_asked: Asked) -> Iterable[Sent]:
    """The end of the connection instead of a response."""
    return [Close()]


def test_an_older_zone_behind_the_same_address_is_not_taken(subject: Subject, upstream: StubUpstream):
    """Of several servers with one address, one may be behind: its zone would lift or restore blocks."""
    with ScriptedPrimary(BASE, serial=10) as primary:
        start(subject, upstream, zone_from(primary.address, source=LAX))
        primary.publish(CHANGED)
        primary.rules = {"IXFR": refuses(4), "AXFR": sends(axfr(3, BASE[1:]))}
        assert_fails(subject, "SERIAL")
        assert (serial_in_force(subject), blocked(subject, "n0.example")) == (10, [True])
        primary.rules = {}
        assert_refreshes(subject)
        assert blocked(subject, "new.example") == [True]


def test_a_zone_whose_serial_began_again_is_taken_on_request(subject: Subject, upstream: StubUpstream):
    """`dnsblock source refresh ZONE --whole`: the operator knows that the primary is right."""
    with ScriptedPrimary(BASE, serial=10) as primary:
        start(subject, upstream, zone_from(primary.address, source=LAX))
        primary.publish(BASE[1:], serial=2)
        assert_fails(subject, "SERIAL")
        assert subject.cli("source refresh", ZONE, "--whole").code == 0
        assert (serial_in_force(subject), blocked(subject, "n0.example")) == (2, [False])


@pytest.mark.parametrize("query", ["SOA", "IXFR"])
def test_a_connection_that_ends_early_costs_only_itself(subject: Subject, upstream: StubUpstream, query: str):
    """RFC 7766 section 6.2.3: a server may close a connection at any time, also before an answer."""
    with ScriptedPrimary(BASE) as primary:
        start(subject, upstream, zone_from(primary.address, source=LAX))
        primary.publish(CHANGED)
        primary.rules = {"SOA": then_closes(primary.answer)} if query == "SOA" else {"IXFR": closes}
        assert_refreshes(subject)
        assert blocked(subject, "new.example") == [True]
        assert transfers(subject, "ixfr" if query == "SOA" else "axfr") == (1 if query == "SOA" else 2)


def empties(asked: Asked) -> Iterable[Sent]:
    """The new SOA record twice: an empty zone in AXFR, and no difference."""
    return [asked.response([soa(2), soa(2)])]


@pytest.mark.parametrize("rule", [refuses(1), empties], ids=["FORMERR", "two SOA records"])
def test_the_whole_zone_follows_an_ixfr_that_fails(subject: Subject, upstream: StubUpstream, rule: Rule):
    """A primary need not know IXFR, and a difference must not empty a zone."""
    with ScriptedPrimary(BASE) as primary:
        start(subject, upstream, zone_from(primary.address, source=LAX))
        primary.publish(CHANGED)
        primary.rules = {"IXFR": rule}
        assert_refreshes(subject)
        assert blocked(subject, "n0.example", "new.example") == [True, True]


def test_an_answer_without_authority_is_not_believed(subject: Subject, upstream: StubUpstream):
    """A cache or a lame server may say an old serial for ever (RFC 1034 section 4.3.5)."""

    def lame(asked: Asked) -> Iterable[Sent]:
        response = asked.response([soa(1)])
        response.flags &= ~dns.flags.AA
        return [response]

    with ScriptedPrimary(BASE) as primary:
        start(subject, upstream, zone_from(primary.address, source=LAX))
        primary.rules = {"SOA": lame}
        assert_fails(subject, "PROTOCOL")


def test_a_primary_that_hangs_does_not_hold_up_another(subject: Subject, upstream: StubUpstream):
    """The one that has sent NOTIFY is asked first, and no other one after it."""
    with ScriptedPrimary(BASE, host="127.0.0.2") as hanging, ScriptedPrimary(BASE) as primary:
        start(subject, upstream, zone_from(hanging.address, primary.address, source=LAX))
        hanging.rules = {"SOA": says_nothing}
        primary.publish(CHANGED)
        asked = hanging.count("SOA")
        send_notify(subject, notify())
        wait_blocked(subject, "new.example")
        assert hanging.count("SOA") == asked


@pytest.mark.parametrize("expire", [0, 2])
def test_a_zone_does_not_expire_before_its_primaries_are_asked_again(
    subject: Subject, upstream: StubUpstream, expire: int
):
    """EXPIRE is at least REFRESH and RETRY together, as in BIND: a mistake must not lift every block."""
    with ScriptedPrimary(BASE, timers=Timers(refresh=3600, retry=900, expire=expire)) as primary:
        start(subject, upstream, zone_from(primary.address, on_expire="withdraw"))
        assert subject.cli("reload").code == 0
        last = source(subject, ZONE)["transfer"]
        assert (last["expired"], blocked(subject, "n0.example")) == (None, [True])
        assert subject.metrics().total("dnsblock_zone_expired", zone=ZONE) == 0


def test_an_expired_zone_is_a_shadow_zone_in_the_status(subject: Subject, upstream: StubUpstream):
    """The mode in `dnsblock status` is the one in force, and the reason is below it."""
    with ScriptedPrimary(BASE, timers=Timers(refresh=1, retry=1, expire=1)) as primary:
        start(subject, upstream, zone_from(primary.address, on_expire="shadow"))
        primary.close()

        def mode() -> str:
            return subject.cli("status").json["zones"][0]["mode"]

        wait_for(lambda: mode() == "shadow", "the zone has expired")
        assert f"list {ZONE} has expired: " in subject.cli("status", as_json=False).stdout


@pytest.mark.parametrize("text", ["{", "[]", '{"zone": 1}', '{"expire": "x"}'])
def test_a_state_file_that_cannot_be_used_costs_one_whole_transfer(
    subject: Subject, upstream: StubUpstream, text: str
):
    """Whatever a crash or a person leaves there: the daemon starts, and the zone is in force."""
    with ScriptedPrimary(BASE) as primary:
        start(subject, upstream, zone_from(primary.address, source=LAX))
        subject.stop()
        [path] = (subject.folder / "state" / "feeds").glob("*.transfer.json")
        with suppress(ValueError, TypeError):
            text = json.dumps(json.loads(path.read_text(encoding="utf-8")) | json.loads(text))
        path.write_text(text, encoding="utf-8")
        start(subject, upstream, zone_from(primary.address, source=LAX))
        assert blocked(subject, "n0.example") == [True]
        wait_for(lambda: transfers(subject, "axfr") == 1, "the whole zone is transferred again")


def test_a_record_of_many_bytes_is_read(subject: Subject, upstream: StubUpstream):
    """The data of a record may have 64 KiB; its text in the copy has twice as many bytes."""
    text = " ".join('"' + "x" * 250 + '"' for _ in range(40))
    with ScriptedPrimary([*BASE, f"big.example TXT {text}"]) as primary:
        start(subject, upstream, zone_from(primary.address))
        assert source(subject, ZONE)["report"]["rejected"] == 0
        assert subject.query("big.example", "TXT", transport="tcp").rcode == "NOERROR"


def test_notify_follows_the_rules_for_queries(subject: Subject, upstream: StubUpstream):
    """RFC 6891 section 6.1.3: an unknown version is BADVERS. A truncated message is malformed."""
    with ScriptedPrimary(BASE) as primary:
        start(subject, upstream, zone_from(primary.address))
        for change, expected in ((lambda m: m.use_edns(1), "BADVERS"), (truncated, "FORMERR")):
            message = notify()
            change(message)
            response = send_notify(subject, message)
            assert dns.rcode.to_text(response.rcode()) == expected
        assert subject.metrics().total("dnsblock_notifies_total", result="accepted") == 0


def truncated(message: dns.message.Message) -> None:
    message.flags |= dns.flags.TC
