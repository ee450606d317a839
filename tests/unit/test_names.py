"""Input that is read as a name (dnsblock/names.py)."""

import pytest

from dnsblock.names import NameRefused, canonical


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("T.Me", "t.me"),
        ("t.me.", "t.me"),
        ("_dmarc.Telegram.ORG", "_dmarc.telegram.org"),
        ("flora-1.web.telegram.org", "flora-1.web.telegram.org"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("München.example", "xn--mnchen-3ya.example"),
        ("_443._tcp.münchen.example", "_443._tcp.xn--mnchen-3ya.example"),
        ("faß.example", "xn--fa-hia.example"),  # UTS 46 non-transitional: not fass
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),  # an ideographic full stop is a dot
        ("क्\u200dष.example", "xn--11b2ezcw70k.example"),  # RFC 5892 A.2: a joiner in its place
        ("localhost", "localhost"),
        ("☕.example", "xn--53h.example"),  # UTS 46 maps what IDNA 2008 does not know: browsers ask for it
        ("💩.la", "xn--ls8h.la"),
        ("1.2.0.192.in-addr.arpa", "1.2.0.192.in-addr.arpa"),
    ],
)
def test_a_name_has_one_canonical_form(text: str, name: str):
    """Traps, item 14: U-labels accepted with UTS 46 mapping, A-labels stored; RFC 4343 for case."""
    assert canonical(text) == name
    assert canonical(name) == name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (".", "empty"),
        ("..", "empty label"),
        (".t.me", "empty label"),
        ("t..me", "empty label"),
        ("t.me..", "empty label"),
        ("a" * 64 + ".example", "longer than 63"),
        ("é" * 64 + ".example", "longer than 63"),
        ("x." * 126 + "yy", "longer than 253"),
        ("x." * 126 + "yy.", "longer than 253"),
        ("é" * 2000, "longer than 253"),
        ("t me", "space"),
        ("t.me\n", "space"),
        ("t.me\x00", "control character"),
        ("https://t.me/x", "web address"),
        ("t.me:443", "without a port"),
        ("t.me/path", "not allowed in a name"),
        ("*.t.me", "match: below"),
        ("a.*.t.me", "`\\*`"),
        ("192.0.2.1", "IP address"),
        ("192.0.2.1.", "IP address"),
        ("\uff11.\uff12.\uff13\uff0e\uff14", "IP address"),  # full-width digits and dot
        ("2001:db8::1", "IP address"),
        ("[::1]", "IP address"),
        ("t\\.me", "not allowed in a name"),
        ("||t.me^", "not allowed in a name"),
        ("t,me", "not allowed in a name"),
        ("225.223.48", "IP address"),
        ("0x7f.1", "IP address"),
        ("172.104.128.199.108.166", "last label is a number"),
        ("0000350_2025.29.08", "last label is a number"),
        ("a.example.0x1f", "last label is a number"),
        ("\u2488com", "not a domain name|empty label|not allowed"),
        ("\ud800.example", "not a valid internationalised name"),
    ],
)
def test_an_invalid_name_is_refused_with_the_reason(text: str, reason: str):
    """RFC 1035 2.3.4 for the limits; a half line or an HTML page must never become a block."""
    with pytest.raises(NameRefused, match=reason):
        canonical(text)


def test_the_longest_name_is_accepted_with_and_without_final_dot():
    """RFC 1035 2.3.4: 255 bytes on the wire are 253 characters."""
    longest = "x." * 126 + "y"
    assert len(longest) == 253
    assert canonical(longest) == longest
    assert canonical(longest + ".") == longest


def test_digits_of_other_scripts_are_not_digits():
    """str.isdigit and \\d take them; on the wire they are letters of another name."""
    assert canonical("१.example").startswith("xn--")
