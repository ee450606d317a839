"""The pictures of the README: drawn from the figures they show, readable on light and dark."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from bench import chart

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PICTURES = sorted((ROOT / "docs/images").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def test_the_chart_shows_the_figures_of_the_page():
    """`PYTHONPATH=tests .venv/bin/python -m bench.chart` draws it again."""
    drawn = chart.draw(chart.of_page(chart.PAGE.read_text()))
    assert chart.PICTURE.read_text() == drawn, "run PYTHONPATH=tests .venv/bin/python -m bench.chart"


def test_the_chart_has_every_figure_with_machine_and_command():
    bars = chart.of_page(chart.PAGE.read_text())
    assert {bar.workload for bar in bars.bars} == {"blocked", "cached", "mix", "uncached"}
    assert all(0 < bar.least <= bar.median <= bar.most for bar in bars.bars)
    date_and_machine, command = bars.about
    assert re.match(r"\d+ \w+ \d{4}, .*processors", date_and_machine)
    assert command.startswith("make bench")


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_is_whole_and_loads_nothing_from_elsewhere(picture: Path):
    """A page shows a picture without the fonts, styles and images that it loads."""
    root = ET.fromstring(picture.read_text())
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label") or root.find(f"{SVG}title") is not None
    assert not re.findall(r"@import|@font-face|<image|href=|url\((?!#)", picture.read_text())


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_has_a_background_of_its_own(picture: Path):
    """So its text can be read on a light and on a dark page."""
    root = ET.fromstring(picture.read_text())
    assert next(root.iter(f"{SVG}rect")) is not None
    style = "".join(root.itertext())
    assert "prefers-color-scheme: dark" in style or picture.name == "terminal.svg"  # which is dark


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_the_readme_shows_every_picture_with_a_text_alternative(picture: Path):
    alternatives = re.findall(rf"!\[([^\]]+)\]\(docs/images/{re.escape(picture.name)}\)", README)
    assert len(alternatives) == 1
    assert len(alternatives[0].split()) >= 10


def test_the_picture_of_the_terminal_shows_nothing_of_the_machine_it_was_made_on():
    shown = " ".join(ET.fromstring((ROOT / "docs/images/terminal.svg").read_text()).itertext())
    shown = shown.replace("\N{NO-BREAK SPACE}", " ")
    assert "$ dnsblock status" in " ".join(shown.split())
    assert not re.search(r"/(home|root|tmp|work|Users)\b", shown)
