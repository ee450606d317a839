"""The configuration of Sphinx for the site and the man pages (`make docs`, `make man`)."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

from dnsblock import __version__

sys.path.insert(0, str(Path(__file__).parents[1]))

from generator import pages

project = "dnsblock"
author = "The dnsblock maintainers"
release = version = __version__
language = "en"

extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 6  # as on a Git host
smartquotes = False  # it makes a dash of the two hyphens of an option
highlight_language = "text"
nitpicky = True

# The sources are the whole repository, so that links between its files work.
include_patterns = [f"{page}.md" for page in pages.sources()]
exclude_patterns = [".*", "dist", "dnsblock", "engine", "tests"]
root_doc = pages.INDEX

html_theme = "furo"  # dark and light, for phones, and nothing is loaded from another host
html_title = "dnsblock"
html_static_path = ["static"]
html_extra_path = ["root"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_search_summary = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"footer_icons": []}

man_pages = [
    ("docs/commands", "dnsblock", "enforce DNS blocking orders in front of recursive resolvers", "", 8),
    ("docs/configuration", "dnsblock.yaml", "configuration file of dnsblock", "", 5),
]
man_show_urls = False


def fill(_: Sphinx, __: str, source: list[str]) -> None:
    """Adds the generated parts to a page."""
    source[0] = pages.filled(source[0])


def mark_language(_: Sphinx, page: str, __: str, context: dict[str, object], ___: object) -> None:
    """Tells browsers and screen readers which pages are in Indonesian."""
    if page.startswith("docs/id/") and "body" in context:
        context["body"] = f'<div lang="id">{context["body"]}</div>'


def setup(app: Sphinx) -> None:
    app.connect("source-read", fill)
    app.connect("html-page-context", mark_language)
