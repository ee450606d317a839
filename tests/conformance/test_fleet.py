"""`fleet status` compares what several instances enforce."""

import json
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.https_server import Authority, Server, whole

from . import wire
from .clients import Said
from .issuing import CLIENTS, TOKENS, IssuersApi, Three, by_token, three_instances
from .lists import refresh
from .orders import block
from .scripted_primary import ScriptedPrimary, refuses
from .tools import dnsblock, run
from .transfers import ZONE, blocks, wait_blocked, zone_from
from .upstreams import Asked, MakeUpstream, Script

NO_DAEMON = "/nonexistent/dnsblock.yaml"  # --to needs no configuration


@pytest.fixture
def instances(tmp_path: Path, authority: Authority, client_authority: Authority) -> Iterator[Three]:
    """Three instances with the same clients and the same lists."""
    with three_instances(tmp_path, authority, client_authority) as found:
        yield found


@pytest.fixture
def engineer(tmp_path: Path, authority: Authority) -> "Engineer":
    return Engineer(tmp_path / "engineer", authority.pem)


class Engineer:
    """Somebody with a token who compares instances."""

    def __init__(self, folder: Path, ca: Path) -> None:
        self._folder, self._ca = folder, ca
        folder.mkdir()

    def compare(
        self,
        *to: IssuersApi | str,
        token: str = "reader",
        config: str | Path = NO_DAEMON,
        as_json: bool = True,
    ) -> Said:
        """Runs the command, after a query to each instance, so that none is idle on a slow machine."""
        file = self._folder / "token"
        file.write_text(f"{TOKENS.get(token, token)}\n")
        options = ["-c", str(config), "--token-file", str(file), "--ca", str(self._ca), "--timeout", "60"]
        flags = ["--json"] if as_json else []
        command = [dnsblock(), "fleet", "status", *options, *flags]
        for one in to:
            command += ["--to", one if isinstance(one, str) else use(one)]
        done = run(command, timeout=180, env=os.environ | {"NO_PROXY": "*"})
        assert "Traceback" not in done.stderr, done.stderr
        parsed = json.loads(done.stdout) if as_json and done.stdout.strip() else None
        return Said(done.returncode, parsed, done.stdout, done.stderr)


def use(api: IssuersApi) -> str:
    """Sends a query to an instance, and returns its URL."""
    assert api.subject.query("localhost").rcode == "NOERROR"
    return api.url


def states(said: Said) -> list[str]:
    return [one["state"] for one in said.json["instances"]]


def test_instances_that_enforce_the_same_are_the_same(instances: Three, engineer: Engineer):
    """Exit code 0; each with the digest, serial and time of its snapshot."""
    for api in instances:
        assert api.submit(block("B-1", ["one.example"])).status_code == 201
    urls = [api.url for api in instances]
    said = engineer.compare(*instances)
    assert (said.code, states(said)) == (0, ["same"] * 3), said
    for one, api in zip(said.json["instances"], instances, strict=True):
        status = api.subject.status()
        facts = (status["serial"], status["digest"], status["published_at"])
        assert (one["serial"], one["digest"], one["published_at"]) == facts
        assert (one["url"], one["digest"]) == (api.url, said.json["digest"])
        assert [zone["name"] for zone in one["zones"]] == ["ministry"], (
            "a client sees the zones of its issuers"
        )
    shown = engineer.compare(*instances, as_json=False)
    head, *rows = shown.stdout.splitlines()
    assert head.split() == ["instance", "state", "serial", "digest", "since", "queries/s"]
    digest = said.json["digest"].removeprefix("sha256:")[:12]
    for row, url in zip(rows, urls, strict=True):
        time = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
        assert re.fullmatch(rf"{re.escape(url)} +same +\d+ +{digest} +{time} +\d+\.\d", row), row


