"""Commands print the next step, and report that there is nothing to show."""

import re

from .harness import Subject
from .orders import as_yaml, block
from .upstreams import StubUpstream


def test_held_entries_are_shown_with_the_commands_that_decide_about_them(
    subject: Subject, upstream: StubUpstream
):
    """An operator who submits an order need not search the manual while its names are not blocked."""
    subject.start(upstreams=[upstream.address])
    document = subject.folder / "84-2017.yaml"
    document.write_text(as_yaml(block("84/2017", ["t.me", "fraud.example"])))
    commands = [
        "dnsblock order approve 84/2017 --entry NAME --reason '…'",
        "dnsblock order refuse 84/2017 --entry NAME --reason '…'",
    ]
    for command in (("order submit", str(document)), ("order show", "84/2017")):
        said = subject.cli(*command, as_json=False)
        assert [line.strip() for line in said.stderr.splitlines()][-2:] == commands, said
    assert subject.cli("order refuse", "84/2017", "--reason", "another name").code == 0
    assert subject.cli("order show", "84/2017", as_json=False).stderr == ""


def test_commands_with_nothing_to_show_report_it(subject: Subject, upstream: StubUpstream):
    """An empty output would look like a command that failed."""
    subject.start(upstreams=[upstream.address])
    for command, code, message in [
        (("diff", "1", "1"), 1, "no differences between serial 1 and serial 1"),
        (("allow",), 1, "no exceptions are in force"),
        (("webhook resend", "--all"), 0, "no dead letters: nothing is sent"),
    ]:
        said = subject.cli(*command, as_json=False)
        assert (said.code, said.stdout, said.stderr.strip()) == (code, "", message), said


def test_one_name_is_not_counted_as_names(subject: Subject, upstream: StubUpstream):
    """A text with "1 names" looks as if nobody had read it."""
    subject.start(orders=[block("1", ["fraud.example"])], upstreams=[upstream.address])
    names = subject.folder / "names.txt"
    names.write_text("other.example\n")
    for command in (
        ("status",),
        ("impact", "--seconds", "1", str(names)),
        ("export", "text"),
        ("log verify",),
    ):
        said = subject.cli(*command, as_json=False)
        assert said.code == 0, said
        assert not re.search(r"\b1 (names|entries|records|orders)\b", said.stdout + said.stderr), said
