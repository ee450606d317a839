"""The log on standard error: text for a person at a terminal, otherwise one JSON object per line.

Clients are never logged, neither their addresses nor the queried names. The length of each line is limited.
Remote hosts can cause log lines of libraries, so the number of these is limited as well.
"""

import json
import logging
import sys
import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from dnsblock.config import Log
from dnsblock.errors import printable

logger = logging.getLogger("dnsblock")

MAX_TEXT = 2000  # characters of one text in a line
MAX_ITEMS = 10  # of one list in a line
MAX_TRACEBACK = 8000  # characters; the end is the most important part
MAX_LINE = 16_000  # characters of a line without its traceback
LIBRARY_LINES = 10  # of one kind per interval
LIBRARY_SECONDS = 60.0


def event(level: int, text: str, **fields: object) -> None:
    """Logs an event; `fields` are for programs."""
    logger.log(level, text, extra={"fields": fields})


def fault(text: str, **fields: object) -> None:
    """Logs the current exception with its traceback: a defect of dnsblock."""
    logger.error(text, exc_info=True, extra={"fields": fields})


def set_up(options: Log, time_zone: ZoneInfo) -> None:
    """Configures logging to standard error, also of libraries."""
    human = options.format == "human" or (options.format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Human(time_zone) if human else _Json())
    root = logging.getLogger()
    handler.addFilter(_Seldom())
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # of libraries
    logger.setLevel(options.level.upper())


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        head = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": _cut(record.getMessage(), MAX_TEXT),
        }
        end = {"traceback": self.formatException(record.exc_info)[-MAX_TRACEBACK:]} if record.exc_info else {}
        fields = {key: _bounded(value) for key, value in getattr(record, "fields", {}).items()}
        line = json.dumps(head | fields | end, ensure_ascii=False)
        if len(line) <= MAX_LINE + MAX_TRACEBACK:
            return line
        return json.dumps(head | {"omitted_fields": list(fields)} | end, ensure_ascii=False)


class _Human(logging.Formatter):
    def __init__(self, time_zone: ZoneInfo) -> None:
        super().__init__()
        self._time_zone = time_zone

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, self._time_zone).strftime("%H:%M:%S %Z")
        found = {key: _bounded(value) for key, value in getattr(record, "fields", {}).items()}
        fields = _cut("".join(f"  {key}={value}" for key, value in found.items()), MAX_LINE)
        text = "\n".join(printable(line) for line in _cut(record.getMessage(), MAX_TEXT).split("\n"))
        line = f"{at} {record.levelname.lower():7} {text}{printable(fields)}"
        if not record.exc_info:
            return line
        return f"{line}\n{self.formatException(record.exc_info)[-MAX_TRACEBACK:]}"


def _bounded(value: object) -> object:
    """A field for JSON, with long texts and long lists shortened."""
    if isinstance(value, str):
        return _cut(value, MAX_TEXT)
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, dict):
        return {str(key): _bounded(part) for key, part in list(value.items())[:MAX_ITEMS]}
    if isinstance(value, list | tuple):
        shown = [_bounded(part) for part in value[:MAX_ITEMS]]
        return [*shown, f"and {len(value) - MAX_ITEMS:,} more"] if len(value) > MAX_ITEMS else shown
    return _cut(str(value), MAX_TEXT)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


class _Seldom(logging.Filter):
    """Passes all lines of dnsblock, and a limited number of each kind of libraries per minute.

    Garbage that a remote host sends to a listener can make a library log each time. It must not fill the
    disk.
    """

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[tuple[str, int], tuple[float, int]] = {}  # start of the interval, number of lines

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == logger.name:
            return True
        kind, now = (record.pathname, record.lineno), time.monotonic()
        since, count = self._passed.get(kind, (now, 0))
        if now - since >= LIBRARY_SECONDS:
            if count > LIBRARY_LINES:
                record.msg, record.args = f"{record.getMessage()} ({count - LIBRARY_LINES:,} more since)", ()
            since, count = now, 0
        self._passed[kind] = (since, count + 1)
        return count < LIBRARY_LINES
