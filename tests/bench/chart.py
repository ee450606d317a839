"""The chart of CPU time per query: an SVG for pages, readable on a light and on a dark background.

    PYTHONPATH=tests .venv/bin/python -m bench.chart             # of docs/performance.md, as in the README
    PYTHONPATH=tests .venv/bin/python -m bench.chart RUN.json    # of a stored run, into its folder

Each bar is a ratio to the limit, the median of the rounds; the whisker shows the lowest and the highest.
`make bench` draws it of every run.
"""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from .summary import LIMIT, rows

ROOT = Path(__file__).resolve().parents[2]
PAGE, PICTURE = ROOT / "docs/performance.md", ROOT / "docs/images/cpu.svg"
TITLE = "CPU time per query, as a ratio to the limit (less is better)"
LIMIT_NOTE = "1.00 is the limit, a bare loop of system calls"

WIDTH, LEFT, RIGHT, BAR, GAP, BETWEEN, TOP, FOOT = 860, 110, 190, 16, 4, 12, 86, 22
STYLE = """
    .page { fill: #ffffff }
    text { fill: #1f2328; font: 13px system-ui, sans-serif }
    .title { font-weight: 600; font-size: 15px }
    .note { fill: #424a53; font-size: 12px }
    .label { text-anchor: end; font-weight: 600 }
    .s0 { fill: #1f6feb } .s1 { fill: #8ab4f8 } .s2 { fill: #d4a72c }
    .s3 { fill: #7a9e3f } .s4 { fill: #b5473c } .s5 { fill: #8250df }
    .limit { stroke: #1f2328; stroke-width: 1.5 }
    .whisker { stroke: #1f2328; stroke-width: 1.2; fill: none }
    .target { stroke: #cf222e; stroke-width: 2; stroke-dasharray: 3 2 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117 }
      text { fill: #f0f6fc }
      .note { fill: #b1bac4 }
      .s1 { fill: #1b3f7a }
      .limit, .whisker { stroke: #f0f6fc }
      .target { stroke: #ff7b72 }
    }
"""
COLOURS = 6


@dataclass(frozen=True, slots=True)
class Bar:
    workload: str
    series: str  # servers, or lists of different length
    median: float
    least: float
    most: float
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    bars: Sequence[Bar]
    about: Sequence[str]  # lines below the title: date, machine, command


def of_run(data: dict[str, Any]) -> Chart:
    """The chart of a run of `make bench`."""
    bars = [
        Bar(
            row.workload,
            row.server,
            row.cpu.ratio.median,
            row.cpu.ratio.least,
            row.cpu.ratio.most,
            row.target,
        )
        for row in rows(data)
        if row.server != LIMIT and row.cpu.ratio
    ]
    machine, options = data["machine"], data["options"]
    about = f"{machine['date']}, {machine['cpu']}, Linux {machine['kernel']}, commit {machine['commit']}"
    return Chart(bars, [about, f"make bench NAMES={options['names']} WORKERS={options['workers']}"])


