"""`order submit --to URL…` pushes an order to many instances at once, and reports what each has done."""

import contextlib
import hashlib
import json
import os
import pty
import re
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from ports import free_port
from unit.https_server import Authority, Server

from .clients import Said
from .clocks import begun_before
from .harness import ISSUER, Subject, is_sinkholed
from .issuing import TOKENS, IssuersApi, Three, by_token, three_instances
from .orders import as_yaml, block, exempt, in_seconds, order, stamp, unblock
from .tools import dnsblock, run
from .upstreams import StubUpstream

NO_DAEMON = "/nonexistent/dnsblock.yaml"  # a clerk has no configuration


@pytest.fixture
def fleet(tmp_path: Path, authority: Authority, client_authority: Authority) -> Iterator[Three]:
    """Three instances with the same clients."""
    with three_instances(tmp_path, authority, client_authority) as found:
        yield found


class Clerk:
    """Somebody without a daemon, who has a token."""

    def __init__(self, folder: Path, ca: Path, token: str = "ministry") -> None:
        self.folder, self._ca = folder, ca
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(f"{TOKENS.get(token, token)}\n")

    def write(self, order: dict | bytes, name: str = "order.yaml") -> str:
        path = self.folder / name
        path.write_bytes(order if isinstance(order, bytes) else as_yaml(order).encode())
        return str(path)

    def command(self, *arguments: str, as_json: bool = True) -> list[str]:
        flags = ["--json"] if as_json else []
        options = ["--ca", str(self._ca), "-c", NO_DAEMON]
        if not {"--token-file", "--certificate"} & set(arguments):
            options += ["--token-file", str(self.folder / "token")]
        return [dnsblock(), "order", "submit", *arguments, *options, *flags]

    def submit(self, *arguments: str, as_json: bool = True, **options: object) -> Said:
        environment = os.environ | {"NO_PROXY": "*"} | options.pop("environment", {})
        done = run(self.command(*arguments, as_json=as_json), timeout=180, env=environment, **options)
        parsed = json.loads(done.stdout) if as_json and done.stdout.strip() else None
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, parsed, done.stdout, done.stderr)


@pytest.fixture
def clerk(tmp_path: Path, authority: Authority) -> Clerk:
    return Clerk(tmp_path / "clerk", authority.pem)


def to(*instances: IssuersApi | str) -> list[str]:
    return [word for one in instances for word in ("--to", one if isinstance(one, str) else one.url)]


def test_an_order_is_in_force_on_all_instances_when_the_command_returns(fleet, clerk: Clerk):
    """Exit code 0; the times of each instance are shown, and the order answers there."""
    said = clerk.submit(clerk.write(block("84/2017", ["one.example"])), *to(*fleet))
    assert said.code == 0, said
    assert said.json["wait"] == "enforced"
    assert [one["url"] for one in said.json["instances"]] == [api.url for api in fleet]
    for one, api in zip(said.json["instances"], fleet, strict=True):
        (document,) = one["documents"]
        assert (one["error"], document["verdict"], document["order"]["state"]) == (None, "accepted", "active")
        assert document["order"]["received_at"] <= document["order"]["enforced_at"]
        assert is_sinkholed(api.subject.query("one.example"))
    shown = clerk.submit(clerk.write(unblock("U-1", "84/2017")), *to(*fleet), as_json=False)
    assert shown.code == 0
    head, *rows = shown.stdout.splitlines()
    assert head.split() == ["instance", "order", "state", "accepted", "enforced", "verified"]
    for row, api in zip(rows, fleet, strict=True):
        time = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d WIB"
        assert re.fullmatch(rf"{re.escape(api.url)} +U-1 +active +{time} +{time} +-", row), row
        assert not is_sinkholed(api.subject.query("one.example"))


def test_the_instance_that_cannot_be_reached_is_named(fleet, clerk: Clerk):
    """Exit code 3; the others have the order."""
    one, two, three = fleet
    gone = two.url
    two.subject.stop()
    path = clerk.write(block("B-1", ["one.example"]))
    said = clerk.submit(path, *to(one, gone, three), "--timeout", "10")
    assert said.code == 3
    errors = {found["url"]: found["error"] for found in said.json["instances"]}
    assert errors[one.url] is errors[three.url] is None
    assert "no response within 10 s" in errors[gone]
    for api in (one, three):
        assert is_sinkholed(api.subject.query("one.example"))
    shown = clerk.submit(path, *to(one, gone), "--timeout", "10", as_json=False)
    assert (shown.code, gone in shown.stderr) == (3, True)


