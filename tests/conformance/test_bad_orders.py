"""Bad orders over each way in: refused with a code, counted in a metric; nothing changes, nothing is lost."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .harness import ISSUER, is_sinkholed
from .issuing import IssuersApi, problem
from .orders import as_yaml, block
from .tools import run, tool

NAMESPACE = "dnsblock-order@v1"
PEOPLE = ("officer", "lifter", "stranger")
KEPT = "kept.example"


@dataclass(frozen=True, slots=True)
class Sent:
    """A document with its signatures."""

    document: bytes
    signatures: bytes | None = None


Way = Callable[[IssuersApi, str, Sent], list[dict]]  # sends a document, and returns the problems


def by_socket(api: IssuersApi, name: str, sent: Sent) -> list[dict]:
    path = written(api.subject.folder, name, sent)
    said = api.subject.cli("order submit", str(path))
    (one,) = said.json["documents"]
    assert (said.code, one["verdict"]) == (4, "refused"), said
    return one["problems"]


def by_api(api: IssuersApi, name: str, sent: Sent) -> list[dict]:
    more = {} if sent.signatures is None else {"signatures": sent.signatures}
    response = api.submit(sent.document, **more)
    assert response.status_code in (403, 422), response.text
    return response.json()["problems"]


def by_inbox(api: IssuersApi, name: str, sent: Sent) -> list[dict]:
    path = written(api.subject.orders_folder, name, sent)
    said = api.subject.cli("reload")
    assert said.code == 4, said
    path.unlink()
    path.with_name(f"{path.name}.sig").unlink(missing_ok=True)
    return said.json["problems"]


def written(folder: Path, name: str, sent: Sent) -> Path:
    path = folder / f"{name}.yaml"
    if sent.signatures is not None:
        path.with_name(f"{path.name}.sig").write_bytes(sent.signatures)
    path.write_bytes(sent.document)
    return path


class Desk:
    """People with keys; they sign with ssh-keygen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in PEOPLE:
            run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)])
        known = ((name, (folder / f"{name}.pub").read_text().split()) for name in PEOPLE[:2])
        (folder / "signers").write_text(
            "".join(f"{name}@{ISSUER} {key[0]} {key[1]}\n" for name, key in known)
        )

    def sign(self, document: bytes, name: str = "officer", namespace: str = NAMESPACE) -> bytes:
        path = self.folder / "desk"
        path.write_bytes(document)
        path.with_name("desk.sig").unlink(missing_ok=True)
        run([tool("ssh-keygen"), "-Y", "sign", "-f", str(self.folder / name), "-n", namespace, str(path)])
        return path.with_name("desk.sig").read_bytes()

    def signed(self, document: bytes, name: str = "officer", namespace: str = NAMESPACE) -> Sent:
        return Sent(document, self.sign(document, name, namespace))


def text(order_id: str, **more: object) -> bytes:
    return as_yaml(block(order_id, ["bad.example"], **more)).encode()


def bad(desk: Desk) -> Iterator[tuple[str, Sent, str]]:
    """Its name, what is sent, and the code of the refusal."""
    whole = text("X-1")
    lines = whole.splitlines(keepends=True)
    levels = b"".join(b"l%d: &l%d [%s]\n" % (n, n, b", ".join([b"*l%d" % (n - 1)] * 9)) for n in range(1, 9))
    names = block("X-1", [], entries_file={"path": "../keys.txt", "sha256": "ab" * 32, "lines": 1})
    del names["entries"]
    yield "oversized", desk.signed(b"#" * (2 << 20) + b"\n" + whole), "TOO_LARGE"
    yield "cut", desk.signed(b"".join(lines[:-1])), "INCOMPLETE"
    yield "another-encoding", desk.signed(whole.replace(b"bad", b"b\xe4d")), "INVALID"
    yield "unknown-key", desk.signed(text("X-1", extra="x")), "INVALID"
    yield "bomb", desk.signed(b"l0: &l0 [x]\n" + levels + whole), "INVALID"
    yield "nested", desk.signed(b"contact: " + b"[" * 50_000 + b"\n" + whole), "INVALID"
    yield "path", desk.signed(as_yaml(names).encode()), "INVALID"
    yield "unsigned", Sent(whole), "UNSIGNED"
    yield "altered", Sent(whole.replace(b"bad", b"gad"), desk.sign(whole)), "BAD_SIGNATURE"
    yield "stranger", desk.signed(whole, "stranger"), "UNKNOWN_KEY"
    yield "namespace", desk.signed(whole, namespace="file"), "WRONG_NAMESPACE"
    yield "armour", Sent(whole, desk.sign(whole)[:-40]), "MALFORMED"
    yield "role", desk.signed(whole, "lifter"), "WRONG_ROLE"
    yield "number", desk.signed(text("B-1")), "REUSED"
    yield "clock", desk.signed(text("X-1", expires_at="2026-01-06T00:00:00Z")), "EXPIRED"
    yield "issuer", desk.signed(text("X-1", issuer="other.example")), "UNKNOWN_ISSUER"


