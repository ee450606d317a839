"""A configuration or a machine that does not fit: exit code 4, and one line that says what to do."""

import os
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest
from ports import free_port

from .clients import Said
from .harness import ORDERS_ZONE, PROFILES, Subject, is_sinkholed
from .orders import block
from .tools import tool


def only_line(said: Said) -> str:
    """The one line that a refused start says to people."""
    (line,) = said.refusal
    return line


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_in_use_is_named(subject: Subject, family: socket.AddressFamily, kind: socket.SocketKind):
    """One line that says what to do."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family, kind) as taken:
        taken.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        subject.configure(listen=[f"[{host}]:{port}" if ":" in host else f"{host}:{port}"])
        line = only_line(subject.serve_refused())
    assert str(port) in line
    assert "in use" in line


def test_a_second_daemon_on_the_same_port_is_refused(subject: Subject, tmp_path: Path):
    """SO_REUSEPORT would let it in, and each would answer half of the queries."""
    port = free_port()
    subject.start(listen=[f"127.0.0.1:{port}"], orders=[block("B-1", ["blocked.example"])])
    folder = tmp_path / "second"
    folder.mkdir()
    second = Subject(folder)
    second.configure(listen=[f"127.0.0.1:{port}"])
    assert str(port) in only_line(second.serve_refused())
    assert all(is_sinkholed(subject.query("blocked.example")) for _ in range(20))


def test_a_second_daemon_on_the_same_state_is_refused(subject: Subject):
    """Two writers of one ledger would each think to be the only one; the first goes on."""
    subject.start(orders=[block("B-1", ["blocked.example"])])
    only_line(subject.serve_refused())
    assert subject.status()["pid"] == subject.process.pid


def test_a_metrics_port_in_use_is_named(subject: Subject):
    """The operator must see which of the listeners could not be opened."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        subject.configure(metrics=f"127.0.0.1:{port}")
        assert str(port) in only_line(subject.serve_refused())


@pytest.mark.parametrize(
    "servers", [[], ["resolver.example"], ["192.0.2.1:99999"], ["192.0.2.1:0"], ["::1:53"]]
)
def test_invalid_upstreams_are_refused(subject: Subject, servers: list[str]):
    """Without an upstream every name that is not blocked would fail."""
    subject.configure(upstreams=servers)
    line = only_line(subject.serve_refused())
    assert "upstream" in line or "servers" in line or (servers and servers[0] in line)


@pytest.mark.parametrize("option", ["state", "orders"])
def test_a_folder_that_is_a_file_is_named(subject: Subject, option: str):
    """A file where a folder should be stops root too."""
    (subject.folder / "a-file").write_text("")
    subject.configure(**{"inbox" if option == "orders" else option: "a-file"})
    assert "a-file" in only_line(subject.serve_refused())


def test_an_orders_folder_that_is_missing_is_named(subject: Subject):
    """It is not the same as an empty one: a wrong path would unblock everyone."""
    subject.configure(inbox="no-such-folder")
    assert "no-such-folder" in only_line(subject.serve_refused())


# The capabilities by which root reads and writes every file; without them, file permissions apply.
WITHOUT_OVERRIDE = "-dac_override,-dac_read_search"


@pytest.mark.parametrize(("option", "mode"), [("state", 0o500), ("orders", 0o000)])
def test_a_folder_without_rights_is_named(subject: Subject, option: str, mode: int):
    """The operator reads which folder it is, and no traceback."""
    subject.configure()
    closed = subject.folder / option
    closed.mkdir(exist_ok=True)
    closed.chmod(mode)
    if os.geteuid() == 0:
        subject.under = [
            *(tool("setpriv"), f"--bounding-set={WITHOUT_OVERRIDE}", f"--inh-caps={WITHOUT_OVERRIDE}")
        ]
    try:
        assert option in only_line(subject.serve_refused())
    finally:
        closed.chmod(0o700)


def test_a_configuration_that_is_missing_is_named(subject: Subject):
    """A wrong path after `-c` is the most common mistake at the first start."""
    assert "dnsblock.yaml" in only_line(subject.serve_refused())


def test_a_list_that_is_missing_is_named(subject: Subject):
    """A list that cannot be read at start is fatal."""
    subject.configure(zones=[{"name": "malware", "list": "gone.txt", "match": "exact", "answer": "nxdomain"}])
    assert "gone.txt" in only_line(subject.serve_refused())


