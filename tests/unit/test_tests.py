"""Rules for the tests: each can fail, each has its reason, and no file is long."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FAILING = {"fail", "raises", "warns"}  # of pytest
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Module:
    """The definitions of a file, and the sources of its imports from other test files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        tree = ast.parse(path.read_text())
        self.definitions = {node.name: node for node in ast.walk(tree) if isinstance(node, Definition)}
        self.imported = {
            alias.asname or alias.name: (self._file(node), alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def _file(self, node: ast.ImportFrom) -> Path:
        folder = self.path.parents[node.level - 1] if node.level else TESTS
        return folder.joinpath(*(node.module or "").split(".")).with_suffix(".py")

    def tests(self) -> Iterator[Definition]:
        return (node for name, node in self.definitions.items() if name.startswith("test_"))


MODULES = {path: Module(path) for path in sorted(TESTS.rglob("*.py"))}


def is_asserting(module: Module, name: str, seen: frozenset[tuple[Path, str]] = frozenset()) -> bool:
    """Whether a function or class, or one that it names, has an assertion.

    Of methods only the name is known: `assert_…` and `wait_…` of the harness assert.
    """
    seen |= {(module.path, name)}
    if name in module.imported:
        path, name = module.imported[name]
        return path in MODULES and (path, name) not in seen and is_asserting(MODULES[path], name, seen)
    for node in ast.walk(module.definitions[name]) if name in module.definitions else ():
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Attribute) and (
            node.attr in FAILING or node.attr.startswith(("assert_", "wait_"))
        ):
            return True
        is_new = isinstance(node, ast.Name) and (module.path, node.id) not in seen
        if is_new and is_asserting(module, node.id, seen):
            return True
    return False


def test_no_file_of_tests_is_longer_than_600_lines():
    """A file that needs a table of contents is split by idea."""
    lines = {str(path.relative_to(TESTS)): path.read_text().count("\n") for path in MODULES}
    assert {name: count for name, count in lines.items() if count > 600} == {}


def test_every_test_has_its_source_or_reason():
    """A developer who breaks a test must see what the promise is for: an RFC, a bug, or what goes wrong."""
    without = [
        f"{path}:{test.lineno}: {test.name}"
        for path, module in MODULES.items()
        for test in module.tests()
        if path.name.startswith("test_") and not ast.get_docstring(test)
    ]
    assert without == [], "write a docstring: the source of the promise, or what goes wrong without it"


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if path.name.startswith("test_")],
    ids=lambda path: str(path.relative_to(TESTS)),
)
def test_every_test_asserts(path: Path):
    """A test without an assertion passes whatever the code does."""
    module = MODULES[path]
    without = [
        f"{path}:{test.lineno}: {test.name}" for test in module.tests() if not is_asserting(module, test.name)
    ]
    assert without == [], "assert what is promised, in the test or in a helper"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def test_a(): assert x", True),
        ("def test_a(): x()", False),
        ("def test_a():\n with pytest.raises(E): x()", True),
        ("def x(): assert y\ndef test_a(): x()", True),
        ("def x(): x()\ndef test_a(): x()", False),
        ("def test_a(): subject.query()", False),
        ("def x(): assert y\ndef test_a(): (x if y else z)()", True),
        ("class X:\n def x(): assert y\ndef test_a(): X().x()", True),
        ("from unit.helpers import block\ndef test_a(): block()", False),
        ("def test_a(): subject.wait_for_metric()", True),
    ],
)
def test_a_test_that_cannot_fail_is_found(tmp_path: Path, source: str, expected: bool):
    """The check itself must not accept everything."""
    path = tmp_path / "a" / "test_a.py"
    path.parent.mkdir()
    path.write_text(source)
    module = Module(path)
    assert is_asserting(module, "test_a") is expected
