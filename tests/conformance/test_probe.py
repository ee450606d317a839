"""`dnsblock probe` proves that an order is enforced or lifted, and names every wrong response."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from ports import free_port

from . import policy, wire
from .clients import Said
from .harness import ISSUER, ORDERS_ZONE, PROFILES, SINKHOLE4, SINKHOLE6, Subject
from .orders import block, exempt, unblock
from .peers import BindPeer, UnboundPeer
from .test_progress import at_a_terminal
from .upstreams import TELEGRAM, Asked, MakeUpstream, StubUpstream, Unbound, decent

BLOCK = block("84/2017", TELEGRAM)
UNBLOCK = unblock("95/2017", "84/2017")
# No name of these orders is popular, so the guard POPULAR holds none.
UNGUARDED = {"guards": {"popular": "popular.txt"}, "lists": {"popular.txt": ["popular.example"]}}

Start = Callable[..., Subject]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts instances, each in a folder of its own."""
    with ExitStack() as stack:
        folders = iter(range(100))

        def start(**config: object) -> Subject:
            folder = tmp_path / f"instance-{next(folders)}"
            folder.mkdir()
            subject = stack.enter_context(closing(Subject(folder)))
            subject.start(**config)
            return subject

        yield start


def probe(subject: Subject, *arguments: str) -> Said:
    said = subject.cli("probe", *arguments)
    assert said.json is not None, said
    return said


def at(*places: Subject | StubUpstream) -> list[str]:
    """The options for these servers."""
    addresses = []
    for place in places:
        addresses += place.ready["listening"] if isinstance(place, Subject) else [place.address]
    return [option for address in addresses for option in ("--server", address)]


def missed(said: Said) -> dict[tuple[str, str], list[str]]:
    """The types of each (resolver, name) that was missed, without random names below."""
    return {
        (one["resolver"], one["name"]): one["types"]
        for one in said.json["misses"]
        if not one["name"].startswith("probe-")
    }


def rows(said: Said, name: str, **wanted: object) -> list[dict]:
    return [
        row
        for row in said.json["rows"]
        if row["name"] == name and all(row[key] == value for key, value in wanted.items())
    ]


# ------- Blocks -------


def test_a_block_is_proved_over_both_transports_both_families_and_all_types(
    subject: Subject, unbound: Unbound
):
    """Each name: A, AAAA, HTTPS and a random name below, at each listen address."""
    subject.start(orders=[BLOCK], upstreams=[unbound.address], **UNGUARDED)
    said = probe(subject, "--order", "84/2017")
    assert (said.code, said.json["missed"], said.json["misses"]) == (0, 0, [])
    assert said.json["asked"] == len(said.json["rows"]) == 11 * 4 * 2 * 2
    places = {(row["resolver"], row["transport"]) for row in said.json["rows"]}
    assert places == {(place, over) for place in subject.ready["listening"] for over in ("udp", "tcp")}
    for name in TELEGRAM:
        for row in rows(said, name):
            expected = {"A": f"A {SINKHOLE4}", "AAAA": f"AAAA {SINKHOLE6}", "HTTPS": "NODATA"}[row["type"]]
            assert (row["expected"], row["found"]) == (expected, f"{expected}; EDE 16 84/2017")
            assert row["time_ms"] > 0
    below = [row for row in said.json["rows"] if row["name"].startswith("probe-")]
    assert [(row["type"], row["entry"]) for row in below] == [("A", name) for name in TELEGRAM] * 4


