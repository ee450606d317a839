"""The issuers' API: who may connect, what each client may do, and what it never sees."""

import hashlib
import json
import shutil
import socket
import ssl
from contextlib import closing

import httpx
import pytest
from ports import free_port

from .asking import TIMEOUT
from .harness import ISSUER, Subject, is_sinkholed
from .issuing import CLIENTS, COURT, TOKENS, IssuersApi, by_certificate, by_token, form, problem, staff
from .orders import as_yaml, block, unblock
from .tools import run, tool, wait_for

# ------- The connection


def test_an_order_that_is_pushed_is_in_force_and_recorded_with_its_client(api: IssuersApi):
    """201 when it is durable and in force; the ledger names the client, not a user of this machine."""
    api.start()
    response = api.submit(block("B-1", ["one.example"]))
    assert response.status_code == 201, response.text
    (one,) = response.json()["documents"]
    assert (one["verdict"], one["state"], one["in_force"]) == ("accepted", "active", 1)
    assert is_sinkholed(api.subject.query("one.example"))
    ledger = (api.subject.folder / "state" / "ledger.jsonl").read_text()
    records = [json.loads(line) for line in ledger.splitlines()]
    by = [record["by"] for record in records if record["kind"] in ("received", "accepted")]
    assert by == [{"kind": "issuer", "client": "ministry"}] * 2
    problem(api.submit(block("B-1", ["two.example"])), 422, "REFUSED")
    shown = api.subject.cli("log show", "--order", "B-1", as_json=False).stdout.splitlines()
    assert {line.split()[5] for line in shown if "received" in line} == {"ministry"}
    assert any("reasons=REUSED: " in line for line in shown)
    api.subject.restart()
    assert is_sinkholed(api.subject.query("one.example"))


@pytest.mark.parametrize(
    ("options", "works"),
    [(["-tls1_3"], True), (["-tls1_2"], False), (["-tls1_1"], False), (["-no_tls1_3"], False)],
)
def test_only_tls_1_3_is_spoken(api: IssuersApi, options: list[str], works: bool):
    """RFC 8446; older versions are refused in the handshake."""
    api.start()
    host, port = api.address
    command = [
        tool("openssl"),
        "s_client",
        "-brief",
        "-connect",
        f"{host}:{port}",
        "-CAfile",
        str(api.servers.pem),
    ]
    said = run([*command, *options], input="", timeout=60)
    assert ("Protocol version: TLSv1.3" in said.stderr, said.returncode == 0) == (works, works), said
    if not works:
        wait_for(lambda: api.closed("handshake") >= 1, "the failed handshake is counted")


def test_plain_http_is_not_answered(api: IssuersApi):
    """Nothing is accepted or answered in the clear."""
    api.start()
    with socket.create_connection(api.address, timeout=TIMEOUT) as client:
        client.sendall(b"GET /v1/orders HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in read_all(client)
    wait_for(lambda: api.closed("handshake") == 1, "it is counted")


def read_all(client: socket.socket) -> bytes:
    data = b""
    try:
        while chunk := client.recv(4096):
            data += chunk
    except ConnectionError:
        pass
    return data


def test_a_handshake_that_does_not_end_is_ended(api: IssuersApi):
    """10 seconds; meanwhile and afterwards others are served."""
    api.start()
    with socket.create_connection(api.address, timeout=TIMEOUT) as silent:
        assert api.get("/v1/orders").status_code == 200
        assert read_all(silent) == b""  # closed by the daemon, before the client's own timeout
    wait_for(lambda: api.closed("handshake") == 1, "it is counted")


def test_a_crowd_in_handshakes_locks_nobody_out(api: IssuersApi):
    """The oldest connection without a request makes room; DNS and the control socket are not affected."""
    api.start(http={"max_connections": 8})
    crowd = [socket.create_connection(api.address, timeout=TIMEOUT) for _ in range(40)]
    try:
        assert api.submit(block("B-1", ["one.example"])).status_code == 201
        assert is_sinkholed(api.subject.query("one.example", transport="tcp"))
        assert api.closed("full") >= 32
        assert api.subject.metrics().total("dnsblock_http_connections", listener="api") <= 8
    finally:
        for client in crowd:
            client.close()


# ------- The client


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        f"Basic {TOKENS['ministry']}",
        f"Bearer {TOKENS['ministry']}x",
        f"Bearer {TOKENS['ministry'][:-1]}",
        f"Bearer {TOKENS['old']}",
        "Bearer " + "x" * 9000,
    ],
)
def test_without_valid_credentials_nothing_is_answered(api: IssuersApi, header: str | None):
    """401 with a challenge (RFC 6750); the body is not looked at."""
    api.start()
    with api.client() as client:
        headers = {} if header is None else {"Authorization": header}
        response = client.post("/v1/orders", files=form(block("B-1", ["one.example"])), headers=headers)
        problem(response, 401, "UNAUTHENTICATED")
        assert response.headers["www-authenticate"].startswith("Bearer")
        for path in ("/v1/orders", "/v1/events", f"/v1/orders/{ISSUER}/B-1"):
            problem(client.get(path, headers=headers), 401, "UNAUTHENTICATED")
    assert api.subject.status()["orders"] == []
    assert api.refused("UNAUTHENTICATED") == 4
    assert api.subject.metrics().total("dnsblock_api_requests_total", status="401") == 4


