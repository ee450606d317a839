"""A number that no order has, or that the orders of several issuers have."""

import pytest

from .harness import ISSUER, ORDERS_ZONE, Subject
from .orders import block

COURT = "court.example"
REASON = ["--reason", "an error"]
COMMANDS = [
    ["order show"],
    ["order receipt", "-o", "receipt.json"],
    ["order approve", *REASON],
    ["order annul", *REASON],
    ["probe", "--order"],
    ["log show", "--order"],
    ["log prove"],
]


@pytest.fixture(scope="module")
def running(shared_subject: Subject) -> Subject:
    zones = [ORDERS_ZONE, ORDERS_ZONE | {"name": "court", "issuer": COURT}]
    orders = [block("7", ["one.example"]), block("7", ["two.example"], issuer=COURT)]
    shared_subject.start(zones=zones, orders=orders)
    return shared_subject


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_number_without_an_order_is_a_negative_result(running: Subject, command: list[str]):
    """Exit code 1, with an object for programs; also if the named issuer has no such order."""
    for issuer in ([], ["--issuer", ISSUER]):
        said = running.cli(*command, "8", *issuer)
        assert (said.code, said.json["error"], said.json["issuers"]) == (1, "unknown", []), said
        assert "there is no order 8" in said.json["reason"]
        shown = running.cli(*command, "8", *issuer, as_json=False)
        assert (shown.code, shown.stdout, said.json["reason"] in shown.stderr) == (1, "", True), shown


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_number_of_several_issuers_needs_the_issuer(running: Subject, command: list[str]):
    """Exit code 2, and the issuers are named."""
    said = running.cli(*command, "7")
    assert (said.code, said.json["error"], sorted(said.json["issuers"])) == (2, "ambiguous", [COURT, ISSUER])
    shown = running.cli(*command, "7", as_json=False)
    assert (shown.code, shown.stdout, "add --issuer, one of" in shown.stderr) == (2, "", True), shown
