"""The transparency report: what it counts, what it lists, and what it never shows."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsblock.config import Config
from dnsblock.config_file import load
from dnsblock.errors import Refused
from dnsblock.orders.accepted import facts_of
from dnsblock.orders.facts import Activated, Annulment, Lifted, Refusal, Verified
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.records import Fact
from dnsblock.orders.verdict import EntryVerdict, Judgement, Signed
from dnsblock.principal import Principal
from dnsblock.reports.formats import as_csv, as_json
from dnsblock.reports.page import NAMES_SHOWN, as_page, duration
from dnsblock.reports.transparency import Report, report_of

from .helpers import block, document, orders, unblock, with_lines

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ALICE = Principal("local", 1000, "alice")
OFFICER = Signed("budi@ministry.example", "SHA256:abc", "ssh-ed25519")
CONFIG = """
zones:
  - {name: a, issuer: a, unsigned: accept, answer: nxdomain}
  - {name: b, issuer: b, unsigned: accept, answer: nxdomain}
"""


def hour(number: float) -> datetime:
    return BEGIN + timedelta(hours=number)


class Written:
    """A ledger with records at times that a test chooses."""

    def __init__(self, folder: Path) -> None:
        (folder / "dnsblock.yaml").write_text(CONFIG)
        self.config: Config = load(folder / "dnsblock.yaml")
        self.ledger = Ledger.open(self.config.state)

    def accept(self, at: float, text: str, judgement: Judgement | None = None) -> str:
        """An accepted order; returns its number."""
        (order,) = orders(text)
        from dataclasses import replace

        if judgement is not None:
            order = replace(order, judgement=judgement)
        self.add(at, *facts_of([order], (), self.ledger.orders))
        return order.order_id

    def add(self, at: float, *facts: Fact, by: Principal = ALICE) -> None:
        self.ledger.append(list(facts), by, hour(at))

    def enforce(self, at: float, order_id: str, entries: int = 1, issuer: str = "a") -> None:
        self.add(at, Activated(issuer, order_id, entries, 1))

    def report(self, begin: float | None = None, end: float = 1000, *, names: bool = False) -> Report:
        return report_of(self.config, None if begin is None else hour(begin), hour(end), with_names=names)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    made = Written(tmp_path)
    yield made
    made.ledger.close()


def issued(at: float, **more: object) -> dict[str, object]:
    return {"issued_at": hour(at).isoformat(), **more}


def all_formats(report: Report) -> str:
    return "".join([*as_json(report), *as_csv(report), *as_page(report)])


def ids(report: Report, kind: str) -> list[str]:
    return [row["order_id"] for row in report["orders"][kind]]


# ------- What is counted -------


def test_orders_are_in_force_or_ended_at_the_end_of_the_period(written: Written):
    """The same ledger at three times; a report of the past does not change."""
    written.accept(1, block("one", "one.example", "two.example", **issued(0)))
    written.enforce(2, "one", 2)
    written.accept(10, unblock("lift", "one", **issued(10)))
    written.enforce(11, "lift")
    written.add(11, Lifted("a", "one", 2, 2))
    written.accept(20, block("later", "three.example", **issued(20)))
    written.enforce(21, "later")

    early = written.report(end=5)
    assert (ids(early, "in_force"), ids(early, "ended"), ids(early, "lifting")) == (["one"], [], [])
    assert early["totals"]["names_in_force"] == 2
    middle = written.report(begin=5, end=15)
    assert (ids(middle, "in_force"), ids(middle, "ended"), ids(middle, "lifting")) == ([], ["one"], ["lift"])
    late = written.report(begin=15, end=25)
    assert (ids(late, "in_force"), ids(late, "ended"), ids(late, "lifting")) == (["later"], [], [])
    assert early["ledger"]["records"] == 3


def test_times_are_from_receipt_or_effect_whichever_is_later(written: Written):
    """An order that arrives before its effect is not late, and one that arrives after it neither."""
    written.accept(0, block("early", "a.example", **issued(0), effective_at=hour(10).isoformat()))
    written.enforce(10 + 5 / 3600, "early")
    written.accept(20, block("late", "b.example", **issued(0)))
    written.enforce(20 + 30 / 3600, "late")
    written.add(20 + 90 / 3600, Verified("a", "late", ("192.0.2.1",)))
    written.accept(30, unblock("lift", "late", **issued(30)))
    written.enforce(30 + 7 / 3600, "lift")
    times = written.report()["times"]
    assert times["enforce"] == {"count": 2, "median": 17.5, "p90": 30.0, "max": 30.0}
    assert times["verify"] == {"count": 1, "median": 90.0, "p90": 90.0, "max": 90.0}
    assert times["lift"] == {"count": 1, "median": 7.0, "p90": 7.0, "max": 7.0}


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=30))
def test_percentiles_are_those_of_a_naive_count(seconds: list[int]):
    """p90 is the least duration that nine tenths of all do not exceed."""
    from dnsblock.reports.transparency import _times

    found = _times([float(one) for one in seconds])
    within = [one for one in sorted(seconds) if sum(other <= one for other in seconds) >= 0.9 * len(seconds)]
    assert found["p90"] == within[0]
    assert found["max"] == max(seconds)
    assert found["count"] == len(seconds)


def test_a_deadline_is_breached_if_it_passes_without_proof(written: Written):
    """Also if the proof comes later. An order that came after its deadline could not meet it."""
    for number, verified in enumerate((5, 30, None)):
        name = f"order-{number}"
        written.accept(1, block(name, f"{name}.example", **issued(0), deadline_at=hour(24).isoformat()))
        written.enforce(2, name)
        if verified is not None:
            written.add(verified, Verified("a", name, ("192.0.2.1",)))
    written.accept(30, block("came-late", "late.example", **issued(0), deadline_at=hour(24).isoformat()))
    report = written.report()
    assert report["deadlines"] == {"due": 3, "breached": 2}
    breached = [row["order_id"] for row in report["orders"]["in_force"] if row["breached"]]
    assert breached == ["order-1", "order-2"]
    assert written.report(end=20)["deadlines"] == {"due": 0, "breached": 0}
    assert sum(group["breached"] for group in report["groups"]) == 2


def test_orders_are_grouped_by_issuer_category_and_legal_basis(written: Written):
    """The sums of the groups are the totals."""
    law = {"category": "gambling", "legal_basis": '["UU 11/2008"]'}
    for number in range(3):
        written.accept(1, block(f"g{number}", f"g{number}.example", f"h{number}.example", **issued(0), **law))
        written.enforce(2, f"g{number}", 2)
    written.accept(1, block("court", "c.example", issuer="b", **issued(0)))
    written.enforce(2, "court", 1, "b")
    report = written.report()
    keys = [(group["issuer"], group["category"], group["legal_basis"]) for group in report["groups"]]
    assert keys == [("a", "gambling", ["UU 11/2008"]), ("b", None, [])]
    assert [group["names_in_force"] for group in report["groups"]] == [6, 1]
    assert report["totals"]["orders_in_force"] == 4


# ------- What is never shown -------

SECRET = ("secret.example", "hidden.example", "proposed.example", "noticed.example", "planned.example")


def test_orders_that_are_not_enforced_are_counted_and_never_named(written: Written):
    """They may never be blocked: the report must not accuse their owners."""
    held = Judgement((), is_proposed=False).with_verdicts(
        [EntryVerdict(1, "held", "POPULAR", "popular"), EntryVerdict(2, "refused", "PROTECTED", "own")]
    )
    written.accept(1, block("mixed", "open.example", "secret.example", "hidden.example", **issued(0)), held)
    written.enforce(2, "mixed", 1)
    written.accept(
        3, block("flagged", "proposed.example", **issued(0)), Judgement((OFFICER,), is_proposed=True)
    )
    written.accept(4, document("note", "notice", entries=["noticed.example"], **issued(0)))
    written.accept(5, block("soon", "planned.example", **issued(0), effective_at=hour(5000).isoformat()))
    written.add(6, Refusal("x.yaml", "a", "bad", "ab" * 32, ("hidden.example is wrong",)))
    report = written.report(names=True)
    counted = report["counted_only"]
    wanted = {"orders_proposed": 1, "orders_notice": 1, "orders_scheduled": 1, "documents_refused": 1}
    assert {key: counted[key] for key in wanted} == wanted
    assert (counted["names_held"], counted["names_refused"]) == (1, 1)
    text = all_formats(report)
    assert "open.example" in text
    for hidden in (*SECRET, "flagged", "soon", "bad"):
        assert hidden not in text


def test_annulled_orders_are_said_without_the_reason_of_the_operator(written: Written):
    """An error of the issuer stays visible; who found it does not."""
    written.accept(1, block("wrong", "wrong.example", **issued(0)))
    written.enforce(2, "wrong")
    written.accept(1.5, block("unseen", "unseen.example", **issued(0)))
    written.add(3, Annulment("a", "wrong", "Mr Smith called"), Annulment("a", "unseen", "Mr Smith called"))
    report = written.report()
    assert ids(report, "annulled") == ["wrong"]
    assert report["orders"]["annulled"][0]["ended_at"] == "2026-01-01T03:00:00Z"
    assert report["counted_only"]["orders_annulled_before_enforcement"] == 1
    assert "Smith" not in all_formats(report)


def test_no_person_is_named(written: Written):
    """Neither signers, nor users of the server, nor contacts in the order."""
    text = block("one", "one.example", **issued(0), contact="wati@ministry.example")
    text = with_lines(
        text, "reason: {id: kata Budi, en: says Budi}", "subject: {name: Dewi, contact: dewi@x.example}"
    )
    written.accept(1, text, Judgement((OFFICER,), is_proposed=False))
    written.enforce(2, "one")
    found = all_formats(written.report(names=True)).lower()
    for person in ("alice", "budi", "wati@", "dewi", "sha256:abc"):
        assert person not in found


# ------- Formats -------


def test_names_are_listed_only_if_they_are_asked_for(written: Written):
    """By match, since `exact` and `subtree` are not the same block."""
    written.accept(1, block("one", "one.example", "{name: two.example, match: exact}", **issued(0)))
    written.enforce(2, "one", 2)
    written.accept(3, unblock("lift", "one", "one.example", **issued(3)))
    written.enforce(4, "lift")
    written.add(4, Lifted("a", "one", 1, 2))
    assert "one.example" not in all_formats(written.report())
    report = written.report(names=True)
    assert report["orders"]["in_force"][0]["listed_names"] == {"exact": ["two.example"]}
    assert report["orders"]["lifting"][0]["listed_names"] == {"subtree": ["one.example"]}
    rows = list(csv.DictReader(io.StringIO("".join(as_csv(report)))))
    assert [(row["list"], row["name"], row["match"]) for row in rows] == [
        ("in_force", "two.example", "exact"),
        ("lifting", "one.example", "subtree"),
    ]


def test_json_and_csv_have_the_same_orders(written: Written):
    """RFC 8259 and RFC 4180, read by other programs."""
    for number in range(5):
        written.accept(1, block(f"o{number}", f"o{number}.example", **issued(0)))
        written.enforce(2, f"o{number}")
    report = written.report()
    parsed = json.loads("".join(as_json(report)))
    rows = list(csv.DictReader(io.StringIO("".join(as_csv(report)))))
    assert [row["order_id"] for row in rows] == [row["order_id"] for row in parsed["orders"]["in_force"]]
    assert parsed["schema"] == "dnsblock.transparency/1"


HOSTILE = '=HYPERLINK("https://x.example")<script>alert(1)</script>&"\''


def test_hostile_texts_of_an_order_run_nowhere(written: Written):
    """In the page they are escaped, and in a spreadsheet they are no formula."""
    written.accept(1, block("one", "one.example", **issued(0), category=json.dumps(HOSTILE)))
    written.enforce(2, "one")
    report = written.report()
    page = "".join(as_page(report))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    rows = list(csv.DictReader(io.StringIO("".join(as_csv(report)))))
    assert rows[0]["category"] == f"'{HOSTILE}"
    assert report["orders"]["in_force"][0]["category"] == HOSTILE


class Balance(HTMLParser):
    """Finds tags that are not closed, elements with code, and references to other resources."""

    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.languages: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Iterable[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.languages |= {value or "" for name, value in attrs if name == "lang"}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_static_and_in_two_languages(written: Written):
    """It loads nothing, runs nothing, and can be stored anywhere."""
    written.accept(1, block("one", *(f"n{n}.example" for n in range(NAMES_SHOWN + 5)), **issued(0)))
    written.enforce(2, "one", NAMES_SHOWN + 5)
    page = "".join(as_page(written.report(names=True)))
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert not parser.seen & {"script", "img", "link", "iframe", "form", "object"}
    assert not {name for name in parser.attributes if name.startswith("on")} | (
        parser.attributes & {"src", "href"}
    )
    assert parser.languages == {"id", "en"}
    assert "Perintah yang berlaku" in page
    assert "Orders in force" in page
    assert "and 5 more names" in page
    assert "url(" not in page
    assert not re.search(r"\{\{|\{%", page)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\N{EN DASH}"),
        (0.012, "0.012 s"),
        (9.87654, "9.88 s"),
        (59.4, "59 s"),
        (61, "1 min 1 s"),
        (3700, "1 h 1 min"),
        (90_061, "1 d 1 h"),
        (86_400_000, "1,000 d 0 h"),
    ],
)
def test_durations_are_readable(seconds: float | None, text: str):
    """In its two largest units."""
    assert duration(seconds) == text


def test_a_corrupt_ledger_makes_no_report(written: Written):
    """A report that lacks its end would hide what is missing."""
    written.accept(1, block("one", "one.example", **issued(0)))
    written.enforce(2, "one")
    path = written.config.state / "ledger.jsonl"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"one.example", b"two.example", 1))
    with pytest.raises(Refused):
        written.report()


def test_a_server_without_a_ledger_makes_an_empty_report(tmp_path: Path):
    """Before its first startup, too."""
    (tmp_path / "dnsblock.yaml").write_text(CONFIG)
    report = report_of(load(tmp_path / "dnsblock.yaml"), None, hour(1), with_names=True)
    assert report["totals"]["orders_in_force"] == 0
    assert report["instance"] is None
    assert "None." in "".join(as_page(report))
