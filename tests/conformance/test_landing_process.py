"""The process of the landing page: what it may do, and what happens when it ends."""

import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest
from ports import free_port

from .harness import ORDERS_ZONE, Subject, is_sinkholed
from .landing import BLOCKED, LISTED, OPTIONS, ORDER, Landing
from .test_user import NOBODY, ROOT, as_root, open_folder  # noqa: F401  # a fixture
from .tools import wait_for


@pytest.fixture
def page(subject: Subject) -> Landing:
    return Landing(subject).start()


def status_of(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def limits_of(process: int) -> dict[str, list[str]]:
    """Soft and hard limit of each resource."""
    lines = Path(f"/proc/{process}/limits").read_text().splitlines()
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}


# ------- What it has


def test_it_has_no_variable_and_no_descriptor_of_the_daemon(subject: Subject):
    """Somebody who takes it over finds no secret, no ledger and no control socket."""
    subject.environment = {"DNSBLOCK_TEST_SECRET": "a-secret-of-the-daemon"}
    page = Landing(subject).start()
    variables = Path(f"/proc/{page.process}/environ").read_bytes().split(b"\0")
    assert [one.partition(b"=")[0] for one in variables if one] == [b"PYTHONPATH"]
    assert "secret" not in Path(f"/proc/{page.process}/cmdline").read_text()
    places = [os.readlink(one) for one in Path(f"/proc/{page.process}/fd").iterdir()]
    kinds = sorted(place.partition(":")[0] for place in places if place != "/dev/null")
    # The counters, also as a mapped file; epoll; the link to the daemon, its own wakeup, the listener.
    assert kinds == ["/memfd", "/memfd", "anon_inode", "socket", "socket", "socket", "socket"]
    assert len(places) - len(kinds) == 3


def test_it_cannot_write_a_file_and_has_the_lowest_priority(page: Landing):
    """So nothing about a visitor can be kept, and no DNS response waits for it."""
    rows = limits_of(page.process)
    assert rows["Max file size"] == ["0", "0"]
    assert rows["Max core file size"] == ["0", "0"]
    assert int(rows["Max open files"][1]) <= 4352
    assert os.sched_getscheduler(page.process) == os.SCHED_IDLE
    assert os.getpriority(os.PRIO_PROCESS, page.process) == 19


@as_root
def test_it_is_nobody_even_if_the_daemon_is_root(page: Landing):
    """Least privilege: it needs no user, no group and no capability."""
    status = status_of(page.process)
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65534"}
    assert status["Groups"] == ""
    assert (int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"]) == (0, 0, "1")


@as_root
def test_it_becomes_the_user_and_listens_on_a_low_port(subject: Subject, open_folder: Path):  # noqa: F811
    """Port 80 is bound before root is given up; the page itself keeps no capability."""
    page = Landing(subject).start(user="nobody", landing={"listen": ["127.0.77.80:80"]})
    assert page.place == ("127.0.77.80", 80)
    status = status_of(page.process)
    assert status["Uid"].split()[0] == str(NOBODY.pw_uid)
    assert (int(status["CapEff"], 16), int(status["CapPrm"], 16)) == (0, 0)


@as_root
def test_it_is_confined_under_the_unit(subject: Subject, open_folder: Path):  # noqa: F811
    """The unit passes CAP_NET_BIND_SERVICE on to every program, and has a filter of system calls."""
    unit = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    unit += ["--inh-caps=-all,+net_bind_service", "--ambient-caps=-all,+net_bind_service"]
    text = (ROOT / "config" / "dnsblock.service").read_text()
    filters = re.findall(r"^SystemCallFilter=(.*)$", text, re.MULTILINE)
    assert len(filters) == 3
    python = subject.under or [sys.executable]
    filtered = [*python, str(ROOT / "tests" / "packaging" / "filtered.py"), *filters, "--"]
    subject.under = [*unit, *filtered, *subject.under]
    page = Landing(subject).start()
    assert int(status_of(subject.process.pid)["CapEff"], 16) == 1 << 10
    status = status_of(page.process)
    assert (int(status["CapEff"], 16), int(status["CapPrm"], 16)) == (0, 0)
    assert os.sched_getscheduler(page.process) == os.SCHED_IDLE
    assert limits_of(page.process)["Max file size"] == ["0", "0"]


# ------- Its end


def test_it_is_started_again_when_it_is_killed(page: Landing):
    """Each end is logged and counted, and DNS does not notice."""
    killed = page.kill()
    wait_for(lambda: page.processes() not in ([], [killed]), "it is started again")
    page.wait_until_served()
    assert page.get(BLOCKED).status == 451
    assert page.metric("restarts_total") == 1
    assert "the process of the landing page ended (SIGKILL): it starts again in" in page.subject.stderr()
    assert is_sinkholed(page.subject.query(BLOCKED))


def test_a_connection_waits_while_it_is_started_again(page: Landing):
    """The daemon keeps the listening socket, so no visitor is refused."""
    page.kill()
    assert page.get(BLOCKED).status == 451


def test_its_counters_survive_it(page: Landing):
    """A counter that starts at 0 again would hide what came before."""
    page.get(BLOCKED)
    before = page.metric("requests_total", kind="order_block")
    page.kill()
    page.wait_until_served()
    page.get(BLOCKED)
    assert page.metric("requests_total", kind="order_block") == before + 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2])