def test_a_push_to_an_instance_that_restarts_is_repeated(fleet, clerk: Clerk):
    """A push in the middle of an upgrade is not lost: to send it again is safe."""
    api, *_ = fleet
    port = free_port()  # not an ephemeral one: a client must not take it while the daemon restarts
    anywhere = {"listen": ["127.0.0.1:0"], "metrics": "127.0.0.1:0"}
    api.configure(api.options(listen=f"127.0.0.1:{port}"), **anywhere)
    api.subject.stop()
    url = f"https://127.0.0.1:{port}"
    command = clerk.command(clerk.write(block("B-1", ["one.example"])), *to(url), "--timeout", "100")
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"NO_PROXY": "*"}) as process:
        api.subject.launch()
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert is_sinkholed(api.subject.query("one.example"))


def test_a_refused_order_is_reported_with_its_problems(fleet, clerk: Clerk):
    """Exit code 4, by each instance that refuses it; the problems are printed once."""
    one, two, _ = fleet
    path = clerk.write(block("B-1", ["not a name"]) | {"extra": "x"})
    said = clerk.submit(path, *to(one, two))
    assert said.code == 4
    assert [found["documents"][0]["verdict"] for found in said.json["instances"]] == ["refused", "refused"]
    shown = clerk.submit(path, *to(one, two), as_json=False)
    assert shown.code == 4
    assert shown.stderr.count("unknown key") == 1
    assert [one.subject.status()["orders"], two.subject.status()["orders"]] == [[], []]


@pytest.mark.parametrize(
    ("token", "code"), [("wrong", "UNAUTHENTICATED"), ("reader", "FORBIDDEN"), ("court", "FORBIDDEN")]
)
def test_a_client_that_may_not_submit_is_refused(fleet, clerk: Clerk, token: str, code: str):
    """Exit code 4 with the code of the instance; the token is not printed."""
    api, *_ = fleet
    (clerk.folder / "token").write_text(TOKENS.get(token, token))
    said = clerk.submit(clerk.write(block("B-1", ["one.example"])), *to(api), as_json=False)
    assert (said.code, code in said.stderr) == (4, True), said
    assert TOKENS.get(token, token) not in said.stdout + said.stderr
    assert api.subject.status()["orders"] == []


def test_an_order_that_is_not_in_force_in_time_ends_with_1(fleet, clerk: Clerk):
    """Scheduled for later: there is nothing to wait for. Soon: the command waits for it."""
    api, *_ = fleet
    later = block("B-1", ["one.example"], effective_at=stamp(in_seconds(3600)))
    said = clerk.submit(clerk.write(later), *to(api), "--timeout", "100")
    assert (said.code, said.json["instances"][0]["documents"][0]["order"]["state"]) == (1, "scheduled")
    shown = clerk.submit(clerk.write(later), *to(api), as_json=False)
    assert "not enforced within 60 s: it takes effect at " in shown.stderr, "nobody has waited"
    assert clerk.submit(clerk.write(later), *to(api), "--wait", "accepted").code == 0
    soon = block("B-2", ["two.example"], effective_at=stamp(in_seconds(4)))
    said = clerk.submit(clerk.write(soon), *to(api), "--timeout", "100")
    assert said.code == 0
    assert is_sinkholed(api.subject.query("two.example"))
    # Time enough for the instance to respond, though it proves nothing.
    shown = clerk.submit(clerk.write(soon), *to(api), "--wait", "verified", "--timeout", "10", as_json=False)
    assert (shown.code, "not verified within 10 s" in shown.stderr) == (1, True)


