"""Nothing is enforced beyond what was ordered and accepted, whatever comes later, and after a restart."""

from dataclasses import replace
from pathlib import Path

import pytest

from .helpers import block, document, unblock
from .registry import BEGIN, Registry, codes

FLAGGER = {"may": ["propose"]}


@pytest.fixture
def office(tmp_path: Path) -> Registry:
    return Registry(tmp_path, "ann", "bob", "flag", roles={"flag": FLAGGER})


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Unsigned orders are accepted."""
    return Registry(tmp_path)


def supersede(order_id: str, target: str, *entries: str, **fields: object) -> str:
    return document(
        order_id, "supersede", entries=entries, targets=[f"{{order_id: {target}, entries: all}}"], **fields
    )


# ------- The same document with other signatures -------


def test_a_flagger_takes_back_nothing_that_officers_have_ordered(office: Registry):
    """A document with a held entry is judged again when it comes with another signature."""
    text = block("b-1", "t.example", "t.me")
    office.submit(text, by=["ann"])
    assert office.submit(text, by=["flag"]) == []
    assert office.in_force() == ["t.example of b-1"]
    assert office.state("b-1") == "active"


def test_what_a_flagger_proposed_is_judged_when_an_officer_signs_it(office: Registry):
    """Replacing an accepted entry needs no release. But that entry was lifted since: it is a new block."""
    office.submit(block("b-1", "t.me", acks="[POPULAR]"), by=["ann", "bob"])
    text = supersede("s-1", "b-1", "t.me", "t.example")
    office.submit(text, by=["flag"])
    office.submit(unblock("u-1", "b-1"), by=["ann"])
    office.submit(text, by=["ann"])
    assert office.in_force() == ["t.example of s-1"]


def test_a_released_entry_stays_released_when_another_officer_signs(office: Registry):
    """A guard that came later lifts no block."""
    text = block("b-1", "t.me", "www.t.me")
    office.submit(text, by=["ann"])
    office.approve("b-1", "t.me")
    office.config = office.config.model_copy(update={"protected": ("t.me",)})
    office.submit(text, by=["ann", "bob"])
    assert office.in_force() == ["t.me of b-1"]


def test_signatures_of_the_same_json_with_another_line_end_change_nothing(office: Registry):
    """The ledger would have signatures that are not of the document in it."""
    text = '{"schema": "dnsblock.order/1", "issuer": "a", "order_id": "b-1", "action": "block", '
    text += '"issued_at": "2017-07-14T11:30:00+07:00", "entries": ["t.me", "t.example"], "acks": ["POPULAR"]}'
    office.submit(text, by=["ann"])
    office.submit(text + "\n", by=["ann", "bob"])
    assert office.in_force() == ["t.example of b-1"]
    office.submit(text, by=["ann", "bob"])
    assert office.in_force() == ["t.example of b-1", "t.me of b-1"]


# ------- Notices -------


def test_a_block_with_the_entries_of_a_notice_is_judged_by_the_guards(registry: Registry):
    """A notice enforces nothing, so nothing of it was released. The block must not pass by its guards."""
    registry.submit(document("n-1", "notice", entries=["t.example", "co.id", "t.me"]))
    registry.submit(block("b-1", notice="n-1"))
    assert registry.in_force() == ["t.example of b-1"]
    assert (registry.states()["b-1"].held, registry.states()["b-1"].refused) == (1, 1)


def test_a_release_in_a_notice_releases_nothing_in_the_block(registry: Registry):
    """The operator has approved that the notice says it, not that the name is blocked."""
    registry.submit(document("n-1", "notice", entries=["t.example", "t.me"]))
    registry.approve("n-1")
    registry.submit(block("b-1", notice="n-1"))
    assert registry.in_force() == ["t.example of b-1"]


def test_no_block_has_the_entries_of_a_notice_that_a_flagger_proposed(office: Registry):
    """The officer who signs the block signs its number only: anybody could have proposed that number."""
    office.submit(document("n-1", "notice", entries=["t.example"]), by=["flag"])
    assert codes(office.submit(block("b-1", notice="n-1"), by=["ann"])) == ["UNKNOWN_ORDER"]
    assert office.submit(block("b-2", "own.example", notice="n-1"), by=["ann"]) == []
    assert office.in_force() == ["own.example of b-2"]


def test_a_block_keeps_the_entries_of_its_notice_when_that_is_annulled(registry: Registry):
    """An accepted entry stays accepted, after a restart, too."""
    registry.submit(document("n-1", "notice", entries=["t.example"]))
    registry.submit(block("b-1", notice="n-1"))
    registry.annul("n-1")
    assert registry.in_force() == ["t.example of b-1"]


def test_a_block_has_the_entries_of_the_notice_that_has_the_number_when_it_comes(registry: Registry):
    """The number of an annulled notice may be used again."""
    registry.submit(document("n-1", "notice", entries=["wrong.example"]))
    registry.annul("n-1")
    assert codes(registry.submit(block("b-1", notice="n-1"))) == ["UNKNOWN_ORDER"]
    registry.submit(document("n-1", "notice", entries=["right.example"]))
    registry.submit(block("b-1", notice="n-1"))
    assert registry.in_force() == ["right.example of b-1"]


# ------- Memory and file -------


@pytest.mark.parametrize(
    "names", [["t.example"], ["u.example", "t.me"], ["t.example", "co.id"], ["pages.dev", "t.me"]]
)
def test_the_ledger_in_memory_says_what_its_file_says(registry: Registry, names: list[str]):
    """When the order was accepted, and which entries are held, refused or cannot be read."""
    registry.submit(block("b-0", "u.example"))
    registry.submit(block("b-1", *names, "not a name"))
    lifted = "{order_id: b-0, entries: [u.example, v.example]}"
    registry.submit(document("s-1", "supersede", entries=["t.me", "w.example"], targets=[lifted]))
    both = [{one.order_id: one for one in orders} for orders in (registry.orders, registry.restarted())]
    assert [replace(one, file="") for one in both[0].values()] == [
        replace(one, file="") for one in both[1].values()
    ]
    assert [one.judgement for one in both[0].values()] == [one.judgement for one in both[1].values()]
    assert both[0]["b-1"].received_at == BEGIN.replace(second=1)