def test_each_answer_profile_is_proved(subject: Subject, upstream: StubUpstream):
    """Whatever the order's profile answers: also nothing, over UDP and TCP."""
    actions = ["sinkhole", "four", "nxdomain", "nodata", "refused", "drop", "truncate", "landing", "garden"]
    answers = PROFILES | {
        "four": {"action": "sinkhole", "ipv4": [SINKHOLE4]},
        "landing": {"action": "cname", "target": "landing.example."},
        "garden": {"action": "cname", "target": "*.landing.example."},
    }
    entries = [{"name": f"{action}.example", "answer": action} for action in actions]
    long = ".".join(["x" * 57] * 4) + ".example"  # with the target below the landing page it is too long
    entries.append({"name": long, "answer": "garden"})
    subject.start(orders=[block("1", entries)], answers=answers, upstreams=[upstream.address])
    said = probe(subject, "--order", "1")
    assert (said.code, said.json["misses"]) == (0, [])
    assert {row["found"] for row in rows(said, "drop.example")} == {"no response"}
    # Over TCP the next zone decides, so nothing is expected there.
    assert {row["transport"] for row in rows(said, "truncate.example")} == {"udp"}
    assert {row["expected"] for row in rows(said, "four.example", type="AAAA")} == {"NODATA"}
    assert {row["expected"] for row in rows(said, "garden.example")} == {
        "CNAME garden.example.landing.example"
    }
    assert "YXDOMAIN" in {row["expected"] for row in said.json["rows"] if row["entry"] == long}


def test_names_that_an_entry_does_not_cover_must_not_be_blocked_by_its_order(
    subject: Subject, upstream: StubUpstream
):
    """An exact entry leaves the names below it alone, and `below` the name itself."""
    entries = [{"name": "one.example", "match": "exact"}, {"name": "two.example", "match": "below"}]
    subject.start(orders=[block("1", entries)], upstreams=[upstream.address])
    said = probe(subject, "--order", "1")
    assert said.code == 0
    assert {row["expected"] for row in rows(said, "two.example")} == {"not blocked by this order"}
    below = {row["entry"]: row["expected"] for row in said.json["rows"] if row["name"].startswith("probe-")}
    assert below == {"one.example": "not blocked by this order", "two.example": f"A {SINKHOLE4}"}


def sinkholing(asked: Asked) -> bytes:
    """A resolver that blocks every name with the order's addresses, without an extended error."""
    address = {wire.QTYPES["A"]: SINKHOLE4, wire.QTYPES["AAAA"]: SINKHOLE6}.get(asked.qtype)
    return asked.response() if address is None else asked.address(address)


def test_a_resolver_that_blocks_more_than_was_ordered_is_named(
    subject: Subject, upstream: StubUpstream, make_upstream: MakeUpstream
):
    """It covers the names below an exact entry too."""
    entries = [{"name": "one.example", "match": "exact"}]
    subject.start(orders=[block("1", entries)], upstreams=[upstream.address])
    broad = make_upstream(sinkholing)
    said = probe(subject, "--order", "1", *at(broad))
    assert said.code == 1
    [miss] = said.json["misses"]
    assert (miss["resolver"], miss["types"], miss["transports"]) == (broad.address, ["A"], ["udp", "tcp"])
    assert miss["name"].endswith(".one.example")


def test_a_resolver_with_an_aaaa_leak_is_named_with_the_type(
    subject: Subject, upstream: StubUpstream, make_upstream: MakeUpstream
):
    """Trap 2 of blockers: the sinkhole answers A, and AAAA comes from the upstream."""
    subject.start(orders=[block("1", ["one.example"])], upstreams=[upstream.address])

    def leaking(asked: Asked) -> bytes:
        return decent(asked) if asked.qtype == wire.QTYPES["AAAA"] else sinkholing(asked)

    leak = make_upstream(leaking)
    said = probe(subject, "--order", "1", *at(leak, subject))
    assert said.code == 1
    assert missed(said) == {(leak.address, "one.example"): ["AAAA"]}
    assert {row["found"] for row in rows(said, "one.example", missed=True)} == {"AAAA 2001:db8:7::7"}


