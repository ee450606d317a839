"""Lists, orders and commands accept the same texts as names, and make the same name of each."""

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

# Nearly names: labels, numbers and signs of several scripts.
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
# What a line of a list has beside the name: comments, white space, a mark of the byte order, `*.`.
ONLY_IN_LISTS = re.compile(r"[#;!\r\n\ufeff]|//|@@|^\*\.|^\s|\s$")


def compiled(text: str, before: Names | None = None) -> CompiledList:
    """A plain list of this text, compiled."""
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
    """The name that a list makes of a line, if it is one."""
    lines = compiled(text, NOTHING).difference.lines.decode().split()
    return lines[-1] if lines else None


def in_order(text: str) -> str | None:
    """The same of a line of an order's file of names."""
    data = f"{text}\n".encode("utf-8", "surrogatepass")
    try:
        reference = EntriesFile(path="f", sha256=hashlib.sha256(data).hexdigest(), lines=1)
        (entry,) = parse_entries(reference, "f", data)
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
def test_lists_orders_and_commands_parse_names_alike(text: str):
    """A name that a list blocks can be asked about, purged and unblocked; a number is a name nowhere."""
    if ONLY_IN_LISTS.search(text):
        return
    name = in_command(text)
    assert in_order(text) == name
    # A list names no top-level domain.
    assert in_list(text) == (name if name and "." in name else None)
    if name:
        assert in_command(name) == in_order(name) == name
