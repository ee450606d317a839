"""Names that stay blocked after a lifting (dnsblock/policy/lifting.py), against a naive model."""

import itertools
import random
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import pytest

from dnsblock._engine import Answer, PolicyZone, Rule, Snapshot
from dnsblock.config import Config
from dnsblock.config_file import load
from dnsblock.names import above
from dnsblock.orders.orders import EMPTY, Orders
from dnsblock.orders.state import derive
from dnsblock.policy.lifting import Lifting, any_below, lifting_of
from dnsblock.policy.snapshot import Policy, policy_at
from dnsblock.policy.zones import Answers, ListZone

from .helpers import AUGUST_10, block, exempt, orders, unblock

TELEGRAM = (
    "t.me", "telegram.me", "telegram.org", "core.telegram.org", "desktop.telegram.org",
    "macos.telegram.org", "web.telegram.org", "venus.web.telegram.org", "pluto.web.telegram.org",
    "flora.web.telegram.org", "flora-1.web.telegram.org",
)  # fmt: skip
NOW = datetime.fromisoformat(AUGUST_10)
CONFIG = """
upstream: {servers: ["127.0.0.1:1"]}
answers: {sinkhole: {action: sinkhole, ipv4: [192.0.2.53], ttl: 300}, short: {action: nxdomain, ttl: 7}}
zones:
  - {name: ministry, issuer: a, unsigned: accept, answer: sinkhole}
  - {name: court, issuer: x, unsigned: accept, answer: refused}
  - {name: malware, list: malware.txt, answer: nodata}
"""
Entry = tuple[str, str]  # name and match


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("lifting") / "dnsblock.yaml"
    path.write_text(CONFIG)
    return load(path)


def policy(
    config: Config, known: Orders, listed: Sequence[Entry] = (), before: Policy | None = None
) -> Policy:
    """The policy with these orders and a list; compiled from `before` if there is one."""
    rule = Rule(Answer("nodata", ttl=30))
    lines = "".join(f"{match} 0 {name}\n" for name, match in listed).encode()
    answers = Answers("list", config.answer("nodata"), None, None)
    zone = ListZone(PolicyZone.from_entries("malware", [rule], lines), None, answers)
    empty = Policy(Snapshot([], 1), (), derive(EMPTY, NOW), NOW, lists={"malware": zone})
    return policy_at(before or empty, known, NOW, config)


def lifted(config: Config, known: Orders, by: str, now: Policy) -> Lifting:
    (order,) = orders(by)
    found = lifting_of(known.by_digest[order.sha256], known.of(order.issuer), now, config, NOW)
    assert found is not None
    return found


def covers(entry: Entry, name: str) -> bool:
    own, match = entry
    return (match != "below" and own == name) or (match != "exact" and own in above(name))


def is_blocked(name: str, entries: Iterable[Entry]) -> bool:
    """The naive model: without exemptions, any entry that covers a name blocks it."""
    return any(covers(entry, name) for entry in entries)


def decided(name: str, now: Policy) -> bool:
    return any(entry.decides and entry.action is not None for entry in now.snapshot.covering(name))


def written(entries: Iterable[Entry]) -> list[str]:
    return [f"{{name: {name}, match: {match}}}" for name, match in entries]


def expected(
    opened: Iterable[Entry], ordered: Sequence[Entry], listed: Sequence[Entry] = ()
) -> dict[Entry, set[str]]:
    """The parts of each opened entry that stay blocked. Lists are not searched for names below."""
    left = [*ordered, *listed]
    found: dict[Entry, set[str]] = {}
    for name, match in opened:
        own = match != "below" and is_blocked(name, left)
        below = match != "exact" and is_blocked(any_below(name), left)
        some = match != "exact" and any(name in above(entry) for entry, _ in ordered)
        parts: set[str] = set()
        if (own or match == "below") and (below or match == "exact"):
            parts = {"all"}
        else:
            parts |= {"name"} if own else set()
            parts |= {"below"} if below else {"some below"} if some else set()
        if parts:
            found[name, match] = parts
    return found


PROBED = sorted({one for name in TELEGRAM for one in (name, f"deep.er.{name}", *above(name))})


@pytest.mark.parametrize("match", ["exact", "subtree", "below", "mixed"])
def test_every_partial_unblock_of_the_telegram_names_opens_exactly_these(config: Config, match: str):
    """August 2017: five of eleven names stayed blocked. All 2048 subsets, by the engine and by the report."""
    matches = itertools.cycle(["exact", "subtree", "below"]) if match == "mixed" else itertools.repeat(match)
    entries = list(zip(TELEGRAM, matches))  # noqa: B905  # endless
    first = block("b", *written(entries))
    before: Policy | None = None
    for chosen in range(1, 1 << len(entries)):
        opened = [entry for place, entry in enumerate(entries) if chosen >> place & 1]
        left = [entry for entry in entries if entry not in opened]
        by = unblock("u", "b", *written(opened), issued_at=AUGUST_10)
        known = Orders().plus(orders(first, by))
        # Every second time compiled from the former state, as in a daemon; else from nothing, as at startup.
        before = now = policy(config, known, before=before if chosen % 2 else None)
        for name in PROBED:
            assert decided(name, now) == is_blocked(name, left), (name, opened)
        if chosen % 4 == 1 or len(opened) in (1, 10, 11):
            found = lifted(config, known, by, now)
            parts: dict[Entry, set[str]] = {}
            for one in found["still_blocked"]:
                parts.setdefault((one["name"], one["match"]), set()).add(one["part"])
                assert {blocker["issuer"] for blocker in one["by"]} == {"a"}
                assert all((blocker["entry"], blocker["match"]) in left for blocker in one["by"])
            assert parts == expected(opened, left), opened
            assert (found["open"], found["checked"]) == (len(opened) - len(parts), len(opened))


