"""What the engine's source must keep to: one file for `unsafe`, one for pyo3, a pure decision."""

import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "engine" / "src"
FILES = {path.name: path.read_text() for path in SOURCE.rglob("*.rs")}
PURE = ("answer.rs", "message.rs", "writer.rs", "relay.rs")


def code(text: str) -> str:
    """The source without comments, where words mean nothing."""
    return re.sub(r"//.*", "", text)


def files_with(pattern: str) -> set[str]:
    return {name for name, text in FILES.items() if re.search(pattern, code(text))}


def test_unsafe_is_in_one_file_and_each_block_says_why():
    """Held by the compiler's `unsafe_code = "deny"` too; this names the file."""
    assert files_with(r"\bunsafe\b") == {"sys.rs"}
    lines = FILES["sys.rs"].splitlines()
    for number, line in enumerate(lines):
        if re.search(r"\bunsafe\b", code(line)):
            above = "\n".join(lines[max(0, number - 4) : number + 1])
            assert "SAFETY" in above, f"sys.rs:{number + 1}: an unsafe block without its reason"


def test_pyo3_is_in_one_place():
    """The core builds and tests without Python: `cargo test` has no feature of that name."""
    assert files_with(r"\bpyo3\b|\bPython\b|\bPyErr\b") == {
        "python.rs",
        "counts.rs",
        "lists.rs",
        "privileges.rs",
        "running.rs",
    }


def test_decide_knows_no_socket_no_clock_and_no_log():
    """Bytes, client address and snapshot in, verdict out."""
    impure = (
        r"UdpSocket|TcpStream|Instant|SystemTime|println|eprintln|std::fs|\bVec<|\bBox<|\bString\b|format!"
    )
    own = {name: code(FILES[name]).split("#[cfg(test)]")[0] for name in PURE}
    found = {name: re.findall(impure, text) for name, text in own.items()}
    assert found == {name: [] for name in PURE}
