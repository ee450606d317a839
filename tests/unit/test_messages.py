"""Every message of the log has a row in operations.md ("What the messages mean"), with its level.

The messages are read from the source: calls of `event` and `fault` in Python, and what the engine pushes to
its events. A `VALUE` is a part that is not in the source, such as the address of an upstream.
"""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
VALUE = "\x00"
MOST = 64  # variants of one message
# Words in rows that stand for something else; other words in capitals are codes.
PLACEHOLDERS = [
    *("ACTION", "ADDRESS", "FILE", "FORMAT", "ISSUER", "KIND", "MATCH", "METHOD", "N", "NAME"),
    *("ORDER_ID", "PATH", "READER", "REASON", "SHA256", "TIME", "ZONE"),
]

# Notes are logged later: the functions that make them, what is put before them, their level.
NOTES = [
    ("orders/reading.py", "read", "", "warning"),
    ("orders/chain.py", "verdict", f"{VALUE}: ", "warning"),
    ("orders/chain.py", "verdict", f"order {VALUE} of {VALUE}: ", "warning"),
    ("orders/life.py", "state", f"{VALUE}: ", "warning"),
    ("orders/life.py", "_notes", f"{VALUE}: ", "warning"),
    ("orders/conflicts.py", "notes", f"{VALUE}: ", "warning"),
    ("orders/intake.py", "_notes", "", "warning"),
    ("orders/intake.py", "_exemptions_without_effect", "", "warning"),
    ("orders/remarks.py", "_on_names", "", "warning"),
    ("orders/remarks.py", "_on_times", f"{VALUE}: ", "warning"),
    ("orders/spelling.py", "remarks", f"{VALUE}: ", "warning"),
    ("policy/snapshot.py", "standing_notes", "", "warning"),
    ("policy/snapshot.py", "read", "", "warning"),
    ("lists/lists.py", "notes", "", "warning"),
    ("lists/lists.py", "_skipped", "", "warning"),
    ("lists/report.py", "_apexless", f"list {VALUE}: ", "warning"),
    ("lists/report.py", "_lost_exceptions", f"list {VALUE}: ", "warning"),
]
# Where they are logged: these calls have no text of their own.
LOGGED_LATER = {("policy/recorder.py", "note"), ("daemon.py", "text")}
COMPOSED = {f"{VALUE}: {VALUE}", f"list {VALUE}: {VALUE}", f"order {VALUE} of {VALUE}: {VALUE}"}


# ------- Python


def values_joined(text: str) -> str:
    return re.sub(f"{VALUE}+", VALUE, text)


class Scope:
    """The text values that the names in a function may have."""

    def __init__(self, module: ast.Module, function: ast.AST) -> None:
        self._values: dict[str, list[ast.expr]] = {}
        for node in (*module.body, *ast.walk(function)):
            match node:
                case ast.Assign(targets=[ast.Name(name)], value=value):
                    self._values.setdefault(name, []).append(value)

    def texts(self, node: ast.expr, after: int, depth: int = 0) -> list[str]:
        """All texts that an expression may be. A name has the values that it got after the line `after`."""
        match node:
            case ast.Constant(str(text)):
                return [text]
            case ast.JoinedStr(values=parts):
                variants = [self.texts(part, after, depth) for part in parts]
                return ["".join(one) for one in itertools.islice(itertools.product(*variants), MOST)]
            case ast.FormattedValue(value=value):
                return self.texts(value, after, depth)
            case ast.IfExp(body=body, orelse=orelse):
                return [*self.texts(body, after, depth), *self.texts(orelse, after, depth)]
            case ast.Name(name) if name in self._values and depth < 4:
                values = self._values[name]
                recent = [value for value in values if after < value.lineno <= node.lineno] or values
                return [text for value in recent for text in self.texts(value, after, depth + 1)]
        return [VALUE]

    def is_part(self, node: ast.JoinedStr, all_joined: list[ast.JoinedStr]) -> bool:
        """Whether a text is only used in another one."""
        names = {
            name
            for name, values in self._values.items()
            if any(part is node for value in values for part in ast.walk(value))
        }
        inner = (part for one in all_joined if one is not node for part in ast.walk(one))
        return any(part is node or (isinstance(part, ast.Name) and part.id in names) for part in inner)


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def calls(function: ast.AST) -> Iterator[tuple[int, str, ast.expr]]:
    """Line, level and text of each call that logs."""
    for node in ast.walk(function):
        match node:
            case ast.Call(ast.Name("event"), [ast.Attribute(_, level), text, *_]):
                yield node.lineno, level.lower(), text
            case ast.Call(ast.Name("fault"), [text, *_]):
                yield node.lineno, "error", text


