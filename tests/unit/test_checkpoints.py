"""Signed checkpoints: their key, their folder and the other places where they are kept."""

import asyncio
import json
import logging
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from witness import Service
from witness import Witness as RealWitness

from dnsblock.config_ledger import LedgerOptions
from dnsblock.errors import Refused
from dnsblock.orders.transparency import distribution
from dnsblock.orders.transparency.distribution import Distributor, Place
from dnsblock.orders.transparency.folder import DAY_SECONDS, KEPT, CheckpointFolder, extends
from dnsblock.orders.transparency.instance import Instance
from dnsblock.orders.transparency.merkle import Tree
from dnsblock.signatures.notes import Checkpoint, SignedCheckpoint, VerifierKey

from .https_server import Authority


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance.load_or_create(tmp_path)


def tree_of(size: int, lineage: str = "") -> Tree:
    return Tree(f"{lineage}{number}".encode() for number in range(size))


def note(instance: Instance, tree: Tree, size: int | None = None) -> SignedCheckpoint:
    size = tree.size if size is None else size
    return Checkpoint(instance.origin, size, tree.root(size)).signed(instance.key)


# ------- The key -------


def test_the_key_is_made_once_and_is_private(instance: Instance, tmp_path: Path):
    """ssh-keygen reads it, and prints the same public key."""
    path = tmp_path / "instance.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Instance.load_or_create(tmp_path)
    assert again.public == instance.public
    said = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert said.split()[:2] == instance.openssh.split()[:2]
    assert instance.openssh.split()[2] == instance.origin
    assert VerifierKey.from_text(str(instance.verifier)).public == instance.public


def test_the_name_of_a_ledger_is_its_own_or_that_of_the_configuration(instance: Instance, tmp_path: Path):
    """Two instances never have the same by default."""
    (tmp_path / "other").mkdir()
    assert Instance.load_or_create(tmp_path / "other").origin != instance.origin
    named = Instance.load(tmp_path, "resolver.isp.example/ledger")
    assert named is not None
    assert named.origin == "resolver.isp.example/ledger"
    assert str(named.verifier).startswith("resolver.isp.example/ledger+")


def test_a_key_that_cannot_be_used_is_refused(instance: Instance, tmp_path: Path):
    """A new one would not be the one that others know."""
    path = tmp_path / "instance.key"
    path.chmod(0o644)
    with pytest.raises(Refused, match="chmod 600"):
        Instance.load_or_create(tmp_path)
    path.chmod(0o600)
    path.write_text("no key")
    with pytest.raises(Refused, match="restore the file from a backup"):
        Instance.load_or_create(tmp_path)
    assert Instance.load(tmp_path / "none") is None


# ------- The folder -------


def test_a_folder_keeps_one_file_for_each_checkpoint(instance: Instance, tmp_path: Path):
    """The one with the most records is found first; cosignatures are added to the file."""
    folder = CheckpointFolder(tmp_path / "checkpoints")
    folder.path.mkdir()
    tree = tree_of(12)
    for size in (5, 12, 9):
        folder.keep(note(instance, tree, size), instance.public)
    assert [found.size for found in folder.found()] == [12, 9, 5]
    assert all(found.read() == note(instance, tree, found.size) for found in folder.found())
    witness = RealWitness()
    witness.trust(str(instance.verifier))
    cosigned = cosigned_by(witness, note(instance, tree))
    path = folder.keep(cosigned, instance.public)
    assert folder.keep(note(instance, tree), instance.public) == path, "a cosignature is never lost"
    assert SignedCheckpoint.from_bytes(path.read_bytes()) == cosigned
    assert len(list(folder.path.iterdir())) == 3


def cosigned_by(witness: RealWitness, signed: SignedCheckpoint) -> SignedCheckpoint:
    _, _, line = witness.add_checkpoint(f"old 0\n\n{signed}".encode())
    return SignedCheckpoint.from_bytes(str(signed).encode() + line)


def test_old_checkpoints_are_removed_except_the_last_of_each_day(instance: Instance, tmp_path: Path):
    """Each order has a checkpoint: ten thousand files prove no more than one a day."""
    folder, tree = CheckpointFolder(tmp_path / "checkpoints"), tree_of(KEPT + 6)
    folder.path.mkdir()
    other = Instance.load_or_create(tmp_path / "checkpoints")
    foreign = folder.keep(note(other, tree, 1), other.public)
    paths = [folder.keep(note(instance, tree, size), instance.public) for size in range(1, tree.size + 1)]
    for path, day in zip(paths, (1, 1, 1, 2, 2, 3), strict=False):
        os.utime(path, (day * DAY_SECONDS + 1, day * DAY_SECONDS + 1))
    folder.remove_old(instance.public)
    assert {found.path for found in folder.found()} == {foreign, paths[2], paths[4], *paths[5:]}
    folder.remove_old(instance.public)
    assert {found.path for found in folder.found()} == {foreign, paths[2], paths[4], *paths[5:]}


