"""Freeze detection: a status statement, or a gap in the numbers, reveals a withheld order."""

import hashlib
import re
from datetime import datetime
from pathlib import Path

import pytest

from .clocks import begun_before
from .harness import ISSUER, Subject, is_forwarded, is_sinkholed
from .orders import as_yaml, block, in_seconds, stamp, unblock
from .tools import wait_for
from .upstreams import StubUpstream

UNTIL = "2117-01-01T00:00:00+07:00"


class Ministry:
    """The issuer's own folder: every order that it has made, whether it reached the server or not."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.folder = subject.folder / "ministry"
        self.folder.mkdir(exist_ok=True)

    def make(self, document: dict) -> str:
        """An order of the issuer; not sent yet."""
        path = self.folder / f"{document['order_id']}.yaml"
        path.write_text(as_yaml(document))
        return str(path)

    def state(self, number: str, *options: str) -> str:
        """A status statement about all of its orders; not sent yet."""
        path = self.folder / f"{number}.yaml"
        base = ("--issuer", ISSUER, "--id", number, "--action", "snapshot", "--orders", str(self.folder))
        said = self.subject.cli("order new", *base, "-o", str(path), *options)
        assert said.code == 0, said
        return str(path)

    def send(self, *files: str) -> list[str]:
        """Submits documents; returns the notes on the last one."""
        said = self.subject.cli("order submit", *files)
        assert said.code == 0, said
        return said.json["documents"][-1]["notes"]


@pytest.fixture
def ministry(subject: Subject, upstream: StubUpstream) -> Ministry:
    subject.start(upstreams=[upstream.address])
    return Ministry(subject)


def after(path: str, document: dict) -> dict:
    """The document with the number and the digest that follow an order of the folder."""
    content = Path(path).read_bytes()
    seq = int(content.decode().split("seq: ")[1].split()[0])
    return document | {"seq": seq + 1, "prev": hashlib.sha256(content).hexdigest()}


def listed(subject: Subject, number: str) -> dict:
    return next(one for one in subject.cli("order list").json["orders"] if one["order_id"] == number)


def metric(subject: Subject, name: str) -> float:
    return subject.metrics().total(f"dnsblock_{name}", issuer=ISSUER)


def wait_for_metric(subject: Subject, name: str, value: float) -> None:
    wait_for(lambda: metric(subject, name) == value, f"{name} is {value}")


def test_a_withheld_last_unblock_of_a_numbered_issuer_is_revealed(ministry: Ministry):
    """Nothing later shows the gap but the statement; when the unblock comes, the alert ends."""
    subject = ministry.subject
    first = ministry.make(block("B-1", ["one.example"], seq=1))
    ministry.send(first)
    assert metric(subject, "order_gap") == 0
    withheld = ministry.make(after(first, unblock("U-2", "B-1")))
    statement = ministry.state("S-3", "--valid-until", UNTIL)
    assert "MISSING_SEQ: the order with seq 2 has not been received here" in ministry.send(statement)
    assert is_sinkholed(subject.query("one.example"))
    assert metric(subject, "order_gap") == 2
    wait_for_metric(subject, "statement_differs", 1)
    assert "MISSING_SEQ: the order with seq 2 has not been received here" in listed(subject, "S-3")["notes"]
    subject.restart()
    wait_for_metric(subject, "statement_differs", 1)
    ministry.send(withheld)
    assert is_forwarded(subject.query("one.example"))
    wait_for_metric(subject, "statement_differs", 0)
    assert metric(subject, "order_gap") == 0
    assert listed(subject, "S-3")["notes"] == []


def test_a_withheld_last_unblock_of_an_issuer_without_numbers_is_revealed(ministry: Ministry):
    """By the digest alone."""
    subject = ministry.subject
    ministry.send(ministry.make(block("B-1", ["one.example", "two.example"])))
    withheld = ministry.make(unblock("U-2", "B-1", ["one.example"]))
    statement = ministry.state("S-3", "--valid-until", UNTIL)
    note = "STATEMENT_DIFFERS: an order was not received here, or is wrong: 1 entry by the statement, 2 here"
    assert note in ministry.send(statement)
    wait_for_metric(subject, "statement_differs", 1)
    wait_for(
        lambda: note in next(one for one in subject.status()["orders"] if one["order_id"] == "S-3")["notes"],
        "status shows the difference",
    )
    assert note in subject.cli("order show", "S-3").json["notes"]
    page = subject.cli("order show", "S-3", as_json=False).stdout
    assert "1 entry in force, valid until " in page
    ministry.send(withheld)
    wait_for_metric(subject, "statement_differs", 0)


def test_a_statement_past_its_date_is_revealed(subject: Subject, upstream: StubUpstream):
    """The unblock and the next statement may be withheld together."""

    def begin(until: datetime) -> None:
        subject.start(upstreams=[upstream.address])
        own = Ministry(subject)
        own.send(own.make(block("B-1", ["one.example"])))
        assert own.send(own.state("S-2", "--valid-until", stamp(until))) == []

    until = begun_before(subject, 5, begin)
    ministry = Ministry(subject)
    past = re.compile(r"STATEMENT_PAST: valid until 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d WIB: ")
    wait_for_metric(subject, "statement_valid_until_seconds", until.timestamp())
    wait_for(
        lambda: any(past.match(note) for note in listed(subject, "S-2")["notes"]),
        "the statement is past its date",
    )
    wait_for(lambda: listed(subject, "S-2")["state"] == "expired", "the statement is expired")
    renewed = ministry.state("S-3", "--valid-until", UNTIL)
    assert ministry.send(renewed) == []
    later = datetime.fromisoformat(UNTIL).timestamp()
    wait_for_metric(subject, "statement_valid_until_seconds", later)


def test_a_statement_of_the_daemons_own_state_agrees_with_it(ministry: Ministry):
    """For an issuer that runs an instance of its own; a held popular name is not a withheld order."""
    subject = ministry.subject
    first = ministry.make(block("B-1", ["one.example", "t.me"], seq=1))
    ministry.send(first)
    path = ministry.folder / "S-2.yaml"
    base = ("--issuer", ISSUER, "--id", "S-2", "--action", "snapshot", "-o", str(path))
    said = subject.cli("order new", *base)
    assert said.code == 0
    assert any(note.startswith("the statement is of this server") for note in said.json["notes"])
    assert "seq: 2\n" in path.read_text()
    assert "entries: 2\n" in path.read_text().replace("  ", "")
    assert ministry.send(str(path)) == []
    wait_for(lambda: metric(subject, "statement_valid_until_seconds") > 0, "the statement is known")
    assert metric(subject, "statement_differs") == 0


def test_later_orders_leave_a_statement_valid(ministry: Ministry):
    """Orders come every day, statements perhaps every week."""
    subject = ministry.subject
    ministry.send(ministry.make(block("B-1", ["one.example"])))
    assert ministry.send(ministry.state("S-2", "--valid-until", UNTIL)) == []
    later = stamp(in_seconds(2))
    wait_for(lambda: in_seconds(0) > datetime.fromisoformat(later), "a later time of issue")
    ministry.send(ministry.make(block("B-3", ["two.example"], issued_at=later)))
    ministry.send(ministry.make(unblock("U-4", "B-1", issued_at=later)))
    wait_for(lambda: metric(subject, "statement_valid_until_seconds") > 0, "the statement is known")
    assert metric(subject, "statement_differs") == 0
    assert listed(subject, "S-2")["notes"] == []


def test_a_gap_in_the_numbers_is_a_metric(ministry: Ministry):
    """Of several missing numbers the first one."""
    subject = ministry.subject
    first = ministry.make(block("B-1", ["one.example"], seq=1))
    second = ministry.make(after(first, block("B-2", ["two.example"])))
    third = ministry.make(after(second, unblock("U-3", "B-1")))
    ministry.send(third)
    assert metric(subject, "order_gap") == 1
    ministry.send(first)
    assert metric(subject, "order_gap") == 2
    ministry.send(second)
    assert metric(subject, "order_gap") == 0
