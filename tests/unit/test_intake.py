"""Judging the inbox (dnsblock/orders/intake.py)."""

import hashlib
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dnsblock.config import Config
from dnsblock.orders.context import Context
from dnsblock.orders.intake import NOTHING, Intake, examine
from dnsblock.orders.order import Order
from dnsblock.orders.orders import EMPTY
from dnsblock.orders.popular import NameSet, Popular
from dnsblock.orders.references import References
from dnsblock.orders.state import derive

from .helpers import AUGUST_10, JULY_14, block, exempt, sha256, unblock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = Config.model_validate(
    {
        "upstream": {"servers": ["192.0.2.1"]},
        "orders": "orders",
        "answers": {"landing": {"action": "cname", "target": "landing.example"}},
        "zones": [
            {"name": "za", "issuer": "a", "unsigned": "accept", "answer": "nxdomain"},
            {"name": "zb", "issuer": "b", "unsigned": "accept", "answer": "nxdomain"},
            {"name": "court", "issuer": "court", "answer": "nxdomain"},
        ],
    }
)


def judge(folder: Path, known: Iterable[Order] = (), config: Config = CONFIG, now: datetime = NOW) -> Intake:
    """Without a list of popular names: the guards have their own tests."""
    references = References(own_popular=Popular(NameSet.of(["popular.example"]), ""))
    return examine(folder, Context(config, references, EMPTY.plus(known), now))


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "orders").mkdir()
    return tmp_path / "orders"


@pytest.fixture
def take(inbox: Path) -> Callable[..., Intake]:
    """Puts documents into the inbox under the names 0.yaml, 1.yaml, … and examines it."""

    def take(*documents: str, known: tuple[Order, ...] = ()) -> Intake:
        for path in inbox.glob("[0-9].yaml"):
            path.unlink()
        for number, text in enumerate(documents):
            (inbox / f"{number}.yaml").write_text(text)
        return judge(inbox, known)

    return take


@pytest.fixture
def refused(take: Callable[..., Intake]) -> Callable[..., list[str]]:
    """The problems of an inbox as `file:line: text`, without the folder."""

    def refused(*documents: str, known: tuple[Order, ...] = ()) -> list[str]:
        return [str(problem).partition("/orders/")[2] for problem in take(*documents, known=known).problems]

    return refused


def ids(intake: Intake) -> list[str]:
    return [order.order_id for order in intake.new]


# ------- What is taken -------


def test_an_empty_inbox_brings_nothing(take):
    """The daemon starts without orders."""
    assert take() == NOTHING


def test_an_order_in_the_ledger_is_not_accepted_again(take):
    """Same issuer, same number, same bytes: ignored, whatever the file is called now."""
    known = take(block("b-1", "t.me")).new
    assert take(block("b-2", "c.example"), block("b-1", "t.me"), known=known).new[0].order_id == "b-2"
    assert take(block("b-1", "t.me"), block("b-1", "t.me")).new == known


def test_a_known_order_stays_known_though_it_would_be_refused_today(take, inbox: Path):
    """A guard or a configuration that changed later does not judge the past."""
    known = take(block("b-1", "t.me", "popular.example")).new
    no_zones = CONFIG.model_copy(update={"zones": ()})
    assert judge(inbox, known, no_zones) == NOTHING


def test_unblock_orders_come_after_their_targets_whatever_the_file_names(take):
    """File names say nothing about the sequence."""
    intake = take(
        unblock("a-lift", "b-1", issued_at=JULY_14),
        block("c-3", "c.example", issued_at=AUGUST_10),
        block("b-1", "t.me", issued_at=JULY_14),
        block("b-0", "b.example", issued_at=JULY_14),
    )
    assert ids(intake) == ["b-0", "b-1", "c-3", "a-lift"]


def test_numbered_orders_come_by_their_number(take):
    """`seq` decides, not the file name."""
    first = block("z", "t.me", seq=1, issued_at=AUGUST_10)
    second = unblock("y", "z", seq=2, prev=sha256(first))
    third = block("x", "t.me", seq=3, prev=sha256(second))
    assert ids(take(third, second, first)) == ["z", "y", "x"]
    assert take(third, second, first).notes == ()