def logged_by(path: str) -> Iterator[tuple[str, str]]:
    """Level and text of each message that a file logs."""
    module = ast.parse((ROOT / "dnsblock" / path).read_text())
    for function in functions(module):
        scope, before = Scope(module, function), 0
        for line, level, text in sorted(calls(function), key=lambda call: call[0]):
            for found in scope.texts(text, before):
                if re.search(r"[a-z]{2}", found):
                    yield level, values_joined(found)
                else:
                    assert isinstance(text, ast.Name), f"{path}:{line}: no text of its own"
                    assert (path, text.id) in LOGGED_LATER, f"{path}:{line}: add it to NOTES"
            before = line


def notes_of(path: str, name: str) -> list[str]:
    """The texts that a function makes."""
    module = ast.parse((ROOT / "dnsblock" / path).read_text())
    made = []
    for function in functions(module):
        if function.name == name:
            scope = Scope(module, function)
            joined = [node for node in ast.walk(function) if isinstance(node, ast.JoinedStr)]
            for node in joined:
                if not scope.is_part(node, joined):
                    made += [values_joined(text) for text in scope.texts(node, 0)]
    return [text for text in made if len(re.findall(r"[A-Za-z]", text)) > 3]


# ------- The engine


def events_of_the_engine() -> Iterator[str]:
    string = r'"((?:[^"\\]|\\[\s\S])*)"'
    for path in sorted((ROOT / "engine" / "src").rglob("*.rs")):
        source = path.read_text().split("#[cfg(test)]\nmod tests")[0]
        pushed = re.findall(rf"events\s*\.push\(\s*(?:format!\(\s*)?{string}", source)
        assert len(pushed) == source.count("events.push("), f"{path}: an event without a text of its own"
        for text in (re.sub(r"\\\n\s*", "", one) for one in pushed):
            if text != "upstream {address} {what}":
                yield re.sub(r"\{\w+\}", VALUE, text)
        # Of an upstream: `log`, `log_change`, and the functions that call them.
        for text in re.findall(rf"\b[a-z_]+\(place, {string}", source):
            yield f"upstream {VALUE} {text}"


# ------- The table


def messages() -> set[tuple[str, str]]:
    found = {("warning", text) for text in events_of_the_engine()}
    for path in sorted((ROOT / "dnsblock").rglob("*.py")):
        found |= set(logged_by(str(path.relative_to(ROOT / "dnsblock"))))
    for path, name, before, level in NOTES:
        texts = notes_of(path, name)
        assert texts, f"{path}: no text in {name}"
        found |= {(level, before + text) for text in texts}
    return {(level, text) for level, text in found if text not in COMPOSED}


def rows() -> list[tuple[str, str]]:
    """Level and message of each row; a row may have several messages."""
    table = OPERATIONS.split("\n## What the messages mean\n", 1)[1].split("\n### ", 1)[0]
    found = re.findall(r"^\| (`.*?) \| (info|warning|error|critical) \| \S", table, re.MULTILINE)
    return [(level, text) for cell, level in found for text in re.findall(r"``? ?(.+?) ?``?(?:, |$)", cell)]


def matches(row: str, message: str) -> bool:
    """Whether a row shows a message: what it says is what is logged, and its placeholders are anything."""
    parts = re.split(rf"…|\b(?:{'|'.join(PLACEHOLDERS)})\b", row)
    return re.fullmatch(".*".join(map(re.escape, parts)), message, re.DOTALL) is not None


SEEN_MOST = {"ready", "serving serial", "accepted order", "accepted version", "stopped"}


@pytest.mark.parametrize(("level", "message"), sorted(messages()))
def test_every_message_of_the_log_is_documented_with_its_level(level: str, message: str):
    """Warnings and worse; of what is only information, what an operator sees most."""
    if level not in ("info", "debug") or message.startswith(tuple(SEEN_MOST)):
        shown = message.replace(VALUE, "…")
        assert any(one == level and matches(row, message) for one, row in rows()), shown


def test_every_documented_message_exists():
    """A message that was removed from the code must leave the documentation."""
    logged = messages()
    stale = [row for level, row in rows() if not any(one == level and matches(row, m) for one, m in logged)]
    assert stale == []


def test_no_documented_message_matches_everything():
    """A row of placeholders only would make this check useless."""
    assert [row for _, row in rows() if matches(row, f"{VALUE}: {VALUE}")] == []


def test_messages_are_found_wherever_they_are_made():
    """In a call, in a variable before it, in a note that is logged later, and in the engine."""
    texts = {text for _, text in messages()}
    assert {"ready", f"list {VALUE} was not fetched: {VALUE}", f"upstream {VALUE} answers again"} <= texts
    assert f"{VALUE}: NOT_BLOCKED: {VALUE} of {VALUE} entries had ended already" in texts
    assert f"cannot accept TCP connections: {VALUE}" in texts
