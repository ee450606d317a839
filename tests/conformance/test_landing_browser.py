"""The landing page in a real Chromium: it is rendered with its own style, and no policy is violated."""

import re
import subprocess
from pathlib import Path

import pytest

from .harness import Subject
from .landing import BLOCKED, NUMBER, SITE, Landing
from .tools import tool

ARTEFACTS = Path(__file__).parents[1] / "artefacts"
WIDTHS = {"desktop": (1100, 1400), "phone": (500, 1700)}  # Chromium has no narrower window
SECONDS = 300  # a busy machine starts a browser slowly


@pytest.fixture(scope="module")
def page(shared_subject: Subject) -> Landing:
    return Landing(shared_subject).start()


def chromium(page: Landing, url: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Opens a page. Every name leads to the landing page, as with a sinkhole."""
    host, port = page.place
    command = [
        *(tool("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *(f"--user-data-dir={folder}", f"--host-resolver-rules=MAP *:80 {host}:{port}"),
        *("--enable-logging=stderr", "--disable-background-networking", "--no-first-run"),
    ]
    return subprocess.run([*command, *options, url], capture_output=True, text=True, timeout=SECONDS)


def test_a_browser_shows_the_page_by_its_own_rules(page: Landing, tmp_path: Path):
    """The inline style has the hash of the policy; Chromium reports any violation on its console."""
    done = chromium(page, f"http://www.{BLOCKED}/a/page?b", tmp_path, "--lang=en-GB", "--dump-dom")
    assert NUMBER in done.stdout, done.stderr
    assert '<html lang="en">' in done.stdout
    assert re.findall(r"CONSOLE.*", done.stderr) == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshots_are_kept(page: Landing, tmp_path: Path, width: str, scheme: str):
    """A person looks at them: tests/artefacts."""
    ARTEFACTS.mkdir(exist_ok=True)
    size = "--window-size={},{}".format(*WIDTHS[width])
    dark = ["--force-dark-mode"] if scheme == "dark" else []
    urls = {"blocked": f"http://{BLOCKED}/", "order": f"http://{SITE}/order/ministry.example/84%2F2017"}
    for name, url in urls.items():
        file = ARTEFACTS / f"landing-{name}-{width}-{scheme}.png"
        file.unlink(missing_ok=True)
        chromium(page, url, tmp_path, size, *dark, f"--screenshot={file}")
        assert file.read_bytes().startswith(b"\x89PNG")
