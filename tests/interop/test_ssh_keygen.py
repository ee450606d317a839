"""`ssh-keygen -Y verify` and our verification agree: on good signatures, and on bad ones of every kind."""

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from unit.ssh_keys import KINDS, ORDER, Key, make_key

from dnsblock.signatures.allowed_signers import AllowedSigners, SignerLine
from dnsblock.signatures.verify import verify

NOW = datetime(2026, 7, 14, 4, 30, tzinfo=UTC)
JAKARTA = timedelta(hours=7)
OFFICER = "budi@kominfo.go.id"
DOCUMENT = b"schema: dnsblock.order/1\nissuer: kominfo.go.id\norder_id: 84/2017\nend: 84/2017\n"
CASES_OF_A_KIND = 84  # of twelve kinds: a thousand in all
SEED = 84_2017


@dataclass(frozen=True)
class Case:
    """A document, one signature and the keys: both programs decide whether the signature counts."""

    allowed: str
    signature: bytes
    is_good: bool | None = None  # None: the test leaves it to ssh-keygen
    document: bytes = DOCUMENT
    principal: str = OFFICER
    at: datetime = NOW


@pytest.fixture(scope="module", autouse=True)
def _jakarta() -> Iterator[None]:
    """Times without `Z` are local, in both programs: the time zone must not be UTC."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Jakarta")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture(scope="module")
def keys() -> dict[str, Key]:
    return {kind: make_key(kind) for kind in KINDS}


def ssh_keygen(folder: Path, case: Case) -> bool:
    """The verdict of ssh-keygen."""
    (folder / "allowed").write_bytes(case.allowed.encode())
    (folder / "sig").write_bytes(case.signature)
    at = f"-Overify-time={case.at:%Y%m%d%H%M%S}Z"
    command = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        "allowed",
        "-I",
        case.principal,
        "-n",
        ORDER,
        "-s",
        "sig",
        at,
    ]
    done = subprocess.run(command, cwd=folder, input=case.document, capture_output=True, timeout=60)
    assert done.returncode in (0, 255), done.stderr
    return done.returncode == 0


def ours(case: Case) -> bool:
    """The verdict of dnsblock about the same principal."""
    signers = AllowedSigners.parse("allowed", case.allowed.encode())
    found, _ = verify(case.document, case.signature, signers, case.at)
    return any(
        isinstance(signers.find(line.key, ORDER, case.at, principal=case.principal), SignerLine)
        for line in signers.lines
        if line.key.fingerprint in {signer.fingerprint for signer in found}
    )


# ------- They agree ---------------------------------------------------------------------

KINDS_OF_CASES = (
    *("good", "altered_document", "altered_signature", "ignored_fields", "other_namespace", "unknown_key"),
    *("validity", "swapped", "truncated", "principals", "namespaces", "lines"),
)
EXPECTED = {
    "good": {True},
    **{kind: {True, False} for kind in ("validity", "principals", "namespaces", "lines")},
}


@pytest.mark.parametrize("kind", KINDS_OF_CASES)
def test_both_say_the_same_of_a_thousand_signatures(tmp_path: Path, keys: dict[str, Key], kind: str):
    """A court that verifies with ssh-keygen alone must come to our verdict, whatever an attacker sends."""
    cases = Cases(list(keys.values()), random.Random(f"{SEED} {kind}"))
    verdicts = set()
    for number in range(CASES_OF_A_KIND):
        case: Case = getattr(cases, kind)()
        verdict = ssh_keygen(tmp_path, case)
        assert ours(case) == verdict, f"case {number}: ssh-keygen says {verdict}: {case}"
        assert case.is_good in (None, verdict), f"case {number} is not as the test means it: {case}"
        verdicts.add(verdict)
    assert verdicts >= EXPECTED.get(kind, {False}), "the cases are not what they should be"


@pytest.mark.parametrize("seed", range(12))
def test_each_signature_of_a_file_counts_as_ssh_keygen_says_and_each_key_once(
    tmp_path: Path, keys: dict[str, Key], seed: int
):
    """Two officers sign one document; ssh-keygen reads only the first signature of a file."""
    cases = Cases(list(keys.values()), random.Random(seed))
    signers = [(f"officer{number}", key) for number, key in enumerate(keys.values())]
    allowed = "".join(_line(key, who=who) for who, key in signers)
    signatures, good = [], []
    for _ in range(cases.rnd.randint(2, 8)):
        who, key = cases.rnd.choice(signers)
        signatures.append(cases.sign(key, cases.rnd.choice([DOCUMENT, DOCUMENT, b"another document"])))
        if ssh_keygen(tmp_path, Case(allowed, signatures[-1], principal=who)):
            good.append((who, key.fingerprint))
    found, problems = verify(DOCUMENT, b"".join(signatures), AllowedSigners.parse("f", allowed.encode()), NOW)
    assert [(one.principal, one.fingerprint) for one in found] == list(dict.fromkeys(good))
    assert len(problems) == len(signatures) - len(found)
    assert [one.code for one in problems].count("DUPLICATE_SIGNER") == len(good) - len(found)


# ------- Where dnsblock is stricter -----------------------------------------------------


def _with_larger_s(key: Key) -> bytes:
    """The same Ed25519 signature, with the group order added to S: not allowed by RFC 8032, section 5.1.7."""
    order = 2**252 + 27742317777372353535851937790883648493

    def change(blob: bytes) -> bytes:
        s = int.from_bytes(blob[-32:], "little") + order
        return blob[:-32] + s.to_bytes(32, "little")

    return key.sign(DOCUMENT, change=change)


STRICTER: dict[str, Callable[[dict[str, Key]], tuple[str, bytes]]] = {
    "a token that nobody touched": lambda keys: (
        _line(keys["sk-ssh-ed25519@openssh.com"]),
        keys["sk-ssh-ed25519@openssh.com"].sign(DOCUMENT, flags=0),
    ),
    "an RSA key of 1,024 bits": lambda _: (_line(key := make_key("ssh-rsa", bits=1024)), key.sign(DOCUMENT)),
    "S above the group order": lambda keys: (_line(keys["ssh-ed25519"]), _with_larger_s(keys["ssh-ed25519"])),
    "text after the signature": lambda keys: (
        _line(keys["ssh-ed25519"]),
        keys["ssh-ed25519"].sign(DOCUMENT)[:-1] + b" \n",
    ),
    "a space in the Base64": lambda keys: (
        _line(keys["ssh-ed25519"]),
        keys["ssh-ed25519"].sign(DOCUMENT).replace(b"U1N", b"U 1N"),
    ),
    "a date that does not exist": lambda keys: (
        _line(keys["ssh-ed25519"], 'valid-after="20260231"'),
        keys["ssh-ed25519"].sign(DOCUMENT),
    ),
    "a principal with an invisible character": lambda keys: (
        _line(keys["ssh-ed25519"], who=f"{OFFICER},\u200b"),
        keys["ssh-ed25519"].sign(DOCUMENT),
    ),
}


@pytest.mark.parametrize("what", STRICTER)
def test_dnsblock_refuses_more_than_ssh_keygen_only_where_documented(
    tmp_path: Path, keys: dict[str, Key], what: str
):
    """docs/signatures.md lists these differences: each is a signature that only ssh-keygen accepts."""
    allowed, signature = STRICTER[what](keys)
    case = Case(allowed, signature)
    assert ssh_keygen(tmp_path, case)
    assert not ours(case)


# ------- The cases ----------------------------------------------------------------------


class Cases:
    """Generates cases of each kind, with keys of all algorithms."""

    def __init__(self, keys: list[Key], rnd: random.Random) -> None:
        self.keys = keys
        self.rnd = rnd

    def key(self) -> Key:
        return self.rnd.choice(self.keys)

    def two_keys(self) -> list[Key]:
        return self.rnd.sample(self.keys, 2)

    def sign(self, key: Key, document: bytes = DOCUMENT, namespace: str = ORDER, **options: object) -> bytes:
        """With options that are all valid."""
        return key.sign(
            document,
            namespace,
            hashed=self.rnd.choice(["sha256", "sha512"]),
            rsa_kind=self.rnd.choice(["rsa-sha2-256", "rsa-sha2-512"]),
            flags=self.rnd.choice([0x01, 0x05]),  # touched; with a PIN, too
            counter=self.rnd.randrange(1 << 32),
            **options,
        )

    def good(self) -> Case:
        key = self.key()
        document = self.rnd.randbytes(self.rnd.choice([0, 1, 63, 64, 4096]))
        return Case(_line(key), self.sign(key, document), True, document)

    def altered_document(self) -> Case:
        """One bit, or one byte more or less."""
        key, at = self.key(), self.rnd.randrange(len(DOCUMENT))
        flipped = bytes([DOCUMENT[at] ^ 1 << self.rnd.randrange(8)])
        middle = self.rnd.choice([flipped, b"", DOCUMENT[at : at + 1] + b" "])
        document = DOCUMENT[:at] + middle + DOCUMENT[at + 1 :]
        return Case(_line(key), self.sign(key), False, document)

    def altered_signature(self) -> Case:
        """In the bytes of the armour: some that are ignored may change, and both must ignore the same."""
        key = self.key()

        def change(blob: bytes) -> bytes:
            at = self.rnd.randrange(len(blob))
            flipped = bytes([blob[at] ^ 1 << self.rnd.randrange(8)])
            middle = self.rnd.choice([flipped, b"", bytes([blob[at], self.rnd.randrange(256)])])
            return blob[:at] + middle + blob[at + 1 :]

        return Case(_line(key), self.sign(key, change=change))

    def ignored_fields(self) -> Case:
        """PROTOCOL.sshsig: reserved bytes are ignored, later versions refused; nothing may follow."""
        key, version = self.key(), self.rnd.choice([0, 1, 2, 1 << 31])
        reserved, rest = self.rnd.choice([b"", b"x" * 9]), self.rnd.choice([b"", b"", b"\0"])
        signature = self.sign(key, version=version, reserved=reserved, rest=rest)
        return Case(_line(key), signature, version < 2 and not rest)

    def other_namespace(self) -> Case:
        key = self.key()
        name = self.rnd.choice(
            ["git", "file", "dnsblock-order@v2", "dnsblock-receipt@v1", ORDER[:-1], "*", "é"]
        )
        return Case(_line(key), self.sign(key, namespace=name), False)

    def unknown_key(self) -> Case:
        key, other = self.two_keys()
        return Case(_line(other), self.sign(key), False)

    def validity(self) -> Case:
        """At most a few seconds around the limit, in every form of time."""
        key, off = self.key(), timedelta(seconds=self.rnd.randint(-2, 2))
        limit = NOW.replace(second=self.rnd.choice([0, 0, 17]))
        suffix, shift = self.rnd.choice(
            [("Z", timedelta()), ("UTC", timedelta()), ("z", timedelta()), ("", JAKARTA)]
        )
        form = "%Y%m%d%H%M" if limit.second == 0 else "%Y%m%d%H%M%S"
        if self.rnd.random() < 0.3:
            form, limit = "%Y%m%d", NOW.replace(hour=0, minute=0) - (shift if suffix == "" else timedelta())
        option = self.rnd.choice(["valid-after", "valid-before", "VALID-AFTER"])
        is_good = off >= timedelta() if option.lower() == "valid-after" else off <= timedelta()
        line = _line(key, f'{option}="{(limit + shift).strftime(form)}{suffix}"')
        return Case(line, self.sign(key), is_good, at=limit + off)

    def swapped(self) -> Case:
        """The signature of another document, or of another officer's key under this officer's name."""
        key, other = self.two_keys()
        signature = self.sign(key, b"another document")
        if self.rnd.random() < 0.5:
            return Case(_line(key) + _line(other), signature, False)
        return Case(_line(key) + _line(other, who="sari"), self.sign(other), False)

    def truncated(self) -> Case:
        key = self.key()
        signature = self.sign(key)
        whole = signature.index(b"-----END") + len(b"-----END SSH SIGNATURE-----")
        return Case(_line(key), signature[: self.rnd.randrange(whole)], False)

    def principals(self) -> Case:
        """Wildcards, negation, quotation marks and lists (PATTERNS in ssh_config(5))."""
        key = self.key()
        parts = [
            "budi@*",
            "!budi@*",
            OFFICER,
            f"!{OFFICER}",
            "*",
            "?udi@kominfo.go.id",
            "sari",
            "!*.com",
            "BUDI@*",
        ]
        who = ",".join(self.rnd.sample(parts, self.rnd.randint(1, 3)))
        who = f'"{who}"' if self.rnd.random() < 0.3 else who
        return Case(_line(key, who=who), self.sign(key))

    def namespaces(self) -> Case:
        key = self.key()
        parts = ["dnsblock-*", "!dnsblock-*", ORDER, f"!{ORDER}", "git", "*@v1", "*", "dnsblock-order@v?"]
        names = ",".join(self.rnd.sample(parts, self.rnd.randint(1, 3)))
        second = self.rnd.choice(["", _line(key), _line(key, 'namespaces="git"')])
        return Case(_line(key, f'namespaces="{names}"') + second, self.sign(key))

    def lines(self) -> Case:
        """A file with comments, other keys and broken lines, whose own line has a typing error or none."""
        key, other = self.two_keys()
        line = _line(
            key, self.rnd.choice(["", 'namespaces="*",valid-after="20260101Z"', 'valid-before="20270101"'])
        )
        end = line.index("AAAA") + 12
        for _ in range(self.rnd.randrange(3)):
            at = self.rnd.randrange(end)
            line = line[:at] + self.rnd.choice(["", *' \t",=!*?#Z0a']) + line[at + self.rnd.randrange(2) :]
        around = [
            "# a comment\n",
            "\n",
            "sari\n",
            _line(other),
            f"x cert-authority {key.public_line}\n",
            "a b c d\n",
        ]
        self.rnd.shuffle(around)
        allowed = "".join([*around[:3], line, *around[3:]])
        return Case(allowed.replace("\n", "\r\n") if self.rnd.random() < 0.2 else allowed, self.sign(key))


def _line(key: Key, options: str = "", who: str = OFFICER) -> str:
    return f"{who} {options} {key.public_line}\n".replace("  ", " ")
