"""`order new` writes documents that `order check` and the daemon accept, from options alone."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from .clients import Said
from .harness import ISSUER, Subject, is_forwarded, is_sinkholed
from .orders import as_yaml, block
from .tools import dnsblock, run, tool
from .upstreams import StubUpstream

ALONE = ("-c", "nothing.yaml")


class Desk:
    """A clerk's folder, without configuration and daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str, content: str) -> str:
        (self.folder / name).write_text(content)
        return name

    def order(self, command: str, *arguments: str, given: str | None = None, **more: str) -> Said:
        done = subprocess.run(
            [dnsblock(), "order", command, *ALONE, *arguments],
            cwd=self.folder,
            input=given or "",
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"LC_ALL": "C.UTF-8", **more},
        )
        parsed = json.loads(done.stdout) if "--json" in arguments and done.stdout.strip() else None
        return Said(done.returncode, parsed, done.stdout, done.stderr)

    def new(self, number: str, action: str, *arguments: str, **more: str) -> Said:
        base = ("--issuer", ISSUER, "--id", number, "--action", action, "-o", f"{number}.yaml")
        return self.order("new", *base, *arguments, **more)

    def read(self, number: str) -> dict:
        return yaml.load((self.folder / f"{number}.yaml").read_text(), Loader=yaml.BaseLoader)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# ------- Without a daemon -------


def test_the_clerks_own_file_of_names_is_never_overwritten(desk: Desk):
    """It is named as the entries file would be; --force is for what the command wrote before."""
    many = "# the annex\n" + "".join(f"n{number}.example\n" for number in range(1001))
    desk.file("B-1.txt", many)
    said = desk.new("B-1", "block", "--names", "B-1.txt", "--force", "--no-seq")
    assert (said.code, "is the file of --names" in said.stderr) == (4, True)
    assert (desk.folder / "B-1.txt").read_text() == many


def test_a_document_is_written_from_options_and_accepted_by_check(desk: Desk):
    """The issue's own example of a call."""
    desk.file("names.txt", "# annex\nT.ME.example\nslot.example exact\n")
    said = desk.new(
        "B-1", "block", "--names", "names.txt", "--effective", "2017-07-14 11:30", "--urgency", "immediate",
        "--category", "terrorism", "--legal-basis", "Law 19/2016", "--legal-basis", "Law 11/2008",
        "--reason-id", "Terorisme: \"radikal\"", "--reason-en", "Terrorism", "--expires", "2117-01-01",
        "--contact", "blocking@ministry.example",
    )  # fmt: skip
    assert said.code == 0, said
    written = desk.read("B-1")
    assert written["entries"] == ["t.me.example", {"name": "slot.example", "match": "exact"}]
    assert written["effective_at"] == "2017-07-14T11:30:00+07:00"
    assert written["legal_basis"] == ["Law 19/2016", "Law 11/2008"]
    assert written["reason"] == {"id": 'Terorisme: "radikal"', "en": "Terrorism"}
    assert "seq" not in written, "no previous order is known"
    assert "without seq" in said.stderr
    assert list(written)[-1] == "end"
    assert desk.order("check", "B-1.yaml").code == 0


