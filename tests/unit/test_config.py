"""Settings as an operator writes them (dnsblock/config.py, config/dnsblock.yaml)."""

from ipaddress import IPv4Address, ip_address
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dnsblock.config import BUILT_IN, Config
from dnsblock.config_file import load, load_again
from dnsblock.errors import Refused
from dnsblock.signatures.notes import COSIGNATURE, VerifierKey
from dnsblock.values import Endpoint, system_resolvers

REFERENCE = Path(__file__).parents[2] / "config" / "dnsblock.yaml"
ISSUER_ZONE = "{name: kominfo, issuer: kominfo.go.id, unsigned: accept, answer: nxdomain}"


@pytest.fixture
def resolv_conf(tmp_path: Path) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    return path


@pytest.fixture
def read(tmp_path: Path, resolv_conf: Path):
    def read(text: str) -> Config:
        (tmp_path / "dnsblock.yaml").write_text(text)
        return load(tmp_path / "dnsblock.yaml", resolv_conf)

    return read


@pytest.fixture
def refused(read):
    """The problems of a configuration as `line: text`."""

    def refused(text: str) -> list[str]:
        with pytest.raises(Refused) as caught:
            read(text)
        return [str(problem).partition("dnsblock.yaml:")[2] for problem in caught.value.problems]

    return refused


# ------- The reference file -------


def test_the_reference_file_says_the_defaults(read):
    """House style: config/dnsblock.yaml is the reference for options and equals the defaults."""
    assert read(REFERENCE.read_text()).model_dump() == read("").model_dump()