def test_several_documents_with_their_files_are_pushed_together(fleet, clerk: Clerk):
    """Documents may refer to each other; entries and signatures are beside them."""
    api, *_ = fleet
    names = b"one.example\ntwo.example\n"
    (clerk.folder / "names.txt").write_bytes(names)
    reference = {"path": "names.txt", "sha256": hashlib.sha256(names).hexdigest(), "lines": 2}
    order = block("B-1", [], entries_file=reference)
    del order["entries"]
    files = [clerk.write(unblock("U-1", "B-1", ["one.example"]), "u.yaml"), clerk.write(order, "b.yaml")]
    said = clerk.submit(*files, *to(api))
    assert said.code == 0, said
    assert [one["verdict"] for one in said.json["instances"][0]["documents"]] == ["accepted", "accepted"]
    assert is_sinkholed(api.subject.query("two.example"))
    assert not is_sinkholed(api.subject.query("one.example"))


def test_a_client_certificate_is_presented(fleet, clerk: Clerk, client_authority: Authority):
    """With its key in the same file, or in another one; a key with a passphrase is refused with a reason."""
    api, *_ = fleet
    certificate, key = client_authority.issue("officer.ministry.example", "")
    path = clerk.write(block("B-1", ["one.example"]))
    said = clerk.submit(path, *to(api), "--certificate", str(certificate), "--client-key", str(key))
    assert said.code == 0, said
    both = clerk.folder / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    assert clerk.submit(path, *to(api), "--certificate", str(both)).code == 0
    missing = clerk.submit(path, *to(api), "--certificate", str(certificate), as_json=False)
    assert (missing.code, "private key" in missing.stderr) == (4, True)


def test_tokens_come_from_a_file_a_variable_or_standard_input(fleet, clerk: Clerk):
    """Never from an argument, which every user of the machine can read; each instance may have its own."""
    one, two, _ = fleet
    two.know([by_token("old")])
    two.subject.reload()
    tokens = clerk.folder / "tokens"
    tokens.write_text(f"{one.url}/ {TOKENS['ministry']}\n{two.url} {TOKENS['old']}\n")
    path = clerk.write(block("B-1", ["one.example"]))
    assert clerk.submit(path, *to(one, two), "--token-file", str(tokens)).code == 0
    assert clerk.submit(path, *to(one), "--token-file", "-", input=TOKENS["ministry"]).code == 0
    bare = clerk.command(path, *to(one), as_json=False)[:-2]
    environment = os.environ | {"NO_PROXY": "*"}
    assert run(bare, timeout=120, env=environment | {"DNSBLOCK_TOKEN": TOKENS["ministry"]}).returncode == 0
    without = run(bare, timeout=120, env=environment)
    assert (without.returncode, "--token-file" in without.stderr) == (2, True)
    tokens.write_text("a b c\n")
    wrong = clerk.submit(path, *to(one), "--token-file", str(tokens), as_json=False)
    assert (wrong.code, "a b c" in wrong.stderr) == (2, False)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1", "127.0.0.1", "https://", "https://user@host"),
        *("https://h/path", "https://h:x", "https://h:0"),
    ],
)
def test_a_wrong_url_is_a_usage_error(clerk: Clerk, url: str):
    """Orders and tokens are never sent in the clear."""
    said = clerk.submit(clerk.write(block("B-1", ["one.example"])), *to(url), as_json=False)
    assert (said.code, "https://HOST" in said.stderr) == (2, True)


@pytest.mark.parametrize("kind", ["other authority", "other name", "plain", "not http", "other program"])
def test_a_server_that_is_no_instance_gets_nothing(
    clerk: Clerk, authority: Authority, client_authority: Authority, kind: str
):
    """Exit code 3: its certificate is checked before the order is sent, and its response is not believed."""
    context = authority.certificate("DNS:other.example" if kind == "other name" else "IP:127.0.0.1")
    if kind == "other authority":
        context = client_authority.certificate()
    answer = b"garbage\r\n\r\n" if kind == "not http" else b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    path = clerk.write(block("B-1", ["one.example"]))
    with Server(None if kind == "plain" else context) as server:
        server.serve(answer, "/v1/orders")
        url = f"https://127.0.0.1:{server.port}"
        said = clerk.submit(path, *to(url), "--timeout", "20", as_json=False)
        assert (said.code, url in said.stderr) == (3, True), said
        if kind in ("other authority", "other name"):
            assert ("TLS" in said.stderr, server.requests) == (True, [])


