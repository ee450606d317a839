"""The arithmetic of `make bench`, and the tables and the plot that it makes of a run. Nothing is measured."""

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from bench import chart, figures, plot, report, summary
from bench.__main__ import options_of
from rich.console import Console

LINE = {
    "seconds": 2.0,
    "qps": 100000.0,
    "useful_qps": 100000.0,
    "arrived": 200000,
    "useful": 200000,
    "offered": 200000,
    "skipped": 0,
    "lost": 0,
    "wrong": 0,
    "bytes": 1,
    "cpu_ns": 800_000_000,
    "waited_ns": 0,
    "idle": 0.1,
    "p50_us": 40,
    "p90_us": 60,
    "p99_us": 80,
    "p999_us": 100,
    "max_us": 120,
    "rcodes": {"3": 200000},
}


def line(**fields: object) -> dict[str, Any]:
    return LINE | fields


def entry(server: str, mode: str, run: dict[str, Any], *limits: dict[str, Any]) -> dict[str, Any]:
    about = {"workload": "blocked", "server": server, "round": 1, "mode": mode, "rate": 0}
    return about | {"run": run, "limits": list(limits), "waited": 0.01, "rss_kib": 1000}


def stored(*rounds: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a run, with one entry of each kind."""
    return {
        "machine": {
            "cpu": "a < b & c",
            "kernel": "6.1",
            "date": "2026-01-01",
            "commit": "abc",
            "processors": 2,
            "stolen_ticks": 0,
        },
        "options": {"names": 1_000_000, "workers": 1, "rounds": 1},
        "list": {"bytes_per_name": 22.0, "compressed_bytes_per_name": 8.0, "reading_seconds": 0.01},
        "rounds": list(rounds),
        "loading": [
            {
                "server": "daemon",
                "empty_kib": 1000,
                "loaded_kib": 2024,
                "peak_kib": 3000,
                "names": 65537,
                "load_seconds": 0.5,
                "again_seconds": 0.4,
                "reload_seconds": None,
            }
        ],
        "publish": [
            {
                "publishes": 2,
                "without": line(),
                "during": [line(p99_us=90), line(p99_us=160, lost=3)],
                "in_force_seconds": [0.01, 0.02],
                "rss_kib": 1024,
                "peak_kib": 2048,
            }
        ],
        "overload": [
            {
                "server": "daemon",
                "best_qps": 100.0,
                "offered_qps": 500.0,
                "run": line(useful_qps=80.0),
                "rss_before_kib": 1024,
                "rss_after_kib": 1024,
                "metrics_seconds": None,
                "reload_seconds": 0.5,
            }
        ],
        "notes": ["dnsdist is not installed"],
    }


WHOLE = (
    entry("daemon", "saturated", line(), line(cpu_ns=600_000_000), line(cpu_ns=1_000_000_000)),
    entry("daemon", "half", line(p99_us=160), line()),
)


def shown(data: dict[str, Any]) -> str:
    console = Console(width=200, file=io.StringIO())
    report.print_report(data, console)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_a_percentile_is_the_value_of_its_rank(share: float, value: int):
    """Nearest rank: no value is reported that was not measured."""
    assert figures.percentile(range(100, 0, -1), share) == value


def test_an_empty_sample_has_no_percentile():
    """A run without samples must not be shown as 0."""
    with pytest.raises(ValueError, match="no values"):
        figures.percentile([], 0.5)


def test_a_ratio_is_to_the_mean_of_the_limits_beside_it():
    """The limit of the machine is measured more than once, as other work may run on it."""
    assert figures.ratio(6, [2, 4]) == 2


@pytest.mark.parametrize("limits", [[], [0], [1, 0]])
def test_a_ratio_to_nothing_is_none(limits: list[float]):
    """A missing limit must not end the report."""
    assert figures.ratio(6, limits) is None


def test_a_spread_is_median_least_and_most():
    """One figure alone would hide a noisy machine."""
    assert figures.spread([5, 1, 3]) == figures.Spread(3, 1, 5)
    assert figures.spread([]) is None


def test_the_line_of_the_load_tool_is_read():
    """The format is an interface between two programs."""
    run = figures.parse_run(json.dumps(LINE))
    assert (run.cpu_us, run.busy, run.disturbed) == (4.0, 0.4, False)


@pytest.mark.parametrize("text", ["", "bind: Address already in use", "[]", "{}", json.dumps(line(more=1))])
def test_anything_else_is_refused(text: str):
    """A changed format must not be read as other figures."""
    with pytest.raises(figures.NotARun, match="invalid output of the load tool"):
        figures.parse_run(text)


def test_the_target_is_wider_for_many_names():
    """Many names miss the processor's caches, so their target is higher."""
    assert figures.target("uncached", 1_000_000) == 1.4
    assert figures.target("uncached", 10_000_000) == 1.54
    assert figures.target("publish", 1_000_000) is None


def test_a_row_has_the_ratio_to_the_limits_of_its_own_round():
    """Rounds differ, as other work runs on the machine."""
    limit, daemon = summary.rows(stored(*WHOLE))
    assert (limit.server, limit.cpu.value, limit.cpu.ratio) == ("limit", 4.0, None)
    assert (daemon.server, daemon.cpu.value, daemon.cpu.ratio) == ("daemon", 4.0, figures.Spread(1, 1, 1))
    assert daemon.half["p99_us"].ratio == figures.Spread(2, 2, 2)
    assert daemon.target == 1.15


def test_a_disturbed_run_counts_only_if_there_is_no_other():
    """Other work on the machine makes the figures worse, so an undisturbed run is preferred."""
    disturbed = entry("daemon", "saturated", line(cpu_ns=8_000_000_000, waited_ns=10**9), line())
    for rounds, cpu_us in (([*WHOLE, disturbed], 4.0), ([disturbed], 40.0)):
        row = summary.rows(stored(*rounds))[1]
        assert (row.cpu.value, row.disturbed) == (cpu_us, 1)


def test_memory_is_what_the_list_adds_to_an_empty_server():
    """Servers differ in what they need without a list."""
    (row,) = summary.loading_rows(stored())
    assert (row.bytes.value, row.bytes.ratio) == (16.0, figures.Spread(2, 2, 2))


def test_the_tables_show_each_figure_with_its_ratio_and_whether_the_target_is_met():
    """A regression must be visible without arithmetic."""
    text = shown(stored(*WHOLE))
    for part in ("1.00 (1.00-1.00)", "<= 1.15 met", "160 (2.00)", "16.0 (2.00)", "dnsdist is not installed"):
        assert part in text
    missed = entry("daemon", "saturated", line(cpu_ns=1_000_000_000), line())
    assert "<= 1.15 missed" in shown(stored(missed))


def test_a_run_without_rounds_is_shown_too():
    """An interrupted run still prints what it has."""
    assert "Publishes" in shown(stored())


def test_the_plot_is_well_formed_and_says_what_the_bars_are():
    """The README shows it: broken XML would be a broken picture."""
    drawn = ET.fromstring(plot.draw(stored(*WHOLE)))
    words = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "blocked daemon" in words
    assert "1.00 (4.00 us)" in words


def test_the_chart_of_cpu_time_has_a_bar_for_each_server_and_not_for_the_limit():
    """The limit is no server to compare with."""
    of_run = chart.of_run(stored(*WHOLE))
    shown = [(bar.workload, bar.series) for bar in of_run.bars]
    assert shown == [
        (row.workload, row.server) for row in summary.rows(stored(*WHOLE)) if row.server != "limit"
    ]
    drawn = ET.fromstring(chart.draw(of_run))
    words = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "2026-01-01, a < b & c, Linux 6.1, commit abc" in words
    assert {"blocked", "daemon", "1.00"} <= set(words)


def test_the_command_line_is_read_as_make_gives_it(tmp_path: Path):
    """`make bench NAMES=…` passes its variables as options."""
    arguments = ["--names=10", "--only=mix,publish", "--servers=daemon,limit", f"--results={tmp_path}"]
    options, results, show = options_of(arguments)
    assert (options.names, options.only, options.servers) == (10, ("mix", "publish"), ("daemon",))
    assert (results, show) == (tmp_path, None)


def test_an_unknown_workload_is_named(capsys: pytest.CaptureFixture[str]):
    """A typing error in ONLY must not measure nothing for an hour."""
    with pytest.raises(SystemExit):
        options_of(["--only=blocked,nothing"])
    assert "'nothing' is not one of blocked, cached, mix, uncached" in capsys.readouterr().err
