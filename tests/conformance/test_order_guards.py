"""Guards of orders, with the accidents of the field: each entry is accepted, held or refused alone."""

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from .clients import Said
from .harness import ISSUER, ORDERS_ZONE, PROFILES, Subject, is_forwarded, is_sinkholed
from .orders import as_yaml, block, exempt, order, shipped, unblock
from .upstreams import StubUpstream

TELEGRAM = [
    *("t.me", "telegram.me", "telegram.org", "core.telegram.org", "desktop.telegram.org"),
    *("macos.telegram.org", "web.telegram.org", "venus.web.telegram.org", "pluto.web.telegram.org"),
    *("flora.web.telegram.org", "flora-1.web.telegram.org"),
]
LANDING = {**PROFILES, "landing": {"action": "cname", "target": "landing.isp.example"}}


@pytest.fixture
def started(subject: Subject, upstream: StubUpstream) -> Subject:
    """An issuer whose orders are accepted without signatures, and a landing page."""
    subject.start(upstreams=[upstream.address], answers=LANDING, protected=["ministry.example"])
    return subject


def submit(subject: Subject, document: dict, signatures: bytes | None = None) -> Said:
    path = subject.folder / f"{hashlib.sha256(as_yaml(document).encode()).hexdigest()[:8]}.yaml"
    path.write_text(as_yaml(document))
    if signatures is not None:
        path.with_name(f"{path.name}.sig").write_bytes(signatures)
    return subject.cli("order submit", str(path))


def verdicts(said: Said) -> dict[str, tuple[str, list[str]]]:
    """By name: the verdict, and the codes of the guards, of each entry that is not accepted."""
    found: dict[str, tuple[str, list[str]]] = {}
    (document,) = said.json["documents"]
    for one in document["entry_verdicts"]:
        found.setdefault(one["name"], (one["verdict"], []))[1].append(one["code"])
    return found


def approve(subject: Subject, order_id: str, *entries: str) -> Said:
    named = [word for entry in entries for word in ("--entry", entry)]
    return subject.cli("order approve", order_id, *named, "--reason", "letter 84/2017, by phone")


# ------- The accidents of the field -------


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("t.me", ["POPULAR"]),
        ("drive.usercontent.google.com", ["POPULAR"]),
        ("gstatic.com", ["POPULAR"]),
        ("pages.dev", ["PRIVATE_SUFFIX", "POPULAR"]),
    ],
)
def test_a_popular_name_or_hosting_suffix_in_a_list_is_held_and_the_rest_is_in_force(
    started: Subject, name: str, codes: list[str]
):
    """May 2023: a police list contained `t.me`, and every provider of a country blocked Telegram's links."""
    said = submit(started, block("B-1", ["fraud.example", name, "phishing.example"]))
    assert said.code == 0
    assert verdicts(said) == {name: ("held", codes)}
    (document,) = said.json["documents"]
    assert (document["verdict"], document["in_force"], document["held"]) == ("accepted", 2, 1)
    assert is_forwarded(started.query(name))
    assert is_sinkholed(started.query("fraud.example"))
    assert is_sinkholed(started.query("phishing.example"))


@pytest.mark.parametrize("name", ["li", "co.id"])
def test_a_truncated_line_that_became_a_registry_is_refused_and_the_rest_is_in_force(
    started: Subject, name: str
):
    """A truncated line: `judi.li` became `li`. Refused entries stay refused over a restart."""
    said = submit(started, block("B-1", [name, "fraud.example"]))
    assert verdicts(said) == {name: ("refused", ["PUBLIC_SUFFIX"])}
    for _ in range(2):
        assert is_forwarded(started.query(f"any.{name}"))
        assert is_sinkholed(started.query("fraud.example"))
        started.restart()


def test_an_entry_with_an_unknown_answer_profile_stays_refused_over_a_restart(started: Subject):
    """One such entry must not keep the daemon from starting, nor move the verdicts of other entries."""
    said = submit(
        started, block("B-1", [{"name": "a.example", "answer": "unknown"}, "t.me", "fraud.example"])
    )
    for _ in range(2):
        assert verdicts(said) == {"a.example": ("refused", ["ANSWER"]), "t.me": ("held", ["POPULAR"])}
        assert is_forwarded(started.query("a.example"))
        assert is_forwarded(started.query("t.me"))
        assert is_sinkholed(started.query("fraud.example"))
        started.restart()
    started.reload()


