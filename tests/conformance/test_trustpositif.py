"""The Indonesian case: the ministry's zone by zone transfer, in dnsblock and in BIND with the same answers.

docs/zone-transfer.md shows the configurations, and these tests use them from there.
"""

import ipaddress
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from ports import free_port

from . import trustpositif, wire
from .comparing import Answer, Question, assert_same, questions
from .harness import Subject
from .lists import source
from .primaries import Key
from .test_walkthrough import squeezed
from .tools import wait_for
from .transfers import put_secret, start, transfers, wait_serial
from .trustpositif import (
    SHOWN,
    TARGET,
    TARGET_ADDRESSES,
    ZONE,
    Ministry,
    Provider,
    blocks,
    listed_names,
    records,
)
from .upstreams import TELEGRAM, StubUpstream

PAIRS = 3000
FORWARDED = {1: bytes([198, 51, 100, 7]), 28: ipaddress.ip_address("2001:db8:7::7").packed}
COUNT = re.compile(r"\b\d{1,3}(,\d{3})+\b")


@contextmanager
def ministry(folder: Path, names: list[str], *secondaries: int) -> Iterator[Ministry]:
    with Ministry(folder) as primary:
        yield primary.start(records(names), secondaries=[("127.0.0.1", port) for port in secondaries])


def test_the_answers_are_those_of_bind_before_and_after_an_unblock(
    subject: Subject, upstream: StubUpstream, tmp_path: Path
):
    """Each listed name, one below it, and free names; then 11 names are removed by IXFR (trap 19)."""
    upstream.script = trustpositif.addresses
    listed = listed_names(PAIRS)
    free = trustpositif.free_names(listed)
    names = [*listed, *(f"below.{name}" for name in listed), *free]
    asked = questions(names, "A", "AAAA")
    ours, theirs = free_port(), free_port()
    with ExitStack() as running:
        primary = running.enter_context(ministry(tmp_path, listed, ours, theirs))
        bind = running.enter_context(closing(Provider(tmp_path / "provider", primary.port)))
        bind.start_at(theirs, upstream.address)
        zone = trustpositif.zone_of_dnsblock(primary.address)
        start(subject, upstream, zone, port=ours, cache={"size_mb": 64})
        assert_same(questions(names[::10], "HTTPS", "TXT", "CNAME"), bind, subject)
        before = assert_same(asked, bind, subject)
        assert blocked(before) == set(names) - set(free)
        remaining = [name for name in listed if name not in TELEGRAM]
        primary.replace(records(remaining))
        wait_serial(subject, 2, ZONE)
        bind.wait_enforced(2)
        after = assert_same(asked, bind, subject)
        opened = {name for name in names for telegram in TELEGRAM if name in (telegram, f"below.{telegram}")}
        assert blocked(before) - blocked(after) == opened
        assert {one for one in asked if before[one] != after[one]} == set(questions(opened, "A", "AAAA"))
        subject.wait_for_metric("dnsblock_transfers_total", zone=ZONE, kind="ixfr")
        assert (transfers(subject, "axfr", ZONE), transfers(subject, "ixfr", ZONE)) == (1, 1)
        assert "AXFR-style IXFR" not in primary.log()


def blocked(answers: dict[Question, Answer]) -> set[str]:
    """The names that lead to the ministry's page, with the address of that page. All others are forwarded."""
    found = set()
    for (name, qtype), answer in answers.items():
        number = wire.qtype_number(qtype)
        page = ipaddress.ip_address(TARGET_ADDRESSES[number]).packed
        alias = (f"{name}.", wire.QTYPES["CNAME"], wire.name_to_wire(TARGET))
        if answer == ("NOERROR", False, (*sorted([alias, (f"{TARGET}.", number, page)]),)):
            found.add(name)
        else:
            assert name == TARGET or answer == ("NOERROR", False, ((f"{name}.", number, FORWARDED[number]),))
    return found


def test_the_example_of_the_page_shows_what_is_printed(
    subject: Subject, upstream: StubUpstream, tmp_path: Path
):
    """`source list`, the history of an unblocked name, and the warning about the missing key."""
    _, _, listing, history, warning = blocks("text")
    port = free_port()
    with ministry(tmp_path, listed_names(2000), port) as primary:

        def prints(shown: str, *command: str) -> None:
            said = subject.cli(*command, as_json=False)
            assert said.code == 0, said
            place = f"{SHOWN['primary']}:53"
            assert plain(said.stdout.replace(primary.address, place)) == plain(shown)

        start(subject, upstream, trustpositif.zone_of_dnsblock(primary.address), port=port)
        prints(listing, "source list")
        assert warning.strip() in subject.stderr()
        primary.replace(records([name for name in listed_names(2000) if name not in TELEGRAM]))
        wait_for(lambda: source(subject, ZONE)["version"] == 2, "the new version is recorded")
        prints(history, "history", "t.me")


def plain(text: str) -> list[str]:
    """The lines without the times and numbers of one run."""
    return [COUNT.sub("N", line) for line in squeezed(text)]


ANYWHERE = re.findall(r"^```yaml\n(.*?)^```$", trustpositif.PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("shown", ANYWHERE)
def test_each_configuration_of_the_page_is_accepted(subject: Subject, shown: str):
    """`dnsblock check`, with the file of the key beside it."""
    assert len(ANYWHERE) == 2
    put_secret(subject, Key("transfer"))
    subject.config_path.write_text(shown)
    said = subject.cli("check", as_json=False)
    assert said.code == 0, said