def test_a_client_certificate_is_known_by_name_or_fingerprint(api: IssuersApi):
    """By the common name, an alternative name, or the SHA-256 of the certificate."""
    by_name = api.clients.issue("officer.ministry.example", "")
    by_alternative = api.clients.issue("other", "email:officer@ministry.example,URI:urn:x")
    by_fingerprint = api.clients.issue("third", "")
    unknown = api.clients.issue("unknown", "DNS:unknown.example")
    der = ssl.PEM_cert_to_DER_cert(by_fingerprint[0].read_text())
    api.start(
        [
            by_certificate("officer.ministry.example"),
            by_certificate("officer@ministry.example", "mail"),
            by_certificate(f"sha256:{hashlib.sha256(der).hexdigest()}", "print", roles=["read"]),
        ]
    )
    for certificate, order_id in ((by_name, "B-1"), (by_alternative, "B-2")):
        with api.client(certificate=certificate) as client:
            assert client.post("/v1/orders", files=form(block(order_id, ["a.example"]))).status_code == 201
    with api.client(certificate=by_fingerprint) as client:
        assert client.get("/v1/orders").status_code == 200
        problem(client.post("/v1/orders", files=form(block("B-3", ["a.example"]))), 403, "FORBIDDEN")
    with api.client(certificate=unknown) as client:
        problem(client.get("/v1/orders"), 401, "UNAUTHENTICATED")


@pytest.mark.parametrize("days", [2, 0])
def test_a_certificate_of_another_authority_or_an_expired_one_is_refused(api: IssuersApi, days: int):
    """In the handshake: it never becomes a request."""
    wrong = (api.servers if days else api.clients).issue("officer.ministry.example", "", days)
    api.start()
    with api.client(certificate=wrong) as client, pytest.raises(httpx.TransportError):
        client.get("/v1/orders")
    wait_for(lambda: api.closed("handshake") == 1, "it is counted")
    with api.client("ministry") as client:
        assert client.get("/v1/orders").status_code == 200


def test_a_certificate_cannot_pretend_to_be_a_fingerprint(api: IssuersApi):
    """A common name that begins with sha256: is ignored; so are two clients that match one certificate."""
    digest = "sha256:" + "ab" * 8
    pretender = api.clients.issue(digest, "")
    both = api.clients.issue("one", "DNS:two.example")
    api.start([by_certificate(digest), by_certificate("one", "a"), by_certificate("two.example", "b")])
    for certificate in (pretender, both):
        with api.client(certificate=certificate) as client:
            problem(client.get("/v1/orders"), 401, "UNAUTHENTICATED")