@pytest.mark.parametrize("kind", [UnboundPeer, BindPeer])
def test_resolvers_of_other_vendors_are_probed(
    start: Start, upstream: StubUpstream, tmp_path: Path, kind: type[UnboundPeer | BindPeer]
):
    """The provider's second resolver has the same policy as an RPZ zone; every kind of answer is proved.

    One known difference is found: an exact entry in a blocked subtree hides the wildcard (RFC 4592 2.2.2), so
    the names below it are open there.
    """
    # A target of the provider's own answers could not be blocked by an order (PROTECTED).
    answers = {name: profile for name, profile in policy.PROFILES.items() if name != "hosted"}
    entries = [
        {"name": entry.name, "match": entry.match, "answer": entry.action}
        for entry in policy.ENTRIES
        if entry.action != "hosted"
    ]
    config = {"orders": [block("PORTABLE-1", entries)], "answers": answers}
    subject = start(**config, upstreams=[upstream.address], **UNGUARDED)
    with closing(kind(tmp_path)) as peer:
        peer.start(upstream.address)
        servers = [f"127.0.0.1:{peer.ports[4]}", f"[::1]:{peer.ports[6]}"]
        options = [option for server in servers for option in ("--server", server)]
        said = probe(subject, "--order", "PORTABLE-1", *options)
        hidden = {
            (server, name) for server in servers for name in (policy.EXACT_IN_LONG, policy.DEEP_IN_LONG)
        }
        wrong = [row for row in said.json["rows"] if row["missed"]]
        assert {(row["resolver"], row["entry"]) for row in wrong} == hidden
        assert all(row["name"].startswith("probe-") for row in wrong)
        assert {row["resolver"] for row in said.json["rows"]} == set(servers)
        # The order is lifted here, and not there.
        subject.put_order(unblock("PORTABLE-2", "PORTABLE-1", [policy.SINKHOLED]))
        subject.reload()
        said = probe(subject, "--order", "PORTABLE-2", *options)
        assert said.code == 1
        assert missed(said) == {(server, policy.SINKHOLED): ["A", "AAAA"] for server in servers}


def test_a_server_that_does_not_respond_proves_nothing(subject: Subject, upstream: StubUpstream):
    """The answer `drop` is no response: another query must be answered."""
    entries = [{"name": "one.example", "answer": "drop"}]
    subject.start(orders=[block("1", entries)], upstreams=[upstream.address])
    said = probe(subject, "--order", "1", "--server", f"127.0.0.1:{free_port()}")
    assert said.code == 1
    assert missed(said) == {(said.json["rows"][0]["resolver"], "one.example"): ["A", "AAAA", "HTTPS"]}
    assert {row["found"] for row in said.json["rows"]} == {"connection refused"}


def test_a_server_that_refuses_every_query_proves_nothing(
    subject: Subject, upstream: StubUpstream, make_upstream: MakeUpstream
):
    """The answer `refused` is also that of an access control list."""
    entries = [{"name": "one.example", "answer": "refused"}]
    subject.start(orders=[block("1", entries)], upstreams=[upstream.address])
    refusing = make_upstream(lambda asked: asked.response(rcode=5), may_die=True)
    said = probe(subject, "--order", "1", *at(refusing))
    assert said.code == 1
    assert {row["note"] for row in said.json["rows"]} == {"the server refuses every query"}


# ------- Unblocks -------


def test_an_unblock_is_proved(subject: Subject, unbound: Unbound):
    """All eleven names get the upstream's answer again."""
    subject.start(orders=[BLOCK, UNBLOCK], upstreams=[unbound.address], **UNGUARDED)
    for number in ("95/2017", "84/2017"):
        said = probe(subject, "--order", number)
        assert (said.code, said.json["misses"], said.json["probed"]) == (0, [], 11)
        assert {row["expected"] for row in said.json["rows"]} == {"not blocked"}


def test_the_instance_that_missed_an_unblock_is_named_with_name_and_type(start: Start, unbound: Unbound):
    """August 2017: five of the eleven names stayed blocked for hours, and nobody could say where."""
    instances = [start(orders=[BLOCK, UNBLOCK], upstreams=[unbound.address], **UNGUARDED) for _ in range(3)]
    late = start(orders=[BLOCK], upstreams=[unbound.address], **UNGUARDED)
    said = probe(instances[0], "--order", "95/2017", *at(*instances, late))
    assert said.code == 1
    types = ["A", "AAAA", "HTTPS"]
    assert missed(said) == {(place, name): types for place in late.ready["listening"] for name in TELEGRAM}
    late.put_order(UNBLOCK, "late.yaml")
    late.reload()
    assert probe(instances[0], "--order", "95/2017", *at(*instances, late)).code == 0


