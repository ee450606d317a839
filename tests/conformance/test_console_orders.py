"""Orders in the console: written in a form, checked, downloaded, signed with ssh-keygen, and submitted."""

import io
import re
import socket
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from .consoles import Browser, browser, refused
from .harness import ISSUER, is_sinkholed
from .issuing import COURT, IssuersApi
from .orders import block, unblock
from .tools import run, tool

OWN = {"listen": "127.0.0.1:0"}
FORM = {"issuer": ISSUER, "id": "84/2026", "action": "block", "names": "one.example\nslot.example exact"}


def checked(visitor: Browser, **fields: str) -> str:
    """The result of the check, as the script of the page gets it."""
    response = visitor.post("/new-order/check", {**FORM, **fields})
    assert response.status_code == 200, response.text
    return response.text


def downloaded(visitor: Browser, **fields: str) -> bytes:
    response = visitor.post("/new-order", {**FORM, "do": "download", **fields})
    assert response.status_code == 200, response.text
    return response.content


def key_of(folder: Path) -> None:
    """An officer's key, and the file of keys."""
    keygen = [tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "budi", "-f", "budi"]
    assert run(keygen, cwd=folder).returncode == 0
    (folder / "keys").write_text(f"budi@{ISSUER} {(folder / 'budi.pub').read_text()}")


def test_an_officer_writes_signs_and_submits_an_order(api: IssuersApi):
    """With the command of the page; without its signature the order is refused, and with it in force."""
    folder = api.subject.folder
    key_of(folder)
    zone = {"name": "ministry", "issuer": ISSUER, "answer": "sinkhole"}
    api.start(zones=[zone], issuers=[{"id": ISSUER, "keys": "keys"}], console=OWN)
    with browser(api, "ministry") as officer:
        page = officer.post("/new-order", {**FORM, "do": "check"}).text
        command = re.search(r"ssh-keygen -Y sign [^<]+", page)[0]
        assert "Signatures needed: 1." in page
        (folder / "84-2026.yaml").write_bytes(downloaded(officer))
        unsigned = officer.post(
            "/submit", files={"document": ("a.yaml", (folder / "84-2026.yaml").read_bytes())}
        )
        assert unsigned.status_code == 422
        assert not is_sinkholed(api.subject.query("one.example"))
        assert run(command.replace("KEY", "budi").split(), cwd=folder).returncode == 0
        names = {"document": "84-2026.yaml", "signatures": "84-2026.yaml.sig"}
        files = {part: (name, (folder / name).read_bytes()) for part, name in names.items()}
        done = officer.post("/submit", files=files)
        assert done.status_code == 200, done.text
        assert is_sinkholed(api.subject.query("one.example"))
        assert not is_sinkholed(api.subject.query("www.slot.example"))
        again = officer.post("/submit", files=files)  # replayed
        assert again.status_code == 200
        assert f"budi@{ISSUER}" in officer.get(f"/orders/{ISSUER}/84%2F2026").text
    assert len(api.subject.status()["orders"]) == 1


def test_the_document_of_the_form_is_what_was_entered(api: IssuersApi):
    """Every field; times without an offset are in the time zone of the configuration."""
    api.start(console=OWN)
    year = datetime.now(UTC).year + 1  # times in the past would be refused
    fields = {
        "urgency": "urgent",
        "effective": f"{year}-12-24 11.30",
        "expires": f"{year + 1}-01-01 00:00 WIT",
        "category": "gambling",
        "legal_basis": "UU 1/2024\nPermen 5/2020",
        "reason_id": "Perjudian <daring>",
        "contact": "aduan@ministry.example",
        "ack": "POPULAR",
    }
    with browser(api, "ministry") as officer:
        document = yaml.safe_load(downloaded(officer, **fields))
        page = officer.post("/new-order", {**FORM, **fields, "do": "check"}).text
    assert document["order_id"] == document["end"] == "84/2026"
    assert document["entries"] == ["one.example", {"name": "slot.example", "match": "exact"}]
    assert document["effective_at"] == datetime(year, 12, 24, 4, 30, tzinfo=UTC)
    assert document["expires_at"] == datetime(year, 12, 31, 15, tzinfo=UTC)
    assert document["legal_basis"] == ["UU 1/2024", "Permen 5/2020"]
    assert document["reason"] == {"id": "Perjudian <daring>"}
    assert document["acks"] == ["POPULAR"]
    assert "Perjudian &lt;daring&gt;" in page
    assert "<daring>" not in page