def test_an_order_of_registries_only_is_refused(started: Subject):
    """Nothing of it could ever be enforced."""
    said = submit(started, block("B-1", ["co.id", "id"]))
    assert said.code == 4
    (document,) = said.json["documents"]
    assert [problem["reason"].partition(":")[0] for problem in document["problems"]] == ["PUBLIC_SUFFIX"] * 2


@pytest.mark.parametrize(
    "name",
    ["landing.isp.example", "isp.example", "www.ministry.example", "resolver.arpa", "2.0.192.in-addr.arpa"],
)
def test_own_names_are_refused(started: Subject, name: str):
    """Today's order with the own landing name was answered with a CNAME to itself."""
    said = submit(started, block("B-1", [{"name": name, "answer": "landing"}, "fraud.example"]))
    assert verdicts(said) == {name: ("refused", ["PROTECTED"])}
    assert not is_sinkholed(started.query(name))
    assert is_sinkholed(started.query("fraud.example"))


def test_a_bulk_order_is_held_until_the_operator_approves_it(started: Subject):
    """The wrong file of an issuer that usually names a few: nothing of it is enforced meanwhile."""
    names = [f"n{number}.example" for number in range(1001)]
    assert submit(started, block("B-1", ["a.example", "b.example"])).code == 0
    said = submit(started, block("B-2", names))
    (document,) = said.json["documents"]
    assert (document["verdict"], document["held"], document["in_force"]) == ("held", 1001, 0)
    assert is_forwarded(started.query("n0.example"))
    assert approve(started, "B-2").code == 0
    assert is_sinkholed(started.query("n0.example"))


# ------- Releases -------


def test_a_bulk_order_is_reported_in_a_few_lines(started: Subject):
    """With the number of the entries that are not printed; --json names more of them."""
    path = started.folder / "bulk.yaml"
    path.write_text(as_yaml(block("84/2017", [f"n{number}.example" for number in range(1200)])))
    for command in ("order check", "order submit"):
        lines = started.cli(command, str(path), as_json=False).stdout.splitlines()
        assert len(lines) < 40, command
        assert "  held: and 1,180 more: BULK" in lines


def test_the_operator_releases_one_entry_and_the_others_stay_held(started: Subject):
    """With a reason that the ledger keeps; also over a restart."""
    assert submit(started, block("B-1", ["t.me", "whatsapp.com"])).code == 0
    assert approve(started, "B-1", "t.me").code == 0
    for _ in range(2):
        assert is_sinkholed(started.query("t.me"))
        assert is_forwarded(started.query("whatsapp.com"))
        started.restart()


