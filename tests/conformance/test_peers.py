"""The portable tests aimed at other resolvers: what differences.yaml says of them is what they do."""

import os
import signal
import sys
from pathlib import Path

import pytest
from ports import free_port

from . import policy
from .harness import Subject
from .tools import dnsblock, run

PORTABLE = Path(__file__).parent / "portable"
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]


@pytest.mark.parametrize("peer", ["unbound", "bind"])
def test_unbound_and_bind_differ_exactly_where_it_is_recorded(peer: str):
    """Where both agree against us, we are probably wrong: so it must be known what they do."""
    done = run([*PYTEST, "--aim", peer, str(PORTABLE)], timeout=600)
    assert done.returncode == 0, done.stdout[-8000:]


def test_the_portable_tests_can_be_aimed_at_an_address(subject: Subject, tmp_path: Path):
    """The hook gets the zone file and the upstream, and puts both into effect; here by a start."""
    place = f"127.0.0.1:{free_port()}"
    subject.configure(**policy.configuration("127.0.0.1:1"), listen=[place])
    hook = tmp_path / "hook.sh"
    hook.write_text(
        f"""set -eu
grep -q rpz-passthru "$1"
sed -i "s/127.0.0.1:1$/$2/" {subject.config_path}
setsid {dnsblock()} serve -c {subject.config_path} >{tmp_path}/out 2>&1 &
echo $! >{tmp_path}/pid
"""
    )
    try:
        # One resolver for all files: without the tests after which it remembers an upstream without EDNS.
        lasting = "not half_of_an_extended_rcode and not edns_error_of_the_upstream_hop"
        aim = ["--aim", place, "--policy-hook", f"sh {hook}", "-k", lasting]
        done = run([*PYTEST, *aim, str(PORTABLE)], timeout=600)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert done.returncode == 0, done.stdout[-8000:]
    assert "xfailed" not in done.stdout


def test_a_policy_hook_that_fails_stops_the_run(tmp_path: Path):
    """Without the policy each test would blame the resolver."""
    only = str(PORTABLE / "test_tcp.py")
    done = run([*PYTEST, "--aim", "127.0.0.1:1", "--policy-hook", "false", only], timeout=300)
    assert done.returncode == 1
    assert "the policy hook failed" in done.stdout
