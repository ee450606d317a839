"""One bad input affects only itself: nothing delays or stops somebody else's unblock order."""

import resource
import socket
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from .harness import ORDERS_ZONE, Subject, is_forwarded, is_sinkholed
from .lists import UNWATCHED
from .orders import as_yaml, block, unblock
from .tools import wait_for
from .upstreams import StubUpstream

NAME = "blocked.example"
LISTED = {"name": "national", "list": "national.txt", "answer": "sinkhole", "source": UNWATCHED}
NAMES = [f"listed{number:03}.example" for number in range(100)]


def locked(subject: Subject) -> sqlite3.Connection:
    """The history of lists, locked as by a backup or a person with the sqlite3 shell."""
    history = sqlite3.connect(subject.folder / "state" / "lists.sqlite", isolation_level=None)
    history.execute("BEGIN EXCLUSIVE")
    return history


def test_a_symlink_loop_in_the_inbox_stops_no_order(subject: Subject, upstream: StubUpstream):
    """It is refused like any file that cannot be read."""
    subject.start(orders=[block("B-1", [NAME])], upstreams=[upstream.address])
    (subject.orders_folder / "loop.yaml").symlink_to("loop.yaml")
    subject.put_order(unblock("U-1", "B-1"))
    assert subject.cli("reload").code == 4
    assert is_forwarded(subject.query(NAME))
    assert any("loop.yaml" in one["file"] for one in subject.status()["refused_documents"])


def test_a_hanging_submission_delays_no_other(subject: Subject, upstream: StubUpstream):
    """A client that stops in the middle of a large document holds up no small one."""
    subject.start(orders=[block("B-1", [NAME])], upstreams=[upstream.address])
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.connect(subject.ready["control"])
        hanging.sendall(b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n{")
        wait_for(
            lambda: subject.metrics().total("dnsblock_http_connections", listener="control") >= 1,
            "the first submission has begun",
        )
        file = subject.folder / "lift.yaml"
        file.write_text(as_yaml(unblock("U-1", "B-1")))
        assert subject.cli("order submit", str(file), timeout=50).code == 0
        assert is_forwarded(subject.query(NAME))
        hanging.settimeout(0.1)
        with suppress(TimeoutError):
            assert hanging.recv(100) != b"", "the first one still waits for its body"


def test_a_locked_history_delays_no_unblock(subject: Subject, upstream: StubUpstream):
    """A list that cannot be put on record stays what it was; one that is new is empty; orders apply."""
    settings = {"upstreams": [upstream.address], "lists": {"national.txt": NAMES}}
    subject.start(orders=[block("B-1", [NAME])], **settings)
    subject.configure(
        zones=[ORDERS_ZONE, LISTED],
        orders=[block("B-1", [NAME]), unblock("U-1", "B-1")],
        listen=subject.ready["listening"],
        **settings,
    )
    with closing(locked(subject)):
        assert subject.cli("reload").code == 4
        assert is_forwarded(subject.query(NAME))
    subject.reload()
    assert is_sinkholed(subject.query(NAMES[0]))


def test_a_start_with_a_changed_list_and_a_locked_history_enforces_the_last_version(
    subject: Subject, upstream: StubUpstream
):
    """A startup tolerates every fault that the running daemon tolerates."""
    subject.start(zones=[LISTED], lists={"national.txt": NAMES}, upstreams=[upstream.address], inbox=None)
    assert subject.stop() == 0
    subject.put_list("national.txt", [*NAMES, "new.example"])
    with closing(locked(subject)):
        subject.launch()
        assert is_sinkholed(subject.query(NAMES[0]))
        assert is_forwarded(subject.query("new.example"))
    subject.cli("reload")
    wait_for(lambda: is_sinkholed(subject.query("new.example")), "the new version is enforced")


def test_a_sighup_without_a_free_descriptor_does_not_end_the_daemon(
    subject: Subject, upstream: StubUpstream, tmp_path: Path
):
    """sd_notify(3) needs a socket; without one systemd is not notified, and the reload happens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        subject.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        subject.start(orders=[block("B-1", [NAME])], upstreams=[upstream.address])
        pid = subject.process.pid
        open_now = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(3, open_now // 2), hard))
        subject.hup()
        wait_for(lambda: "not published" in subject.stderr() or "refused" in subject.stderr(), "it was tried")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
        subject.put_order(unblock("U-1", "B-1"))
        subject.reload()
        assert is_forwarded(subject.query(NAME))
        subject.environment.clear()
