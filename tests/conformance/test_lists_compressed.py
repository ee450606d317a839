"""Files of lists that are not plain text: gzip is read; anything else is called what it is."""

import bz2
import gzip
import io
import lzma
import sqlite3
import tarfile
import zipfile
from pathlib import Path

from unit.https_server import Authority, Server

from .asking import is_sinkholed
from .harness import Subject
from .lists import (
    DAY,
    NO_PROXY,
    Feed,
    Unchanged,
    accept,
    enforced,
    list_zone,
    names,
    refused_by,
    sha256,
    source,
    sources,
    text_of,
    versions,
    wait_enforced,
)

BASE = names(200)
TEXT = text_of(BASE)
COMPRESSED = gzip.compress(TEXT, mtime=0)


# ------- gzip -------


def test_a_gzip_file_is_read_whatever_its_name(subject: Subject):
    """RFC 1952 section 2.3.1: the first two bytes identify gzip; a URL may keep its name."""
    subject.start(
        zones=[
            list_zone("list.txt"),
            list_zone("list.gz", name="compressed"),
            list_zone("twice.txt", name="members"),
            list_zone("rpz", name="zone"),
        ],
        lists={
            "list.txt": TEXT,
            "list.gz": COMPRESSED,
            "twice.txt": gzip.compress(text_of(BASE[:100])) + gzip.compress(text_of(BASE[100:])),
            "rpz": gzip.compress(b"$TTL 60\nr.example CNAME .\n"),
        },
        inbox=None,
    )
    found = sources(subject)
    assert {zone: one["entries"] for zone, one in found.items()} == {
        "listed": 200,
        "compressed": 200,
        "members": 200,
        "zone": 1,
    }
    assert found["zone"]["format"] == "rpz"
    digests = {versions(subject, zone)[0]["digest"] for zone in ("listed", "compressed", "members")}
    assert len(digests) == 1
    # The digest by which a list is accepted is that of the file, as sha256sum prints it.
    assert found["compressed"]["sha256"] == sha256(COMPRESSED)
    assert is_sinkholed(subject.query("r.example"))
    subject.restart()
    assert sources(subject)["compressed"]["version"] == 1


def test_a_folder_may_hold_compressed_files(subject: Subject):
    """Split files of a large list are often compressed one by one."""
    folder = subject.folder / "lists"
    folder.mkdir()
    (folder / "a.txt").write_bytes(text_of(["a.example"]))
    (folder / "b.txt.gz").write_bytes(gzip.compress(text_of(["b.example"])))
    subject.start(zones=[list_zone("lists")], inbox=None)
    assert enforced(subject, "a.example", "b.example") == [True, True]


def test_a_feed_may_be_a_gzip_file(subject: Subject, web: Server, authority: Authority):
    """`list.txt.gz` behind a URL: no Content-Encoding says that it is compressed."""
    feed = Feed(web, COMPRESSED, "/list.txt.gz")
    subject.environment.update(NO_PROXY)
    subject.start(zones=[feed.zone(authority.pem)], inbox=None)
    wait_enforced(subject, BASE[0])
    assert source(subject)["entries"] == 200
    with Unchanged(subject, BASE[0]):
        feed.put(COMPRESSED[:-9])
        assert subject.cli("source refresh", "listed").code == 4
        assert refused_by(subject) == ["CORRUPT"]


def damage(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]