def test_every_action_can_be_written(desk: Desk):
    """And each document follows the one before, by --after."""
    desk.file("names.txt", "one.example\ntwo.example\n")
    run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", "officer"], cwd=desk.folder)
    documents = [
        ("1", "notice", ("--names", "names.txt", "--no-seq")),
        ("2", "block", ("--notice", "1")),
        ("3", "supersede", ("--names", "names.txt", "--lifts", "2")),
        ("4", "exempt", ("--names", "names.txt")),
        ("5", "unblock", ("--lifts", "3", "--names", "names.txt")),
        ("6", "revoke", ("--lifts", "4")),
        ("7", "rotate", ("--add-key", "officer.pub", "--principal", f"officer@{ISSUER}")),
    ]
    for number, action, options in documents:
        assert desk.new(number, action, *options).code == 0, number
        assert desk.order("check", f"{number}.yaml").code == 0, number
    assert desk.read("2")["notice"] == "1"
    assert desk.read("3")["targets"] == [{"order_id": "2", "entries": "all"}]
    assert desk.read("5")["targets"] == [{"order_id": "3", "entries": ["one.example", "two.example"]}]
    (line,) = desk.read("7")["keys"]["add"]
    assert line.startswith(f'officer@{ISSUER} namespaces="dnsblock-order@v1" ssh-ed25519 AAAA')
    said = desk.new("8", "snapshot", "--orders", ".", "--valid-until", "2117-01-01")
    assert said.code == 0, said
    # Of order 3 nothing is left, and the exemption was revoked.
    assert desk.read("8")["statement"]["entries"] == "0"
    assert desk.order("check", "8.yaml").code == 0


def test_numbers_follow_the_previous_order(desk: Desk):
    """`seq` and `prev` by hand are where mistakes are made."""
    desk.file("names.txt", "one.example\n")
    first = desk.file("first.yaml", as_yaml(block("B-1", ["a.example"], seq=1)))
    said = desk.new("B-2", "block", "--names", "names.txt", "--after", first, "--json")
    digest = hashlib.sha256((desk.folder / first).read_bytes()).hexdigest()
    assert (said.json["seq"], said.json["prev"]) == (2, digest)
    assert (desk.read("B-2")["seq"], desk.read("B-2")["prev"]) == ("2", f"sha256:{digest}")
    assert desk.new("B-3", "block", "--names", "names.txt", "--after", "B-2.yaml").code == 0
    assert desk.read("B-3")["seq"] == "3"
    said = desk.new("B-4", "block", "--names", "names.txt", "--orders", ".")
    assert (said.code, desk.read("B-4")["seq"]) == (0, "4"), "the folder has the three before it"


def test_the_first_order_in_an_empty_folder_has_the_first_number(desk: Desk):
    """An issuer that numbers its orders must begin without a daemon, too."""
    desk.file("names.txt", "one.example\n")
    (desk.folder / "orders").mkdir()
    said = desk.new("B-1", "block", "--names", "names.txt", "--orders", "orders")
    assert (said.code, desk.read("B-1")["seq"]) == (0, "1"), said
    assert "no earlier order of this issuer" in said.stderr
    said = desk.new("S-1", "snapshot", "--orders", "orders")
    assert (said.code, "no earlier order of this issuer" in said.stderr) == (4, True), (
        "perhaps the wrong folder"
    )


@pytest.mark.parametrize(
    ("previous", "reason"),
    [
        (block("B-1", ["a.example"]), "this order has no seq"),
        (block("B-1", ["a.example"], issuer="court.example", seq=1), "not an order of ministry.example"),
    ],
)
def test_a_previous_order_that_does_not_fit_is_refused(desk: Desk, previous: dict, reason: str):
    """A wrong `prev` would hold the order, and everything after it."""
    desk.file("names.txt", "one.example\n")
    desk.file("previous.yaml", as_yaml(previous))
    said = desk.new("B-2", "block", "--names", "names.txt", "--after", "previous.yaml")
    assert (said.code, reason in said.stderr) == (4, True)
    assert not (desk.folder / "B-2.yaml").exists()


def test_a_folder_that_lacks_an_order_gives_no_number_and_no_statement(desk: Desk):
    """The statement would deny the missing order."""
    first, third = block("B-1", ["a.example"], seq=1), block("B-3", ["c.example"], seq=3, prev="ab" * 32)
    for number, document in enumerate((first, third)):
        desk.file(f"{number}.yaml", as_yaml(document))
    said = desk.new("S-4", "snapshot", "--orders", ".")
    assert (said.code, "the order with seq 2 is missing" in said.stderr) == (4, True)