def test_a_document_that_cannot_be_read_is_in_the_json(fleet, clerk: Clerk):
    """Exit code 4; the others are pushed."""
    api, *_ = fleet
    path = clerk.write(block("B-1", ["one.example"]))
    said = clerk.submit(path, f"{path}.gone", *to(api))
    assert (said.code, said.stderr) == (4, "")
    assert [(one["file"], one["verdict"]) for one in said.json["unread"]] == [(f"{path}.gone", "refused")]
    assert "cannot be read" in said.json["unread"][0]["problems"][0]["reason"]
    (document,) = said.json["instances"][0]["documents"]
    assert document["verdict"] == "accepted"
    alone = clerk.submit(f"{path}.gone", *to(api))
    assert (alone.code, alone.json["instances"], len(alone.json["unread"])) == (4, [], 1)
    shown = clerk.submit(f"{path}.gone", *to(api), as_json=False)
    assert (shown.code, shown.stdout, "cannot be read" in shown.stderr) == (4, "", True)


def test_progress_is_shown_at_a_terminal(fleet, clerk: Clerk):
    """A line for each instance, while the command waits; results go to standard output."""
    one, two, _ = fleet
    for number, seconds in enumerate((5, 20, 80)):  # a machine that is slow gets more time
        order = block(f"B-{number}", [f"n{number}.example"], effective_at=stamp(in_seconds(seconds)))
        command = clerk.command(clerk.write(order), *to(one, two), "--timeout", "300", as_json=False)
        code, out, seen = at_a_terminal(command)
        assert code == 0
        for api in (one, two):
            assert api.url.encode() in seen
            assert api.url.encode() in out
        if b"waiting until enforced: 0 of 1 enforced" in seen:
            return
    pytest.fail(f"the wait is not shown: {seen!r}")


