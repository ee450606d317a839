"""The texts of `order new` in two languages (dnsblock/texts.py)."""

import ast
from pathlib import Path

import pytest

from dnsblock.cli.dialog import ACTIONS, OPTIONAL
from dnsblock.orders.names_file import read_lines
from dnsblock.suffixes import private_suffix, public_suffix
from dnsblock.texts import INDONESIAN, Texts, language_of

CLI = Path(__file__).parents[2] / "dnsblock" / "cli"
SPOKEN = ("new_order.py", "dialog.py", "known_orders.py")


def literals(file: str) -> set[str]:
    """Every text in a module."""
    tree = ast.parse((CLI / file).read_text())
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def said(file: str) -> set[str]:
    """The texts that are given to `say`, directly or by a variable."""
    found = set()
    for node in ast.walk(ast.parse((CLI / file).read_text())):
        names = [getattr(target, "id", "") for target in getattr(node, "targets", [])]
        if {"text", "question"} & set(names) and isinstance(node.value, ast.Constant):
            found.add(node.value.value)
        if isinstance(node, ast.Call) and isinstance(node.args[0] if node.args else None, ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "say":
                found.add(node.args[0].value)
    return found


@pytest.mark.parametrize("file", SPOKEN)
def test_every_text_has_a_translation(file: str):
    """A missing one would end the command for a clerk in Indonesia, and for nobody who tests in English."""
    assert said(file)
    assert said(file) <= INDONESIAN.keys()


def test_every_question_and_action_has_a_translation():
    """They are in tables."""
    assert {*ACTIONS.values(), *OPTIONAL.values()} <= INDONESIAN.keys()


def test_no_translation_is_left_over():
    """Of the texts of the command; reasons come from other modules."""
    used = set().union(*map(literals, SPOKEN))
    own = [text for text in INDONESIAN if text[:1].isupper() or "?" in text]
    remarks = [text for text in own if "MIXED_SCRIPT" in text or text.startswith(("EXPIRED", "BULK"))]
    assert set(own) - set(remarks) <= used


@pytest.mark.parametrize("text", INDONESIAN)
def test_a_translation_has_the_same_values(text: str):
    """Otherwise a value is lost, or the command fails."""
    assert text.count("{}") == INDONESIAN[text].count("{}")


BAD_NAMES = (
    "https://t.me/x", "https://t.me/", "http://t.me", "user@t.me", "8.8.8.8", "t.me:80", "'t.me'", "*.t.me",
    "two words", "t..me", "a" * 64 + ".me", ".".join(["a" * 60] * 5), "t!.me", "\ud83d\ude00 x", "1.2.3.400",
)  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_every_hint_on_a_name_is_translated(name: str):
    """The hints come from several modules; one that was reworded there must be reworded here."""
    (problem,) = read_lines("names.txt", [name], "subtree").problems
    assert Texts("en").reason(problem.reason) == problem.reason
    assert Texts("id").reason(problem.reason) != problem.reason, problem.reason


@pytest.mark.parametrize("name", ["id", "co.id", "kawasaki.jp", "pages.dev", "amazonaws.com"])
def test_every_reason_of_a_suffix_guard_is_translated(name: str):
    """As above."""
    reason = public_suffix(name) or private_suffix(name)
    assert reason is not None
    assert Texts("id").reason(reason) != reason


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LC_ALL": "id_ID.UTF-8", "LANG": "en_US.UTF-8"}, "id"),
        ({"LANG": "id_ID.UTF-8"}, "id"),
        ({"LC_ALL": "C.UTF-8", "LANG": "id_ID.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({}, "en"),
    ],
)
def test_the_language_is_that_of_the_environment(
    environment: dict[str, str], language: str, monkeypatch: pytest.MonkeyPatch
):
    """POSIX: LC_ALL goes before LANG."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert language_of(None) == language
    assert language_of("id") == "id"
    assert language_of("en") == "en"
