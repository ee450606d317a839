"""The proof that an order document is complete (dnsblock/orders/complete.py)."""

import json
from pathlib import Path

import pytest

from dnsblock.errors import Refused
from dnsblock.orders.chain import Chain
from dnsblock.orders.order import parse

from .helpers import block, sha256, unblock

SHIPPED = Path(__file__).parents[2] / "blocklists" / "orders"
TELEGRAM = (SHIPPED / "2017-07-14-telegram-block.yaml").read_bytes()
LAST = TELEGRAM.count(b"\n")  # the number of its last line
JSON = json.dumps(
    {
        "schema": "dnsblock.order/1",
        "issuer": "court.example",
        "order_id": "17/2026",
        "action": "block",
        "issued_at": "2026-03-01T09:00:00+07:00",
        "entries": ["a.example", "b.example"],
    },
    indent=2,
).encode()
READ_AGAIN = "it is read again at the next reload"  # ends the messages about incomplete files


def problems(data: bytes) -> list[str]:
    try:
        parse("o.yaml", data)
    except Refused as err:
        return [str(problem) for problem in err.problems]
    return []


DOCUMENTS = {
    "shipped block": TELEGRAM,
    "shipped unblock": (SHIPPED / "2017-08-10-telegram-unblock.yaml").read_bytes(),
    "Windows line ends": TELEGRAM.replace(b"\n", b"\r\n"),
    "byte order mark": b"\xef\xbb\xbf" + TELEGRAM,
    "comment on the last line": TELEGRAM[:-1] + b"  # end: telegram-2017-07-14\n",
    "quoted end": TELEGRAM.replace(b"end: telegram-2017-07-14", b"end: 'telegram-2017-07-14'"),
    "list in flow style": block("b-1").replace("end:", "entries: [a.example, b.example]\nend:").encode(),
    "multi-byte characters": block("perihal é ﷽ 😀", "münchen.example").encode(),
    "JSON": JSON,
}


@pytest.mark.parametrize("data", DOCUMENTS.values(), ids=DOCUMENTS)
def test_no_prefix_of_a_document_is_accepted(data: bytes):
    """An interrupted copy leaves a prefix. A third of the prefixes of the Telegram order are valid YAML."""
    assert problems(data) == []
    accepted = [length for length in range(len(data)) if not problems(data[:length])]
    assert accepted == []


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_json_without_its_last_line_end_is_the_same_document(end: str):
    """A cut there loses nothing, and must not make another order of it."""
    bare, ended = parse("o.json", JSON), parse("o.json", JSON + end.encode())
    assert bare.sha256 != ended.sha256
    assert set(bare.digests) == set(ended.digests)


def test_a_document_without_end_is_refused_with_what_to_add():
    """`end` proves that the file is complete; the message gives the line to append."""
    text = TELEGRAM.removesuffix(b"end: telegram-2017-07-14\n")
    (problem,) = problems(text)
    assert problem == (
        "o.yaml: INCOMPLETE: the file does not end with the line `end: telegram-2017-07-14`: it is "
        "still being written, is truncated, or lacks that line: add it at the end; " + READ_AGAIN
    )
    assert problems(text + b"end: telegram-2017-07-14\n") == []


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "o.yaml: INCOMPLETE: the file does not end with the line `end: ORDER_ID`"),
        (
            TELEGRAM[: TELEGRAM.index(b"entries:")],
            "o.yaml: INCOMPLETE: the file does not end with the line `end: telegram-2017-07-14`",
        ),
        (TELEGRAM[:77], "o.yaml: INCOMPLETE: the file does not end with the line `end: ORDER_ID`"),
        (TELEGRAM[:-1], f"o.yaml:{LAST}: 'end': INCOMPLETE: the last line, `end`, has no line end"),
        (TELEGRAM[:-4] + b"\n", f"o.yaml:{LAST}: 'telegram-2017-07': end: is not the order_id"),
        (
            TELEGRAM.replace(b"end: telegram-2017-07-14", b"end: x"),
            f"o.yaml:{LAST}: 'x': end: is not the order_id",
        ),
        (TELEGRAM + b"seq: 1\n", f"o.yaml:{LAST + 1}: 'seq': this key was already given on line 6"),
        (TELEGRAM + b"urgency: urgent\n", f"o.yaml:{LAST}: 'end': end: must be the last key"),
        (TELEGRAM + b"# a comment\n", f"o.yaml:{LAST}: 'end': end: must be the last line of the file"),
        (TELEGRAM + b"\n", f"o.yaml:{LAST}: 'end': end: must be the last line of the file"),
        (TELEGRAM.replace(b"end: telegram-2017-07-14", b"end: [x]"), f"o.yaml:{LAST}: end: must be text"),
        (JSON[:-1], "o.yaml: INCOMPLETE: the closing brace is missing"),
        (JSON + b"\n# a comment\n", "o.yaml: nothing may follow the closing brace"),
        (JSON.replace(b"{", b'{"end": "17",', 1), "o.yaml:1: '17': end: is not the order_id"),
    ],
)
def test_a_possibly_partial_document_is_refused_with_its_line(data: bytes, problem: str):
    """Design section 5: `end` must be the last key."""
    assert any(found.startswith(problem) for found in problems(data)), problems(data)


def test_json_may_hold_the_key_as_well():
    """JSON is complete by its closing brace; the key is allowed and checked."""
    assert problems(JSON.replace(b"{", b'{"end": "17/2026",', 1)) == []


def test_the_next_order_may_name_either_form_of_a_json_document():
    """`prev` is what sha256sum printed for the issuer, whose file may have a line end that our copy lacks."""
    first = JSON.replace(b'"action"', b'"seq": 1, "action"').replace(b"court.example", b"a")
    for form in (first.decode(), first.decode() + "\n"):
        second = unblock("u-1", "17/2026", seq=2, prev=sha256(form))
        orders = [parse("o.json", first), parse("o.yaml", second.encode())]
        chain = Chain()
        for order in orders:
            chain.add(order)
        assert chain.followed == dict(enumerate(orders, 1))