def test_an_order_after_a_gap_is_accepted_and_reported(take):
    """So that a withheld unblock is noticed."""
    first = block("b-1", "t.me", seq=1)
    intake = take(first, block("b-3", "c.example", seq=3, prev="ab" * 32))
    assert ids(intake) == ["b-1", "b-3"]
    assert len(intake.notes) == 1
    assert intake.notes[0].endswith("1.yaml: HELD: the order with seq 2 has not been received")


def test_unblocking_an_unblocked_name_is_accepted_and_reported(take):
    """NOT_BLOCKED: accepted and noted."""
    intake = take(block("b-1", "t.me"), unblock("u-1", "b-1"), unblock("u-2", "b-1"))
    (note,) = intake.notes
    assert note.endswith("2.yaml: NOT_BLOCKED: 1 of 1 entries had ended already")


def test_other_files_are_ignored(take, inbox: Path):
    """Editors' copies, signatures, folders; none of them is even read."""
    for name in (".hidden.yaml", "o.yaml~", "o.yaml.tmp", "o.yaml.sig", "README.md", "names.txt"):
        (inbox / name).write_bytes(b"\x00: [")
    (inbox / "folder.yaml").mkdir()
    assert ids(take(block("b-1", "t.me"))) == ["b-1"]


@pytest.mark.parametrize("name", ["o.yaml", "o.yml", "o.json", "O.YAML"])
def test_a_document_is_recognised_by_its_extension(take, inbox: Path, name: str):
    """.yaml, .yml and .json; everything else is ignored."""
    (inbox / name).write_text(block("b-1", "t.me"))
    assert ids(take()) == ["b-1"]


def test_a_link_to_a_document_is_followed(take, inbox: Path, tmp_path: Path):
    """Kubernetes mounts a folder of links."""
    (tmp_path / "real.yaml").write_text(block("b-1", "t.me"))
    (inbox / "link.yaml").symlink_to(tmp_path / "real.yaml")
    assert ids(take()) == ["b-1"]


def test_a_known_order_with_held_names_that_has_expired_stays_known(inbox: Path):
    """Its file may still be in the inbox: a reload must not report it as refused for ever."""
    (inbox / "0.yaml").write_text(block("b-1", "popular.example", expires_at="2026-06-01T00:00:00Z"))
    known = judge(inbox).new
    assert [one.code for one in known[0].judgement.held] == ["POPULAR"]
    assert judge(inbox, known, now=datetime(2027, 1, 1, tzinfo=UTC)) == NOTHING


# ------- What is refused -------


@pytest.mark.parametrize(
    ("documents", "problem"),
    [
        (
            [block("b", "t.me", issuer="someone")],
            "0.yaml:2: 'someone': UNKNOWN_ISSUER: no zone in the configuration is for this issuer",
        ),
        (
            [block("b", "t.me", issuer="court")],
            "0.yaml:2: 'court': UNSIGNED: no keys are configured for this issuer: add it to `issuers` with "
            "its file of keys, or set `unsigned: accept` in its zone",
        ),
        (
            [block("b", "{name: c.example, answer: sinkhole}")],
            "0.yaml:7: 'c.example': ANSWER: no answer profile sinkhole in the configuration",
        ),
        (
            [block("b", "com")],
            "0.yaml:7: 'com': PUBLIC_SUFFIX: a top-level domain; an order names single domains",
        ),
        (
            [block("b", "co.id")],
            "0.yaml:7: 'co.id': PUBLIC_SUFFIX: a public suffix; an order names single domains",
        ),
        (
            [block("b", "t..me")],
            "0.yaml:7: 't..me': SYNTAX: empty label: two dots in a row, or a leading dot",
        ),
        (
            [unblock("u", "b-77")],
            "0.yaml:7: 'b-77': UNKNOWN_ORDER: no order of a with this order_id was accepted before this one",
        ),
        (
            [block("b", "t.me", issuer="b"), unblock("u", "b")],
            "1.yaml:7: 'b': UNKNOWN_ORDER: no order of a with this order_id was accepted before this one",
        ),
        (
            [exempt("e", "t.me"), unblock("u", "e")],
            "1.yaml:7: 'e': UNKNOWN_ORDER: is an order to exempt: unblock ends only block, supersede: "
            "use revoke",
        ),
        (
            [block("b", "t.me"), unblock("u", "b", "telegram.org")],
            "1.yaml:7: 'telegram.org': UNKNOWN_ENTRY: the order b has no such entry",
        ),
        (
            [block("b", "t.me"), unblock("u", "b", "{name: t.me, match: exact}")],
            "1.yaml:7: 't.me (exact)': UNKNOWN_ENTRY: the order b has no such entry",
        ),
        (
            [block("b", "t.me", seq=1), block("c", "c.example", seq=1)],
            "1.yaml:6: '1': WRONG_SEQ: this seq is that of order b",
        ),
    ],
)
def test_an_order_that_does_not_fit_is_refused_with_its_line(refused, documents: list[str], problem: str):
    """File, line and reason."""
    assert refused(*documents) == [problem]


