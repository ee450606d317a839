"""Settings for the engine: cookie secrets, RESINFO, structured errors."""

import json
from pathlib import Path

import pytest

from dnsblock._engine import Rules
from dnsblock.config import Config, Resinfo
from dnsblock.config_file import load
from dnsblock.errors import Refused
from dnsblock.policy.engine_settings import engine_rules, read_secrets, resinfo_rdata
from dnsblock.policy.zones import structured_text

FIRST, SECOND = "00112233445566778899aabbccddeeff", "FF" * 16


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    return tmp_path / "cookies"


def write(path: Path, text: str, mode: int = 0o640) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def config(tmp_path: Path, text: str = "") -> Config:
    file = tmp_path / "dnsblock.yaml"
    file.write_text('upstream: {servers: ["192.0.2.1"]}\n' + text)
    return load(file)


def test_secrets_are_read_in_their_order(secrets: Path):
    """RFC 9018 section 5: the first signs, all verify."""
    write(secrets, f"# new\n{FIRST}\n\n  {SECOND}  # until tomorrow\r\n")
    assert read_secrets(secrets) == [bytes.fromhex(FIRST), b"\xff" * 16]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds 0 secrets"),
        ("\n".join([FIRST] * 9), "holds 9 secrets"),
        (FIRST[:-1], "32 hexadecimal digits"),
        (FIRST + "0", "32 hexadecimal digits"),
        (f"{FIRST} {SECOND}", "32 hexadecimal digits"),
        ("g" * 32, "32 hexadecimal digits"),
        (f"{FIRST}\nx\n", "32 hexadecimal digits"),
    ],
)
def test_malformed_secrets_are_refused_and_never_shown(secrets: Path, text: str, reason: str):
    """The message goes to the log: it must not hold the secret."""
    with pytest.raises(Refused) as refused:
        read_secrets(write(secrets, text))
    assert reason in str(refused.value)
    assert FIRST[:8] not in str(refused.value)


def test_secrets_readable_by_others_are_refused(secrets: Path):
    """RFC 7873 section 7.1: the secret makes cookies for any address."""
    with pytest.raises(Refused, match="others may read it"):
        read_secrets(write(secrets, FIRST, 0o644))


def test_each_process_draws_its_own_secret():
    """RFC 7873 section 7.1: at least 64 bits of entropy."""
    assert read_secrets(None) == read_secrets(None)
    assert len(read_secrets(None)[0]) == 16
    assert read_secrets(None) != [bytes(16)]


def test_missing_secrets_are_refused_with_the_file(tmp_path: Path):
    """The operator must see which path is wrong."""
    with pytest.raises(Refused, match="nowhere"):
        read_secrets(config(tmp_path, "cookies: {secrets: nowhere}").cookies.secrets)


def test_the_engine_accepts_the_default_configuration(tmp_path: Path):
    """The engine checks again what it is given: a default beyond its bounds would raise here."""
    assert isinstance(engine_rules(config(tmp_path), [bytes(16)], []), Rules)


def test_resinfo_is_character_strings():
    """RFC 9606 section 4: as in TXT, each behind its length."""
    assert resinfo_rdata(Resinfo()) == b"\x18exterr=0,3-4,13,15-19,22"
    both = resinfo_rdata(Resinfo(infourl="https://isp.example/dns", qnamemin="true"))
    assert both == b"\x08qnamemin\x18exterr=0,3-4,13,15-19,22\x1finfourl=https://isp.example/dns"


def test_structured_text_is_small_and_can_be_left_out(tmp_path: Path):
    """draft-ietf-dnsop-structured-dns-error: minified I-JSON; contacts always, the others where they fit."""
    assert structured_text(config(tmp_path), "order 1") is None
    text = """signals:
  structured_errors: {option: 65023, contacts: ["mailto:noc@isp.example"], organization: "Penyedia é",
    language: id}
"""
    whole, brief = structured_text(config(tmp_path, text), "order 1/2026 of kominfo.go.id") or ("", "")
    assert json.loads(whole) == {
        "c": ["mailto:noc@isp.example"],
        "j": "order 1/2026 of kominfo.go.id",
        "o": "Penyedia é",
        "l": "id",
    }
    assert json.loads(brief) == {"c": ["mailto:noc@isp.example"]}
    assert ": " not in whole


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("limits: {amplification: 2}", "3 or more, or 0"),
        ("limits: {amplification: 1}", "3 or more, or 0"),
        ("limits: {slip: -1}", "must be at least 0"),
        ("limits: {exempt: [127.0.0.1/8]}", "must be a network"),
        ("access_control: {allow: ['::ffff:127.0.0.0/104']}", "write the IPv4 network itself"),
        ("signals: {structured_errors: {option: 10}}", "contacts"),
        (
            "signals: {structured_errors: {option: 10, contacts: ['tel:1'], organization: a, language: id}}",
            "another EDNS option",
        ),
        (
            "signals: {structured_errors: {option: 9999, contacts: [noc], organization: a, language: id}}",
            "must be a tel:",
        ),
        (
            "signals: {structured_errors: {option: 9999, contacts: [], organization: a, language: id}}",
            "empty",
        ),
        (
            "signals: {structured_errors: {option: 9999, contacts: ['tel:1'], organization: a, language: _}}",
            "language tag",
        ),
        ("local: {resinfo: {infourl: 'http://isp.example'}}", "must be an https URL"),
        ("local: {canary: refuse}", "canary"),
        ("zones: [{name: z, addresses: a, answer: drop, targets: ignore}]", "without effect"),
        ("zones: [{name: z, addresses: a, list: l, answer: drop}]", "one of issuer, list, addresses and rpz"),
        ("zones: [{name: z, addresses: a, answer: drop, match: exact}]", "match: belongs to a list of names"),
        (
            "zones: [{name: z, addresses: a, answer: drop, source: {format: csv, column: 2}}]",
            "column, format: belongs",
        ),
        (
            "zones: [{name: z, addresses: a, answer: drop, source: {guards: {public_suffix: accept}}}]",
            "public_suffix: belongs to a list of names",
        ),
        ("zones: [{name: z, issuer: a, answer: drop, source: {}}]", "match and source belong to a list"),
        ("answers: {a: {action: cname, target: '*.'}}", "empty"),
        ("answers: {a: {action: cname, target: 'a.*.b'}}", "a `*` where"),
    ],
)
def test_invalid_signals_are_refused(tmp_path: Path, text: str, reason: str):
    """A typing error in `signals` would be sent to every client."""
    with pytest.raises(Refused) as refused:
        config(tmp_path, text)
    assert reason in str(refused.value)


def test_loading_the_configuration_reads_no_secret(tmp_path: Path):
    """Loading the configuration only resolves the path; the secrets are read later."""
    assert config(tmp_path, "cookies: {secrets: cookies}").cookies.secrets == tmp_path / "cookies"