def test_wrong_fields_are_all_named_and_nothing_is_downloaded(api: IssuersApi):
    """The same reasons as `order new`, in the language of the page."""
    api.start(console=OWN)
    with browser(api, "ministry") as officer:
        wrong = {"names": "https://one.example/x\nid", "effective": "tomorrow", "expires": "2001-01-01"}
        found = checked(officer, **wrong)
        assert "line 1" in found
        response = officer.post("/new-order", {**FORM, **wrong, "do": "download"})
        assert response.status_code == 422
        assert 'aria-invalid="true"' in response.text
        assert "must be filled in" in checked(officer, id="", action="")
        assert "Takes effect" in checked(officer, effective="tomorrow")
        assert "PUBLIC_SUFFIX" in checked(officer, names="id")
        officer.client.headers["accept-language"] = "id"
        assert "bukan waktu" in checked(officer, effective="tomorrow")
        assert "harus diisi" in checked(officer, id="")


def test_the_check_says_what_would_happen_on_this_server(api: IssuersApi):
    """Held, already blocked and still blocked names; the next number; nothing is recorded."""
    api.start(console=OWN)
    api.submit(block("B-1", ["one.example"], seq="1"))
    api.submit(block("C-1", ["one.example"], issuer=COURT), token="court")
    api.subject.wait_recorded()
    before = api.subject.status()["ledger"]["last_record"]
    with browser(api, "ministry") as officer:
        found = checked(officer, names="one.example\nt.me\nnew.example")
        assert "It has the sequence number 2." in found
        assert "Already blocked: 1." in found
        assert "POPULAR" in found
        found = checked(officer, action="unblock", names="", lifts="B-1")
        assert "Still blocked: 1." in found
        assert "C-1" not in found  # of another issuer
        assert "X-9" in checked(officer, action="revoke", names="", lifts="X-9")
    assert api.subject.status()["ledger"]["last_record"] == before


def test_an_officer_writes_no_order_of_another_issuer(api: IssuersApi):
    """Neither in the form nor with a document; an operator may write those of all issuers."""
    api.start(console=OWN)
    with browser(api, "ministry") as officer:
        assert COURT not in officer.get("/new-order").text
        assert "not one of your issuers" in checked(officer, issuer=COURT)
        assert "not one of your issuers" in checked(officer, issuer="unknown.example")
    with browser(api, "chief") as operator:
        document = downloaded(operator, issuer=COURT, id="C-1")
        assert COURT in operator.get("/new-order").text
    with browser(api, "ministry") as officer:
        response = officer.post("/submit", files={"document": ("c.yaml", document)})
        assert response.status_code == 422
        assert "FORBIDDEN" in response.text
    with browser(api, "chief") as operator:
        assert operator.post("/submit", files={"document": ("c.yaml", document)}).status_code == 200
    assert [one["issuer"] for one in api.subject.status()["orders"]] == [COURT]


def test_a_form_reads_no_file_of_the_server(api: IssuersApi):
    """`order new` knows fields with file names: none of them reaches it from the console."""
    api.start(console=OWN)
    secret = api.subject.folder / "secret.pub"
    secret.write_text("ssh-ed25519 SECRET\n")
    hostile = {
        "document": str(secret),
        "add_key": str(secret),
        "after": str(secret),
        "orders": str(api.subject.folder),
        "output": str(api.subject.folder / "written.yaml"),
        "force": "yes",
    }
    with browser(api, "ministry") as officer:
        document = downloaded(officer, **hostile)
        assert b"document" not in document
        assert "choose one of the actions" in checked(officer, action="rotate", **hostile)
        assert "choose one of the actions" in checked(officer, action="../x")
    assert not (api.subject.folder / "written.yaml").exists()


def test_many_names_go_to_a_file_of_their_own(api: IssuersApi):
    """More than 1,000, as `order new`: the archive has both files, and both are submitted."""
    api.start(console=OWN, guards={"bulk": {"entries": "off"}})
    names = "".join(f"casino{number}.example\n" for number in range(1500)).encode()
    with browser(api, "ministry") as officer:
        fields = {**FORM, "names": "", "do": "download"}
        response = officer.post("/new-order", fields, {"names_file": ("names.txt", names)})
        assert response.headers["content-type"] == "application/zip", response.text
        with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
            document, entries = archive.read("84-2026.yaml"), archive.read("84-2026.txt")
        files = {"document": ("84-2026.yaml", document), "entries": ("84-2026.txt", entries)}
        done = officer.post("/submit", files=files)
        assert done.status_code == 200, done.text
    assert is_sinkholed(api.subject.query("casino1499.example"))


