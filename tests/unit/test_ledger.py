"""The ledger on the disk (dnsblock/orders/ledger.py)."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from dnsblock.errors import LedgerUnwritable, Problem, Refused
from dnsblock.orders.facts import Annulment, Approval, Held, Judged, Refusal, SignatureVerified, Verified
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.order import Order, load_entries_file, parse
from dnsblock.orders.records import AcceptedRestore, Position, sealed
from dnsblock.orders.verdict import EntryVerdict, Judgement, Signed
from dnsblock.principal import Principal

from .helpers import accept, append, block, orders, unblock

TWO = orders(block("b-1", "t.me"), unblock("u-1", "b-1"))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose ledger holds two records: two orders were received."""
    with Ledger.open(tmp_path / "state") as ledger:
        append(ledger, TWO)
    return tmp_path / "state"


def received(ledger: Ledger) -> list[Order]:
    return [record.fact for record in ledger.records if isinstance(record.fact, Order)]


def ids(ledger: Ledger) -> list[str]:
    return [order.order_id for order in received(ledger)]


def file_of(folder: Path) -> Path:
    return folder / "ledger.jsonl"


def damage_of(folder: Path) -> Problem:
    """Why the ledger was read up to there only; nothing can be appended to it."""
    with Ledger.open(folder) as ledger:
        assert ledger.damage is not None
        with pytest.raises(LedgerUnwritable):
            append(ledger, [Annulment("a", "b-1", "no")])
        return ledger.damage


def test_appended_records_are_there_after_a_restart(folder: Path):
    """The ledger is the append-only log of orders."""
    with Ledger.open(folder) as ledger:
        assert [order.entries for order in received(ledger)] == [order.entries for order in TWO]
        assert [order.sha256 for order in received(ledger)] == [order.sha256 for order in TWO]
        append(ledger, orders(block("b-2", "c.example")))
        assert ids(ledger) == ["b-1", "u-1", "b-2"]
    with Ledger.open(folder) as ledger:
        assert ids(ledger) == ["b-1", "u-1", "b-2"]
        assert ledger.notes == ()


@pytest.mark.parametrize("block_bytes", [1, 100, 1000, 1500])
def test_a_ledger_is_the_same_in_parts_of_any_size(
    folder: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
):
    """It is read a few megabytes at a time. A part may end within a line, or with one."""
    with Ledger.open(folder, read_only=True) as ledger:
        expected = ledger.content
    monkeypatch.setattr("dnsblock.orders.reading._BLOCK_BYTES", block_bytes)
    with Ledger.open(folder, read_only=True) as ledger:
        assert (ledger.records, ledger.hashes, ledger.size) == (
            expected.records, expected.hashes, expected.size
        )  # fmt: skip
        assert ledger.tree.root() == expected.tree.root()
    file_of(folder).write_bytes(file_of(folder).read_bytes()[:-1])
    with Ledger.open(folder) as ledger:
        assert ids(ledger) == ["b-1", "u-1"]
        assert ["lacked its line end" in note for note in ledger.notes] == [True]


@pytest.mark.parametrize("change", ["text", "bytes", "space", "nested"])
def test_a_line_with_right_digests_that_is_no_record_is_damage(folder: Path, change: str):
    """Somebody who computes the digests again cannot put another document under the SHA-256 of an order."""
    first, second = file_of(folder).read_bytes().splitlines()
    with Ledger.open(folder) as ledger:
        accept(ledger, *TWO)
        ledger.keep_parsed()
    fields = json.loads(first)
    del fields["digest"]
    if change == "text":
        fields["document"] = "nothing of the kind"
    line = sealed(fields)
    if change == "bytes":
        content = line[: line.rindex(b',"digest"')].replace(b"t.me", b"t\xff\xff\xff") + b"}"
        line = content[:-1] + b',"digest":"%s"}' % hashlib.sha256(content).hexdigest().encode()
    elif change == "space":
        content = b" " + line[: line.rindex(b',"digest"')] + b"}"
        line = content[:-1] + b',"digest":"%s"}' % hashlib.sha256(content).hexdigest().encode()
    elif change == "nested":
        content = b'{"x":' + line + b"," + line[1 : line.rindex(b',"digest"')] + b"}"
        line = content[:-1] + b',"digest":"%s"}' % hashlib.sha256(content).hexdigest().encode()
    file_of(folder).write_bytes(line + b"\n" + second + b"\n")
    assert damage_of(folder).line == 1


