"""`user`: a daemon that was started as root gives root up, and can still do what a reload asks of it."""

import os
import pwd
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import Subject, is_sinkholed
from .orders import block
from .tools import wait_for

NOBODY = pwd.getpwnam("nobody")
NET_BIND_SERVICE = 1 << 10  # linux/capability.h
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
ROOT = Path(__file__).parents[2]


def is_open_to_all(path: Path) -> bool:
    """Whether any user can get there."""
    path = path.resolve()
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def environment() -> tuple[list[str], dict[str, str]]:
    """A Python that every user can execute, with what is installed for this one."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if is_open_to_all(Path(os.__file__).parent):
        return [], {}
    python = shutil.which(version, path="/usr/bin:/usr/local/bin")
    if python is None or not is_open_to_all(ROOT):
        pytest.skip("another user than root cannot execute this Python, or cannot read this folder")
    return [python], {"PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])}


@pytest.fixture
def open_folder(subject: Subject) -> Iterator[Path]:
    """The folder of the daemon, which every user may enter; pytest's own are closed to others."""
    under, more = environment()
    folder = Path("/tmp") / f"dnsblock-{os.getpid()}-{subject.folder.name}"
    folder.mkdir(mode=0o755)
    os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)  # where the control socket is made
    try:
        subject._move_to(folder)
        subject.under, subject.environment = under, subject.environment | more
        yield folder
    finally:
        subject.close()
        subject.process = None
        shutil.rmtree(folder)


def status_of(subject: Subject) -> list[dict[str, list[str]]]:
    """The status of each thread (proc(5))."""
    said = []
    for task in Path(f"/proc/{subject.process.pid}/task").iterdir():
        try:
            lines = [line.split() for line in (task / "status").read_text().splitlines()]
        except OSError:  # the thread has ended
            continue
        said.append({key.rstrip(":"): values for key, *values in lines})
    return said


@as_root
def test_every_thread_runs_as_the_user_and_keeps_only_net_bind_service(subject: Subject, open_folder: Path):
    """No thread keeps anything else of root: no other capability, no group, and no way to get more."""
    subject.start(user="nobody", orders=[block("B-1", ["blocked.example"])])
    assert is_sinkholed(subject.query("blocked.example"))
    threads = status_of(subject)
    assert len(threads) > 3
    for said in threads:
        assert said["Uid"] == [str(NOBODY.pw_uid)] * 4
        assert said["Gid"] == [str(NOBODY.pw_gid)] * 4
        assert "0" not in said["Groups"]
        for capabilities in ("CapEff", "CapPrm"):
            assert int(said[capabilities][0], 16) == NET_BIND_SERVICE
        assert said["NoNewPrivs"] == ["1"]


@as_root
def test_a_reload_listens_on_another_low_port_and_records_an_order(subject: Subject, open_folder: Path):
    """As the user: with the capability that is left, and the state folder that was given to it."""
    subject.start(user="nobody", listen=["127.0.0.1:0"])
    subject.configure(
        user="nobody", listen=["127.0.0.1:0", "127.0.77.53:53"], orders=[block("B-1", ["b.example"])]
    )
    assert subject.reload()["restart_needed"] == []
    assert "127.0.77.53:53" in subject.status()["listening"]
    assert is_sinkholed(subject.query("b.example"))
    assert subject.stop() == 0
    assert {path.stat().st_uid for path in (open_folder / "state").rglob("*")} == {NOBODY.pw_uid}


@as_root
def test_a_restart_as_the_user_can_use_files_that_root_created(subject: Subject, open_folder: Path):
    """An upgrade from a daemon that ran as root: its ledger is given to the user."""
    subject.start(orders=[block("B-1", ["blocked.example"])])
    assert subject.stop() == 0
    subject.start(user="nobody", orders=[])
    assert is_sinkholed(subject.query("blocked.example"))
    subject.restart_in_place()
    assert is_sinkholed(subject.query("blocked.example"))
    capabilities = status_of(subject)[0]["CapEff"]
    assert int(capabilities[0], 16) == NET_BIND_SERVICE


@as_root
def test_running_as_root_without_user_gets_a_warning(subject: Subject, open_folder: Path):
    """A daemon that reads hostile packets should not keep root."""
    subject.start()
    wait_for(lambda: "running as root: set `user`" in subject.stderr(), "the warning")
    assert subject.stop() == 0
    before = subject.stderr().count("running as root")
    subject.start(user="nobody")
    assert subject.stop() == 0
    assert (before, subject.stderr().count("running as root")) == (1, 1)


@as_root
def test_a_user_that_cannot_read_the_configuration_is_refused(subject: Subject, open_folder: Path):
    """A file that root alone can read is named at startup, and not at the first reload."""
    subject.configure(user="nobody")
    subject.config_path.chmod(0o600)
    (line,) = subject.serve_refused().refusal
    assert line.startswith(str(subject.config_path))
    assert "user nobody cannot read it" in line


@as_root
def test_a_python_that_the_user_cannot_read_is_refused(subject: Subject, open_folder: Path):
    """Modules are imported as they are needed, also later on."""
    if is_open_to_all(Path(os.__file__).parent):
        pytest.skip("every user can read this Python")
    subject.under, subject.environment = [], {}
    subject.configure(user="nobody")
    (line,) = subject.serve_refused().refusal
    assert "make install PYTHON=/usr/bin/python3" in line


@as_root
def test_a_control_socket_that_the_user_could_not_remove_is_refused(subject: Subject, open_folder: Path):
    """The next start as this user would find it in its way."""
    os.chown(open_folder, 0, 0)
    subject.configure(user="nobody")
    (line,) = subject.serve_refused().refusal
    assert line.startswith(str(open_folder / "control.sock"))
    assert "chown nobody" in line


@as_root
def test_a_state_folder_of_another_user_is_refused(subject: Subject, open_folder: Path):
    """Another user who may write there could make root give away any file."""
    subject.configure(user="nobody")
    (open_folder / "state").mkdir()
    other = open_folder / "state" / "theirs"
    other.touch()
    os.chown(other, 12345, 12345)
    (line,) = subject.serve_refused().refusal
    assert line.startswith(str(other))
    assert "chown -R nobody:" in line


def test_an_unknown_user_is_refused(subject: Subject):
    """A typing error in `user` must not leave the daemon running as root."""
    subject.configure(user="no-such-user")
    (line,) = subject.serve_refused().refusal
    assert "no-such-user" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may become anybody")
def test_user_is_refused_without_root(subject: Subject):
    """setuid(2): the start fails at once, and not at the first port below 1024."""
    subject.configure(user="root")
    (line,) = subject.serve_refused().refusal
    assert "only root can become another user" in line