def test_a_cut_or_rewritten_ledger_contradicts_its_checkpoints(instance: Instance, tmp_path: Path):
    """Only the checkpoint with the most records matters, unless the operator has accepted it."""
    folder = CheckpointFolder(tmp_path)
    tree = tree_of(12)
    for size in (3, 8, 12):
        folder.keep(note(instance, tree, size), instance.public)

    def contradicted(now: Tree, accepted: int = 0) -> int | None:
        found = folder.contradiction(now, instance.public, lambda one: one.size <= accepted)
        return found and found.checkpoint.size

    assert contradicted(tree) is None
    assert contradicted(tree_of(20)) is None
    assert contradicted(tree_of(11)) == 12
    assert contradicted(tree_of(0)) == 12
    assert contradicted(tree_of(12, "forged")) == 12
    assert contradicted(tree_of(30, "forged")) == 12
    assert contradicted(tree_of(10), accepted=12) is None
    found = folder.contradiction(tree_of(10), instance.public, lambda _: False)
    assert found is not None
    assert found.extended == 8
    assert contradicted(tree_of(12, "forged"), accepted=11) == 12
    assert extends(tree, Checkpoint("x", 0, Tree().root()))


def test_checkpoints_of_others_do_not_count_in_a_shared_folder(instance: Instance, tmp_path: Path):
    """Nor does a file without a valid signature; in the state folder, those of a lost key do."""
    (tmp_path / "b").mkdir()
    other = Instance.load_or_create(tmp_path / "b")
    folder = CheckpointFolder(tmp_path)
    folder.keep(note(other, tree_of(50)), other.public)
    forged = note(other, tree_of(60))
    folder.keep(forged, instance.public)
    (tmp_path / "00000000-000000000099-00000000.checkpoint").write_bytes(b"rubbish")
    (tmp_path / "a.checkpoint").write_bytes(b"rubbish")

    def refuse(_: Checkpoint) -> bool:
        return False

    assert folder.contradiction(tree_of(3), instance.public, refuse) is None
    found = folder.contradiction(tree_of(3), None, refuse)
    assert found is not None
    assert found.checkpoint.size == 60


def test_a_file_under_another_name_is_not_read(instance: Instance, tmp_path: Path):
    """The number in the name is that in the note."""
    path = CheckpointFolder(tmp_path).keep(note(instance, tree_of(4)), instance.public)
    path.rename(tmp_path / path.name.replace("0004", "0009"))
    folder = CheckpointFolder(tmp_path)
    assert folder.contradiction(tree_of(1), instance.public, lambda _: False) is None
    with pytest.raises(FileNotFoundError):
        list(CheckpointFolder(tmp_path / "none").found())


# ------- Other places -------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture
def witness(instance: Instance) -> RealWitness:
    witness = RealWitness()
    witness.trust(str(instance.verifier))
    return witness


@pytest.fixture
def service(authority: Authority, witness: RealWitness) -> Iterator[Service]:
    with Service(authority.certificate(), witness) as service:
        yield service


@pytest.fixture
def options(authority: Authority, service: Service, witness: RealWitness, tmp_path: Path) -> LedgerOptions:
    (tmp_path / "second").mkdir()
    (tmp_path / "token").write_text("Bearer secret\n")
    return LedgerOptions.model_validate(
        {
            "checkpoints": {
                "folder": str(tmp_path / "second"),
                "url": f"{service.url}isp-a/",
                "ca": str(authority.pem),
                "authorization": str(tmp_path / "token"),
            },
            "witnesses": [{"url": service.url, "key": witness.vkey, "ca": str(authority.pem)}],
        }
    )


class Sent:
    """Sends checkpoints of a growing ledger, as the daemon does."""

    def __init__(self, instance: Instance, options: LedgerOptions) -> None:
        self.instance, self.options = instance, options
        self.kept: list[SignedCheckpoint] = []
        self.distributor = Distributor(instance.public, self.kept.append, lambda _: None)

    def send(self, tree: Tree) -> dict[str, Place]:
        self.run(tree)
        return {kind: place for (kind, _), place in self.distributor.places.items()}

    def run(self, *trees: Tree) -> None:
        async def rounds() -> None:
            for tree in trees:
                signed = note(self.instance, tree)
                await self.distributor.send(signed, tree.consistency, self.options)

        asyncio.run(rounds())


