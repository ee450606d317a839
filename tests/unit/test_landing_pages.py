"""The pages of the landing page: every text is there in both languages, and each is used."""

import re
from pathlib import Path

import pytest

from dnsblock.web.landing.texts import INDONESIAN

FOLDER = Path(__file__).parents[2] / "dnsblock" / "web" / "landing"
TEMPLATE = (FOLDER / "templates" / "page.html").read_text()
SOURCES = (FOLDER / "pages.py").read_text() + TEMPLATE
ACTIONS = {"block", "supersede", "exempt", "unblock", "revoke"}  # the page translates the field of the order


def joined(source: str) -> str:
    """The source, with the parts of each split text joined."""
    return re.sub(r"\"\s*\n\s*\"", "", source)


def test_every_text_of_the_template_is_translated():
    """A missing one would be an internal error for an Indonesian visitor."""
    labels = re.findall(r"(?:say|row|time|texts|spoken)\(\"([^\"]+)\"", TEMPLATE)
    choices = re.findall(r"say\(\"([^\"]+)\" if \w+ else \"([^\"]+)\"\)", TEMPLATE)
    assert len(labels) > 20
    assert {*labels, *(text for pair in choices for text in pair)} <= INDONESIAN.keys()


def test_no_translation_is_left_over():
    """A text that was changed in the page must be translated again."""
    unused = [text for text in INDONESIAN if f'"{text}"' not in joined(SOURCES)]
    assert set(unused) <= ACTIONS


def test_translations_have_the_same_places_for_values():
    """A sentence without the name of the provider would be a different one."""
    for text, translated in INDONESIAN.items():
        assert text.count("{}") == translated.count("{}"), text


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance of `#rgb` or `#rrggbb`."""
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_has_enough_contrast(scheme: int):
    """WCAG 2.2 section 1.4.3: 4.5 to 1."""
    style = (FOLDER / "templates" / "style.css").read_text()
    colours = dict(re.findall(r"--(\w+):(#[0-9a-f]+)", re.findall(r":root{([^}]*)}", style)[scheme]))
    for text in ("ink", "soft", "mark", "link"):
        for ground in ("page", "card"):
            one, other = sorted((luminance(colours[text]), luminance(colours[ground])))
            assert (other + 0.05) / (one + 0.05) >= 4.5, (text, ground)