BROKEN = {
    "half": (COMPRESSED[: len(COMPRESSED) // 2], "ends in the middle"),
    "no checksum": (COMPRESSED[:-8], "ends in the middle"),
    "wrong byte": (damage(COMPRESSED, len(COMPRESSED) // 2), "corrupt gzip"),
    "wrong checksum": (damage(COMPRESSED, len(COMPRESSED) - 8), "corrupt gzip"),
    "garbage behind it": (COMPRESSED + b"garbage behind the list", "corrupt gzip"),
}


def test_a_truncated_or_corrupt_gzip_file_is_rejected(subject: Subject):
    """Half a list would unblock the other half; RFC 1952 section 2.3.1 has a checksum and a length."""
    subject.start(zones=[list_zone(every_s=DAY)], lists={"list.txt": COMPRESSED}, inbox=None)
    for content, words in BROKEN.values():
        with Unchanged(subject, BASE[0], BASE[-1]):
            subject.put_list("list.txt", content)
            said = subject.cli("reload")
            assert said.code == 4
            assert any(words in problem["reason"] for problem in said.problems), (words, said.problems)
            assert refused_by(subject) == ["CORRUPT"]
    # There is nothing that could be accepted.
    assert accept(subject, sha256(content)).code != 0
    subject.put_list("list.txt", COMPRESSED)
    subject.reload()
    assert refused_by(subject) == []


def test_max_mb_limits_the_decompressed_size(subject: Subject):
    """A few kilobytes of gzip can become gigabytes: `source.max_mb` is for the text."""
    bomb = gzip.compress(text_of(BASE) + b"#" * (2 << 20) + b"\n")
    assert len(bomb) < 1 << 15
    subject.start(zones=[list_zone(max_mb=1, every_s=DAY)], lists={"list.txt": TEXT}, inbox=None)
    with Unchanged(subject, BASE[0]):
        subject.put_list("list.txt", bomb)
        said = subject.cli("reload")
        assert said.code == 4
        assert any("max_mb" in problem["reason"] for problem in said.problems)
        assert refused_by(subject) == ["UNREADABLE"]
    subject.configure(zones=[list_zone(max_mb=3, every_s=DAY)], inbox=None)
    subject.reload()
    assert refused_by(subject) == []


def test_a_compressed_web_page_is_rejected_as_a_web_page(subject: Subject):
    """An error page is compressed like everything else that a server sends."""
    subject.start(zones=[list_zone(every_s=DAY)], lists={"list.txt": TEXT}, inbox=None)
    subject.put_list("list.txt", gzip.compress(b"<html><body>502</body></html>\n"))
    assert subject.cli("reload").code == 4
    assert "HTML" in refused_by(subject)


# ------- What is no text -------


def archive(*members: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for member in members:
            file.writestr(member, TEXT)
    return content.getvalue()


def tarball() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as file:
        member = tarfile.TarInfo("list.txt")
        member.size = len(TEXT)
        file.addfile(member, io.BytesIO(TEXT))
    return content.getvalue()


def database(folder: Path) -> bytes:
    path = folder / "names.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE names (name TEXT)")
    connection.commit()
    connection.close()
    return path.read_bytes()


def foreign(folder: Path) -> dict[str, tuple[bytes, str, str]]:
    """Files, what each is called, and what to do with it."""
    text = TEXT.decode()
    return {
        "zip": (archive("list.txt"), "zip archive", "unzip"),
        "excel": (archive("[Content_Types].xml", "xl/workbook.xml"), "spreadsheet", "CSV"),
        "word": (archive("[Content_Types].xml", "word/document.xml"), "Word", "plain text"),
        "oldexcel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504), "Excel", "CSV"),
        "utf16": (text.encode("utf-16"), "UTF-16", "UTF-8"),
        "utf16be": (text.encode("utf-16-be"), "UTF-16", "UTF-8"),
        "utf16le": (text.encode("utf-16-le"), "UTF-16", "UTF-8"),
        "utf32": (text.encode("utf-32"), "UTF-32", "UTF-8"),
        "cr": (TEXT.replace(b"\n", b"\r"), "carriage return", "tr "),
        "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF", "CSV"),
        "xz": (lzma.compress(TEXT), "xz", "xz -d"),
        "bzip2": (bz2.compress(TEXT), "bzip2", "bunzip2"),
        "zstd": (b"\x28\xb5\x2f\xfd\x04\x58" + bytes(20), "zstd", "zstd -d"),
        "sevenzip": (b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24), "7-Zip", "7z x"),
        "sqlite": (database(folder), "SQLite", "export"),
        "tar": (tarball(), "tar archive", "tar -xf"),
        "targz": (gzip.compress(tarball()), "tar archive", "tar -xf"),
        "twice": (gzip.compress(COMPRESSED), "gzip inside gzip", "gunzip"),
        "json": (b'["a.example", "b.example"]\n', "JSON", "one name per line"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS", "git lfs pull"),
    }


def test_a_binary_file_is_reported_with_its_kind(subject: Subject, tmp_path: Path):
    """ "5,000 malformed lines" does not help an operator who copied a zip archive over the list."""
    files = foreign(tmp_path)
    subject.configure(
        zones=[list_zone(kind, name=kind) for kind in files],
        lists={kind: content for kind, (content, _, _) in files.items()},
        inbox=None,
    )
    said = subject.cli("check")
    assert said.code == 1
    reasons = {Path(problem["file"]).name: problem["reason"] for problem in said.problems}
    assert reasons.keys() == files.keys()
    for kind, (_, what, advice) in files.items():
        assert reasons[kind].startswith("NOT_TEXT: "), (kind, reasons[kind])
        assert what in reasons[kind], (kind, reasons[kind])
        assert advice in reasons[kind], (kind, reasons[kind])


def test_a_binary_file_changes_nothing_that_is_enforced(subject: Subject, tmp_path: Path):
    """A wrong file in the list's place, by hand or by a script."""
    subject.start(zones=[list_zone(format="plain", every_s=DAY)], lists={"list.txt": TEXT}, inbox=None)
    files = foreign(tmp_path)
    for kind in ("zip", "utf16", "cr"):
        content, what, _ = files[kind]
        with Unchanged(subject, BASE[0]):
            subject.put_list("list.txt", content)
            said = subject.cli("reload")
            assert said.code == 4
            assert any(what in problem["reason"] for problem in said.problems)
            assert refused_by(subject) == ["NOT_TEXT"]