def test_a_number_that_was_used_for_other_bytes_is_refused(take, refused):
    """Reuse of an order_id with other bytes is refused."""
    known = take(block("b-1", "t.me")).new
    (problem,) = refused(block("b-1", "t.me", "c.example"), known=known)
    assert problem.startswith("0.yaml:3: 'b-1': REUSED: this order_id was used already, for other bytes")
    assert f"sha256:{known[0].sha256}" in problem
    (problem,) = refused(block("b-1", "t.me"), block("b-1", "c.example"))
    assert ".yaml:3: 'b-1': REUSED: this order_id was used already" in problem
    assert ids(take(block("b-1", "t.me"), block("b-1", "t.me", issuer="b"))) == ["b-1", "b-1"]


def test_a_repeated_seq_is_refused(take, refused):
    """Strictly +1 per issuer: two orders cannot have one `seq`."""
    known = take(block("b-1", "t.me", seq=1)).new
    (problem,) = refused(block("c-1", "c.example", seq=1), known=known)
    assert problem == "0.yaml:6: '1': WRONG_SEQ: this seq is that of order b-1"


def test_an_issuer_numbers_all_of_its_orders_or_none(take, refused):
    """Strictly +1 per issuer; an order without a number could not be missed."""
    reason = "WRONG_SEQ: an issuer numbers all of its orders with seq, or none"
    numbered = take(block("b-1", "t.me", seq=1)).new
    assert refused(block("b-2", "c.example"), known=numbered) == [f"0.yaml:1: {reason}"]
    plain = take(block("b-1", "t.me")).new
    assert refused(block("b-2", "c.example", seq=1), known=plain) == [f"0.yaml:6: '1': {reason}"]


def test_a_held_order_can_be_replaced_by_another_with_its_number(take):
    """Its prev was wrong: the issuer sends the order again, under a new order_id."""
    first = block("b-1", "t.me", seq=1)
    known = take(first, block("b-2", "c.example", seq=2, prev="ab" * 32)).new
    intake = take(block("b-2a", "c.example", seq=2, prev=sha256(first)), known=known)
    assert (ids(intake), intake.notes) == (["b-2a"], ())


def test_every_problem_of_every_file_is_reported(refused):
    """Every file is named, not only the first."""
    problems = refused(
        block("b-1", "good.example"),
        block("b-2", "t..me", "good.example", entires="x"),
        "- nothing\n",
        block("b-3", "t.me", issuer="someone"),
        unblock("u-1", "b-77"),
    )
    assert [problem.partition(": ")[0] for problem in problems] == [
        "1.yaml:6",
        "1.yaml:8",
        "2.yaml:1",
        "3.yaml:2",
        "4.yaml:7",
    ]


# ------- Each entry stands alone -------

GOOD = "good.example"
BAD_ENTRIES = {
    "t..me": "0.yaml:8: 't..me': SYNTAX: empty label: two dots in a row, or a leading dot",
    GOOD: "0.yaml:8: 'good.example': DUPLICATE: the same entry as on line 7",
    "com": "0.yaml:8: 'com': PUBLIC_SUFFIX: a top-level domain; an order names single domains",
    "co.id": "0.yaml:8: 'co.id': PUBLIC_SUFFIX: a public suffix; an order names single domains",
    "{name: c.example, answer: sinkhole}": (
        "0.yaml:8: 'c.example': ANSWER: no answer profile sinkhole in the configuration"
    ),
}


