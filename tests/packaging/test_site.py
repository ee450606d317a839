"""The documentation site of `make docs`: complete, without warnings, and nothing from other hosts."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import UnionType
from typing import get_args
from urllib.parse import unquote

import click
import pytest
import yaml

from dnsblock.cli import main
from dnsblock.config import Config

ROOT = Path(__file__).parents[2]
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "embed": "src"}


class Page(HTMLParser):
    """The links, anchors, loaded resources, headings and inline code of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.loaded: list[str] = []
        self.languages: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        self.languages |= {found["lang"]} if found.get("lang") else set()
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload", "modulepreload"):
            self.loaded.append(found["href"])
        if tag in LOADING and found.get(LOADING[tag]):
            self.loaded.append(found[LOADING[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site. A warning of the generator, such as a broken link, ends `make docs`."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = ["make", "--no-print-directory", "docs", f"SITE={folder}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (made.returncode, made.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {str(file.relative_to(site)): Page(file.read_text()) for file in site.rglob("*.html")}


def text_of(site: Path, page: str) -> str:
    """The text of a page, without tags. Each paragraph, heading and term ends a line."""
    article = (site / page).read_text().split("<article", 1)[1].split("</article>", 1)[0]
    lines = re.sub(r"</(dt|dd|p|h\d|pre|li|div)>", "\n", article)
    return html.unescape(re.sub(r"<[^>]+>", "", lines))


# ------- Pages


def test_every_page_can_be_reached_from_the_first_one(site: Path, pages: dict[str, Page]):
    """A page without a way to it is not found."""
    written = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*/*.md")]
    expected = {str(page.relative_to(ROOT).with_suffix(".html")) for page in written}
    assert expected <= pages.keys()
    reached, ahead = set(), ["docs/index.html"]
    while ahead:
        here = ahead.pop()
        if here in reached or here not in pages:
            continue
        reached.add(here)
        ahead += [resolved(site, here, link) for link in pages[here].links if is_internal(link)]
    assert expected <= reached


def test_the_folder_opens_at_the_first_page(pages: dict[str, Page]):
    """A web server and a person open index.html."""
    assert pages["index.html"].links == ["docs/index.html"]


def is_internal(link: str) -> bool:
    return not re.match(r"[a-z]+:|//", link)


def resolved(site: Path, page: str, link: str) -> str:
    """The file of a link, relative to the site."""
    path = unquote(link.partition("#")[0])
    return str(((site / page).parent / path).resolve().relative_to(site)) if path else page


def test_every_link_and_every_anchor_of_the_site_exists(site: Path, pages: dict[str, Page]):
    """Also those of the generated pages."""
    for page, found in pages.items():
        for link in filter(is_internal, found.links):
            target, anchor = resolved(site, page, link), link.partition("#")[2]
            assert (site / target).exists(), f"{page}: {link}"
            if anchor and target in pages:
                assert unquote(anchor) in pages[target].anchors, f"{page}: {link}"


def test_nothing_is_loaded_from_another_host(site: Path, pages: dict[str, Page]):
    """The site works without Internet access, and tells nobody who reads it."""
    loaded = {one for page in pages.values() for one in page.loaded}
    assert loaded
    assert {one for one in loaded if not is_internal(one)} == set()
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text()), sheet


def test_pages_in_indonesian_are_marked_as_such(pages: dict[str, Page]):
    """A screen reader pronounces them by their language."""
    for page, found in pages.items():
        assert ("id" in found.languages) == page.startswith("docs/id/"), page


@pytest.mark.parametrize(
    ("term", "title"),
    [("serve-stale", "Serve-stale"), ("prefetch", "Prefetch"), ("rate limiting", "Rate limiting")],
)
def test_the_search_finds_a_term_without_a_web_server(site: Path, tmp_path: Path, term: str, title: str):
    """In a real browser, from the files alone."""
    browser = shutil.which("chromium")
    assert browser, "chromium is missing: apt-get install chromium"
    done = subprocess.run(
        [
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=600000"),
            f"--user-data-dir={tmp_path}",
            f"file://{site}/search.html?q={term.replace(' ', '+')}",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    results = done.stdout.split('class="search"', 1)[1]
    assert f"Operations &gt; {title}" in results


# ------- References


def commands(group: click.Group, *before: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield " ".join([*before, name]), command


def sections(text: str) -> dict[str, str]:
    """The text under each heading of a page that names a command."""
    parts = re.split(r"^(dnsblock [a-z][a-z -]*)¶$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_reference_has_every_command_with_every_option(site: Path):
    """It is generated from the commands."""
    found = sections(text_of(site, "docs/commands.html"))
    known = dict(commands(main))
    assert found.keys() == {f"dnsblock {name}" for name in known}
    common = text_of(site, "docs/commands.html").split("List of commands")[0]
    for name, command in known.items():
        for option in command.params:
            if isinstance(option, click.Option):
                place = common if option.name in ("config_path", "as_json") else found[f"dnsblock {name}"]
                assert all(one in place for one in (*option.opts, option.help.replace("`", ""))), (
                    f"{name}: {option.name}"
                )


def options(model: type = Config, above: str = "") -> set[str]:
    """Every option as a path, such as tcp.max_connections."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        path = f"{above}{field.alias or name}"
        found.add(path)
        kinds = [field.annotation]
        if isinstance(field.annotation, UnionType) and field.default is not None:
            kinds = list(get_args(field.annotation))
        for kind in kinds:
            found |= options(kind, f"{path}.") if hasattr(kind, "model_fields") else set()
    return found


def paths(value: object, above: str) -> set[str]:
    """The option of a default, and the options in it."""
    inside = value.items() if isinstance(value, dict) else ()
    return {above}.union(*(paths(one, f"{above}.{key}") for key, one in inside))


def test_the_reference_has_every_option_of_the_configuration_with_its_default(site: Path):
    """It is generated from config/dnsblock.yaml, whose values are the defaults."""
    page = (site / "docs/configuration.html").read_text().split('<section id="options">')[1]
    found: set[str] = set()
    for term in re.findall(r"<(?:dt|pre|h3)>(.*?)</(?:dt|pre|h3)>", page, re.DOTALL):
        shown = html.unescape(re.sub(r"<[^>]+>", "", term)).strip()
        if matched := re.fullmatch(r"([a-z0-9_]+(?:\.[a-z0-9_]+)*)(?::|¶)(?: (.*))?", shown):
            found |= paths(yaml.safe_load(matched[2] or "null"), matched[1])
    assert found >= options()


def test_the_reference_has_every_request_and_every_field_of_the_api(site: Path):
    """It is generated from docs/openapi.json."""
    shown = text_of(site, "docs/api-reference.html")
    description = json.loads((ROOT / "docs" / "openapi.json").read_text())
    for path, item in description["paths"].items():
        for method in item:
            assert f"{method.upper()} {path}" in shown
    for name, schema in description["components"]["schemas"].items():
        part = shown.split(f"\n{name}¶\n", 1)[1]
        for field in schema.get("properties", {}):
            assert f"\n{field} (" in part, f"{name}: {field}"
