"""The first steps of a newcomer: the Telegram order of 2017, then its unblock, with real clients."""

import re
import shutil

import pytest

from .harness import ORDERS_ZONE, SINKHOLE4, SINKHOLE6, Subject, is_sinkholed
from .orders import shipped
from .tools import run, tool, wait_for
from .upstreams import TELEGRAM, TELEGRAM_ADDRESSES, Unbound

KOMINFO = ORDERS_ZONE | {"name": "kominfo", "issuer": "kominfo.go.id"}


def start_with_the_block(subject: Subject, unbound: Unbound) -> Subject:
    """The shipped order of 14 July 2017 alone is in the orders folder; Unbound is the upstream."""
    subject.configure(zones=[KOMINFO], upstreams=[unbound.address])
    shutil.copy(shipped("block")[0], subject.orders_folder)
    subject.is_executed = True
    subject.launch()
    return subject


@pytest.fixture(scope="module")
def running(shared_subject: Subject, unbound: Unbound) -> Subject:
    return start_with_the_block(shared_subject, unbound)


def put_the_lifting(subject: Subject) -> None:
    shutil.copy(shipped("unblock")[0], subject.orders_folder)


def names_of(entries: list) -> list[str]:
    return [entry["name"] if isinstance(entry, dict) else entry for entry in entries]


def test_the_shipped_order_blocks_the_eleven_names_of_14_july_2017(running: Subject):
    """11 names, 14 July 2017 11:30 WIB; their number is what `serve` says it enforces."""
    order = shipped("block")[1]
    assert sorted(names_of(order["entries"])) == sorted(TELEGRAM)
    assert order["issued_at"].startswith("2017-07-14T11:30") or order["effective_at"].startswith(
        "2017-07-14T11:30"
    )
    assert running.ready["entries"] == 11


def test_dig_sees_the_sinkhole_with_ttl_30_and_both_extended_errors(running: Subject):
    """RFC 8914 sections 4.5 and 4.17: 4 Forged Answer, and 16 Censored with the order's number."""
    output = running.dig("web.telegram.org")
    assert "status: NOERROR" in output
    assert re.search(rf"^web\.telegram\.org\.\s+30\s+IN\s+A\s+{re.escape(SINKHOLE4)}$", output, re.MULTILINE)
    assert "; EDE: 4 (Forged Answer)" in output
    assert re.search(r"^; EDE: 16 \(Censored\): \(.+\)$", output, re.MULTILINE)
    assert shipped("block")[1]["order_id"] in output


def test_dig_sees_the_sinkhole_over_ipv6_and_for_aaaa(running: Subject):
    """Trap 2: an order holds for both families."""
    assert running.dig("+short", "web.telegram.org", "AAAA", family=6) == f"{SINKHOLE6}\n"


def test_dig_without_edns_sees_no_opt(running: Subject):
    """Trap 3, RFC 6891 section 7: OPT in the response if and only if in the query."""
    output = running.dig("+noedns", "web.telegram.org")
    assert SINKHOLE4 in output
    assert "OPT PSEUDOSECTION" not in output


def test_each_of_the_eleven_names_is_sinkholed(running: Subject):
    """The order of 14 July 2017 named eleven names; none may be missing."""
    assert [name for name in TELEGRAM if not is_sinkholed(running.query(name))] == []


def test_kdig_over_tcp_sees_nodata_with_soa_for_type65(running: Subject):
    """Trap 1, RFC 9460 section 7.3: an HTTPS record of the upstream would open the blocked name."""
    output = running.kdig("+tcp", "web.telegram.org", "TYPE65")
    assert "status: NOERROR" in output
    assert "ANSWER: 0" in output
    assert re.search(
        r"^web\.telegram\.org\.\s+30\s+IN\s+SOA\s+localhost\. nobody\.invalid\.", output, re.MULTILINE
    )