def test_an_instance_whose_transfers_have_stopped_differs(instances: Three, engineer: Engineer):
    """A policy zone reaches each instance by zone transfer; one is refused there for a while."""
    base = blocks("one.example")
    with ScriptedPrimary(base) as primary, ScriptedPrimary(base) as refusing:
        for api, server in zip(instances, (primary, primary, refusing), strict=True):
            zones = [*api.config["zones"], zone_from(server.address)]
            api.configure(api.options(), zones=zones)
            api.subject.reload()
            wait_blocked(api.subject, "one.example")
        assert states(engineer.compare(*instances)) == ["same"] * 3
        refusing.rules = {"SOA": refuses(5)}
        for server in (primary, refusing):
            server.publish([*base, *blocks("two.example")])
        for api in instances:
            refresh(api.subject, ZONE)
        said = engineer.compare(*instances)
        assert (said.code, states(said)) == (1, ["same", "same", "differs"]), said
        refusing.rules = {}
        assert refresh(instances[2].subject, ZONE).code == 0
        assert states(engineer.compare(*instances)) == ["same"] * 3


def test_an_instance_without_an_order_differs(instances: Three, engineer: Engineer):
    """Exit code 1 and the zone that differs, until it has the order too. A restart changes nothing."""
    one, two, late = instances
    for api in (one, two):
        assert api.submit(block("B-1", ["one.example"])).status_code == 201
    said = engineer.compare(*instances)
    assert (said.code, states(said)) == (1, ["same", "same", "differs"])
    assert [found["differing_zones"] for found in said.json["instances"]] == [[], [], ["ministry"]]
    shown = engineer.compare(*instances, as_json=False)
    assert (shown.code, shown.stderr) == (1, f"{late.url}: differs in ministry\n")
    unseen = engineer.compare(*instances, token="court", as_json=False)
    assert f"{late.url}: differs in a list, the configuration or the orders of other issuers" in unseen.stderr
    assert late.submit(block("B-1", ["one.example"])).status_code == 201
    two.subject.stop()
    two.subject.launch()
    assert states(engineer.compare(*instances)) == ["same"] * 3


def test_an_instance_that_cannot_be_reached_is_named(instances: Three, engineer: Engineer):
    """Exit code 3; the others are shown."""
    one, two, _ = instances
    gone = two.url
    two.subject.stop()
    said = engineer.compare(one, gone)
    assert (said.code, states(said)) == (3, ["same", "unknown"])
    assert said.json["instances"][1]["error"]
    shown = engineer.compare(one, gone, as_json=False)
    assert (shown.code, shown.stderr.startswith(f"{gone}: ")) == (3, True)
    assert "same" in shown.stdout


@pytest.mark.parametrize(("token", "code"), [("wrong", "UNAUTHENTICATED"), ("old", "FORBIDDEN")])
def test_a_client_without_the_role_is_refused(instances: Three, engineer: Engineer, token: str, code: str):
    """Exit code 4, with the code of the instance; the token is not printed."""
    one, two, _ = instances
    one.know([*CLIENTS, by_token("old", roles=["submit"])])
    one.subject.reload()
    shown = engineer.compare(one, token=token, as_json=False)
    assert (shown.code, f"{one.url}: {code}: " in shown.stderr) == (4, True), shown
    assert TOKENS.get(token, token) not in shown.stdout + shown.stderr
    assert states(engineer.compare(one, two, token=token)) == ["unknown", "unknown"]


def test_the_configuration_names_the_instances(instances: Three, engineer: Engineer):
    """The option `fleet`, without --to; times are in the time zone of the configuration."""
    one, two, three = instances
    config = three.subject.config_path
    none = engineer.compare(config=config, as_json=False)
    assert (none.code, "list them in the option `fleet`" in none.stderr) == (1, True)
    three.configure(three.options(), fleet=[one.url, f"{two.url}/"])
    three.subject.reload()
    use(one)
    use(two)
    said = engineer.compare(config=config)
    assert (said.code, [found["url"] for found in said.json["instances"]]) == (0, [one.url, two.url])
    assert " WIB" in engineer.compare(config=config, as_json=False).stdout


SERVICE = "_dnsblock._tcp.isp.example"