def test_random_liftings_agree_with_the_model(config: Config):
    """Several orders of two issuers and a list, with names that cover each other."""
    rng = random.Random(20170810)
    names = ["a.example", "b.a.example", "c.b.a.example", "b.example", "x.b.example"]
    possible = [(name, match) for name in names for match in ("exact", "subtree", "below")]
    for _ in range(400):
        own, second, foreign, listed = (rng.sample(possible, rng.randint(1, 4)) for _ in range(4))
        opened = rng.sample(own, rng.randint(1, len(own)))
        documents = [
            block("b", *written(own)),
            block("c", *written(second)),
            block("f", *written(foreign), issuer="x"),
            by := unblock("u", "b", *written(opened), issued_at=AUGUST_10),
        ]
        known = Orders().plus(orders(*documents))
        now = policy(config, known, listed)
        left = [*(entry for entry in own if entry not in opened), *second, *foreign]
        found = lifted(config, known, by, now)
        parts: dict[Entry, set[str]] = {}
        for one in found["still_blocked"]:
            parts.setdefault((one["name"], one["match"]), set()).add(one["part"])
        assert parts == expected(opened, left, listed), (documents, listed)


def test_all_who_block_a_name_are_reported_the_deciding_one_first(config: Config):
    """All of them must lift it: issuers one by one, and the list."""
    by = unblock("u", "b", "t.me", issued_at=AUGUST_10)
    known = Orders().plus(
        orders(
            block("b", "t.me", "web.t.me"),
            block("c-1", "{name: t.me, match: exact}", issuer="x"),
            block("c-2", "t.me", issuer="x"),
            by,
        )
    )
    found = lifted(config, known, by, policy(config, known, [("t.me", "subtree")]))
    (one,) = found["still_blocked"]
    assert (one["name"], one["part"], found["open"]) == ("t.me", "all", 0)
    assert [(who["kind"], who["issuer"], who["orders"]) for who in one["by"]] == [
        ("order", "x", ["c-1", "c-2"]),
        ("list", None, []),
        ("order", "x", ["c-2"]),
    ]
    assert one["text"].startswith(
        "t.me by order c-1, c-2 of x, entry t.me (exact); list malware, entry t.me ("
    )


def test_a_client_does_not_learn_whose_order_or_list_it_is(config: Config):
    """Each issuer sees only its own data, also in what stays blocked."""
    by = unblock("u", "b", "t.me", issued_at=AUGUST_10)
    known = Orders().plus(orders(block("b", "t.me"), block("secret", "t.me", issuer="x"), by))
    now = policy(config, known, [("t.me", "exact")])
    order = known.by_digest[orders(by)[0].sha256]
    found = lifting_of(order, known.of("a"), now, config, NOW, sees=frozenset({"a"}))
    assert found is not None
    assert "secret" not in str(found)
    assert "malware" not in str(found)
    (one,) = found["still_blocked"]
    assert one["text"] == "t.me by an order of another issuer; a list of the provider"


def test_an_exemption_opens_a_name_although_its_parent_is_blocked(config: Config):
    """The names that an exemption does not open are reported, too."""
    by = exempt("e", "help.t.me", "gone.t.me", issued_at=AUGUST_10)
    known = Orders().plus(orders(block("b", "t.me", "deep.help.t.me"), by))
    found = lifted(config, known, by, policy(config, known, [("gone.t.me", "subtree")]))
    assert [one["text"] for one in found["still_blocked"]] == [
        "names below help.t.me by order b of a, entry deep.help.t.me (subtree)",
        "gone.t.me by list malware, entry gone.t.me (subtree)",
    ]


@pytest.mark.parametrize(("answer", "seconds"), [("", 300), (", answer: short", 7), (", answer: refused", 0)])
def test_caches_hold_the_blocked_answer_for_the_ttl_of_its_profile(config: Config, answer: str, seconds: int):
    """An officer must know when to look: before that, a name may look blocked although it is open."""
    by = unblock("u", "b", issued_at=AUGUST_10)
    known = Orders().plus(orders(block("b", f"{{name: t.me{answer}}}"), by))
    found = lifted(config, known, by, policy(config, known))
    assert (datetime.fromisoformat(found["caches_until"]) - NOW).total_seconds() == seconds


def test_very_many_opened_entries_are_checked_up_to_a_limit(config: Config):
    """And the report says how many."""
    names = [f"n{number}.example" for number in range(1500)]
    by = unblock("u", "b", issued_at=AUGUST_10)
    known = Orders().plus(orders(block("b", *names), block("c", *names), by))
    found = lifted(config, known, by, policy(config, known))
    assert (found["entries"], found["checked"], found["open"]) == (1500, 1000, 0)
    assert (len(found["still_blocked"]), found["still_blocked_total"]) == (100, 1000)


def test_the_longest_names_have_nothing_below_them(config: Config, tmp_path: Path):
    """RFC 1035 section 2.3.4: 253 characters in text form."""
    longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    by = unblock("u", "b", issued_at=AUGUST_10)
    known = Orders().plus(orders(block("b", longest), by))
    assert lifted(config, known, by, policy(config, known))["open"] == 1