class Officers:
    """Three people of the issuer with their keys; they sign with ssh-keygen, as the documentation says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lines = []
        for officer in ("one", "two", "three"):
            key = folder / officer
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=60)
            lines.append(f"{officer}@{ISSUER} {key.with_suffix('.pub').read_text()}")
        self.keys = folder / "allowed_signers"
        self.keys.write_text("".join(lines))

    def sign(self, document: dict, *officers: str) -> bytes:
        path = self.folder / "signed.yaml"
        signatures = b""
        for officer in officers:
            path.write_text(as_yaml(document))
            command = [
                "ssh-keygen",
                "-q",
                "-Y",
                "sign",
                "-f",
                self.folder / officer,
                "-n",
                "dnsblock-order@v1",
            ]
            subprocess.run([*command, path], check=True, timeout=60)
            signature = path.with_name("signed.yaml.sig")
            signatures += signature.read_bytes()
            signature.unlink()
        return signatures


@pytest.fixture
def officers(tmp_path: Path) -> Officers:
    (tmp_path / "keys").mkdir()
    return Officers(tmp_path / "keys")


def start_signed(subject: Subject, upstream: StubUpstream, officers: Officers, **roles: list[str]) -> None:
    """An issuer whose orders need one signature. `roles`: of those who are no officers."""
    may = {f"{person}@{ISSUER}": {"may": roles[person]} for person in roles}
    subject.start(
        upstreams=[upstream.address],
        protected=["portal.example"],
        zones=[{key: value for key, value in ORDERS_ZONE.items() if key != "unsigned"}],
        issuers=[{"id": ISSUER, "keys": str(officers.keys), "signatures": 1, "roles": may}],
    )


@pytest.fixture
def signed(subject: Subject, upstream: StubUpstream, officers: Officers) -> Subject:
    """All three are officers."""
    start_signed(subject, upstream, officers)
    return subject


def blocked(subject: Subject) -> list[str]:
    return [name for name in TELEGRAM if is_sinkholed(subject.query(name))]


def test_the_telegram_order_passes_with_acks_and_two_signatures(signed: Subject, officers: Officers):
    """14 July 2017: eleven names, of which some are popular. Two officers mean them."""
    assert shipped("block")[1]["entries"] == TELEGRAM
    document = block("84/2017", TELEGRAM, acks=["POPULAR"])
    said = submit(signed, document, officers.sign(document, "one", "two"))
    assert verdicts(said) == {}
    assert blocked(signed) == TELEGRAM


def test_a_signed_order_has_the_time_of_its_acceptance(signed: Subject, officers: Officers):
    """Before a restart, too, when its signers are known before its first record. More signatures keep it."""
    document = block("84/2017", ["a.example", "t.me"], acks=["POPULAR"])
    assert submit(signed, document, officers.sign(document, "one")).code == 0
    [first] = signed.control.orders()["orders"]
    assert first["received_at"] <= first["enforced_at"]
    assert submit(signed, document, officers.sign(document, "one", "two")).code == 0
    for _ in range(2):
        [found] = signed.control.orders()["orders"]
        assert found["received_at"] == first["received_at"]
        signed.restart()


def test_with_one_signature_the_popular_ones_wait_for_the_second(signed: Subject, officers: Officers):
    """The other names are in force meanwhile. The same document with two signatures releases the rest."""
    names = ["a.example", "t.me", "telegram.org"]
    document = block("84/2017", names, acks=["POPULAR"])
    said = submit(signed, document, officers.sign(document, "one"))
    assert verdicts(said) == {"t.me": ("held", ["POPULAR"]), "telegram.org": ("held", ["POPULAR"])}
    assert [name for name in names if is_sinkholed(signed.query(name))] == ["a.example"]
    again = submit(signed, document, officers.sign(document, "one", "two"))
    assert verdicts(again) == {}
    assert [name for name in names if is_sinkholed(signed.query(name))] == names


def test_two_signatures_without_acks_release_nothing(signed: Subject, officers: Officers):
    """The second officer signs what the first one wrote, so the document itself must say it."""
    document = block("84/2017", ["a.example", "t.me"])
    said = submit(signed, document, officers.sign(document, "one", "two"))
    assert verdicts(said) == {"t.me": ("held", ["POPULAR"])}
    assert is_forwarded(signed.query("t.me"))


def test_a_second_signature_holds_no_entry_of_a_supersede(signed: Subject, officers: Officers):
    """An entry that is in force stays so, though the order that it was taken over from has ended."""
    first = block("B-1", ["t.me"], acks=["POPULAR"])
    assert verdicts(submit(signed, first, officers.sign(first, "one", "two"))) == {}
    second = order(
        "B-2",
        "supersede",
        entries=["t.me", "pages.dev"],
        targets=[{"order_id": "B-1", "entries": "all"}],
    )
    held = {"pages.dev": ("held", ["PRIVATE_SUFFIX", "POPULAR"])}
    assert verdicts(submit(signed, second, officers.sign(second, "one"))) == held
    assert is_sinkholed(signed.query("t.me"))
    assert verdicts(submit(signed, second, officers.sign(second, "one", "two"))) == held
    assert is_sinkholed(signed.query("t.me"))


def test_signatures_of_flaggers_release_nothing(subject: Subject, upstream: StubUpstream, officers: Officers):
    """They only propose. The officer who signs later is one, and the second signature is still missing."""
    start_signed(subject, upstream, officers, two=["propose"], three=["propose"])
    document = block("B-1", ["a.example", "t.me"], acks=["POPULAR"])
    held = {"t.me": ("held", ["POPULAR"])}
    proposed = submit(subject, document, officers.sign(document, "two", "three"))
    assert (proposed.json["documents"][0]["state"], verdicts(proposed)) == ("proposed", held)
    said = submit(subject, document, officers.sign(document, "one", "two", "three"))
    assert verdicts(said) == held
    assert is_sinkholed(subject.query("a.example"))
    assert is_forwarded(subject.query("t.me"))


def test_a_proposed_unblock_lifts_when_an_officer_signs(
    subject: Subject, upstream: StubUpstream, officers: Officers
):
    """Afterwards, `order show` still names the flagger."""
    start_signed(subject, upstream, officers, two=["propose"])
    blocking, lifting = block("B-1", ["a.example"]), unblock("U-1", "B-1")
    submit(subject, blocking, officers.sign(blocking, "one"))
    proposed = submit(subject, lifting, officers.sign(lifting, "two"))
    assert proposed.json["documents"][0]["state"] == "proposed"
    assert is_sinkholed(subject.query("a.example"))
    assert [one["proposed"] for one in subject.cli("order show", "U-1").json["signers"]] == [True]
    submit(subject, lifting, officers.sign(lifting, "one", "two"))
    assert is_forwarded(subject.query("a.example"))
    for _ in range(2):
        shown = subject.cli("order show", "U-1", as_json=False).stdout
        assert re.search(r"proposed by +two\S* SHA256:", shown), shown
        assert re.search(r"signed by +one\S* SHA256:", shown), shown
        subject.restart()


def test_only_a_signer_with_the_role_override_blocks_a_protected_name(
    subject: Subject, upstream: StubUpstream, officers: Officers
):
    """By configuration: neither acks nor the number of signatures do it."""
    start_signed(subject, upstream, officers, three=["block", "override"])
    document = block("B-1", ["www.portal.example", "a.example"], acks=["PROTECTED"])
    said = submit(subject, document, officers.sign(document, "one", "two"))
    assert verdicts(said) == {"www.portal.example": ("refused", ["PROTECTED"])}
    assert is_forwarded(subject.query("www.portal.example"))
    again = submit(subject, document, officers.sign(document, "one", "three"))
    assert verdicts(again) == {}
    assert is_sinkholed(subject.query("www.portal.example"))


# ------- Lifting -------


def test_lifting_is_never_held(started: Subject):
    """Unblock and exempt orders may name anything."""
    assert submit(started, block("B-1", ["t.me", "telegram.org"])).code == 0
    assert approve(started, "B-1").code == 0
    said = submit(started, unblock("U-1", "B-1", ["t.me"]))
    assert (said.code, verdicts(said)) == (0, {})
    assert is_forwarded(started.query("t.me"))
    said = submit(started, exempt("E-1", ["web.telegram.org", "google.com", "landing.isp.example"]))
    assert (said.code, verdicts(said)) == (0, {})
    assert is_forwarded(started.query("web.telegram.org"))
    assert is_sinkholed(started.query("telegram.org"))


# ------- The list of popular names -------


def test_the_list_of_popular_names_can_be_replaced(started: Subject, upstream: StubUpstream):
    """A reload applies a new file. An order that is in the ledger keeps its verdicts."""
    assert submit(started, block("B-1", ["our.example"])).code == 0
    started.configure(
        upstreams=[upstream.address],
        guards={"popular": "popular.txt"},
        lists={"popular.txt": ["1,our.example", "2,files.host.example"]},
    )
    started.reload()
    said = submit(started, block("B-2", ["t.me", "www.our.example", "host.example"]))
    assert verdicts(said) == {"www.our.example": ("held", ["POPULAR"]), "host.example": ("held", ["POPULAR"])}
    assert is_sinkholed(started.query("t.me"))
    assert is_sinkholed(started.query("our.example"))


def test_an_invalid_list_of_popular_names_is_reported_and_the_former_one_stays(
    started: Subject, upstream: StubUpstream
):
    """A wrong file must not disable the guard, and no order waits for it."""
    started.configure(
        upstreams=[upstream.address], guards={"popular": "popular.txt"}, lists={"popular.txt": ["<html>"]}
    )
    refused = started.cli("reload")
    assert refused.code == 4
    assert any("popular.txt" in problem["file"] for problem in refused.problems)
    assert started.cli("check").code == 1
    assert verdicts(submit(started, block("B-1", ["t.me", "a.example"]))) == {"t.me": ("held", ["POPULAR"])}
    assert is_sinkholed(started.query("a.example"))