def test_the_reference_file_names_every_option():
    """House style: what is not in the reference does not exist."""

    def options(model: type[BaseModel]) -> dict[str, Any]:
        return {
            field.alias or name: options(inner) if (inner := _section(field)) else None
            for name, field in model.model_fields.items()
        }

    def keys(value: Any) -> Any:
        return (
            {key: keys(inner) for key, inner in value.items()} if isinstance(value, dict) and value else None
        )

    assert keys(yaml.load(REFERENCE.read_text(), yaml.BaseLoader)) == options(Config)


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a group of options; also of one that may be null, where it is not by default."""
    kinds = [field.annotation]
    if isinstance(field.annotation, UnionType) and field.default is not None:
        kinds = list(get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def test_the_examples_in_the_reference_file_are_valid(read):
    """An operator takes the comment sign away and it works."""
    text = REFERENCE.read_text().replace("answers: {}\n", "answers:\n").replace("zones: []\n", "zones:\n")
    text = text.replace("orders: null", "orders: orders").replace("witnesses: []\n", "witnesses:\n")
    text = text.replace("exports: []\n", "exports:\n").replace("webhooks: []\n", "webhooks:\n")
    text = text.replace("query_counts: null\n", "query_counts:\n")
    text = text.replace("issuers: []\n", "issuers:\n").replace("api: null\n", "api:\n")
    text = text.replace("console: null\n", "console:\n")
    text = text.replace("landing: null\n", "landing:\n")
    text = text.replace("dnstap: null\n", "dnstap:\n")
    lines = [
        "  " + line[3:] if line.startswith("#  ") and ": " in line[:20] else line
        for line in text.splitlines()
    ]
    lines = ["  " + line[3:] if line.startswith("#  - {") else line for line in lines]
    config = read("\n".join(lines))
    assert sorted(config.answers) == ["landing", "sinkhole"]
    assert [issuer.id for issuer in config.issuers] == ["kominfo.go.id"]
    assert config.api is not None
    assert config.console is not None
    assert config.landing is not None
    assert config.dnstap is not None
    assert config.query_counts is not None
    assert [export.origin for export in config.exports] == ["rpz.isp.example"]
    assert [webhook.name for webhook in config.webhooks] == ["kominfo"]
    zones = ["kominfo", "national", "malware", "badnets", "planned", "rpz.example", "trustpositifkominfo"]
    assert [zone.name for zone in config.zones] == zones


# ------- Values -------


def test_an_empty_file_is_all_defaults(read):
    """Every option has a default."""
    config = read("# nothing\n")
    assert [str(endpoint) for endpoint in config.listen] == ["127.0.0.1:53", "[::1]:53"]
    assert [server.address for server in config.upstream.servers] == [Endpoint(IPv4Address("192.0.2.1"), 53)]
    assert str(config.metrics) == "127.0.0.1:9353"
    assert (config.orders, config.zones, config.time_zone.key) == (None, (), "Asia/Jakarta")


def test_relative_paths_are_relative_to_the_file(read, tmp_path: Path):
    """Not to the folder in which the command was started."""
    config = read(
        f"orders: in\nstate: /var/lib/x\ncontrol: ../c.sock\nzones: [{ISSUER_ZONE}, "
        "{name: l, list: lists/l.txt, answer: drop}]"
    )
    assert config.path == tmp_path / "dnsblock.yaml"
    assert config.orders == tmp_path / "in"
    assert config.state == Path("/var/lib/x")
    assert config.control == tmp_path / ".." / "c.sock"
    assert config.zones[1].place == tmp_path / "lists" / "l.txt"


def test_a_zone_says_what_it_is(read):
    """Kind and defaults of a zone follow from its keys."""
    config = read(f"orders: in\nzones: [{ISSUER_ZONE}, {{name: l, list: l.txt, answer: drop}}]")
    orders, plain = config.zones
    assert (orders.kind, orders.issuer, orders.unsigned) == ("orders", "kominfo.go.id", "accept")
    assert (plain.kind, plain.match, plain.unsigned) == ("list", None, "refuse")
    assert (orders.mode, plain.mode) == ("enforce", "enforce")


def test_answers_are_found_by_name(read):
    """Six are built in; a profile's answer says what is sent."""
    config = read("answers: {sinkhole: {action: sinkhole, ipv4: [192.0.2.53], extended_error: 15}}")
    assert config.answer("sinkhole").ipv4 == (IPv4Address("192.0.2.53"),)
    assert (config.answer("sinkhole").ttl, config.answer("sinkhole").extended_error) == (30, "15")
    assert {name: config.answer(name).action for name in BUILT_IN} == {name: name for name in BUILT_IN}
    assert config.answer_names == {*BUILT_IN, "sinkhole"}
    with pytest.raises(KeyError):
        config.answer("sinkhol")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("192.0.2.1", "192.0.2.1:53"),
        ("192.0.2.1:5300", "192.0.2.1:5300"),
        ("2001:db8::53", "[2001:db8::53]:53"),
        ("[2001:db8::1:53]", "[2001:db8::1:53]:53"),
        ("[2001:DB8::1]:5300", "[2001:db8::1]:5300"),
    ],
)
def test_an_upstream_is_an_address_with_or_without_a_port(read, text: str, shown: str):
    """The forms that config/dnsblock.yaml documents."""
    config = read(f'upstream: {{servers: ["{text}"]}}')
    assert [str(server) for server in config.upstream.servers] == [shown]


def test_an_upstream_may_have_a_weight_and_an_order(read):
    """The mapping form that config/dnsblock.yaml documents."""
    servers = "[192.0.2.1, {address: 192.0.2.2, weight: 3}, {address: '[2001:db8::1]:5300', order: 1}]"
    config = read(f"upstream: {{servers: {servers}, selection: hashed}}")
    found = [(str(server), server.weight, server.order) for server in config.upstream.servers]
    assert found == [("192.0.2.1:53", 1, 0), ("192.0.2.2:53", 3, 0), ("[2001:db8::1]:5300", 1, 1)]
    assert config.upstream.selection == "hashed"


def test_health_checks_have_defaults_and_can_be_switched_off(read):
    """`upstream.health_check: null`."""
    check = read("upstream: {health_check: {interval_ms: 200, name: Probe.Example.}}").upstream.health_check
    assert (check.name, check.type, check.interval_ms, check.timeout_ms) == ("probe.example", "NS", 200, 500)
    assert (check.failures, check.successes) == (3, 2)
    assert read("").upstream.health_check.name == "."
    assert read("upstream: {health_check: null}").upstream.health_check is None


def test_the_client_identity_is_one_of_three_words(read):
    """A typing error must not disable client identity forwarding silently."""
    values = ("none", "proxy", "ecs")
    assert read("").upstream.client_identity == "none"
    assert (
        tuple(read(f"upstream: {{client_identity: {v}}}").upstream.client_identity for v in values) == values
    )