@pytest.mark.parametrize(("entry", "note"), BAD_ENTRIES.items())
def test_a_refused_entry_refuses_only_itself(take, entry: str, note: str):
    """The other entries are in force, and a note names the refused one."""
    intake = take(block("b-1", GOOD, entry))
    assert (ids(intake), intake.refused) == (["b-1"], ())
    assert [one.partition("/orders/")[2] for one in intake.notes] == [note]
    (part,) = derive(EMPTY.plus(intake.new), NOW).entries_of("a")
    assert part.entry.name == GOOD


def test_a_target_that_does_not_exist_refuses_only_itself(take):
    """The other names are open at once, and a note names the refused one."""
    known = take(block("b-1", "t.me", "telegram.me")).new
    intake = take(unblock("u-1", "b-1", "telegram.me", "t.example"), known=known)
    assert (ids(intake), intake.refused) == (["u-1"], ())
    (note,) = intake.notes
    assert note.endswith("0.yaml:7: 't.example': UNKNOWN_ENTRY: the order b-1 has no such entry")
    (part,) = derive(EMPTY.plus([*known, *intake.new]), NOW).entries_of("a")
    assert part.entry.name == "t.me"


# ------- Numbers never refuse an order that opens names -------


@pytest.mark.parametrize(
    ("numbers", "notes"),
    [
        ({"seq": 1}, ["WRONG_SEQ: 1: this seq is that of order b-1; the order applies anyway"]),
        (
            {},
            ["WRONG_SEQ: : an issuer numbers all of its orders with seq, or none; the order applies anyway"],
        ),
        ({"seq": 2, "prev": "ab" * 32}, ["GAP: prev is not the sha256 of the order with seq 1, which is"]),
    ],
    ids=["used", "missing", "wrong prev"],
)
def test_an_unblock_with_a_wrong_number_applies_anyway(take, numbers: dict[str, object], notes: list[str]):
    """The lifting of a block is never held, and the wrong number is reported."""
    known = take(block("b-1", "t.me", seq=1)).new
    intake = take(unblock("u-1", "b-1", **numbers), known=known)
    assert (ids(intake), intake.refused) == (["u-1"], ())
    assert len(intake.notes) == len(notes)
    for found, begin in zip(intake.notes, notes, strict=True):
        assert found.partition("0.yaml: ")[2].startswith(begin)
    state = derive(EMPTY.plus([*known, *intake.new]), NOW)
    assert [row.state for row in state.orders] == ["lifted", "active"]


# ------- Each document stands alone -------

BAD_DOCUMENTS = {
    "half written": block("x", "bad.example")[:-10],
    "syntax error": "entries: [",
    "unknown issuer": block("x", "bad.example", issuer="someone"),
    "unsigned where signatures are required": block("x", "bad.example", issuer="court"),
    "public suffix": block("x", "co.id"),
    "unknown answer profile": block("x", "{name: bad.example, answer: gone}"),
    "unknown target": unblock("x", "b-77"),
    "number in use": block("known", "bad.example"),
    "malformed name": block("x", "bad..example"),
    "numbered among orders without numbers": block("x", "bad.example", seq=1),
    "entries file that is missing": block(
        "x", entries_file=f"{{path: gone.txt, sha256: {'0' * 64}, lines: 1}}"
    ),
}


