"""The log on standard error: lines for a person at a terminal, one JSON object a line for everything else.

Nothing about a client is ever logged: no address, no name that was asked.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from dnsblock.config import Log
from dnsblock.errors import printable

logger = logging.getLogger("dnsblock")


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
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # of libraries
    logger.setLevel(options.level.upper())


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _Human(logging.Formatter):
    def __init__(self, time_zone: ZoneInfo) -> None:
        super().__init__()
        self._time_zone = time_zone

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, self._time_zone).strftime("%H:%M:%S %Z")
        fields = "".join(f"  {key}={value}" for key, value in getattr(record, "fields", {}).items())
        text = "\n".join(printable(line) for line in record.getMessage().split("\n"))
        line = f"{time} {record.levelname.lower():7} {text}{printable(fields)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
