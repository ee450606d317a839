"""A rejected list that the operator accepts (trap 18), and what holds afterwards."""

from .guarding import BASE, HTML, STRICT, reload_refused, start
from .harness import Subject
from .lists import (
    DAY,
    Unchanged,
    accept,
    enforced,
    events,
    list_zone,
    refused_by,
    sha256,
    source,
    text_of,
    versions,
    wait_enforced,
    wait_refused,
)
from .tools import me, wait_for


def test_a_rejected_list_is_accepted_by_its_digest_and_recorded(subject: Subject):
    """The operator names the digest of the content that was inspected, and a reason for the record."""
    start(subject, guards=STRICT)
    subject.put_list("list.txt", BASE[:20])
    reload_refused(subject)
    digest = source(subject)["rejected"]["sha256"]
    said = accept(subject, digest, reason="the ministry cleaned up")
    assert said.code == 0, said
    assert (said.json["entries"], said.json["serial"]) == (20, subject.ready["serial"] + 1)
    assert enforced(subject, BASE[0], BASE[30]) == [True, False]
    by_hand = [event for event in events(subject) if "hand" in event["kind"]]
    assert [(event["sha256"], event["message"]) for event in by_hand] == [
        (digest, f"by {me()}: the ministry cleaned up")
    ]
    assert versions(subject)[0]["sha256"] == digest
    assert refused_by(subject) == []
    subject.reload()
    subject.restart()
    assert enforced(subject, BASE[0], BASE[30]) == [True, False]


def test_a_rejected_first_version_is_accepted_by_its_digest(subject: Subject):
    """`missing: start`: the digest is shown, below however many lines that are wrong."""
    bad = [f"a..{number}.example" for number in range(30)]
    zone = list_zone(every_s=1, missing="start")
    subject.start(zones=[zone], lists={"list.txt": [*BASE[:20], *bad]}, inbox=None)
    digest = sha256(text_of([*BASE[:20], *bad]))
    shown = subject.cli("source list", as_json=False)
    assert (shown.code, f"dnsblock source accept listed {digest}" in shown.stdout) == (1, True)
    assert accept(subject, digest).code == 0
    assert enforced(subject, BASE[0]) == [True]


def test_the_list_after_an_accepted_empty_one_is_accepted_automatically(subject: Subject):
    """The operator may empty a list; the next text that names something is taken, and a restart works."""
    start(subject, guards=STRICT)
    subject.put_list("list.txt", "# nothing any more\n")
    reload_refused(subject)
    assert accept(subject, sha256("# nothing any more\n")).code == 0
    assert enforced(subject, BASE[0]) == [False]
    subject.restart()
    subject.put_list("list.txt", BASE)
    subject.reload()
    assert enforced(subject, BASE[0]) == [True]
    subject.restart()
    assert enforced(subject, BASE[0]) == [True]
    assert [one["entries"] for one in versions(subject)] == [200, 0, 200]


def test_an_acceptance_applies_to_this_content_options_and_guards_only(subject: Subject):
    """Accepting that a list shrank does not accept that it is read in another format and is empty."""
    zone = list_zone(guards=STRICT, every_s=DAY)
    subject.start(zones=[zone], lists={"list.txt": BASE}, inbox=None)
    subject.put_list("list.txt", BASE[:50])
    reload_refused(subject)
    assert accept(subject, sha256(text_of(BASE[:50]))).code == 0
    zone["source"]["format"] = "hosts"
    subject.configure(zones=[zone], inbox=None)
    with Unchanged(subject, BASE[0], BASE[60]):
        assert "EMPTY:" in reload_refused(subject)
        assert set(refused_by(subject)) == {"EMPTY", "TOO_MANY_REJECTED"}
    assert [one["how"] for one in versions(subject)] == ["accepted by hand", "first"]
    assert accept(subject, sha256(text_of(BASE[:50]))).code == 0, "it may be accepted as it is read now"
    assert enforced(subject, BASE[0]) == [False]


