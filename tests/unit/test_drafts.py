"""The input that is read before a publish (dnsblock/policy/snapshot.py)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dnsblock.change import LedgerEntries
from dnsblock.errors import Refused
from dnsblock.orders.approval import approval_of, refusal_of
from dnsblock.orders.context import Context
from dnsblock.policy.snapshot import Draft

from .helpers import block
from .registry import OPERATOR, Registry

NOT_USED: Any = None


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def read(registry: Registry, *documents: str) -> Draft:
    """A draft with new orders, as `order submit` makes it."""
    context = Context(registry.config, registry.references, registry.orders, registry.now)
    new = registry.judge(*documents).new
    config, references = registry.config, registry.references
    return Draft(config, NOT_USED, NOT_USED, new, references=references, judged_in=context)


def test_an_order_is_not_judged_again_because_of_another_issuer(registry: Registry):
    """A million entries would delay the publish, which everybody waits for."""
    draft = read(registry, block("b-1", "t.example"))
    assert draft.after(registry.orders, registry.now) is draft
    registry.submit(block("b-2", "u.example", issuer="b"))
    assert draft.after(registry.orders, registry.now) is draft


def test_an_order_is_judged_again_after_another_one_of_its_issuer(registry: Registry):
    """Its number may be taken by now."""
    draft = read(registry, block("b-1", "t.example"))
    registry.submit(block("b-1", "u.example"))
    assert draft.after(registry.orders, registry.now).new == ()


def test_an_order_is_judged_again_after_a_change_of_the_configuration(registry: Registry):
    """Its entry may be protected by now."""
    draft = read(registry, block("b-1", "t.example", "u.example"))
    copy = replace(draft, config=registry.config.model_copy())
    assert copy.after(registry.orders, registry.now) is copy
    protected = replace(draft, config=registry.config.model_copy(update={"protected": ("t.example",)}))
    (order,) = protected.after(registry.orders, registry.now).new
    assert [one.code for one in order.judgement.refused] == ["PROTECTED"]


def test_an_approval_means_the_order_that_the_operator_looked_at(registry: Registry):
    """Another one may have its number, and other names at the same places, when it is recorded."""
    registry.submit(block("b-1", "t.me", "t.example"))
    own = registry.orders.of("a")
    approval, _ = approval_of(own, "a", "b-1", ["t.me"], "checked")
    change = LedgerEntries(OPERATOR, "order approve", decisions=(approval,), decided=(own.order("b-1"),))
    change.check(registry.orders)
    registry.annul("b-1")
    with pytest.raises(Refused, match="was annulled in the meantime"):
        change.check(registry.orders)
    registry.submit(block("b-1", "google.com", "t.example"))
    with pytest.raises(Refused, match="was annulled in the meantime"):
        change.check(registry.orders)


@pytest.mark.parametrize("first", ["approve", "refuse"])
def test_of_two_decisions_about_an_entry_the_first_one_holds(registry: Registry, first: str):
    """Two operators decide at the same time. A late refusal would end a block that is in force."""
    registry.submit(block("b-1", "t.me", "telegram.org", "t.example"))
    own = registry.orders.of("a")
    changes = [
        LedgerEntries(OPERATOR, "decision", decisions=(fact,), decided=(own.order("b-1"),))
        for fact, _ in (
            approval_of(own, "a", "b-1", ["t.me"], "checked"),
            refusal_of(own, "a", "b-1", ["t.me"], "not meant"),
            refusal_of(own, "a", "b-1", [], "not meant"),
        )
    ]
    registry.approve("b-1", "telegram.org")
    changes[1].check(registry.orders)
    with pytest.raises(Refused, match="no longer held"):
        changes[2].check(registry.orders)
    getattr(registry, first)("b-1", "t.me")
    for change in changes:
        with pytest.raises(Refused, match="no longer held"):
            change.check(registry.orders)
