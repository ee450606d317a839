"""Order documents that `order new` writes (dnsblock/orders/writing.py, names_file.py, form.py)."""

import errno
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsblock import durable
from dnsblock.errors import Refused
from dnsblock.orders.entry import Entry
from dnsblock.orders.form import file_name, filled, local_time, missing
from dnsblock.orders.names_file import read_lines, read_names
from dnsblock.orders.order import parse, with_entries
from dnsblock.orders.writing import NewOrder, written

WIB = ZoneInfo("Asia/Jakarta")
NOW = datetime(2026, 11, 30, 1, 2, 3, 456, tzinfo=UTC)
BLOCK = {"issuer": "ministry.example", "id": "84/2017", "action": "block", "output": "o.yaml"}


def names(*lines: str) -> list[tuple[str, str]]:
    return [(entry.name, entry.match) for entry in read_lines("names.txt", lines, "subtree").entries]


def make(names: tuple[str, ...] = ("t.me",), **form: object) -> NewOrder:
    return filled(BLOCK | form, read_lines("names.txt", names, "subtree").names, WIB, NOW)


def reasons(names: tuple[str, ...] = ("t.me",), **form: object) -> dict[str, str]:
    with pytest.raises(Refused) as refused:
        make(names, **form)
    return {problem.file: problem.reason for problem in refused.value.problems}


# ------- The file with the names -------


def test_a_names_file_may_have_comments_bullets_and_matches():
    """Names are copied from letters, with everything around them."""
    assert names(
        "# Telegram, from annex 2",
        "",
        "t.me            # the short one",
        "  - T.Me.Example.  ",
        "12. telegram.org exact",
        "3) web.telegram.org below",
        "\u2022 b\u00fccher.example",
    ) == [
        ("t.me", "subtree"),
        ("t.me.example", "subtree"),
        ("telegram.org", "exact"),
        ("web.telegram.org", "below"),
        ("xn--bcher-kva.example", "subtree"),
    ]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("https://t.me/channel", "the name t.me would block everything there"),
        ("*.t.me", "write `t.me`, or `t.me below` for the names below it only"),
        ("t.me telegram.org", "one name per line"),
        ("t.me subtrees", "one name per line"),
        ("8.8.8.8", "an IP address"),
        ("user@t.me", "an account"),
        ("t..me", "empty label"),
    ],
)
def test_a_line_that_is_no_name_is_refused_with_a_hint(line: str, hint: str):
    """The clerk corrects all of them at once."""
    found = read_names("names.txt", f"good.example\n{line}\n".encode(), "subtree")
    assert [problem.line for problem in found.problems] == [2]
    assert hint in found.problems[0].reason
    assert len(found.names) == 1


def test_a_repeated_name_is_written_once_and_reported():
    """The same entry twice in a document is refused."""
    found = read_lines("f", ["t.me", "T.ME.", "t.me exact", "t.me subtree"], "subtree")
    assert [(one.entry.name, one.entry.match) for one in found.names] == [
        ("t.me", "subtree"),
        ("t.me", "exact"),
    ]
    assert [one.line for one in found.repeated] == [2, 4]


def test_a_file_of_a_word_processor_is_refused():
    """UTF-16 from Windows, or a PDF."""
    with pytest.raises(Refused) as refused:
        read_names("names.txt", "t.me\n".encode("utf-16"), "subtree")
    assert "UTF-8" in refused.value.problems[0].reason


# ------- Times -------


@pytest.mark.parametrize(
    "text",
    [
        "2017-07-14 11:30",
        "2017-07-14T11:30:00",
        "2017-07-14 11.30",
        "2017-07-14 11:30 WIB",
        "2017-07-14 12.30 wita",
        "2017-07-14 13:30 WIT",
        "2017-07-14T04:30:00Z",
        " 2017-07-14T11:30:00+07:00 ",
    ],
)
def test_times_are_accepted_as_people_in_indonesia_write_them(text: str):
    """All of these are the same moment."""
    assert local_time(text, WIB) == datetime(2017, 7, 14, 4, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "14/07/2017", "2017-02-30", "2017-07-14 11:30:00.5", "0001-01-01", "3000-01-02"]
)
def test_other_times_are_refused(text: str):
    """14/07 and 07/14 would mean different days to different readers."""
    with pytest.raises(ValueError, match=r"\w"):
        local_time(text, WIB)


