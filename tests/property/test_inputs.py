"""Hostile input through lists, the inbox, the state folder and the control socket."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast, get_args
from unittest.mock import patch
from urllib.parse import quote_from_bytes

import httpx
import pytest
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from dnsblock._engine import (
    Answer,
    CompiledList,
    ListRefused,
    ListUnreadable,
    Names,
    PlacedZone,
    PolicyZone,
    Rule,
    Snapshot,
)
from dnsblock.client import Client
from dnsblock.config import Config
from dnsblock.config_file import inspect
from dnsblock.config_zones import Format
from dnsblock.control import control_socket
from dnsblock.errors import DaemonUnreachable, Problem, Refused
from dnsblock.http.api import control_app
from dnsblock.http.events import Streams
from dnsblock.lists.compile import Options
from dnsblock.lists.report import Report
from dnsblock.names import NameRefused, address, canonical
from dnsblock.orders.checkpoint import CheckpointFile
from dnsblock.orders.context import Context
from dnsblock.orders.intake import examine
from dnsblock.orders.orders import EMPTY
from dnsblock.orders.records import sealed
from dnsblock.orders.references import References
from dnsblock.orders.state import derive
from dnsblock.policy import ReadingProgress
from dnsblock.policy.explain import explain
from dnsblock.policy.impact import compile_candidate
from dnsblock.policy.serials import Serials
from dnsblock.policy.snapshot import Policy
from dnsblock.suffixes import public_suffix

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FORMAT_NAMES = [name for name in get_args(Format) if name != "auto"]
CONFIG = Config.model_validate(
    {
        "upstream": {"servers": ["192.0.2.1"]},
        "orders": "orders",
        "zones": [
            {"name": "subtree", "list": "l", "answer": "nxdomain"},
            {"name": "below", "list": "l", "answer": "nxdomain", "match": "below"},
            {"name": "passed", "list": "l", "answer": "passthru", "match": "exact"},
            {"name": "addresses", "addresses": "l", "answer": "nxdomain"},
            {"name": "za", "issuer": "a", "unsigned": "accept", "answer": "nxdomain"},
        ],
    }
)
LISTS = CONFIG.zones[:3]
ADDRESSES = CONFIG.zones[3]
relaxed = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def assert_presentable(refused: Refused) -> None:
    assert refused.problems
    for problem in refused.problems:
        assert problem.reason
        assert str(problem).isprintable()
        assert json.dumps(problem.as_json()).encode()


# ------- Lists

# Names, and the text around them in real lists.
WORDS = [
    *(
        "t.me",
        "a.example",
        "A.EXAMPLE.",
        "b.a.example",
        "é.example",
        "\u0661.example",
        "xn--bcher-kva.example",
    ),
    *("id", "co.id", "x.ck", "example.kawasaki.jp", "192.0.2.1", "0.0.0.0 a.example", "||a.example^"),
    *(
        "*.a.example",
        "http://a.example/",
        "a..b",
        ".",
        "\ufeff",
        "#",
        " # why",
        "\t",
        " ",
        "\r",
        "\0",
        "\x85",
    ),
    *("a" * 63, "b" * 64, ".example"),
]
TEXTS = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([*WORDS, *["\n"] * 20]) | st.text(max_size=2), max_size=30).map(
        lambda words: "".join(words).encode("utf-8", "surrogatepass")
    ),
    st.lists(st.sampled_from(WORDS[:7]), max_size=8).map(lambda names: "\n".join(names).encode()),
)


ANSWER = Answer("nodata", ttl=30)
FORMATS = st.sampled_from([None, *FORMAT_NAMES])


def snapshot_of(zone: PolicyZone) -> Snapshot:
    return Snapshot(
        [PlacedZone(zone, next_change_at=None, judges_targets=True, is_shadow=False, is_list=False)], 1
    )


def compile_text(
    data: bytes, zone: Any, file: Path, format_name: str | None, before: Names | None = None
) -> CompiledList:
    file.write_bytes(data)
    options = replace(Options.of(zone, CONFIG), format=format_name)
    try:
        return options.compile([("f", str(file))], folder=None, before=before, progress=ReadingProgress())
    except ListUnreadable:  # not text
        reject()


@relaxed
@given(TEXTS, st.sampled_from(LISTS), FORMATS)
@example(b"\xff # \xff", LISTS[0], None)
@example("é.example\xa0# co.id".encode(), LISTS[0], "plain")
@example(b"CO.ID. # x", LISTS[1], "plain")
def test_any_bytes_are_a_list(tmp_path: Path, data: bytes, zone: Any, format_name: str | None):
    """Each line is counted once. Each name is canonical, found by lookups, and no public suffix."""
    compiled = compile_text(data, zone, tmp_path / "list", format_name)
    counts = (compiled.accepted, compiled.repaired, compiled.duplicate, compiled.rejected)
    assert sum(counts) + compiled.not_applicable == compiled.lines
    assert compiled.not_applicable == sum(compiled.not_applicable_by.values())
    assert compiled.rejected == sum(compiled.rejected_by.values())
    assert compiled.lines + compiled.silent in (data.count(b"\n"), data.count(b"\n") + 1)
    json.dumps(Report.of(compiled, None).as_json()).encode()
    for finding in Report.of(compiled, None).reported:
        assert_presentable(Refused([finding.problem]))
    nothing = compile_text(b"", zone, tmp_path / "empty", format_name)
    again = compile_text(data, zone, tmp_path / "list", format_name, before=nothing.names)
    lines = again.difference.lines.decode().splitlines()
    assert len(lines) == compiled.names.entries
    rule = Rule(ANSWER)
    listed = snapshot_of(PolicyZone.from_names("z", compiled.names, rule))
    for line in lines:
        sign, scope, name = line.split(" ")
        assert (sign, canonical(name), compiled.names.scope(name)) == ("+", name, scope)
        asked = name if "below" not in scope or len(name) > 240 else f"x.{name}"
        if "except" not in scope and len(name) <= 240:
            assert any(entry.decides for entry in listed.covering(asked))
        assert zone.answer == "passthru" or not public_suffix(name, is_wide=False)


MATCHES = st.sampled_from(["exact", "subtree", "below", "", "other"])
LINES = st.tuples(MATCHES, st.sampled_from(["0", "1", "2", "-1", "x", "9" * 30]), st.sampled_from(WORDS)).map(
    " ".join
)


@given(TEXTS | st.lists(LINES, max_size=6).map(lambda lines: "\n".join(lines).encode()), MATCHES)
def test_any_bytes_are_entries_of_the_engine_or_refused(data: bytes, scope: str):
    """Hostile input: any bytes become entries or an error, never a crash."""
    for compile_zone in (
        lambda: PolicyZone.from_entries("z", [Rule(ANSWER), Rule(None)], data),
        lambda: PolicyZone.from_addresses("z", data, Rule(ANSWER)),
    ):
        try:
            zone = compile_zone()
        except ListRefused as err:
            problems, total = err.args
            assert 0 < len(problems) <= total
            assert_presentable(Refused([Problem("f", *problem) for problem in problems]))
        else:
            assert zone.entries <= data.count(b"\n") + 1


@given(TEXTS)
def test_any_text_can_be_looked_up_as_a_name(data: bytes):
    """A text that is not a name is a `ValueError`, never a crash."""
    listed = snapshot_of(PolicyZone.from_entries("z", [Rule(ANSWER)], b"subtree 0 a.example"))
    with contextlib.suppress(ValueError):
        assert len(listed.covering(data.decode(errors="replace"))) <= 1


PREFIXES = st.sampled_from(["192.0.2.1", "198.51.100.0/24", "2001:db8::/32", "::/0", "1.2.3.4/24", "#x", "é"])


@relaxed
@given(TEXTS | st.lists(PREFIXES, max_size=5).map(lambda lines: "\n".join(lines).encode()))
def test_any_bytes_are_a_list_of_addresses(tmp_path: Path, data: bytes):
    """Each line is counted once, as in a list of names."""
    compiled = compile_text(data, ADDRESSES, tmp_path / "list", "addresses")
    counts = (compiled.accepted, compiled.repaired, compiled.duplicate, compiled.rejected)
    assert sum(counts) == compiled.lines
    assert compiled.lines + compiled.silent in (data.count(b"\n"), data.count(b"\n") + 1)
    json.dumps(Report.of(compiled, None).as_json()).encode()
    for finding in Report.of(compiled, None).reported:
        assert_presentable(Refused([finding.problem]))


# ------- The inbox

FILE_NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20).map(
    lambda name: name.encode("utf-8", "surrogateescape" if name.isascii() else "replace") + b".yaml"
)
ORDERS = st.sampled_from(
    [
        "schema: dnsblock.order/1\nissued_at: 2017-07-14T11:30:00Z\n"
        f"issuer: {issuer}\norder_id: {number}\n{rest}\nend: {number}\n"
        for issuer in ("a", "b", "c c")
        for number in ("1", "2")
        for rest in (
            *("action: block\nentries: [t.me]", "action: exempt\nentries: [{name: t.me, match: below}]"),
            *("action: block\nentries: [co.id]", "action: unblock\ntargets: [{order_id: 1, entries: all}]"),
            "action: unblock\ntargets: [{order_id: 1, entries: [t.me, b.example]}]\nseq: 2",
            f"action: block\nseq: 1\nentries_file: {{path: x.txt, sha256: {'0' * 64}, lines: 1}}",
        )
    ]
)


@relaxed
@given(st.data())
def test_any_inbox_is_accepted_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    """The name of a file is as hostile as its content."""
    inbox = tmp_path_factory.mktemp("inbox")
    contents = ORDERS.map(str.encode) | st.binary(max_size=40)
    for name, content in data.draw(st.dictionaries(FILE_NAMES, contents, max_size=5)).items():
        (Path(bytes(inbox).decode()) / name.decode("utf-8", "surrogateescape")).write_bytes(content)
    intake = examine(inbox, Context(CONFIG, References(), EMPTY, NOW))
    for one in intake.refused:
        assert_presentable(Refused(one.problems))
    assert all(note.isprintable() for note in intake.notes)


@relaxed
@given(st.lists(ORDERS, max_size=6, unique=True), st.randoms())
def test_the_names_of_the_files_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], random: Random
):
    """The accepted orders and their sequence depend only on the documents."""
    taken = []
    for _ in range(2):
        inbox = tmp_path_factory.mktemp("inbox")
        for number, text in enumerate(texts):
            (inbox / f"{number}.yaml").write_text(text)
        intake = examine(inbox, Context(CONFIG, References(), EMPTY, NOW))
        refused = sorted(Path(one.file).read_text() for one in intake.refused)
        taken.append(([order.sha256 for order in intake.new], refused))
        random.shuffle(texts)
    assert taken[0] == taken[1]


@relaxed
@given(
    TEXTS | ORDERS.map(str.encode),
    st.sampled_from(["f.txt", "f", "f.YAML", "f.json"]),
    st.sampled_from([None, "exact", "subtree", "below"]),
)
@example(b"a.example\n\xff", "f.txt", None)
def test_any_bytes_are_measured_by_impact_or_refused(data: bytes, file: str, match: Any):
    """The file extension decides between an order and a list. Every candidate has a name."""
    try:
        compiled = compile_candidate(file, data, match, CONFIG)
    except Refused as refused:
        assert_presentable(refused)
        return
    assert compiled.zone.entries > 0
    assert match is None or file in {"f.txt", "f"}


# ------- The state folder

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
CHECKPOINTS = st.one_of(
    st.binary(max_size=60),
    JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        dict.fromkeys(("ledger", "serial", "digest_of_content", "reserved", "at"), JSON_VALUES)
    ).map(sealed),
)
WHOLE = {"ledger": None, "serial": 7, "digest_of_content": "", "reserved": None, "at": "2026-01-01T00:00:00Z"}


@relaxed
@given(data=CHECKPOINTS)
@example(data=sealed(WHOLE))
@example(data=sealed(WHOLE | {"serial": -1}))
@example(data=sealed(WHOLE | {"serial": 4294967296}))
@example(data=sealed(WHOLE | {"serial": 4294967295}))
@example(data=sealed(WHOLE | {"reserved": [1]}))
@example(data=sealed(WHOLE | {"reserved": [4294967295, 4294967295]}))
@example(data=sealed(WHOLE | {"at": "0001-01-01T00:00:00+14:00"}))
@example(data=sealed(WHOLE | {"ledger": {"records": 0, "last": None}}))
@example(data=b"[" * 100_000)
@example(data=b'{"serial": ' + b"9" * 5000 + b', "digest": ""}')
def test_any_bytes_are_a_checkpoint_or_corrupt(tmp_path: Path, data: bytes):
    """Any file content: a serial that a snapshot can have, or an empty checkpoint."""
    (tmp_path / "checkpoint.json").write_bytes(data)
    file = CheckpointFile(tmp_path)
    assert (file.content is None) == file.is_corrupt
    serials = Serials(file)
    try:
        following = serials.next("of something else")
    except Refused as refused:
        assert_presentable(refused)
        return
    assert Snapshot([], following).serial == following > serials.serial


# ------- The configuration, as commands read it


@relaxed
@given(data=st.binary(max_size=60) | JSON_VALUES.map(lambda value: json.dumps({"control": value}).encode()))
def test_any_bytes_name_a_control_socket_or_are_refused(tmp_path: Path, data: bytes):
    """A path in a configuration may contain anything."""
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    path = tmp_path / "c.yaml"
    path.write_bytes(data)
    _, problems = inspect(path, tmp_path / "resolv.conf")
    assert all(str(problem).isprintable() for problem in problems)
    try:
        assert control_socket(path).is_absolute()
    except Refused as refused:
        assert_presentable(refused)


# ------- The control socket

POLICY = Policy(
    snapshot_of(PolicyZone.from_entries("subtree", [Rule(ANSWER)], b"subtree 0 t.me")),
    *((), derive(EMPTY, NOW), NOW),
)
ASKED = SimpleNamespace(
    config=CONFIG,
    explain=lambda target, client: explain(target, POLICY, CONFIG, client),
    scheduled=lambda name: [],
    publisher=SimpleNamespace(
        recorder=SimpleNamespace(now=lambda: NOW, ledger=SimpleNamespace(orders=EMPTY))
    ),
)
ASKED.view = lambda by: ASKED
APP = control_app(cast(Any, ASKED), Streams(), lambda _: None)


def request(method: str, path: str, query: bytes) -> tuple[int, bytes]:
    """Status and body of the response. Exceptions of the application are raised."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": []}
    scope |= {"query_string": query, "http_version": "1.1", "scheme": "http", "root_path": ""}
    scope |= {"state": {"peer_uid": 0}}
    asyncio.run(APP(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@contextlib.contextmanager
def answering(status: int, body: bytes) -> Iterator[Client]:
    """A client of a server that sent its whole response before the request."""
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        patch("dnsblock.endpoints.SocketConnection.connect", lambda self: setattr(self, "sock", ours)),
    ):
        theirs.sendall(b"HTTP/1.1 %d It\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        yield Client(Path("s"))


QUERIES = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(lambda text: b"name=" + text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=60).map(lambda name: b"name=" + quote_from_bytes(name).encode()),
    st.sampled_from(WORDS).map(lambda name: b"name=" + quote_from_bytes(name.encode()).encode()),
)


@relaxed
@given(QUERIES)
@example(b"name=" + b"a" * 1025)
@example(b"name=t.me&name=%00")
@example(b"name=0.0.0.0")
@example(b"name=fe80::1%25eth0")
@example(b"name=%ed%a0%80")
@example(b"name=0.0.0.0")
@example(b"name=::ffff:192.0.2.1")
@example(b"name=fe80::1%25eth0")
@example(b"name=::1%25%1b")
def test_any_bytes_sent_to_why_are_answered_or_refused(query: bytes):
    """Hostile input on the control socket gets a result or a reason, never an internal error."""
    status, body = request("GET", "/v1/why", query)
    answer = json.loads(body)
    assert status in (200, 400, 422)
    assert (status == 200) == ("verdict" in answer)


@relaxed
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "x"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(lambda path: "/v1/" + path),
    st.binary(max_size=20),
)
def test_any_other_path_is_not_found(method: str, path: str, query: bytes):
    """The control API has no undocumented path."""
    status, _ = request(method, path + "-", query)
    assert status in (404, 405)


