"""The list of popular names (dnsblock/orders/popular.py, dnsblock/orders/data/popular.txt)."""

from pathlib import Path

import pytest

from dnsblock.errors import Refused
from dnsblock.names import canonical
from dnsblock.orders import popular
from dnsblock.orders.popular import SHIPPED, NameSet, load, shipped
from dnsblock.suffixes import public_suffix

LINES = [line for line in SHIPPED.read_text().splitlines() if line and not line.startswith("#")]


@pytest.fixture
def read(tmp_path: Path):
    """The names in a file with this content."""

    def read(content: str | bytes) -> set[str]:
        path = tmp_path / "popular.txt"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return set(load(path).names.names)

    return read


@pytest.fixture
def refused(read):
    def refused(content: str | bytes) -> list[str]:
        with pytest.raises(Refused) as caught:
            read(content)
        return [str(problem).partition("popular.txt:")[2].strip() for problem in caught.value.problems]

    return refused


# ------- The list in the package -------


def test_the_list_in_the_package_has_no_duplicate_and_no_invalid_name():
    """A name that is not canonical would never match."""
    assert len(LINES) >= 2000
    assert len(LINES) == len(set(LINES)) == len(shipped().names.names)
    assert [name for name in LINES if canonical(name) != name] == []


def test_the_list_in_the_package_has_no_public_suffix():
    """Such an entry is refused anyway, so a line with one is a mistake."""
    assert [name for name in LINES if public_suffix(name)] == []


def test_the_list_in_the_package_repeats_no_web_site():
    """`www.` counts as the name itself, so only a name whose parent cannot be listed has it."""
    names = set(LINES)
    assert [name for name in LINES if name.startswith("www.") and name[4:] in names] == []


@pytest.mark.parametrize(
    "name",
    [
        *("google.com", "gstatic.com", "googleapis.com", "drive.usercontent.google.com", "t.me"),
        *("telegram.org", "wa.me", "whatsapp.net", "github.io", "pages.dev", "cloudfront.net"),
        *("windowsupdate.com", "captive.apple.com", "ocsp.digicert.com", "o.lencr.org", "pool.ntp.org"),
        *("bca.co.id", "klikbca.com", "gopay.co.id", "tokopedia.com", "pajak.go.id", "bmkg.go.id"),
        *("detik.com", "kompas.com", "wikipedia.org", "ui.ac.id", "telkomsel.com", "whatsapp.com"),
    ],
)
def test_the_list_in_the_package_has_the_names_of_past_accidents(name: str):
    """And at least the largest service of each category."""
    assert name in shipped().names.names


def test_the_list_in_the_package_is_read_once():
    """The first order pays for it, not each one."""
    assert shipped() is shipped()


# ------- A list of the operator -------


def test_a_line_is_a_name_a_ranked_name_or_a_comment(read):
    """A published ranking can be used as it is."""
    text = "# ranking\n\n1,Example.COM\r\n2, b.example \nc.example\nbücher.example\n"
    assert read(text) == {"example.com", "b.example", "c.example", "xn--bcher-kva.example"}
    assert read(b"\xef\xbb\xbfa.example") == {"a.example"}


def test_every_invalid_line_is_reported(refused):
    """A wrong file must not disable the guard unnoticed."""
    assert refused("a.example\nno name\n3,\nexample.com,4\n") == [
        "2: 'no name': contains a space: write one name, without spaces",
        "3: '3,': empty: a name has at least one label",
        "4: 'example.com,4': ',' is not allowed in a name",
    ]


def test_a_file_without_names_is_refused(refused):
    """A truncated file would disable the guard."""
    expected = ["contains no name: the guard POPULAR needs at least one"]
    assert refused("") == refused("# only a comment\n") == expected


def test_a_file_that_is_not_text_is_refused(refused):
    """Compressed rankings are unpacked first."""
    assert refused(b"a.example\n\x1f\x8b\x08\xff") == ["2: not UTF-8 text"]


def test_the_size_of_the_file_is_limited(refused, monkeypatch: pytest.MonkeyPatch):
    """The file must not use up the memory of the daemon."""
    monkeypatch.setattr(popular, "MAX_NAMES", 2)
    assert refused("a.example\nb.example\nc.example\n") == ["3: more than 2 names"]
    monkeypatch.setattr(popular, "MAX_BYTES", 10)
    assert refused("a.example\nb.example\n") == ["TOO_LARGE: larger than 10 bytes"]


def test_a_missing_file_is_refused(tmp_path: Path):
    """With the path, so that the operator finds it."""
    with pytest.raises(Refused, match=r"none\.txt: cannot be read: No such file"):
        load(tmp_path / "none.txt")


def test_an_unchanged_file_is_not_parsed_again(tmp_path: Path):
    """A reload with a list of a million names must not take a second."""
    path = tmp_path / "popular.txt"
    path.write_text("a.example\n")
    first = load(path)
    assert load(path, first) is first
    path.write_text("b.example\n")
    assert load(path, first).names.names == {"b.example"}


# ------- Sets of names -------


def test_a_set_of_names_knows_what_is_above_and_below():
    """The guards ask both, for each of a million entries."""
    names = NameSet.of(["a.b.example", "c.example"])
    assert names.at_or_above("x.a.b.example") == names.at_or_above("a.b.example") == "a.b.example"
    assert names.at_or_above("b.example") is None
    assert names.shown_below == {"b.example": "a.b.example", "example": "a.b.example"}
