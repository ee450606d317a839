"""The transparency report as a page: static HTML in Indonesian and English. Everything is escaped."""

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dnsblock.errors import printable
from dnsblock.reports.transparency import Report
from dnsblock.times import local_text

NOTHING = "\N{EN DASH}"
NAMES_SHOWN = 1000  # of one order, in the page; CSV and JSON have all


def as_page(report: Report) -> Iterator[str]:
    """The page, in pieces."""
    zone = ZoneInfo(report["time_zone"]).key
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["time"] = lambda text: NOTHING if text is None else local_text(text, zone)
    environment.filters["duration"] = duration
    environment.filters["shown"] = lambda text: printable(text)[:300]
    environment.filters["number"] = lambda value: f"{value:,}"
    yield from environment.get_template("page.html").generate(report=report, most=NAMES_SHOWN)
    yield "\n"


def duration(seconds: float | None) -> str:
    """A time span in its two largest units; `d`, `h`, `min` and `s` are the same in both languages."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = int(seconds)
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days:,} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"
