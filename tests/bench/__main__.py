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
WIDE = 160  # columns if the output is not a terminal


def listed(known: Sequence[str]) -> Any:
    """An argparse type: some of these words, separated by commas."""

    def words(text: str) -> tuple[str, ...]:
        chosen = tuple(word.strip() for word in text.split(",") if word.strip())
        for word in chosen:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(known)}")
        return chosen

    return words


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures dnsblock beside bare socket loops (limit_echo, limit_forward) and, where "
        "installed, beside other resolvers, all with the same list and the same load. Servers have "
        "the first processors, the load tool the last one. The important figure is the ratio to the "
        "limit; see docs/performance.md.",
        epilog="make bench takes the options as variables: "
        "make bench NAMES=100000 ROUNDS=3 ONLY=blocked SERVERS=daemon",
    )
    parser.add_argument("--names", type=int, default=DEFAULTS.names, help="names in the list (%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=DEFAULTS.workers, help="worker threads of each server (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=DEFAULTS.rounds, help="rounds (%(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=DEFAULTS.seconds,
        help="seconds of a run that are measured (%(default)s)",
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
        help=f"servers: {','.join(SERVERS)}; the limit programs always run",
    )
    parser.add_argument(
        "--limited", action="store_true", help="let the daemon apply its rate limits (limits.exempt: [])"
    )
    parser.add_argument(
        "--load_timeout",
        type=float,
        default=DEFAULTS.load_timeout,
        help="timeout for a server to load the list, in seconds (%(default)s)",
    )
    parser.add_argument(
        "--publishes",
        type=int,
        default=DEFAULTS.publishes,
        help="publishes of the workload publish, at least (%(default)s)",
    )
    parser.add_argument(
        "--quiet",
        type=float,
        default=DEFAULTS.quiet,
        help="seconds to wait before each run, at most, for an idle machine (%(default)s)",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON and the plot")
    parser.add_argument("--show", type=Path, help="measure nothing: print and draw the run in this JSON file")
    return parser


def options_of(arguments: Sequence[str] | None = None) -> tuple[Options, Path, Path | None]:
    chosen = vars(parser().parse_args(arguments))
    folder, stored = chosen.pop("results"), chosen.pop("show")
    chosen["servers"] = tuple(name for name in chosen["servers"] if name != "limit")
    return Options(**chosen), folder, stored


def keep(results: Results, folder: Path) -> Path:
    """Writes the whole run as JSON. The file name has date, names and workers."""
    folder.mkdir(parents=True, exist_ok=True)
    date = str(results.machine["date"])[:19].replace(":", "")
    path = folder / f"{date}-{results.options.names}-{results.options.workers}.json"
    path.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    return path


def show(path: Path, console: Console) -> None:
    """Prints the tables of a stored run, and draws its plot and chart of CPU time in the same folder."""
    data = json.loads(path.read_text())
    plot, cpu = path.with_suffix(".svg"), path.with_suffix(".cpu.svg")
    plot.write_text(draw(data))
    if (of_cpu := chart.of_run(data)).bars:  # some workloads have no CPU time
        cpu.write_text(chart.draw(of_cpu))
    print_report(data, console)
    console.print(f"Written to {path} and {plot.name}", soft_wrap=True)


def main() -> int:
    options, folder, stored = options_of()
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    if stored is not None:
        show(stored, console)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: servers are stopped, files removed
    try:
        results = run(options, console)
    except KeyboardInterrupt:
        console.print("interrupted: nothing was written")
        return 130
    show(keep(results, folder), console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