def srv_of(*targets: tuple[str, int]) -> Script:
    """An upstream with these targets of the service, and no other record."""

    def answer(asked: Asked) -> bytes:
        if (asked.name, asked.qtype) != (SERVICE, 33):
            return asked.response()
        data = [struct.pack("!3H", 0, 0, port) + wire.name_to_wire(host) for host, port in targets]
        return asked.response([wire.record(b"\xc0\x0c", 33, rdata) for rdata in data])

    return answer


def test_instances_are_found_by_srv_records(
    instances: Three, engineer: Engineer, make_upstream: MakeUpstream
):
    """RFC 2782: a new instance needs one record, and no change of a configuration."""
    one, two, three = instances
    ports = [int(api.url.rpartition(":")[2]) for api in (one, two)]
    upstream = make_upstream(srv_of(*(("localhost", port) for port in ports)))
    config = three.subject.config_path
    three.configure(three.options(), fleet=[f"srv:{SERVICE}"], upstreams=[upstream.address])
    use(one)
    use(two)
    found = sorted(f"https://localhost:{port}" for port in ports)
    for said in (engineer.compare(config=config), engineer.compare(f"srv:{SERVICE}", config=config)):
        assert (said.code, [each["url"] for each in said.json["instances"]]) == (0, found), said


@pytest.mark.parametrize("targets", [[], [("", 0)]], ids=["no record", "no service"])
def test_a_service_without_targets_is_reported(
    instances: Three, engineer: Engineer, make_upstream: MakeUpstream, targets: list[tuple[str, int]]
):
    """RFC 2782: the target `.` says that there is no such service here."""
    upstream = make_upstream(srv_of(*targets))
    instances[0].configure(instances[0].options(), upstreams=[upstream.address])
    said = engineer.compare(f"srv:{SERVICE}", config=instances[0].subject.config_path, as_json=False)
    assert (said.code, "has no SRV record with a target" in said.stderr) == (4, True), said


SNAPSHOT = {
    "version": "1",
    "serial": 1,
    "digest": "x",
    "published_at": "2026-01-01T00:00:00Z",
    "queries": 0,
    "seconds": 1,
    "zones": [],
}


@pytest.mark.parametrize(
    "answer",
    [
        "<html>",
        [],
        {},
        SNAPSHOT | {"published_at": "soon"},
        SNAPSHOT | {"published_at": "9999-12-31T23:59:59Z"},  # no time of any other time zone
        SNAPSHOT | {"queries": 10**400},
        SNAPSHOT | {"seconds": float("nan")},
        SNAPSHOT | {"digest": "\ud800"},  # not a character
        SNAPSHOT | {"zones": [{}]},
        SNAPSHOT | {"zones": [{"name": "\x1b[2J", "digest": "y"}]},
    ],
    ids=["html", "list", "empty", "time", "end", "queries", "nan", "surrogate", "zone", "control"],
)
def test_a_response_of_something_else_is_reported(
    authority: Authority, instances: Three, engineer: Engineer, answer: object
):
    """Exit code 3, as for an instance that cannot be reached; the others are shown."""
    one, *_ = instances
    body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
    with Server(authority.certificate()) as server:
        url = server.serve(whole(body), "/v1/snapshot").removesuffix("/v1/snapshot")
        said = engineer.compare(one, url)
    assert (said.code, states(said)) == (3, ["same", "unknown"])
    assert "not from dnsblock" in said.json["instances"][1]["error"]


def test_an_answer_may_hold_control_sequences(authority: Authority, engineer: Engineer):
    """They are not sent to the terminal."""
    evil = SNAPSHOT | {"digest": "\x1b[2J"}
    with Server(authority.certificate()) as one, Server(authority.certificate()) as two:
        urls = [
            server.serve(whole(json.dumps(facts).encode()), "/v1/snapshot").removesuffix("/v1/snapshot")
            for server, facts in ((one, evil), (two, SNAPSHOT))
        ]
        shown = engineer.compare(*urls, as_json=False)
    assert shown.code == 1
    assert "\x1b" not in shown.stdout + shown.stderr
