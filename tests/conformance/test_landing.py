"""The landing page: what a citizen sees instead of a blocked name, and the public page of each order."""

import json
import subprocess
from datetime import UTC, datetime

import pytest

from .clocks import FakeClock
from .harness import ORDERS_ZONE, Subject
from .landing import BLOCKED, CONTACT, LISTED, NUMBER, ORDER, ORGANIZATION, SITE, Landing
from .orders import block, in_seconds, order, stamp, unblock
from .tools import tool, wait_for


@pytest.fixture(scope="module")
def page(shared_subject: Subject) -> Landing:
    """A landing page for the tests that change nothing."""
    exemption = order("9/EXEMPT", "exempt", entries=["free.blocked.example"])
    below = block("85/2017", [{"name": "shop.example", "match": "below"}], reason={"id": "Alasan saja"})
    hostile = block(
        "x<b>\"'&/1",
        ["hostile.example"],
        reason={"en": "<script>alert(1)</script>", "id": "</style><img src=x onerror=alert(1)>"},
        legal_basis=["{{ 7 * 7 }} {% include 'style.css' %}"],
        contact='javascript:alert(1)" onclick="x',
        subject={"name": "\u202e<i>&amp;"},
    )
    second = {"name": "court", "issuer": "court.example", "unsigned": "accept", "answer": "nxdomain"}
    of_court = block("17/Pdt", [{"name": BLOCKED, "match": "exact"}], issuer="court.example")
    orders = [ORDER, exemption, below, hostile, of_court]
    lists = {"malware.txt": ["listed.example"], "wishes.txt": ["wished.example"]}
    wished = {"action": "sinkhole", "ipv4": ["192.0.2.53"], "extended_error": "17"}
    for_some = {"name": "family", "list": "wishes.txt", "answer": "wished", "clients": ["192.0.2.0/24"]}
    return Landing(shared_subject).start(
        orders=orders,
        zones=[ORDERS_ZONE, second, LISTED, for_some],
        answers={"sinkhole": {"action": "sinkhole", "ipv4": ["192.0.2.53"]}, "wished": wished},
        lists=lists,
    )


def test_a_blocked_name_gets_451_and_the_order(page: Landing):
    """RFC 7725 section 3: number, authority, time, law, reason, and how to ask and to object."""
    got = page.get(BLOCKED, accept_language="en")
    assert got.status == 451
    for text in (
        *(BLOCKED, NUMBER, "ministry.example", "14 July 2017, 11:30 WIB", "UU 11/2008 Pasal 40 ayat (2b)"),
        *("Permenkominfo 5/2020 Pasal 13", "Online gambling", "gambling", "blokir@ministry.example"),
        *(ORGANIZATION, CONTACT, "Slot Ltd", "The games are removed", "17/Pdt"),
    ):
        assert text in got.text, text


def test_the_link_identifies_who_implements_the_block(page: Landing):
    """RFC 7725 section 4: not the authority that demands it; `describedby` leads to the order."""
    link = page.get(BLOCKED).fields["link"]
    assert f'<http://{SITE}/>; rel="blocked-by"' in link
    assert f'<http://{SITE}/order/ministry.example/84%2F2017>; rel="describedby"' in link
    assert ORGANIZATION in page.get(SITE).text


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("id", "id"),
        ("id-ID,id;q=0.9,en-US;q=0.8,en;q=0.7", "id"),
        ("en-GB,en;q=0.5", "en"),
        ("id;q=0.2, en;q=0.8", "en"),
        ("in-ID", "id"),
        ("EN", "en"),
        ("en;q=0, id;q=0.1", "id"),
        ("ja,fr;q=0.5", "id"),
        ("", "id"),
        ("en;q=nan,;;,,q=", "id"),
        ("x," * 1000 + "en", "id"),
    ],
)
def test_the_language_of_the_browser_decides(page: Landing, accepted: str, language: str):
    """RFC 9110 section 12.5.4; Indonesian if the browser wants neither."""
    got = page.get(BLOCKED, accept_language=accepted)
    assert got.fields["content-language"] == language
    assert f'<html lang="{language}">' in got.body
    assert ("Online gambling" in got.text) == (language == "en")
    assert ("Perjudian daring" in got.text) == (language == "id")
    assert got.fields["vary"] == "Accept-Language"