def of_page(text: str) -> Chart:
    """The chart of the first table under "Figures" in docs/performance.md."""
    part = text.split("\n## Figures\n", 1)[1]
    words, table = part.split("\n|", 1)
    head, _, *lines = ("|" + table).split("\n\n", 1)[0].splitlines()
    series = cells(head)[1:-1]
    bars = []
    for line in lines:
        workload, *figures, targets = cells(line)
        bounds = [float(bound) for bound in re.findall(r"\d+(?:\.\d+)?", targets)]
        for place, (name, figure) in enumerate(zip(series, figures, strict=True)):
            if figure:
                median, least, most = map(float, re.findall(r"\d+\.\d+", figure))
                bound = bounds[min(place, len(bounds) - 1)]
                bars.append(Bar(workload.strip("`"), name, median, least, most, bound))
    words = " ".join(words.split())
    date, machine = re.findall(r"Measured on (\d+ \w+ \d+) .*?\((.*?)\)", words)[0]
    commands = [
        f"{name}: {options}" for name, options in zip(series, re.findall(r"`(.*?)`", words), strict=True)
    ]
    return Chart(bars, [f"{date}, {machine}", "make bench. " + ". ".join(commands)])


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def draw(chart: Chart) -> str:
    series = list(dict.fromkeys(bar.series for bar in chart.bars))
    workloads = list(dict.fromkeys(bar.workload for bar in chart.bars))
    height = TOP + len(chart.bars) * (BAR + GAP) + len(workloads) * BETWEEN + FOOT
    scale = (WIDTH - LEFT - RIGHT) / max(max(bar.most, bar.target or 0) for bar in chart.bars)
    parts = [words(16, 26, TITLE, "title")]
    parts += [words(16, 45 + 16 * place, line, "note") for place, line in enumerate(chart.about)]
    for place, name in enumerate(series):
        y = TOP + place * (BAR + GAP)
        parts.append(f'<rect class="{colour(place)}" x="{WIDTH - 150}" y="{y}" width="12" height="12"/>')
        parts.append(words(WIDTH - 132, y + 11, name, "note"))
    y = TOP + len(series) * (BAR + GAP)
    parts.append(f'<path class="target" d="M{WIDTH - 144} {y}v12"/>')
    parts.append(words(WIDTH - 132, y + 11, "target of dnsblock", "note"))
    y = TOP
    for workload in workloads:
        bars = [bar for bar in chart.bars if bar.workload == workload]
        parts.append(words(LEFT - 10, y + (len(bars) * (BAR + GAP) + BAR - GAP) / 2 - 2, workload, "label"))
        for bar in bars:
            parts += draw_bar(bar, y, scale, colour(series.index(bar.series)))
            y += BAR + GAP
        y += BETWEEN
    parts.append(f'<path class="limit" d="M{LEFT + scale:.1f} {TOP - 6}V{y - 4}"/>')
    parts.append(words(LEFT + scale, y + 11, LIMIT_NOTE, "note", "text-anchor='end'"))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img">\n<title>{TITLE}</title>\n'
        f"<desc>{escape(in_words(chart))}</desc>\n<style>{STYLE}</style>\n"
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def draw_bar(bar: Bar, y: float, scale: float, style: str) -> list[str]:
    middle, end = y + BAR / 2, LEFT + bar.most * scale
    parts = [
        f'<rect class="{style}" x="{LEFT}" y="{y}" width="{bar.median * scale:.1f}" height="{BAR}"/>',
        f'<path class="whisker" d="M{LEFT + bar.least * scale:.1f} {middle}H{end:.1f}m0 -4v8M'
        f'{LEFT + bar.least * scale:.1f} {middle - 4}v8"/>',
    ]
    if bar.target is not None:
        at = LEFT + bar.target * scale
        end = max(end, at)
        parts.append(f'<path class="target" d="M{at:.1f} {y - 2}v{BAR + 4}"/>')
    return [*parts, words(end + 8, y + BAR - 4, f"{bar.median:.2f}", "")]


def in_words(chart: Chart) -> str:
    """The text alternative."""
    figures = [f"{bar.workload}, {bar.series}: {bar.median:.2f}" for bar in chart.bars]
    return "; ".join(figures) + ". " + " ".join(chart.about)


def colour(place: int) -> str:
    return f"s{place % COLOURS}"


def words(x: float, y: float, content: str, style: str, more: str = "") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" {more}>{escape(content)}</text>'


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.chart", description="Draws the CPU time per query."
    )
    parser.add_argument("run", type=Path, nargs="?", help="the JSON of a run (default: docs/performance.md)")
    run = parser.parse_args().run
    if run is None:
        PICTURE.write_text(draw(of_page(PAGE.read_text())))
    else:
        run.with_suffix(".cpu.svg").write_text(draw(of_run(json.loads(run.read_text()))))


if __name__ == "__main__":
    main()
