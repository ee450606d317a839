"""Templates and static files of the console. Every value in a template is escaped."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from dnsblock.errors import printable
from dnsblock.times import duration, local, utc

HERE = Path(__file__).parent
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Static:
    """A file that browsers may keep: its name holds the digest of its content."""

    name: str
    content: bytes
    media_type: str


@cache
def statics() -> Mapping[str, Static]:
    """The static files, by their names in this package."""
    found = {}
    for path in sorted((HERE / "static").iterdir()):
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:16]
        found[path.name] = Static(f"{path.stem}.{digest}{path.suffix}", content, TYPES[path.suffix])
    return found


def render(template: str, facts: Mapping[str, Any]) -> str:
    """A template with these facts."""
    return _environment().get_template(template).render(facts)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = lambda name: f"/console/static/{statics()[name].name}"
    environment.globals["t"] = _say
    environment.globals["state"] = _state
    environment.filters["time"] = _time
    environment.filters["left"] = _left
    environment.filters["path"] = lambda text: quote(text, safe="")
    environment.filters["number"] = _number
    environment.filters["printable"] = printable
    environment.filters["reason"] = _reason
    return environment


@pass_context
def _say(context: Context, text: str, *values: object) -> str:
    """A text in the language of the page."""
    return str(context["texts"].say(text, *values))


@pass_context
def _state(context: Context, word: str) -> str:
    """A word of the API, such as the state of an order, in the language of the page."""
    return str(context["texts"].word(word))


@pass_context
def _reason(context: Context, text: str) -> str:
    """A reason of another module, translated if it is known."""
    return str(context["texts"].reason(printable(text)))


@pass_context
def _time(context: Context, time: str | datetime | None) -> str | Markup:
    """A time in the provider's time zone, and for programs in UTC."""
    if time is None:
        return "\u2013"
    zone: tzinfo = context["time_zone"]
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    return Markup('<time datetime="{}">{}</time>').format(utc(moment), local(moment, zone))


@pass_context
def _left(context: Context, seconds: int) -> str:
    """A time span in the language of the page."""
    say = context["texts"].say
    return duration(max(0, seconds), (say("d"), say("h"), say("min")))


@pass_context
def _number(context: Context, value: float) -> str:
    """A number with separators of thousands, as the language writes it."""
    shown = f"{value:,}"
    return shown.translate(str.maketrans(",.", ".,")) if context["texts"].language == "id" else shown
