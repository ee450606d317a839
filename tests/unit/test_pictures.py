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
    """Figures without their source cannot be checked."""
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
    """Screen readers read the text."""
    alternatives = re.findall(rf"!\[([^\]]+)\]\(docs/images/{re.escape(picture.name)}\)", README)
    assert len(alternatives) == 1
    assert len(alternatives[0].split()) >= 10


def terminal() -> list[str]:
    """The lines of the picture of the terminal."""
    lines: dict[int, str] = {}
    for text in ET.fromstring((ROOT / "docs/images/terminal.svg").read_text()).iter(f"{SVG}text"):
        if number := re.search(r"line-(\d+)", text.get("clip-path", "")):
            line = lines.get(int(number[1]), "") + "".join(text.itertext()).strip("\n")
            lines[int(number[1])] = line.replace("\N{NO-BREAK SPACE}", " ")
    return [lines[number] for number in sorted(lines)]


def test_the_picture_of_the_terminal_shows_nothing_of_the_machine_it_was_made_on():
    """User and host names do not belong into a repository."""
    assert "$ dnsblock status" in terminal()
    assert not re.search(r"/(home|root|tmp|work|Users)\b", "\n".join(terminal()))


def test_the_picture_of_the_terminal_has_the_words_that_the_commands_print_today():
    """`.venv/bin/python tests/terminal.py` draws it again."""
    source = "\n".join(file.read_text() for file in sorted((ROOT / "dnsblock").rglob("*.py")))
    labels = {line[:14].rstrip() for line in terminal()[: terminal().index("")] if line.startswith("  ")}
    verdicts = re.findall(r"^\S+: (.+) \(serial", "\n".join(terminal()), re.MULTILINE)
    assert len(labels) >= 8
    assert len(verdicts) == 2
    gone = [words for words in (*labels, *verdicts) if words not in source]
    assert not gone, "run .venv/bin/python tests/terminal.py"
