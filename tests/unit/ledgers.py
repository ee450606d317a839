"""Random ledgers for hypothesis, and a naive model of the orders in force by them.

The records are those that an intake could have written: an order_id is used again only after an annulment,
and targets that do not exist are ignored.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from dnsblock.orders.entry import Entry
from dnsblock.orders.facts import (
    Activated,
    Annulment,
    Approval,
    EntriesRefused,
    Expired,
    Judged,
    Lifted,
    Verified,
)
from dnsblock.orders.order import BLOCKS, ENDS, LIFTS, Order, Target, TargetEntry
from dnsblock.orders.orders import EMPTY, Orders, fold
from dnsblock.orders.records import Fact, Record
from dnsblock.orders.schema import Action, Match, Statement
from dnsblock.orders.verdict import OPERATOR, EntryVerdict, Judgement, Release, Signed
from dnsblock.principal import Principal

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LAST = 30  # hours: after the last event of any of these ledgers
NAMES = ("a.example", "b.example")
ALICE = Principal("local", 1000, "alice")
MAY_END = {
    "unblock": {"block", "supersede"},
    "revoke": {"block", "supersede", "exempt", "notice"},
    "supersede": {"block", "supersede"},
}
MATCHES: list[Match] = ["subtree", "subtree", "exact", "below"]
ENTRIES = st.lists(
    st.builds(Entry, st.sampled_from(NAMES), st.sampled_from(MATCHES)),
    min_size=1,
    max_size=3,
    unique=True,
).map(tuple)
WANTED = st.none() | st.lists(
    st.builds(TargetEntry, st.sampled_from(NAMES), st.none() | st.sampled_from(MATCHES)),
    min_size=1,
    max_size=2,
    unique=True,
).map(tuple)
# Few kinds of orders in one ledger, so that these affect each other.
ACTIONS: list[list[Action]] = [
    ["block", "unblock"],
    ["block", "supersede"],
    ["block", "block", "supersede", "unblock"],
    ["exempt", "revoke", "block"],
    ["notice", "block", "revoke"],
    ["block", "unblock", "exempt", "revoke", "supersede", "notice", "snapshot"],
]


@dataclass(frozen=True, slots=True)
class Kind:
    """The kinds of events in a ledger."""

    actions: Sequence[Action]
    is_numbered: bool
    has_guards: bool
    has_flaggers: bool
    later: Sequence[str]  # what happens to accepted orders


KINDS = st.builds(
    Kind,
    st.sampled_from(ACTIONS),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(
        [
            ["sign"],
            ["annul"],
            ["approve"],
            ["refuse", "sign"],
            ["annul", "approve", "refuse", "sign", "event"],
        ]
    ),
)


def hour(number: float) -> datetime:
    return BEGIN + timedelta(hours=number)


@st.composite
def ledgers(draw: st.DrawFn, issuers: Sequence[str] = ("a",), most: int = 9) -> list[Record]:
    """The records of a ledger, hours apart or at the same time."""
    records: list[Record] = []
    orders = EMPTY
    now = 0
    kinds = {issuer: draw(KINDS) for issuer in issuers}
    for place in range(draw(st.integers(1, most))):
        now += draw(st.integers(0, 2))
        issuer = draw(st.sampled_from(issuers))
        facts = draw(_facts(place, issuer, orders, kinds[issuer]))
        new = [Record(len(records) + n, hour(now), ALICE, fact) for n, fact in enumerate(facts, 1)]
        records += new
        orders = fold(new, orders)
    return records


@st.composite
def _facts(draw: st.DrawFn, place: int, issuer: str, orders: Orders, kind: Kind) -> list[Fact]:
    own = [order for order in orders.of(issuer).orders if order.annulled is None]
    what = draw(st.sampled_from(["order", "order", *kind.later] if own else ["order"]))
    if what == "order":
        order = draw(_orders(place, issuer, orders, kind))
        judgement = draw(_judgements(order, orders, kind))
        return [order, Judged(issuer, order.order_id, order.sha256, judgement)]
    order = draw(st.sampled_from(own))
    facts = (issuer, order.order_id)
    match what:
        case "annul":
            return [Annulment(*facts, "wrong")]
        case "approve":
            held = sorted({one.index for one in order.judgement.held})
            standing = orders.of(issuer).lives[order.sha256].standing
            is_held = standing is not None and standing.state == "held"
            if order.judgement.is_proposed or not (held or is_held):
                return []
            indexes = st.lists(st.sampled_from(held), min_size=1, unique=True) if held else st.none()
            some = draw(st.none() | indexes)
            return [Approval(*facts, None if some is None else tuple(sorted(some)), "checked")]
        case "refuse":
            held = sorted({one.index for one in order.judgement.held})
            if not held:
                return []
            some = draw(st.lists(st.sampled_from(held), min_size=1, unique=True))
            return [EntriesRefused.of(*facts, some, "not meant")]
        case "sign":
            before = order.judgement
            # A record that does not repeat the operator's refusals takes none of them back.
            stays = {
                one.index for one in before.verdicts if one.verdict == "refused" and one.code != OPERATOR
            }
            left = tuple(one for one in before.verdicts if one.index in stays or draw(st.booleans()))
            is_proposed = before.is_proposed and draw(st.booleans())
            signers = (*before.signers, Signed(f"officer-{place}", f"SHA256:{place}", "ssh-ed25519"))
            judgement = Judgement(signers, is_proposed=is_proposed, ignored=before.ignored)
            return [Judged(*facts, order.sha256, judgement.with_verdicts(left))]
    event = draw(st.sampled_from([Activated, Lifted, Expired, Verified]))
    return [Verified(*facts, ("192.0.2.1:53",)) if event is Verified else event(*facts, 1, 7)]


@st.composite
def _orders(draw: st.DrawFn, place: int, issuer: str, orders: Orders, kind: Kind) -> Order:
    own = orders.of(issuer)
    free = [one for one in "uvwxyz123456789" if own.order(one) is None]
    action = draw(st.sampled_from(kind.actions))
    is_lifting = action in LIFTS
    has_seq = kind.is_numbered if not is_lifting else draw(st.sampled_from([kind.is_numbered] * 3 + [True]))
    taken = () if is_lifting else own.chain.followed
    seq = (
        draw(st.sampled_from([one for one in (1, 2, 3, 4, 5) if one not in taken] or [9]))
        if has_seq
        else None
    )
    before = [one.sha256 for one in own.orders if seq and one.seq == seq - 1]
    starts = draw(st.sampled_from([0, 0, 0, 1, 2, 3, 5, 8, 12]))
    expires = draw(st.sampled_from([None, hour(starts + 1), hour(starts + 4)]))
    notices = [one.order_id for one in own.orders if one.action == "notice" and one.annulled is None]
    notice = draw(st.sampled_from([None, *notices])) if action == "block" else None
    has_entries = action not in ("unblock", "revoke", "snapshot") and (notice is None or draw(st.booleans()))
    aimed = [one.order_id for one in own.orders if one.action in MAY_END.get(action, ())]
    target = st.builds(Target, st.sampled_from([*aimed * 3, *"uvwxyz"]), WANTED)
    targets = st.lists(target, min_size=1, max_size=2, unique_by=lambda one: one.order_id)
    order_id = draw(st.sampled_from(free))
    return Order(
        file="f",
        sha256=f"{place:064}",
        issuer=issuer,
        order_id=order_id,
        action=action,
        issued_at=hour(starts),
        effective_at=hour(starts),
        expires_at=expires if action in BLOCKS | {"exempt", "notice"} else None,
        seq=seq,
        prev=draw(st.sampled_from([*before, *before, "wrong"])) if seq is not None and seq > 1 else None,
        entries=draw(ENTRIES) if has_entries else (),
        notice=notice,
        borrows=notice is not None and not has_entries,
        targets=tuple(draw(targets)) if action in ENDS else (),
        statement=Statement(entries=0, digest="0" * 64, valid_until=hour(starts + 3).isoformat())
        if action == "snapshot"
        else None,
    )


@st.composite
def _judgements(draw: st.DrawFn, order: Order, orders: Orders, kind: Kind) -> Judgement:
    own = orders.of(order.issuer)
    verdict = st.sampled_from([None, None, None, "held", "held", "refused"])
    notice = None if order.notice is None or order.entries else own.order(order.notice)
    entries = order.entries if notice is None else notice.entries
    found = [
        EntryVerdict(index, one, "GUARD", "a guard")
        for index in range(len(entries) if kind.has_guards and order.action in BLOCKS | {"notice"} else 0)
        if (one := draw(verdict)) is not None
    ]
    if len(found) == len(entries) and all(one.verdict == "refused" for one in found):
        found = found[1:]
    known = {one.order_id: one for one in own.orders if one.annulled is None}
    ignored = tuple(
        target.order_id
        for target in order.targets
        if target.order_id == order.order_id
        or (target.order_id not in known and not _is_after_gap(order, orders))
        or (target.order_id in known and known[target.order_id].action not in MAY_END[order.action])
    )
    may_be_proposed = kind.has_flaggers and order.action in BLOCKS | LIFTS | {"exempt", "notice"}
    is_proposed = may_be_proposed and draw(st.sampled_from([False, True]))
    return Judgement(is_proposed=is_proposed, ignored=ignored).with_verdicts(found)


def _is_after_gap(order: Order, orders: Orders) -> bool:
    chain = orders.of(order.issuer).chain
    if order.seq is None:
        return chain.gap is not None
    return not chain.fits(order) and order.seq not in chain.followed


# ------- The naive model -------


@dataclass(slots=True)
class Known:
    """An accepted order, and everything that the records say about it."""

    order: Order
    n: int  # of the record that accepted it
    judgement: Judgement
    annulled: datetime | None = None
    annulled_n: int = 0
    refused: frozenset[int] = frozenset()  # by the operator

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self.order.entries

    def idle(self) -> set[int]:
        """The entries that are refused, or held and not released."""
        free: set[int] = set()
        for release in self.judgement.releases:
            free |= set(range(10)) if release.entries is None else set(release.entries)
        verdicts = self.judgement.verdicts
        idle = {one.index for one in verdicts if one.verdict == "refused" or one.index not in free}
        return idle | self.refused


def replayed(records: Iterable[Record]) -> list[Known]:
    """All accepted orders, in sequence."""
    received: dict[str, Record] = {}
    found: list[Known] = []
    for record in records:
        match record.fact:
            case Order() as order:
                received[order.sha256] = record
            case Judged(sha256=sha256, judgement=judgement):
                same = [one for one in found if one.order.sha256 == sha256]
                if same:
                    releases = same[0].judgement.releases
                    same[0].judgement = replace(judgement, releases=releases)
                elif sha256 in received:
                    order = received[sha256].fact
                    if order.notice is not None and not order.entries:
                        names = (order.issuer, order.notice)
                        notice = [one for one in found if (one.order.issuer, one.order.order_id) == names][-1]
                        order = replace(order, entries=notice.entries)
                    found.append(Known(order, record.n, judgement))
            case (
                Annulment(order_id=number) | Approval(order_id=number) | EntriesRefused(order_id=number)
            ) as fact:
                (one,) = [
                    one for one in found
                    if (one.order.issuer, one.order.order_id) == (fact.issuer, number) and not one.annulled
                ]  # fmt: skip
                if isinstance(fact, Annulment):
                    one.annulled, one.annulled_n = record.at, record.n
                elif isinstance(fact, EntriesRefused):
                    one.refused |= {n for first, last in fact.runs for n in range(first, last + 1)}
                else:
                    release = Release(record.at, record.by, fact.reason, fact.entries)
                    releases = (*one.judgement.releases, release)
                    one.judgement = replace(one.judgement, releases=releases)
    return found


class Naive:
    """The orders of one issuer, with everything looked up in the whole list each time."""

    def __init__(self, known: Sequence[Known], issuer: str) -> None:
        self.known = [one for one in known if one.order.issuer == issuer]
        self.followed = self._followed()

    def _followed(self) -> dict[int, Known]:
        """The order that each seq belongs to: the first one that fits, in the sequence of arrival."""
        taken: dict[int, Known] = {}
        for arrived in range(1, len(self.known) + 1):
            came = self.known[:arrived]
            changed = True
            while changed:
                changed = False
                for one in sorted(came, key=lambda one: one.order.seq or 0):
                    seq = one.order.seq
                    if seq is None or one.annulled or seq in taken:
                        continue
                    if one.order.prev in self._digests(seq - 1, came, taken):
                        taken[seq] = one
                        changed = True
        return taken

    def _digests(self, seq: int, came: list[Known], taken: dict[int, Known]) -> set[str | None]:
        """The digests that the next order may name as `prev`; none if the number is missing."""
        if seq == 0:
            return {None}
        before = self._digests(seq - 1, came, taken)
        annulled = [
            one.order.sha256
            for one in came
            if one.annulled and one.order.seq == seq and one.order.prev in before
        ]
        return {*annulled, *([taken[seq].order.sha256] if seq in taken else [])}

    def aim(self, ender: Known, target: Target) -> Known | None:
        """The order that a target means: the latest one at its arrival, or the first one after it."""
        if target.order_id in ender.judgement.ignored:
            return None
        place = self.known.index(ender)
        same = [one for one in self.known if one.order.order_id == target.order_id]
        before = [one for one in same if self.known.index(one) <= place]
        after = [one for one in same if self.known.index(one) > place]
        if before and before[-1].annulled and before[-1].annulled_n < ender.n:
            before = []  # the next order with this number is meant
        found = before[-1] if before else after[0] if after else None
        is_possible = found is not None and found.order.action in MAY_END[ender.order.action]
        return found if is_possible else None

    def is_held(self, one: Known) -> bool:
        """Whether a gap holds it, or another order was accepted instead of it."""
        order = one.order
        is_lifting = order.action in LIFTS
        if order.action == "revoke":
            aims = [self.aim(one, target) for target in order.targets]
            is_lifting = not any(aim is not None and aim.order.action == "exempt" for aim in aims)
        if is_lifting or one.annulled or order.seq is None:
            return False
        is_approved = any(release.entries is None for release in one.judgement.releases)
        follows = self.followed.get(order.seq)
        return follows is not one and not (follows is None and is_approved)

    def ended_by(self, one: Known, index: int, at: datetime) -> list[str]:
        """The orders that have ended an entry."""
        return [
            ender.order.order_id
            for ender in self.known
            if ender.order.effective_at <= at
            and (ender.annulled is None or at < ender.annulled)
            and any(self._ends(ender, target, one, index) for target in ender.order.targets)
        ]

    def _ends(self, ender: Known, target: Target, one: Known, index: int) -> bool:
        if self.aim(ender, target) is not one or ender.judgement.is_proposed:
            return False
        entry = one.entries[index]
        named = target.entries is None or any(
            wanted.name == entry.name and wanted.match in (None, entry.match) for wanted in target.entries
        )
        # Lifting is never held, and stays if another order was accepted instead of this one.
        if self.is_held(ender):
            kept = {(entry.name, entry.match) for entry in ender.entries}
            return named and one.order.action != "exempt" and (entry.name, entry.match) not in kept
        return named

    def in_force(self, at: datetime) -> set[tuple[str, Entry]]:
        """The number of the order and the entry."""
        found = set()
        for one in self.known:
            order = one.order
            is_enforced = order.action in BLOCKS | {"exempt"} and not one.judgement.is_proposed
            is_annulled = one.annulled is not None and one.annulled <= at
            is_over = order.expires_at is not None and order.expires_at <= at
            if not is_enforced or is_annulled or is_over or at < order.effective_at or self.is_held(one):
                continue
            idle = one.idle()
            for index, entry in enumerate(one.entries):
                if index not in idle and not self.ended_by(one, index, at):
                    found.add((order.sha256, entry))
        return found


def in_force(orders: Orders, issuer: str, at: datetime) -> set[tuple[str, Entry]]:
    """The same by the code under test."""
    from dnsblock.orders.state import derive

    parts = derive(orders, at).entries_of(issuer).parts
    return {(sha256, item.entry) for sha256, part in parts.items() for item in part.items}


def times() -> Iterator[datetime]:
    return (hour(half / 2) for half in range(-1, 2 * LAST))