def test_a_name_that_another_entry_covers_is_missed_and_the_policy_says_by_what(
    subject: Subject, unbound: Unbound
):
    """web.telegram.org is lifted, and telegram.org above it is not."""
    partly = unblock("95/2017", "84/2017", ["t.me", "web.telegram.org"])
    subject.start(orders=[BLOCK, partly], upstreams=[unbound.address], **UNGUARDED)
    said = probe(subject, "--order", "95/2017")
    assert said.code == 1
    assert {name for _, name in missed(said)} == {"web.telegram.org"}
    why = said.json["explained"][0]
    assert (why["name"], why["verdict"], why["entry"]) == ("web.telegram.org", "blocked", "telegram.org")
    assert why["orders"] == ["84/2017"]
    # Of the block itself, the rest is in force, and t.me is open.
    said = probe(subject, "--order", "84/2017")
    assert said.code == 0
    assert {row["expected"] for row in rows(said, "t.me")} == {"not blocked"}
    assert {row["expected"] for row in rows(said, "web.telegram.org", type="A")} == {f"A {SINKHOLE4}"}


def test_an_upstream_that_blocks_the_name_too_is_named(start: Start, unbound: Unbound):
    """The answer of the upstream is not proof enough if that is a block."""
    behind = start(orders=[BLOCK], upstreams=[unbound.address], **UNGUARDED)
    subject = start(orders=[BLOCK, UNBLOCK], upstreams=[behind.ready["listening"][0]], **UNGUARDED)
    said = probe(subject, "--order", "95/2017")
    assert said.code == 1
    assert {name for _, name in missed(said)} == set(TELEGRAM)
    assert {row["note"] for row in said.json["rows"]} == {"the reference resolver blocks it too"}


def test_an_exemption_is_proved(subject: Subject, upstream: StubUpstream):
    """The exempt name gets the upstream's answer, and the rest of the block is in force."""
    orders = [block("1", ["one.example"]), exempt("2", ["free.one.example"])]
    subject.start(orders=orders, upstreams=[upstream.address])
    for number in "12":
        assert probe(subject, "--order", number).code == 0


def test_answers_that_differ_each_time_are_the_upstreams(subject: Subject, make_upstream: MakeUpstream):
    """A CDN has other addresses for each query: records are not compared, but whether there are any."""
    numbers = iter(range(1, 10_000))

    def rotating(asked: Asked) -> bytes:
        if asked.qtype != wire.QTYPES["A"]:
            return decent(asked)
        number = next(numbers)
        return asked.address(f"198.51.{number >> 8}.{number & 255}")

    subject.start(orders=[BLOCK, UNBLOCK], upstreams=[make_upstream(rotating).address], **UNGUARDED)
    assert probe(subject, "--order", "95/2017").code == 0


@pytest.mark.parametrize("rcode", [0, 3])
def test_an_answer_without_records_is_a_miss_where_the_reference_has_some(
    subject: Subject, upstream: StubUpstream, make_upstream: MakeUpstream, rcode: int
):
    """A resolver that blocks with NODATA or NXDOMAIN, and says nothing about it."""
    subject.start(orders=[block("1", ["one.example"]), unblock("2", "1")], upstreams=[upstream.address])
    other = make_upstream(lambda asked: asked.response(rcode=rcode))
    said = probe(subject, "--order", "2", *at(other))
    assert said.code == 1
    [types] = missed(said).values()
    assert types == (["A", "AAAA", "HTTPS"] if rcode else ["A", "AAAA"])
    note = {row["note"] for row in rows(said, "one.example", type="A")}
    assert note == {"the reference has NOERROR" if rcode else "the reference has A records"}


def test_a_broken_name_is_as_broken_as_at_the_upstream(subject: Subject, make_upstream: MakeUpstream):
    """SERVFAIL is the upstream's answer for a name whose servers are down."""
    failing = make_upstream(lambda asked: asked.response(rcode=2))
    subject.start(orders=[block("1", ["one.example"]), unblock("2", "1")], upstreams=[failing.address])
    said = probe(subject, "--order", "2")
    assert (said.code, {row["found"] for row in said.json["rows"]}) == (0, {"SERVFAIL"})


