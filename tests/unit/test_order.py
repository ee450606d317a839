"""The order document (dnsblock/orders/order.py, schema.py; design section 5)."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dnsblock.errors import Refused
from dnsblock.orders.entry import Entry
from dnsblock.orders.order import Order, RefusedEntry, Target, TargetEntry, load_entries_file, parse

from .helpers import block, document, exempt, sha256, unblock, with_lines

SHIPPED = Path(__file__).parents[2] / "blocklists" / "orders"


def read(text: str) -> Order:
    return parse("o.yaml", text.encode())


def refused(text: str) -> list[str]:
    """The problems of a document as `line: text`."""
    with pytest.raises(Refused) as caught:
        read(text)
    return [str(problem).removeprefix("o.yaml:") for problem in caught.value.problems]


# ------- What is read -------


def test_every_field_of_a_document_is_kept():
    """Fields that a citizen or a court may request."""
    order = read(
        block(
            "B 17/2017 perihal é",
            "T.me",
            "{name: münchen.example, match: below, note: 'see annex', answer: sinkhole}",
            seq=2,
            prev=f"sha256:{'AB' * 32}",
            effective_at="2017-07-14T12:00:00Z",
            expires_at="2018-07-14T12:00:00+07:00",
            review_at="2018-01-01T00:00:00+07:00",
            urgency="urgent",
            category="terrorism",
            legal_basis="[UU 19/2016 Pasal 40]",
            reason="{id: alasan, en: reason}",
            contact="aduan@example.id",
            document=f"{{sha256: {'cd' * 32}, uri: 'https://example.id/1.pdf'}}",
            acks="[POPULAR]",
        )
    )
    assert (order.issuer, order.order_id, order.action) == ("a", "B 17/2017 perihal é", "block")
    assert (order.seq, order.prev) == (2, "ab" * 32)
    assert order.issued_at == datetime(2017, 7, 14, 4, 30, tzinfo=UTC)
    assert order.effective_at == datetime(2017, 7, 14, 12, tzinfo=UTC)
    assert order.expires_at == datetime(2018, 7, 14, 5, tzinfo=UTC)
    assert order.review_at == datetime(2017, 12, 31, 17, tzinfo=UTC)
    assert order.deadline_at == datetime(2017, 7, 15, 4, 30, tzinfo=UTC)
    assert (order.urgency, order.category, order.contact) == ("urgent", "terrorism", "aduan@example.id")
    assert (order.legal_basis, order.acks) == (("UU 19/2016 Pasal 40",), ("POPULAR",))
    assert order.reason is not None
    assert (order.reason.id, order.reason.en) == ("alasan", "reason")
    assert order.original is not None
    assert (order.original.sha256, order.original.uri) == ("cd" * 32, "https://example.id/1.pdf")
    assert order.entries == (
        Entry("t.me", "subtree"),
        Entry("xn--mnchen-3ya.example", "below", "see annex", "sinkhole"),
    )


def test_an_order_is_known_by_its_bytes():
    """The digest covers the file as it was signed."""
    text = block("b-1", "t.me")
    assert read(text).sha256 == sha256(text)


def test_json_is_an_order_too():
    """Design section 5: YAML or JSON."""
    text = json.dumps(
        {
            "schema": "dnsblock.order/1",
            "issuer": "a",
            "order_id": "1",
            "action": "block",
            "issued_at": "2017-07-14T11:30:00+07:00",
            "seq": 1,
            "expires_at": None,
            "entries": ["t.me", {"name": "b.example", "match": "exact"}],
        },
        indent="\t",
    )
    assert read(text).entries == (Entry("t.me", "subtree"), Entry("b.example", "exact"))


def test_an_unblock_names_orders_and_entries():
    """Design section 5: `targets`."""
    order = read(unblock("u-1", "b-1", "T.me.", "{name: b.example, match: exact}"))
    assert order.targets == (Target("b-1", (TargetEntry("t.me"), TargetEntry("b.example", "exact"))),)
    assert read(unblock("u-1", "b-1")).targets == (Target("b-1", None),)


@pytest.mark.parametrize(
    ("urgency", "deadline"),
    [
        ("routine", datetime(2017, 7, 21, 4, 30, tzinfo=UTC)),
        ("urgent", datetime(2017, 7, 15, 4, 30, tzinfo=UTC)),
        ("immediate", datetime(2017, 7, 14, 8, 30, tzinfo=UTC)),
    ],
)
def test_urgency_gives_the_deadline_where_none_is_written(urgency: str, deadline: datetime):
    """Routine 7 d, urgent 24 h, immediate 4 h."""
    assert read(block("b", "t.me", urgency=urgency)).deadline_at == deadline
    written = read(block("b", "t.me", urgency=urgency, deadline_at="2017-09-01T00:00:00Z"))
    assert written.deadline_at == datetime(2017, 9, 1, tzinfo=UTC)


def test_the_deadline_is_not_before_effective_at():
    """The deadline cannot be before `effective_at`."""
    order = read(block("b", "t.me", urgency="immediate", effective_at="2017-08-01T00:00:00Z"))
    assert order.deadline_at == order.effective_at


def test_the_shipped_telegram_orders_are_what_history_says():
    """14 July 2017 11:30 WIB to 10 August 2017 10:46 WIB, 11 names."""
    texts = [path.read_text() for path in sorted(SHIPPED.iterdir())]
    blocked, lifted = (read(text) for text in texts)
    assert blocked.effective_at == datetime(2017, 7, 14, 4, 30, tzinfo=UTC)
    assert [entry.name for entry in blocked.entries] == [
        "t.me",
        "telegram.me",
        "telegram.org",
        "core.telegram.org",
        "desktop.telegram.org",
        "macos.telegram.org",
        "web.telegram.org",
        "venus.web.telegram.org",
        "pluto.web.telegram.org",
        "flora.web.telegram.org",
        "flora-1.web.telegram.org",
    ]
    assert lifted.effective_at == datetime(2017, 8, 10, 3, 46, tzinfo=UTC)
    assert lifted.targets == (Target(blocked.order_id, None),)
    assert (blocked.issuer, lifted.issuer) == ("kominfo.go.id", "kominfo.go.id")
    assert (blocked.seq, lifted.seq, lifted.prev) == (1, 2, blocked.sha256)


# ------- What is refused -------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (block("b", "t.me", entires="x"), "6: 'entires': unknown key"),
        (
            block("b", "t.me").replace("/1", "/2"),
            "1: 'dnsblock.order/2': schema: this version reads dnsblock.order/1",
        ),
        (
            block("b", "t.me").replace("issuer: a", "issuer: A b"),
            "2: 'A b': issuer: must be 1 to 63 lower-case letters, digits, dots, hyphens and underscores",
        ),
        (block("b", "t.me").replace("order_id: b\n", ""), "1: 'order_id': is required and is missing"),
        (block("x" * 201, "t.me"), f"3: '{'x' * 79}…': order_id: longer than 200 bytes"),
        (block("é" * 101, "t.me"), f"3: '{'é' * 79}…': order_id: longer than 200 bytes"),
        (block("'b '", "t.me"), "3: 'b ': order_id: must be printable text, without spaces around it"),
        (block('"b\\n"', "t.me"), "3: 'b\\n': order_id: must be printable text, without spaces around it"),
        (
            block("b\u200b", "t.me"),
            "3: 'b\\u200b': order_id: must be printable text, without spaces around it",
        ),
        (document("b", "revoke"), "1: 'targets': is required: revoke says which orders it ends"),
        (
            document("b", "supersede", entries=["t.me"]),
            "1: 'targets': is required: supersede says which orders it ends",
        ),
        (
            document("b", "supersede", targets=["{order_id: x, entries: all}"]),
            "1: 'entries': one of entries and entries_file is required, and only one",
        ),
        (document("b", "notice"), "1: 'entries': one of entries and entries_file is required, and only one"),
        (document("b", "snapshot"), "1: 'statement': belongs to action snapshot, and a snapshot needs one"),
        (document("b", "rotate"), "1: 'keys': belongs to action rotate, and a rotate needs it"),
        (document("b", "rotate", keys="{add: []}"), "6: 'keys': must add or remove a key"),
        (
            exempt("b", "t.me", notice="n"),
            "6: 'n': belongs to action block: the order_id of the notice that announced it",
        ),
        (
            document("b", "blok", entries=["t.me"]),
            "4: 'blok': action: must be block, unblock, exempt, revoke, supersede, snapshot, notice or "
            "rotate",
        ),
        (block("b", "t.me", seq=0), "6: '0': seq: must be at least 1"),
        (block("b", "t.me", seq=2), "1: 'prev': is required: the sha256 of the issuer's previous order file"),
        (
            block("b", "t.me", seq=1, prev="ab" * 32),
            f"7: '{'ab' * 32}': belongs to an order with a seq of 2 or more",
        ),
        (
            block("b", "t.me", prev="ab" * 32),
            f"6: '{'ab' * 32}': belongs to an order with a seq of 2 or more",
        ),
        (block("b", "t.me", seq=2, prev="abc"), "7: 'abc': prev: must be sha256: and 64 hexadecimal digits"),
        (
            block("b", "t.me", expires_at="2017-07-14T04:30:00Z"),
            "6: '2017-07-14T04:30:00Z': must be after effective_at",
        ),
        (block("b", "t.me", urgency="soon"), "6: 'soon': urgency: must be routine, urgent or immediate"),
        (
            block("b", "t.me", acks="[popular]"),
            "6: 'popular': acks.0: must be a guard code in capitals, such as POPULAR",
        ),
        (block("b"), "1: 'entries': one of entries and entries_file is required, and only one"),
        (
            with_lines(
                block("b", entries_file=f"{{path: a.txt, sha256: {'ab' * 32}, lines: 1}}"), "entries: [t.me]"
            ),
            "7: 'entries': one of entries and entries_file is required, and only one",
        ),
        (with_lines(block("b"), "entries: []"), "6: entries: must not be empty"),
        (with_lines(block("b"), "entries: t.me"), "6: 't.me': entries: must be a list"),
        (
            with_lines(block("b", "t.me"), "targets: [{order_id: x, entries: all}]"),
            "8: 'targets': belongs to the actions unblock, revoke and supersede",
        ),
        (block("b", "t me"), "7: 't me': SYNTAX: contains a space: write one name, without spaces"),
        (
            block("b", "'*.t.me'"),
            "7: '*.t.me': SYNTAX: a wildcard: write the name without `*.` and `match: below`",
        ),
        (block("b", "{name: t.me, mtch: exact}"), "7: 'mtch': unknown key (entries.0.mtch)"),
        (
            block("b", "{name: t.me, match: regex}"),
            "7: 'regex': entries.0.match: must be exact, subtree or below",
        ),
        (block("b", "[t.me]"), "7: entries.0: must be a mapping of keys and values"),
        (block("b", "~"), "7: entries.0: must be a mapping of keys and values"),
        (
            exempt("e", "{name: t.me, answer: drop}"),
            "7: 'drop': an exemption has no answer: the name is not blocked",
        ),
        (document("u", "unblock"), "1: 'targets': is required: unblock says which orders it ends"),
        (
            with_lines(unblock("u", "b"), "entries: [t.me]"),
            "8: 'entries': unblock has no entries of its own: name them in its targets",
        ),
        (
            unblock("u", "b", expires_at="2018-01-01T00:00:00Z"),
            "6: '2018-01-01T00:00:00Z': unblock does not expire: block or exempt again with a new order",
        ),
        (
            document("u", "unblock", targets=["{order_id: b, entries: some}"]),
            "7: 'some': targets.entries: must be all, or a list of names",
        ),
        (
            document("u", "unblock", targets=["{order_id: b, entries: []}"]),
            "7: targets.entries: must be all, or a list of names",
        ),
        (
            document("u", "unblock", targets=["{order_id: b}"]),
            "7: 'targets.0.entries': is required and is missing",
        ),
        (
            document("u", "unblock", targets=["{order_id: b, entries: all}"] * 2),
            "8: 'b': the same order as on line 7",
        ),
        (unblock("u", "b", "t me"), "7: 't me': SYNTAX: contains a space: write one name, without spaces"),
        (
            unblock("u", "b", "{name: t.me, match: all}"),
            "7: 'all': targets.0.entries.0.match: must be exact, subtree or below",
        ),
        ("- t.me\n", "1: must be a mapping of keys and values"),
    ],
)
def test_an_error_is_reported_with_line_value_and_reason(text: str, problem: str):
    """Each wrong value is named."""
    assert refused(text) == [problem]


BAD_ENTRIES = {
    "T.ME.": (8, "t.me", "DUPLICATE", "the same entry as on line 7", 1),
    "{name: t.me, match: subtree}": (8, "t.me", "DUPLICATE", "the same entry as on line 7", 1),
    "t me": (8, "t me", "SYNTAX", "contains a space: write one name, without spaces", 1),
    "{name: t..me}": (8, "t..me", "SYNTAX", "empty label: two dots in a row, or a leading dot", 1),
}


@pytest.mark.parametrize(("entry", "found"), BAD_ENTRIES.items())
def test_an_entry_that_cannot_be_read_is_left_out(entry: str, found: tuple[int, str, str, str, int]):
    """The other entries are in force: a typing error holds up nothing else."""
    order = read(block("b", "t.me", entry, "b.example"))
    assert [one.name for one in order.entries] == ["t.me", "b.example"]
    assert order.refused == (RefusedEntry(*found),)


def test_a_target_that_cannot_be_read_is_left_out():
    """An unblock opens the other names."""
    order = read(unblock("u", "b", "t me", "b.example"))
    assert order.targets == (Target("b", (TargetEntry("b.example"),)),)
    reason = "contains a space: write one name, without spaces"
    assert order.refused == (RefusedEntry(7, "t me", "SYNTAX", reason),)


@pytest.mark.parametrize(
    "time",
    [
        "2017-07-14",
        "2017-07-14T11:30:00",  # which of Indonesia's three zones?
        "2017-07-14T11:30+07:00",
        "2017-07-14 11:30:00+07:00",
        "2017-07-14T11:30:00.5+07:00",
        "2017-07-14T11:30:00+0700",
        "2017-02-30T11:30:00+07:00",
        "2017-07-14T24:30:00+07:00",
        "2017-07-14T11:30:00+24:00",
        "2017-07-14T11:30:60Z",
        "٢٠١٧-07-14T11:30:00Z",
        "0001-01-01T00:00:00+07:00",
        "9999-12-31T23:59:59-07:00",
        "9999-12-31T23:59:59Z",
        "1500000000",
        "[]",
    ],
)
def test_a_time_is_rfc_3339_with_an_offset_or_refused(time: str):
    """RFC 3339 section 4.4: a local time without an offset is ambiguous."""
    (problem,) = refused(block("b", "t.me", effective_at=time))
    assert problem.startswith("6: ")
    assert "effective_at: " in problem


def test_every_problem_of_a_document_is_reported_at_once():
    """`check` prints every problem, not only the first; a broken header hides no bad entry."""
    text = block("b", "t..me", "good.example", "co.id", "two words", entires="x", seq="one")
    with pytest.raises(Refused) as caught:
        parse("o.yaml", text.encode())
    assert [problem.line for problem in caught.value.problems] == [6, 7, 9, 12]


def test_a_garbage_document_has_a_bounded_report():
    """Hostile input: a message must not be as large as the document."""
    problems = refused(block("b", *("x y" for _ in range(5000))))
    assert len(problems) == 1001
    assert problems[-1] == " and 4,000 more problems"


def test_more_than_a_mebibyte_is_refused():
    """Larger orders come with an entries_file."""
    (problem,) = refused("#" * (1 << 20) + "\n")
    assert "larger than 1,048,576 bytes" in problem


# ------- Entries in a file of their own -------


@pytest.fixture
def with_file(tmp_path: Path):
    """An order whose entries file holds the text, and promises what is given or what is true."""

    def with_file(text: str | bytes, **promised: object) -> Order:
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "names.txt").write_bytes(data)
        fields = {
            "path": "names.txt",
            "sha256": hashlib.sha256(data).hexdigest(),
            "lines": data.count(b"\n"),
            **promised,
        }
        reference = ", ".join(f"{key}: {value}" for key, value in fields.items())
        return parse(str(tmp_path / "o.yaml"), block("b", entries_file=f"{{{reference}}}").encode())

    return with_file


def test_entries_may_stand_in_a_file_of_their_own(with_file, tmp_path: Path):
    """`entries_file`: path, sha256 and lines."""
    order = with_file("T.me\nmünchen.example\n")
    assert order.entries == ()
    loaded = load_entries_file(order, tmp_path)
    assert loaded.entries == (Entry("t.me", "subtree"), Entry("xn--mnchen-3ya.example", "subtree"))
    assert replace(loaded, entries=()) == order


@pytest.mark.parametrize(
    ("text", "promised", "problem"),
    [
        ("t.me\n", {"sha256": "ab" * 32}, "the sha256 differs from the one in the order"),
        ("t.me\n", {"lines": 2}, "1 line instead of 2 as in the order"),
        ("t.me\nco.id", {}, "the last line has no line end"),
        ("\n", {}, ":1: SYNTAX: empty: a name has at least one label"),
        ("# names\n", {}, ":1: '# names': SYNTAX: comments are not allowed here"),
        ("t.me\r\n", {}, ":1: 't.me\\r': SYNTAX: contains a space"),
        (b"t.me\n\xff\n", {}, ":2: not UTF-8 text"),
    ],
)
def test_a_file_of_entries_is_exactly_what_was_ordered(
    with_file, tmp_path: Path, text: str | bytes, promised: dict, problem: str
):
    """Downloads are cut in the middle, and a half last line may be a country's domain."""
    order = with_file(text, **promised)
    with pytest.raises(Refused) as caught:
        load_entries_file(order, tmp_path)
    (found,) = map(str, caught.value.problems)
    assert found.startswith(str(tmp_path / "names.txt"))
    assert problem in found