def test_names_below_an_ordered_name_follow_the_match_of_the_order(running: Subject):
    """Below a subtree entry a name is blocked, beside an exact one it is not."""
    entries = shipped("block")[1]["entries"]
    entry = next(entry for entry in entries if names_of([entry]) == ["telegram.org"])
    match = entry.get("match", "subtree") if isinstance(entry, dict) else "subtree"
    expected = SINKHOLE4 if match == "subtree" else "198.51.100.99"
    assert running.query("www.telegram.org").addresses == [expected]


@pytest.mark.parametrize("qtype", ["A", "AAAA", "MX", "TXT", "NS", "SOA", "HTTPS", "TYPE65280"])
def test_a_name_that_is_not_blocked_gets_exactly_what_the_upstream_gives(
    running: Subject, unbound: Unbound, qtype: str
):
    """Header flags, every section and every TTL are those of the upstream."""
    show = ["+noall", "+comments", "+question", "+answer", "+authority", "+additional", "+nocookie"]
    asked = ["example.com", qtype, *show]
    there = run([tool("dig"), "@127.0.0.1", "-p", str(unbound.port), *asked]).stdout
    assert without_hop(running.dig(*asked)) == without_hop(there)


def without_hop(output: str) -> list[str]:
    """The output of dig without ID and EDNS, which belong to the hop (RFC 6891 section 6.1.1)."""
    return [re.sub(r"id: \d+", "id", line) for line in output.splitlines() if not line.startswith("; EDNS:")]


@pytest.mark.parametrize(("name", "records"), [("big.example", 8), ("huge.example", 28)])
def test_an_answer_too_big_for_udp_arrives_whole_over_tcp(running: Subject, name: str, records: int):
    """RFC 7766: dig meets TC=1 and asks again over TCP; the daemon does the same with its upstream."""
    assert len(running.dig("+short", name, "TXT").splitlines()) == records
    assert "tc" in flags_of(running.dig("+ignore", name, "TXT"))


def flags_of(output: str) -> list[str]:
    return re.search(r"^;; flags: ([a-z ]+);", output, re.MULTILINE)[1].split()


def test_nxdomain_of_the_upstream_is_passed_on(running: Subject):
    """RFC 2308 section 3: NXDOMAIN of the upstream is not turned into an address."""
    assert "status: NXDOMAIN" in running.dig("nothing.example.com")


def test_after_the_unblock_and_a_sighup_each_name_is_answered_by_the_upstream(
    subject: Subject, unbound: Unbound
):
    """The order of 10 August 2017 is put into the folder and SIGHUP is sent."""
    serial = start_with_the_block(subject, unbound).ready["serial"]
    put_the_lifting(subject)
    subject.hup()
    wait_for(lambda: subject.metrics().total("dnsblock_snapshot_serial") == serial + 1, "the next serial")
    assert {name: subject.query(name).addresses for name in TELEGRAM} == {
        name: [address] for name, address in TELEGRAM_ADDRESSES.items()
    }


def test_after_the_unblock_and_a_reload_each_name_is_answered_by_the_upstream(
    subject: Subject, unbound: Unbound
):
    """Fault of others: when `dnsblock reload` has returned, the very next query is the upstream's."""
    start_with_the_block(subject, unbound)
    put_the_lifting(subject)
    result = subject.reload()
    assert {name: subject.query(name).addresses for name in TELEGRAM} == {
        name: [address] for name, address in TELEGRAM_ADDRESSES.items()
    }
    assert result["changed"] is True
    assert result["entries"] == 0
    assert result["serial"] == subject.ready["serial"] + 1


def test_the_shipped_unblock_order_is_that_of_10_august_2017():
    """In effect on 10 August 2017 10:46 WIB."""
    order = shipped("unblock")[1]
    assert order["issued_at"].startswith("2017-08-10T10:46") or order["effective_at"].startswith(
        "2017-08-10T10:46"
    )
    assert [target["order_id"] for target in order["targets"]] == [shipped("block")[1]["order_id"]]
