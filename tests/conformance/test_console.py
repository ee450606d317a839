"""The console: who may sign in, what each role sees and does, and what no other site can cause."""

import io
import json
import zipfile
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from .consoles import ROLES, browser, refused
from .harness import ISSUER, is_sinkholed
from .issuing import CLIENTS, COURT, TOKENS, ZONES, IssuersApi
from .lists import UNWATCHED
from .orders import block
from .tools import run, tool

LISTED = {"name": "listed", "list": "list.txt", "answer": "nodata", "source": UNWATCHED}
OWN = {"console": {"listen": "127.0.0.1:0"}}
CODES = {"reader": 403, "ministry": 403, "noc": 403, "nobody": 401}


def start(api: IssuersApi, **config: object) -> None:
    """A daemon with a console, a list, and an order of each issuer; t.me is held."""
    lists = {"list.txt": ["slot.example", "casino.example"]}
    api.start(zones=[*ZONES, LISTED], lists=lists, **{**OWN, **config})
    api.submit(block("B-1/2026", ["one.example", "t.me"], deadline_at="2030-01-01T00:00:00Z"))
    api.submit(block("C-1", ["court.example.net"], issuer=COURT), token="court")
    api.subject.wait_recorded()


def address(path: str) -> str:
    """A path with an order and a list."""
    return path.format(issuer=ISSUER, number="B-1%2F2026", zone="listed")


def query(path: str) -> str:
    return "?a=1&b=2" if path == "/diff" else "?name=one.example" if path == "/search" else ""


def is_login(response: httpx.Response) -> bool:
    return response.status_code == 303 and response.headers["location"].startswith("/console/login")


# ------- Roles


@pytest.mark.parametrize("who", ["nobody", "reader", "ministry", "noc", "chief"])
def test_each_role_sees_and_does_only_what_is_its_own(api: IssuersApi, who: str):
    """Each page and change with each role: 200, or 403 and nothing changes."""
    start(api)
    before = api.subject.status()
    with browser(api, who) as visitor:
        for (method, path), roles in ROLES.items():
            if path in ("/login", "/logout", "/language"):
                continue
            if method == "GET":
                response = visitor.get(address(path) + query(path))
                if who == "nobody" and path != "/series":
                    assert is_login(response), path
                else:
                    assert response.status_code == (200 if who in roles else CODES[who]), path
            else:
                # Without the secret of the session, nothing is done even with the role.
                response = visitor.post(address(path), {"reason": "test"}, csrf="0" * 64)
                assert response.status_code == (403 if who in roles else CODES[who]), path
                assert ("CROSS_SITE" in response.text) == (who in roles), path
    after = api.subject.status()
    assert after["serial"] == before["serial"]
    assert after["ledger"]["last_record"] == before["ledger"]["last_record"]


def test_an_officer_sees_the_orders_of_its_own_issuer_only(api: IssuersApi):
    """Another issuer's order does not exist for it: neither in a list, nor its page, nor its receipt."""
    start(api)
    with browser(api, "ministry") as officer:
        listed = officer.get("/orders").text
        assert "B-1/2026" in listed
        assert "C-1" not in listed
        assert COURT not in officer.get("/").text
        assert officer.get(f"/orders/{COURT}/C-1").status_code == 404
        assert officer.post(f"/orders/{COURT}/C-1/receipt").status_code == 404
        page = officer.get(address("/orders/{issuer}/{number}")).text
        assert "t.me" in page
        assert "/approve" not in page
        assert "/annul" not in page
    with browser(api, "noc") as staff:
        assert "C-1" in staff.get("/orders").text
        assert "/annul" not in staff.get(f"/orders/{COURT}/C-1").text


def test_an_operator_releases_held_entries_and_the_ledger_names_it(api: IssuersApi):
    """With a reason; only the chosen entries; the change is in force when the response comes."""
    start(api)
    page = address("/orders/{issuer}/{number}")
    assert not is_sinkholed(api.subject.query("t.me"))
    with browser(api, "chief") as operator:
        assert operator.post(f"{page}/approve", {"reason": "checked"}).status_code == 422
        assert operator.post(f"{page}/approve", {"entry": "t.me"}).status_code == 422
        response = operator.post(f"{page}/approve", {"entry": "t.me", "reason": "checked by phone"})
        assert response.headers["location"] == f"/console{page}?done=approved"
        assert is_sinkholed(api.subject.query("t.me"))
        assert "checked by phone" in operator.get(f"{page}?done=approved").text
        response = operator.post(f"{page}/annul", {"reason": "wrong letter", "sure": "yes"})
        assert response.headers["location"] == f"/console{page}?done=annulled"
        assert not is_sinkholed(api.subject.query("one.example"))
    ledger = (api.subject.folder / "state" / "ledger.jsonl").read_text()
    records = [json.loads(line) for line in ledger.splitlines()]
    by = [one["by"] for one in records if one["kind"] in ("approved", "annulled")]
    assert by == [{"kind": "operator", "client": "chief"}] * 2
    with browser(api, "ministry") as officer:
        shown = officer.get(page).text
        assert "wrong letter" in shown
        assert "chief" not in shown  # the provider's staff are not named to issuers