ZONE = ORDERS_ZONE
LISTED = {"name": "list", "list": "list.txt", "match": "exact", "answer": "nxdomain"}
SINK = PROFILES["sinkhole"]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"lisen": ["127.0.0.1:0"]}, "lisen"),
        ({"tcp": {"max_connection": 5}}, "max_connection"),
        ({"listen": "127.0.0.1:0"}, "listen"),
        ({"listen": []}, "listen"),
        ({"listen": ["localhost:53"]}, "localhost:53"),
        ({"workers": -1}, "workers"),
        ({"workers": "many"}, "many"),
        ({"access_control": {"allow": ["10.0.0.0/33"]}}, "10.0.0.0/33"),
        ({"access_control": {"denied": "ignore"}}, "ignore"),
        ({"udp": {"max_payload": 511}}, "511"),
        ({"udp": {"max_payload": 4097}}, "4097"),
        ({"time_zone": "Asia/Djakarta"}, "Asia/Djakarta"),
        ({"log": {"level": "chatty"}}, "chatty"),
        ({"soa": {"mname": "two words."}}, "two words"),
        ({"answers": {"sinkhole": SINK | {"ipv4": ["2001:db8::53"]}}}, "2001:db8::53"),
        ({"answers": {"sinkhole": SINK | {"ttl": -1}}}, "-1"),
        ({"answers": {"sinkhole": SINK | {"extended_error": 99}}}, "99"),
        ({"answers": {"sinkhole": {"action": "sinkhole"}}}, "sinkhole"),
        ({"answers": {"sinkhole": {"action": "landing"}}}, "landing"),
        ({"zones": [ZONE, ZONE]}, "ministry"),
        ({"zones": [ZONE | {"name": "Ministry of Truth"}]}, "Ministry of Truth"),
        ({"zones": [ZONE | {"answer": "sinkhol"}]}, "sinkhol"),
        ({"zones": [ZONE | {"list": "list.txt"}]}, "list"),
        ({"zones": [ZONE | {"unsigned": "perhaps"}]}, "perhaps"),
        ({"zones": [{"name": "nothing", "answer": "nxdomain"}]}, "nothing"),
        ({"zones": [LISTED | {"match": "regex"}]}, "regex"),
        ({"zones": [LISTED | {"name": f"list-{n}"} for n in range(65)]}, "64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_option_is_named_with_its_line(subject: Subject, config: dict, says: str):
    """Any error says which file, line and value."""
    subject.configure(lists={"list.txt": ["listed.example"]}, **config)
    checked = subject.cli("check")
    assert (checked.code, checked.json["ok"]) == (1, False)
    lines = subject.config_path.read_text().splitlines()
    assert all(Path(problem["file"]).name == "dnsblock.yaml" for problem in checked.problems)
    assert all(1 <= problem["line"] <= len(lines) for problem in checked.problems)
    assert named(checked.problems, [says]) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("workers: 1\nworkers: 2\n", 2),
        ("workers: 1\nlisten: &here ['127.0.0.1:0']\n", 2),
        ("workers: !!int 1\n", 1),
        ("workers: [\n", None),
        ("- workers\n", None),
        ("workers: \x00\n", None),
    ],
)
def test_a_malformed_configuration_is_refused(subject: Subject, text: str, line: int | None):
    """Duplicate keys, anchors and tags say one thing to a person and another to a program."""
    subject.config_path.write_text(text)
    said = only_line(subject.serve_refused())
    assert "dnsblock.yaml" in said
    assert line is None or f"dnsblock.yaml:{line}" in said


def test_check_names_every_wrong_option(subject: Subject):
    """`check` prints every problem, not only the first."""
    subject.configure(
        workers=-1, lisen=["127.0.0.1:0"], udp={"max_payload": 1}, zones=[ORDERS_ZONE | {"answer": "x"}]
    )
    said = subject.cli("check")
    assert said.code == 1
    assert named(said.problems, ["workers", "lisen", "max_payload", "answer"]) == []


def named(problems: list[dict], wanted: Iterable[str]) -> list[str]:
    """The words that no problem mentions."""
    texts = [f"{problem['value']} {problem['reason']}" for problem in problems]
    return [word for word in wanted if not any(word in text for text in texts)]
