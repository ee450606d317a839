"""`order new` asks at a terminal for what its options leave open, in Indonesian or in English."""

from pathlib import Path

import pytest
import yaml

from .dialogs import Dialog, dialog
from .tools import dnsblock, run

TELEGRAM = ["t.me", "telegram.org", "web.telegram.org"]
CONFIG = ("-c", "nothing.yaml")  # a clerk has no configuration


def document(path: Path) -> dict:
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)


def skip(asked: Dialog, *questions: str) -> None:
    for question in questions:
        asked.ask(question, "")


def test_a_clerk_answers_and_the_order_is_written(tmp_path: Path):
    """From the letter to a document: nothing but the letter is needed."""
    with dialog(tmp_path, "order", "new", *CONFIG) as asked:
        asked.ask("Issuer", "ministry.example")
        asked.ask("Number of the order", "84/2017")
        asked.ask("Action: block [block]", "")
        asked.ask("File with the names (empty: type them here)", "")
        asked.expect("One name per line")
        asked.answer("slot.example", "www.portal.example exact", "")
        asked.ask("Takes effect", "2017-07-14 11:30")
        asked.ask("Expires", "")
        asked.ask("Urgency", "urgent")
        asked.ask("Category", "gambling")
        asked.ask("Legal basis", "Regulation 5 of 2020")
        asked.ask("Reason in Indonesian", "Perjudian daring")
        asked.ask("Reason in English", "Online gambling")
        asked.ask("Write the order to [84-2017.yaml]", "")
        asked.expect("www.portal.example (exact)")
        asked.ask("Write 84-2017.yaml?", "y")
        assert asked.end() == 0, asked.shown
    written = document(tmp_path / "84-2017.yaml")
    assert written["entries"] == ["slot.example", {"name": "www.portal.example", "match": "exact"}]
    assert written["effective_at"] == "2017-07-14T11:30:00+07:00"
    assert (written["urgency"], written["category"]) == ("urgent", "gambling")
    assert written["reason"] == {"id": "Perjudian daring", "en": "Online gambling"}
    assert written["end"] == "84/2017"
    assert run([dnsblock(), "order", "check", *CONFIG, "84-2017.yaml"], cwd=tmp_path).returncode == 0


def test_the_questions_are_in_indonesian_where_the_locale_is(tmp_path: Path):
    """The clerk of a ministry in Jakarta; names that are wrong get their hint in the same language."""
    with dialog(tmp_path, "order", "new", *CONFIG, environment={"LC_ALL": "id_ID.UTF-8"}) as asked:
        asked.ask("Penerbit perintah", "ministry.example")
        asked.ask("Nomor perintah", "1")
        asked.ask("Tindakan", "blokir")
        asked.ask("pilih salah satu dari block, unblock", "block")
        asked.ask("Berkas berisi nama", "")
        asked.ask("Satu nama per baris", "https://t.me/kanal")
        asked.ask("nama t.me akan memblokir semuanya di sana", "slot.example", "")
        asked.ask("Mulai berlaku", "besok")
        asked.ask("bukan waktu: tulis sebagai 2017-07-14 11:30", "")
        skip(asked, "Berakhir", "Urgensi", "Kategori", "Dasar hukum", "Alasan dalam bahasa Indonesia")
        skip(asked, "Alasan dalam bahasa Inggris", "Tulis perintah ke berkas")
        asked.ask("Tulis 1.yaml? [Y/t]", "")
        assert asked.end() == 0, asked.shown
    assert document(tmp_path / "1.yaml")["entries"] == ["slot.example"]


def test_popular_names_are_asked_about(tmp_path: Path):
    """The clerk learns at once that a second signature is needed, and not from the provider."""
    (tmp_path / "names.txt").write_text("".join(f"{name}\n" for name in TELEGRAM))
    given = ("--issuer", "ministry.example", "--id", "1", "--action", "block", "--names", "names.txt")
    with dialog(tmp_path, "order", "new", *CONFIG, *given) as asked:
        skip(asked, "Takes effect", "Expires", "Urgency", "Category", "Legal basis")
        skip(asked, "Reason in Indonesian", "Reason in English")
        asked.ask("Write the order to", "o.yaml")
        asked.ask("3 names are popular: t.me, telegram.org, web.telegram.org", "yes")
        asked.ask("Write o.yaml?", "")
        assert asked.end() == 0, asked.shown
    assert document(tmp_path / "o.yaml")["acks"] == ["POPULAR"]


def test_an_unblock_is_asked_for_its_target(tmp_path: Path):
    """And for the names, which may stay empty: then all are lifted."""
    with dialog(tmp_path, "order", "new", *CONFIG, "--issuer", "ministry.example", "--id", "2") as asked:
        asked.ask("Action", "unblock")
        asked.ask("Number of the order to end", "84/2017", "")
        skip(asked, "File with the names to lift", "Takes effect", "Legal basis")
        skip(asked, "Reason in Indonesian", "Reason in English", "Write the order to", "Write 2.yaml?")
        assert asked.end() == 0, asked.shown
    assert document(tmp_path / "2.yaml")["targets"] == [{"order_id": "84/2017", "entries": "all"}]


@pytest.mark.parametrize("key", [b"\x03", b"\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_an_interrupted_dialog_writes_nothing(tmp_path: Path, key: bytes):
    """Half an order must not exist."""
    with dialog(tmp_path, "order", "new", *CONFIG) as asked:
        asked.ask("Issuer", "ministry.example")
        asked.expect("Number of the order")
        assert asked.interrupt(key) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_last_question_may_be_answered_with_no(tmp_path: Path):
    """The summary may show a mistake."""
    (tmp_path / "names.txt").write_text("slot.example\n")
    given = ("--issuer", "ministry.example", "--id", "1", "--action", "exempt", "--names", "names.txt")
    with dialog(tmp_path, "order", "new", *CONFIG, *given) as asked:
        skip(asked, "Takes effect", "Expires", "Legal basis", "Reason in Indonesian", "Reason in English")
        asked.ask("Write the order to", "o.yaml")
        asked.ask("Write o.yaml?", "n")
        assert asked.end() == 1
        assert "nothing was written" in asked.shown
    assert not (tmp_path / "o.yaml").exists()


def test_nothing_is_asked_if_nothing_is_missing(tmp_path: Path):
    """A script at a terminal must not hang."""
    (tmp_path / "names.txt").write_text("slot.example\n")
    given = ("--issuer", "ministry.example", "--id", "1", "--action", "block", "--names", "names.txt")
    with dialog(tmp_path, "order", "new", *CONFIG, *given, "-o", "o.yaml") as asked:
        assert asked.end() == 0, asked.shown
    assert document(tmp_path / "o.yaml")["entries"] == ["slot.example"]
