"""The documentation matches the code: metrics, options, commands, exit codes, orders and links."""

import json
import os
import re
import select
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import UnionType
from typing import get_args

import click
import pytest

from dnsblock import document
from dnsblock.cli import EXIT_CODES, main
from dnsblock.config import Config
from dnsblock.config_file import load
from dnsblock.errors import Exit
from dnsblock.inputs import FIXED
from dnsblock.orders.context import Context
from dnsblock.orders.intake import examine
from dnsblock.orders.order import Order, parse
from dnsblock.orders.orders import EMPTY
from dnsblock.orders.references import References
from dnsblock.orders.schema import Header
from dnsblock.orders.state import StateName, derive

ROOT = Path(__file__).parents[2]
OPERATIONS, ORDERS, METRICS = (
    (ROOT / "docs" / name).read_text() for name in ("operations.md", "orders.md", "metrics.md")
)
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/id/*.md"), *ROOT.glob("blocklists/*.md")]
)


def section(text: str, heading: str) -> str:
    """The text under a heading, up to the next one."""
    return re.split(r"^#+ .*$", text.split(f" {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """The inline code in the first cells of tables, headings left out."""
    return [cell for row in re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE) for cell in code(row)]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


# ------- Metrics


COPY = """\
; A copy of this zone, received by zone transfer. dnsblock replaces it.
$ORIGIN transferred.
@ 60 SOA localhost. nobody.invalid. 1 60 60 60 60
received.example 60 CNAME .
"""
TRANSFER = {
    "zone": "transferred",
    "primary": "127.0.0.1:1",
    "serial": 1,
    "refresh": 60,
    "retry": 60,
    "expire": 60,
    "checked_at": "2026-11-30T12:00:00+00:00",
}


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The metrics of a daemon that has one of everything."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "orders").mkdir()
    for name, text in examples().items():
        (folder / "orders" / name).write_text(text)
    (folder / "list.txt").write_text("listed.example\nno name\na.*.example\n")
    (folder / "dnsblock.yaml").write_text(CONFIG)
    feeds = folder / "state" / "feeds"
    feeds.mkdir(parents=True)
    (feeds / "transferred.zone").write_text(COPY)
    (feeds / "transferred.transfer.json").write_text(json.dumps(TRANSFER | {"size": len(COPY)}))
    command = [str(Path(sys.executable).parent / "dnsblock"), "serve", "--json", "-c"]
    daemon = subprocess.Popen([*command, folder / "dnsblock.yaml"], stdout=subprocess.PIPE, env=os.environ)
    with daemon:
        try:
            assert select.select([daemon.stdout], [], [], 120)[0], "not ready in 120 seconds"
            metrics = json.loads(daemon.stdout.readline())["metrics"]
            text, deadline = "", time.monotonic() + 120
            # After ready, it writes the export and connects to servers, and counts the results.
            while metrics_in(text) != documented() and time.monotonic() < deadline:
                with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=60) as response:
                    text = response.read().decode()
            yield text
        finally:
            daemon.kill()


def metrics_in(text: str) -> dict[str, tuple[str, set[str]]]:
    """Type and labels of every metric."""
    found = {}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        samples = re.findall(rf"^{name}(?:_bucket|_sum|_count)?(?:{{(.*)}})? ", text, re.MULTILINE)
        labels = {label for sample in samples for label in re.findall(r"(\w+)=\"", sample)}
        found[name] = (kind, labels - {"le"})
    return found


def documented() -> dict[str, tuple[str, set[str]]]:
    rows = re.findall(
        r"^\| `((?:dnsblock|process|python)_\w+)` \| (\w+)[^|]* \|([^|]*)\|", METRICS, re.MULTILINE
    )
    return {name: (kind, set(code(labels))) for name, kind, labels in rows}


def test_every_metric_is_documented_with_its_type_and_labels_and_no_other_is(exposed: str):
    """Every metric documented."""
    assert documented() == metrics_in(exposed)


def test_every_metric_is_documented_once():
    """Dashboards are built from docs/metrics.md."""
    names = [name for name in first_cells(METRICS) if name.startswith("dnsblock_")]
    assert sorted(names) == sorted(set(names))


def test_every_outcome_and_reason_is_documented(exposed: str):
    """The values of labels are as much an interface as the metrics."""

    def values(label: str) -> set[str]:
        # Of lines that list nothing the reasons are in lists.md.
        pattern = rf'^dnsblock_(?!source_rejected|source_not_applicable).*\b{label}="(\w+)"'
        return set(re.findall(pattern, exposed, re.MULTILINE))

    assert set(first_cells(section(METRICS, "Outcomes"))) - {"outcome"} == values("outcome")
    assert set(re.findall(r"`(\w+)`:", METRICS)) == values("reason")


def test_every_alert_is_documented_and_no_other_is():
    """The table says what to do about each alert of config/alerts.yaml."""
    alerts = re.findall(r"- alert: (\w+)", (ROOT / "config" / "alerts.yaml").read_text())
    table = first_cells(section(OPERATIONS, "Alerts"))
    assert sorted(name for name in table if name.startswith("Dnsblock")) == sorted(alerts)


# ------- Options


def options(model: type = Config, above: str = "") -> set[str]:
    """Every option as a path, such as tcp.max_connections."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        path = f"{above}{field.alias or name}"
        found.add(path)
        kinds = [field.annotation]
        if isinstance(field.annotation, UnionType) and field.default is not None:
            kinds = list(get_args(field.annotation))  # a group that may be null, and is not by default
        for kind in kinds:
            if hasattr(kind, "model_fields"):
                found |= options(kind, f"{path}.")
    return found


def test_every_option_is_in_the_reference_and_every_group_in_operations():
    """config/dnsblock.yaml is the reference; operations.md says where to look for what."""
    lines = document.read("", (ROOT / "config" / "dnsblock.yaml").read_bytes(), max_bytes=1 << 20).lines
    assert {
        ".".join(place) for place in lines if place and all(isinstance(p, str) for p in place)
    } == options()
    table = set(first_cells(section(OPERATIONS, "Configure")))
    assert table == {option for option in options() if "." not in option}


@pytest.mark.parametrize("page", [OPERATIONS, METRICS, ORDERS], ids=["operations", "metrics", "orders"])
def test_no_page_names_an_unknown_option(page: str):
    """A renamed option must be renamed in the documentation."""
    groups = "|".join(sorted({option.split(".")[0] for option in options() if "." in option}))
    words = set(code(page)) - {"ledger.jsonl", "ledger.lock"}  # files in the state folder
    spoken_of = {word for word in words if re.fullmatch(rf"({groups})\.[a-z_]+", word)}
    assert spoken_of <= options()


def test_operations_lists_the_options_that_need_a_restart():
    """The operator must know before the change."""
    sentence = re.search(r"A new value of (.*?) takes a restart", OPERATIONS, re.DOTALL)[1]
    assert set(code(sentence)) == set(FIXED)


def sentences(text: str) -> list[str]:
    """Sentences and cells of tables; a list item is one of its own."""
    paragraphs = re.split(r"\n\s*\n|\n\s*[*#-] |\n(?=\|)", text)
    return [one for paragraph in paragraphs for one in re.split(r"(?<=[.!?:;])\s+|\|", paragraph)]


@pytest.mark.parametrize(
    "page", [*PAGES, *ROOT.glob("config/**/*.yaml"), ROOT / "Dockerfile"], ids=lambda page: page.name
)
def test_no_page_asks_for_an_unnecessary_restart(page: Path):
    """An unnecessary restart is a risk."""
    groups = {option.split(".")[0] for option in options()}
    for sentence in sentences(page.read_text()):
        if re.search(r"(?<!without a )\brestart(s|ed)?\b", sentence, re.IGNORECASE):
            named = {word for word in code(sentence) if word.split(".")[0] in groups}
            assert named <= set(FIXED), sentence