@pytest.mark.parametrize(
    "text",
    [
        "resolver.example",
        "192.0.2.1:0",
        "192.0.2.1:99999",
        "192.0.2.1:",
        "192.0.2",
        "192.0.2.１",  # noqa: RUF001
        "::1:53",  # an address, or ::1 and a port?
        "[192.0.2.1]:53",
        "[::1",
        "[]:53",
        "fe80::1%eth0",
        "::ffff:192.0.2.1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "",
    ],
)
def test_an_upstream_that_is_no_server_is_refused(refused, text: str):
    """Names, zones and networks cannot be queried."""
    (problem,) = refused(f'\nupstream:\n  servers: ["192.0.2.9",\n    "{text}"]')
    assert problem.startswith("4: ")
    assert "upstream.servers.1" in problem


# ------- What is refused -------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("lisen: []", "1: 'lisen': unknown key"),
        ("tcp:\n  max_connection: 5", "2: 'max_connection': unknown key (tcp.max_connection)"),
        ("a: 1\na: 2", "2: 'a': this key was already given on line 1"),
        ("workers: 1_0", "1: '1_0': workers: must be a whole number"),
        ("workers: ٣", "1: '٣': workers: must be a whole number"),
        ("workers: 1.0", "1: '1.0': workers: must be a whole number"),
        ("workers:", "1: workers: must be a whole number"),
        ("workers: -1", "1: '-1': workers: must be at least 0"),
        ("udp: {max_payload: 511}", "1: '511': udp.max_payload: must be at least 512"),
        ("udp: {max_payload: 4097}", "1: '4097': udp.max_payload: must be at most 4096"),
        ("upstream: {tries: 0}", "1: '0': upstream.tries: must be at least 1"),
        (
            "upstream:\n  servers:\n  - {address: 192.0.2.1, weight: 101}",
            "3: '101': upstream.servers.0.weight: must be at most 100",
        ),
        (
            "upstream:\n  servers:\n  - {address: 192.0.2.1, order: 64}",
            "3: '64': upstream.servers.0.order: must be at most 63",
        ),
        (
            "upstream:\n  servers:\n  - {address: here}",
            "3: 'here': upstream.servers.0.address: must be an IP address, not a name",
        ),
        (
            "upstream:\n  servers:\n  - {weight: 1}",
            "3: 'upstream.servers.0.address': is required and is missing",
        ),
        (
            "upstream: {health_check: {timeout_ms: 9}}",
            "1: '9': upstream.health_check.timeout_ms: must be at least 10",
        ),
        (
            "upstream: {health_check: {name: a b}}",
            "1: 'a b': upstream.health_check.name: contains a space: write one name, without spaces",
        ),
        (
            "upstream: {health_check: {type: ANY}}",
            "1: 'ANY': upstream.health_check.type: must be A, AAAA, NS, SOA or TXT",
        ),
        ("upstream: {ecs: {ipv4: 33}}", "1: '33': upstream.ecs.ipv4: must be at most 32"),
        (
            "upstream: {client_identity: xpf}",
            "1: 'xpf': upstream.client_identity: must be none, proxy or ecs",
        ),
        ("listen: 127.0.0.1:53", "1: '127.0.0.1:53': listen: must be a list"),
        ("listen: []", "1: listen: must not be empty"),
        (
            "listen: ['127.0.0.1:53',\n'127.0.0.1:53']",
            "2: '127.0.0.1:53': is listed twice",
        ),
        ("access_control:", "1: access_control: must be a mapping of keys and values"),
        (
            "access_control: {allow: [10.0.0.1/8]}",
            "1: '10.0.0.1/8': access_control.allow.0: must be a network such as 192.0.2.0/24, "
            "with no bits set after the prefix",
        ),
        ("access_control: {denied: ignore}", "1: 'ignore': access_control.denied: must be refuse or drop"),
        (
            "soa: {mname: two words.}",
            "1: 'two words.': soa.mname: contains a space: write one name, without spaces",
        ),
        ("state:", "1: state: must be a path"),
        (
            "time_zone: Asia/Djakarta",
            "1: 'Asia/Djakarta': time_zone: unknown time zone (or the tzdata package is not installed)",
        ),
        (
            "time_zone: /etc/passwd",
            "1: '/etc/passwd': time_zone: unknown time zone (or the tzdata package is not installed)",
        ),
        (
            "answers: {X: {action: drop}}",
            "1: 'X': answers.X: must be 1 to 63 lower-case letters, digits, dots, hyphens and underscores",
        ),
        (
            "answers: {drop: {action: drop}}",
            "1: 'drop': this answer profile is built in and cannot be changed",
        ),
        ("answers: {x: {}}", "1: 'answers.x.action': is required and is missing"),
        (
            "answers: {x: {action: sinkhole}}",
            "1: answers.x: a sinkhole needs at least one address: set ipv4, ipv6 or both",
        ),
        (
            "answers: {x: {action: sinkhole, ipv4: ['2001:db8::1']}}",
            "1: '2001:db8::1': answers.x.ipv4.0: must be an IPv4 address",
        ),
        (
            "answers: {x: {action: drop, ipv4: [192.0.2.1]}}",
            "1: answers.x: ipv4 and ipv6 belong to action sinkhole, not drop",
        ),
        (
            "answers: {x: {action: cname}}",
            "1: answers.x: target belongs to action cname, and a cname needs one",
        ),
        (
            "answers: {x: {action: drop, target: a.example}}",
            "1: answers.x: target belongs to action cname, and a cname needs one",
        ),
        ("answers: {x: {action: drop, ttl: 86401}}", "1: '86401': answers.x.ttl: must be at most 86400"),
        (
            "zones: [{name: z, answer: drop}]",
            "1: zones.0: zone z must have one of issuer, list, addresses and rpz",
        ),
        (
            "orders: in\nzones: [{name: z, answer: drop, issuer: i, list: l}]",
            "2: zones.0: zone z must have one of issuer, list, addresses and rpz",
        ),
        (
            "zones: [{name: z, answer: drop, list: l, unsigned: refuse}]",
            "1: zones.0: unsigned belongs to an issuer: a list is not signed",
        ),
        (
            "orders: in\nzones: [{name: z, answer: drop, issuer: i, match: exact}]",
            "2: zones.0: match and source belong to a list: an order says itself what its entries match",
        ),
        (
            "zones: [{name: z, answer: drop, list: l, mode: dark}]",
            "1: 'dark': zones.0.mode: must be enforce or shadow",
        ),
        (
            "zones:\n- {name: z, answer: sinkhole, list: l}",
            "2: 'sinkhole': no such answer profile; "
            "there are drop, nodata, nxdomain, passthru, refused, truncate",
        ),
        (
            "zones:\n- {name: z, answer: drop, list: l}\n- {name: z, answer: drop, list: m}",
            "3: 'z': the zone on line 2 has this name already",
        ),
        (
            "orders: in\nzones:\n- {name: y, answer: drop, issuer: i}\n- {name: z, answer: drop, issuer: i}",
            "4: 'i': the zone on line 3 has this issuer already",
        ),
        ("probes: {servers: []}", "1: probes.servers: must not be empty"),
        (
            "probes:\n  servers: [own, resolver.example]",
            "2: 'resolver.example': probes.servers.1: must be an IP address, not a name",
        ),
        ("probes: {every_s: 9}", "1: '9': probes.every_s: must be at least 10"),
        (
            "probes: {open: [a b]}",
            "1: 'a b': probes.open.0: contains a space: write one name, without spaces",
        ),
        ("zones: [" + "{name: z, answer: drop, list: l}," * 65 + "]", "1: zones: more than 64 items"),
    ],
)
def test_a_wrong_option_is_refused_with_its_line(refused, text: str, problem: str):
    """Any error at start says which file, line, value."""
    assert refused(text) == [problem]


