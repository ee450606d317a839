"""The command line of `make bench`."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from . import chart
from .campaign import EXTRAS, SERVERS, Options, Results, run
from .load import WORKLOADS
from .plot import draw
from .report import print_report

RESULTS = Path(__file__).parent / "results"
DEFAULTS = Options()
WIDE = 160  # columns where the output is not a terminal


def listed(known: Sequence[str]) -> Any:
    """A type of argparse: some of these words, with commas between them."""

    def words(text: str) -> tuple[str, ...]:
        chosen = tuple(word.strip() for word in text.split(",") if word.strip())
        for word in chosen:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return chosen

    return words


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures dnsblock beside bare socket loops (limit_echo, limit_forward) and, where "
        "installed, beside other resolvers, all with the same list and the same load. Servers have "
        "the first processors, the load tool the last one. What counts is the ratio to the limit; "
        "docs/performance.md says how to read it.",
        epilog="make bench takes the same as variables: "
        "make bench NAMES=100000 ROUNDS=3 ONLY=blocked SERVERS=daemon",
    )
    parser.add_argument("--names", type=int, default=DEFAULTS.names, help="names in the list (%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=DEFAULTS.workers, help="worker threads of each server (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=DEFAULTS.rounds, help="rounds (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=DEFAULTS.seconds, help="seconds of a run that count (%(default)s)"
    )
    parser.add_argument(
        "--warm-up", type=float, default=DEFAULTS.warm_up, help="seconds before these (%(default)s)"
    )
    workloads = (*WORKLOADS, *EXTRAS)
    parser.add_argument(
        "--only", type=listed(workloads), default=workloads, help=f"workloads: {','.join(workloads)}"
    )
    known = (*SERVERS, "limit")
    parser.add_argument(
        "--servers",
        type=listed(known),
        default=known,
        help=f"servers: {','.join(SERVERS)}; the limit programs are always there",
    )
    parser.add_argument(
        "--limited", action="store_true", help="let the daemon count its clients' queries (limits.exempt: [])"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=DEFAULTS.patience,
        help="seconds that a server has to load the list (%(default)s)",
    )
    parser.add_argument(
        "--publishes",
        type=int,
        default=DEFAULTS.publishes,
        help="publishes of the workload publish (%(default)s)",
    )
    parser.add_argument(
        "--quiet",
        type=float,
        default=DEFAULTS.quiet,
        help="seconds to wait before each run, at most, until nothing else runs on the machine (%(default)s)",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON and the plot go")
    parser.add_argument(
        "--show", type=Path, help="measure nothing: print and draw a run that was kept as JSON"
    )
    return parser


def options_of(arguments: Sequence[str] | None = None) -> tuple[Options, Path, Path | None]:
    chosen = vars(parser().parse_args(arguments))
    folder, kept = chosen.pop("results"), chosen.pop("show")
    chosen["servers"] = tuple(name for name in chosen["servers"] if name != "limit")
    return Options(**chosen), folder, kept


def keep(results: Results, folder: Path) -> Path:
    """Write the whole run beside the others; its name says which it is."""
    folder.mkdir(parents=True, exist_ok=True)
    date = str(results.machine["date"])[:19].replace(":", "")
    path = folder / f"{date}-{results.options.names}-{results.options.workers}.json"
    path.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    return path


def show(path: Path, console: Console) -> None:
    """Print the tables of a kept run, and draw its plot and its chart of CPU time beside it."""
    data = json.loads(path.read_text())
    plot, cpu = path.with_suffix(".svg"), path.with_suffix(".cpu.svg")
    plot.write_text(draw(data))
    if (of_cpu := chart.of_run(data)).bars:  # there is none without a workload that has a CPU time
        cpu.write_text(chart.draw(of_cpu))
    print_report(data, console)
    console.print(f"Kept as {path} and {plot.name}", soft_wrap=True)


def main() -> int:
    options, folder, kept = options_of()
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    if kept is not None:
        show(kept, console)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: servers are stopped, files removed
    try:
        results = run(options, console)
    except KeyboardInterrupt:
        console.print("interrupted: nothing is kept")
        return 130
    show(keep(results, folder), console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
