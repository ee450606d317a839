"""Debian's Chromium, driven by Playwright, and the accessibility rules of axe-core."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import axe_playwright_python
from playwright.sync_api import Browser, Page, sync_playwright

from .tools import tool

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
# Screenshots are looked at by eye; git ignores the folder.
SHOTS = Path(__file__).resolve().parents[2] / ".run" / "screenshots"
SIZES = {"desk": {"width": 1280, "height": 800}, "phone": {"width": 360, "height": 740}}
WAIT_MS = 120_000  # of everything that is waited for: a busy machine may be slow


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser. It runs as root in a container, and reaches nothing but this machine."""
    options = [
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=options, timeout=WAIT_MS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def window(
    browser: Browser, *, size: str = "desk", scheme: str = "light", language: str = "en-GB", **options: bool
) -> Iterator[Page]:
    """A window with cookies of its own. No page may log an error or break the Content-Security-Policy."""
    context = browser.new_context(
        viewport=SIZES[size], color_scheme=scheme, locale=language, ignore_https_errors=True, **options
    )
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert wrong == []


def look(page: Page, name: str) -> list[str]:
    """Takes a screenshot, and returns what is wrong: rules of axe-core, and content that is too wide."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
    page.evaluate(f"{AXE};0")
    found = page.evaluate(
        "axe.run().then(result => result.violations.map("
        "one => `${one.id}: ${one.nodes.map(node => node.html).slice(0, 3).join(' ')}`))"
    )
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return [
        *(f"{name}: {one}" for one in found),
        *([f"{name}: {width} pixels too wide"] if width > 0 else []),
    ]