def test_a_time_is_written_with_its_own_offset():
    """So that a reader in Jakarta sees the time of the letter."""
    order = make(effective="2017-07-14 11:30", expires="2031-01-01T00:00:00Z", review="2020-01-01 00:00 WIT")
    text = written(order, "o.txt").document.decode()
    assert "issued_at: 2026-11-30T08:02:03+07:00" in text
    assert "effective_at: 2017-07-14T11:30:00+07:00" in text
    assert "expires_at: 2031-01-01T00:00:00+00:00" in text
    assert "review_at: 2020-01-01T00:00:00+09:00" in text


# ------- The form -------


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ({}, ["issuer", "id", "action", "output"]),
        (BLOCK, ["names"]),
        (BLOCK | {"notice": "N-1"}, []),
        (BLOCK | {"action": "unblock"}, ["lifts"]),
        (BLOCK | {"action": "supersede"}, ["lifts", "names"]),
        (BLOCK | {"action": "rotate"}, ["add_key"]),
        (BLOCK | {"action": "rotate", "remove_key": ("SHA256:x",)}, []),
        (BLOCK | {"action": "snapshot"}, []),
    ],
)
def test_the_fields_that_an_action_needs_are_known(form: Mapping[str, object], wanted: list[str]):
    """The dialog asks for them, and a script learns all of them at once."""
    assert missing(form) == wanted


def test_every_wrong_field_is_reported_at_once():
    """A clerk must not correct one after the other."""
    found = reasons(
        effective="soon",
        expires="never",
        contacted=("2016-03-29",),
        document_uri="https://example.com",
        subject_contact="x",
        principal=("me",),
    )
    assert found.keys() == {
        "--effective", "--expires", "--contacted", "--document-uri", "--subject-contact", "--principal",
    }  # fmt: skip


def test_names_of_several_orders_cannot_be_lifted_in_one_document():
    """It would be unknown which name belongs to which order."""
    assert "one order" in reasons(action="unblock", lifts=("B-1", "B-2"))["--lifts"]


def test_a_revocation_has_no_names():
    """It ends whole orders; with names, the clerk means an unblock."""
    assert "use unblock" in reasons(action="revoke", lifts=("B-1",))["--names"]


def test_a_lifting_names_a_match_only_if_one_was_written():
    """Without a match, all entries with the name are lifted."""
    order = make(("t.me", "a.example exact"), action="unblock", lifts=("B-1",))
    ((order_id, own),) = order.targets
    assert own is not None
    assert (order_id, [(one.name, one.match) for one in own]) == (
        "B-1",
        [("t.me", None), ("a.example", "exact")],
    )
    assert make((), action="revoke", lifts=("B-1", "B-1", "B-2")).targets == (("B-1", None), ("B-2", None))


def test_the_original_and_the_earlier_contacts_are_written(tmp_path: Path):
    """A court wants to see both."""
    original = tmp_path / "letter.pdf"
    original.write_bytes(b"%PDF")
    order = make(
        document=original,
        document_uri="https://ministry.example/84",
        subject="Telegram FZ-LLC",
        subject_contact="abuse@telegram.org",
        contacted=("2016-03-29 09:00; e-mail; channels of terror", "2017-07-11; e-mail"),
        conditions_id="prosedur baku",
        conditions_en="a standard procedure",
    )
    read = parse("o.yaml", written(order, "o.txt").document)
    assert read.original is not None
    assert read.original.uri == "https://ministry.example/84"
    assert read.subject is not None
    assert (read.subject.name, read.subject.contact) == ("Telegram FZ-LLC", "abuse@telegram.org")
    assert [(one.by, one.about) for one in read.notices] == [
        ("e-mail", "channels of terror"),
        ("e-mail", None),
    ]
    assert read.conditions is not None
    assert read.conditions.en == "a standard procedure"