def test_a_wrong_token_beside_a_valid_certificate_is_refused(api: IssuersApi):
    """The client means the token: a script with a revoked token must not go on as somebody else."""
    api.start()
    valid = api.clients.issue("officer.ministry.example", "")
    with api.client("wrong", certificate=valid) as client:
        problem(client.get("/v1/orders"), 401, "UNAUTHENTICATED")


def test_a_client_without_the_role_is_refused(api: IssuersApi):
    """403: the credentials are valid, and another role would be needed."""
    api.start([*CLIENTS, by_token("old", roles=["submit"])])
    details = problem(api.submit(block("B-1", ["one.example"]), token="reader"), 403, "FORBIDDEN")
    assert "submit" in details["detail"]
    problem(api.get("/v1/orders", token="old"), 403, "FORBIDDEN")
    assert api.subject.status()["orders"] == []
    assert api.refused("FORBIDDEN") == 2


def test_an_order_of_another_issuer_is_refused(api: IssuersApi):
    """403, whether the order is new or in the ledger; the others in the same request are accepted."""
    api.start()
    order = block("C-1", ["one.example"], issuer=COURT)
    details = problem(api.submit(order), 403, "FORBIDDEN")
    assert details["documents"][0]["verdict"] == "refused"
    assert api.submit(order, token="court").status_code == 201
    problem(api.submit(order), 403, "FORBIDDEN")
    both = api.submit(order, block("B-1", ["two.example"]))
    assert both.status_code == 201
    assert [one["verdict"] for one in both.json()["documents"]] == ["refused", "accepted"]
    assert api.refused("FORBIDDEN") == 3
    assert "C-1" not in json.dumps(both.json()["served"])


def test_a_token_is_never_logged(api: IssuersApi):
    """Neither a valid one nor a wrong one, and not its hash."""
    api.start(log={"level": "debug"})
    api.submit(block("B-1", ["one.example"]))
    api.get("/v1/orders", token="wrong-token")
    said = api.subject.stderr() + json.dumps(api.subject.status()) + api.subject.metrics().text
    for secret in (TOKENS["ministry"], "wrong-token", by_token("ministry")["sha256"]):
        assert secret not in said


# ------- What a request may be


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/nothing", "/v1/orders/annul/", "/livez/", "/metrics", "/v1/orders/"]
)
def test_other_paths_do_not_exist(api: IssuersApi, path: str):
    """The API serves only what docs/api.md lists; another spelling is another path."""
    api.start()
    with api.client("ministry") as client:
        for method in ("GET", "POST", "PUT", "DELETE"):
            response = client.request(method, path)
            assert response.status_code in (404, 405)
            problem(
                response,
                response.status_code,
                "NOT_FOUND" if response.status_code == 404 else "METHOD_NOT_ALLOWED",
            )


def test_a_wrong_method_is_refused(api: IssuersApi):
    """405, with all methods of the path (RFC 9110, section 15.5.6)."""
    api.start()
    with api.client("ministry") as client:
        response = client.delete("/v1/orders")
        problem(response, 405, "METHOD_NOT_ALLOWED")
        assert response.headers["allow"] == "GET, HEAD, POST"


def test_a_replayed_order_changes_nothing(api: IssuersApi):
    """Idempotent by the hash of the document: a timeout may make the sender try again."""
    api.start()
    order = block("B-1", ["one.example"])
    first, second = api.submit(order), api.submit(order)
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["served"] is None
    assert second.json()["documents"][0]["verdict"] == "accepted"
    assert len(api.subject.status()["orders"]) == 1
    api.submit(unblock("U-1", "B-1"))
    assert api.submit(order).status_code == 200, "a replayed block does not come back"
    assert is_forwarded_or_failed(api.subject, "one.example")