@relaxed
@given(st.text(max_size=300))
def test_any_text_sent_to_the_daemon_is_a_name_or_refused(name: str):
    """The command line passes its arguments on unchanged."""
    try:
        expected = 200 if address(name) or canonical(name) else 400
    except NameRefused:
        expected = 400
    encoded = str(httpx.QueryParams({"name": name.encode("utf-8", "replace").decode()})).encode()
    assert request("GET", "/v1/why", encoded)[0] == expected


@pytest.mark.parametrize(
    ("path", "query", "word"),
    [
        ("/v1/why", b"name=a.example&at=yesterday", "2017-08-10"),
        ("/v1/why", b"", "name"),
        ("/v1/diff", b"a=1&b=x", "b: must be a whole number"),
        ("/v1/rollback", b"serial=1&reason=", "reason"),
    ],
)
def test_an_invalid_request_is_refused_with_a_reason(path: str, query: bytes, word: str):
    """A command of another version gets the reason, not the message that no daemon runs."""
    status, body = request("POST" if "rollback" in path else "GET", path, query)
    with answering(status, body) as client, pytest.raises(Refused, match=word) as caught:
        client.status()
    assert str(caught.value).isprintable()


ANSWERS = st.one_of(
    st.binary(max_size=60),
    JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(["problems", "reason", "serial"]), JSON_VALUES).map(
        lambda value: json.dumps(value).encode()
    ),
    JSON_VALUES.map(lambda value: json.dumps({"problems": [{"file": value, "line": value}]}).encode()),
)


@relaxed
@given(ANSWERS, st.sampled_from([200, 204, 301, 400, 409, 500]))
@example(b"5", 409)
@example(b"[]", 200)
@example(b'{"problems": 5}', 409)
@example(b'{"problems": [{"file": 1, "line": "x", "value": [], "reason": {}}]}', 409)
@example(b"[" * 100_000, 200)
def test_any_response_on_the_control_socket_is_understood_or_rejected(content: bytes, status: int):
    """Another program may listen on the path of the control socket."""
    with answering(status, content) as client:
        try:
            assert isinstance(client.status(), dict)
        except DaemonUnreachable:
            pass
        except Refused as refused:
            for problem in refused.problems:
                assert isinstance(problem, Problem)
                assert str(problem).isprintable()