def test_an_operator_accepts_a_rejected_list_and_rolls_it_back(api: IssuersApi):
    """By the digest of its content; a wrong digest and a missing reason change nothing."""
    start(api)
    serial = api.subject.status()["serial"]
    api.subject.put_list("list.txt", ["slot.example"])
    with browser(api, "chief") as operator:
        assert operator.post("/lists/listed/refresh").headers["location"] == "/console/lists?done=refreshed"
        api.subject.put_list("list.txt", [*["not a name!"] * 3, "slot.example"])
        assert operator.post("/reload").status_code == 409
        page = operator.get("/lists").text
        digest = api.subject.status()["sources"][0]["rejected"]["sha256"]
        assert digest in page
        accept = "/lists/listed/accept"
        assert operator.post(accept, {"sha256": digest}).status_code == 422
        assert operator.post(accept, {"sha256": "0" * 64, "reason": "x"}).status_code == 409
        done = operator.post(accept, {"sha256": digest, "reason": "as published"})
        assert done.headers["location"] == "/console/lists?done=accepted"
        assert "as published" in operator.get("/versions?zone=listed").text
        assert "casino.example" in operator.get(f"/diff?a={serial}&b={api.subject.status()['serial']}").text
        done = operator.post("/rollback", {"serial": str(serial), "reason": "too small"})
        assert done.headers["location"] == "/console/versions?done=rolled-back"
        assert api.subject.query("casino.example").rcode == "NOERROR"
        assert api.subject.cli("why", "casino.example").json["verdict"] == "blocked"


def test_an_operator_exempts_a_name_from_lists_and_never_from_an_order(api: IssuersApi):
    """As `dnsblock allow`; its page names the operator; a wrong time or a missing reason changes nothing."""
    start(api)
    until = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    good = {"name": "slot.example", "until": until, "reason": "a mistake of the list"}
    with browser(api, "chief") as operator:
        assert operator.post("/exceptions", {**good, "until": "soon"}).status_code == 400
        assert operator.post("/exceptions", {**good, "reason": ""}).status_code == 422
        assert operator.post("/exceptions", {**good, "match": "x"}).status_code == 422
        assert operator.post("/exceptions", {**good, "name": "one.example"}).status_code == 409
        assert api.subject.cli("why", "slot.example").json["verdict"] == "blocked"
        done = operator.post("/exceptions", good)
        assert done.headers["location"] == "/console/exceptions?done=allowed"
        assert api.subject.cli("why", "slot.example").json["verdict"] == "not blocked"
        page = operator.get("/exceptions").text
        assert "a mistake of the list" in page
        assert "operator chief" in page
        done = operator.post("/exceptions/end", {"name": "slot.example", "reason": "it was none"})
        assert done.headers["location"] == "/console/exceptions?done=allowance-ended"
        assert api.subject.cli("why", "slot.example").json["verdict"] == "blocked"


def test_a_receipt_from_the_console_verifies_with_ssh_keygen(api: IssuersApi):
    """The archive holds the receipt and its detached signature."""
    start(api)
    with browser(api, "ministry") as officer:
        response = officer.post(address("/orders/{issuer}/{number}/receipt"))
    assert response.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        name, signature = sorted(archive.namelist())
        archive.extractall(api.subject.folder)
    receipt = json.loads((api.subject.folder / name).read_text())
    assert receipt["order"]["order_id"] == "B-1/2026"
    (api.subject.folder / "signers").write_text(f"instance {receipt['key']}\n")
    command = [tool("ssh-keygen"), "-Y", "verify", "-n", "dnsblock-receipt@v1", "-I", "instance"]
    command += ["-f", "signers", "-s", signature]
    content = (api.subject.folder / name).read_text()
    assert run(command, cwd=api.subject.folder, input=content, timeout=60).returncode == 0


def test_the_search_explains_a_name_now_and_at_a_time(api: IssuersApi):
    """As `dnsblock why`; a name or a time that is wrong is an error on the page."""
    start(api)
    with browser(api, "noc") as staff:
        now = staff.get("/search?name=www.one.example").text
        assert "B-1/2026" in now
        past = staff.get("/search?name=slot.example&at=2001-01-01").text
        assert ">not blocked<" in past
        assert ">blocked<" in staff.get("/search?name=slot.example").text
        for wrong in ("name=..", "name=a.example&at=yesterday", "name=a.example&client=x"):
            response = staff.get(f"/search?{wrong}")
            assert response.status_code == 400
            assert 'role="alert"' in response.text