def is_forwarded_or_failed(subject: Subject, name: str) -> bool:
    return not is_sinkholed(subject.query(name))


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (b"", "INCOMPLETE"),
        (b"\xff\xfe", "UTF-8"),
        (as_yaml(block("B-1", ["one.example"])).encode()[:-9], "INCOMPLETE"),
        (b"a: &a [x, x]\nb: [*a, *a]\n", "anchors"),
        (b"[" * 100_000, "nested"),
        (b"x: " + b"y" * (2 << 20), "larger than"),
        (as_yaml(block("B-1", ["one.example"]) | {"extra": "x"}).encode(), "unknown key"),
        (as_yaml(block("B-1", ["one.example"], issuer="unknown.example")).encode(), "may not submit"),
    ],
    ids=["empty", "encoding", "cut", "bomb", "deep", "large", "key", "issuer"],
)
def test_a_bad_document_is_refused_with_every_problem(api: IssuersApi, document: bytes, word: str):
    """422, or 403 for another issuer; nothing is recorded."""
    api.start()
    response = api.submit(document)
    details = problem(
        response, *((403, "FORBIDDEN") if "unknown.example" in str(document) else (422, "REFUSED"))
    )
    assert any(word in one["reason"] for one in details["problems"]), details
    assert details["documents"][0]["problems"] == details["problems"]
    assert api.subject.status()["orders"] == []
    assert api.submit(block("B-2", ["two.example"])).status_code == 201
    assert api.refused("REFUSED") + api.refused("FORBIDDEN") == 1


def test_an_order_needs_the_signatures_of_its_issuer(api: IssuersApi):
    """A token shows who sends an order, and no more: without valid signatures, it is refused."""
    keygen, folder = tool("ssh-keygen"), api.subject.folder
    for name in ("officer", "stranger"):
        run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)])
    key = (folder / "officer.pub").read_text().split()
    (folder / "keys").write_text(f"officer@ministry.example {key[0]} {key[1]}\n")
    signed = {"name": "ministry", "issuer": ISSUER, "answer": "sinkhole"}
    api.start(zones=[signed], issuers=[{"id": ISSUER, "keys": "keys", "signatures": 1}])
    document = as_yaml(block("B-1", ["one.example"])).encode()
    (folder / "signed.yaml").write_bytes(document)

    def signature(name: str, namespace: str = "dnsblock-order@v1") -> bytes:
        (folder / "signed.yaml.sig").unlink(missing_ok=True)
        run([keygen, "-Y", "sign", "-f", str(folder / name), "-n", namespace, str(folder / "signed.yaml")])
        return (folder / "signed.yaml.sig").read_bytes()

    valid = signature("officer")
    wrong = [None, b"", b"garbage", valid[:-40], signature("stranger"), signature("officer", "file")]
    for one in wrong:
        problem(api.submit(document, **({} if one is None else {"signatures": one})), 422, "REFUSED")
    problem(api.submit(document.replace(b"one", b"two"), signatures=valid), 422, "REFUSED")
    assert api.subject.status()["orders"] == []
    assert api.refused("REFUSED") == len(wrong) + 1
    assert api.submit(document, signatures=valid).status_code == 201
    assert is_sinkholed(api.subject.query("one.example"))
    (signer,) = api.get(f"/v1/orders/{ISSUER}/B-1").json()["signers"]
    assert signer["principal"] == "officer@ministry.example"


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../0.yaml", "..", ".", "a/b", "0.yaml", "", "a\\b", "names.txt\\0"]
)
def test_no_path_in_entries_file_is_read(api: IssuersApi, path: str):
    """The entries come in the request; a path in the document is only compared."""
    api.start()
    secret = api.subject.folder / "names.txt"
    secret.write_text("one.example\n")
    order = block("B-1", [], entries_file={"path": path, "sha256": "ab" * 32, "lines": 1})
    del order["entries"]
    for more in ({}, {"entries": b"one.example\n"}):
        problem(api.submit(order, **more), 422, "REFUSED")
    assert api.subject.status()["orders"] == []


