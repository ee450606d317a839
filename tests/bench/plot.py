"""The plot of a run: an SVG of bars, each a figure's ratio to the limit, written as plain text.

Each panel has one kind of figure, with bars for the servers by workload. The line at 1 is the limit, a red
line the daemon's target. A bar ends at the panel's right edge; its number shows the value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from .summary import LIMIT, Figure, Row, loading_rows, rows

WIDTH, LEFT, RIGHT, BAR, GAP, HEAD = 900, 170, 130, 14, 3, 34
COLOURS = {
    "daemon": "#1b6ca8",
    "dnsdist": "#e08e0b",
    "recursor": "#7a9e3f",
    "bind": "#b5473c",
    "unbound": "#7b5ea7",
}
OTHER_COLOUR = "#888888"


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    server: str
    figure: Figure
    unit: str
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    bars: list[Bar]

    @property
    def height(self) -> int:
        return HEAD + len(self.bars) * (BAR + GAP) + GAP

    @property
    def scale(self) -> float:
        """The largest ratio on the axis: most bars fit."""
        ratios = sorted(bar.figure.ratio.median for bar in self.bars if bar.figure.ratio)
        return max(2.0, ratios[(len(ratios) * 3) // 4] * 1.1) if ratios else 2.0


def panels(data: dict[str, Any]) -> list[Panel]:
    servers = [row for row in rows(data) if row.server != LIMIT]

    def bars(take: Callable[[Row], Figure], unit: str, is_cpu: bool = False) -> list[Bar]:
        return [
            Bar(f"{row.workload} {row.server}", row.server, take(row), unit, row.target if is_cpu else None)
            for row in servers
        ]

    loading = loading_rows(data)
    found = [
        Panel("CPU per query (less is better)", bars(lambda row: row.cpu, "us", is_cpu=True)),
        Panel("Queries per second (more is better)", bars(lambda row: row.qps, "/s")),
        Panel("Latency, p50 at half load", bars(lambda row: row.half["p50_us"], "us")),
        Panel("Latency, p99 at half load", bars(lambda row: row.half["p99_us"], "us")),
        Panel("Latency, p99 saturated", bars(lambda row: row.saturated["p99_us"], "us")),
        Panel(
            "Memory per name (ratio to the compressed list)",
            [Bar(row.server, row.server, row.bytes, "bytes") for row in loading],
        ),
        Panel(
            "Load time (ratio to reading the file)",
            [Bar(row.server, row.server, row.seconds, "s") for row in loading],
        ),
    ]
    return [panel for panel in found if panel.bars]


def draw(data: dict[str, Any]) -> str:
    machine, options = data["machine"], data["options"]
    title = f"dnsblock bench: {options['names']:,} names, {options['workers']} worker(s), ratio to the limit"
    about = f"{machine['cpu']}, Linux {machine['kernel']}, {machine['date']}, commit {machine['commit']}"
    parts, top = [text(10, 22, title, 16, weight="bold"), text(10, 40, about, 11)], 56
    for panel in panels(data):
        parts += draw_panel(panel, top)
        top += panel.height
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}" '
        'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def draw_panel(panel: Panel, top: int) -> list[str]:
    room = WIDTH - LEFT - RIGHT
    limit_x = LEFT + room / panel.scale
    parts = [
        text(10, top + 18, panel.title, 13, weight="bold"),
        line(limit_x, top + HEAD - 4, top + panel.height - GAP, "#000000"),
        text(limit_x + 3, top + HEAD - 5, "limit", 9),
    ]
    for index, bar in enumerate(panel.bars):
        parts += draw_bar(bar, top + HEAD + index * (BAR + GAP), room, panel.scale)
    return parts


def draw_bar(bar: Bar, y: int, room: int, scale: float) -> list[str]:
    parts = [text(LEFT - 6, y + BAR - 3, bar.label, 11, anchor="end")]
    value = "-" if bar.figure.value is None else f"{bar.figure.value:,.{2 if bar.figure.value < 100 else 0}f}"
    if bar.figure.ratio is None:
        return [*parts, text(LEFT + 4, y + BAR - 3, f"{value} {bar.unit}", 10)]
    ratio = bar.figure.ratio.median
    width = room * min(ratio, scale) / scale
    colour = COLOURS.get(bar.server, OTHER_COLOUR)
    parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>')
    if bar.target is not None and bar.target < scale:
        parts.append(line(LEFT + room * bar.target / scale, y - 1, y + BAR + 1, "#d00000"))
    parts.append(text(LEFT + width + 4, y + BAR - 3, f"{ratio:.2f} ({value} {bar.unit})", 10))
    return parts


def text(x: float, y: float, words: str, size: int, *, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'paint-order="stroke" stroke="white" stroke-width="3">{escape(words)}</text>'
    )


def line(x: float, top: float, bottom: float, colour: str) -> str:
    place = f'x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"'
    return f'<line {place} stroke="{colour}" stroke-width="1.5"/>'