@pytest.mark.parametrize(
    "option",
    ["shrank_percent", "shrank_names", "grew_percent", "grew_names", "rejected_percent"],
)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e2", "+1", "0x1", "1_0", "Auto", "''"])
def test_a_guard_takes_a_plain_number_or_a_word(refused, read, option: str, value: str):
    """No share of a list is more than `nan` percent: such a guard would be off, and look as if it were on."""
    zone = "zones: [{name: z, list: l.txt, answer: nxdomain, source: {guards: {%s: %s}}}]"
    assert any(option in problem for problem in refused(zone % (option, value)))
    for good in ("0", "17", "off"):
        read(zone % (option, good))


def test_every_problem_is_reported_including_those_between_options(refused):
    """`check` prints every problem, not only the first."""
    found = refused(
        "workers: -1\nlisen: []\nzones:\n- {name: z, answer: x, list: l}\nudp: {max_payload: 1}\n"
    )
    assert [problem.partition(":")[0] for problem in found] == ["1", "2", "5", "4"]


def test_a_broken_option_causes_no_second_problem_elsewhere(refused):
    """A zone's answer cannot be judged where the answers could not be read."""
    assert len(refused("answers: {x: {}}\nzones: [{name: z, answer: x, list: l}]")) == 1
    assert len(refused(f"orders: ['']\nzones: [{ISSUER_ZONE}]")) == 1
    assert len(refused("listen: [x]\nupstream: {servers: ['127.0.0.1:53']}")) == 1