def test_a_form_that_is_malformed_is_refused(api: IssuersApi):
    """400, 413 or 415, each with what is wrong."""
    api.start()
    order = as_yaml(block("B-1", ["one.example"])).encode()
    with api.client("ministry") as client:
        problem(client.post("/v1/orders", content=order), 415, "UNSUPPORTED_MEDIA_TYPE")
        problem(client.post("/v1/orders", json={"document": "x"}), 415, "UNSUPPORTED_MEDIA_TYPE")
        kind = {"Content-Type": "multipart/form-data"}
        problem(client.post("/v1/orders", content=order, headers=kind), 400, "MALFORMED")
        problem(client.post("/v1/orders", files=[("other", ("x", order))]), 400, "MALFORMED")
        problem(client.post("/v1/orders", files=[("entries", ("x", order))]), 400, "MALFORMED")
        problem(client.post("/v1/orders", files=[("document", ("a", order))] * 2), 400, "MALFORMED")
        many = [("document", (str(number), order)) for number in range(101)]
        problem(client.post("/v1/orders", files=many), 413, "TOO_LARGE")
        large = [("document", ("a", order)), ("signatures", ("b", bytes(70_000)))]
        problem(client.post("/v1/orders", files=large), 413, "TOO_LARGE")
    assert api.subject.status()["orders"] == []


def test_a_body_that_is_too_large_is_refused_before_it_is_read(api: IssuersApi):
    """413, by its announced length or while it comes."""
    api.start()
    with closing(api.connection()) as client:
        client.putrequest("POST", "/v1/orders")
        client.putheader("Authorization", f"Bearer {TOKENS['ministry']}")
        client.putheader("Content-Type", "multipart/form-data; boundary=b")
        client.putheader("Content-Length", str(64 << 20))
        client.endheaders()
        assert client.getresponse().status == 413
    head = b'--b\r\nContent-Disposition: form-data; name="document"; filename="a"\r\n\r\n'
    with api.client("ministry") as client:
        chunks = (head if number == 0 else bytes(1 << 20) for number in range(40))
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        problem(client.post("/v1/orders", content=chunks, headers=kind), 413, "TOO_LARGE")
    assert api.refused("TOO_LARGE") == 2


def test_a_document_of_the_largest_size_is_accepted(api: IssuersApi):
    """100,000 names beside the document."""
    api.start()
    names = b"".join(b"n%06d.%s.example\n" % (number, b"x" * 60) for number in range(100_000))
    reference = {"path": "names.txt", "sha256": hashlib.sha256(names).hexdigest(), "lines": 100_000}
    order = block("B-1", [], entries_file=reference)
    del order["entries"]
    response = api.submit(order, entries=names)
    assert response.status_code == 201, response.text[:2000]
    (one,) = response.json()["documents"]
    assert (one["entries"], one["held"], len(one["entry_verdicts"])) == (100_000, 100_000, 1000), "BULK"


# ------- Reload


def test_a_reload_rotates_tokens_and_certificate(api: IssuersApi):
    """Old credentials end with it, new ones are valid, and connections with the old certificate end."""
    api.start([by_token("old")])
    kept = api.client("old")
    assert kept.get("/v1/orders").status_code == 200
    api.know([by_token("ministry")])
    api.renew("DNS:other.example,IP:127.0.0.1")
    before = api.url
    changed = api.subject.reload()
    assert {"api.certificate (file)", "api.key (file)", "api.tokens (file)"} <= set(
        changed["changes"]["options"]
    )
    assert api.url == before
    problem(kept.get("/v1/orders"), 401, "UNAUTHENTICATED")
    kept.close()
    assert api.get("/v1/orders").status_code == 200
    with closing(api.connection()) as client:
        client.connect()
        names = client.sock.getpeercert()["subjectAltName"]
    assert ("DNS", "other.example") in names


@pytest.mark.parametrize("broken", ["clients.yaml", "api.pem", "api.key", "clients.pem"])
def test_a_broken_file_keeps_what_is_in_force(api: IssuersApi, broken: str):
    """The reload names the file; orders of the same reload are published."""
    api.start()
    kept = (api.subject.folder / broken).read_bytes()
    (api.subject.folder / broken).write_bytes(b"garbage\n")
    api.subject.put_order(block("B-1", ["one.example"]))
    said = api.subject.cli("reload")
    assert (said.code, said.json["served"]["entries"]) == (4, 1)
    assert any(broken in one["file"] for one in said.problems), said.problems
    assert api.get("/v1/orders").status_code == 200
    check = api.subject.cli("check")
    assert check.code == 1
    assert any(broken in one["file"] for one in check.problems), check.problems
    (api.subject.folder / broken).write_bytes(kept)
    assert api.subject.cli("reload").code == 0


