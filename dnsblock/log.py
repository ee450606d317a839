"""The log on standard error: lines for a person at a terminal, one JSON object a line for everything else.

Nothing about a client is ever logged: no address, no name that was asked. Every line is limited in length.
What libraries log, which strangers can cause, is limited in number.
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
MAX_TRACEBACK = 8000  # characters; its end says what went wrong
MAX_LINE = 16_000  # characters of a line without its traceback
LIBRARY_LINES = 10  # of one kind, in each
LIBRARY_SECONDS = 60.0


def event(level: int, text: str, **fields: object) -> None:
    """Logs what happened; `fields` are its figures, for programs."""
    logger.log(level, text, extra={"fields": fields})


def fault(text: str, **fields: object) -> None:
    """Logs the exception that is being handled and that nobody has thought of, for whoever is to mend it."""
    logger.error(text, exc_info=True, extra={"fields": fields})


def set_up(options: Log, time_zone: ZoneInfo) -> None:
    """Sends everything of this process to standard error, in the configured form."""
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
    """A field of a line as JSON takes it, with long texts cut and long lists counted instead of shown."""
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
    """Passes all lines of ours, and of each kind that libraries log only so many a minute.

    A stranger who sends garbage to a listener makes a library log each time; that must not fill the disk.
    """

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[tuple[str, int], tuple[float, int]] = {}  # since when, and how many

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