@pytest.mark.parametrize(
    ("listen", "server"),
    [
        ("192.0.2.7:53", "192.0.2.7"),
        ("[::1]:53", "::1"),
        ("0.0.0.0:53", "127.0.0.1"),
        ("[::]:53", "[::1]:53"),
    ],
)
def test_an_upstream_that_is_a_listen_address_is_refused(refused, listen: str, server: str):
    """A loop: each query would come back to us until all are lost."""
    (problem,) = refused(f"listen: ['{listen}']\nupstream:\n  servers: ['{server}']")
    assert problem.startswith("3: ")
    assert "a loop" in problem


def test_another_port_of_our_own_address_is_no_loop(read):
    """Unbound beside us on 127.0.0.1, port 5300, is the usual set-up."""
    assert read("listen: ['127.0.0.1:53']\nupstream: {servers: ['127.0.0.1:5300']}").listen


def test_a_socket_path_that_the_kernel_cannot_take_is_refused(refused):
    """unix(7): 108 bytes with the NUL."""
    (problem,) = refused("control: /" + "x" * 107)
    assert "108 bytes" in problem


@pytest.mark.parametrize("text", ["- a", "text", '"', "{", "a: [\x00]"])
def test_a_document_that_is_no_mapping_is_refused(refused, text: str):
    """A file with a list or a text at the top is no configuration."""
    (problem,) = refused(text)
    assert problem.startswith("1: ") or "not valid YAML" in problem


def test_a_file_that_is_missing_is_named(tmp_path: Path):
    """A wrong path is the most frequent mistake."""
    with pytest.raises(Refused, match=r"gone\.yaml: cannot be read: No such file or directory"):
        load(tmp_path / "gone.yaml")


def test_guards_for_orders_have_a_list_and_two_limits(read, refused, tmp_path: Path):
    """The path is relative to the file; `off` is a limit that no order exceeds."""
    assert read("").guards.popular is None
    guards = read("guards: {popular: own.txt, bulk: {entries: off, factor: 3}}").guards
    assert guards.popular == tmp_path / "own.txt"
    assert guards.bulk.entries > 20_000_000
    assert guards.bulk.factor == 3
    for wrong in ("{entries: -1}", "{entries: auto}", "{entries: 1.5}", "{factor: 0}", "{factor: off}"):
        assert refused(f"guards: {{bulk: {wrong}}}")


# ------- The machine's resolvers -------


def test_the_resolvers_of_resolv_conf_are_read_in_order(resolv_conf: Path):
    """resolv.conf(5); an address with a scope cannot be used and is passed over."""
    resolv_conf.write_text(
        "# nameserver 192.0.2.9\nsearch example\noptions edns0\nnameserver\nnameservers 192.0.2.8\n"
        "nameserver fe80::1%eth0\n nameserver\t192.0.2.1 # first\nnameserver 2001:db8::1:53\n"
        "nameserver 192.0.2.1\n"
    )
    assert system_resolvers(resolv_conf) == (
        Endpoint(ip_address("192.0.2.1"), 53),
        Endpoint(ip_address("2001:db8::1:53"), 53),
    )