def test_hostile_text_in_orders_is_escaped_on_every_page(api: IssuersApi):
    """Numbers, reasons and notes come from documents that others write."""
    attack = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    api.start(console=OWN)
    order = block(
        f"B/{attack}", ["one.example"], reason={"id": attack, "en": attack}, category=attack, contact=attack
    )
    assert api.submit(order).status_code == 201
    assert api.submit(unblock(f"U/{attack}", f"B/{attack}")).status_code == 201
    with browser(api, "chief") as operator:
        listed = operator.get("/orders").text
        links = re.findall(r'href="/console(/orders/[^"]+)"', listed)
        pages = [listed, operator.get("/ledger").text, operator.get("/versions").text, operator.get("/").text]
        pages += [operator.get(link).text for link in links]
        pages += [operator.get("/search", params={"name": "one.example"}).text]
        pages += [operator.get("/search", params={"name": attack}).text]
        pages += [operator.get("/orders", params={"number": attack, "issuer": attack}).text]
        pages += [checked(operator, id=attack, reason_id=attack, names=attack)]
        assert len(links) == 2
        for page in pages:
            assert "<script>alert" not in page
            assert "<img src=x" not in page
        assert sum("&lt;script&gt;alert" in page for page in pages) >= 6


# ------- Hostile requests


@pytest.mark.parametrize(
    ("content", "media_type", "status", "code"),
    [
        (b"x" * 100_000, "multipart/form-data; boundary=x", 413, "TOO_LARGE"),
        (b"token=x", "application/x-www-form-urlencoded", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"{}", "application/json", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"garbage", "multipart/form-data; boundary=x", 400, "MALFORMED"),
        (b"garbage", "multipart/form-data", 400, "MALFORMED"),
        (b"--x\r\n\r\n\r\n--x--\r\n", "multipart/form-data; boundary=x", 400, "MALFORMED"),
        (
            b'--x\r\nContent-Disposition: form-data; name="token"; filename="f"\r\n\r\nx\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            400,
            "MALFORMED",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 60 + b"--x--\r\n",
            "multipart/form-data; boundary=x",
            400,
            "MALFORMED",
        ),
    ],
    ids=["large", "urlencoded", "json", "garbage", "no-boundary", "no-name", "file", "many"],
)
def test_a_malformed_form_is_refused_and_counted(
    api: IssuersApi, content: bytes, media_type: str, status: int, code: str
):
    """Each with its code, before anybody has signed in."""
    api.start(console=OWN)
    with browser(api) as visitor:
        headers = {"content-type": media_type, "origin": visitor.origin, "sec-fetch-site": "same-origin"}
        response = visitor.client.post("/console/login", content=content, headers=headers)
        assert response.status_code == status, response.text
        assert code in response.text
        assert refused(api, code) == 1
        assert visitor.sign_in("chief").status_code == 303


def test_a_body_without_an_end_is_cut_at_the_limit(api: IssuersApi):
    """Without a length, too: the limit is for what has arrived."""
    api.start(console=OWN)

    def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="token"\r\n\r\n'
        for _ in range(1000):
            yield b"y" * 4096

    with browser(api) as visitor:
        headers = {"content-type": "multipart/form-data; boundary=x", "origin": visitor.origin}
        response = visitor.client.post("/console/login", content=endless(), headers=headers)
        assert response.status_code in (400, 413)


def test_a_crowd_on_the_listener_of_the_console_stops_nothing_else(api: IssuersApi):
    """2,000 connections that say nothing: the console, orders and DNS go on; the oldest are closed."""
    api.start(console=OWN, http={"max_connections": 64})
    host, port = api.subject.status()["console"].rsplit(":", 1)
    crowd = []
    try:
        for _ in range(2000):
            crowd.append(socket.create_connection((host, int(port)), timeout=30))
            if len(crowd) > 200:
                crowd.pop(0).close()
        with browser(api, "chief") as operator:
            assert operator.get("/").status_code == 200
        assert api.submit(block("B-1", ["one.example"])).status_code == 201
        assert is_sinkholed(api.subject.query("one.example", transport="tcp"))
        metrics = api.subject.metrics()
        assert metrics.total("dnsblock_http_connections", listener="console") <= 64
        assert metrics.total("dnsblock_http_closed_connections_total", listener="console", reason="full") > 0
    finally:
        for client in crowd:
            client.close()
