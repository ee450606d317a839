"""The only reader of YAML and JSON: configuration and order documents.

Input is hostile, so size, depth and number of values are bounded. Every scalar is text. Anchors, aliases,
tags, merge keys, duplicate keys and second documents are refused. JSON is a YAML document in flow style. Only
`Refused` is raised.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from dnsblock.errors import Problem, Refused
from dnsblock.yaml_advice import Failure, advise, not_utf8

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Value = str | None | list["Value"] | dict[str, "Value"]
Place = tuple[str | int, ...]  # keys and indexes from the root of a document, as in pydantic's `loc`
Model = TypeVar("Model", bound="BaseModel")


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document: its value, and the line of each part."""

    file: str
    value: Value
    lines: Mapping[Place, int]
    is_enclosed: bool = False  # JSON, or YAML in flow style: it ends with the closing brace
    rest: str = ""  # the text after the last value, or after the closing brace

    def line(self, place: Place) -> int:
        """The line of a part; if the document lacks it, the line of the nearest enclosing part."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def problem(self, place: Place, value: str, reason: str) -> Problem:
        """A problem with the part at `place`."""
        return Problem(self.file, self.line(place), value, reason)

    def validate(self, model: type[Model], *, at: Place = (), value: Any = ...) -> Model:
        """Validates the document, or the `value` at a place in it.

        Raises `Refused` with all problems in the order of their lines.
        """
        # Imported here, since commands also read documents, and this import takes longer than a command.
        from pydantic import ValidationError

        try:
            return model.model_validate(self.value if value is ... else value)
        except ValidationError as err:
            raise Refused(self.explain(err, at=at)) from err

    def explain(self, errors: "ValidationError", *, at: Place = ()) -> list[Problem]:
        """Translates errors of pydantic about the part `at` a place, in the order of the lines."""
        problems = [_in_english(self, at, error) for error in errors.errors(include_url=False)]
        return sorted(problems, key=lambda problem: problem.line or 0)


def read(file: str, data: bytes, *, max_bytes: int) -> Document:
    """Parses a document; `file` is its name in problems. An empty document has the value None."""
    if len(data) > max_bytes:
        raise Refused([Problem(file, None, "", f"TOO_LARGE: larger than {max_bytes:,} bytes")])
    text = _text(file, data)
    # Events, not nodes: libyaml's composer recurses on the C stack, so deep nesting would crash the process
    # before its depth could be checked. Only libyaml: PyYAML's own parser is 20 times slower and refuses JSON
    # that is indented with tabs, so one server would accept an order and another one refuse it.
    loader = yaml.CSafeLoader(text)
    try:
        return _Reader(file, text, loader.get_event).document()
    except yaml.YAMLError as err:
        raise Refused([_advised(file, text, err)]) from err
    finally:
        loader.dispose()


def _advised(file: str, text: str, err: yaml.YAMLError) -> Problem:
    """A syntax error, with advice for the author of the document."""
    mark, began = getattr(err, "problem_mark", None), getattr(err, "context_mark", None)
    problem, context = (getattr(err, name, None) or "" for name in ("problem", "context"))
    if mark is None:
        return Problem(file, None, "", "not valid YAML or JSON")
    opened = None if began is None else (began.line + 1, began.column + 1)
    advice = advise(text, Failure(context, problem, mark.line + 1, mark.column + 1, opened))
    return Problem(file, advice.line, "", advice.reason)


def read_bytes(path: Path, *, max_bytes: int) -> bytes:
    """The content of a regular file; symbolic links are followed. Raises `Refused`.

    Never blocks: a FIFO or a device instead of a file is refused.
    """
    try:
        # Not with a file object, which takes five times as long: an inbox may have ten thousand documents.
        descriptor = _open_without_waiting(path)
        try:
            size = _regular(descriptor, path).st_size
            data = _read(descriptor, size, max_bytes) if size <= max_bytes else b""
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as err:  # ValueError: a NUL in the path
        reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
        raise Refused([Problem(str(path), None, "", f"cannot be read: {reason}")]) from err
    if max(len(data), size) > max_bytes:
        raise Refused([Problem(str(path), None, "", f"TOO_LARGE: larger than {max_bytes:,} bytes")])
    return data


def open_regular(path: Path | str) -> BufferedReader:
    """Opens a regular file for reading; never blocks on a FIFO or a device. Raises `OSError`."""
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115  # the caller closes it
    try:
        _regular(file.fileno(), path)
    except OSError:
        file.close()
        raise
    return file


_MORE_BYTES = 64 << 10


def _open_without_waiting(path: Path | str, flags: int = os.O_RDONLY | os.O_CLOEXEC) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _regular(descriptor: int, path: Path | str) -> os.stat_result:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        is_folder = stat.S_ISDIR(status.st_mode)
        code, reason = (errno.EISDIR, "Is a directory") if is_folder else (errno.EINVAL, "not a regular file")
        raise OSError(code, reason, str(path))
    return status


def _read(descriptor: int, size: int, max_bytes: int) -> bytes:
    """The content, or more than `max_bytes` of it. `size`: what it is expected to have."""
    data = os.read(descriptor, size + 1)
    while len(data) <= max_bytes and (more := os.read(descriptor, _MORE_BYTES)):
        data += more  # the file has grown, or its file system returns a part at a time
    return data


def path_of(written: Any, folder: Path) -> Path:
    """A path in a document, relative to a folder. Raises `ValueError`."""
    if not isinstance(written, str) or not written or "\0" in written:
        raise ValueError("must be a path")
    return folder / written


MAX_DEPTH = 20
MAX_NODES = 1_000_000

# Characters that no scalar may contain, even escaped: C0 and C1 controls other than tab and line feed, and
# lone surrogates, which UTF-8 cannot encode.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _text(file: str, data: bytes) -> str:
    """Decodes UTF-8, with or without a byte order mark, and normalises line ends."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        bad = data[err.start : err.start + 8].hex(" ")
        raise Refused([Problem(file, line, bad, not_utf8(data))]) from err
    text = text.replace("\r\n", "\n")
    if found := _CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        reason = "control characters are not allowed"
        if found.group() == "\r":
            reason = "a line end of an old Macintosh (CR): save the file with line ends of Unix or Windows"
        raise Refused([Problem(file, line, found.group(), reason)])
    return text


