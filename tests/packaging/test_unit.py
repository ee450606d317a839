"""The systemd unit is valid, is hardened, and agrees with the installation and the configuration."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from dnslib import RCODE, DNSRecord
from running import MINIMAL, PROGRAM, ROOT, running

UNIT = ROOT / "config" / "dnsblock.service"
INSTALLED = "/opt/dnsblock/bin/dnsblock"
BLOCKING = "/usr/bin/env --block-signal=HUP,USR2"
HARDENING = {
    "AmbientCapabilities": "CAP_NET_BIND_SERVICE",
    "CapabilityBoundingSet": "CAP_NET_BIND_SERVICE",
    "LimitCORE": "0",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "NoNewPrivileges": "yes",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "ProtectSystem": "strict",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "UMask": "0077",
    "User": "dnsblock",
}


def directives() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def analyze(tmp_path: Path):
    """Runs systemd-analyze on the unit, with an executable that exists here."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.fail("systemd-analyze is missing: apt-get install systemd", pytrace=False)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(INSTALLED, str(PROGRAM)))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *arguments, unit], capture_output=True, text=True, timeout=60)

    return run


def test_systemd_reports_no_problem_in_the_unit(analyze):
    """The unit passes `systemd-analyze verify`."""
    result = analyze("verify", "--man=no")
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_the_exposure_of_the_unit_is_low(analyze):
    """Below 2 of 10: the rest is due to the network and the privileged port."""
    result = analyze("security", "--offline=true", "--no-pager")
    level = re.search(r"Overall exposure level for dnsblock\.service: ([0-9.]+)", result.stdout)
    assert level is not None, result
    assert float(level[1]) < 2


@pytest.mark.parametrize("directive", sorted(HARDENING))
def test_the_unit_is_hardened(directive: str):
    """Checked also on machines without systemd-analyze."""
    assert directives()[directive] == [HARDENING[directive]]


def test_the_unit_allows_only_system_calls_of_services():
    """systemd.exec(5): `SystemCallFilter=@system-service`. The last line is for priorities of threads."""
    assert directives()["SystemCallFilter"] == [
        "@system-service",
        "~@privileged @resources",
        "sched_setattr sched_setscheduler setpriority",
    ]


def test_the_daemon_does_its_work_with_the_system_calls_of_the_unit(tmp_path: Path):
    """Startup, an order by reload and by submit, receipts, queries, and a restart: nothing is refused."""
    keys = {"answer": "nxdomain", "unsigned": "accept"}
    config = tmp_path / "dnsblock.yaml"
    config.write_text(
        f"{MINIMAL}orders: orders\nstate: state\ncontrol: {tmp_path}/control.sock\n"
        f"zones: {json.dumps([{'name': 'court', 'issuer': 'court.example', **keys}])}\n"
    )
    (tmp_path / "orders").mkdir()
    order = {"schema": "dnsblock.order/1", "issuer": "court.example", "action": "block"}
    order |= {"issued_at": "2026-01-01T00:00:00Z", "end": ""}
    for number, folder in (("1", tmp_path / "orders"), ("2", tmp_path)):
        whole = order | {"order_id": number, "entries": [f"n{number}.example"], "end": number}
        (folder / f"{number}.json").write_text(json.dumps(whole))
    python = [sys.executable, Path(__file__).with_name("filtered.py")]
    filtered = [*python, *directives()["SystemCallFilter"], "--", PROGRAM]
    with running(config, program=filtered) as ready:
        assert ready["entries"] == 1
        for command in (["order", "submit", tmp_path / "2.json"], ["reload"], ["status"]):
            done = subprocess.run(
                [*filtered, *command, "-c", config], capture_output=True, text=True, timeout=120
            )
            assert done.returncode == (1 if command == ["status"] else 0), done.stderr  # no upstream is up
        receipt = [*filtered, "order", "receipt", "2", "-o", tmp_path / "receipt.json", "-c", config]
        done = subprocess.run(receipt, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        host, _, port = ready["listening"][0].rpartition(":")
        for name in ("n1.example", "n2.example"):
            answer = DNSRecord.parse(DNSRecord.question(name).send(host, int(port), timeout=60))
            assert answer.header.rcode == RCODE.NXDOMAIN
        os.kill(ready["pid"], signal.SIGUSR2)
        again = json.loads(ready["output"].readline())
        assert again["pid"] == ready["pid"]
    log = config.with_suffix(".log").read_text()
    assert "not permitted" not in log.lower(), log


def test_the_unit_runs_what_the_makefile_installs():
    """Two files contain the same path."""
    prefix = re.search(r"^PREFIX \?= (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert f"{prefix}/bin/dnsblock" == INSTALLED
    assert directives()["ExecStartPre"] == [f"{INSTALLED} check --startup"]
    assert directives()["ExecStart"] == [f"{BLOCKING} {INSTALLED} serve"]
    assert directives()["ExecReload"] == [f"{INSTALLED} reload"]


@pytest.mark.parametrize("key", ["ExecStartPre", "ExecStart", "ExecReload"])
def test_the_commands_of_the_unit_exist(key: str):
    """Otherwise the service would fail to start after a command was renamed."""
    written = directives()[key][0]
    assert INSTALLED in written
    command = [*written.replace(INSTALLED, str(PROGRAM)).split(), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_example_configuration_writes_where_the_unit_allows():
    """ProtectSystem=strict: everything else is read only."""
    example = (ROOT / "config" / "isp.yaml").read_text()
    state, runtime = directives()["StateDirectory"][0], directives()["RuntimeDirectory"][0]
    assert f"\nstate: /var/lib/{state}\n" in example
    assert f"\ncontrol: /run/{runtime}/control.sock\n" in example
    assert directives()["Environment"] == [
        f"DNSBLOCK_CONFIG=/etc/{directives()['ConfigurationDirectory'][0]}/dnsblock.yaml"
    ]
    assert "ReadWritePaths" not in directives()


def test_systemd_keeps_the_sockets_of_a_restart():
    """UDP and TCP sockets of many worker threads and addresses."""
    (most,) = directives()["FileDescriptorStoreMax"]
    assert int(most) >= 2 * 64 * 8


def test_the_daemon_notifies_systemd_as_the_unit_expects(tmp_path: Path):
    """Type=notify: startup ends when queries are answered. systemd 252 does not have notify-reload."""
    assert directives()["Type"] == ["notify"]
    config = tmp_path / "dnsblock.yaml"
    config.write_text(MINIMAL)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        with running(config, NOTIFY_SOCKET=str(tmp_path / "notify")):
            # The sockets for the next process come first.
            assert "FDSTORE=1" in systemd.recv(4096).decode().splitlines()
            assert "READY=1" in systemd.recv(4096).decode().splitlines()
        assert "STOPPING=1" in systemd.recv(4096).decode().splitlines()
