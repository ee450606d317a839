"""The file of an issuer's keys: read as ssh-keygen reads it, with advice about lines that do not count."""

from datetime import UTC, datetime

import pytest

from dnsblock.errors import Refused
from dnsblock.signatures.allowed_signers import AllowedSigners, SignerLine
from dnsblock.signatures.patterns import is_match
from dnsblock.signatures.public_key import PublicKey

from .ssh_keys import KINDS, ORDER, make_key

KEY, OTHER = make_key(), make_key("ecdsa-sha2-nistp384")
NOW = datetime(2026, 7, 14, tzinfo=UTC)


def parse(*lines: str) -> AllowedSigners:
    return AllowedSigners.parse("kominfo.allowed_signers", "".join(f"{line}\n" for line in lines).encode())


def public(key: object) -> PublicKey:
    return PublicKey.from_blob(key.blob)


# ------- Lines that count


def test_each_part_of_a_line_is_read():
    """ALLOWED SIGNERS in ssh-keygen(1)."""
    options = 'namespaces="git,dnsblock-*",valid-after="20260101Z",valid-before="202612312359Z"'
    signers = parse("# the officers of 2026", "", f"budi,b*  {options} {KEY.public_line} a comment")
    [line] = signers.lines
    assert signers.problems == ()
    assert line.key == public(KEY)
    assert (line.principals, line.names, line.namespaces) == ("budi,b*", ("budi", "b*"), "git,dnsblock-*")
    assert line.valid_after == datetime(2026, 1, 1, tzinfo=UTC)
    assert line.valid_before == datetime(2026, 12, 31, 23, 59, tzinfo=UTC)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_each_algorithm_is_read_and_written_as_it_was(kind: str):
    """Fingerprint and line are those of ssh-keygen: an officer compares them by telephone."""
    key = make_key(kind)
    [line] = parse(f"budi {key.public_line}").lines
    assert line.key.fingerprint == key.fingerprint
    assert line.key.line() == key.public_line
    assert line.key.is_token is kind.startswith("sk-")


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("budi", ("budi",)),
        ("budi,sari", ("budi", "sari")),
        ("*@kominfo.go.id,!tamu@*", ("*@kominfo.go.id",)),
        ("budi,sari,!s*", ("budi",)),
        ('"Budi Santoso"', ("Budi Santoso",)),
        ('Budi" Santoso"', ("Budi Santoso",)),
        ("b\u00fcdi", ("b\u00fcdi",)),
    ],
)
def test_principals_may_be_lists_patterns_and_quoted(written: str, names: tuple[str, ...]):
    """Roles are given to these names, so a name that a negation excludes is not one."""
    [line] = parse(f"{written} {KEY.public_line}").lines
    assert line.names == names


def test_a_file_from_windows_counts():
    """ssh-keygen ignores the carriage return, too."""
    signers = AllowedSigners.parse("f", f"# \xff\r\nbudi {KEY.public_line}\r\n".encode("latin-1"))
    assert [line.names for line in signers.lines] == [("budi",)]
    assert signers.problems == ()


def test_the_first_line_that_fits_gives_the_principal():
    """As `ssh-keygen -Y find-principals`."""
    signers = parse(
        f'old valid-before="20260101Z" {KEY.public_line}',
        f"budi {KEY.public_line}",
        f"sari {KEY.public_line}",
    )
    found = signers.find(public(KEY), ORDER, NOW)
    assert isinstance(found, SignerLine)
    assert found.names == ("budi",)
    sari = signers.find(public(KEY), ORDER, NOW, principal="sari")
    assert isinstance(sari, SignerLine)
    assert sari.names == ("sari",)
    assert signers.find(public(KEY), ORDER, NOW, principal="tamu") == "UNKNOWN_KEY"


# ------- Lines that do not


DOES_NOT_COUNT = {
    "budi": ("budi", "the key is missing"),
    "budi {key_type}": ("ssh-ed25519", "the key is missing"),
    "budi ssh-ed25519 AAAA": ("AAAA", "invalid key: it ends too early: copy it again from the .pub file"),
    "budi ssh-rsa {blob}": ("AAAAC3", "but the type of the key is ssh-ed25519"),
    "budi ssh-dss AAAAB3NzaC1kc3MAAAAA": (
        "ssh-dss",
        "not accepted: make a key with `ssh-keygen",
    ),
    "budi cert-authority {key}": ("cert-authority", "certificates are not supported"),
    "budi no-touch-required {key}": ("no-touch-required", "unknown option: namespaces"),
    "budi namespaces {key}": ("namespaces", 'needs a value in quotation marks: namespaces="…"'),
    "budi namespaces=git {key}": ("=git", "not an option"),
    'budi namespaces="git {key}': ("namespaces=", 'add the second "'),
    '"budi {key}': ('"budi', 'add the second "'),
    'budi namespaces="a",namespaces="b" {key}': ("namespaces", "given twice"),
    'budi namespaces="a", {key}': ('namespaces="a",', "end with a comma"),
    'budi valid-after="2026-01-01" {key}': ("2026-01-01", "write YYYYMMDDZ"),
    'budi valid-after="20260230Z" {key}': ("20260230Z", "write YYYYMMDDZ"),
    'budi valid-after="19700101Z" {key}': ("19700101Z", "not a time after 1970"),
    'budi valid-after="00010101" {key}': ("00010101", "not a time after 1970"),
    'budi valid-after="20270101Z",valid-before="20260101Z" {key}': (
        "valid-after=",
        "the key would never count",
    ),
    "!budi {key}": ("!budi", "nobody can be this principal"),
    "budi,!budi {key}": ("budi,!budi", "nobody can be this principal"),
    "\ufeffbudi {key}": ("\\ufeffbudi", "invisible characters"),
    "budi\0 {key}": ("budi\\x00", "control characters"),
}