@pytest.mark.parametrize(
    ("number", "name"),
    [("84/2017", "84-2017.yaml"), ("../../etc", "etc.yaml"), ("\u2026", "order.yaml"), ("a b", "a-b.yaml")],
)
def test_the_file_of_an_order_is_named_after_its_number(number: str, name: str):
    """A number may contain a slash, and a file name may not."""
    assert file_name(number) == name


# ------- The document -------


def test_more_than_a_thousand_names_go_to_a_file():
    """A document of 100,000 lines cannot be read by anybody; its digest is in the document."""
    many = tuple(f"n{number}.example" for number in range(1001))
    content = written(make(many), "o.txt")
    order = parse("o.yaml", content.document)
    assert content.entries is not None
    assert order.entries_file is not None
    assert (order.entries, order.entries_file.path, order.entries_file.lines) == ((), "o.txt", 1001)
    assert [entry.name for entry in with_entries(order, "o.txt", content.entries).entries] == list(many)
    assert written(make(many[:1000]), "o.txt").entries is None


def test_names_with_a_match_stay_in_the_document():
    """An entries file has no match: writing it there would block more than was ordered."""
    many = tuple(f"n{number}.example exact" for number in range(1001))
    content = written(make(many), "o.txt")
    assert content.entries is None
    assert {entry.match for entry in parse("o.yaml", content.document).entries} == {"exact"}


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)
TIMES = st.datetimes(
    datetime(2000, 1, 1),
    datetime(2900, 1, 1),
    timezones=st.builds(timezone, st.integers(-720, 840).map(lambda minutes: timedelta(minutes=minutes))),
).map(lambda time: time.replace(microsecond=0))


@given(
    texts=st.lists(TEXTS, min_size=6, max_size=6),
    basis=st.lists(TEXTS, max_size=3),
    issued=TIMES,
    number=TEXTS.filter(
        lambda text: text.isprintable() and text == text.strip() and len(text.encode()) <= 200
    ),
    own=st.lists(
        st.tuples(
            st.from_regex(r"[a-z]{1,9}\.example", fullmatch=True), st.sampled_from(["exact", "subtree"])
        ),
        min_size=1,
        unique=True,
    ),
)
def test_every_text_is_read_as_it_was_written(
    texts: list[str], basis: list[str], issued: datetime, number: str, own: list[tuple[str, str]]
):
    """Quotation marks, colons, line separators and other scripts in a reason must not change the document."""
    one, two, three, four, five, six = texts
    order = NewOrder(
        issuer="ministry.example",
        order_id=number,
        action="block",
        issued_at=issued,
        legal_basis=tuple(basis),
        reason={"id": one, "en": f"{two}\n{one}"},
        contact=three,
        subject={"name": four, "contact": five},
        conditions={"id": six},
        entries=tuple(Entry(name, match) for name, match in own),  # type: ignore[arg-type]
    )
    read = parse("o.yaml", written(order, "o.txt").document)
    assert (read.order_id, read.issued_at, read.legal_basis) == (number, issued, tuple(basis))
    assert read.reason is not None
    assert (read.reason.id, read.reason.en, read.contact) == (one, f"{two}\n{one}", three)
    assert read.subject is not None
    assert (read.subject.name, read.subject.contact) == (four, five)
    assert [(entry.name, entry.match) for entry in read.entries] == own


@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_is_written_once_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
):
    """A memory stick with FAT, on which a clerk carries the order; no test machine has one."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "order.yaml"
    if not is_there:
        durable.write(path, b"new", replaces=False)
        assert path.read_bytes() == b"new"
        return
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        durable.write(path, b"new", replaces=False)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("order.yaml", b"old")]
