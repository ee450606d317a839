"""docs/openapi.json describes the API as it is: its paths, and every field of its responses."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_type_hints

import openapi
import pytest
from starlette.routing import Route

from dnsblock.config import Config
from dnsblock.http import models, models_operations, models_policy
from dnsblock.http.answers import TITLES
from dnsblock.http.api import LIMITS, routes
from dnsblock.http.callers import local_caller
from dnsblock.http.events import Streams
from dnsblock.http.orders import Site
from dnsblock.orders.state import derive
from dnsblock.policy import allowed, explain, impact, lifting, order_facts, past, past_impact, trial, verdicts

from .helpers import block, known, unblock

ROOT = Path(__file__).parents[2]
DESCRIPTION = json.loads((ROOT / "docs" / "openapi.json").read_text())
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_description_is_current():
    """`make openapi` writes it."""
    assert (ROOT / "docs" / "openapi.json").read_text() == openapi.text(), "run make openapi"


def test_the_table_of_requests_is_current():
    """`make openapi` writes it into docs/api.md."""
    page = openapi.REFERENCE.read_text()
    assert page == openapi.page(page), "run make openapi"


def test_the_description_has_every_path_and_no_other():
    """A client is generated from it."""
    control = cast(Any, SimpleNamespace())
    served = {
        (route.path, method.lower())
        for route in routes(control, Site(local_caller, LIMITS, lambda _: None), Streams())
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(path, method) for path, item in DESCRIPTION["paths"].items() for method in item}
    assert described == served


@pytest.mark.parametrize(
    ("model", "facts"),
    [
        (models.DocumentVerdict, verdicts.Verdict),
        (models.EntryVerdict, verdicts.EntryFacts),
        (models.OrderSummary, order_facts.OrderFacts),
        (models.OrderEntry, order_facts.OrderEntry),
        (models.Lifting, lifting.Lifting),
        (models_operations.Trial, trial.Trial),
        (models_operations.TrialEffect, trial.Effect),
        (models_operations.TrialSignatures, trial.Signatures),
        (models_policy.CoveringEntry, explain.CoveringEntry),
        (models_policy.AllowedName, allowed.AllowedName),
        (models_policy.NameEvent, past.NameEvent),
        (models_policy.Unenforced, past.Unenforced),
        (models_policy.UnknownOrder, past.Unknown),
        (models_policy.EnforcedThen, past.Enforced),
        (models_policy.ZoneDifference, past.ZoneDifference),
        (models_policy.PastImpactReport, past_impact.PastImpact),
        (models_policy.PastImpactEntry, past_impact.Entry),
        (models_policy.PastImpactDay, past_impact.Day),
        (models_policy.QueriedName, impact.Named),
        (models_policy.ImpactProgress, impact.Progress),
        (models_policy.ImpactReport, impact.Impact),
    ],
)
def test_a_response_has_every_field_of_the_facts(model: type[models.Model], facts: type):
    """A field that is not in the model is never sent, so a new one must be added here and described."""
    assert model.model_fields.keys() == get_type_hints(facts).keys()


def test_an_order_has_every_field_of_the_facts():
    """As above; and the values fit the types."""
    orders = known(block("B-1", "one.example"), unblock("U-1", "B-1"))
    config = Config.model_validate({"upstream": {"servers": ["192.0.2.1"]}})
    for order_id in ("B-1", "U-1"):
        life = orders.of("a").latest(order_id)
        assert life is not None
        facts = order_facts.whole_order(life, derive(orders, NOW), config, NOW)
        whole = {**facts, "time_zone": "Asia/Jakarta", "blocked_queries": None}
        sent = models.Order.model_validate(whole)
        assert whole == sent.model_dump(mode="json")


def test_every_code_is_documented():
    """docs/api.md lists the codes of errors; programs depend on them."""
    page = (ROOT / "docs" / "api.md").read_text()
    table = page.split("## Errors\n", 1)[1].split("\n## ", 1)[0]
    codes = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(codes) == sorted(TITLES)
