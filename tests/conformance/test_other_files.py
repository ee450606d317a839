"""Other files that options name: an invalid one affects only itself and delays no order."""

from pathlib import Path

import pytest

from .asking import is_forwarded, is_sinkholed
from .harness import ORDERS_ZONE, Subject
from .lists import NO_PROXY, Feed, is_logged, list_zone, refresh, source, text_of
from .orders import block, unblock
from .test_cookies import NEW, OLD, good, is_known, put_secrets
from .test_cookies import STRICT as LIMITS
from .test_cookies import start as start_with_secrets
from .tools import wait_for
from .upstreams import StubUpstream

NAME = "ordered.example"


def start(subject: Subject, upstream: StubUpstream, **config: object) -> None:
    subject.start(orders=[block("B-1", [NAME])], upstreams=[upstream.address], **config)
    assert is_sinkholed(subject.query(NAME))


def assert_unblocked_all_the_same(subject: Subject, *named: str) -> None:
    """A reload with an unblock order and an invalid file, which is reported: the unblock is in force."""
    subject.put_order(unblock("U-1", "B-1", [NAME]))
    said = subject.cli("reload")
    assert said.code == 4, said
    problems = [f"{one['file']}: {one['reason']}" for one in said.problems]
    assert all(any(word in problem for problem in problems) for word in named), problems
    assert is_forwarded(subject.query(NAME))


def gone(path: Path) -> None:
    path.unlink()


def bad_line(path: Path) -> None:
    path.write_text(f"{NEW}\nnot-hex\n")


def for_all_to_read(path: Path) -> None:
    path.write_text(f"{NEW}\n")
    path.chmod(0o644)


@pytest.mark.parametrize("damage", [gone, bad_line, for_all_to_read])
def test_an_invalid_file_of_secrets_keeps_the_previous_ones_and_delays_no_order(subject: Subject, damage):
    """RFC 9018 section 5: a roll-over that goes wrong must cost neither clients nor orders."""
    blocked = "blocked.example"
    start_with_secrets(subject, OLD, limits=LIMITS)
    damage(subject.folder / "secrets.txt")
    subject.put_order(block("B-2", [NAME]))
    said = subject.cli("reload")
    assert said.code == 4
    assert [Path(one["file"]).name for one in said.problems] == ["secrets.txt"]
    assert OLD not in f"{said.stdout}{said.stderr}"
    assert not is_forwarded(subject.query(NAME)), "the order of the same reload is in force"
    assert subject.query(blocked, edns=None) is not None
    assert [is_known(subject, good(one)) for one in (OLD, NEW)] == [True, False]
    assert is_logged(subject, "the previous secrets stay in force")
    put_secrets(subject, NEW)
    subject.reload()
    assert [is_known(subject, good(one)) for one in (OLD, NEW)] == [False, True]


@pytest.mark.parametrize("text", ["workers: many\n", "listen: [\n", None], ids=["option", "syntax", "gone"])
def test_an_invalid_configuration_file_delays_no_order(
    subject: Subject, upstream: StubUpstream, text: str | None
):
    """Orders use the configuration in force until the file is fixed."""
    start(subject, upstream)
    path = subject.config_path
    good_text = path.read_text()
    path.unlink() if text is None else path.write_text(text)
    subject.put_order(unblock("U-1", "B-1", [NAME]))
    subject.hup()
    subject.wait_for_metric("dnsblock_snapshot_serial", subject.ready["serial"] + 1)
    assert is_forwarded(subject.query(NAME))
    path.write_text(good_text)
    assert subject.cli("reload").code == 0


@pytest.mark.parametrize("option", ["ca", "authorization"])
def test_an_unreadable_file_of_a_feed_affects_only_that_feed(
    subject: Subject, upstream: StubUpstream, authority, web, option: str
):
    """It is read for each fetch: what is put right is used by the next one."""
    feed = Feed(web, text_of(["listed.example"]))
    other = Feed(web, text_of(["other.example"]), target="/other.txt")
    subject.environment.update(NO_PROXY)
    path = subject.folder / "needed.txt"
    needed = feed.zone(authority.pem, missing="start")
    needed["source"][option] = str(path)
    zones = [
        ORDERS_ZONE,
        needed,
        {**other.zone(authority.pem), "name": "other"},
        list_zone("own.txt", name="own"),
    ]
    start(subject, upstream, zones=zones, lists={"own.txt": ["own.example"]})
    assert is_sinkholed(subject.query("other.example"))
    assert is_sinkholed(subject.query("own.example"))
    assert is_forwarded(subject.query("listed.example"))
    wait_for(lambda: source(subject)["fetch_error"], "the feed was tried")
    assert "UNREADABLE" in source(subject)["fetch_error"]
    assert str(path) in source(subject)["fetch_error"]
    subject.put_order(unblock("U-1", "B-1", [NAME]))
    subject.cli("reload")
    assert is_forwarded(subject.query(NAME)), "no order waits for a feed"
    path.write_bytes(Path(authority.pem).read_bytes() if option == "ca" else b"Bearer token\n")
    assert refresh(subject).code == 0
    assert is_sinkholed(subject.query("listed.example"))


def test_an_invalid_file_of_entries_affects_only_its_order(subject: Subject, upstream: StubUpstream):
    """An order whose entries are not those that it promises is refused; an unblock beside it is in force."""
    start(subject, upstream)
    (subject.orders_folder / "many.txt").write_text("subtree other.example\nsubtree a..b\n")
    subject.put_order(
        {
            **{key: value for key, value in block("B-2", []).items() if key != "entries"},
            "entries_file": {"path": "many.txt", "sha256": "0" * 64, "lines": 2},
        }
    )
    assert_unblocked_all_the_same(subject, "many.txt")