@pytest.mark.parametrize("bad", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_a_refused_document_delays_no_other(take, bad: str):
    """An unblock order must not wait for somebody else's file."""
    known = take(block("known", "t.me")).new
    for documents in ((bad, unblock("u-1", "known"), block("b-1", "new.example")),):
        for rotated in (documents, documents[1:] + documents[:1], documents[2:] + documents[:2]):
            intake = take(*rotated, known=known)
            assert ids(intake) == ["b-1", "u-1"]
            assert len(intake.refused) == 1


def test_an_unblock_of_a_refused_order_is_refused_until_that_one_is_accepted(take):
    """Its target is unknown, and known at the next reload."""
    bad, lifting = block("b-1", "co.id"), unblock("u-1", "b-1")
    intake = take(lifting, bad)
    assert (ids(intake), len(intake.refused)) == ([], 2)
    assert ids(take(lifting, block("b-1", "t.me"))) == ["b-1", "u-1"]


def test_a_refused_order_uses_up_no_number(take):
    """Two orders with seq 2, of which one is refused for its names: the other one is accepted."""
    first = block("a-1", "t.me", seq=1)
    bad = block("a-2", "co.id", seq=2, prev=sha256(first))
    good = block("a-3", "c.example", seq=2, prev=sha256(first))
    for documents in ((first, bad, good), (good, bad, first), (bad, good, first)):
        intake = take(*documents)
        assert (ids(intake), intake.notes) == (["a-1", "a-3"], ())
        assert [one.order_id for one in intake.refused] == ["a-2"]


def test_of_two_orders_with_one_number_the_one_that_follows_is_accepted(take):
    """`prev` decides which of the two the issuer meant."""
    first = block("z-1", "t.me", seq=1)
    wrong = block("a-2", "c.example", seq=2, prev="ab" * 32)
    right = block("b-2", "c.example", seq=2, prev=sha256(first))
    for documents in ((first, wrong, right), (right, wrong, first)):
        intake = take(*documents)
        assert ids(intake) == ["z-1", "b-2"]
        assert [one.order_id for one in intake.refused] == ["a-2"]


def test_a_held_order_that_is_replaced_is_annulled(take):
    """It stayed held for ever, and its alert with it."""
    first = block("b-1", "t.me", seq=1)
    known = take(first, block("b-2", "c.example", seq=2, prev="ab" * 32)).new
    assert [row.state for row in derive(EMPTY.plus(known), NOW).orders] == ["active", "held"]
    new = take(block("b-2a", "c.example", seq=2, prev=sha256(first)), known=known).new
    states = derive(EMPTY.plus([*known, *new]), NOW).orders
    assert [row.state for row in states] == ["active", "annulled", "active"]
    assert states[1].notes == ("ANNULLED: another order with seq 2 was accepted: b-2a",)


# ------- What has ended already -------

ENDED = "2018-01-01T00:00:00Z"
NO_EFFECT = "EXPIRED: expires_at has passed, so this order to {} would have no effect: is the year right?"


def test_an_expired_order_is_refused(refused):
    """Most often its year is wrong."""
    for make in (block, exempt):
        (problem,) = refused(make("x", "t.me", expires_at=ENDED))
        assert problem.endswith(NO_EFFECT.format(make.__name__))
        assert problem.startswith("0.yaml:6: ")


def test_an_expired_order_is_accepted_if_others_refer_to_it(take):
    """All orders of an issuer are read again by a new server: none of them may be held or refused for it."""
    first = block("b-1", "t.me", seq=1, expires_at=ENDED)
    second = block("b-2", "c.example", seq=2, prev=sha256(first))
    intake = take(second, first)
    assert (ids(intake), intake.refused, intake.notes) == (["b-1", "b-2"], (), ())
    lifting = unblock("u-1", "b-1")
    assert ids(take(lifting, block("b-1", "t.me", expires_at=ENDED))) == ["b-1", "u-1"]


def test_a_possible_mistake_is_accepted_and_reported(take):
    """An unusual order is still an order; the remarks are shown."""
    intake = take(block("b-1", "p\u0430ypal.example", expires_at="2206-07-14T11:30:00+07:00"))
    assert ids(intake) == ["b-1"]
    assert [note.partition("/0.yaml:")[2] for note in intake.notes] == [
        "8: p\u0430ypal.example is the A-label xn--pypal-4ve.example",
        "8: MIXED_SCRIPT: p\u0430ypal mixes CYRILLIC and LATIN letters: is this name meant?",
        "6: '2206-07-14T11:30:00+07:00': FAR_YEAR: expires_at is more than 10 years ahead",
    ]


def test_an_unreadable_folder_is_reported_with_advice(tmp_path: Path):
    """A wrong path is not an empty inbox."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "gone", tmp_path / "file"):
        (problem,) = judge(folder).problems
        assert str(problem).startswith(f"{folder}: ")
        assert "create the folder and let dnsblock read it" in problem.reason


def test_a_device_in_the_inbox_delays_nothing(refused, inbox: Path):
    """Opening a FIFO waits for a writer, which may never come."""
    os.mkfifo(inbox / "o.yaml")
    assert refused() == ["o.yaml: cannot be read: not a regular file"]


def test_an_unreadable_file_affects_only_itself(take, inbox: Path):
    """A disk error, a wrong owner, a broken link: the next reload reads it again."""
    os.mkfifo(inbox / "a.yaml")
    (inbox / "z.yaml").symlink_to("gone")
    intake = take(block("b-1", "t.me"))
    assert ids(intake) == ["b-1"]
    assert [Path(one.file).name for one in intake.refused] == ["a.yaml", "z.yaml"]


def test_a_broken_link_and_a_hostile_file_name_are_refused(refused, inbox: Path):
    """The inbox is writable by others: names and links are hostile input."""
    (inbox / "\x1b[2J\n.yaml").symlink_to("gone")
    assert refused() == ["\\x1b[2J\\n.yaml: cannot be read: No such file or directory"]


def test_too_many_documents_are_refused(take, monkeypatch: pytest.MonkeyPatch, inbox: Path):
    """Each of them is read at each publish. The limit is 10,000; here it is 2."""
    monkeypatch.setattr("dnsblock.orders.intake.MAX_FILES", 2)
    documents = [block(f"b-{number}", "t.me") for number in range(3)]
    assert ids(take(*documents[:2])) == ["b-0", "b-1"]
    (problem,) = take(*documents).problems
    assert str(problem).startswith(f"{inbox}: more than 2 documents")


# ------- Entries in a file of their own -------


def with_file(inbox: Path, names: bytes) -> str:
    (inbox / "names.txt").write_bytes(names)
    digest = hashlib.sha256(names).hexdigest()
    lines = len(names.splitlines())
    return block("b-1", entries_file=f"{{path: names.txt, sha256: {digest}, lines: {lines}}}")


def test_entries_in_a_file_are_checked_like_others(take, inbox: Path):
    """Guards apply to `entries_file` too."""
    intake = take(with_file(inbox, b"a.example\nb.example\n"))
    assert [entry.name for entry in intake.new[0].entries] == ["a.example", "b.example"]
    intake = take(with_file(inbox, b"a.example\nx y\nco.id\nid\na.example\n"))
    assert (ids(intake), intake.refused) == (["b-1"], ())
    assert [note.split(": ")[:3] for note in intake.notes] == [
        ["names.txt:2", "'x y'", "SYNTAX"],
        ["names.txt:5", "'a.example'", "DUPLICATE"],
        ["names.txt:3", "'co.id'", "PUBLIC_SUFFIX"],
        ["names.txt:4", "'id'", "PUBLIC_SUFFIX"],
    ]
    problems = take(with_file(inbox, b"co.id\nid\n")).problems
    assert [str(problem).split(": ")[:3] for problem in problems] == [
        ["names.txt:1", "'co.id'", "PUBLIC_SUFFIX"],
        ["names.txt:2", "'id'", "PUBLIC_SUFFIX"],
    ]


def test_problems_behind_a_refused_entry_have_the_right_line(take):
    """A refused entry is left out. The lines of the entries after it do not move."""
    intake = take(block("b-1", "a.example", "t..me", "co.id", "xn--mnchen-3ya.example"))
    assert [note.partition("0.yaml:")[2].split(": ")[0] for note in intake.notes] == ["8", "9", "10"]


def test_only_the_first_of_many_refused_entries_are_named(take, monkeypatch: pytest.MonkeyPatch):
    """An entries file may have millions. The limit is 1,000; here it is 1."""
    monkeypatch.setattr("dnsblock.orders.intake.MAX_REFUSED_SHOWN", 1)
    notes = take(block("b-1", "a.example", "t..me", "x y", "z..me")).notes
    assert len(notes) == 2
    assert notes[1].endswith("0.yaml: 2 more entries are refused")


def test_entries_in_a_file_can_be_unblocked_by_name(take, refused, inbox: Path):
    """An unblock may name single entries of a large order."""
    known = take(with_file(inbox, b"a.example\nb.example\n")).new
    assert ids(take(unblock("u-1", "b-1", "b.example"), known=known)) == ["u-1"]
    assert refused(unblock("u-2", "b-1", "c.example"), known=known) == [
        "0.yaml:7: 'c.example': UNKNOWN_ENTRY: the order b-1 has no such entry"
    ]
