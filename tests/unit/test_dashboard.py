"""The Grafana dashboard: its structure, and its metrics. tests/conformance evaluates its expressions."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsblock import document

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "config" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dnsblock.json").read_text())
PAGE, METRICS = ((ROOT / "docs" / name).read_text() for name in ("dashboard.md", "metrics.md"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ROWS = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def expressions() -> list[str]:
    """Of all panels, annotations and variables."""
    found = [target["expr"] for panel in PANELS for target in panel["targets"]]
    found += [one["expr"] for one in DASHBOARD["annotations"]["list"]]
    return found + [one["definition"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]


def test_the_rows_are_in_the_sequence_of_the_page():
    """docs/dashboard.md describes each row."""
    assert re.findall(r"^\| ([A-Z][^|]+) \| [A-Z]", PAGE.split("## Rows")[1], re.MULTILINE) == ROWS


def test_ids_and_titles_are_unique():
    """Grafana refers to panels by their id, people by their title."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert (len(ids), len(titles)) == (len(set(ids)), len(set(titles)))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_its_meaning_and_its_unit(panel: dict):
    """A figure without a unit is misread at 3 a.m."""
    assert panel["title"]
    assert re.fullmatch(r"[A-Z0-9].*\.", panel["description"], re.DOTALL), "sentences"
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == DATA_SOURCE
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["expr"]
        assert target["legendFormat"]
        assert target["datasource"] == DATA_SOURCE
    references = [target["refId"] for target in panel["targets"]]
    assert len(references) == len(set(references))


def test_panels_do_not_overlap():
    """Grafana would move them to other rows."""
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        columns, lines = (
            range(place["x"], place["x"] + place["w"]),
            range(place["y"], place["y"] + place["h"]),
        )
        cells = set(itertools.product(columns, lines))
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_expression_is_for_the_chosen_instances():
    """An expression without the variable would mix all instances."""
    for expression in expressions():
        selectors = re.findall(
            r"\{([^}]*)\}", re.sub(r'"[^"]*"', lambda text: text[0].replace("}", ""), expression)
        )
        is_of_all = expression.startswith(("ALERTS{", "label_values(dnsblock_snapshot_serial,"))
        is_recorded = "zone:dnsblock_" in expression  # over all instances
        assert is_of_all or is_recorded or all('instance=~"$instance"' in one for one in selectors), (
            expression
        )
        assert is_of_all or is_recorded or selectors, expression


def test_every_metric_is_documented():
    """A dashboard with a metric that was renamed is empty when it is needed."""
    names = {
        name for text in expressions() for name in re.findall(r"[a-z:]*(?:dnsblock|process)_[\w:]+", text)
    }
    documented = set(re.findall(r"`([a-z:]*(?:dnsblock|process)_[\w:]+)`", METRICS))
    assert {re.sub(r"(?<=_seconds)_(?:bucket|sum|count)$", "", name) for name in names} <= documented


def test_every_alert_and_panel_on_the_page_exists():
    """docs/dashboard.md lists the panels that may be empty."""
    titles = {panel["title"] for panel in PANELS}
    named = set(re.findall(r"\*\*([A-Z][^*]+)\*\*", PAGE.split("Some panels are empty")[1]))
    assert named <= titles
    assert set(re.findall(r'panel\s+"([^"]+)"', PAGE)) <= titles


def test_the_provisioning_files_load_the_dashboard():
    """As docs/dashboard.md installs them."""

    def read(path: Path) -> dict:
        return document.read(path.name, path.read_bytes(), max_bytes=1 << 16).value

    provisioned = GRAFANA / "provisioning"
    (provider,) = read(provisioned / "dashboards" / "dashboards.yaml")["providers"]
    (source,) = read(provisioned / "datasources" / "dnsblock.yaml")["datasources"]
    assert (provider["type"], source["type"]) == ("file", "prometheus")
    assert f"{provider['options']['path']}/dnsblock.json" in PAGE
    for path in provisioned.rglob("*.yaml"):
        assert str(path.relative_to(ROOT)) in PAGE


def test_grafana_reads_everything_in_it():
    """By the classes of Grafana 10: a field that they do not know, such as a misspelled option, is lost."""
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))
    assert set(lost(DASHBOARD, read)) <= {
        ".id",  # null: Grafana gives it
        ".templating.list.definition",  # for its page of settings
        # Options of annotations by Prometheus.
        *(f".annotations.list.{name}" for name in ("titleFormat", "textFormat", "step")),
    }


def lost(written: object, read: object, place: str = "") -> Iterator[str]:
    """The places of all values that were not read as they are written."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            yield from lost(value, read[key], f"{place}.{key}") if key in read else [f"{place}.{key}"]
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for one, other in zip(written, read, strict=True):
            yield from lost(one, other, place)
    elif written != read:
        yield place