# ------- Sessions


def test_signing_in_makes_a_new_session_with_a_strict_cookie(api: IssuersApi):
    """A session that an attacker has set in the browser is never used (session fixation)."""
    start(api)
    with browser(api) as visitor:
        name = "__Host-dnsblock"
        visitor.client.cookies.set(name, "planted", path="/")
        response = visitor.sign_in("chief")
        cookie = response.headers["set-cookie"]
        assert cookie.startswith(f"{name}=")
        for attribute in ("Secure", "HttpOnly", "SameSite=strict", "Path=/", "Max-Age="):
            assert attribute.lower() in cookie.lower()
        assert "Domain" not in cookie
        first = cookie.split("=", 1)[1].split(";")[0]
        assert first != "planted"
        second = visitor.sign_in("chief").headers["set-cookie"].split("=", 1)[1].split(";")[0]
        assert second != first
    with browser(api) as thief:
        for identifier in ("planted", first):
            thief.client.cookies.set(name, identifier, path="/")
            assert is_login(thief.get("/"))
    assert TOKENS["chief"] not in api.subject.stderr()


def test_a_session_ends_with_sign_out_and_with_the_removal_of_its_client(api: IssuersApi):
    """Nobody goes on with a cookie that was copied, or after the token was revoked."""
    start(api)
    with browser(api, "chief") as operator, browser(api, "noc") as staff:
        assert api.subject.metrics().total("dnsblock_console_sessions") == 2
        copied = dict(operator.client.cookies)
        secret = operator.secret()
        assert is_login(operator.post("/logout"))
        operator.client.cookies.update(copied)
        assert is_login(operator.get("/"))
        assert operator.post("/reload", csrf=secret).status_code == 401
        assert staff.get("/").status_code == 200
        api.know([one for one in CLIENTS if one["name"] != "noc"])
        api.subject.reload()
        assert is_login(staff.get("/"))
        assert staff.sign_in("noc").status_code == 401
    assert api.subject.metrics().total("dnsblock_console_sessions") == 0


def test_a_client_certificate_needs_no_session_and_its_forms_have_a_secret_too(api: IssuersApi):
    """A browser sends a certificate with every request, also with one that another site causes."""
    certificate = api.clients.issue("officer.ministry.example", "")
    start(api)
    with browser(api, certificate=certificate) as officer:
        page = officer.get("/orders")
        assert "B-1/2026" in page.text
        assert "/console/logout" not in page.text
        receipt = address("/orders/{issuer}/{number}/receipt")
        assert officer.post(receipt, csrf="").status_code == 403
        assert officer.post(receipt, headers={"origin": "https://evil.example"}).status_code == 403
        assert officer.post(receipt).status_code == 200


def test_too_many_failed_tries_are_refused_and_a_valid_token_is_not(api: IssuersApi):
    """For all clients together: no address is stored. Nobody can lock the operator out."""
    start(api)
    with browser(api) as visitor:
        codes = [visitor.sign_in(f"dnsblock-{number}").status_code for number in range(60)]
        assert set(codes) == {401, 429}
        assert codes[0] == 401
        assert visitor.sign_in("chief").status_code == 303
    assert refused(api, "UNAUTHENTICATED") + refused(api, "BUSY") == 60


# ------- Other sites


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1"},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ],
    ids=["none", "null", "foreign", "other", "forged", "cross-site", "same-site", "typed"],
)
def test_a_change_that_another_site_causes_is_refused(api: IssuersApi, headers: dict[str, str]):
    """Even with the secret of the session: signing in, too (login CSRF)."""
    start(api)
    with browser(api, "chief") as operator:
        serial = api.subject.status()["serial"]
        api.subject.put_list("list.txt", ["other.example"])
        assert operator.post("/reload", headers=headers).status_code == 403
        assert operator.post("/login", {"token": TOKENS["noc"]}, headers=headers).status_code == 403
        assert api.subject.status()["serial"] == serial
        assert refused(api, "CROSS_SITE") == 2
        assert operator.post("/reload").status_code == 303


def test_the_secret_of_one_session_is_not_that_of_another(api: IssuersApi):
    """A form that was copied from another session is refused."""
    start(api)
    with browser(api, "chief") as one, browser(api, "chief") as other:
        assert one.secret() != other.secret()
        assert one.post("/reload", csrf=other.secret()).status_code == 403
        assert one.post("/reload", csrf="é" * 64).status_code == 403
        assert one.post("/reload").status_code == 303