def test_a_checkpoint_reaches_every_place_with_its_cosignature(
    instance: Instance, options: LedgerOptions, service: Service, caplog: pytest.LogCaptureFixture
):
    """The second folder, the HTTPS server and the state folder; the log has it without."""
    sent = Sent(instance, options)
    with caplog.at_level(logging.INFO):
        places = sent.send(tree_of(5))
        sent.send(tree_of(5))
    assert {kind: (place.size, place.error) for kind, place in places.items()} == {
        "folder": (5, None),
        "url": (5, None),
        "witness": (5, None),
    }
    assert options.checkpoints.folder is not None
    (stored,) = options.checkpoints.folder.iterdir()
    whole = SignedCheckpoint.from_bytes(stored.read_bytes())
    keys = [instance.verifier, options.witnesses[0].key]
    assert len(whole.verified(keys)) == 2
    assert sent.kept[0] == whole
    assert service.stored == {f"/isp-a/{stored.name}": stored.read_bytes()}
    puts = [headers for method, _, headers, _ in service.requests if method == "PUT"]
    assert all(headers["authorization"] == "Bearer secret" for headers in puts)
    (line,) = [record for record in caplog.records if "checkpoint of the ledger: 5 records" in record.message]
    logged = line.__dict__["fields"]
    assert SignedCheckpoint.from_bytes(logged["checkpoint"].encode()).verified([instance.verifier])


def test_a_place_that_fails_does_not_delay_the_others(
    instance: Instance,
    options: LedgerOptions,
    service: Service,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    """Each is logged once, until it works again. Its next checkpoint covers what it missed."""
    sent = Sent(instance, options)
    service.answers = [(500, "text/plain", b"broken"), (507, "text/plain", b"full")] * 2
    places = sent.send(tree_of(5))
    assert "HTTP 500: broken" in str(places["witness"].error)
    assert "HTTP 507: full" in str(places["url"].error)
    assert places["folder"].error is None
    sent.send(tree_of(6))
    assert places["url"].failures == 2
    assert len([1 for record in caplog.records if "HTTP 507" in record.message]) == 1
    os.rename(tmp_path / "second", tmp_path / "gone")
    places = sent.send(tree_of(7))
    assert (places["url"].size, places["witness"].size) == (7, 7)
    assert "No such file or directory" in str(places["folder"].error)
    assert [record.message for record in caplog.records if "again" in record.message] == [
        f"the {kind} {name} has the checkpoint again"
        for kind, name in (("witness", "witness.example/w1"), ("url", f"{service.url}isp-a/"))
    ]


def test_a_folder_that_hangs_does_not_delay_the_others(
    instance: Instance, options: LedgerOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A pipe instead of the file hangs like a network file system. One thread waits for it, not more."""
    monkeypatch.setattr(distribution, "FOLDER_SECONDS", 0.3)
    sent = Sent(instance, options)
    signed = note(instance, tree_of(5))
    pipe = tmp_path / "second" / distribution.file_name(signed, instance.public)
    os.mkfifo(pipe)

    async def rounds() -> None:
        for size in (5, 6):
            await sent.distributor.send(note(instance, tree_of(size)), tree_of(size).consistency, options)
            places = {kind: place for (kind, _), place in sent.distributor.places.items()}
            assert "not written within 0.3 s" in str(places["folder"].error)
            assert (places["url"].size, places["witness"].size) == (size, size)
        await asyncio.to_thread(pipe.write_bytes, b"")
        await asyncio.to_thread(sent.distributor._writer.join)  # type: ignore[union-attr]
        monkeypatch.setattr(distribution, "FOLDER_SECONDS", 60.0)
        await sent.distributor.send(note(instance, tree_of(7)), tree_of(7).consistency, options)
        assert sent.distributor.places["folder", str(tmp_path / "second")].error is None

    asyncio.run(rounds())


def test_a_witness_that_contradicts_the_ledger_is_an_emergency(
    instance: Instance, options: LedgerOptions, caplog: pytest.LogCaptureFixture
):
    """Somebody has cut the ledger, and everything on this machine agrees with it."""
    sent = Sent(instance, options)
    sent.send(tree_of(9))
    places = Sent(instance, options).send(tree_of(7))
    assert places["witness"].contradicts
    (record,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "has cosigned 9 records, but the ledger has only 7" in record.message


def test_places_without_a_configuration_get_nothing(instance: Instance):
    """Only the log."""
    sent = Sent(instance, LedgerOptions())
    assert sent.send(tree_of(5)) == {}
    assert sent.kept == []


def test_the_token_is_never_shown(
    instance: Instance, options: LedgerOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Even if it is invalid."""
    (tmp_path / "token").write_text("Bearer secret\nsecond line\n")
    places = Sent(instance, options).send(tree_of(5))
    assert "must contain one line" in str(places["url"].error)
    assert "secret" not in caplog.text + json.dumps([str(place) for place in places.values()])
