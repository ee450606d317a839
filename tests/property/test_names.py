"""Lists, orders and commands parse names in the same way."""

import hashlib
import re
import tempfile

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dnsblock._engine import CompiledList, Names, Progress, compile_list
from dnsblock.errors import Refused
from dnsblock.names import NameRefused, canonical
from dnsblock.orders.order import parse_entries
from dnsblock.orders.schema import EntriesFile

# Labels, numbers and characters of several scripts, valid and invalid.
LABELS = [
    *("example", "com", "1", "08", "0x1f", "350_2025", "x" * 63, "x" * 64, "-a-", "_a", "*", ""),
    *("xn--53h", "xn--a", "xn--e1afmkfd", "☕", "é", "ß", "E\u0301", "a\u200db", "\uff11", "\u2488"),
]
TEXTS = st.one_of(
    st.text(max_size=80),
    st.tuples(
        st.lists(st.one_of(st.sampled_from(LABELS), st.text(max_size=4)), max_size=6),
        st.sampled_from([".", ".", "。", ".."]),
    ).map(lambda parts: parts[1].join(parts[0])),
)
# Orders refuse these: a word processor may have put the name between two of them.
QUOTATION_MARKS = set("\"'`´‘’‚“”„«»‹›")  # noqa: RUF001
# Syntax of lists only: comments, white space, a byte order mark, `*.`.
ONLY_IN_LISTS = re.compile(r"[#;!\r\n\ufeff]|//|@@|^\*\.|^\s|\s$")


def compiled(text: str, before: Names | None = None) -> CompiledList:
    """A compiled plain list."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(text.encode("utf-8", "surrogatepass"))
        file.flush()
        return compile_list(
            [("list", file.name)],
            format="plain",
            scope=None,
            column=1,
            separator=",",
            repairs=["bom", "case", "crlf", "dot"],
            exceptions="auto",
            max_bytes=1 << 20,
            suffixes=[],
            suffix_parents=[],
            suffix_exceptions=[],
            protected=[],
            folder=None,
            before=before,
            progress=Progress(),
        )


NOTHING = compiled("").names


def in_list(text: str) -> str | None:
    """The name in a line of a list, if it is valid."""
    lines = compiled(text, NOTHING).difference.lines.decode().split()
    return lines[-1] if lines else None


def in_order(text: str) -> str | None:
    """The name in a line of an entries file, if it is valid."""
    data = f"{text}\n".encode("utf-8", "surrogatepass")
    try:
        reference = EntriesFile(path="f", sha256=hashlib.sha256(data).hexdigest(), lines=1)
        (entry,), _ = parse_entries(reference, "f", data)
    except Refused:
        return None
    return entry.name


def in_command(text: str) -> str | None:
    try:
        return canonical(text)
    except NameRefused:
        return None


@settings(deadline=None)
@given(TEXTS)
@example("☕.example")
@example("\uff22ücher。example.")
@example("225.223.48")
@example("172.104.128.199.108.166")
@example("0000350_2025.29.08")
@example("a.example.0X1F")
@example("com")
@example("\ud800.example")
@example("«")
@example("«a».example")
@example("a'b.example")
def test_lists_orders_and_commands_parse_names_alike(text: str):
    """Commands and orders accept each name that a list blocks. None of them accepts a number."""
    if ONLY_IN_LISTS.search(text):
        return
    name = in_command(text)
    is_quoted = not QUOTATION_MARKS.isdisjoint(text)
    assert in_order(text) == (None if is_quoted else name)
    # A list has no top-level domains.
    assert in_list(text) == (name if name and "." in name else None)
    if name:
        assert in_command(name) == name
        assert in_order(name) == (None if not QUOTATION_MARKS.isdisjoint(name) else name)
