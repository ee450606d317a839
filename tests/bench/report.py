"""The tables of a run: the figures of each server, and in brackets the ratio to the limit."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from .figures import Run, percentile
from .summary import LIMIT, Figure, Row, loading_rows, rows


def print_report(data: dict[str, Any], console: Console) -> None:
    for table in tables(data):
        console.print(table)
    for note in data["notes"]:
        console.print(f"note: {note}", markup=False)
    for note in cautions(data):
        console.print(f"note: {note}", markup=False)


def tables(data: dict[str, Any]) -> list[Table]:
    found = []
    if data["rounds"]:
        found += [cost_table(data), latency_table(data, "half"), latency_table(data, "saturated")]
    if data["loading"]:
        found.append(loading_table(data))
    if data["publish"]:
        found.append(publish_table(data))
    if data["overload"]:
        found.append(overload_table(data))
    return found


def heading(data: dict[str, Any], what: str) -> str:
    options = data["options"]
    workers = "1 worker" if options["workers"] == 1 else f"{options['workers']} workers"
    return f"{what}: {options['names']:,} names, {workers}, medians of {options['rounds']} rounds"


def cost_table(data: dict[str, Any]) -> Table:
    table = new_table(
        heading(data, "CPU and throughput"),
        ["workload", "server"],
        [
            "CPU us/query",
            "ratio (least-most)",
            "target",
            "queries/s",
            "ratio",
            "busy",
            "waited",
            "wrong",
            "disturbed",
        ],
    )
    for row in rows(data):
        table.add_row(
            *names(row),
            number(row.cpu.value, 2),
            spread_of(row.cpu),
            judged(row),
            number(row.qps.value, 0),
            ratio_of(row.qps),
            f"{row.busy:.0%}",
            f"{row.waited:.0%}",
            str(row.wrong),
            str(row.disturbed),
            end_section=False,
        )
    return table


def latency_table(data: dict[str, Any], mode: str) -> Table:
    title = {"half": "Latency in us at half load", "saturated": "Latency in us, saturated"}[mode]
    table = new_table(heading(data, title), ["workload", "server"], ["p50", "p90", "p99", "p99.9", "lost"])
    for row in rows(data):
        figures, lost = (row.half, row.lost_half) if mode == "half" else (row.saturated, row.lost_saturated)
        table.add_row(*names(row), *(with_ratio(figure) for figure in figures.values()), f"{lost:.2%}")
    return table


def loading_table(data: dict[str, Any]) -> Table:
    about = data["list"]
    title = (
        f"The list: {about['bytes_per_name']:.1f} bytes per name, "
        f"{about['compressed_bytes_per_name']:.1f} compressed; read in {about['reading_seconds']:.3f} s"
    )
    table = new_table(title, ["server"], ["bytes/name", "load s", "restart s", "reload s", "peak MiB"])
    for row in loading_rows(data):
        table.add_row(
            row.server,
            with_ratio(row.bytes, 1),
            with_ratio(row.seconds, 2),
            number(row.again_seconds, 2),
            number(row.reload_seconds, 2),
            number(row.peak_kib / 1024, 0),
        )
    return table


def publish_table(data: dict[str, Any]) -> Table:
    table = new_table(
        "Publishes at half load (mixed queries)",
        [],
        [
            "publishes",
            "p99 us without",
            "p99 us during",
            "ratio",
            "lost",
            "order in force p50 ms",
            "p99 ms",
            "MiB",
            "peak",
        ],
    )
    for entry in data["publish"]:
        without, during = Run(**entry["without"]), [Run(**run) for run in entry["during"]]
        worst = max(run.p99_us for run in during)
        seconds = entry["in_force_seconds"]
        table.add_row(
            str(entry["publishes"]),
            str(without.p99_us),
            str(worst),
            f"{worst / max(1, without.p99_us):.2f}",
            str(sum(run.lost for run in during)),
            number(percentile(seconds, 0.5) * 1000, 1),
            number(percentile(seconds, 0.99) * 1000, 1),
            number(entry["rss_kib"] / 1024, 0),
            number(entry["peak_kib"] / 1024, 0),
        )
    return table


def overload_table(data: dict[str, Any]) -> Table:
    table = new_table(
        "Overload (mixed queries): five times the best, beside busy loops on the same processors",
        ["server"],
        [
            "best/s",
            "offered/s",
            "of best",
            "useful/s",
            "of best",
            "MiB before",
            "after",
            "/metrics s",
            "reload s",
        ],
    )
    for entry in data["overload"]:
        run, best = Run(**entry["run"]), entry["best_qps"] or 1
        table.add_row(
            entry["server"],
            number(entry["best_qps"], 0),
            number(entry["offered_qps"], 0),
            f"{entry['offered_qps'] / best:.1f}",
            number(run.useful_qps, 0),
            f"{run.useful_qps / best:.0%}",
            number(entry["rss_before_kib"] / 1024, 0),
            number(entry["rss_after_kib"] / 1024, 0),
            number(entry["metrics_seconds"], 3),
            number(entry["reload_seconds"], 3),
        )
    return table


def cautions(data: dict[str, Any]) -> list[str]:
    """Warnings about the quality of the figures."""
    found = []
    machine, options = data["machine"], data["options"]
    if options["workers"] >= (machine["processors"] or 1):
        found.append("the servers share a processor with the load tool: do not trust qps and latencies")
    disturbed = sum(row.disturbed for row in rows(data))
    if disturbed:
        found.append(
            f"another process used the load tool's processor in {disturbed} of {len(data['rounds'])} runs "
            "(disturbed); they count only where a server has no other"
        )
    if any(entry["run"]["skipped"] for entry in data["rounds"] if entry["mode"] == "half"):
        found.append("the load tool skipped queries at half load: latencies of those runs are too low")
    if machine.get("stolen_ticks", 0) > 100:
        found.append(f"the hypervisor took {machine['stolen_ticks'] / 100:.0f} s of processor time")
    return found


# ------- Cells


def new_table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1))
    for column in left:
        table.add_column(column, no_wrap=True)
    for column in right:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def names(row: Row) -> tuple[str, str]:
    return ("" if row.server != LIMIT else row.workload, row.server)


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def ratio_of(figure: Figure) -> str:
    return "-" if figure.ratio is None else f"{figure.ratio.median:.2f}"


def spread_of(figure: Figure) -> str:
    return "-" if figure.ratio is None else str(figure.ratio)


def with_ratio(figure: Figure, digits: int = 0) -> str:
    value = number(figure.value, digits)
    return value if figure.ratio is None else f"{value} ({figure.ratio.median:.2f})"


def judged(row: Row) -> str:
    """The target, and whether the median meets it."""
    if row.target is None or row.cpu.ratio is None:
        return ""
    verdict = "met" if row.cpu.ratio.median <= row.target else "missed"
    return f"<= {row.target:g} {verdict}"