def at_a_terminal(command: list[str]) -> tuple[int, bytes, bytes]:
    """The exit code of a command, its standard output, and what it shows at the terminal."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "NO_PROXY": "*"}
    seen = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):
            while content := os.read(ours, 4096):
                seen.extend(content)

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        reader = threading.Thread(target=read)
        reader.start()
        out, _ = process.communicate(timeout=400)
        reader.join()
    os.close(ours)
    return process.returncode, out, bytes(seen)


def test_submit_here_can_wait_too(subject: Subject):
    """The same command against the control socket needs neither TLS nor a token."""

    def begin(moment: datetime) -> None:
        subject.start()
        order = block("B-1", ["one.example"], effective_at=stamp(moment))
        (subject.folder / "o.yaml").write_text(as_yaml(order))
        said = subject.cli("order submit", str(subject.folder / "o.yaml"))
        assert said.json["documents"][0]["state"] == "scheduled"

    begun_before(subject, 3, begin)
    path = subject.folder / "o.yaml"
    said = subject.cli("order submit", str(path), "--wait", "enforced")
    assert (said.code, said.json["documents"][0]["order"]["state"]) == (0, "active")
    assert is_sinkholed(subject.query("one.example"))
    said = subject.cli("order submit", str(path), "--wait", "verified", "--timeout", "1", as_json=False)
    assert (said.code, "not verified within 1 s: order B-1" in said.stderr) == (1, True)
    wrong = subject.cli("order submit", str(path), "--ca", "x", as_json=False)
    assert (wrong.code, "--ca belongs to --to" in wrong.stderr) == (2, True)


def test_what_is_over_has_reached_its_stage(fleet, clerk: Clerk):
    """A block and its unblock in one push: nothing is ever blocked, and the push has done its work."""
    api, *_ = fleet
    now = stamp(in_seconds(0))
    first = clerk.write(block("B-1", ["one.example"]), "1.yaml")
    second = clerk.write(unblock("U-1", "B-1"), "2.yaml")
    ended = block("B-2", ["two.example"], effective_at=now, expires_at=stamp(in_seconds(3600)))
    third = clerk.write(ended, "3.yaml")
    revoked = order("R-1", "revoke", targets=[{"order_id": "B-2", "entries": "all"}], effective_at=now)
    said = clerk.submit(first, second, third, clerk.write(revoked, "4.yaml"), *to(api))
    states = [one["order"]["state"] for one in said.json["instances"][0]["documents"]]
    assert (said.code, states) == (0, ["lifted", "active", "revoked", "active"])
    assert clerk.submit(first, third, *to(api), "--wait", "verified").code == 0
    assert api.subject.cli("order annul", "B-1", "--reason", "an error").code == 0
    assert clerk.submit(first, *to(api), "--timeout", "30").code == 4


def test_nobody_waits_for_a_proof_that_never_comes(subject: Subject, upstream: StubUpstream):
    """No probe can prove these orders: they are enforced, or only accepted."""
    subject.start(orders=[exempt("E-1", ["one.example"])], upstreams=[upstream.address], probes={})
    state = {"entries": 0, "digest": hashlib.sha256(b"").hexdigest(), "valid_until": "2117-01-01T00:00:00Z"}
    targets = [{"order_id": "E-1", "entries": "all"}]
    documents = [
        order("R-1", "revoke", targets=targets, deadline_at="2117-01-01T00:00:00Z"),
        order("N-1", "notice", entries=["two.example"]),
        order("S-1", "snapshot", statement=state),
        block("B-1", ["three.example"]),
    ]
    paths = []
    for document in documents:
        paths.append(str(subject.folder / f"{document['order_id']}.yaml"))
        Path(paths[-1]).write_text(as_yaml(document))
    said = subject.cli("order submit", *paths, "--wait", "verified")
    found = [one["order"] for one in said.json["documents"]]
    assert (said.code, [one["last_stage"] for one in found]) == (
        0,
        ["enforced", "accepted", "accepted", "verified"],
    )
    assert found[0]["enforced_at"]
    assert found[0]["seconds_left"] is None, "its deadline is met"
    assert found[3]["verified_at"]


# ------- order token


def test_a_new_token_is_printed_once_with_the_line_to_store(api: IssuersApi):
    """The line holds a hash; with it in the file of clients, the token is valid after a reload."""
    api.start()
    said = run([dnsblock(), "order", "token", "new-client", "--issuer", ISSUER, "-c", NO_DAEMON])
    assert said.returncode == 0, said
    token = re.search(r"^  (dnsblock-\S{43})$", said.stdout, re.MULTILINE)[1]
    (line,) = re.findall(r"^  (- \{name.*\})$", said.stdout, re.MULTILINE)
    assert token not in line
    path = api.subject.folder / "clients.yaml"
    path.write_text(path.read_text() + line + "\n")
    api.subject.reload()
    assert api.submit(block("B-1", ["one.example"]), token=token).status_code == 201
    again = run([dnsblock(), "order", "token", "new-client", "--issuer", ISSUER, "-c", NO_DAEMON])
    assert token not in again.stdout


def test_order_token_takes_roles_and_issuers(tmp_path: Path):
    """And refuses what the daemon would refuse."""
    command = [dnsblock(), "order", "token", "auditor", "--role", "read", "--issuer", "a.example", "--json"]
    made = json.loads(run([*command, "--issuer", "b.example"]).stdout)
    assert made["client"]["roles"] == ["read"]
    assert made["client"]["issuers"] == ["a.example", "b.example"]
    wrong_ones = (["Not A Name", "--issuer", ISSUER], ["name", "--issuer", "x y"], ["name"])
    for wrong in (*wrong_ones, ["name", "--role", "watch", "--issuer", ISSUER]):
        assert run([dnsblock(), "order", "token", *wrong]).returncode == 2


def test_order_token_for_staff_has_no_issuers(tmp_path: Path):
    """`watch` and `operate` concern all issuers."""
    command = [dnsblock(), "order", "token", "noc", "--role", "watch", "-c", NO_DAEMON]
    made = json.loads(run([*command, "--json"]).stdout)
    assert (made["client"]["roles"], "issuers" in made["client"]) == (["watch"], False)
    assert re.search(
        r"^  - \{name: noc, sha256: [0-9a-f]{64}, roles: \[watch\]\}$", run(command).stdout, re.MULTILINE
    )