def test_a_line_that_cannot_be_read_is_left_out(with_file, tmp_path: Path):
    """The digest proves that the file is complete, so the other lines are what was ordered."""
    order = load_entries_file(with_file("# names\nt.me\n\nT.me\nb.example\n"), tmp_path)
    assert [entry.name for entry in order.entries] == ["t.me", "b.example"]
    assert order.refused == (
        RefusedEntry(1, "# names", "SYNTAX", "comments are not allowed here", 0),
        RefusedEntry(3, "", "SYNTAX", "empty: a name has at least one label", 2),
        RefusedEntry(4, "T.me", "DUPLICATE", "the same entry as on line 2", 3),
    )


@pytest.mark.parametrize("path", ["../secret.txt", "/etc/passwd", "a/b.txt", "..", ".hidden", "b.yaml", "''"])
def test_a_file_of_entries_lies_in_the_orders_folder(path: str):
    """A path must not leave the folder."""
    text = block("b", entries_file=f"{{path: {path}, sha256: {'ab' * 32}, lines: 1}}")
    (problem,) = refused(text)
    assert problem.startswith("6: ")
    assert "entries_file.path: " in problem


def test_a_symlink_out_of_the_orders_folder_is_refused(with_file, tmp_path: Path):
    """A symlink must not read other files of the server."""
    order = with_file("t.me\n")
    folder = tmp_path / "orders"
    folder.mkdir()
    (folder / "names.txt").symlink_to(tmp_path / "names.txt")
    with pytest.raises(Refused, match="leads out of the orders folder"):
        load_entries_file(order, folder)


def test_a_garbage_file_of_entries_has_a_bounded_report(with_file, tmp_path: Path):
    """Hostile input: a message must not be as large as the file."""
    order = with_file("<html>\n" * 500)
    with pytest.raises(Refused) as caught:
        load_entries_file(order, tmp_path)
    assert len(caught.value.problems) == 101
    assert "and 400 more problems" in str(caught.value.problems[-1])
