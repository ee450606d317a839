"""The console without a daemon: sessions, texts, the table of pages, and what a daemon without it imports."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conformance.consoles import ROLES

from dnsblock.access import ApiClient
from dnsblock.web.console.indonesian import TEXTS, WORDS
from dnsblock.web.console.page import own_page, place
from dnsblock.web.console.pages import PAGES
from dnsblock.web.console.sessions import (
    ABSOLUTE_SECONDS,
    FAILURE_SECONDS,
    FAILURES,
    IDLE_SECONDS,
    MAX_OWN,
    MAX_SESSIONS,
    FailedTries,
    Sessions,
)
from dnsblock.web.console.texts import DONE, Texts

CONSOLE = Path(__file__).parents[2] / "dnsblock" / "web" / "console"
CLIENTS = {
    "reader": {"roles": ["read"], "issuers": ["a.example"]},
    "ministry": {"roles": ["submit", "read"], "issuers": ["a.example"]},
    "noc": {"roles": ["watch"]},
    "chief": {"roles": ["operate"]},
}

# ------- Pages


def test_every_page_has_the_roles_that_its_test_expects():
    """A new page without a row there fails here: nobody has thought about who may use it."""
    assert {(page.method, page.path) for page in PAGES} == ROLES.keys()
    clients = {
        name: ApiClient.model_validate({"name": name, "certificate": name, **facts})
        for name, facts in CLIENTS.items()
    }
    for page in PAGES:
        allowed = {name for name, client in clients.items() if page.role is None or client.may(page.role)}
        assert allowed == ROLES[page.method, page.path] - {"nobody"}, page.path
        assert ("nobody" in ROLES[page.method, page.path]) == (page.role is None)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/console/orders?only=held", "/console/orders?only=held"),
        ("/console", "/console"),
        ("", "/console/"),
        ("https://evil.example/console/", "/console/"),
        ("//evil.example", "/console/"),
        ("/console//evil.example", "/console/"),
        ("/consoles", "/console/"),
        ("/console/\\evil.example", "/console/"),
        ("/console/\r\nset-cookie: x", "/console/"),
    ],
)
def test_only_pages_of_the_console_are_returned_to(address: str, expected: str):
    """The rest of an address may come from another site."""
    assert own_page(address) == expected


def test_the_address_of_an_order_is_one_segment():
    """A number may contain a slash, a question mark or dots."""
    assert place("orders", "a.example", "84/2017?#") == "/console/orders/a.example/84%2F2017%3F%23"


# ------- Texts


def said() -> set[str]:
    """Every text in templates and code."""
    found = set(DONE.values())
    for template in (CONSOLE / "templates").glob("*.html"):
        found |= set(re.findall(r'\bt\("((?:[^"\\]|\\.)*)"', template.read_text()))
    for module in CONSOLE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                if name == "say":
                    found.add(str(node.args[0].value))
    return found


def test_every_text_has_a_translation_with_the_same_values():
    """An officer would see half a page in English."""
    assert said() <= TEXTS.keys(), said() - TEXTS.keys()
    for text, translation in TEXTS.items():
        assert text.count("{}") == translation.count("{}"), text


def test_every_reason_of_a_refused_request_has_a_translation():
    """The page with the error has no other text that says what to do."""
    reasons = {
        str(node.args[2].value)
        for module in CONSOLE.rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ApiError"
        if isinstance(node.args[2], ast.Constant)
    }
    assert "this token is not valid here" in reasons
    assert reasons | {"there is no such page"} <= TEXTS.keys(), reasons - TEXTS.keys()


def test_no_translation_is_left_over():
    """A reason that is translated is in the code, word by word."""
    reasons = "".join(
        module.read_text() for module in CONSOLE.rglob("*.py") if module.name != "indonesian.py"
    )
    left = {text for text in TEXTS.keys() - said() if text not in reasons}
    assert left == set()


def test_every_state_of_an_order_has_a_word():
    """The badge of an order is the first thing that an officer reads."""
    from dnsblock.web.console.pages.orders import STATES

    assert set(STATES) <= WORDS.keys()
    assert Texts("en").word("held") == "held"
    assert Texts("id").word("held") == "ditahan"
    assert Texts("id").word("unknown word") == "unknown word"


def test_templates_have_neither_scripts_nor_styles_of_their_own():
    """The Content-Security-Policy forbids them; nothing may come from elsewhere."""
    for file in (*(CONSOLE / "templates").glob("*.html"), *(CONSOLE / "static").iterdir()):
        text = file.read_text()
        assert not re.search(r"<script>|\sstyle=|\son[a-z]+=|<style|javascript:", text), file
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), file


# ------- Sessions


def test_a_session_ends_when_it_is_idle_and_after_half_a_day():
    """Requests that a script repeats do not keep it."""
    sessions = Sessions()
    one = sessions.open("a", 0.0)
    assert sessions.find(one, IDLE_SECONDS - 1, is_use=False) is not None
    assert sessions.find(one, IDLE_SECONDS + 1, is_use=True) is None
    two, now = sessions.open("a", 0.0), 0.0
    while now < ABSOLUTE_SECONDS:
        assert sessions.find(two, now, is_use=True) is not None
        now += IDLE_SECONDS / 2
    assert sessions.find(two, now + 1, is_use=True) is None
    assert len(sessions) == 0


def test_the_number_of_sessions_is_bounded():
    """A client with a broken browser loses its own sessions, not those of others."""
    sessions = Sessions()
    other = sessions.open("other", 0.0)
    own = [sessions.open("own", 1.0) for _ in range(3 * MAX_OWN)]
    assert len(sessions) == MAX_OWN + 1
    assert [one for one in own if sessions.find(one, 2.0, is_use=True)] == own[-MAX_OWN:]
    assert sessions.find(other, 2.0, is_use=True)
    for number in range(2 * MAX_SESSIONS):
        sessions.open(f"client {number}", 3.0)
    assert len(sessions) == MAX_SESSIONS


def test_sessions_of_removed_clients_end():
    """A reload keeps those of the others."""
    sessions = Sessions()
    one, two = sessions.open("a", 0.0), sessions.open("b", 0.0)
    sessions.keep({"b"})
    assert sessions.find(one, 0.0, is_use=True) is None
    assert sessions.find(two, 0.0, is_use=True) is not None
    assert sessions.find("", 0.0, is_use=True) is None


def test_failed_tries_are_limited_and_the_limit_recovers():
    """One more after every `FAILURE_SECONDS`."""
    tries = FailedTries()
    assert [tries.take(0.0) for _ in range(FAILURES + 2)] == [True] * FAILURES + [False] * 2
    assert not tries.take(FAILURE_SECONDS / 2)
    assert tries.take(2 * FAILURE_SECONDS)
    assert [tries.take(1e9) for _ in range(FAILURES + 1)] == [True] * FAILURES + [False]


# ------- Startup


def test_a_daemon_without_a_console_does_not_import_its_pages():
    """They would delay its startup."""
    script = (
        "import sys, dnsblock.daemon; "
        "print(sorted({'jinja2', 'markupsafe', 'dnsblock.web.console.app', 'dnsblock.web.console.pages'}"
        " & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
