"""Signed checkpoints of the ledger: where they are kept, what they prove, and what contradicts them."""

import base64
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from unit.https_server import Authority
from witness import Service, Witness

from .harness import ORDERS_ZONE, Subject, is_forwarded, is_sinkholed
from .orders import block, unblock
from .tools import wait_for
from .upstreams import StubUpstream

PAGE = Path(__file__).parents[2] / "docs" / "ledger.md"
STAYS, LIFTED, NEW = "stays.example", "lifted.example", "new.example"


def state(subject: Subject) -> Path:
    return subject.folder / "state"


def ledger(subject: Subject) -> Path:
    return state(subject) / "ledger.jsonl"


def lines(subject: Subject) -> list[bytes]:
    return ledger(subject).read_bytes().splitlines()


def kinds(subject: Subject) -> list[str]:
    return [json.loads(line)["kind"] for line in lines(subject)]


def sizes(folder: Path) -> list[int]:
    """The numbers of records of the checkpoints in a folder."""
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("*.checkpoint"))


def root_of(records: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1."""
    if len(records) < 2:
        return hashlib.sha256(b"\0" + records[0] if records else b"").digest()
    k = 1 << (len(records) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root_of(records[:k]) + root_of(records[k:])).digest()


def covers_all(subject: Subject, folder: Path) -> Callable[[], bool]:
    """Whether the last checkpoint in a folder covers all records."""
    return lambda: bool(found := sizes(folder)) and found[-1] == len(lines(subject))


# ------- The key and the state folder ------------------------------------------


def test_every_checkpoint_is_the_root_of_the_records_up_to_it(subject: Subject):
    """RFC 6962: the leaves are the lines of the ledger, without line ends."""
    subject.start(orders=[block("B-1", [STAYS])])
    folder = state(subject) / "checkpoints"
    for number in range(2, 6):
        subject.put_order(block(f"B-{number}", [f"n{number}.example"]))
        subject.reload()
        wait_for(covers_all(subject, folder), "a checkpoint covers the order")
    subject.stop()
    assert sizes(folder)[-1] == len(lines(subject)), "a regular stop signs one, too"
    for path in folder.iterdir():
        origin, size, root = path.read_text().split("\n")[:3]
        assert base64.b64decode(root) == root_of(lines(subject)[: int(size)])
        assert origin.startswith("dnsblock/")
    recorded = [json.loads(line) for line in lines(subject) if json.loads(line)["kind"] == "checkpoint"]
    assert len(recorded) == 1, "the ledger itself records one a day"
    assert base64.b64decode(recorded[0]["root"]) == root_of(lines(subject)[: recorded[0]["size"]])
    subject.launch()
    subject.stop()
    assert kinds(subject).count("checkpoint") == 1


def test_the_key_is_made_at_the_first_startup_and_stays(subject: Subject):
    """Mode 0600; `log key` prints the public part for ssh-keygen and for witnesses."""
    subject.configure()
    said = subject.cli("log key")
    assert said.code == 4
    assert "the daemon makes it at its first startup" in said.problems[0]["reason"]
    subject.launch()
    path = state(subject) / "instance.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key, data = subject.cli("log key").json, path.read_bytes()
    printed = subprocess.run(
        ["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split()[1] == key["openssh"].split()[1]
    said = subject.cli("log key", as_json=False)
    kind, public, origin = key["openssh"].split()
    assert said.stdout.splitlines() == [f"{origin} {kind} {public}", key["note"]]
    subject.restart()
    assert (path.read_bytes(), subject.cli("log key").json) == (data, key)


# ------- The second folder ------------------------------------------------------


@pytest.fixture
def second(subject: Subject) -> Path:
    folder = subject.folder / "second"
    folder.mkdir()
    return folder


def rolled_back(subject: Subject, upstream: StubUpstream, second: Path) -> None:
    """Everything in the state folder is of yesterday, when the block was still in force."""
    options = {"checkpoints": {"folder": str(second)}}
    orders = [block("B-1", [STAYS]), block("B-2", [LIFTED])]
    subject.start(orders=orders, upstreams=[upstream.address], ledger=options)
    subject.stop()
    shutil.copytree(state(subject), subject.folder / "yesterday")
    subject.put_order(unblock("U-1", "B-2"))
    subject.launch()
    assert is_forwarded(subject.query(LIFTED))
    subject.stop()
    for document in subject.orders_folder.iterdir():
        document.unlink()
    assert sizes(second)[-1] == len(lines(subject))
    shutil.rmtree(state(subject))
    shutil.copytree(subject.folder / "yesterday", state(subject))


def test_a_state_folder_that_was_rolled_back_contradicts_the_second_folder(
    subject: Subject, upstream: StubUpstream, second: Path
):
    """Nothing in the state folder knows the unblock order. The checkpoint in the second folder does."""
    rolled_back(subject, upstream, second)
    have, must = len(lines(subject)), sizes(second)[-1]
    assert subject.cli("check").code == 1
    said = subject.cli("log verify")
    assert said.code == 1
    assert f"records {have + 1} to {must} are missing" in said.stdout
    subject.launch()
    mismatch = subject.status()["ledger"]["mismatch"]
    assert f"does not extend {must} records" in mismatch["reason"]
    assert str(second) in mismatch["reason"]
    assert f"records {have + 1} to {must} are missing" in mismatch["reason"]
    assert subject.metrics().total("dnsblock_ledger_mismatch") == 1
    assert is_sinkholed(subject.query(STAYS))
    subject.put_order(block("B-3", [NEW]))
    assert subject.cli("reload").code == 4
    assert is_forwarded(subject.query(NEW))
    before = sizes(second)
    subject.restart()
    assert subject.cli("reload").code == 4
    assert sizes(second) == before, "nothing is signed that contradicts a signed checkpoint"

    assert subject.cli("log accept-restore", "--reason", "the server burned down").code == 0
    assert is_sinkholed(subject.query(NEW))
    accepted = next(json.loads(line) for line in lines(subject) if b'"kind":"restore_accepted"' in line)
    assert accepted["checkpoint"]["records"] == must
    assert accepted["checkpoint"]["extended"] == have
    wait_for(lambda: len(sizes(second)) > len(before), "new checkpoints are signed")
    subject.kill()
    subject.launch()
    assert subject.status()["ledger"]["mismatch"] is None, "what was accepted stays accepted"
    said = subject.cli("log verify")
    assert said.code == 0, said
    assert said.json["folders"][1]["accepted"] > 0


def test_a_second_folder_that_was_not_there_at_startup_is_compared_later(
    subject: Subject, upstream: StubUpstream, second: Path
):
    """A network file system may be mounted too late."""
    rolled_back(subject, upstream, second)
    second.rename(subject.folder / "unmounted")
    subject.launch()
    assert "the ledger was not compared with all signed checkpoints" in subject.stderr()
    assert subject.status()["ledger"]["mismatch"] is None
    (subject.folder / "unmounted").rename(second)
    subject.put_order(block("B-3", [NEW]))
    subject.cli("reload")
    wait_for(lambda: subject.status()["ledger"]["mismatch"] is not None, "the ledger is refused")
    subject.put_order(block("B-4", ["other.example"]))
    assert subject.cli("reload").code == 4
    assert is_forwarded(subject.query("other.example"))


def test_a_second_folder_that_hangs_does_not_delay_the_startup(subject: Subject, second: Path):
    """A pipe instead of a checkpoint hangs like a network file system."""
    subject.start(ledger={"checkpoints": {"folder": str(second)}}, orders=[block("B-1", [STAYS])])
    subject.stop()
    last = max(second.iterdir())
    last.unlink()
    os.mkfifo(last)
    subject.launch()
    assert is_sinkholed(subject.query(STAYS))
    assert "cannot be read within 5 s" in subject.stderr()
    assert subject.stop() == 0


# ------- While the daemon runs --------------------------------------------------


def truncated(subject: Subject) -> None:
    data = ledger(subject).read_bytes()
    os.truncate(ledger(subject), data.index(b'"order_id":"B-2"') - 500)


def cut(subject: Subject) -> None:
    """At the end of a record."""
    whole = lines(subject)
    os.truncate(ledger(subject), sum(len(line) + 1 for line in whole[:2]))


def removed(subject: Subject) -> None:
    ledger(subject).unlink()


def replaced(subject: Subject) -> None:
    """By an older one."""
    copy = subject.folder / "copy"
    copy.write_bytes(b"".join(line + b"\n" for line in lines(subject)[:2]))
    copy.rename(ledger(subject))


def rewritten(subject: Subject) -> None:
    """A byte, in place."""
    with ledger(subject).open("r+b") as file:
        file.seek(ledger(subject).read_bytes().index(LIFTED.encode()))
        file.write(b"x")


def moved_away(subject: Subject) -> None:
    """The whole state folder."""
    state(subject).rename(subject.folder / "elsewhere")
    state(subject).mkdir()


@pytest.mark.parametrize(
    "happened", [truncated, cut, removed, replaced, rewritten, moved_away], ids=lambda one: one.__name__
)
def test_a_ledger_that_is_changed_while_the_daemon_runs_is_refused(
    subject: Subject, upstream: StubUpstream, happened: Callable[[Subject], None]
):
    """The next publish is refused, and an alert comes before. The state in force stays."""
    subject.start(orders=[block("B-1", [STAYS]), block("B-2", [LIFTED])], upstreams=[upstream.address])
    subject.put_order(unblock("U-1", "B-2"))
    subject.reload()
    # Otherwise the daemon may append the event behind a line that was cut, and the ledger is corrupt.
    wait_for(lambda: any(b'"kind":"lifted"' in line for line in lines(subject)), "the event is recorded")
    subject.wait_recorded()
    happened(subject)
    wait_for(lambda: subject.metrics().total("dnsblock_ledger_mismatch") == 1, "the change is noticed")
    subject.put_order(block("B-3", [NEW]))
    said = subject.cli("reload")
    assert said.code == 4
    assert "was changed while the daemon ran" in said.problems[0]["reason"]
    status = subject.status()["ledger"]["mismatch"]
    if happened is not moved_away:
        assert "U-1" in [one["order_id"] for one in status["missing"]]
    names = (STAYS, LIFTED, NEW)
    assert [is_sinkholed(subject.query(name)) for name in names] == [True, False, False]
    if happened is moved_away:
        assert subject.stop() == 0
        shutil.rmtree(state(subject))
        (subject.folder / "elsewhere").rename(state(subject))
        subject.launch()
        assert subject.cli("status").code == 0
        return
    said = subject.cli("log accept-restore", "--reason", "I did that")
    if said.code == 4 and "was changed again" in said.problems[0]["reason"]:
        # The kernel had not finished the change when the daemon noticed it.
        said = subject.cli("log accept-restore", "--reason", "I did that")
    if happened is rewritten:
        assert "the ledger is corrupt" in said.problems[0]["reason"]
        return
    assert said.code == 0, said
    assert is_sinkholed(subject.query(NEW))
    expected = [is_sinkholed(subject.query(name)) for name in names]
    subject.kill()
    subject.launch()
    assert subject.cli("status").code == 0
    assert [is_sinkholed(subject.query(name)) for name in names] == expected


def touched(subject: Subject) -> None:
    os.utime(ledger(subject))


def linked(subject: Subject) -> None:
    os.link(ledger(subject), subject.folder / "link")


def copied(subject: Subject) -> None:
    """Another file with the same content, as after a restore."""
    shutil.copy(ledger(subject), subject.folder / "copy")
    (subject.folder / "copy").rename(ledger(subject))


@pytest.mark.parametrize("happened", [touched, linked, copied], ids=lambda one: one.__name__)
def test_the_same_content_is_no_change(subject: Subject, happened: Callable[[Subject], None]):
    """Backups read and link files, and restores write them again."""
    subject.start(orders=[block("B-1", [STAYS])])
    subject.wait_recorded()  # a record that comes while the ledger is copied would be lost
    happened(subject)
    subject.put_order(block("B-3", [NEW]))
    subject.reload()
    assert subject.status()["ledger"]["mismatch"] is None
    assert any(b'"B-3"' in line for line in lines(subject)), "the file with the name is written"
    subject.kill()
    subject.launch()
    assert is_sinkholed(subject.query(NEW))
    assert subject.cli("log verify").code == 0


# ------- Other places -----------------------------------------------------------


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def service(subject: Subject, witness: Witness) -> Iterator[Service]:
    authority = Authority(subject.folder / "tls")
    with Service(authority.certificate(), witness) as service:
        service.ca = str(authority.pem)  # type: ignore[attr-defined]
        yield service


def with_places(service: Service, witness: Witness, **options: object) -> dict[str, object]:
    ca = service.ca  # type: ignore[attr-defined]
    return {
        "origin": "resolver.isp.example/ledger",
        "checkpoints": {"url": service.url + "seals/", "ca": ca},
        "witnesses": [{"url": service.url, "key": witness.vkey, "ca": ca}],
        **options,
    }


def has_cosigned_all(witness: Witness, subject: Subject, origin: str) -> Callable[[], bool]:
    """Whether it has cosigned every record of the ledger. It may have cosigned a part of them before."""
    return lambda: witness.cosigned.get(origin, (0,))[0] == len(lines(subject))


def test_a_witness_cosigns_and_a_server_stores_each_checkpoint(
    subject: Subject, service: Service, witness: Witness
):
    """The witness verifies the consistency proof; its cosignature is in every file from then on."""
    subject.configure(ledger=with_places(service, witness), orders=[block("B-1", [STAYS])])
    subject.launch()
    key = subject.cli("log key").json
    assert key["origin"] == "resolver.isp.example/ledger"
    wait_for(lambda: "it does not know the origin of this ledger" in subject.stderr(), "a reason is logged")
    witness.trust(key["note"])
    for number in range(2, 5):
        subject.put_order(block(f"B-{number}", [f"n{number}.example"]))
        subject.reload()
        wait_for(has_cosigned_all(witness, subject, key["origin"]), "the witness cosigns")
    wait_for(
        lambda: any(f"-{len(lines(subject)):012d}-" in path for path in list(service.stored)),
        "the server has it",
    )
    size, root = witness.cosigned[key["origin"]]
    assert root == root_of(lines(subject)[:size])
    (stored,) = (data for path, data in dict(service.stored).items() if f"-{size:012d}-" in path)
    assert f"— {witness.name} ".encode() in stored
    said = subject.cli("log verify")
    assert said.json["folders"][0]["cosigned"] == {witness.name: size}
    assert said.code == 0
    events = [json.loads(line) for line in subject.stderr().splitlines()]
    logged = [
        event["checkpoint"] for event in events if event["event"].startswith("checkpoint of the ledger: ")
    ]
    assert any(note.split("\n")[1] == str(size) for note in logged), "the log has each checkpoint, too"


def test_a_witness_that_knows_more_records_is_an_alert(subject: Subject, service: Service, witness: Witness):
    """The state folder and its checkpoints were rolled back together; the witness remembers."""
    subject.configure(ledger=with_places(service, witness), orders=[block("B-1", [STAYS])])
    subject.launch()
    key = subject.cli("log key").json
    witness.trust(key["note"])
    subject.stop()
    shutil.copytree(state(subject), subject.folder / "yesterday")
    subject.put_order(block("B-2", [NEW]))
    subject.launch()
    wait_for(has_cosigned_all(witness, subject, key["origin"]), "the witness cosigns")
    subject.kill()
    shutil.rmtree(state(subject))
    shutil.copytree(subject.folder / "yesterday", state(subject))
    for document in subject.orders_folder.iterdir():
        document.unlink()
    subject.launch()
    wait_for(lambda: "it has cosigned" in subject.stderr(), "the contradiction is logged")
    critical = [line for line in subject.stderr().splitlines() if '"critical"' in line]
    assert any("does not have the checkpoint: it has cosigned" in line for line in critical)
    assert subject.metrics().total("dnsblock_ledger_contradicted") == 1


def test_places_that_fail_delay_no_order(subject: Subject, second: Path):
    """Nobody listens at the URL and at the witness, and the folder is gone."""
    second.rmdir()
    options = {
        "checkpoints": {"url": "https://127.0.0.1:1/", "folder": str(second)},
        "witnesses": [{"url": "https://127.0.0.1:1/", "key": Witness().vkey}],
    }
    subject.start(orders=[block("B-1", [STAYS])], ledger=options)
    wait_for(lambda: subject.metrics().total("dnsblock_ledger_checkpoint_failing") == 3, "three fail")
    subject.put_order(block("B-2", [NEW]))
    subject.reload()
    assert is_sinkholed(subject.query(NEW))
    wait_for(covers_all(subject, state(subject) / "checkpoints"), "the state folder has the checkpoint")
    assert subject.stop() == 0


# ------- Commands ---------------------------------------------------------------


def test_log_show_shows_the_records_of_an_order(subject: Subject):
    """For people a table, for programs each record as it is in the file. No daemon is needed."""
    subject.start(orders=[block("B-1", [STAYS]), block("B/2", [NEW])])
    subject.stop()
    assert subject.cli("log show").json["records"] == list(map(json.loads, lines(subject)))
    shown = subject.cli("log show", "--order", "B/2").json["records"]
    assert [record["kind"] for record in shown] == ["received", "accepted", "activated"]
    said = subject.cli("log show", "--order", "B/2", as_json=False)
    assert [line.split()[0] for line in said.stdout.splitlines()] == ["n", *(str(one["n"]) for one in shown)]
    assert f"{ORDERS_ZONE['issuer']} B/2" in said.stdout


def test_log_verify_names_what_is_wrong(subject: Subject):
    """Exit code 1, and every problem at once."""
    subject.start(orders=[block("B-1", [STAYS])])
    subject.put_order(block("B-2", [NEW]))
    subject.reload()
    subject.stop()
    said = subject.cli("log verify", as_json=False)
    assert said.code == 0
    assert said.stdout.endswith("verified: nothing is missing, and nothing was changed\n")
    whole = ledger(subject).read_bytes()
    ledger(subject).write_bytes(b"".join(line + b"\n" for line in lines(subject)[:3]))
    said = subject.cli("log verify", as_json=False)
    assert said.code == 1
    assert "missing: record 4: " in said.stdout
    assert re.search(
        r"the ledger does not extend this checkpoint of \d+: records 4 to \d+ are missing", said.stdout
    )
    assert "named in checkpoint.json" in said.stdout
    *shorter, _ = whole.splitlines(keepends=True)
    ledger(subject).write_bytes(b"".join(shorter))
    said = subject.cli("log verify", as_json=False)
    assert f"record {len(shorter) + 1} is missing" in said.stdout
    assert "has 1 record that is not in the ledger" in said.stdout
    ledger(subject).write_bytes(whole.replace(NEW.encode(), b"xyz.example"))
    said = subject.cli("log verify")
    assert "this record was changed: its digest does not match" in said.stdout
    ledger(subject).write_bytes(whole)
    newest = max((state(subject) / "checkpoints").iterdir())
    note = newest.read_text()
    newest.write_text(note.replace("dnsblock/", "dnsblocc/"))
    said = subject.cli("log verify")
    assert (said.code, said.json["problems"][0]["file"]) == (1, str(newest))
    newest.write_text("rubbish")
    assert "is not a checkpoint" in subject.cli("log verify").stdout
    newest.write_text(note)
    assert subject.cli("log verify").code == 0


def test_log_verify_can_run_beside_the_daemon(subject: Subject):
    """Orders that come meanwhile are no problem."""
    subject.start(orders=[block("B-0", [STAYS])])
    for number in range(1, 6):
        subject.put_order(block(f"B-{number}", [f"n{number}.example"]))
        subject.hup()
        said = subject.cli("log verify")
        assert said.code == 0, said
        assert subject.cli("check").code == 0


def proof_of(subject: Subject, order_id: str) -> dict:
    said = subject.cli("log prove", order_id, as_json=False)
    assert said.code == 0, said
    return json.loads(said.stdout)


def test_a_proof_is_verified_with_the_program_of_the_documentation(subject: Subject):
    """Python's standard library and openssl; nothing of dnsblock."""
    subject.start(orders=[block("B-1", [STAYS]), block("B-2", [NEW])])
    subject.put_order(unblock("U-1", "B-2"))
    subject.reload()
    subject.stop()
    key = subject.cli("log key").json["note"]
    file = subject.folder / "proof.json"
    said = subject.cli("log prove", "U-1", "-o", str(file))
    assert said.json == {"file": str(file), "records": 3}
    assert json.loads(file.read_text()) == proof_of(subject, "U-1")
    done = verified(subject.folder, key)
    assert done.returncode == 0, done
    assert "record 1" in done.stdout or "record" in done.stdout
    proof = json.loads(file.read_text())
    assert [json.loads(one["record"])["kind"] for one in proof["records"]] == [
        "received",
        "accepted",
        "activated",
    ]
    for spoiled in (
        lambda one: one["records"][0].update(record=one["records"][0]["record"].replace("B-2", "B-1")),
        lambda one: one["records"][0].update(index=one["records"][0]["index"] + 1),
        lambda one: one["records"][0]["inclusion"].pop(),
        lambda one: one["records"][0]["inclusion"].append(base64.b64encode(bytes(32)).decode()),
        lambda one: one.update(checkpoint=one["checkpoint"].replace("dnsblock/", "dnsblocc/", 1)),
        lambda one: one.update(checkpoint=re.sub(r"\n\d+\n", "\n99\n", one["checkpoint"], count=1)),
    ):
        other = json.loads(json.dumps(proof))
        spoiled(other)
        file.write_text(json.dumps(other))
        assert verified(subject.folder, key).returncode != 0
    file.write_text(json.dumps(proof))
    assert verified(subject.folder, key.replace("+", "+0", 1)).returncode != 0


def verified(folder: Path, key: str) -> subprocess.CompletedProcess[str]:
    """Runs the program of docs/ledger.md on `proof.json`."""
    (program,) = re.findall(r"```python\n(.*?verify_proof.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "verify_proof.py").write_text(program)
    command = [sys.executable, "-I", "verify_proof.py", "proof.json", key]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_an_order_that_no_checkpoint_covers_is_not_proved(subject: Subject):
    """The message says why."""
    subject.start(orders=[block("B-1", [STAYS])])
    subject.kill()
    shutil.rmtree(state(subject) / "checkpoints", ignore_errors=True)
    said = subject.cli("log prove", "B-1")
    assert said.code == 4
    assert "no signed checkpoint covers record 1 yet" in said.problems[0]["reason"]
