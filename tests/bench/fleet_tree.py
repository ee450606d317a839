"""An order and its end on a tree of secondaries: `make fleet-tree`. docs/fleet-tree.md.

One origin receives the orders and keeps an RPZ file current. Knot DNS distributes it on two levels to the
leaves, which are dnsblock. Prints the times and messages of this tree, and what they mean for a larger one.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from . import machine
from .fleet_fanout import measure_fanout
from .fleet_model import Tree
from .fleet_report import computed_line, fanout_line, lines, measured_of, medians
from .fleet_run import Run, measure

APART = 2  # leaves of the run whose leaves do not wait for each other: one for each processor
# Servers on the second level and leaves of each (0 and all leaves: no second level), and round-trip times in
# milliseconds, to a leaf and to the second level.
SHAPES = ((10, 100), (20, 50), (32, 32), (0, 1000))
TRIPS = ((0, 0), (1, 20), (5, 5), (20, 20))
TIMEOUTS_MS = (5000, 500)  # of Knot DNS for a secondary that does not answer; the default, and a shorter one


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet_tree", description=__doc__)
    parser.add_argument("--leaves", type=int, default=20, help="dnsblock secondaries (%(default)s)")
    parser.add_argument("--middles", type=int, default=4, help="Knot DNS on the second level (%(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="names blocked and lifted (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of the whole tree (%(default)s)")
    parser.add_argument("--names", type=int, default=1000, help="names that stay blocked (%(default)s)")
    parser.add_argument("--every", type=float, default=10, help="ms between two queries (%(default)s)")
    parser.add_argument("--fan-out", type=int, default=50, help="secondaries to notify (%(default)s)")
    parser.add_argument(
        "--at-once", action="store_true", help="the second level notifies without its pause of a second"
    )
    parser.add_argument(
        "--quiet", type=float, default=60, help="wait this long for an idle machine (%(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="where the files are written")
    parser.add_argument("--results", type=Path, help="JSON file for all figures")
    chosen = parser.parse_args()
    about = machine.describe()
    print(", ".join(f"{key} {about[key]}" for key in ("date", "cpu", "processors", "kernel", "load_average")))
    runs = []
    for number in range(chosen.repeat):
        print(f"\n{chosen.leaves} leaves below {chosen.middles} servers, run {number + 1}", flush=True)
        runs.append(run_in_folder(chosen, number))
    print()
    for line in medians(runs):
        print(line)
    print(f"\n{APART} leaves below {APART} servers", flush=True)
    few = argparse.Namespace(**vars(chosen) | {"leaves": APART, "middles": APART})
    apart = run_in_folder(few, chosen.repeat)
    print()
    fanouts = []
    for timeout_ms in TIMEOUTS_MS:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
            fanouts.append(measure_fanout(Path(folder), chosen.fan_out, timeout_ms=timeout_ms))
        print(fanout_line(fanouts[-1]), flush=True)
    measured = measured_of(apart, runs[0], fanouts[0])
    print()
    for middles, fan_out in SHAPES:
        for near, far in TRIPS:
            print(computed_line(measured, Tree(middles, fan_out, near / 1000, far / 1000)), flush=True)
    if chosen.results:
        found = {
            "machine": about,
            "runs": [asdict(one) for one in runs],
            "apart": asdict(apart),
            "fan_out": [asdict(one) for one in fanouts],
        }
        chosen.results.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def run_in_folder(chosen: argparse.Namespace, seed: int) -> Run:
    machine.wait_for_quiet(chosen.quiet)
    print(f"load average {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        run = measure(Path(folder), chosen, seed)
    for line in lines(run):
        print(line, flush=True)
    return run


if __name__ == "__main__":
    sys.exit(main())
