"""The bench runs to its end with a tiny list. Times are not checked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import machine, processes
from .load import WORKLOADS

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(3000)

TINY = ["--names=1000", "--rounds=1", "--seconds=0.2", "--warm-up=0.05", "--publishes=2", "--servers=daemon"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON of a tiny run of all workloads."""
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    path = None
    for _ in range(5):
        folder = tmp_path_factory.mktemp("results")
        command = [sys.executable, "-m", "bench", *TINY, f"--results={folder}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
        if "Address already in use" in done.stderr:
            continue  # another test took a port between looking and binding
        assert done.returncode == 0, done.stdout + done.stderr
        (path,) = folder.glob("*-1000-1.json")
        # On a busy machine, a server may get no processor for a whole measurement.
        if all(entry["run"]["useful"] > 0 for entry in json.loads(path.read_text())["rounds"]):
            break
    assert path is not None, done.stderr
    return path


def test_the_json_has_all_results(results: Path):
    """Figures need machine, date and versions."""
    data = json.loads(results.read_text())
    assert data["schema"] == "dnsblock.bench/1"
    assert {"date", "cpu", "processors", "kernel", "commit", "command"} <= data["machine"].keys()
    assert data["versions"].keys() == {"daemon"}
    assert data["options"]["names"] == data["list"]["names"] == 1000
    assert [loaded["server"] for loaded in data["loading"]] == ["daemon"]
    measured = {(entry["workload"], entry["server"], entry["mode"]) for entry in data["rounds"]}
    assert measured == {
        (workload, "daemon", mode) for workload in WORKLOADS for mode in ("saturated", "half")
    }
    assert all(len(entry["limits"]) == (2 if entry["mode"] == "saturated" else 1) for entry in data["rounds"])
    assert [len(entry["in_force_seconds"]) >= 2 for entry in data["publish"]] == [True]
    assert [entry["server"] for entry in data["overload"]] == ["limit_echo", "daemon"]
    assert data["notes"] == []


def test_the_answers_are_the_right_ones(results: Path):
    """The list must be in force and the upstream queried, or else all figures have no meaning.

    A machine that stalls for seconds may add SERVFAIL (2) where the upstream is asked.
    """
    data = json.loads(results.read_text())
    assert all(entry["run"]["useful"] > 0 for entry in data["rounds"])
    rcodes: dict[str, set[str]] = {workload: set() for workload in WORKLOADS}
    for entry in data["rounds"]:
        rcodes[entry["workload"]] |= entry["run"]["rcodes"].keys()
    assert rcodes["blocked"] == {"3"}
    assert rcodes["cached"] - {"2"} == rcodes["uncached"] - {"2"} == {"0"}
    assert rcodes["mix"] - {"2"} == {"0", "3"}


def test_a_stored_run_is_drawn(results: Path):
    """A run is written as JSON and drawn as SVG."""
    assert results.with_suffix(".svg").read_text().startswith("<svg ")


def test_lists_are_the_same_for_the_same_count(tmp_path: Path, results: Path):
    """Figures of different days are for the same list."""
    names = Path(__file__).parent / "build" / "names"
    lists = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        subprocess.run([names, folder, "1000"], check=True, timeout=60)
        lists.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert lists[0] == lists[1]
    assert len(set(lists[0]["names.txt"].split())) == 1000


def test_a_server_that_does_not_come_up_ends_the_wait(tmp_path: Path):
    """Each wait has a timeout, and the message names the condition."""
    own = str(machine.processors()[0])
    process = processes.launch(own, ["false"], tmp_path)
    with pytest.raises(processes.DidNotStart, match="ended with code 1 before it blocks"):
        processes.wait_until(lambda: False, process, "it blocks", within=60)
    sleeper = processes.launch(own, ["sleep", "60"], tmp_path)
    with pytest.raises(processes.DidNotStart, match="not within 0 s: it blocks"):
        processes.wait_until(lambda: False, sleeper, "it blocks", within=0)
    processes.stop(sleeper)


def test_the_versions_of_a_list_are_measured_to_the_end(tmp_path: Path):
    """`python -m bench.year` with a tiny list."""
    results = tmp_path / "year.json"
    command = [
        sys.executable,
        "-m",
        "bench.year",
        "--names=2000",
        "--versions=1",
        "--changed=200",
        "--past=20",
    ]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    whole = [*command, "--questions=2", f"--results={results}"]
    done = subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [figure["what"] for figure in json.loads(results.read_text())["figures"]]
    assert {"version 2", "why NAME --at", "diff of the first and the last", "rollback", "restart"} <= set(
        found
    )


def test_a_tree_of_secondaries_is_measured_to_the_end(tmp_path: Path):
    """`python -m bench.fleet_tree` with one order and its end."""
    results = tmp_path / "tree.json"
    command = [sys.executable, "-m", "bench.fleet_tree", "--leaves=2", "--middles=1", "--rounds=1"]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    whole = [*command, "--repeat=1", "--names=10", "--fan-out=3", "--quiet=0", f"--results={results}"]
    done = subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = json.loads(results.read_text())["runs"]
    assert [one["action"] for one in run["changes"]] == ["block", "unblock"]
    assert all(len(one["leaves"]) == 2 for one in run["changes"])
    assert (run["root"]["ixfr"], run["middles"]["ixfr"]) == (2, 4)
    assert (run["root"]["axfr"], run["middles"]["axfr"]) == (0, 0)


def test_floods_of_all_listeners_are_measured_to_the_end(tmp_path: Path):
    """`python -m bench.interfaces` with one short round: each flood reaches its listener; DNS is answered."""
    results = tmp_path / "interfaces.json"
    command = [sys.executable, "-m", "bench.interfaces", "--rounds=1", "--seconds=0.3", "--dns=200"]
    command += ["--niceness=0"]  # otherwise a busy machine never runs them
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [*command, f"--results={results}"], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rounds = json.loads(results.read_text())["rounds"]
    assert len(done.stdout.splitlines()) == len(rounds) + 2
    assert {one["listener"] for one in rounds} == {"api", "console", "metrics", "landing"}
    for one in rounds:
        assert one["with"]["answered"] > 0, one
        assert one["per_second"]["connections"] > 0, one