def test_every_response_forbids_what_pages_do_not_need(api: IssuersApi):
    """Content-Security-Policy and the other headers, also on errors and files; no page is stored."""
    start(api)
    with browser(api, "chief") as operator:
        page = operator.get("/")
        file = next(part for part in page.text.split('"') if part.endswith(".css"))
        responses = [operator.get(address(path) + query(path)) for method, path in ROLES if method == "GET"]
        responses += [operator.get("/none"), operator.get("/static/none"), operator.client.get("/x")]
        responses += [operator.client.put("/console/orders"), operator.post("/reload", csrf="x")]
        assert {405, 404, 403, 200} <= {one.status_code for one in responses}
        for response in [*responses, operator.client.get(file)]:
            policy = response.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            for name, value in (
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "same-origin"),
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-resource-policy", "same-origin"),
                ("strict-transport-security", "max-age=31536000"),
            ):
                assert response.headers[name] == value
        assert {one.headers["cache-control"] for one in responses} == {"no-store"}
        assert "immutable" in operator.client.get(file).headers["cache-control"]
        for response in responses:
            assert " style=" not in response.text
            assert "<script>" not in response.text
            assert "http://" not in response.text.replace("http://www.w3.org", "")


def test_no_link_to_sign_in_leads_to_another_site(api: IssuersApi):
    """Open redirects make phishing credible."""
    start(api)
    with browser(api) as visitor:
        for to in (
            "https://evil.example/",
            "//evil.example",
            "/console//evil.example",
            "/console/\\evil",
            "/x",
        ):
            response = visitor.post("/login", {"token": TOKENS["noc"], "to": to}, csrf="")
            assert response.headers["location"] == "/console/", to
            response = visitor.post("/language", {"language": "id", "back": to})
            assert response.headers["location"] == "/console/", to
        response = visitor.post(
            "/login", {"token": TOKENS["noc"], "to": "/console/orders?only=held"}, csrf=""
        )
        assert response.headers["location"] == "/console/orders?only=held"


# ------- Languages


@pytest.mark.parametrize(
    ("wanted", "language"),
    [
        ("id-ID,id;q=0.9,en;q=0.8", "id"),
        ("en-GB,id;q=0.5", "en"),
        ("de", "en"),
        ("id", "id"),
        ("", "en"),
        ("id;q=x, en", "en"),
    ],
)
def test_the_language_is_the_one_that_the_browser_prefers(api: IssuersApi, wanted: str, language: str):
    """RFC 9110, section 12.5.4; a choice on the page goes before it."""
    start(api)
    with browser(api) as visitor:
        visitor.client.headers["accept-language"] = wanted
        title = {"id": "<h1>Masuk</h1>", "en": "<h1>Sign in</h1>"}
        page = visitor.get("/login").text
        assert f'<html lang="{language}">' in page
        assert title[language] in page
        other = "en" if language == "id" else "id"
        assert visitor.post("/language", {"language": other, "back": "/console/login"}).status_code == 303
        assert title[other] in visitor.get("/login").text
        assert visitor.post("/language", {"language": "xx"}).status_code == 422


# ------- The listener


def test_the_console_runs_on_the_listener_of_the_api_or_on_its_own(api: IssuersApi):
    """`console: {}`, then its own address, then none: each by a reload. The API never reads its cookies."""
    start(api, console={})
    with browser(api, "chief") as operator:
        assert operator.get("/").status_code == 200
        assert operator.client.get("/v1/orders").status_code == 401
        assert operator.client.get("/consoles").status_code == 404
        api.configure(
            api.options(listen=api.subject.status()["api"]),
            console={"listen": "127.0.0.1:0"},
            zones=[*ZONES, LISTED],
        )
        api.subject.reload()
        assert operator.client.get("/console/").status_code == 404
        with browser(api, "noc") as staff:
            assert staff.get("/").status_code == 200
            assert staff.client.get("/").headers["location"] == "/console/"
        api.configure(api.options(listen=api.subject.status()["api"]), console=None, zones=[*ZONES, LISTED])
        api.subject.reload()
    assert api.subject.status()["console"] is None
    assert api.subject.metrics().total("dnsblock_console_sessions") == 0


def test_a_console_without_the_api_has_its_own_files(api: IssuersApi):
    """Its certificate and its clients; half of them are refused at startup and by `check`."""
    api.renew()
    api.know(CLIENTS)
    files = {"certificate": "api.pem", "key": "api.key", "tokens": "clients.yaml"}
    api.subject.start(zones=ZONES, console={"listen": "127.0.0.1:0", **files})
    with browser(api, "chief") as operator:
        assert operator.get("/").status_code == 200
    assert api.subject.status()["api"] is None
    for wrong in ({}, {"listen": "127.0.0.1:0"}, {"listen": "127.0.0.1:0", "certificate": "api.pem"}, files):
        api.subject.configure(zones=ZONES, console=wrong)
        said = api.subject.cli("check")
        assert said.code != 0
        assert any("console" in str(one) for one in said.json["problems"]), wrong