@pytest.mark.parametrize(
    "text", ["", "search example\n", "nameserver fe80::1%eth0\n", "nameserver resolver\n", None]
)
def test_a_server_without_resolvers_gets_advice(read, resolv_conf: Path, text: str | None):
    """A missing upstream: one line that says what to do."""
    resolv_conf.unlink() if text is None else resolv_conf.write_text(text)
    with pytest.raises(Refused, match=r"list your resolvers in upstream\.servers"):
        system_resolvers(resolv_conf)
    with pytest.raises(Refused, match=r"list your resolvers in upstream\.servers"):
        read("")
    assert read("upstream: {servers: [192.0.2.5]}").upstream.servers


@pytest.mark.parametrize("text", [None, "", "nameserver 192.0.2.085\n", "nameserver fe80::1%eth0\n"])
def test_a_running_daemon_keeps_its_upstreams_if_resolv_conf_names_none(
    read, tmp_path: Path, resolv_conf: Path, text: str | None
):
    """A DHCP client empties /etc/resolv.conf: all else in the configuration is taken over."""
    resolv_conf.write_text("nameserver 192.0.2.1\nnameserver 192.0.2.2\n")
    running = read("upstream: {servers: system}\nworkers: 1\n")
    (tmp_path / "dnsblock.yaml").write_text("upstream: {servers: system}\nworkers: 2\n")
    resolv_conf.unlink() if text is None else resolv_conf.write_text(text)
    config, problems = load_again(running, resolv_conf)
    assert (config.upstream.servers, config.workers) == (running.upstream.servers, 2)
    assert [Path(one.file).name for one in problems] == ["resolv.conf"]
    assert "the previous upstreams stay in use" in problems[0].reason


def test_a_refused_configuration_leaves_the_previous_one_in_force(read, tmp_path: Path, resolv_conf: Path):
    """A slip of the pen in an option takes nothing over, and is named."""
    running = read("workers: 1\n")
    for text in ("workers: many\n", "workers: [\n", "nosuch: 1\n"):
        (tmp_path / "dnsblock.yaml").write_text(text)
        config, problems = load_again(running, resolv_conf)
        assert config is running
        assert problems


# ------- The ledger -------

KEY_DATA = "BAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


def test_options_of_the_ledger_are_read(read, tmp_path: Path):
    """The key of a witness is read with its ID, so a typing error is found at startup."""
    key = VerifierKey("witness.example/w1", COSIGNATURE, bytes(range(32)))
    ledger = read(
        "ledger:\n"
        "  origin: resolver.isp.example/ledger\n"
        "  checkpoints: {folder: seals, url: https://seals.example/a/, authorization: token}\n"
        f"  witnesses: [{{url: https://witness.example, key: {key}}}]\n"
    ).ledger
    assert ledger.origin == "resolver.isp.example/ledger"
    assert ledger.checkpoints.folder == tmp_path / "seals"
    assert ledger.checkpoints.authorization == tmp_path / "token"
    assert ledger.witnesses[0].key == key
    assert str(key) in REFERENCE.read_text(), "the example in the reference is a valid one"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("origin: two words", "without white space"),
        ("origin: a+b", "without +"),
        ("checkpoints: {url: http://seals.example/}", "must be an https:// URL"),
        ("checkpoints: {url: https://user:pw@seals.example/}", "must be an https:// URL"),
        ("checkpoints: {url: https://seals.example:0/}", "port from 1 to 65535"),
        ("checkpoints: {url: https://seals.example/?key=1}", "must be an https:// URL"),
        ("checkpoints: {ca: ca.pem}", "ca and authorization belong to url"),
        ("witnesses: [{url: https://witness.example}]", "key"),
        ("witnesses: [{url: https://witness.example, key: w+00000000+BAAA}]", "not a key"),
        (
            "witnesses: [{url: https://w.example, key: w+00000000+" + KEY_DATA + "}]",
            "is not that of the key",
        ),
    ],
)
def test_unusable_options_of_the_ledger_are_refused(refused, text: str, why: str):
    """With the line and the reason."""
    (problem,) = refused(f"ledger:\n  {text}\n")
    assert why in problem
