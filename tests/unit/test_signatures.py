"""Signatures of documents: who has signed, and why a signature does not count."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from dnsblock.signatures.allowed_signers import AllowedSigners
from dnsblock.signatures.sshsig import MAX_FILE_BYTES, MAX_SIGNATURES
from dnsblock.signatures.verify import SignatureProblem, Signer, verify

from .ssh_keys import KINDS, Key, armoured, blob_of, make_key, string

NOW = datetime(2017, 7, 14, 4, 30, tzinfo=UTC)
DOCUMENT = b"order_id: 84/2017\n"
BUDI, SARI = make_key(), make_key("ecdsa-sha2-nistp256")


def allowed(*lines: str) -> AllowedSigners:
    return AllowedSigners.parse("kominfo.allowed_signers", "\n".join(lines).encode())


OFFICERS = allowed(f"budi {BUDI.public_line}", f"sari {SARI.public_line}")


def problems(signatures: bytes, signers: AllowedSigners = OFFICERS) -> list[SignatureProblem]:
    found, refused = verify(DOCUMENT, signatures, signers, NOW)
    assert found == []
    return refused


def codes(signatures: bytes, signers: AllowedSigners = OFFICERS) -> list[str]:
    return [problem.code for problem in problems(signatures, signers)]


# ------- Good signatures


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_of_each_algorithm_counts(kind: str):
    """The issue: Ed25519 first; ECDSA and hardware tokens are accepted. ssh-keygen also accepts RSA."""
    key = make_key(kind)
    signers = allowed(f"budi,b {key.public_line}")
    expected = Signer("budi", key.fingerprint, kind, ("budi", "b"))
    for hashed in ("sha256", "sha512"):
        assert verify(DOCUMENT, key.sign(DOCUMENT, hashed=hashed), signers, NOW) == ([expected], [])


def test_two_officers_sign_one_document():
    """A threshold of two counts keys, in the order of the file."""
    signatures = SARI.sign(DOCUMENT) + BUDI.sign(DOCUMENT)
    found, refused = verify(DOCUMENT, signatures, OFFICERS, NOW)
    assert [signer.principal for signer in found] == ["sari", "budi"]
    assert refused == []


def test_two_signatures_of_one_key_count_once():
    """Otherwise one officer alone reaches a threshold of two. ECDSA signatures differ each time."""
    signatures = SARI.sign(DOCUMENT) + SARI.sign(DOCUMENT, hashed="sha256")
    found, [refused] = verify(DOCUMENT, signatures, OFFICERS, NOW)
    assert [signer.principal for signer in found] == ["sari"]
    assert (refused.code, refused.number, refused.fingerprint) == ("DUPLICATE_SIGNER", 2, SARI.fingerprint)


def test_a_key_with_another_encoding_of_its_numbers_is_the_same_key():
    """OpenSSH ignores leading zeros: a second encoding of one RSA key must not be a second signer."""
    key = make_key("ssh-rsa")
    modulus = key.blob[-257:]
    longer = Key(key.kind, key.private, key.blob[: -257 - 4] + string(b"\0" + modulus))
    signers = allowed(f"budi {key.public_line}", f"sari {longer.public_line}")
    found, [refused] = verify(DOCUMENT, key.sign(DOCUMENT) + longer.sign(DOCUMENT), signers, NOW)
    assert [signer.principal for signer in found] == ["budi"]
    assert refused.code == "DUPLICATE_SIGNER"


def test_a_bad_signature_does_not_void_a_good_one():
    """Anybody can append a signature to a file: that must not hold up an order that lifts a block."""
    stranger = make_key()
    signatures = stranger.sign(DOCUMENT) + BUDI.sign(DOCUMENT) + b"some text\n"
    found, refused = verify(DOCUMENT, signatures, OFFICERS, NOW)
    assert [signer.principal for signer in found] == ["budi"]
    assert [(problem.code, problem.number) for problem in refused] == [("UNKNOWN_KEY", 1), ("MALFORMED", 3)]
    assert [problem.line for problem in refused] == [1, signatures.count(b"\n")]


# ------- Bad ones


def test_each_problem_has_its_code_and_says_what_to_do():
    """An officer reads this, and must know what to do next."""
    expired = allowed(f'budi valid-before="20170714042959Z" {BUDI.public_line}')
    early = allowed(f'budi valid-after="20170714043001Z" {BUDI.public_line}')
    git = allowed(f'budi namespaces="git" {BUDI.public_line}')
    good = BUDI.sign(DOCUMENT)
    expected = [
        (BUDI.sign(b"other"), OFFICERS, "BAD_SIGNATURE", "sign it again"),
        (
            make_key().sign(DOCUMENT),
            OFFICERS,
            "UNKNOWN_KEY",
            "kominfo.allowed_signers has no valid line for it",
        ),
        (good, expired, "EXPIRED_KEY", "sign with a key that is valid now"),
        (good, early, "NOT_YET_VALID_KEY", "sign with a key that is valid now"),
        (good, git, "WRONG_NAMESPACE", "does not include dnsblock-order@v1"),
        (BUDI.sign(DOCUMENT, "git"), OFFICERS, "WRONG_NAMESPACE", "sign with `dnsblock order sign`"),
    ]
    for signature, signers, code, advice in expected:
        [problem] = problems(signature, signers)
        assert (problem.code, problem.number, problem.line) == (code, 1, 1)
        assert problem.fingerprint is not None
        assert advice in problem.reason
        assert str(problem) == f"signature 1 by {problem.fingerprint}: {code}: {problem.reason}"
        assert problem.as_json()["code"] == code


def test_a_document_without_a_file_of_signatures_is_unsigned():
    """The usual mistake: only the document was sent."""
    found, [problem] = verify(DOCUMENT, None, OFFICERS, NOW)
    assert (found, problem.code) == ([], "UNSIGNED")
    assert str(problem).startswith("UNSIGNED: there is no file")


def test_validity_is_judged_at_the_time_that_is_given_in_whole_seconds():
    """The same document is verified years later, for a court: with the keys of its own time."""
    limits = 'valid-after="20170714043000Z",valid-before="20170714043000Z"'
    assert [
        str(one) for one in allowed(f"budi {limits} {BUDI.public_line}").problems
    ] != []  # nothing is between
    signers = allowed(f'budi valid-before="20170714043000Z" {BUDI.public_line}')
    late = NOW + timedelta(microseconds=999_999)
    assert verify(DOCUMENT, BUDI.sign(DOCUMENT), signers, late)[1] == []
    assert codes(BUDI.sign(b"other"), signers) == ["BAD_SIGNATURE"]
    assert verify(DOCUMENT, BUDI.sign(DOCUMENT), signers, late + timedelta(seconds=1))[0] == []


def test_a_key_with_several_lines_counts_if_one_of_them_fits():
    """As in ssh-keygen. Otherwise the reason is the most helpful one: its validity, not another namespace."""
    lines = [f'budi namespaces="git" {BUDI.public_line}', f'budi valid-before="20170101Z" {BUDI.public_line}']
    assert codes(BUDI.sign(DOCUMENT), allowed(*lines)) == ["EXPIRED_KEY"]
    assert verify(DOCUMENT, BUDI.sign(DOCUMENT), allowed(*lines, f"budi {BUDI.public_line}"), NOW)[1] == []


@pytest.mark.parametrize("kind", ["sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"])
def test_a_signature_of_a_token_needs_a_touch(kind: str):
    """sshd(8) requires it, too: without it, any program on the officer's computer could sign."""
    token = make_key(kind)
    signers = allowed(f"budi {token.public_line}")
    [problem] = problems(token.sign(DOCUMENT, flags=0x04), signers)
    assert problem.code == "NOT_TOUCHED"
    assert "sign again, and touch it" in problem.reason