@pytest.mark.parametrize("written", DOES_NOT_COUNT)
def test_a_line_that_does_not_count_is_a_problem_with_advice(written: str):
    """ssh-keygen skips such a line. The operator must see it before an officer's order is refused."""
    value, reason = DOES_NOT_COUNT[written]
    line = written.format(key=KEY.public_line, key_type=KEY.kind, blob=KEY.public_line.split()[1])
    signers = parse(f"sari {OTHER.public_line}", line)
    assert [one.names for one in signers.lines] == [("sari",)]
    [problem] = signers.problems
    assert (problem.file, problem.line) == ("kominfo.allowed_signers", 2)
    assert problem.as_json()["value"].startswith(value)
    assert reason in problem.reason


def test_a_principal_in_another_encoding_is_a_problem():
    """Roles are compared with the configuration, which is UTF-8."""
    [problem] = AllowedSigners.parse("f", b"b\xfcdi " + KEY.public_line.encode()).problems
    assert "save the file as UTF-8" in problem.reason


def test_a_garbage_file_has_a_limited_number_of_problems():
    """A wrong file in the configuration must not fill the log."""
    signers = AllowedSigners.parse("f", b"garbage\n" * 5000)
    assert len(signers.problems) == 101
    assert "4,900 more" in signers.problems[-1].reason


# ------- Patterns


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("budi", "budi", True),
        ("budi", "BUDI", False),
        ("budi", "b*i", True),
        ("budi", "b?di", True),
        ("budi", "?", False),
        ("", "*", True),
        ("budi", "*b*u*d*i*", True),
        ("budi", "*x*", False),
        ("budi", "!budi,*", False),
        ("budi", "*,!b*", False),
        ("budi", "!sari", False),
        ("budi", "x" * 1023 + ",budi", False),
        ("budi", "", False),
    ],
)
def test_patterns_match_as_in_openssh(name: str, patterns: str, expected: bool):
    """PATTERNS in ssh_config(5)."""
    assert is_match(name, patterns) is expected


def test_no_pattern_takes_long():
    """A recursive matcher, such as that of OpenSSH, takes exponential time for this one."""
    assert not is_match("a" * 1000, "*a" * 200 + "b")


# ------- Rotation


def test_a_rotation_replaces_a_key():
    """The new file is what ssh-keygen needs to verify later orders."""
    signers = parse("# comment", f"budi {KEY.public_line}", f"sari {OTHER.public_line}")
    new = make_key()
    rotated = signers.with_changes([f'budi valid-after="20260714Z" {new.public_line}'], [KEY.fingerprint])
    assert rotated.find(public(KEY), ORDER, NOW) == "UNKNOWN_KEY"
    assert isinstance(rotated.find(public(new), ORDER, NOW), SignerLine)
    assert isinstance(signers.find(public(KEY), ORDER, NOW), SignerLine)
    expected = f'sari {OTHER.public_line}\nbudi valid-after="20260714Z" {new.public_line}\n'
    assert rotated.as_bytes().decode() == expected
    assert AllowedSigners.parse(signers.file, rotated.as_bytes()) == rotated


@pytest.mark.parametrize(
    ("add", "remove", "reason"),
    [
        (["budi garbage"], [], "the key is missing"),
        ([f"budi {OTHER.public_line}\nsari x"], [], "control characters"),
        ([f"sari {KEY.public_line}"], [], "has this key already"),
        ([], ["SHA256:unknown"], "the issuer has no such key; it has SHA256:"),
        ([], [KEY.fingerprint], "no key would remain"),
    ],
)
def test_a_rotation_that_is_wrong_changes_nothing(add: list[str], remove: list[str], reason: str):
    """A wrong rotation could lock out all officers of the issuer, and with them every unblock order."""
    signers = parse(f"budi {KEY.public_line}")
    with pytest.raises(Refused) as refused:
        signers.with_changes(add, remove, file="order.yaml")
    [problem] = refused.value.problems
    assert problem.file == "order.yaml"
    assert reason in problem.reason


def test_all_problems_of_a_rotation_are_reported():
    """One document, one round of corrections."""
    with pytest.raises(Refused) as refused:
        parse(f"budi {KEY.public_line}").with_changes(["x", "y"], ["SHA256:a"])
    assert len(refused.value.problems) == 3
