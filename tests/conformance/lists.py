"""Helpers of the list tests: zones, reports, the server of a feed, files of the state."""

import ctypes
import hashlib
import http.client
import json
import os
import select
import socket
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from unit.https_server import Behaviour, Server, whole

from .asking import TIMEOUT, is_sinkholed
from .clients import Said
from .harness import Subject
from .tools import wait_for

NO_PROXY = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
DAY = 86_400  # as `every_s`: not within a test
# As `source`: where a reload is to find the new file, the daemon must not have found it a moment before.
UNWATCHED = {"every_s": DAY}
# As `guards`: the list may be replaced by one of other names altogether.
ANY_CHANGE = dict.fromkeys(("shrank_percent", "shrank_names", "grew_percent", "grew_names"), "off")


def list_zone(
    place: str = "list.txt", *, name: str = "listed", match: str | None = None, **source: object
) -> dict:
    """A zone of one list; what else is given is its `source`."""
    zone = {"name": name, "list": place, "answer": "sinkhole"}
    if match:
        zone["match"] = match
    return zone | ({"source": source} if source else {})


def names(count: int, first: int = 0) -> list[str]:
    return [f"n{number}.example" for number in range(first, first + count)]


def text_of(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def sha256(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


# ------- Reported lines -----------------------------------------------------------------


def sources(subject: Subject) -> dict[str, dict]:
    """The output of `source list --json`, read from the control socket: ten times as fast as the command."""
    return {one["zone"]: one for one in _ask(subject, "/v1/sources")["sources"]}


def source(subject: Subject, zone: str = "listed") -> dict:
    return sources(subject)[zone]


def refused_by(subject: Subject, zone: str = "listed") -> list[str]:
    """The codes by which the text that is there now was refused; none: it was not."""
    refused = source(subject, zone)["rejected"]
    return refused["codes"] if refused else []


def versions(subject: Subject, zone: str = "listed") -> list[dict]:
    """The versions of a list, the latest first, as `versions ZONE --json` prints them."""
    return _ask(subject, f"/v1/versions?zone={zone}")["versions"]


def events(subject: Subject, zone: str = "listed") -> list[dict]:
    return _ask(subject, f"/v1/versions?zone={zone}")["events"]


def snapshots(subject: Subject) -> list[dict]:
    """The snapshots that were served, the latest first, as `versions --json` prints them."""
    return _ask(subject, "/v1/versions")["snapshots"]


class _OverUnix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("dnsblock", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _ask(subject: Subject, target: str) -> dict:
    with closing(_OverUnix(subject.folder / "control.sock")) as connection:
        connection.request("GET", target)
        response = connection.getresponse()
        answer = json.loads(response.read())
    assert response.status == 200, answer
    return answer


def reports(said: Said) -> dict[str, dict]:
    """The report of `check` about each list."""
    return {zone["name"]: zone["report"] for zone in said.json["zones"]}


def findings(report: dict, kind: str | None = None) -> list[tuple[str, int, str, str]]:
    """File, line, value and code of the reports about single lines."""
    return [
        (Path(one["file"]).name, one["line"], one["value"], one["code"])
        for one in report["reported"]
        if kind in (None, one["kind"])
    ]


def assert_adds_up(report: dict) -> None:
    """Every line is one of five things, or says nothing."""
    kinds = [report[kind] for kind in ("accepted", "repaired", "duplicate", "not_applicable", "rejected")]
    assert sum(kinds) == report["lines"], report
    assert sum(report["rejected_by"].values()) == report["rejected"], report
    assert sum(report["not_applicable_by"].values()) == report["not_applicable"], report


def accept(
    subject: Subject, digest: str, *, zone: str = "listed", reason: str = "asked the provider"
) -> Said:
    return subject.cli("source accept", zone, digest, "--reason", reason)


def roll_back(subject: Subject, serial: int, reason: str = "blocked a bank") -> Said:
    return subject.cli("rollback", str(serial), "--reason", reason)


def refresh(subject: Subject, zone: str = "listed") -> Said:
    return subject.cli("source refresh", zone)


def log(subject: Subject, *levels: str) -> list[str]:
    """The messages that were logged so far, of these levels or of all."""
    lines = [
        json.loads(line)
        for line in subject.stderr().splitlines()
        if line.startswith("{") and line.endswith("}")
    ]
    return [line["event"] for line in lines if not levels or line["level"] in levels]


def is_logged(subject: Subject, *words: str, levels: Iterable[str] = ("warning", "error")) -> bool:
    return any(all(word in message for word in words) for message in log(subject, *levels))


def enforced(subject: Subject, *asked: str) -> list[bool]:
    return [is_sinkholed(subject.query(name)) for name in asked]


def wait_enforced(subject: Subject, name: str) -> None:
    wait_for(lambda: is_sinkholed(subject.query(name)), f"{name} is enforced")


def wait_version(subject: Subject, number: int, zone: str = "listed") -> None:
    subject.wait_for_metric("dnsblock_source_version", number, zone=zone)


def wait_refused(subject: Subject, zone: str = "listed") -> None:
    subject.wait_for_metric("dnsblock_source_rejected", 1, zone=zone)


class Unchanged:
    """That nothing of what is enforced changes within a `with`: serial, digest and answers."""

    def __init__(self, subject: Subject, *asked: str) -> None:
        self._subject = subject
        self._asked = asked

    def _seen(self) -> tuple[object, ...]:
        metrics = self._subject.metrics()
        digests = [labels for name, labels in metrics if name == "dnsblock_snapshot_info"]
        return metrics.total("dnsblock_snapshot_serial"), digests, enforced(self._subject, *self._asked)

    def __enter__(self) -> None:
        self._before = self._seen()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            assert self._seen() == self._before


# ------- A feed -------------------------------------------------------------------------


class Feed:
    """A list behind a URL, which the test can replace."""

    def __init__(self, server: Server, text: bytes, target: str = "/list.txt") -> None:
        self._server = server
        self._target = target
        self.put(text)
        self.url = server.serve(self._behave, target)

    def put(self, text: bytes) -> None:
        """A proper server: it answers 304 to a client that has this content already."""
        etag = f'"{sha256(text)[:16]}"'

        async def behave(_: object, writer: object) -> None:
            if self.requests[-1].headers.get("if-none-match") == etag:
                writer.write(whole(b"", "304 Not Modified", etag=etag))
            else:
                writer.write(whole(text, content_type="text/plain", etag=etag))
            await writer.drain()

        self.behaviour: Behaviour = behave

    async def _behave(self, reader: object, writer: object) -> None:
        await self.behaviour(reader, writer)

    @property
    def requests(self) -> list:
        """The requests to it, the latest last."""
        return [one for one in list(self._server.requests) if one.target == self._target]

    def zone(self, ca: Path, **source: object) -> dict:
        return list_zone(self.url, ca=str(ca), **({"every_s": DAY} | source))


# ------- Its files ----------------------------------------------------------------------


def compiled(subject: Subject) -> dict[str, bytes]:
    """The compiled lists of the state folder."""
    return {path.name: path.read_bytes() for path in (subject.folder / "state" / "lists").iterdir()}


def assert_named_by_content(subject: Subject) -> None:
    """Each compiled file is called by its SHA-256, so it is whole, and there is nothing else."""
    for name, content in compiled(subject).items():
        assert name.partition(".")[0] == sha256(content), name


def break_list(subject: Subject, how: str) -> None:
    """Something else than a list in its place."""
    path = subject.folder / "list.txt"
    match how:
        case "gone":
            path.unlink()
        case "a page":
            subject.put_list("list.txt", "<html><body>502</body></html>\n")
        case "a folder":
            path.unlink()
            path.mkdir()
        case "a pipe":
            path.unlink()
            os.mkfifo(path)
        case "endless":
            path.unlink()
            path.symlink_to("/dev/zero")


def stored_texts(subject: Subject) -> list[Path]:
    """The texts of versions in the state folder, by which a compiled list is made again."""
    return texts_in(subject.folder / "state")


def texts_in(state: Path) -> list[Path]:
    """The stored texts of a state folder. The folder of a text is renamed to this form when it is whole."""
    return [path for path in files_below(state / "texts") if "@" in path.parent.name]


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, without those that the daemon removes or renames meanwhile."""
    return [Path(at) / name for at, _, names in os.walk(folder) for name in names]


def wait_stored(subject: Subject) -> None:
    """Waits until the list is stored, which happens after it is enforced."""
    wait_for(lambda: stored_texts(subject), "the text is kept")


IN_ACCESS, IN_OPEN = 0x1, 0x20  # inotify(7)


@contextmanager
def watching_reads(path: Path) -> Iterator[list[int]]:
    """Fills a list with what is done to a file within the `with`: opened, read."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    found: list[int] = []
    try:
        assert libc.inotify_add_watch(descriptor, os.fsencode(path), IN_ACCESS | IN_OPEN) >= 0
        yield found
        while select.select([descriptor], [], [], 0)[0]:
            chunk = os.read(descriptor, 4096)
            found += [int.from_bytes(chunk[at + 4 : at + 8], "little") for at in range(0, len(chunk), 16)]
    finally:
        os.close(descriptor)