# ------- Command line


def commands(group: click.Group = main, *before: str) -> dict[str, click.Command]:
    """Every command by all of its words, those of groups included."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, *before, name)
        else:
            found[" ".join([*before, name])] = command
    return found


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_is_documented(name: str):
    """A command that is not in docs/operations.md is not found."""
    arguments = [
        p.metavar or p.name.upper() for p in commands()[name].params if isinstance(p, click.Argument)
    ]
    assert " ".join(["dnsblock", name, *arguments]) in first_cells(section(OPERATIONS, "Commands"))


def test_no_page_shows_an_unknown_command():
    """Commands are copied from the documentation."""
    shown = {
        match for page in PAGES for match in re.findall(r"\bdnsblock ([a-z]+)\b", shell(page.read_text()))
    }
    assert shown
    assert shown <= {*main.commands, "dnsblock"}  # docker exec dnsblock dnsblock status


def shell(text: str) -> str:
    """The commands of a page: its sh blocks, without what comes after a hash."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.split(" #")[0] for line in "\n".join(blocks).splitlines()]
    return "\n".join(line for line in lines if not line.startswith(("docker ", "systemctl ")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_block_has_options_and_arguments_that_exist(page: Path):
    """A reader pastes it: an option or an argument too many ends with a usage error."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^dnsblock (.+)$", "\n".join(blocks).replace("\\\n", " "), re.MULTILINE)
    for line in lines:
        words = shlex.split(re.split(r"\|\||&&|\||>|<| #", line)[0])
        command: click.Command = main
        while isinstance(command, click.Group) and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        _, left_over, _ = command.make_parser(click.Context(command)).parse_args(words)
        assert left_over == [], line


def test_every_exit_code_is_documented():
    """In operations.md and in the help of every command."""
    rows = re.findall(r"^\| ([0-9]+) \|", section(OPERATIONS, "Exit codes"), re.MULTILINE)
    assert [int(row) for row in rows] == list(Exit)
    assert [int(row) for row in re.findall(r"^  ([0-9]+)  ", EXIT_CODES, re.MULTILINE)] == list(Exit)


# ------- Orders

CONFIG = """
listen: ["127.0.0.1:0"]
metrics: 127.0.0.1:0
upstream: {servers: ["127.0.0.1:1"]}
answers: {sinkhole: {action: sinkhole, ipv4: [192.0.2.53]}}
ledger: {checkpoints: {folder: copies}}
exports: [{file: names.txt, format: text}]
landing: {listen: ["127.0.0.1:0"], url: "http://l.example", organization: I, contact: "tel:1"}
webhooks: [{name: hook, issuer: ministry.example, url: "https://127.0.0.1:1/", secret_file: hook.secret}]
dnstap: {socket: no-reader.sock}
query_counts: {}
orders: orders
zones:
  - {name: ministry, issuer: ministry.example, unsigned: accept, answer: sinkhole}
  - {name: court, issuer: court.example, unsigned: accept, answer: sinkhole}
  - {name: listed, list: list.txt, answer: nodata, source: {guards: {rejected_percent: off}}}
  - {name: feed, list: "https://127.0.0.1:1/", answer: nodata, source: {missing: start, max_age_s: 7200}}
  - {name: planned, issuer: planned.example, answer: nodata, mode: shadow}
  - {name: transferred, rpz: {primaries: ["127.0.0.1:1"]}, answer: given}
"""


def examples() -> dict[str, str]:
    """The files of orders.md by the names that the sentences before them give."""
    part = ORDERS.split("## Four examples", 1)[1].split("\n## ", 1)[0]
    names = re.findall(r"`([\w-]+\.(?:yaml|json|txt))`", re.sub(r"^```.*?^```", "", part, flags=re.M | re.S))
    blocks = re.findall(r"^```\w+\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
    return dict(zip(names, blocks, strict=True))


def orders() -> dict[str, Order]:
    return {
        name: parse(name, text.encode()) for name, text in examples().items() if not name.endswith(".txt")
    }


def test_the_examples_of_orders_are_read():
    """Issuers copy them."""
    assert [order.action for order in orders().values()] == ["block", "unblock", "exempt", "block"]


def test_the_examples_of_orders_are_accepted_together_and_none_is_held(tmp_path: Path):
    """So `seq`, `prev` and the digest of the entries file are those of the texts on the page."""
    (tmp_path / "orders").mkdir()
    for name, text in examples().items():
        (tmp_path / "orders" / name).write_text(text)
    (tmp_path / "dnsblock.yaml").write_text(CONFIG)
    now = datetime(2026, 3, 15, tzinfo=UTC)
    context = Context(load(tmp_path / "dnsblock.yaml"), References(), EMPTY, now)
    intake = examine(tmp_path / "orders", context)
    assert intake.notes == ()
    derived = derive(EMPTY.plus(intake.new), now)
    states = {order.order_id: (order.state, order.in_force) for order in derived.orders}
    assert states == {
        "001/BLOCK/2026": ("partially lifted", 1),
        "002/LIFT/2026": ("active", 0),
        "003/EXEMPT/2026": ("active", 1),
        "17/Pdt/2026": ("active", 2),
    }


def test_every_field_of_an_order_is_documented_with_whether_it_is_required():
    """Issuers write orders from docs/orders.md."""
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]*) ?\|", section(ORDERS, "Fields"), re.MULTILINE)
    documented_fields = {field: required for row, required in rows for field in code(row)}
    assert documented_fields.keys() == {field.alias or name for name, field in Header.model_fields.items()}
    always = {field for field, required in documented_fields.items() if required.strip() == "yes"}
    assert always == {f.alias or name for name, f in Header.model_fields.items() if f.is_required()}


def test_every_state_of_an_order_is_documented():
    """`order list` prints them."""
    assert first_cells(section(ORDERS, "States")) == list(get_args(StateName))


# ------- Links


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_has_a_target(page: Path):
    """A moved file or heading breaks links."""
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = page if not file else (page.parent / file)
        assert linked.exists(), f"{target}: no such file"
        if anchor:
            assert anchor in anchors(linked.read_text()), f"{target}: no such heading"
