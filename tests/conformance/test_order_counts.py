"""How many queries each order blocks: the metric, `order show`, and who may see it."""

from . import wire
from .harness import ISSUER, ORDERS_ZONE, PROFILES, Subject, is_sinkholed
from .issuing import COURT, IssuersApi
from .orders import as_yaml, block, in_seconds, stamp, unblock
from .upstreams import Asked, StubUpstream

NAME = "dnsblock_order_blocked_total"


def counted(subject: Subject) -> dict[str, float]:
    """The metric by order."""
    return {
        dict(labels)["order_id"]: value for (name, labels), value in subject.metrics().items() if name == NAME
    }


def shown(subject: Subject, number: str) -> int | None:
    return subject.cli("order show", number).json["blocked_queries"]


def test_a_query_counts_for_the_order_that_decides(subject: Subject, upstream: StubUpstream):
    """Of overlapping orders, that is the one that was effective first."""
    first, later = ({"effective_at": stamp(in_seconds(-seconds))} for seconds in (3600, 60))
    orders = [
        block("84-2017", ["one.example", "two.example"], **first),
        block("85-2017", ["two.example", "three.example"], **later),
        block("86-2017", ["two.example"], **later),
    ]
    subject.start(upstreams=[upstream.address], orders=orders)
    asked = ["one.example", "www.one.example", "two.example", "three.example", "open.example"]
    for transport in ("udp", "tcp"):
        for name in asked:
            subject.query(name, transport=transport)
    assert counted(subject) == {"84-2017": 6, "85-2017": 2, "86-2017": 0}
    assert [shown(subject, number) for number in ("84-2017", "85-2017", "86-2017")] == [6, 2, 0]
    assert "6 blocked since the daemon started" in subject.cli("order show", "84-2017", as_json=False).stdout
    assert sum(counted(subject).values()) == subject.metrics().total("dnsblock_blocked_total")


def test_a_query_counts_for_the_order_of_its_target(subject: Subject, upstream: StubUpstream):
    """The response of the upstream has a CNAME to a blocked name."""

    def alias(asked: Asked) -> bytes:
        return asked.response([wire.record(asked.name, "CNAME", wire.name_to_wire("blocked.example"))])

    upstream.script = alias
    subject.start(upstreams=[upstream.address], orders=[block("84-2017", ["blocked.example"])])
    assert is_sinkholed(subject.query("alias.example"))
    assert counted(subject) == {"84-2017": 1}


def test_the_count_goes_on_when_the_order_ends_and_when_others_come(subject: Subject, upstream: StubUpstream):
    """As a Prometheus counter must. A restart begins at zero, as all counters do."""
    subject.start(upstreams=[upstream.address])
    subject.submit("one.yaml", as_yaml(block("84-2017", ["one.example"])).encode())
    assert is_sinkholed(subject.query("one.example"))
    subject.submit("two.yaml", as_yaml(block("85-2017", ["two.example"])).encode())
    assert is_sinkholed(subject.query("one.example"))
    subject.submit("lift.yaml", as_yaml(unblock("86-2017", "84-2017")).encode())
    assert not is_sinkholed(subject.query("one.example"))
    assert counted(subject) == {"84-2017": 2, "85-2017": 0}
    assert [shown(subject, number) for number in ("84-2017", "85-2017", "86-2017")] == [2, 0, None]
    # The zone is compiled again, since its answers change.
    subject.configure(upstreams=[upstream.address], answers=PROFILES | {"sinkhole": {"action": "nxdomain"}})
    subject.reload()
    subject.query("two.example")
    assert counted(subject) == {"84-2017": 2, "85-2017": 1}
    subject.restart()
    assert counted(subject)["85-2017"] == 0
    subject.query("two.example")
    assert counted(subject)["85-2017"] == 1


def test_orders_in_shadow_mode_block_nothing(subject: Subject, upstream: StubUpstream):
    """A query that they would block counts for their zone alone."""
    subject.start(
        upstreams=[upstream.address],
        orders=[block("84-2017", ["one.example"])],
        zones=[ORDERS_ZONE | {"mode": "shadow"}],
    )
    subject.query("one.example")
    assert counted(subject) == {"84-2017": 0}
    assert subject.metrics().total("dnsblock_shadow_blocked_total") == 1


def test_a_draft_that_is_only_checked_has_no_count(subject: Subject, upstream: StubUpstream):
    """Its number is in no metric, and uses none of the limited counters. The console checks as you type."""
    subject.start(upstreams=[upstream.address], orders=[block("84-2017", ["one.example"])])
    draft = subject.folder / "draft.yaml"
    for number in ("85-2017", "86-2017"):
        draft.write_text(as_yaml(block(number, ["two.example"])))
        (document,) = subject.cli("order check", str(draft)).json["documents"]
        assert document["effect"]["added"] == 1, document
    assert counted(subject) == {"84-2017": 0}
    subject.submit("draft.yaml", draft.read_bytes())
    assert is_sinkholed(subject.query("two.example"))
    assert counted(subject) == {"84-2017": 0, "86-2017": 1}


def test_issuers_do_not_see_the_counts(api: IssuersApi):
    """A count that is read again and again shows when somebody asks for a name. Staff see it."""
    api.start()
    api.submit(block("B-1", ["one.example"]))
    api.submit(block("B-1", ["two.example"], issuer=COURT), token="court")
    for name in ("one.example", "two.example", "two.example"):
        assert is_sinkholed(api.subject.query(name))
    seen = {
        (token, issuer): api.get(f"/v1/orders/{issuer}/B-1", token).json()["blocked_queries"]
        for token, issuer in (("ministry", ISSUER), ("court", COURT), ("noc", ISSUER), ("noc", COURT))
    }
    assert list(seen.values()) == [None, None, 1, 2]
