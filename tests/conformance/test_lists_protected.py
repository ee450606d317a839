"""Names that no list may block (trap 18): public suffixes and `protected` names."""

import pytest

from .guarding import BASE, start
from .harness import ORDERS_ZONE, Subject
from .lists import (
    DAY,
    break_list,
    enforced,
    findings,
    is_logged,
    list_zone,
    reports,
    roll_back,
    versions,
    wait_stored,
)
from .orders import block


def test_public_suffixes_and_protected_names_are_skipped_and_reported(subject: Subject):
    """One entry `co.id`, or a bank's own name, would block thousands; the other entries are enforced."""
    lists = {"list.txt": [*BASE, "co.id", "bank.example", "www.clinic.example", "id"]}
    config = {
        "zones": [list_zone(every_s=DAY)],
        "protected": ["bank.example", "clinic.example"],
        "inbox": None,
    }
    subject.configure(lists=lists, **config)
    report = reports(subject.cli("check"))["listed"]
    left_out = {value for _, _, value, _ in findings(report, "left out")}
    assert {"co.id", "bank.example"} <= left_out
    reasons = {one["value"]: one["reason"] for one in report["reported"]}
    assert "PUBLIC_SUFFIX" in reasons["co.id"]
    assert "PROTECTED" in reasons["bank.example"]
    subject.launch()
    assert enforced(subject, "bank.example", "www.bank.example", "a.co.id", "a.id", BASE[7]) == [
        False
    ] * 4 + [True]
    assert is_logged(subject, "listed", "co.id", "PUBLIC_SUFFIX", levels=["warning"])
    counted = {"public_suffix": 1, "protected": 2}
    for reason, count in counted.items():  # what the alert goes by
        metrics = subject.metrics()
        assert metrics.total("dnsblock_source_rejected_lines", zone="listed", reason=reason) == count
    assert is_logged(subject, "listed", "bank.example", "PROTECTED", levels=["warning"])


def test_the_total_of_skipped_lines_is_reported(subject: Subject):
    """A hundred lines are enough for a log, but not to know that there were more."""
    start(
        subject,
        lines=[*BASE, *(f"n{number}.bank.example" for number in range(150))],
        protected=["bank.example"],
    )
    assert is_logged(subject, "listed", "n99.bank.example", levels=["warning"])
    assert is_logged(subject, "listed", "and 50 more lines", levels=["warning"])


def test_an_exact_entry_above_a_protected_name_is_accepted(subject: Subject):
    """It blocks nothing of what is protected."""
    subject.start(
        zones=[list_zone(match="exact", every_s=DAY)],
        protected=["login.bank.example"],
        lists={"list.txt": ["bank.example"]},
        inbox=None,
    )
    assert enforced(subject, "bank.example", "login.bank.example") == [True, False]


def test_a_subtree_entry_above_a_protected_name_is_skipped(subject: Subject):
    """A subtree entry blocks all that is below it, and so the protected name there."""
    subject.start(
        zones=[list_zone(every_s=DAY)],
        protected=["login.bank.example"],
        lists={"list.txt": ["bank.example", "other.example"]},
        inbox=None,
    )
    assert enforced(subject, "login.bank.example", "other.example") == [False, True]
    assert is_logged(subject, "PROTECTED", "bank.example", levels=["warning"])


def test_an_order_that_is_in_force_still_blocks_a_name_that_becomes_protected(subject: Subject):
    """Only an order lifts an order: the guard of orders judges when one arrives."""
    config = {"zones": [list_zone(every_s=DAY), ORDERS_ZONE], "lists": {"list.txt": BASE}}
    subject.start(orders=[block("B-1", ["bank.example"])], **config)
    subject.configure(protected=["bank.example"], **config)
    subject.reload()
    assert enforced(subject, "bank.example") == [True]


def test_a_name_that_becomes_protected_is_unblocked_by_a_reload(subject: Subject):
    """A feed blocks the provider's own name at night: one line and a reload end it."""
    config = {
        "zones": [list_zone(every_s=DAY)],
        "lists": {"list.txt": ["bank.example", *BASE]},
        "inbox": None,
    }
    subject.start(**config)
    assert enforced(subject, "bank.example", BASE[0]) == [True, True]
    subject.configure(protected=["bank.example"], **config)
    subject.reload()
    assert enforced(subject, "bank.example", BASE[0]) == [False, True]
    subject.configure(**config)
    subject.reload()
    assert enforced(subject, "bank.example", BASE[0]) == [True, True]


@pytest.mark.parametrize("how", ["gone", "a page"])
def test_a_name_that_becomes_protected_is_unblocked_while_the_list_is_broken(subject: Subject, how: str):
    """The feed is an error page and a bank is on the list: the previous version applies without it."""
    config = {
        "zones": [list_zone(every_s=DAY)],
        "lists": {"list.txt": ["bank.example", *BASE]},
        "inbox": None,
    }
    subject.start(**config)
    wait_stored(subject)
    break_list(subject, how)
    assert subject.cli("reload").code == 4
    assert enforced(subject, "bank.example", BASE[0]) == [True, True]
    subject.configure(protected=["bank.example"], zones=config["zones"], inbox=None)
    assert subject.cli("reload").code == 4, "the text of now is refused as before"
    assert enforced(subject, "bank.example", BASE[0]) == [False, True]
    assert versions(subject)[0]["how"] == "settings"
    subject.restart()
    assert enforced(subject, "bank.example", BASE[0]) == [False, True]
    subject.put_list("list.txt", ["bank.example", *BASE, "new.example"])
    subject.reload()
    assert enforced(subject, "bank.example", "new.example") == [False, True]


def test_a_rollback_skips_names_that_are_protected_today(subject: Subject):
    """A name that is protected now is part of no list, however old."""
    zones = [list_zone(every_s=DAY)]
    subject.start(zones=zones, lists={"list.txt": ["bank.example", *BASE]}, inbox=None)
    wait_stored(subject)
    subject.configure(protected=["bank.example"], zones=zones, inbox=None)
    subject.reload()
    subject.put_list("list.txt", [*BASE, "new.example"])
    subject.reload()
    assert roll_back(subject, 1).code == 0
    for again in (lambda: None, subject.reload, subject.restart):
        again()
        assert enforced(subject, "bank.example", BASE[0], "new.example") == [False, True, False]


def test_a_public_suffix_is_enforced_if_its_source_accepts_it(subject: Subject):
    """An operator who means a whole suffix configures it for this source."""
    start(subject, guards={"public_suffix": "accept"}, lines=["co.id", "a.example"])
    assert enforced(subject, "any.co.id", "a.example") == [True, True]
