"""One bad document never holds up another: neither a refused one, nor a defect of dnsblock with it."""

from pathlib import Path
from typing import Any

import pytest

from dnsblock.orders import intake, submission
from dnsblock.orders.context import Context
from dnsblock.orders.order import Order

from .helpers import block
from .registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "state")


class DefectError(Exception):
    """An exception that no code expects."""


def fails_for(name: str, function: Any) -> Any:
    """A function that has a defect with one document, or with its order."""

    def faulty(first: Any, *rest: Any) -> Any:
        if name in (first.order_id if isinstance(first, Order) else Path(first).name):
            raise DefectError
        return function(first, *rest)

    return faulty


def is_internal(reasons: list[str]) -> bool:
    return len(reasons) == 1 and reasons[0].startswith("INTERNAL: DefectError: please report it")


@pytest.mark.parametrize(("module", "function"), [(submission, "parse"), (intake, "verdicts_on")])
def test_a_defect_with_a_submitted_document_costs_only_that_one(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, module: Any, function: str
):
    """It is refused, and named."""
    monkeypatch.setattr(module, function, fails_for("1", getattr(module, function)))
    assert is_internal(
        registry.submit(block("b-0", "a.example"), block("b-1", "b.example"), block("b-2", "c.example"))
    )
    assert registry.in_force() == ["a.example of b-0", "c.example of b-2"]


@pytest.mark.parametrize(("module", "function"), [(intake, "parse"), (intake, "verdicts_on")])
def test_a_defect_with_a_document_in_the_folder_costs_only_that_one(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, function: str
):
    """A reload accepts all others, and the next one tries it again."""
    inbox = tmp_path / "orders"
    inbox.mkdir()
    for number in range(3):
        (inbox / f"{number}.yaml").write_text(block(f"b-{number}", f"n{number}.example"))
    context = Context(registry.config, registry.references, registry.orders, registry.now)
    with monkeypatch.context() as patched:
        patched.setattr(module, function, fails_for("1", getattr(module, function)))
        found = intake.examine(inbox, context)
    assert [order.order_id for order in found.new] == ["b-0", "b-2"]
    assert is_internal([problem.reason for problem in found.problems])
    assert [order.order_id for order in intake.examine(inbox, context).new] == ["b-0", "b-1", "b-2"]