def test_every_wrong_line_and_field_is_reported_and_nothing_is_written(desk: Desk):
    """The clerk corrects all of them at once; nothing half-right reaches a server."""
    lines = ["good.example", "https://t.me/x", "co.id", "two words", "id", "*.a.example", *["b..c"] * 20]
    desk.file("names.txt", "".join(f"{line}\n" for line in lines))
    said = desk.new("B-1", "block", "--names", "names.txt", "--json")
    assert said.code == 4
    lines_with_problems = sorted({problem["line"] for problem in said.problems})
    assert lines_with_problems == [2, 3, 4, 5, 6, *range(7, 27)]
    assert len(said.stderr.splitlines()) == 25, "all of them, for people too"
    said = desk.new("B-1", "block", "--names", "names.txt", "--effective", "soon", "--expires", "later")
    assert said.stderr.count("not a time") == 2
    assert not (desk.folder / "B-1.yaml").exists()


def test_missing_options_are_named_all_at_once(desk: Desk):
    """Without a terminal nothing can be asked: a script must fail, and say why."""
    said = desk.order("new", "--issuer", ISSUER)
    assert (said.code, "--id, --action, --output" in said.stderr) == (2, True)
    said = desk.new("U-1", "unblock")
    assert (said.code, "--lifts" in said.stderr) == (2, True)
    said = desk.new("U-1", "unblock", LC_ALL="id_ID.UTF-8")
    assert "opsi ini belum diisi: --lifts" in said.stderr


def test_nothing_is_overwritten_without_force(desk: Desk):
    """A signed order is evidence."""
    desk.file("names.txt", "one.example\n")
    desk.file("B-1.yaml", "mine")
    said = desk.new("B-1", "block", "--names", "names.txt")
    assert (said.code, "exists" in said.stderr) == (4, True)
    assert (desk.folder / "B-1.yaml").read_text() == "mine"
    desk.file("B-1.yaml.sig", "signatures")
    said = desk.new("B-1", "block", "--names", "names.txt", "--force")
    assert (said.code, "has signatures of an earlier document" in said.stderr) == (0, True)
    assert desk.read("B-1")["order_id"] == "B-1"
    many = "".join(f"n{number}.example\n" for number in range(1001))
    desk.file("B-2.txt", "mine")
    said = desk.new("B-2", "block", "--names", "-", given=many)
    assert (said.code, (desk.folder / "B-2.txt").read_text()) == (4, "mine")
    assert sorted(path.name for path in desk.folder.iterdir()) == [
        "B-1.yaml", "B-1.yaml.sig", "B-2.txt", "names.txt",
    ]  # fmt: skip


def test_many_names_go_to_a_file_with_its_digest(desk: Desk):
    """From standard input, as another program writes them."""
    many = "".join(f"n{number}.example\n" for number in range(1001))
    said = desk.new("B-1", "block", "--names", "-", "--json", given=many)
    assert said.code == 0, said
    reference = desk.read("B-1")["entries_file"]
    assert reference == {
        "path": "B-1.txt",
        "sha256": hashlib.sha256(many.encode()).hexdigest(),
        "lines": "1001",
    }
    assert (desk.folder / "B-1.txt").read_text() == many
    assert (said.json["entries"], said.json["entries_file"]) == (1001, "B-1.txt")
    assert desk.order("check", "B-1.yaml").code == 0


def test_held_names_are_reported_with_the_way_to_release_them(desk: Desk):
    """With the code in `acks`, a second signature does."""
    desk.file("names.txt", "t.me\npages.dev\nslot.example\n")
    said = desk.new("B-1", "block", "--names", "names.txt")
    assert said.code == 0
    assert "held until it is released: t.me: POPULAR: a popular name" in said.stderr
    assert "release them with --ack PRIVATE_SUFFIX" in said.stderr
    said = desk.new("B-2", "block", "--names", "names.txt", "--ack", "POPULAR", "--ack", "PRIVATE_SUFFIX")
    assert "acks POPULAR, PRIVATE_SUFFIX count when a second officer has signed" in said.stderr
    assert desk.read("B-2")["acks"] == ["POPULAR", "PRIVATE_SUFFIX"]


