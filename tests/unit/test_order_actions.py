"""The effect of each action. Nothing holds an order that only opens names."""

import itertools
from pathlib import Path

import pytest

from .helpers import block, document, exempt, sha256, unblock
from .registry import Registry, codes
from .ssh_keys import make_key

FLAGGER = {"may": ["propose"]}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Unsigned orders are accepted."""
    return Registry(tmp_path)


def ending(
    action: str, order_id: str, target: str, *names: str, entries: tuple[str, ...] = (), **fields: object
) -> str:
    """An order that ends entries of another one; none given: all."""
    named = f"[{', '.join(names)}]" if names else "all"
    return document(
        order_id, action, targets=[f"{{order_id: {target}, entries: {named}}}"], entries=entries, **fields
    )


# ------- Lifting is never held -------


def numbers(first: str) -> dict[str, dict[str, object]]:
    """Every way in which the numbers of an order may be wrong, after one order."""
    return {
        "right": {"seq": 2, "prev": sha256(first)},
        "no number": {},
        "after a gap": {"seq": 7, "prev": "ab" * 32},
        "wrong prev": {"seq": 2, "prev": "ab" * 32},
        "the number of another order": {"seq": 1},
        "wrong prev and a taken number": {"seq": 2, "prev": "ab" * 32},
    }


FIRST = block("b-1", "t.example", "u.example", seq=1)
OPENING = {
    "unblock": lambda **fields: unblock("x-1", "b-1", **fields),
    "unblock of one name": lambda **fields: unblock("x-1", "b-1", "t.example", **fields),
    "revoke": lambda **fields: ending("revoke", "x-1", "b-1", **fields),
    "exempt": lambda **fields: exempt("x-1", "t.example", **fields),
}
CASES = list(itertools.product(OPENING, numbers(FIRST)))


@pytest.mark.parametrize(("action", "number"), CASES, ids=[", ".join(case) for case in CASES])
def test_an_order_that_opens_names_applies_whatever_its_number(registry: Registry, action: str, number: str):
    """Not after a gap, and not with a wrong `seq` or `prev`: lifting a block is what fails in practice."""
    registry.submit(FIRST)
    if number == "wrong prev and a taken number":
        registry.submit(block("b-2", "v.example", seq=2, prev=sha256(FIRST)))
    opening = OPENING[action](**numbers(FIRST)[number])
    assert registry.submit(opening) == []
    assert registry.state("x-1") == "active"
    in_force = registry.in_force()
    if action == "exempt":
        assert "t.example of x-1" in in_force
    else:
        assert "t.example of b-1" not in in_force
        assert ("u.example of b-1" in in_force) == (action == "unblock of one name")


@pytest.mark.parametrize("action", OPENING)
def test_a_wrong_number_of_an_order_that_opens_names_is_noted(registry: Registry, action: str):
    """The issuer must correct it, since a later block would be held."""
    registry.submit(FIRST)
    notes = registry.judge(OPENING[action](seq=1)).notes
    assert any(
        "WRONG_SEQ: 1: this seq is that of order b-1; the order applies anyway" in note for note in notes
    )


def test_a_block_after_a_gap_is_held_until_the_missing_order_comes(registry: Registry):
    """The missing one may be an unblock that somebody withholds."""
    second = unblock("u-2", "b-1", seq=2, prev=sha256(FIRST))
    third = block("b-3", "v.example", seq=3, prev=sha256(second))
    registry.submit(FIRST)
    registry.submit(third)
    assert registry.state("b-3") == "held"
    registry.submit(second)
    assert registry.in_force() == ["v.example of b-3"]


def test_an_order_that_opens_names_after_a_gap_is_no_end_of_the_gap(registry: Registry):
    """It applies, and the blocks around it wait for the missing order."""
    opening = unblock("u-3", "b-1", "t.example", seq=3, prev="ab" * 32)
    registry.submit(FIRST)
    registry.submit(opening, block("b-4", "v.example", seq=4, prev=sha256(opening)))
    assert registry.in_force() == ["u.example of b-1"]
    assert registry.state("b-4") == "held"
    assert registry.orders.of("a").chain.gap == 2


def test_an_unblock_lifts_the_names_that_exist(registry: Registry):
    """A misspelled name must not keep ten others blocked."""
    registry.submit(block("b-1", "t.example", "u.example"))
    intake = registry.judge(unblock("u-1", "b-1", "t.example", "tt.example"))
    assert [one.code for one in intake.new[0].refused] == ["UNKNOWN_ENTRY"]
    registry.submit(unblock("u-1", "b-1", "t.example", "tt.example"))
    assert registry.in_force() == ["u.example of b-1"]
    assert registry.states()["u-1"].refused == 1


# ------- revoke -------


def test_a_revoked_block_is_not_in_force(registry: Registry):
    """A whole order that should not have been made."""
    registry.submit(block("b-1", "t.example", "u.example"), ending("revoke", "r-1", "b-1"))
    assert registry.in_force() == []
    assert (registry.state("b-1"), registry.state("r-1")) == ("revoked", "active")


def test_a_revoked_exemption_blocks_again(registry: Registry):
    """The only way to end an exemption before its time."""
    registry.submit(block("b-1", "t.example"), exempt("e-1", "t.example"))
    assert registry.in_force() == ["t.example of b-1", "t.example of e-1"]
    registry.submit(ending("revoke", "r-1", "e-1"))
    assert registry.in_force() == ["t.example of b-1"]


def test_a_revoked_exemption_blocks_again_only_without_a_gap(registry: Registry):
    """It is the one revoke that does not open names."""
    exemption = exempt("e-2", "t.example", seq=2, prev=sha256(FIRST))
    registry.submit(FIRST, exemption)
    registry.submit(ending("revoke", "r-4", "e-2", seq=4, prev="ab" * 32))
    assert registry.state("r-4") == "held"
    assert "t.example of e-2" in registry.in_force()


def test_a_revoked_notice_says_so(registry: Registry):
    """It enforced nothing before, and a block may not refer to it any more."""
    registry.submit(document("n-1", "notice", entries=["t.example"]))
    assert (registry.state("n-1"), registry.in_force()) == ("notice", [])
    registry.submit(ending("revoke", "r-1", "n-1"))
    assert registry.state("n-1") == "revoked"


def test_only_a_revoke_ends_an_exemption_or_a_notice(registry: Registry):
    """An unblock that ended an exemption would block."""
    registry.submit(exempt("e-1", "t.example"), document("n-1", "notice", entries=["u.example"]))
    for target in ("e-1", "n-1"):
        for action, entries in (("unblock", ()), ("supersede", ("v.example",))):
            refused = registry.submit(ending(action, "x-1", target, entries=entries))
            assert codes(refused) == ["UNKNOWN_ORDER"], (action, target)


def test_an_exemption_that_comes_after_an_unblock_of_its_number_is_not_ended(registry: Registry):
    """After a gap, the target may come later. Then it must be one that an unblock may end."""
    second = exempt("e-2", "t.example", seq=2, prev=sha256(FIRST))
    registry.submit(FIRST)
    registry.submit(unblock("u-3", "e-2", seq=3, prev=sha256(second)))
    registry.submit(second)
    assert "t.example of e-2" in registry.in_force()


# ------- supersede -------


def test_a_supersede_keeps_the_names_of_both_and_opens_the_others(registry: Registry):
    """Closes and opens in one step: no name is open in between."""
    registry.submit(block("b-1", "t.example", "u.example"))
    registry.submit(ending("supersede", "s-1", "b-1", entries=("u.example", "v.example")))
    assert registry.in_force() == ["u.example of s-1", "v.example of s-1"]
    assert (registry.state("b-1"), registry.state("s-1")) == ("superseded", "active")


def test_a_scheduled_supersede_changes_nothing_before_its_time(registry: Registry):
    """The names of both are blocked by the old order until then, and by the new one from then on."""
    registry.submit(block("b-1", "t.example", "u.example"))
    then = "2026-01-01T00:10:00Z"
    registry.submit(ending("supersede", "s-1", "b-1", entries=("u.example",), effective_at=then))
    assert registry.in_force() == ["t.example of b-1", "u.example of b-1"]
    registry.now = registry.now.replace(minute=10)
    assert registry.in_force() == ["u.example of s-1"]


def test_a_held_supersede_opens_what_it_no_longer_names(registry: Registry):
    """Its part that opens names is not held by a gap; the names of both stay blocked by the old order."""
    registry.submit(FIRST)
    registry.submit(
        ending("supersede", "s-3", "b-1", entries=("u.example", "v.example"), seq=3, prev="ab" * 32)
    )
    assert registry.in_force() == ["u.example of b-1"]
    assert registry.state("s-3") == "held"
    registry.approve("s-3")
    assert registry.in_force() == ["u.example of s-3", "v.example of s-3"]


def test_a_replaced_supersede_closes_nothing_that_it_opened(registry: Registry):
    """Its `prev` was wrong, and the issuer sends another order with its number."""
    registry.submit(FIRST)
    registry.submit(ending("supersede", "s-2", "b-1", entries=("u.example",), seq=2, prev="ab" * 32))
    assert registry.in_force() == ["u.example of b-1"]
    registry.submit(block("b-2", "v.example", seq=2, prev=sha256(FIRST)))
    assert registry.state("s-2") == "annulled"
    assert registry.in_force() == ["u.example of b-1", "v.example of b-2"]


def test_a_supersede_of_one_name_leaves_the_others(registry: Registry):
    """Its targets may be parts of orders."""
    registry.submit(block("b-1", "t.example", "u.example"))
    registry.submit(ending("supersede", "s-1", "b-1", "t.example", entries=("v.example",)))
    assert registry.in_force() == ["u.example of b-1", "v.example of s-1"]
    assert registry.state("b-1") == "partially lifted"


def test_a_supersede_is_lifted_like_a_block(registry: Registry):
    """And what it has ended does not come back."""
    registry.submit(block("b-1", "t.example"))
    registry.submit(ending("supersede", "s-1", "b-1", entries=("u.example",)))
    registry.submit(unblock("u-1", "s-1"))
    assert registry.in_force() == []
    assert (registry.state("b-1"), registry.state("s-1")) == ("superseded", "lifted")


# ------- notice -------


def test_a_notice_is_not_enforced_until_a_block_refers_to_it(registry: Registry):
    """The block has the entries of the notice, without naming them again."""
    registry.submit(document("n-1", "notice", entries=["t.example", "u.example"]))
    assert registry.in_force() == []
    registry.submit(block("b-1", notice="n-1"))
    assert registry.in_force() == ["t.example of b-1", "u.example of b-1"]
    assert registry.state("n-1") == "notice"
    registry.submit(unblock("u-1", "b-1", "t.example"))
    assert registry.in_force() == ["u.example of b-1"]


def test_a_block_and_its_notice_may_come_together(registry: Registry):
    """In one folder, in any sequence of files."""
    assert registry.submit(block("b-1", notice="n-1"), document("n-1", "notice", entries=["t.example"])) == []
    assert registry.in_force() == ["t.example of b-1"]


def test_a_notice_after_a_gap_waits_for_no_other_order(registry: Registry):
    """It enforces nothing, so there is nothing to hold."""
    registry.submit(document("n-3", "notice", entries=["t.example"], seq=3, prev="ab" * 32))
    assert registry.state("n-3") == "notice"


# ------- rotate -------


@pytest.fixture
def office(tmp_path: Path) -> Registry:
    return Registry(tmp_path, "ann", "bob")


def rotate(order_id: str, add: str, remove: str, **fields: object) -> str:
    return document(order_id, "rotate", keys=f"{{add: ['{add}'], remove: ['{remove}']}}", **fields)


def test_after_a_rotation_only_the_new_key_counts(office: Registry):
    """Signed with the old key. The operator need not change the file of keys."""
    new = make_key()
    rotation = rotate("r-1", f"ann {new.public_line}", office.keys["ann"].fingerprint)
    assert office.submit(rotation, by=["ann"]) == []
    assert codes(office.submit(block("b-1", "t.example"), by=["ann"])) == [
        "NOT_ENOUGH_SIGNATURES",
        "UNKNOWN_KEY",
    ]
    office.keys["ann"] = new
    assert office.submit(block("b-1", "t.example"), by=["ann"]) == []
    assert office.in_force() == ["t.example of b-1"]


def test_a_rotation_with_the_new_key_only_is_refused(office: Registry):
    """An intruder who can submit documents must not be able to add a key."""
    new = make_key()
    rotation = rotate("r-1", f"ann {new.public_line}", office.keys["ann"].fingerprint)
    office.keys["new"] = new
    assert codes(office.submit(rotation, by=["new"])) == ["NOT_ENOUGH_SIGNATURES", "UNKNOWN_KEY"]


def test_a_removed_key_is_refused_with_the_reason(office: Registry):
    """The file of keys still has its line, so the message must not name the file alone."""
    new = make_key()
    rotation = rotate("r-1", f"ann {new.public_line}", office.keys["ann"].fingerprint)
    office.submit(rotation, by=["ann"])
    refused = office.submit(block("b-1", "t.example"), by=["ann"])
    assert codes(refused) == ["NOT_ENOUGH_SIGNATURES", "UNKNOWN_KEY"]
    assert "with the changes of rotate orders, has no valid line for it" in str(refused)


def test_in_one_batch_a_rotation_applies_to_the_orders_after_it(office: Registry):
    """`seq` says which order is earlier, not the sequence of the files."""
    new = make_key()
    before = block("b-1", "t.example", seq=1)
    rotation = rotate(
        "r-2", f"ann {new.public_line}", office.keys["ann"].fingerprint, seq=2, prev=sha256(before)
    )
    after = block("b-3", "u.example", seq=3, prev=sha256(rotation))
    office.keys["new"] = new
    signed = [
        *((text, "ann") for text in (rotation, before)),
        (after, "new"),
    ]
    for sequence in itertools.permutations(signed):
        intake = office.judge_signed(*sequence)
        assert (intake.refused, [order.order_id for order in intake.new]) == ((), ["b-1", "r-2", "b-3"])
    late = block("b-3", "u.example", seq=3, prev=sha256(rotation))
    (refused,) = office.judge_signed((before, "ann"), (rotation, "ann"), (late, "ann")).refused
    assert refused.order_id == "b-3"


def test_in_one_batch_without_numbers_a_rotation_applies_to_what_was_issued_after_it(office: Registry):
    """A new server reads all orders of an issuer again, such as an unblock that the former key has signed."""
    new = make_key()
    times = [f"2025-01-0{day}T00:00:00Z" for day in (1, 2, 3, 4)]
    first = block("b-1", "t.example", "u.example", issued_at=times[0])
    lifting = unblock("u-2", "b-1", "t.example", issued_at=times[1])
    rotation = rotate("r-3", f"ann {new.public_line}", office.keys["ann"].fingerprint, issued_at=times[2])
    after = block("b-4", "v.example", issued_at=times[3])
    office.keys["new"] = new
    signed = [(first, "ann"), (lifting, "ann"), (rotation, "ann"), (after, "new")]
    for sequence in itertools.permutations(signed):
        intake = office.judge_signed(*sequence)
        assert (intake.refused, len(intake.new)) == ((), 4)


def test_in_one_batch_an_unblock_comes_after_the_order_that_it_lifts(registry: Registry):
    """Whatever their names, and although the unblock lacks the number that the others have."""
    second = ending("supersede", "z-2", "b-1", entries=("u.example",), seq=2, prev=sha256(FIRST))
    documents = (unblock("a-1", "z-2"), FIRST, second)
    for sequence in itertools.permutations(documents):
        intake = registry.judge(*sequence)
        assert [order.order_id for order in intake.new] == ["b-1", "z-2", "a-1"]
    plain = ending("supersede", "z-2", "b-1", entries=("u.example",))
    intake = registry.judge(unblock("a-1", "z-2"), plain, block("b-1", "t.example"))
    assert [order.order_id for order in intake.new] == ["b-1", "z-2", "a-1"]


def test_an_annulled_rotation_leaves_the_old_keys(office: Registry):
    """The operator annuls what was wrong."""
    new = make_key()
    office.submit(rotate("r-1", f"ann {new.public_line}", office.keys["ann"].fingerprint), by=["ann"])
    office.annul("r-1")
    assert office.submit(block("b-1", "t.example"), by=["ann"]) == []


# ------- Thresholds and flaggers -------


def test_an_order_with_too_few_signatures_is_accepted_when_another_officer_signs(tmp_path: Path):
    """`signatures: 2`: it is refused first, and nothing of it is kept."""
    office = Registry(tmp_path, "ann", "bob", signatures=2)
    text = block("b-1", "t.example")
    assert codes(office.submit(text, by=["ann"])) == ["NOT_ENOUGH_SIGNATURES"]
    assert office.in_force() == []
    assert office.submit(text, by=["ann", "bob"]) == []
    assert office.in_force() == ["t.example of b-1"]
    signers = office.orders.of("a").order("b-1").judgement.signers
    assert [one.principal for one in signers] == ["ann", "bob"]


@pytest.mark.parametrize("action", ["block", "exempt", "supersede", "notice"])
def test_what_a_flagger_orders_is_only_proposed_until_an_officer_signs(tmp_path: Path, action: str):
    """`may: [propose]`: shown, not enforced."""
    office = Registry(tmp_path, "ann", "flag", roles={"flag": FLAGGER})
    office.submit(block("b-1", "u.example"), by=["ann"])
    text = (
        ending("supersede", "x-1", "b-1", entries=("t.example",))
        if action == "supersede"
        else document("x-1", action, entries=["t.example"])
    )
    assert office.submit(text, by=["flag"]) == []
    assert (office.state("x-1"), office.in_force()) == ("proposed", ["u.example of b-1"])
    office.submit(text, by=["flag", "ann"])
    expected = {"supersede": ["t.example of x-1"], "notice": ["u.example of b-1"]}
    both = ["t.example of x-1", "u.example of b-1"]
    assert office.in_force() == expected.get(action, both)


@pytest.mark.parametrize("action", ["unblock", "revoke"])
def test_a_lifting_that_a_flagger_proposes_lifts_nothing_until_an_officer_signs(tmp_path: Path, action: str):
    """Nor after a restart, which reads the ledger again."""
    office = Registry(tmp_path, "ann", "flag", roles={"flag": FLAGGER})
    office.submit(block("b-1", "t.example", "u.example"), by=["ann"])
    text = ending(action, "x-1", "b-1")
    assert office.submit(text, by=["flag"]) == []
    assert (office.state("x-1"), office.in_force()) == ("proposed", ["t.example of b-1", "u.example of b-1"])
    assert office.submit(text, by=["ann"]) == []
    assert (office.state("x-1"), office.in_force()) == ("active", [])
    judgement = office.restarted().of("a").order("x-1").judgement
    assert [one.principal for one in judgement.signers] == ["ann"]
    assert [one.principal for one in judgement.proposers] == ["flag"]


@pytest.mark.parametrize("action", ["snapshot", "rotate"])
def test_a_flagger_states_nothing_and_changes_no_keys(tmp_path: Path, action: str):
    """That is for officers alone: it is refused."""
    office = Registry(tmp_path, "ann", "flag", roles={"flag": FLAGGER})
    new = make_key()
    text = rotate("x-1", f"flag {new.public_line}", new.fingerprint)
    if action == "snapshot":
        content = f"entries: 0, digest: {'0' * 64}, valid_until: 2117-12-01T00:00:00Z"
        text = document("x-1", "snapshot", statement=f"{{{content}}}")
    assert codes(office.submit(text, by=["flag"])) == ["NOT_ENOUGH_SIGNATURES", "WRONG_ROLE"]


def test_the_operator_cannot_approve_what_a_flagger_proposed(tmp_path: Path):
    """An officer of the issuer must."""
    office = Registry(tmp_path, "ann", "flag", roles={"flag": FLAGGER})
    office.submit(block("b-1", "t.example"), by=["flag"])
    with pytest.raises(Exception, match="is only proposed"):
        office.approve("b-1")