# ------- Names that must be open -------


def test_a_name_that_must_be_open_and_is_blocked_is_a_miss(subject: Subject, unbound: Unbound):
    """`--open`: for names that no order may ever block."""
    subject.start(orders=[BLOCK], upstreams=[unbound.address], **UNGUARDED)
    assert probe(subject, "--open", "example.com").code == 0
    said = probe(subject, "--order", "84/2017", "--open", "example.com", "--open", "T.ME.")
    assert said.code == 1
    assert said.json["open"] == 2
    assert missed(said) == {(place, "t.me"): ["A", "AAAA", "HTTPS"] for place in subject.ready["listening"]}


def test_the_landing_page_is_open_although_it_has_the_address_of_the_sinkhole(
    subject: Subject, make_upstream: MakeUpstream
):
    """The reference has that address too."""
    subject.start(orders=[BLOCK], upstreams=[make_upstream(sinkholing).address], **UNGUARDED)
    assert probe(subject, "--order", "84/2017", "--open", "landing.example").code == 0


def test_open_names_are_probed_without_a_daemon(subject: Subject, upstream: StubUpstream):
    """Servers and reference are given: nothing else is needed."""
    subject.configure()
    said = probe(subject, "--open", "one.example", *at(upstream), "--reference", upstream.address)
    assert (said.code, said.json["order_id"]) == (0, None)


# ------- Which order -------


def test_the_issuer_is_needed_where_two_have_the_number(subject: Subject, upstream: StubUpstream):
    """A number is unique for one issuer only."""
    zones = [ORDERS_ZONE, ORDERS_ZONE | {"name": "court", "issuer": "court.example"}]
    orders = [block("1", ["one.example"]), block("1", ["two.example"], issuer="court.example")]
    subject.configure(zones=zones, upstreams=[upstream.address])
    for number, order in enumerate(orders):
        subject.put_order(order, f"{number}.yaml")
    subject.launch()
    said = subject.cli("probe", "--order", "1")
    assert (said.code, "--issuer" in said.stderr) == (2, True)
    said = probe(subject, "--order", "1", "--issuer", "court.example")
    assert (said.code, {row["entry"] for row in said.json["rows"]}) == (0, {"two.example"})


def test_an_unknown_order_is_a_negative_result(subject: Subject, upstream: StubUpstream):
    """A typing error must not look like a success."""
    subject.start(orders=[BLOCK], upstreams=[upstream.address], **UNGUARDED)
    assert subject.cli("probe", "--order", "85/2017").code == 1
    assert subject.cli("probe", "--order", "84/2017", "--issuer", "nobody.example").code == 1


def test_other_orders_of_the_issuer_may_decide(subject: Subject, upstream: StubUpstream):
    """An exemption of the ordered name itself: the rest of the block is in force."""
    orders = [block("1", ["one.example"]), exempt("2", [{"name": "one.example", "match": "exact"}])]
    subject.start(orders=orders, upstreams=[upstream.address])
    said = probe(subject, "--order", "1")
    assert said.code == 0
    assert {row["expected"] for row in rows(said, "one.example")} == {"not blocked by this order"}


def test_an_order_without_effect_is_not_probed(subject: Subject, upstream: StubUpstream):
    """Nothing is expected of an order that is scheduled."""
    order = block("1", ["one.example"], effective_at="2099-01-01T00:00:00+07:00")
    subject.start(orders=[order], upstreams=[upstream.address])
    said = subject.cli("probe", "--order", "1")
    assert (said.code, "is scheduled" in said.stderr) == (4, True)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--issuer", ISSUER, "--open", "a.example"),
        ("--open", "a b"),
        ("--open", "a.example", "--server", "resolver.example"),
        ("--open", "a.example", "--server", "::1:53"),
    ],
)
def test_wrong_usage_is_named(subject: Subject, arguments: tuple[str, ...]):
    """Exit code 2."""
    subject.configure()
    assert subject.cli("probe", *arguments).code == 2