def test_only_the_daemon_ends_it(page: Landing, number: int):
    """systemd and a terminal send such signals to all processes; the daemon must be able to end in order."""
    os.kill(page.process, number)
    assert page.get(BLOCKED).status == 451
    assert page.metric("restarts_total") == 0


def test_it_ends_with_the_daemon(page: Landing):
    """Nobody must answer for a daemon that has stopped."""
    process = page.process
    assert page.subject.stop() == 0
    assert not Path(f"/proc/{process}").exists()
    assert "landing page ended" not in page.subject.stderr()


def test_it_ends_when_the_daemon_is_killed(page: Landing):
    """The next daemon needs the address."""
    process = page.process
    page.subject.kill()

    def is_gone() -> bool:
        try:
            return status_of(process)["State"].startswith("Z")  # nobody has waited for it
        except FileNotFoundError:
            return True

    wait_for(is_gone, "it has ended")


def test_a_restart_leaves_one(subject: Subject):
    """The daemon replaces itself; the page of the previous program must not answer beside the next one's."""
    page = Landing(subject).start(landing={"listen": [f"127.0.0.1:{free_port()}"]})
    before = page.process
    subject.restart_in_place()
    page.wait_until_served()
    assert page.process != before
    assert page.get(BLOCKED).status == 451


# ------- Reload


def again(page: Landing, landing: dict | None, **config: object) -> dict:
    """A reload with other options."""
    subject = page.subject
    addresses = {"listen": subject.ready["listening"], "metrics": subject.ready["metrics"]}
    zones = {"zones": [ORDERS_ZONE, LISTED]} | config
    subject.configure(landing=landing, orders=[ORDER], **addresses, **zones)
    return subject.reload()


def test_a_reload_changes_its_texts(page: Landing):
    """Without a restart of the daemon, and without a refused connection."""
    listen = page.subject.ready["landing"]
    said = again(page, OPTIONS | {"listen": listen, "organization": "Another ISP", "appeal": {"id": "Surat"}})
    assert said["restart_needed"] == []
    wait_for(lambda: "Another ISP" in page.get(BLOCKED).text, "the new text")
    assert "Surat" in page.get(BLOCKED, accept_language="id").text
    assert page.get(BLOCKED).status == 451
    assert page.metric("restarts_total") == 0


def test_a_reload_adds_and_removes_addresses(page: Landing):
    """The sockets that stay are never closed."""
    (first,) = page.subject.ready["landing"]
    other = f"127.0.0.1:{free_port()}"
    again(page, OPTIONS | {"listen": [first, other]})
    assert page.subject.status()["landing"] == [first, other]
    for place in (first, other):
        page.subject.ready["landing"] = [place]
        assert page.get(BLOCKED).status == 451
    again(page, OPTIONS | {"listen": [other]})
    page.subject.ready["landing"] = [other]
    assert page.get(BLOCKED).status == 451
    host, port = first.rsplit(":", 1)
    with socket.socket() as sock:
        wait_for(lambda: sock.connect_ex((host, int(port))) != 0, "nobody listens there any more")


def test_a_reload_turns_it_off_and_on(page: Landing):
    """`landing: null` ends its process."""
    again(page, None)
    wait_for(lambda: page.processes() == [], "it has ended")
    assert page.subject.status()["landing"] == []
    assert not [one for one in page.subject.metrics().names() if one.startswith("dnsblock_landing")]
    again(page, OPTIONS)  # any free port: another program may have taken the one before
    page.subject.ready["landing"] = page.subject.status()["landing"]
    assert page.get(BLOCKED).status == 451


def test_an_address_in_use_keeps_the_previous_ones(page: Landing):
    """As for every other listener: everything else of the configuration is applied."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        page.subject.configure(
            landing=OPTIONS | {"listen": [place]},
            orders=[ORDER],
            listen=page.subject.ready["listening"],
            metrics=page.subject.ready["metrics"],
            zones=[ORDERS_ZONE, LISTED],
        )
        said = page.subject.cli("reload")
        assert said.code == 4
        assert "change `landing`" in said.stderr
        assert page.get(BLOCKED).status == 451
    assert page.subject.status()["landing"] == page.subject.ready["landing"]


def test_a_startup_on_an_address_in_use_is_refused(subject: Subject):
    """With the reason, and before an order is accepted."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        subject.configure(landing=OPTIONS | {"listen": [place]})
        (line,) = subject.serve_refused().refusal
        assert line.startswith(f"{place}: in use")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"url": "landing.example"}, "must be http://NAME or https://NAME"),
        ({"url": "http://landing.example/path"}, "must be http://NAME or https://NAME"),
        ({"url": "http://a b"}, "must be http://NAME or https://NAME"),
        ({"contact": "javascript:alert(1)"}, "must be a tel:, mailto:, http: or https: URI"),
        ({"appeal": {"url": "data:text/html,x"}}, "must be a tel:, mailto:, http: or https: URI"),
        ({"listen": []}, "must not be empty"),
        ({"listen": ["127.0.0.1:80", "127.0.0.1:80"]}, "has an address twice"),
    ],
)
def test_an_invalid_option_is_refused_with_its_reason(subject: Subject, options: dict, reason: str):
    """Checked once, with file, line and value."""
    subject.configure(landing=OPTIONS | options)
    said = subject.cli("check")
    assert said.code == 1
    assert any(reason in one["reason"] for one in said.problems), said