@dataclass(slots=True)
class _Open:
    """A list or mapping that is not closed yet."""

    place: Place
    value: list[Value] | dict[str, Value]
    key: str | None = None  # of a mapping: the key whose value comes next


class _Reader:
    """Builds one document from the events of a YAML parser, with an explicit stack instead of recursion."""

    def __init__(self, file: str, text: str, next_event: Callable[[], Any]) -> None:
        self._file = file
        self._text = text
        self._next_event = next_event
        self._is_enclosed = False
        self._end = 0  # of the last value, or of a root in flow style
        self._stack: list[_Open] = []
        self._lines: dict[Place, int] = {}
        self._root: Value = None
        self._documents = 0
        self._nodes = 0

    def document(self) -> Document:
        while not isinstance(event := self._next_event(), yaml.StreamEndEvent):
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                self._open(event)
            elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
                self._stack.pop()
                if not self._stack and self._is_enclosed:
                    self._end = _index(event)
            elif isinstance(event, yaml.AliasEvent):
                raise self._refused(
                    event,
                    event.anchor or "",
                    "a text cannot begin with *: put it in quotes (aliases are not allowed)",
                )
            elif isinstance(event, yaml.DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    raise self._refused(event, "---", "a second document in one file")
        return Document(self._file, self._root, self._lines, self._is_enclosed, self._text[self._end :])

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._check_node(event)
        self._end = _index(event)
        text: str = event.value
        if _CONTROL.search(text):
            raise self._refused(event, text, "control characters are not allowed")
        # Only a plain scalar can be empty; "null" in quotes is a text of four characters.
        empty = event.implicit[0] and text in ("", "~", "null")
        parent = self._stack[-1] if self._stack else None
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            self._key(event, parent, parent.value, None if empty else text)
        else:
            self._add(event, None if empty else text)

    def _key(
        self, event: yaml.ScalarEvent, parent: _Open, mapping: dict[str, Value], key: str | None
    ) -> None:
        if key is None:
            raise self._refused(event, event.value, "a key must be text")
        if key == "<<" and event.implicit[0]:
            raise self._refused(event, key, "merge keys are not allowed")
        if key in mapping:
            first = self._lines[(*parent.place, key)]
            raise self._refused(event, key, f"this key was already given on line {first}")
        parent.key = key
        self._lines[(*parent.place, key)] = _line(event)

    def _open(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        self._check_node(event)
        if len(self._stack) >= MAX_DEPTH:
            raise self._refused(event, "", f"nested deeper than {MAX_DEPTH} levels")
        if not self._stack:
            self._is_enclosed = bool(event.flow_style)
        value: list[Value] | dict[str, Value] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        self._stack.append(_Open(self._add(event, value), value))

    def _add(self, event: yaml.NodeEvent, value: Value) -> Place:
        """Adds a value to the open list or mapping, and returns its place."""
        if not self._stack:
            self._root = value
            self._lines[()] = _line(event)
            return ()
        parent = self._stack[-1]
        if isinstance(parent.value, list):
            place: Place = (*parent.place, len(parent.value))
            self._lines[place] = _line(event)
            parent.value.append(value)
            return place
        if parent.key is None:
            raise self._refused(event, "", "a key must be text")
        place = (*parent.place, parent.key)  # its line is that of the key
        parent.value[parent.key] = value
        parent.key = None
        return place

    def _check_node(self, event: yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._refused(event, "", f"more than {MAX_NODES:,} values")
        if event.anchor is not None:
            raise self._refused(
                event, event.anchor, "a text cannot begin with &: put it in quotes (anchors are not allowed)"
            )
        if event.tag is not None:
            raise self._refused(
                event, event.tag, "a text cannot begin with !: put it in quotes (tags are not allowed)"
            )

    def _refused(self, event: yaml.Event, value: str, reason: str) -> Refused:
        return Refused([Problem(self._file, _line(event), value, reason)])


def _index(event: yaml.Event) -> int:
    return event.end_mark.index if event.end_mark else 0


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _in_english(document: Document, at: Place, error: Any) -> Problem:
    """Translates one error of pydantic for the author of the document."""
    loc: Place = error["loc"]
    # For an error in a key, pydantic appends "[key]", which is not part of the document.
    place = (*at, *(part for part in loc if part != "[key]"))
    path = ".".join(str(part) for part in place)
    found = error["input"]
    match error["type"]:
        case "missing":
            return document.problem(place[:-1], path, "is required and is missing")
        case "extra_forbidden":
            return document.problem(
                place, str(place[-1]), f"unknown key ({path})" if len(place) > 1 else "unknown key"
            )
        case "literal_error":
            reason = "must be " + error["ctx"]["expected"].replace("'", "")
        case "value_error":
            reason = str(error["ctx"]["error"])
        case kind if kind in _REASONS:
            reason = _REASONS[kind].format(**error.get("ctx", {}))
        case _:
            reason = error["msg"][:1].lower() + error["msg"][1:]
    value = "" if found is None or isinstance(found, list | dict) else str(found)
    return document.problem(place, value, f"{path}: {reason}" if path else reason)


_REASONS = {
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys and values",
    "model_type": "must be a mapping of keys and values",
    "model_attributes_type": "must be a mapping of keys and values",
    "string_too_long": "longer than {max_length} characters",
    "string_too_short": "must not be empty",
    "too_long": "more than {max_length} items",
    "too_short": "must not be empty",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}
