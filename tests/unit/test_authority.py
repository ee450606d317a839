"""Roles: the orders that each signer may sign (dnsblock/orders/authority.py)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .helpers import block, document, exempt, unblock
from .registry import Registry, codes
from .ssh_keys import make_key

Found = Callable[..., Registry]
FLAGGER = {"may": ["propose"]}
GAMBLING = {"may": ["block", "lift", "exempt"], "categories": ["gambling"]}
REFUSED = ["NOT_ENOUGH_SIGNATURES", "WRONG_ROLE"]


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """A ledger with these officers of the issuer; their roles and other options."""
    return lambda *officers, **issuer: Registry(tmp_path, *officers, **issuer)


def rotate(order_id: str, *, add: str = "", remove: str = "", **fields: object) -> str:
    keys = [f"add: ['{add}']"] if add else []
    keys += [f"remove: ['{remove}']"] if remove else []
    return document(order_id, "rotate", keys=f"{{{', '.join(keys)}}}", **fields)


# ------- People -------


def test_two_keys_of_one_person_are_one_signer(found: Found):
    """Two lines with the same principal: another officer must sign."""
    office = found("ann", "other", signatures=2)
    office.set_keys(*(f"ann {key.public_line}" for key in office.keys.values()))
    assert codes(office.submit(block("b-1", "t.example"), by=["ann", "other"])) == ["NOT_ENOUGH_SIGNATURES"]


def test_a_person_with_two_names_is_one_signer_whatever_their_sequence(found: Found):
    """A line may have several principals; the first one alone does not say who it is."""
    office = found("ann", "other", signatures=2)
    first, second = (key.public_line for key in office.keys.values())
    office.set_keys(f"ann,ann@home {first}", f"ann@home,ann {second}")
    reasons = office.submit(block("b-1", "t.example"), by=["ann", "other"])
    assert reasons[0].startswith("NOT_ENOUGH_SIGNATURES: 2 signatures of different signers needed, 1 valid")


def test_two_names_of_one_person_release_no_held_entry(found: Found):
    """The `acks` need the signature of a second person."""
    office = found("ann", "other")
    first, second = (key.public_line for key in office.keys.values())
    office.set_keys(f"ann,ann@home {first}", f"ann@home,ann {second}")
    office.submit(block("b-1", "t.me", acks="[POPULAR]"), by=["ann", "other"])
    assert office.in_force() == []


# ------- Roles -------


@pytest.mark.parametrize("principals", ["flag", "carol,flag", "flag,carol"])
def test_a_flagger_is_one_by_any_of_its_names(found: Found, principals: str):
    """A role that is given to the second name of a line limits the key, too."""
    office = found("ann", "flag", roles={"flag": FLAGGER})
    office.set_keys(f"{principals} {office.keys['flag'].public_line}")
    office.submit(block("b-1", "t.example"), by=["flag"])
    assert office.state("b-1") == "proposed"


def test_of_two_roles_of_one_key_only_what_both_allow_counts(found: Found):
    """A name that may block and one that may lift: neither."""
    roles = {"ann": {"may": ["block"]}, "ann@home": {"may": ["lift"]}}
    office = found("ann", roles=roles)
    office.set_keys(f"ann,ann@home {office.keys['ann'].public_line}")
    assert codes(office.submit(block("b-1", "t.example"), by=["ann"])) == REFUSED


def test_to_revoke_an_exemption_needs_the_role_exempt(found: Found):
    """It blocks the names again: who may only lift may not do that."""
    office = found("ann", "lifter", roles={"lifter": {"may": ["lift"]}})
    office.submit(block("b-1", "t.example"), exempt("e-1", "t.example"), by=["ann"])
    revoke = document("r-1", "revoke", targets=["{order_id: e-1, entries: all}"])
    assert codes(office.submit(revoke, by=["lifter"])) == REFUSED
    lifting = document("r-2", "revoke", targets=["{order_id: b-1, entries: all}"])
    assert office.submit(lifting, by=["lifter"]) == []


# ------- Categories -------


def test_who_signs_for_a_category_lifts_no_order_of_another(found: Found):
    """Whatever category the lifting states itself."""
    office = found("ann", "gina", roles={"gina": GAMBLING})
    office.submit(block("b-1", "t.example", category="terror"), by=["ann"])
    assert codes(office.submit(unblock("u-1", "b-1", category="gambling"), by=["gina"])) == REFUSED
    assert office.in_force() == ["t.example of b-1"]


def test_who_signs_for_a_category_lifts_orders_of_it(found: Found):
    """The lifting need not repeat the category."""
    office = found("ann", "gina", roles={"gina": GAMBLING})
    office.submit(block("b-1", "t.example", category="gambling"), by=["ann"])
    assert office.submit(unblock("u-1", "b-1"), by=["gina"]) == []
    assert office.in_force() == []


# ------- Rotations -------


def test_who_signs_for_a_category_rotates_no_keys(found: Found):
    """A new key would count for all categories."""
    office = found("ann", "gina", roles={"gina": GAMBLING})
    order = rotate("r-1", add=f"boss {make_key().public_line}", category="gambling")
    assert codes(office.submit(order, by=["gina"])) == REFUSED


def test_nobody_rotates_in_a_key_with_a_role_that_he_does_not_have(found: Found):
    """An officer without `override` could otherwise sign as somebody who has it."""
    override = {"may": ["block", "lift", "exempt", "override"]}
    office = found("ann", "boss", roles={"boss": override})
    order = rotate("r-1", add=f"boss {make_key().public_line}")
    assert codes(office.submit(order, by=["ann"])) == REFUSED
    assert office.submit(order, by=["boss"]) == []


def test_a_rotation_may_change_the_line_of_a_key(found: Found):
    """The same key, with a date: it counts on, and is not removed."""
    office = found("ann", "bob")
    line = f'ann valid-before="20300101Z" {office.keys["ann"].public_line}'
    assert office.submit(rotate("r-1", add=line, remove=office.keys["ann"].fingerprint), by=["ann"]) == []
    assert office.submit(block("b-1", "t.example"), by=["ann"]) == []


def test_a_removed_key_counts_no_more_whatever_the_file_says(found: Found):
    """Even if it is the only one that an outdated file has."""
    office = found("ann", "bob")
    assert office.submit(rotate("r-1", remove=office.keys["bob"].fingerprint), by=["ann"]) == []
    office.set_keys(f"bob {office.keys['bob'].public_line}")
    assert codes(office.submit(block("b-1", "t.example"), by=["bob"])) == [
        "NOT_ENOUGH_SIGNATURES", "UNKNOWN_KEY",
    ]  # fmt: skip


def test_a_rotation_applies_when_it_takes_effect(found: Found):
    """A key stays valid until then."""
    office = found("ann", "bob")
    later = rotate("r-1", remove=office.keys["bob"].fingerprint, effective_at="2026-01-01T00:01:00Z")
    assert office.submit(later, by=["ann"]) == []
    assert office.submit(block("b-1", "t.example"), by=["bob"]) == []
    office.now = office.now.replace(minute=1)
    assert codes(office.submit(block("b-2", "t.example"), by=["bob"]))[0] == "NOT_ENOUGH_SIGNATURES"


def test_a_rotation_that_a_gap_holds_changes_no_keys(found: Found):
    """Neither for later documents, nor for those of the same batch."""
    office = found("ann", "bob")
    removed = office.keys["bob"].fingerprint
    held = rotate("r-1", remove=removed, seq=3, prev="ab" * 32)
    by_bob = exempt("e-1", "t.example", seq=4, prev="ab" * 32)
    intake = office.judge(held, by_bob, by=["ann", "bob"])
    assert [one.order_id for one in intake.new] == ["r-1", "e-1"]
    assert [one.principal for one in intake.new[1].judgement.signers] == ["ann", "bob"]
