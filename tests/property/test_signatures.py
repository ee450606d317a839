"""Whatever is in a file of signatures, keys or patterns: a result or a problem, never an exception."""

import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from unit.ssh_keys import KINDS, armoured, blob_of, make_key, token_file

from dnsblock.errors import Refused
from dnsblock.signatures.allowed_signers import AllowedSigners
from dnsblock.signatures.officer_key import read_key
from dnsblock.signatures.patterns import is_match
from dnsblock.signatures.verify import verify

KEYS = [make_key(kind) for kind in KINDS]
DOCUMENT = b"a document"
SIGNED = [key.sign(DOCUMENT) for key in KEYS]
ALLOWED = "".join(f'a namespaces="*",valid-after="20200101Z" {key.public_line} x\n' for key in KEYS).encode()
SIGNERS = AllowedSigners.parse("f", ALLOWED)
NOW = datetime(2026, 7, 14, tzinfo=UTC)


@st.composite
def altered(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Valid bytes with a part replaced by other bytes: deep in the parser, most of them."""
    original = draw(st.sampled_from(originals))
    start = draw(st.integers(0, len(original)))
    end = draw(st.integers(start, min(len(original), start + 8)))
    return original[:start] + draw(st.binary(max_size=8)) + original[end:]


@given(
    st.one_of(
        st.binary(),
        altered(SIGNED),
        altered([blob_of(one) for one in SIGNED]).map(armoured),
        st.lists(altered(SIGNED), max_size=4).map(b"".join),
    )
)
@example(b"")
def test_any_file_of_signatures_has_signers_and_problems(signatures: bytes):
    """Only the keys that have signed the document are signers, however their signatures are altered."""
    found, problems = verify(DOCUMENT, signatures, SIGNERS, NOW)
    assert found or problems
    assert {signer.fingerprint for signer in found} <= {key.fingerprint for key in KEYS}
    assert all(problem.reason and str(problem).isprintable() for problem in problems)
    assert verify(b"another document", signatures, SIGNERS, NOW)[0] == []


@given(st.one_of(st.binary(), altered([ALLOWED]), st.text().map(str.encode)))
def test_any_file_of_keys_has_lines_and_problems(data: bytes):
    """And the lines that count are the same when they are written again, for ssh-keygen."""
    signers = AllowedSigners.parse("f", data)
    assert all(line.names for line in signers.lines)
    assert all(problem.reason and str(problem).isprintable() for problem in signers.problems)
    assert AllowedSigners.parse("f", signers.as_bytes()).lines == signers.lines


@given(st.one_of(st.binary(), altered([token_file(key, handle=b"x", flags=1) for key in KEYS])))
def test_any_key_file_is_read_or_refused(data: bytes):
    """The officer may choose any file."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            outcome = read_key(Path(file.name)).public_key.algorithm
        except Refused as err:
            outcome = str(err)
        assert outcome in KINDS or file.name in outcome


def model(name: str, patterns: str) -> bool:
    """PATTERNS in ssh_config(5), as regular expressions."""
    verdicts = []
    for pattern in patterns.split(","):
        body = pattern.removeprefix("!")
        expression = "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in body)
        if re.fullmatch(expression, name, re.DOTALL):
            verdicts.append(not pattern.startswith("!"))
    return bool(verdicts) and all(verdicts)


@given(st.text("ab", max_size=6), st.text("ab*?!,", max_size=10))
@example("a", "!!a")
def test_patterns_match_as_their_regular_expressions(name: str, patterns: str):
    """Principals and namespaces decide whose signature counts."""
    assert is_match(name, patterns) == model(name, patterns)