def test_a_wrong_digest_is_refused(subject: Subject):
    """A digest is of one text: a typing error or last week's digest accepts nothing."""
    start(subject, guards=STRICT)
    subject.put_list("list.txt", BASE[:20])
    reload_refused(subject)
    digest = sha256(text_of(BASE[:20]))
    with Unchanged(subject, *BASE[:50:7]):
        wrong = digest[:-1] + ("0" if digest[-1] != "0" else "1")
        for asked in (wrong, sha256(b""), digest[:12], "x" * 64, "sha256:" + "0" * 57):
            assert accept(subject, asked).code == 4, asked
        assert accept(subject, digest, zone="nosuch").code == 4
    assert accept(subject, digest).code == 0


def test_content_that_has_changed_meanwhile_is_not_accepted(subject: Subject):
    """Between the look and the command another text came: it was not looked at."""
    start(subject, guards=STRICT)
    subject.put_list("list.txt", BASE[:20])
    reload_refused(subject)
    digest = source(subject)["rejected"]["sha256"]
    subject.put_list("list.txt", BASE[:3])
    with Unchanged(subject, *BASE[:50:7]):
        assert accept(subject, digest).code == 4
    assert [event for event in events(subject) if "hand" in event["kind"]] == [], "nothing was accepted"
    subject.put_list("list.txt", BASE[:20])
    assert "SHRANK:" in reload_refused(subject), "what was refused once is not accepted behind one's back"


def test_the_next_list_is_compared_with_the_accepted_one(subject: Subject):
    """The list that was accepted by hand is the one that the next is compared with."""
    start(subject, guards=STRICT)
    subject.put_list("list.txt", BASE[:20])
    reload_refused(subject)
    assert accept(subject, sha256(text_of(BASE[:20]))).code == 0
    subject.put_list("list.txt", [*BASE[:20], "new.example"])
    assert subject.reload()["changed"] is True
    subject.put_list("list.txt", BASE)
    assert "GREW:" in reload_refused(subject)


def test_a_corrected_list_is_accepted_at_once(subject: Subject):
    """No guard is to be reset: the next good text is the list, and nothing is refused any more."""
    subject.start(zones=[list_zone(every_s=1)], lists={"list.txt": BASE}, inbox=None)
    subject.put_list("list.txt", HTML)
    wait_refused(subject)
    subject.put_list("list.txt", [*BASE, "new.example"])
    wait_enforced(subject, "new.example")
    wait_for(lambda: subject.metrics().total("dnsblock_source_rejected") == 0, "nothing is refused any more")
    assert refused_by(subject) == []


def test_a_reload_reports_a_list_that_watching_has_already_rejected(subject: Subject):
    """Between the new file and the reload the watching may have come: the exit code does not depend on it."""
    subject.start(zones=[list_zone(every_s=1)], lists={"list.txt": BASE}, inbox=None)
    subject.put_list("list.txt", HTML)
    wait_refused(subject)
    assert "HTML:" in reload_refused(subject)


def test_skipped_addresses_and_names_do_not_count_as_invalid_lines(subject: Subject):
    """A feed with addresses among its names is a good list: they count as rejected, and refuse nothing."""
    odd = [f"192.0.2.{number}" for number in range(50)] + ["co.id", "web.id"]
    start(subject, lines=[*BASE, *odd])
    report = source(subject)["report"]
    assert (report["accepted"], report["rejected"]) == (len(BASE), len(odd))
    assert report["rejected_by"]["address"] == 50


def test_repeated_rejections_of_one_content_are_one_event(subject: Subject):
    """The record of a night is read by one person: the same text refused again is the same event."""
    subject.start(zones=[list_zone(every_s=DAY)], lists={"list.txt": BASE}, inbox=None)
    for _ in range(3):
        subject.put_list("list.txt", HTML)
        subject.cli("reload")
    assert [event["code"] for event in events(subject) if event["kind"] == "rejected"].count("HTML") == 1