def test_a_link_on_the_page_changes_the_language(page: Landing):
    """The browser may be set to neither language of its reader."""
    got = page.get(BLOCKED, "/some/path?lang=en", accept_language="id")
    assert got.fields["content-language"] == "en"
    assert 'href="?lang=id"' in got.body


def test_a_text_in_the_other_language_is_marked(page: Landing):
    """A screen reader must know in which language it reads (WCAG 3.1.2)."""
    got = page.get("a.shop.example", accept_language="en")
    assert '<dd lang="id">Alasan saja</dd>' in got.body


def test_a_page_is_small_and_loads_nothing(page: Landing):
    """No script, no cookie and no other request; the policy forbids them to the browser, too."""
    for got in (page.get(BLOCKED), page.get("listed.example"), page.order(), page.get("open.example")):
        assert len(got.body.encode()) < 10_000
        assert "<script" not in got.body
        assert " src=" not in got.body
        assert "set-cookie" not in got.fields
        policy = got.fields["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        assert got.fields["x-content-type-options"] == "nosniff"
        assert got.fields["referrer-policy"] == "no-referrer"


def test_fields_of_an_order_are_escaped(page: Landing):
    """An order is hostile input, too: nothing in it becomes part of the page."""
    for language in ("id", "en"):
        for path in ("/", "/order/ministry.example/x%3Cb%3E%22'&%2F1"):
            got = page.get("hostile.example" if path == "/" else SITE, path, accept_language=language)
            assert got.status == (451 if path == "/" else 200)
            assert "&lt;" in got.body
            for part in ("<script", "<img", "<i>", "<b>", 'onclick="', 'href="javascript'):
                assert part not in got.body
            assert "{{ 7 * 7 }}" in got.body


@pytest.mark.parametrize("path", ["/", "/index.html?a=b", "/order/ministry.example/84%2F2017", "/%00/../etc"])
def test_every_path_of_a_blocked_name_gives_its_page(page: Landing, path: str):
    """A citizen comes with any link; nobody else publishes pages under a blocked name."""
    got = page.get(BLOCKED, path)
    assert (got.status, BLOCKED in got.text) == (451, True)


@pytest.mark.parametrize(
    "host",
    [
        "blocked.example",
        "BLOCKED.Example",
        "blocked.example.",
        "blocked.example:80",
        "a.b.blocked.example:8080",
    ],
)
def test_a_name_is_found_in_any_spelling(page: Landing, host: str):
    """Capitals, a port, a trailing dot, and names below the entry."""
    assert page.get(host).status == 451


def test_an_internationalised_name_is_found_in_both_forms(subject: Subject):
    """Browsers send A-labels; other programs may send UTF-8."""
    page = Landing(subject).start(orders=[block("B-1", ["bücher.example"])])
    assert page.get("xn--bcher-kva.example").status == 451
    assert page.send("GET / HTTP/1.0\r\nHost: bücher.example\r\n\r\n".encode()).status == 451


def test_an_exempt_name_has_no_page(page: Landing):
    """The daemon's own lookup decides, as for a query."""
    assert page.get("free.blocked.example").status == 421
    assert page.get("shop.example").status == 421  # match: below


def test_a_listed_name_names_the_list_and_the_provider(page: Landing):
    """A list has no order behind it: the provider is asked."""
    got = page.get("listed.example", accept_language="en")
    assert got.status == 451
    for text in ("malware", ORGANIZATION, CONTACT, "it is on a blocklist"):
        assert text in got.text
    assert "describedby" not in got.fields["link"]


def test_a_list_that_no_law_demands_gets_403(page: Landing):
    """RFC 7725: 451 is for legal demands. An answer with extended error 15 or 17 says that there is none.

    The zone is for some clients only. A visitor of the page is one of them.
    """
    got = page.get("wished.example")
    assert (got.status, "link" in got.fields) == (403, False)
    assert "family" in got.text


def test_a_name_that_is_not_blocked_gets_421(page: Landing):
    """RFC 9110 section 15.5.20: a request for a site that this server does not have."""
    got = page.get("open.example", accept_language="en")
    assert got.status == 421
    assert "blocked-by" not in got.body + str(got.fields)
    assert "No order or list currently blocks the name" in got.text
    assert got.fields["cache-control"] == "no-store"


@pytest.mark.parametrize("host", [SITE, f"{SITE.upper()}:80", "127.0.0.1", "[::1]:80", "192.0.2.53:8080", ""])
def test_the_landing_site_has_a_first_page(page: Landing, host: str):
    """Its own name, an address, or no name at all."""
    assert page.get(host).status == 200
    assert page.get(host, "/other").status == 404
    assert page.get(host, "/order/ministry.example/84%2F2017").status == 200


def test_an_order_has_a_page_on_every_name_that_is_not_blocked(page: Landing):
    """A database of orders can point to it."""
    for host in (SITE, "open.example"):
        got = page.get(host, "/order/ministry.example/84%2F2017", accept_language="en")
        assert got.status == 200
        for text in (
            NUMBER,
            "This order is in force.",
            "Online gambling",
            "Number of names",
            "remove the games",
        ):
            assert text in got.text
        assert BLOCKED not in got.text  # the names are no part of it


@pytest.mark.parametrize(
    "path",
    [
        "/order/ministry.example/unknown",
        "/order/other.example/84%2F2017",
        "/order/ministry.example/84/2017",
        "/order/ministry.example/",
        "/order/ministry.example/%FF",
        "/order/ministry.example/..%2F..%2Fetc%2Fpasswd",
        "/order/../../../etc/passwd",
        "/order//84%2F2017",
        "/order/ministry.example/" + "9" * 201,
        "/order/MINISTRY.example/84%2F2017",
        "/order",
        "/templates/page.html",
        "/favicon.ico",
    ],
)
def test_any_other_path_is_not_found(page: Landing, path: str):
    """No path leads to a file."""
    got = page.get(SITE, path)
    assert got.status == 404
    assert "root:" not in got.body


def test_head_has_the_fields_of_get_and_no_body(page: Landing):
    """RFC 9110 section 9.3.2."""
    got, head = page.get(BLOCKED), page.get(BLOCKED, method="HEAD")
    assert (head.status, head.body) == (451, "")
    assert head.fields["content-length"] == got.fields["content-length"] == str(len(got.body.encode()))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods_are_not_allowed(page: Landing, method: str):
    """RFC 9110 section 15.5.6."""
    got = page.get(BLOCKED, method=method)
    assert (got.status, got.fields["allow"]) == (405, "GET, HEAD")


def test_an_unchanged_page_is_not_sent_again(page: Landing):
    """RFC 9110 section 15.4.5; 451 has no validator, because a condition applies to 2xx only (13.2.1)."""
    got = page.order()
    again = page.order(if_none_match=got.fields["etag"])
    assert (again.status, again.body) == (304, "")
    assert "etag" not in page.get(BLOCKED).fields


def test_curl_follows_a_name_to_the_page(page: Landing):
    """A real client, with its own idea of HTTP."""
    host, port = page.place
    command = [tool("curl"), "-sS", "-o", "/dev/null", "-w", "%{json}", "--connect-to", f"::{host}:{port}"]
    done = subprocess.run([*command, f"http://{BLOCKED}/a/b?c"], capture_output=True, text=True, timeout=60)
    said = json.loads(done.stdout)
    assert (said["http_code"], said["content_type"]) == (451, "text/html; charset=utf-8")


# ------- Orders that change


def test_the_page_follows_the_next_publish(subject: Subject):
    """A publish clears the cache of the process: no page is about an old state."""
    page = Landing(subject).start()
    assert page.get(BLOCKED).status == 451
    subject.put_order(unblock("U-1", NUMBER))
    subject.reload()
    wait_for(lambda: page.get(BLOCKED).status == 421, "the name has no page any more")
    got = page.order(accept_language="en")
    assert (got.status, "This order is no longer in force." in got.text) == (200, True)
    assert "U-1" in got.text
    assert "This order is in force." in page.order("U-1", accept_language="en").text


def test_browsers_keep_a_page_until_the_next_scheduled_change_at_most(subject: Subject, clock: FakeClock):
    """A cached 451 must not outlive the block."""
    end = in_seconds(3600)
    page = Landing(subject).start(orders=[ORDER | {"expires_at": stamp(end)}])
    clock.step_to((end - datetime.now(UTC)).total_seconds() - 20)
    kept = int(page.get(BLOCKED).fields["cache-control"].removeprefix("public, max-age="))
    assert kept <= 20
    clock.step_to(3700)
    wait_for(lambda: page.get(BLOCKED).status == 421, "the block has ended")
    wait_for(lambda: "no longer in force" in page.order(accept_language="en").text, "the page shows its end")


def test_an_order_that_was_never_in_force_is_not_public(subject: Subject):
    """Held, refused, scheduled and annulled orders, and notices: their names may never be blocked."""
    later = stamp(in_seconds(3600))
    orders = [
        block("B-LATER", ["later.example"], effective_at=later),
        block("B-HELD", ["github.io"]),
        order("N-1", "notice", entries=["planned.example"]),
        block("B-REFUSED", ["co.id", "fine.example"]),
    ]
    page = Landing(subject).start(orders=orders)
    states = {one["order_id"]: one["state"] for one in subject.status()["orders"]}
    assert states == {"B-LATER": "scheduled", "B-HELD": "held", "N-1": "notice", "B-REFUSED": "active"}
    for number in ("B-LATER", "B-HELD", "N-1"):
        assert page.order(number).status == 404
    assert page.order("B-REFUSED").status == 200
    assert subject.cli("order annul", "B-LATER", "--reason", "a mistake").code == 0
    assert page.order("B-LATER").status == 404
    assert subject.cli("order annul", "B-REFUSED", "--reason", "a mistake").code == 0
    wait_for(lambda: "no longer in force" in page.order("B-REFUSED", accept_language="en").text, "it ended")
    assert page.get("fine.example").status == 421


def test_orders_of_a_zone_in_shadow_mode_are_not_public(subject: Subject):
    """They block nothing."""
    page = Landing(subject).start(zones=[ORDERS_ZONE | {"mode": "shadow"}])
    assert page.get(BLOCKED).status == 421
    assert page.order().status == 404


def test_no_order_can_block_the_landing_site(subject: Subject):
    """Its pages would not be reachable any more."""
    Landing(subject).start(orders=[block("B-1", [SITE, "fine.example"])])
    assert subject.status()["orders"][0]["in_force"] == 1


def test_an_order_as_large_as_possible_has_a_page(subject: Subject):
    """Texts of 4,000 characters in lists of 100: the page shows their beginnings."""
    text = "\N{SNAKE}<" * 2000
    largest = block(
        "\N{SNAKE}" * 50,
        [BLOCKED],
        legal_basis=[text[: 3000 + n] for n in range(40)],
        reason={"id": text, "en": text},
        conditions={"id": text, "en": text},
        contact=text,
        subject={"name": text, "contact": text},
        notices=[{"at": ORDER["issued_at"], "by": text, "about": text} for _ in range(10)],
    )
    page = Landing(subject).start(orders=[largest])
    assert page.get(BLOCKED).status == 451
    assert len(page.get(BLOCKED).body) < 64 << 10
    assert page.order("%F0%9F%90%8D" * 50).status == 200