def _ending(count: int) -> bytes:
    return armoured(blob_of(BUDI.sign(DOCUMENT))[:-count])


MALFORMED = {
    "an empty file": (b"", "the file is empty"),
    "a file that is too large": (BUDI.sign(DOCUMENT) + b"\n" * MAX_FILE_BYTES, "larger than 65,536 bytes"),
    "too many signatures": (BUDI.sign(DOCUMENT) * (MAX_SIGNATURES + 1), "more than 16 signatures"),
    "another file": (b"\x89PNG\r\n", "line ends of Windows"),
    "a letter": (b"Dear officer\n", "text that is no signature"),
    "Windows line ends": (
        BUDI.sign(DOCUMENT).replace(b"\n", b"\r\n"),
        "save the file with line ends of Unix",
    ),
    "no end": (BUDI.sign(DOCUMENT)[:150], "it is truncated"),
    "half of the end": (BUDI.sign(DOCUMENT)[:-9], "it is truncated"),
    "joined lines": (BUDI.sign(DOCUMENT)[:-1] + SARI.sign(DOCUMENT), "a line end is missing between"),
    "no content": (armoured(b""), "it ends too early"),
    "not Base64": (BUDI.sign(DOCUMENT).replace(b"U1N", b"U!N"), "not valid Base64"),
    "Base64 with other unused bits": (armoured(b"A").replace(b"QQ==", b"QR=="), "not valid Base64"),
    "Base64 without its end": (armoured(b"A").replace(b"QQ==", b"QQ"), "not valid Base64"),
    "another magic": (
        armoured(b"X" + blob_of(BUDI.sign(DOCUMENT))[1:]),
        "does not begin as an SSH signature",
    ),
    "cut content": (_ending(3), "it ends too early"),
    "more content": (armoured(blob_of(BUDI.sign(DOCUMENT)) + b"\0"), "bytes follow after its end"),
    "a short Ed25519 key": (
        Key(BUDI.kind, BUDI.private, string(BUDI.kind) + string(b"x" * 31)).sign(DOCUMENT),
        "has 32 bytes, not 31",
    ),
    "a point that is not on the curve": (
        Key(SARI.kind, SARI.private, SARI.blob[:-1] + bytes([SARI.blob[-1] ^ 1])).sign(DOCUMENT),
        "not on its curve",
    ),
    "a compressed point": (
        Key(SARI.kind, SARI.private, SARI.blob[:35] + string(b"\x02" + SARI.blob[-64:-32])).sign(DOCUMENT),
        "not uncompressed",
    ),
    "a curve that is not that of the type": (
        Key(SARI.kind, SARI.private, SARI.blob.replace(b"\x08nistp256", b"\x08nistp384")).sign(DOCUMENT),
        "names another curve",
    ),
    "a huge key": (
        Key(BUDI.kind, BUDI.private, string(BUDI.kind) + string(b"x" * 9000)).sign(DOCUMENT),
        "larger than 8,192 bytes",
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_file_that_is_no_signature_is_refused_and_says_why(what: str):
    """Everything in a file of signatures is hostile: each is one problem, and no exception."""
    signatures, reason = MALFORMED[what]
    [problem] = problems(signatures)
    assert problem.code == "MALFORMED"
    assert reason in problem.reason


UNSUPPORTED = {
    "a later version": (BUDI.sign(DOCUMENT, version=2), "version 2"),
    "DSA": (Key("ssh-dss", BUDI.private, string("ssh-dss") + string(b"")).sign(DOCUMENT), "ssh-dss are not"),
    "a certificate": (
        Key(
            *("ssh-ed25519-cert-v01@openssh.com", BUDI.private),
            string("ssh-ed25519-cert-v01@openssh.com") + string(b""),
        ).sign(DOCUMENT),
        "certificates are not supported",
    ),
    "SHA-1": (
        armoured(blob_of(BUDI.sign(DOCUMENT)).replace(string("sha512"), string("sha1"))),
        "the hash sha1 is not accepted",
    ),
    "a weak RSA key": (make_key("ssh-rsa", bits=1024).sign(DOCUMENT), "1,024 bits is too weak"),
    "a signature of another algorithm": (
        armoured(blob_of(BUDI.sign(DOCUMENT)).replace(b"S\0\0\0\x0bssh-ed25519", b"S\0\0\0\x0bssh-ed25518")),
        "ssh-ed25518 is not accepted for this key",
    ),
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_an_algorithm_that_is_not_accepted_is_named(what: str):
    """The officer must make another key, so it says which are accepted."""
    signatures, reason = UNSUPPORTED[what]
    [problem] = problems(signatures)
    assert problem.code == "UNSUPPORTED_ALGORITHM"
    assert reason in problem.reason


def test_a_message_about_a_hostile_signature_is_safe_to_print():
    """The namespace is the attacker's text: no control sequence of it reaches a terminal."""
    [problem] = problems(BUDI.sign(DOCUMENT, "\x1b[2Jgit"))
    assert problem.code == "WRONG_NAMESPACE"
    assert "\x1b" not in str(problem)
    assert "\x1b" not in problem.as_json()["reason"]


def test_reading_the_keys_does_not_import_cryptography():
    """The daemon reads all files of keys at startup, and most commands never verify."""
    line = f"budi {SARI.public_line}"
    script = (
        "import sys; from dnsblock.signatures import verify, officer_key, signing, keys\n"
        "from dnsblock.signatures.allowed_signers import AllowedSigners\n"
        f"signers = AllowedSigners.parse('f', {line.encode()!r})\n"
        "print(len(signers.lines), 'cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1 False\n"
