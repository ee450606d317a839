"""The examples of docs/api.md, run as they are written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from unit.https_server import Authority

from .furnished import LISTED
from .guarding import BASE
from .harness import ISSUER, is_sinkholed
from .issuing import CLIENTS, TOKENS, ZONES, IssuersApi, by_token, three_instances
from .orders import as_yaml, block
from .tools import dnsblock, tool

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NUMBER = "001/BLOCK/2026"


def blocks(section: str) -> list[tuple[str, str]]:
    """The language and the text of each block of a section."""
    return BLOCK.findall(PAGE.split(f"## {section}\n", 1)[1].split("\n## ", 1)[0])


def clerk(api: IssuersApi, folder: Path) -> Path:
    """A folder as the page assumes it."""
    folder.mkdir()
    (folder / "ca.pem").write_bytes(api.servers.pem.read_bytes())
    (folder / "order.yaml").write_text(as_yaml(block(NUMBER, ["slot.example"])))
    return folder


def run_section(section: str, folder: Path, before: str = "", **environment: str) -> None:
    """Runs the blocks of commands and of Python; each prints the block after it."""
    tool("curl")
    path = f"{Path(dnsblock()).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "NO_PROXY": "*", "PATH": path, **environment}
    printed, shown = "", ""
    script = ""
    for kind, text in blocks(section):
        script += text if kind == "sh" else ""
        shown += "" if kind else text
        if kind == "python":
            printed += _run([sys.executable, "-c", text], folder, environment)
    if script:
        printed += _run(["sh", "-c", f"set -eu\n{before}{script}"], folder, environment)
    assert printed == shown


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def preamble() -> str:
    """The file of the token, and the function `curl`."""
    return blocks("Walk-through with curl")[0][1]


def test_the_walk_through_with_curl_prints_what_the_page_shows(api: IssuersApi, tmp_path: Path):
    """Each block of commands, with the output in the block after it."""
    api.start()
    folder = clerk(api, tmp_path / "clerk")
    run_section("Walk-through with curl", folder, API=api.url, TOKEN=TOKENS["ministry"])
    assert is_sinkholed(api.subject.query("slot.example"))
    receipt = (folder / "receipt.json").read_text()
    assert NUMBER in receipt
    assert (folder / "receipt.json.sig").read_text().startswith("-----BEGIN SSH SIGNATURE-----")


def test_the_walk_through_for_staff_prints_what_the_page_shows(api: IssuersApi, tmp_path: Path):
    """With one list of two versions, and one order."""
    api.start(zones=[*ZONES, LISTED], lists={"list.txt": BASE})
    api.subject.put_list("list.txt", [*BASE, "new.example"])
    api.subject.reload()
    assert api.submit(block(NUMBER, ["slot.example"])).status_code == 201
    folder = clerk(api, tmp_path / "staff")
    run_section("Walk-through for staff", folder, preamble(), API=api.url, TOKEN=TOKENS["chief"])
    assert set(BASE) <= set((folder / "names.txt").read_text().split())


def test_the_health_checks_print_what_the_page_shows(api: IssuersApi, tmp_path: Path):
    """And the probes of Kubernetes are on the metrics listener."""
    api.start()
    metrics = f"http://{api.subject.ready['metrics']}"
    run_section("Health checks", clerk(api, tmp_path / "keepalived"), METRICS=metrics)
    probes = yaml.safe_load(next(text for kind, text in blocks("Health checks") if kind == "yaml"))
    for probe in probes.values():
        assert probe["httpGet"]["path"] in ("/livez", "/readyz")


def test_the_client_in_python_prints_what_the_page_shows(api: IssuersApi, tmp_path: Path):
    """A program with the token of an operator."""
    api.start()
    assert api.submit(block(NUMBER, ["slot.example"])).status_code == 201
    run_section("A client in Python", clerk(api, tmp_path / "p"), API=api.url, TOKEN=TOKENS["chief"])


def test_one_command_pushes_to_the_instances_as_the_page_shows(
    tmp_path: Path, authority: Authority, client_authority: Authority
):
    """`dnsblock order submit` with a file of the token."""
    with three_instances(tmp_path, authority, client_authority) as (one, two, _):
        folder = clerk(one, tmp_path / "clerk")
        (folder / "tokens").write_text(TOKENS["ministry"])
        kind, script = blocks("Push with one command")[0]
        assert kind == "sh"
        path = f"{Path(dnsblock()).parent}:{os.environ['PATH']}"
        _run(["sh", "-c", script], folder, {**os.environ, "PATH": path, "ONE": one.url, "TWO": two.url})
        for api in (one, two):
            assert is_sinkholed(api.subject.query("slot.example"))


def test_the_files_of_the_page_are_accepted(api: IssuersApi):
    """The option `api`, and a line of each kind in the file of clients."""
    options = yaml.safe_load(blocks("Set it up")[0][1])["api"]
    clients = yaml.safe_load(blocks("Clients")[0][1])
    for number, client in enumerate(clients):
        if "sha256" in client:
            assert re.fullmatch(r"[0-9a-f]{4}…[0-9a-f]{2}", client["sha256"])
            client["sha256"] = f"{number:064x}"
    api.start([*CLIENTS, *clients])
    assert {"listen", *api.options()} == set(options)
    api.know([by_token("ministry"), *clients])
    api.subject.reload()
    assert api.get(f"/v1/orders?issuer={ISSUER}").status_code == 200


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in BLOCK.findall(PAGE) if kind}))
def test_every_kind_of_example_is_run(kind: str):
    """A new language needs a way to run it."""
    assert kind in ("sh", "python", "yaml")