def test_a_large_order_is_probed_by_a_sample(subject: Subject, upstream: StubUpstream):
    """The result states the size of the sample."""
    names = [f"n{number}.example" for number in range(200)]
    subject.start(orders=[block("1", names)], upstreams=[upstream.address])
    said = probe(subject, "--order", "1", "--most", "20")
    assert (said.code, said.json["names"], said.json["probed"], said.json["is_sample"]) == (0, 200, 20, True)
    assert len({row["entry"] for row in said.json["rows"]}) == 20
    said = subject.cli("probe", "--order", "1", "--most", "20", as_json=False)
    assert "a random sample of 20 of 200 names" in said.stdout


# ------- Output -------


def test_the_table_fits_80_columns_and_names_resolver_name_and_type(subject: Subject, unbound: Unbound):
    """At the terminal of an operator."""
    partly = unblock("95/2017", "84/2017", ["t.me", "web.telegram.org"])
    subject.start(orders=[BLOCK, partly], upstreams=[unbound.address], **UNGUARDED)
    said = subject.cli("probe", "--order", "95/2017", as_json=False)
    assert said.code == 1
    for place in subject.ready["listening"]:
        assert f"missed at {place}:" in said.stdout
    assert "web.telegram.org  " in said.stdout
    assert "A AAAA HTTPS" in said.stdout
    assert "by zone ministry, entry telegram.org, order 84/2017" in said.stdout
    assert said.stdout.splitlines()[-1] == (
        "MISSED: 16 of 32 responses are not as expected, for 1 name at 2 resolvers"
    )
    said = subject.cli("probe", "--order", "84/2017", "--all", as_json=False)
    assert said.stdout.splitlines()[-1] == "every response is as expected"
    assert said.stdout.count("flora-1.web.telegram.org") == 4 * 4


def test_csv_has_a_line_for_each_query(subject: Subject, unbound: Unbound):
    """For a spreadsheet."""
    subject.start(orders=[BLOCK], upstreams=[unbound.address], **UNGUARDED)
    said = subject.cli("probe", "--order", "84/2017", "--format", "csv", as_json=False)
    assert said.code == 0
    lines = list(csv.DictReader(io.StringIO(said.stdout)))
    assert len(lines) == 11 * 4 * 2 * 2
    columns = ["resolver", "transport", "name", "type", "expected", "found", "time_ms", "missed", "note"]
    assert list(lines[0]) == columns
    assert {line["missed"] for line in lines} == {"no"}


def test_json_is_a_format_too(subject: Subject, unbound: Unbound):
    """As with --json."""
    subject.start(orders=[BLOCK], upstreams=[unbound.address], **UNGUARDED)
    said = subject.cli("probe", "--order", "84/2017", "--format", "json", as_json=False)
    assert json.loads(said.stdout)["missed"] == 0


def test_hostile_text_in_a_response_does_not_reach_the_terminal(
    subject: Subject, upstream: StubUpstream, make_upstream: MakeUpstream
):
    """EXTRA-TEXT may hold control sequences."""
    subject.start(orders=[block("1", ["one.example"])], upstreams=[upstream.address])
    text = b"\x00\x10\x1b]0;owned\x07\n=cmd"
    hostile = make_upstream(lambda asked: asked.response(edns=wire.opt(options=wire.option(15, text))))
    for form in ("table", "json", "csv"):
        said = subject.cli("probe", "--order", "1", *at(hostile), "--format", form, as_json=False)
        assert said.code == 1
        assert not {"\x1b", "\x07"} & set(said.stdout)
        assert "owned" in said.stdout


def test_a_probe_shows_progress_at_a_terminal(subject: Subject, make_upstream: MakeUpstream):
    """A probe of a large order takes minutes."""
    entries = [{"name": "one.example", "answer": "drop"}]
    subject.start(orders=[block("1", entries)], upstreams=[make_upstream().address])
    with at_a_terminal(subject, "probe", "--order", "1") as seen:
        assert "every response is as expected" in seen.result()
    assert seen.has("queries")