@pytest.mark.parametrize("block_bytes", [100, 1 << 20])
@pytest.mark.parametrize("has_end", [True, False])
def test_a_longer_line_than_any_record_is_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, has_end: bool
):
    """It is no incomplete last record, which would be removed with all that follows."""
    whole = file_of(folder).read_bytes()
    monkeypatch.setattr("dnsblock.orders.reading._BLOCK_BYTES", block_bytes)
    monkeypatch.setattr("dnsblock.orders.reading.MAX_LINE_BYTES", len(whole))
    changed = whole + b"x" * len(whole) + (b"\n" + whole if has_end else b"")
    file_of(folder).write_bytes(changed)
    assert damage_of(folder).line == 3
    assert file_of(folder).read_bytes() == changed


def test_a_record_that_a_restart_would_not_read_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The bounds of documents keep records shorter. This holds if a bound is wrong."""
    before = file_of(folder).read_bytes()
    monkeypatch.setattr("dnsblock.orders.ledger.MAX_LINE_BYTES", 100)
    with Ledger.open(folder) as ledger:
        with pytest.raises(LedgerUnwritable, match="too long"):
            append(ledger, orders(block("b-2", "c.example")))
        assert ids(ledger) == ["b-1", "u-1"]
    assert file_of(folder).read_bytes() == before


def test_a_record_holds_the_orders_own_bytes_and_the_digest_of_the_record_before(folder: Path):
    """A court checks the chain with sha256sum and no program of ours."""
    lines = file_of(folder).read_bytes().splitlines()
    first, second = map(json.loads, lines)
    assert list(first) == [*sorted(first.keys() - {"digest"}), "digest"]
    assert set(first) == {
        *("version", "n", "kind", "at", "by", "prev_record", "digest"),
        *("issuer", "order_id", "sha256", "document", "entries_file"),
    }
    assert (first["version"], first["n"], first["kind"], first["prev_record"]) == (2, 1, "received", None)
    assert first["by"] == {"kind": "daemon", "uid": None, "user": None}
    assert (first["issuer"], first["order_id"]) == ("a", "b-1")
    assert first["document"] == block("b-1", "t.me")
    assert first["sha256"] == hashlib.sha256(first["document"].encode()).hexdigest()
    assert (second["n"], second["prev_record"]) == (2, hashlib.sha256(lines[0]).hexdigest())
    assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(first["at"]) < timedelta(minutes=2)


def test_the_digest_of_a_record_covers_the_rest_of_its_line(folder: Path):
    """Take the key away, and the SHA-256 of what is left is its value."""
    for line in file_of(folder).read_bytes().splitlines():
        digest = json.loads(line)["digest"]
        rest = line.replace(b',"digest":"%s"' % digest.encode(), b"")
        assert hashlib.sha256(rest).hexdigest() == digest


ORDER = ("a", "b-1")
JUDGEMENT = Judgement(
    (Signed("officer@a", "SHA256:x", "ssh-ed25519"),),
    is_proposed=True,
    ignored=("b-77",),
    unknown=(("b-1", ("c.example",)),),
).with_verdicts(
    [
        *(EntryVerdict(index, "held", "BULK", "too many") for index in (0, 1, 2, 5)),
        EntryVerdict(3, "refused", "PUBLIC_SUFFIX", "a public suffix"),
    ]
)
FACTS = [
    SignatureVerified(*ORDER, TWO[0].sha256, ("officer@a SHA256:x",), "-----BEGIN SSH SIGNATURE-----\n"),
    Judged(*ORDER, TWO[0].sha256, JUDGEMENT, ("BULK",)),
    Held(*ORDER, 4, ("BULK",)),
    Approval(*ORDER, (0, 5), "checked"),
    Approval(*ORDER, None, "all of it"),
    Refusal("o.yaml", None, None, "ab" * 32, ("INCOMPLETE: \u201cend\u201d",)),
    Annulment(*ORDER, "a half-written order: \u201cb-1\u201d"),
    Verified(*ORDER, ("192.0.2.1:53",)),
    AcceptedRestore("restored from the backup", Position(3, "0" * 64), Position(2, "1" * 64)),
    AcceptedRestore("the checkpoint was lost", None, Position(0, None)),
]


def test_every_kind_of_record_is_there_after_a_restart(folder: Path):
    """Events and actions of the operator are recorded between the orders, in sequence."""
    alice = Principal("local", 1000, "alice")
    with Ledger.open(folder) as ledger:
        append(ledger, FACTS[:1], alice)
        append(ledger, FACTS[1:], Principal("local", 4321))
    with Ledger.open(folder) as ledger:
        assert [str(record.by) for record in ledger.records[2:4]] == ["alice (uid 1000)", "uid 4321"]
        assert [record.fact for record in ledger.records[2:]] == FACTS
        assert [record.n for record in ledger.records] == list(range(1, 13))
        assert ids(ledger) == ["b-1", "u-1"]
        assert ledger.position == Position(
            12, hashlib.sha256(file_of(folder).read_bytes().splitlines()[-1]).hexdigest()
        )
    kinds = [json.loads(line)["kind"] for line in file_of(folder).read_bytes().splitlines()]
    assert kinds == [
        *("received", "received", "signature_verified", "accepted", "held", "approved", "approved"),
        *("refused", "annulled", "verified", "restore_accepted", "restore_accepted"),
    ]


def test_verdicts_with_the_same_reason_take_one_line_for_a_range(folder: Path):
    """The guard BULK holds a hundred thousand entries at once."""
    with Ledger.open(folder) as ledger:
        append(ledger, [FACTS[1]])
    record = json.loads(file_of(folder).read_bytes().splitlines()[-1])
    held = {"verdict": "held", "code": "BULK", "reason": "too many", "indexes": [[0, 2], [5, 5]]}
    assert held in record["entries"]
    assert len(record["entries"]) == 2


def test_an_order_that_was_only_received_is_not_enforced(folder: Path):
    """The process was killed before it recorded that the order is accepted: the order is judged again."""
    with Ledger.open(folder) as ledger:
        assert len(ledger.orders) == 0
        accept(ledger, *orders(block("b-2", "c.example")))
        assert [order.order_id for order in ledger.orders] == ["b-2"]
    cut = file_of(folder).read_bytes().splitlines(keepends=True)[:-1]
    file_of(folder).write_bytes(b"".join(cut))
    with Ledger.open(folder) as ledger:
        assert len(ledger.orders) == 0
        accept(ledger, *orders(block("b-2", "c.example")))
    with Ledger.open(folder) as ledger:
        assert [order.order_id for order in ledger.orders] == ["b-2"]


def test_times_of_records_have_microseconds(folder: Path):
    """UTC, so that records of several instances can be compared."""
    time = datetime(2026, 1, 1, 7, 0, 0, 1, tzinfo=timezone(timedelta(hours=7)))
    with Ledger.open(folder) as ledger:
        ledger.append([Annulment(*ORDER, "wrong")], Principal("daemon"), time)
    assert b'"at":"2026-01-01T00:00:00.000001+00:00"' in file_of(folder).read_bytes().splitlines()[-1]
    with Ledger.open(folder) as ledger:
        assert ledger.records[-1].at == time


# ------- Ledgers of version 1 -------


def version_1(*records: dict[str, object]) -> bytes:
    """A ledger as an older dnsblock wrote it."""
    lines: list[bytes] = []
    for n, fields in enumerate(records, 1):
        before = hashlib.sha256(lines[-1]).hexdigest() if lines else None
        by = {"kind": "daemon", "uid": None, "user": None}
        envelope = {"version": 1, "n": n, "at": "2026-01-01T00:00:00.000+00:00", "by": by}
        lines.append(sealed({**envelope, **fields, "prev_record": before}))
    return b"\n".join(lines) + b"\n"


def old_order(text: str) -> dict[str, object]:
    order = parse("o.yaml", text.encode())
    names = {"issuer": order.issuer, "order_id": order.order_id, "sha256": order.sha256}
    return {"kind": "order", **names, "document": text, "entries_file": None}


def test_a_ledger_of_version_1_is_read_and_continued(tmp_path: Path):
    """The record of an order also meant that it is accepted. No record is written again."""
    annulment = {"kind": "annulment", "issuer": "a", "order_id": "b-2", "reason": "wrong"}
    old = version_1(old_order(block("b-1", "t.me")), old_order(block("b-2", "c.example")), annulment)
    file_of(tmp_path).write_bytes(old)
    with Ledger.open(tmp_path) as ledger:
        assert ledger.damage is None
        annulled = {order.order_id: order.annulled is not None for order in ledger.orders}
        assert annulled == {"b-1": False, "b-2": True}
        accept(ledger, *orders(unblock("u-1", "b-1")))
    assert file_of(tmp_path).read_bytes().startswith(old)
    with Ledger.open(tmp_path) as ledger:
        assert [order.order_id for order in ledger.orders] == ["b-1", "b-2", "u-1"]
        assert [record.version for record in ledger.records] == [1, 1, 1, 2, 2]


def test_a_record_of_a_newer_version_is_refused(folder: Path):
    """After a downgrade, nobody knows what such a record orders."""
    first, second = file_of(folder).read_bytes().splitlines()
    fields = {key: value for key, value in json.loads(second).items() if key != "digest"}
    file_of(folder).write_bytes(first + b"\n" + sealed(fields | {"version": 3}) + b"\n")
    with pytest.raises(Refused) as refused:
        Ledger.open(folder)
    assert f"{file_of(folder)}:2: a newer dnsblock wrote this record (version 3" in str(refused.value)


def test_nobody_else_may_read_the_state(folder: Path):
    """An order may be secret until it is carried out."""
    assert folder.stat().st_mode & 0o777 == 0o700
    assert file_of(folder).stat().st_mode & 0o777 == 0o600


def test_a_partial_last_record_is_removed_and_the_rest_is_used(folder: Path):
    """A crash in the middle of an append: it was never acknowledged, and its file is still in the inbox."""
    whole = file_of(folder).read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first + 1, len(whole) - 1, 7):
        file_of(folder).write_bytes(whole[:size])
        with Ledger.open(folder) as ledger:
            assert ids(ledger) == ["b-1"]
            assert len(ledger.notes) == 1
            assert "ledger.jsonl:2: removed an incomplete last record" in ledger.notes[0]
        assert file_of(folder).read_bytes() == whole[:first]
    with Ledger.open(folder) as ledger:
        append(ledger, TWO[1:])
    with Ledger.open(folder) as ledger:
        assert (ids(ledger), ledger.notes) == (["b-1", "u-1"], ())


def test_zeros_after_a_power_cut_are_removed(folder: Path):
    """A file system may have grown the file without having written the data."""
    whole = file_of(folder).read_bytes()
    file_of(folder).write_bytes(whole + b"\0" * 4096)
    with Ledger.open(folder) as ledger:
        assert ids(ledger) == ["b-1", "u-1"]
    assert file_of(folder).read_bytes() == whole


@pytest.mark.parametrize("end", [b"", b" ", b"\0", b"}", b"\xff", b"\r", b"\0" * 4096, b'x{"at":"2026'])
def test_a_lost_or_changed_last_line_end_loses_no_order(folder: Path, end: bytes):
    """The digest proves that the record is whole; what follows it was never a record."""
    whole = file_of(folder).read_bytes()
    file_of(folder).write_bytes(whole[:-1] + end)
    with Ledger.open(folder) as ledger:
        assert ids(ledger) == ["b-1", "u-1"]
        assert "lacked its line end" in ledger.notes[0]
        append(ledger, orders(block("b-2", "c.example")))
    assert file_of(folder).read_bytes().startswith(whole)
    with Ledger.open(folder) as ledger:
        assert ids(ledger) == ["b-1", "u-1", "b-2"]


def rehashed(data: bytes, **fields: object) -> bytes:
    """The last record with other fields, and a digest that fits them."""
    first, last = data.splitlines(keepends=True)
    record = json.loads(last) | fields
    del record["digest"]
    return first + sealed(record) + b"\n"


@pytest.mark.parametrize("end", [b"\n", b"", b"x"])
def test_a_modified_last_record_is_never_removed(folder: Path, end: bytes):
    """It was written whole, and so it was acknowledged: only a person may decide what becomes of it."""
    corrupt = file_of(folder).read_bytes().replace(b"u-1", b"u-2")[:-1] + end
    file_of(folder).write_bytes(corrupt)
    assert "its digest does not match: the ledger is corrupt" in str(damage_of(folder))
    assert file_of(folder).read_bytes() == corrupt


def test_two_joined_last_records_are_not_removed(folder: Path):
    """Both were acknowledged: removing both line ends cannot remove an order from the ledger."""
    corrupt = file_of(folder).read_bytes()[:-1].replace(b"\n", b"x")
    file_of(folder).write_bytes(corrupt)
    assert "the ledger is corrupt" in str(damage_of(folder))
    assert file_of(folder).read_bytes() == corrupt


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda data: data.replace(b"t.me", b"t.mo"), 1),
        (lambda data: data.replace(b'"order_id":"u-1"', b'"order_id":"u-2"'), 2),
        (lambda data: data.replace(b'"issuer":"a"', b'"issuer":"b"', 2), 1),
        (lambda data: data[:-1].replace(b"\n", b"x", 1) + data[-1:], 1),
        (lambda data: data.replace(b"}", b" }", 1), 1),
        (lambda data: data.replace(b'"at":"20', b'"at":"19', 2), 1),
        (lambda data: data[data.index(b"\n") + 1 :], 1),
        (lambda data: data[: data.index(b"\n") + 1] * 2, 2),
        (lambda data: data.replace(b'"n":1', b'"n":2'), 1),
        (lambda data: data.replace(b'"at":"20', b'"at":"19', 1), 1),
        (lambda data: rehashed(data, kind="decree"), 2),
        (lambda data: rehashed(data, at="2026-01-01T00:00:00"), 2),
        (lambda data: rehashed(data, order_id="u-2"), 2),
        (lambda data: b"\n" + data, 1),
        (lambda data: b"[]\n" + data, 1),
        (lambda data: b"[" * 100_000 + b"\n" + data, 1),
        (lambda data: b"\xff\n" + data, 1),
        (lambda data: data.replace(b'"document":"', b'"document":1,"x":"', 1), 1),
    ],
)
def test_any_other_corruption_is_reported_with_file_and_line(folder: Path, damage, line: int):
    """The ledger is proof: nothing in it is passed over or put right."""
    corrupt = damage(file_of(folder).read_bytes())
    file_of(folder).write_bytes(corrupt)
    problem = damage_of(folder)
    assert (problem.file, problem.line) == (str(file_of(folder)), line)
    assert "restore it from a backup" in problem.reason
    assert file_of(folder).read_bytes() == corrupt


def test_fewer_records_than_were_acknowledged_are_not_repaired(folder: Path):
    """A truncated record is the trace of a crash only if it was never acknowledged."""
    cut = file_of(folder).read_bytes()[:-20]
    file_of(folder).write_bytes(cut)
    with Ledger.open(folder, acknowledged=2) as ledger:
        assert (ids(ledger), ledger.damage) == (["b-1"], None)
    assert file_of(folder).read_bytes() == cut
    with Ledger.open(folder, acknowledged=1) as ledger:
        assert ids(ledger) == ["b-1"]
    assert file_of(folder).read_bytes() == cut[: cut.index(b"\n") + 1]


def test_a_second_writer_is_refused_and_readers_are_not(folder: Path):
    """Two writers would each think to be the only one."""
    with Ledger.open(folder) as first:
        with pytest.raises(Refused, match="another dnsblock is using this state folder"):
            Ledger.open(folder)
        assert ids(Ledger.open(folder, read_only=True)) == ids(first)
    Ledger.open(folder).close()


def test_reading_only_creates_and_repairs_nothing(folder: Path, tmp_path: Path):
    """`check` runs beside the daemon, and as another user."""
    file_of(folder).write_bytes(file_of(folder).read_bytes() + b"half")
    before = file_of(folder).read_bytes()
    ledger = Ledger.open(folder, read_only=True)
    assert (ids(ledger), len(ledger.notes)) == (["b-1", "u-1"], 1)
    assert file_of(folder).read_bytes() == before
    with pytest.raises(LedgerUnwritable, match="read-only"):
        append(ledger, TWO)
    assert Ledger.open(tmp_path / "none", read_only=True).records == []
    assert not (tmp_path / "none").exists()


def test_a_folder_that_is_a_file_is_refused_with_what_to_do(tmp_path: Path):
    """One line that says what to do."""
    (tmp_path / "state").write_text("")
    with pytest.raises(Refused, match="`state` must be a folder"):
        Ledger.open(tmp_path / "state")


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_full_disk_accepts_no_order_and_leaves_nothing_half_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failing: str
):
    """No order is acknowledged; what is enforced goes on."""
    before = file_of(folder).read_bytes()
    real = getattr(os, failing)

    def fails(descriptor: int, *arguments):
        if failing == "write":
            real(descriptor, arguments[0][:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Ledger.open(folder) as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(os, failing, fails)
            with pytest.raises(LedgerUnwritable, match="No space left on device: nothing was accepted"):
                append(ledger, orders(block("b-2", "c.example")))
        assert ids(ledger) == ["b-1", "u-1"]
        assert file_of(folder).read_bytes() == before
        append(ledger, orders(block("b-2", "c.example")))
    with Ledger.open(folder) as ledger:
        assert (ids(ledger), ledger.notes) == (["b-1", "u-1", "b-2"], ())


def test_remains_of_a_failed_write_are_removed_before_the_next_record(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """The write failed, and so did putting it right."""
    before = file_of(folder).read_bytes()
    real = os.write

    def writes_half(descriptor: int, data: bytes) -> int:
        real(descriptor, data[: len(data) // 2])
        monkeypatch.setattr(os, "ftruncate", fails)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def fails(descriptor: int, size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Ledger.open(folder) as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", writes_half)
            with pytest.raises(LedgerUnwritable):
                append(ledger, orders(block("b-2", *(f"n{i}.example" for i in range(100)))))
        monkeypatch.undo()
        assert file_of(folder).read_bytes() != before
        append(ledger, orders(block("b-3", "c.example")))
    with Ledger.open(folder) as ledger:
        assert (ids(ledger), ledger.notes) == (["b-1", "u-1", "b-3"], ())


# ------- Entries in a file of their own -------

NAMES = b"a.example\nb.example\n"


@pytest.fixture
def with_file(tmp_path: Path) -> Order:
    (tmp_path / "names.txt").write_bytes(NAMES)
    reference = f"{{path: names.txt, sha256: {hashlib.sha256(NAMES).hexdigest()}, lines: 2}}"
    order = parse(str(tmp_path / "o.yaml"), block("b-9", entries_file=reference).encode())
    return load_entries_file(order, tmp_path)


def stored(folder: Path) -> Path:
    return folder / "entries" / f"{hashlib.sha256(NAMES).hexdigest()}.txt"


def test_a_file_of_entries_is_kept_beside_the_ledger(folder: Path, tmp_path: Path, with_file: Order):
    """The folder is an inbox: taking the file away afterwards changes nothing."""
    with Ledger.open(folder) as ledger:
        append(ledger, [with_file])
    (tmp_path / "names.txt").unlink()
    with Ledger.open(folder) as ledger:
        assert received(ledger)[-1].entries == with_file.entries
    assert stored(folder).read_bytes() == NAMES
    assert os.listdir(folder / "entries") == [stored(folder).name]


@pytest.mark.parametrize("content", [None, NAMES[:-1], NAMES.replace(b"a", b"x")])
def test_a_modified_stored_file_of_entries_is_refused(folder: Path, with_file: Order, content: bytes | None):
    """The ledger records its digest."""
    with Ledger.open(folder) as ledger:
        append(ledger, [with_file])
    stored(folder).unlink() if content is None else stored(folder).write_bytes(content)
    assert stored(folder).name in str(damage_of(folder))


def test_a_full_disk_for_the_entries_leaves_no_record(
    folder: Path, monkeypatch: pytest.MonkeyPatch, with_file: Order
):
    """An order without its entries must not be recorded."""
    before = file_of(folder).read_bytes()

    def fails(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Ledger.open(folder) as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fails)
            with pytest.raises(LedgerUnwritable):
                append(ledger, [with_file])
        assert file_of(folder).read_bytes() == before
        assert not list(folder.glob("entries/*"))
        append(ledger, [with_file])
    assert stored(folder).read_bytes() == NAMES
