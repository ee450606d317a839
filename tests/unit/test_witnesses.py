"""Witnesses cosign what extends the ledger, and nothing else."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from witness import Service
from witness import Witness as RealWitness

from dnsblock import https
from dnsblock.https import Server
from dnsblock.orders.transparency.merkle import Tree
from dnsblock.orders.transparency.witnesses import Contradicted, Cosigned, NotCosigned, Witness
from dnsblock.signatures.keys import SigningKey
from dnsblock.signatures.notes import SIGNATURE, Checkpoint, SignedCheckpoint, VerifierKey

from .https_server import Authority, then_silent
from .https_server import Server as HttpsServer

ORIGIN = "resolver.isp.example"
KEY = SigningKey.generate()
VKEY = str(VerifierKey(ORIGIN, SIGNATURE, KEY.public_bytes))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture
def real() -> RealWitness:
    witness = RealWitness()
    witness.trust(VKEY)
    return witness


@pytest.fixture
def service(authority: Authority, real: RealWitness) -> Iterator[Service]:
    with Service(authority.certificate(), real) as service:
        yield service


@pytest.fixture
def witness(authority: Authority, service: Service, real: RealWitness) -> Witness:
    return Witness(Server(service.url, authority.pem), VerifierKey.from_text(real.vkey))


def tree_of(size: int, lineage: str = "") -> Tree:
    return Tree(f"{lineage}{number}".encode() for number in range(size))


def note(tree: Tree, size: int | None = None) -> SignedCheckpoint:
    size = tree.size if size is None else size
    return Checkpoint(ORIGIN, size, tree.root(size)).signed(KEY)


def cosign(witness: Witness, tree: Tree, size: int, known: int) -> Cosigned:
    return asyncio.run(witness.cosign(note(tree, size), tree.consistency, known))


def test_a_witness_cosigns_each_checkpoint_that_extends_the_last_one(
    witness: Witness, service: Service, real: RealWitness
):
    """From any size to any other: the proofs are verified by the other side."""
    tree = tree_of(40)
    known = 0
    for size in (1, 2, 3, 7, 8, 9, 16, 31, 32, 33, 40, 40):
        done = cosign(witness, tree, size, known)
        assert (done.size, done.key.name) == (size, "witness.example/w1")
        assert real.cosigned[ORIGIN] == (size, tree.root(size))
        whole = note(tree, size).with_signatures([done.signature])
        assert len(whole.verified([witness.key, VerifierKey.from_text(VKEY)])) == 2
        known = size
    assert [target for _, target, _, _ in service.requests] == ["/add-checkpoint"] * 12


def test_the_request_has_the_old_size_the_proof_and_the_note(witness: Witness, service: Service):
    """tlog-witness, "add-checkpoint"."""
    tree = tree_of(7)
    cosign(witness, tree, 3, 0)
    cosign(witness, tree, 7, 3)
    proof = [base64.b64encode(sibling).decode() for sibling in tree.consistency(3, 7)]
    assert len(proof) > 1
    expected = "\n".join(["old 3", *proof, "", str(note(tree, 7))])
    assert service.requests[-1][3].decode() == expected


@pytest.mark.parametrize("known", [0, 1, 5, 8, 20])
def test_a_witness_that_knows_another_size_says_which(witness: Witness, service: Service, known: int):
    """After a restart, what it has cosigned is not known here. Its response 409 says it."""
    tree = tree_of(8)
    cosign(witness, tree, 3, 0)
    assert cosign(witness, tree, 8, known).size == 8
    assert len(service.requests) == 3


def test_a_ledger_that_was_cut_contradicts_its_witness(witness: Witness):
    """A witness has what is missing here."""
    cosign(witness, tree_of(9), 9, 0)
    for known in (0, 9):
        with pytest.raises(Contradicted, match="has cosigned 9 records, but the ledger has only 7"):
            cosign(witness, tree_of(9), 7, known)


def test_a_ledger_that_was_rewritten_contradicts_its_witness(witness: Witness):
    """Of the same size, or with more records, known here or not."""
    cosign(witness, tree_of(9), 9, 0)
    forged = tree_of(12, "forged")
    for size, known in ((9, 9), (9, 0), (12, 9), (12, 0)):
        with pytest.raises(Contradicted, match="cosigned"):
            cosign(witness, forged, size, known)


def test_a_witness_that_does_not_know_the_ledger_is_named(witness: Witness, real: RealWitness):
    """The message says what to do."""
    real.logs.clear()
    with pytest.raises(NotCosigned, match=r"does not know the origin .*\(`dnsblock log key`\)"):
        cosign(witness, tree_of(3), 3, 0)
    real.trust(str(VerifierKey(ORIGIN, SIGNATURE, SigningKey.generate().public_bytes)))
    with pytest.raises(NotCosigned, match=r"does not know the key .*\(`dnsblock log key`\)"):
        cosign(witness, tree_of(3), 3, 0)


OTHER = RealWitness("other.example")
SIZE = "text/x.tlog.size"


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([(500, "text/plain", b"out of order\n")], "HTTP 500: out of order"),
        ([(302, "text/plain", b"")], "HTTP 302"),
        ([(400, "text/html", b"<h1>" + b"x" * 5000)], "HTTP 400: <h1>"),
        ([(200, "text/plain", b"")], "no signature of witness.example"),
        ([(200, "text/plain", b"\xff\n")], "not a list of signatures"),
        ([(200, "text/plain", b"yes\n")], "not a list of signatures"),
        ([(200, "text/plain", b"x" * 70_000)], "larger than 65,536 bytes"),
        ([(409, SIZE, b"1\n"), (409, SIZE, b"2\n"), (409, SIZE, b"1\n")], "changes with each request"),
        ([(409, "text/plain", b"whatever")], "HTTP 409, which means a conflict: whatever"),
        ([(409, SIZE, b"-1\n")], "a conflict"),
        ([(409, SIZE, b"9" * 30)], "a conflict"),
    ],
)
def test_an_unexpected_response_is_no_cosignature(
    witness: Witness, service: Service, answers: list[tuple[int, str, bytes]], why: str
):
    """A witness is a server of somebody else."""
    service.answers = answers
    with pytest.raises(NotCosigned, match=why):
        cosign(witness, tree_of(3), 3, 0)


def test_only_the_configured_key_counts(witness: Witness, service: Service, real: RealWitness):
    """tlog-witness: cosignatures of unknown keys are ignored; a false one of the known key is none."""
    OTHER.trust(VKEY)
    request = f"old 0\n\n{note(tree_of(3))}".encode()
    _, _, of_other = OTHER.add_checkpoint(request)
    _, _, of_it = real.add_checkpoint(request)
    service.answers = [(200, "text/plain", of_other), (200, "text/plain", of_other + of_it)]
    with pytest.raises(NotCosigned, match="no signature of"):
        cosign(witness, tree_of(3), 3, 0)
    assert cosign(witness, tree_of(3), 3, 0).size == 3
    service.answers = [(200, "text/plain", of_it)]
    with pytest.raises(NotCosigned, match="its signature is invalid"):
        cosign(witness, tree_of(4), 4, 0)


def test_a_server_that_is_not_trusted_gets_no_checkpoint(witness: Witness, service: Service):
    """TLS is always verified."""
    stranger = Witness(Server(service.url), witness.key)
    with pytest.raises(NotCosigned, match="certificate verify failed"):
        cosign(stranger, tree_of(3), 3, 0)
    assert service.requests == []


def test_a_witness_that_cannot_be_reached_is_reported(
    authority: Authority, witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nobody listens; nobody answers; no certificates."""
    with Service(authority.certificate()) as service:
        closed = service.url
    with pytest.raises(NotCosigned, match="Connection refused"):
        cosign(Witness(Server(closed, authority.pem), witness.key), tree_of(3), 3, 0)
    with pytest.raises(NotCosigned, match="no certificates in PEM format"):
        cosign(Witness(Server(closed, tmp_path / "ca.pem"), witness.key), tree_of(3), 3, 0)
    monkeypatch.setattr(https, "SECONDS", 0.5)
    with HttpsServer(authority.certificate()) as server:
        server.serve(then_silent(b""), "/add-checkpoint")
        with pytest.raises(NotCosigned, match=r"no response within 0\.5 s"):
            cosign(Witness(Server(server.url(""), authority.pem), witness.key), tree_of(3), 3, 0)
