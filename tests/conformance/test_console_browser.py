"""The console in a real Chromium: accessibility on every page, scripts, keyboard, and without scripts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from unit.https_server import Authority

from .browsers import chromium, look, window
from .harness import ISSUER, Subject, is_sinkholed
from .issuing import COURT, TOKENS, ZONES, IssuersApi
from .orders import block
from .tools import wait_for

LISTED = {"name": "listed", "list": "list.txt", "answer": "nodata"}
PAGES = {
    "login": "/login",
    "overview": "/",
    "orders": "/orders",
    "order": f"/orders/{ISSUER}/B-1%2F2026",
    "new-order": "/new-order",
    "submit": "/submit",
    "lists": "/lists",
    "exceptions": "/exceptions",
    "versions": "/versions",
    "list-versions": "/versions?zone=listed",
    "diff": "/diff?a=1&b=2",
    "search": "/search?name=one.example",
    "probes": "/probes",
    "ledger": "/ledger",
    "maintenance": "/maintenance",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IssuersApi]:
    """One daemon for all tests of this file, with held entries and a rejected list."""
    folder = tmp_path_factory.mktemp("console")
    subject = Subject(folder)
    try:
        api = IssuersApi(subject, Authority(folder / "servers"), Authority(folder / "clients"))
        lists = {"list.txt": [f"slot{number}.example" for number in range(200)]}
        api.start(zones=[*ZONES, LISTED], lists=lists, console={"listen": "127.0.0.1:0"})
        order = block(
            "B-1/2026",
            ["one.example", "t.me"],
            urgency="immediate",
            category="gambling",
            legal_basis=["UU 1/2024"],
            reason={"id": "Perjudian daring", "en": "Online gambling"},
        )
        assert api.submit(order).status_code == 201
        api.submit(block("C-1", ["court.example.net"], issuer=COURT), token="court")
        subject.put_list("list.txt", "<html><body>Internal error</body></html>\n")
        subject.cli("reload")
        wait_for(lambda: subject.status()["sources"][0]["rejected"], "the list is rejected")
        yield api
    finally:
        subject.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def address(site: IssuersApi, path: str) -> str:
    return f"https://{site.subject.status()['console']}/console{path}"


def sign_in(page: Page, site: IssuersApi, who: str) -> None:
    page.goto(address(site, "/login"))
    page.fill("#token", TOKENS[who])
    page.click("main button")
    page.wait_for_url("**/console/")


@pytest.mark.parametrize(
    ("size", "scheme", "language"),
    [
        ("desk", "light", "en-GB"),
        ("desk", "dark", "id-ID"),
        ("phone", "light", "id-ID"),
        ("phone", "dark", "en-GB"),
    ],
)
def test_every_page_passes_the_rules_of_axe(
    site: IssuersApi, browser: Browser, size: str, scheme: str, language: str
):
    """WCAG 2 A and AA, and axe's best practices; nothing is wider than the screen; no script fails."""
    wrong: list[str] = []
    with window(browser, size=size, scheme=scheme, language=language) as page:
        for name, path in PAGES.items():
            page.goto(address(site, path))
            if name == "login":
                wrong += look(page, f"{name}-{size}-{scheme}-{language[:2]}")
                sign_in(page, site, "chief")
            else:
                assert page.get_attribute("html", "lang") == language[:2]
                wrong += look(page, f"{name}-{size}-{scheme}-{language[:2]}")
    assert wrong == []


def test_an_order_is_checked_while_it_is_written(site: IssuersApi, browser: Browser):
    """The result appears in a live region, so that a screen reader reads it; fields follow the action."""
    with window(browser) as page:
        sign_in(page, site, "ministry")
        page.goto(address(site, "/new-order"))
        page.fill("#id", "99/2026")
        page.select_option("#action", "revoke")
        page.wait_for_selector("#names", state="hidden")
        page.select_option("#action", "block")
        page.fill("#names", "casino.example\nid")
        page.wait_for_selector("#findings .notice.warn >> text=PUBLIC_SUFFIX")
        page.fill("#names", "casino.example\nt.me")
        page.wait_for_selector("#findings .notice.warn >> text=POPULAR")
        assert page.get_attribute("#findings", "aria-live") == "polite"
        with page.expect_download() as download:
            page.click("button[value=download]")
        text = Path(download.value.path()).read_text()
        assert "casino.example" in text
        assert download.value.suggested_filename == "99-2026.yaml"
        page.goto(address(site, "/submit"))
        page.set_input_files(
            "#document", {"name": "99.yaml", "mimeType": "text/yaml", "buffer": text.encode()}
        )
        page.click("main form button")
        page.wait_for_selector("main .notice >> text=99/2026")
        assert is_sinkholed(site.subject.query("casino.example"))


def test_the_charts_follow_the_traffic(site: IssuersApi, browser: Browser):
    """Drawn from the figures of the daemon; the table has the same figures."""
    with window(browser) as page:
        sign_in(page, site, "noc")
        page.wait_for_selector("#chart-area[data-points]")
        for chart in ("queries", "names"):
            page.wait_for_selector(f"[data-chart={chart}] path.line", state="attached")
        names = page.inner_text("[data-chart=names] .now").replace(",", "")
        assert int(names) == site.subject.status()["entries"]
        page.click("#chart-table summary")
        assert page.locator("#chart-table tbody tr").count() >= 1
        assert look(page, "charts") == []


def test_the_keyboard_reaches_everything(site: IssuersApi, browser: Browser):
    """The first key leads past the navigation; a token is typed and sent without a mouse."""
    with window(browser) as page:
        page.goto(address(site, "/login"))
        page.keyboard.press("Tab")
        page.wait_for_function("document.activeElement.className === 'skip'")
        page.keyboard.press("Enter")
        page.wait_for_function("document.activeElement.id === 'content'")
        page.keyboard.press("Tab")
        page.wait_for_function("document.activeElement.id === 'token'")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        page.keyboard.type(TOKENS["reader"])
        page.keyboard.press("Enter")
        page.wait_for_url("**/console/")


def test_everything_but_live_parts_works_without_scripts(site: IssuersApi, browser: Browser):
    """Sign in, choose a language, release a held entry, look for a name, sign out."""
    with window(browser, java_script_enabled=False) as page:
        sign_in(page, site, "chief")
        page.click("button[name=language]")
        assert page.get_attribute("html", "lang") == "id"
        page.goto(address(site, PAGES["order"]))
        page.check("input[name=entry][value='t.me']")
        page.fill("#approve-reason", "dicek lewat telepon")
        page.click("form[action$=approve] button")
        page.wait_for_url("**done=approved")
        assert is_sinkholed(site.subject.query("t.me"))
        page.goto(address(site, "/search"))
        page.fill("#name", "t.me")
        page.click("main form button")
        assert "diblokir" in page.inner_text("#answer")
        page.click("form[action$=logout] button")
        page.wait_for_url("**/login?done=signed-out")
        page.goto(address(site, "/orders"))
        assert "/console/login" in page.url
