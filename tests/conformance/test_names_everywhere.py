"""A name is the same name in a list, in an order and on the command line."""

import pytest

from .asking import is_sinkholed
from .harness import Subject
from .lists import findings, list_zone, reports
from .orders import ISSUER, exempt

# As it is written, and as clients ask for it.
NAMES = {
    "☕.example": "xn--53h.example",
    "\uff22ücher.example": "xn--bcher-kva.example",
    "I❤.example": "xn--i-7iq.example",
    "_dmarc.Straße.example": "_dmarc.xn--strae-oqa.example",
    "xn--kept-as-it-is.example": "xn--kept-as-it-is.example",
}
NUMBERS = {
    "225.223.48": "address",
    "192.0.2.085": "address",
    "0x7f.0.0.1": "address",
    "172.104.128.199.108.166": "ends_in_number",
    "0000350_2025.29.08": "ends_in_number",
    "shop.example.42": "ends_in_number",
}


@pytest.fixture
def listing(subject: Subject) -> Subject:
    """A daemon with a list of `NAMES`, below a zone of orders."""
    zones = [
        {"name": "orders", "issuer": ISSUER, "unsigned": "accept", "answer": "sinkhole"},
        list_zone(format="plain"),
    ]
    subject.start(zones=zones, lists={"list.txt": list(NAMES)})
    return subject


def test_commands_accept_a_name_as_it_is_written_in_the_list(listing: Subject):
    """UTS 46 as browsers apply it; IDNA 2008 alone refuses what clients query and lists block."""
    for text, name in NAMES.items():
        assert is_sinkholed(listing.query(name))
        why = listing.cli("why", text)
        assert (why.json["name"], why.json["verdict"]) == (name, "blocked")
        assert [event["entry"] for event in listing.cli("history", text).json["events"]] == [name]
        assert listing.cli("cache purge", text).code == 0


def test_an_order_accepts_every_name_that_a_list_accepts(listing: Subject):
    """An exemption that the order's parser refuses would leave a listed name blocked for good."""
    listing.put_order(exempt("E-1", NAMES))
    listing.reload()
    for text, name in NAMES.items():
        why = listing.cli("why", text).json
        assert [entry["orders"] for entry in why["covering"] if entry["zone"] == "orders"] == [["E-1"]], name


def test_a_number_is_not_a_name_anywhere(listing: Subject):
    """RFC 1123 section 2.1: no top-level domain is a number; half an address must not become a name."""
    listing.put_order(exempt("E-1", NUMBERS))
    said = listing.cli("reload")
    assert said.code == 4
    refused = {problem["value"] for problem in said.problems}
    assert set(NUMBERS) - refused == set()
    for text in NUMBERS:
        for command in ("why", "history", "cache purge"):
            assert listing.cli(command, text).code == 2, (command, text)


def test_a_number_in_a_list_is_rejected_with_the_reason(subject: Subject):
    """WHATWG URL section 3.5 "ends in a number": browsers ask no resolver for such a host."""
    subject.configure(
        zones=[list_zone(format="plain", guards={"rejected_percent": "off"})],
        lists={"list.txt": [*NUMBERS, "1.2.0.192.in-addr.arpa", "163.com"]},
        inbox=None,
    )
    report = reports(subject.cli("check"))["listed"]
    assert {value: code for _, _, value, code in findings(report, "rejected")} == NUMBERS
    assert report["entries"] == 2
    assert all("number" in one["reason"] or "address" in one["reason"] for one in report["reported"])