@pytest.mark.parametrize("way", [by_socket, by_api, by_inbox])
def test_a_bad_order_is_refused_with_its_code_and_counted(api: IssuersApi, way: Way):
    """Oversized, malformed, forged, too old, another issuer's: the folder is as hostile as the network."""
    desk, subject = Desk(api.subject.folder), api.subject
    zone = {"name": "ministry", "issuer": ISSUER, "answer": "sinkhole"}
    issuer = {"id": ISSUER, "keys": "signers", "roles": {f"lifter@{ISSUER}": {"may": ["lift"]}}}
    api.start(zones=[zone], issuers=[issuer])
    good = desk.signed(as_yaml(block("B-1", [KEPT])).encode())
    assert api.submit(good.document, signatures=good.signatures).status_code == 201
    before = subject.status()
    for name, sent, code in bad(desk):
        expected = "FORBIDDEN" if (way, name) == (by_api, "issuer") else code
        counted = refusals(api, expected)
        problems = way(api, name, sent)
        assert expected in {one["code"] for one in problems}, (name, problems)
        assert all(one["reason"].isprintable() for one in problems), (name, problems)
        assert refusals(api, expected) == counted + 1, name
        if way is by_api:
            assert str(subject.folder) not in json.dumps(problems), name
        if name == "stranger":
            path = "signers" if way is by_api else str(subject.folder / "signers")
            assert any(f"{path} has no valid line" in one["reason"] for one in problems), problems
    assert str(subject.folder) not in (subject.folder / "state" / "ledger.jsonl").read_text()
    subject.reload()  # the folder is empty
    after = subject.status()
    assert facts(after) == facts(before)
    assert is_sinkholed(subject.query(KEPT))
    assert subject.cli("log verify").code == 0
    more = desk.signed(as_yaml(block("B-2", ["two.example"])).encode())
    assert api.submit(more.document, signatures=more.signatures).status_code == 201
    assert is_sinkholed(subject.query("two.example"))


def facts(status: dict) -> tuple:
    """The facts that must stay. A state may become `verified` meanwhile."""
    orders = [(one["order_id"], one["in_force"]) for one in status["orders"]]
    return status["serial"], status["digest"], orders


def refusals(api: IssuersApi, code: str) -> float:
    return api.subject.metrics().total("dnsblock_order_refusals_total", code=code)


@pytest.mark.parametrize("way", ["socket", "api", "inbox"])
def test_a_replayed_order_brings_nothing_back(api: IssuersApi, way: str):
    """The block that was lifted is sent again: it is accepted as known, and stays lifted."""
    api.start()
    subject = api.subject
    first = as_yaml(block("B-1", [KEPT]))
    lifting = {**block("U-1", []), "action": "unblock", "targets": [{"order_id": "B-1", "entries": "all"}]}
    del lifting["entries"]
    assert api.submit(first.encode(), lifting).status_code == 201
    before = subject.status()
    path = subject.put_order(first, "again.yaml")
    match way:
        case "socket":
            assert subject.cli("order submit", str(path)).code == 0
        case "api":
            assert api.submit(first.encode()).status_code == 200
        case _:
            assert subject.cli("reload").code == 0
    after = subject.status()
    assert facts(after) == facts(before)
    assert not is_sinkholed(subject.query(KEPT))


def test_a_client_gets_no_path_of_a_server_that_cannot_use_its_ledger(api: IssuersApi):
    """503 for the order and for a receipt. The operator finds the reason at the socket and in the log."""
    api.start()
    subject, ledger = api.subject, api.subject.folder / "state" / "ledger.jsonl"
    assert api.submit(block("B-1", [KEPT])).status_code == 201
    subject.stop()
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:2]))
    subject.launch()
    with api.client("ministry") as client:
        receipt = client.get(f"/v1/orders/{ISSUER}/B-1/receipt")
    for response in (api.submit(block("B-2", ["two.example"])), receipt):
        details = problem(response, 503, "UNAVAILABLE")
        assert "/" not in details["detail"]
        assert str(subject.folder) not in response.text
        assert "problems" not in details
    path = written(subject.folder, "B-2", Sent(text("B-2")))
    assert str(ledger) in subject.cli("order submit", str(path), as_json=False).stderr
    logged = [
        line for line in subject.stderr().splitlines() if "a request of the issuers' API failed" in line
    ]
    assert (len(logged), str(ledger) in logged[0]) == (2, True)