@pytest.mark.parametrize("broken", ["clients.yaml", "api.pem", "api.key", "clients.pem"])
def test_a_daemon_does_not_start_with_a_broken_file(api: IssuersApi, broken: str):
    """Startup is strict: an API that nobody can use would be noticed when an order is urgent."""
    api.renew()
    api.know(CLIENTS)
    shutil.copy(api.clients.pem, api.subject.folder / "clients.pem")
    (api.subject.folder / broken).unlink()
    api.subject.configure(api=api.options())
    assert any(broken in line for line in api.subject.serve_refused().refusal)


def test_a_key_with_a_passphrase_is_refused(api: IssuersApi):
    """Nobody can type it: the daemon would wait at a terminal for ever."""
    api.renew()
    api.know(CLIENTS)
    folder = api.subject.folder
    encrypt = ["pkey", "-in", str(folder / "api.key"), "-out", str(folder / "locked.key"), "-aes256"]
    run([tool("openssl"), *encrypt, "-passout", "pass:secret"])
    api.subject.configure(api=api.options(key="locked.key", clients=None))
    (line,) = api.subject.serve_refused().refusal
    assert "passphrase" in line


def test_a_reload_opens_moves_and_closes_the_api(api: IssuersApi):
    """As the metrics: another address is bound before the old one is closed."""
    api.start()
    first = api.address
    api.configure(api.options(listen="127.0.0.1:0"), http={"max_connections": 100})
    api.subject.reload()
    assert api.address == first, "port 0 again: nothing changes"
    port = free_port()
    api.configure(api.options(listen=f"127.0.0.1:{port}"))
    api.subject.reload()
    assert api.address == ("127.0.0.1", port)
    lines = api.subject.cli("status", as_json=False).stdout.splitlines()
    assert f"  api          https://127.0.0.1:{port}" in lines
    assert api.get("/v1/orders").status_code == 200
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(first, timeout=TIMEOUT).close()
    api.configure(None)
    api.subject.reload()
    assert api.subject.status()["api"] is None
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT).close()
    api.configure(api.options(listen=f"127.0.0.1:{port}"))
    api.subject.reload()
    assert api.get("/v1/orders").status_code == 200


# ------- The file of clients


@pytest.mark.parametrize(
    ("clients", "word"),
    [
        ([], "must not be empty"),
        ([by_token("ministry") | {"sha256": "x"}], "64 hexadecimal digits"),
        ([by_token("ministry") | {"token": "x"}], "unknown key"),
        ([by_token("ministry") | {"certificate": "x"}], "one of sha256"),
        ([by_token("ministry", roles=["admin"])], "roles"),
        ([by_token("ministry", roles=[])], "roles"),
        ([by_token("ministry", issuers=[])], "issuers: must name at least one"),
        ([by_token("noc", roles=["watch"], issuers=[ISSUER])], "issuers: must be absent"),
        ([by_token("noc", roles=["operate"]) | {"issuers": [ISSUER]}], "issuers: must be absent"),
        ([by_token("noc", roles=["watch", "read"])], "not of both"),
        ([by_token("ministry"), staff("noc", "watch") | {"name": "ministry"}], "rename one"),
        ([by_token("ministry"), by_token("ministry") | {"name": "other"}], "already"),
        ([by_token("ministry") | {"name": "not a name"}], "name"),
    ],
)
def test_a_wrong_line_of_the_file_of_clients_is_named(api: IssuersApi, clients: list, word: str):
    """With its line: a client that is silently ignored could not push an urgent order."""
    api.renew()
    api.know(clients)
    api.subject.configure(api=api.options(clients=None))
    lines = api.subject.serve_refused().refusal
    assert any("clients.yaml:" in line and word in line for line in lines), lines