def test_a_name_in_another_script_is_shown_as_it_is_written(desk: Desk):
    """The A-label is blocked; letters of two scripts may deceive."""
    desk.file("names.txt", "b\u00fccher.example\n\u0430pple.example\n")
    said = desk.new("B-1", "block", "--names", "names.txt")
    assert "b\u00fccher.example is written as xn--bcher-kva.example" in said.stderr
    assert "MIXED_SCRIPT" in said.stderr
    said = desk.new("B-2", "block", "--names", "names.txt", "--language", "id")
    assert "b\u00fccher.example ditulis sebagai xn--bcher-kva.example" in said.stderr
    assert "mencampur huruf" in said.stderr


def test_a_file_that_cannot_be_written_is_named(desk: Desk):
    """A full disk, a folder that does not exist."""
    desk.file("names.txt", "one.example\n")
    base = ("--issuer", ISSUER, "--id", "B-1", "--action", "block", "--names", "names.txt")
    said = desk.order("new", *base, "-o", "missing/B-1.yaml")
    assert (said.code, "cannot be written" in said.stderr) == (4, True)
    said = desk.order("new", *base, "-o", "B-1.txt")
    assert (said.code, "must end with .yaml or .yml" in said.stderr) == (4, True)


# ------- With a daemon -------


def new(subject: Subject, number: str, action: str, *arguments: str, names: str = "") -> Path:
    """A document of `order new` with the configuration of the daemon."""
    (subject.folder / "names.txt").write_text(names)
    path = subject.folder / f"{number}.yaml"
    named = ("--names", str(subject.folder / "names.txt")) if names else ()
    base = ("--issuer", ISSUER, "--id", number, "--action", action, "-o", str(path))
    said = subject.cli("order new", *base, *named, *arguments)
    assert said.code == 0, said
    return path


def test_numbers_come_from_the_daemon(subject: Subject, upstream: StubUpstream):
    """The first order gets number 1; all of them are accepted, and none is held."""
    subject.start(upstreams=[upstream.address])
    first = new(subject, "B-1", "block", names="one.example\n")
    assert "seq: 1\n" in first.read_text()
    assert subject.cli("order submit", str(first)).code == 0
    second = new(subject, "B-2", "block", names="two.example\n")
    assert subject.cli("order submit", str(second)).code == 0
    third = new(subject, "U-3", "unblock", "--lifts", "B-1")
    assert subject.cli("order check", str(third)).code == 0
    assert subject.cli("order submit", str(third)).code == 0
    assert [(row["order_id"], row["state"]) for row in subject.status()["orders"]] == [
        ("B-1", "lifted"),
        ("B-2", "active"),
        ("U-3", "active"),
    ]
    assert is_forwarded(subject.query("one.example"))
    assert is_sinkholed(subject.query("two.example"))


def test_an_issuer_without_numbers_gets_none(subject: Subject):
    """It numbers all of its orders, or none."""
    subject.start(orders=[block("B-1", ["one.example"])])
    assert "seq:" not in new(subject, "B-2", "block", names="two.example\n").read_text()


def test_a_daemon_that_lacks_an_order_gives_no_number(subject: Subject):
    """The number would be that of the missing order."""
    subject.start(
        orders=[block("B-1", ["a.example"], seq=1), block("B-3", ["c.example"], seq=3, prev="ab" * 32)]
    )
    (subject.folder / "names.txt").write_text("x.example\n")
    base = ("--issuer", ISSUER, "--id", "B-4", "--action", "block", "-o", str(subject.folder / "B-4.yaml"))
    said = subject.cli("order new", *base, "--names", str(subject.folder / "names.txt"))
    assert (said.code, "the order with seq 2 is missing" in said.stderr) == (4, True)
