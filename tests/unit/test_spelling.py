"""Names as the author of an order writes them (dnsblock/orders/spelling.py, remarks.py)."""

from datetime import UTC, datetime

import pytest

from dnsblock.names import NameRefused, canonical
from dnsblock.orders import remarks as of_order
from dnsblock.orders.order import parse
from dnsblock.orders.spelling import read_name, remarks

from .helpers import block

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAGES = "an order blocks names, not pages; the name t.me would block everything there"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("t.me/channel", PAGES),
        ("https://t.me/channel", PAGES),
        ("t.me?start=1", PAGES),
        ("T.ME/s/channel#5", PAGES),
        ("https://t.me:443/channel", PAGES),
        ("https://t.me", "a web address: write only the name in it: t.me"),
        ("t.me/", "a web address: write only the name in it: t.me"),
        ("//t.me", "a web address: write only the name in it: t.me"),
        ("ftp://files.example", "a web address: write only the name in it: files.example"),
        ("user@mail.example", "not accounts; the name mail.example would block everything there"),
        ("mailto:user@mail.example", "not accounts; the name mail.example would block everything there"),
        ("@channel", "not accounts; a name would block everything there"),
        ("host.example:8080", "on all ports; write it without the port: host.example"),
        ("192.0.2.1", "an IP address, not a name"),
        ("192.0.2.1:80", "an IP address, not a name"),
        ("http://192.0.2.1/page", "an IP address, not a name"),
        ("[2001:db8::1]", "an IP address, not a name"),
        ("https://[2001:db8::1]/", "an IP address, not a name"),
        ("“t.me”", "contains a quotation mark"),
        ("'t.me'", "contains a quotation mark"),
        ("*.t.me", "a wildcard: write the name without `*.` and `match: below`"),
        ("t me", "contains a space"),
    ],
)
def test_an_invalid_name_is_refused_with_advice(text: str, says: str):
    """In May 2023 a police list contained t.me itself: somebody had meant a page there."""
    with pytest.raises(NameRefused) as caught:
        read_name(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("t.me", []),
        ("bücher.example", ["bücher.example is the A-label xn--bcher-kva.example"]),
        ("xn--bcher-kva.example", ["bücher.example is the A-label xn--bcher-kva.example"]),
        (
            "p\u0430ypal.example",  # CYRILLIC SMALL LETTER A
            [
                "p\u0430ypal.example is the A-label xn--pypal-4ve.example",
                "MIXED_SCRIPT: p\u0430ypal mixes CYRILLIC and LATIN letters: is this name meant?",
            ],
        ),
        (
            "日本語カナかな.example",
            ["日本語カナかな.example is the A-label xn--u8j2cwjqe354zcvb2w6i.example"],
        ),
        ("한국漢字.example", ["한국漢字.example is the A-label xn--p8s937b4q9bln7a.example"]),
        ("☕.example", ["☕.example is the A-label xn--53h.example"]),
        ("παράδειγμα.δοκιμή", ["παράδειγμα.δοκιμή is the A-label xn--hxajbheg2az3al.xn--jxalpdlp"]),
        (
            "xn--zzzzzzzzz.example",
            ["xn--zzzzzzzzz.example: an A-label that stands for no text; it is blocked as it is asked"],
        ),
    ],
)
def test_a_name_in_another_script_is_shown_with_its_a_label(name: str, says: list[str]):
    """UTS 39, section 5.1: the single-script check, label by label."""
    assert list(remarks(canonical(name))) == says


def said(text: str, now: datetime = NOW) -> list[str]:
    return [one.partition("o.yaml:")[2] for one in of_order.remarks(parse("o.yaml", text.encode()), now)]


def test_remarks_name_the_line():
    """An author looks for the line, not for the name."""
    assert said(block("b", "a.example", "bücher.example")) == [
        "8: bücher.example is the A-label xn--bcher-kva.example"
    ]


def test_confusable_names_are_always_shown():
    """Of a thousand names ten are shown; the rest is counted."""
    names = [f"ü{number}.example" for number in range(30)]
    remarks = said(block("b", *names, "p\u0430ypal.example"))
    assert len(remarks) == 12
    assert "MIXED_SCRIPT" in remarks[1]
    assert remarks[-1] == " 21 more names in other scripts than ASCII"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"expires_at": "2027-07-14T11:30:00+07:00"}, []),
        ({"expires_at": "2206-07-14T11:30:00+07:00"}, ["expires_at is more than 10 years ahead"]),
        ({"effective_at": "2062-07-14T11:30:00+07:00"}, ["effective_at is more than 10 years ahead"]),
        (
            {"effective_at": "2002-07-14T11:30:00+07:00"},
            ["effective_at is more than 10 years before issued_at"],
        ),
        ({"review_at": "2062-07-14T11:30:00+07:00"}, ["review_at is more than 10 years ahead"]),
        ({"issued_at": "2062-07-14T11:30:00+07:00"}, ["issued_at is more than 10 years ahead"]),
    ],
)
def test_a_far_year_is_reported(fields: dict[str, str], says: list[str]):
    """2206 instead of 2026 is a typing error that nobody notices for years."""
    remarks = said(block("b", "t.me", **fields))
    assert [one.rpartition("FAR_YEAR: ")[2] for one in remarks] == says
    assert all(one[0].isdigit() for one in remarks)
