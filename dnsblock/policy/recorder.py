"""Writes the ledger, its copy and the checkpoint durably before a publish takes effect."""

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from dnsblock import __version__
from dnsblock.config import Config
from dnsblock.errors import HistoryUnwritable, LedgerUnwritable, Refused, as_refused
from dnsblock.lists.history.history import History
from dnsblock.lists.lists import Lists
from dnsblock.lists.store import Store
from dnsblock.log import event
from dnsblock.orders.accepted import facts_of
from dnsblock.orders.book import Book
from dnsblock.orders.claims import Claim
from dnsblock.orders.effects import effects_of, refusals_of
from dnsblock.orders.facts import (
    Allowed,
    Annulment,
    EntriesRefused,
    ListAccepted,
    Refusal,
    Started,
    Stopped,
)
from dnsblock.orders.intake import RefusedDocument
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.mismatch import Mismatch
from dnsblock.orders.parsed import ParsedOrders
from dnsblock.orders.records import Fact
from dnsblock.orders.state import State, derive
from dnsblock.orders.verification import summary
from dnsblock.policy.serials import Serials
from dnsblock.policy.snapshot import NO_LISTS, Draft, OrdersAt, Policy, build, standing_notes, unsigned_notes
from dnsblock.policy.zones import ListZone
from dnsblock.principal import DAEMON, Principal
from dnsblock.signatures.notes import SignedCheckpoint
from dnsblock.times import utc

BEHIND = timedelta(seconds=1)  # smaller differences are normal clock adjustments
MAX_REFUSALS = 100  # that are recorded in
REFUSALS_SECONDS = 3600.0
SHOWN = 20  # missing records in `status`


class Recorder:
    """The records of a daemon. Call one method at a time, except `now` and `facts`."""

    def __init__(self, config: Config, parsed: ParsedOrders) -> None:
        """Opens the ledger. `parsed`: see `Ledger.open`. Raises `Refused`. Call `compare` next."""
        self._options = config.ledger
        self._book = Book.open(config.state, config.ledger, parsed=parsed)
        self.signer = self._book.signer
        self.last_checkpoint: SignedCheckpoint | None = None  # at the end of the process
        self._is_behind = False
        self._misses_effects = False
        self._last_state: State | None = None
        self._versions: dict[str, int] = {}  # of lists, in the ledger
        self._refused: set[str] = set()  # digests of refused documents in the ledger
        self._refusals: list[float] = []  # when the latest refusals were recorded
        self._remember(record.fact for record in self._book.ledger.records)
        for note in self._book.ledger.notes:
            event(logging.WARNING, note)

    def compare(self, store: Store) -> None:
        """Compares the ledger with the recorded positions. Raises `Refused` if nothing can be served."""
        self._witness, last_serial = store.record(lambda past: (past.last_position(), past.last_serial()))
        self._store = store
        self._book.compare(self._witness, self._options.checkpoints.folder)
        for why in self._book.unread:
            event(logging.WARNING, f"the ledger was not compared with all signed checkpoints: {why}")
        self._serials = Serials(self._book.checkpoint, last_serial)
        self.ledger.correct_times(self.now())
        self._log_mismatch()
        self.watch_clock()

    def close(self, *, in_order: bool) -> None:
        """Releases the ledger for the next process. `in_order`: a regular stop, after the last answer."""
        if in_order:
            self.note([Stopped(self._serials.serial)])
            end = self._book.recorded_end
            try:
                self.last_checkpoint = self._book.complete()
                end = self._book.position_and_root
            except OSError as err:
                event(logging.ERROR, f"the ledger has no new checkpoint: {err.strerror}: {err.filename}")
            try:
                self._serials.release(*end)
            except OSError as err:
                event(logging.WARNING, f"the checkpoint could not be written: {err.strerror}: {err.filename}")
        self._book.close()

    @property
    def ledger(self) -> Ledger:
        """The enforced ledger; after a mismatch, the one that was acknowledged before."""
        return self._book.ledger

    @property
    def mismatch(self) -> Mismatch | None:
        """The mismatch that blocks publishing, if any."""
        return self._book.mismatch

    def check(self) -> None:
        """Raises `Refused` if nothing may be published."""
        self._book.check()

    def begin(self, *, is_tick: bool) -> None:
        """Call it first in a publish. Raises `Refused` if nothing may be published, except a clock tick."""
        self.watch()
        self.ledger.correct_times(self.now())
        if not is_tick:
            self.check()

    @property
    def is_touched(self) -> bool:
        """Whether the file of the ledger is not as this process has left it, perhaps since it is writing."""
        return self._book.is_touched

    def watch(self) -> None:
        """Finds out whether somebody else has changed the file of the ledger. Logs a new mismatch.

        Not while another thread publishes.
        """
        was = self.mismatch
        self._book.watch()
        if self.mismatch is not was:
            self._log_mismatch()

    def is_as_written(self) -> bool:
        """Reads the whole ledger: whether it contains what this process has read or written."""
        return self._book.is_as_written()

    def distrust(self) -> None:
        """Compares the ledger in any case. Otherwise the same as `watch`."""
        self._book.distrust()
        self.watch()

    def contradict(self, claim: Claim) -> None:
        """Stops publishing: a signed checkpoint was found that the ledger does not extend."""
        was = self.mismatch
        self._book.contradict(claim)
        if self.mismatch is not was:
            self._log_mismatch()

    def _log_mismatch(self) -> None:
        if (mismatch := self.mismatch) is not None:
            text = f"the ledger is not used, and nothing is published: {mismatch}"
            event(logging.CRITICAL, text, missing=[summary(record) for record in mismatch.missing[:SHOWN]])

    # ------- Signed checkpoints -------

    def checkpoint_now(self) -> SignedCheckpoint:
        """Signs a checkpoint of the ledger, and stores it in the state folder. Raises `Refused`."""
        self.check()
        try:
            return self.signer.checkpoint()
        except OSError as err:
            raise as_refused(err) from err

    # ------- The time -------

    def now(self) -> datetime:
        """The time used to evaluate orders."""
        return self._book.clock.now()

    @property
    def behind(self) -> timedelta:
        """How far the system clock is behind the last recorded time."""
        return self._book.clock.behind

    def watch_clock(self) -> bool:
        """Logs when the clock falls behind and when it has caught up. True if that changed."""
        behind = self.behind
        if (behind > BEHIND) == self._is_behind:
            return False
        self._is_behind = behind > BEHIND
        if self._is_behind:
            seconds, now = behind.total_seconds(), utc(self.now())
            text = (
                f"the clock is {seconds:.0f} s behind the last record: orders are enforced as of {now} until "
                "it is set; if the record is wrong, run `dnsblock log accept-restore --reason TEXT`"
            )
            event(logging.WARNING, text, behind_seconds=seconds)
        else:
            event(logging.WARNING, "the clock is no longer behind the last record")
        return True

    # ------- A publish -------

    def compile(
        self,
        draft: Draft,
        list_zones: Mapping[str, ListZone] = NO_LISTS,
        *,
        keeps_list_zones: bool = False,
        former: Policy | None = None,
        known: OrdersAt | None = None,
        at: datetime | None = None,
    ) -> Policy:
        """Compiles the policy of a draft for a time, by default now. Raises `Refused` without a free serial.

        `former`, `known`, `list_zones`: zones that need not be compiled again, or only in part.
        """
        when = self.now() if at is None else at
        orders = draft.orders(self.ledger.orders, when)
        return build(
            *(draft.config, draft.lists, orders, when, self._serials),
            former=former,
            known=known,
            list_zones=list_zones,
            keeps_list_zones=keeps_list_zones,
        )

    @contextlib.contextmanager
    def appended(self, draft: Draft) -> Iterator[Draft]:
        """Accepts new orders and decisions: writes them to the ledger. Raises `LedgerUnwritable`.

        They are logged at the end of the block: an order that is enforced in it does not wait for the log.
        """
        orders = facts_of(draft.new, draft.signed, self.ledger.orders)
        facts: list[Fact] = [*draft.allowed, *draft.decisions, *orders]
        if facts:
            self._book.append(facts, draft.by)
        rest = replace(draft, new=(), signed=(), decisions=(), allowed=())
        try:
            yield replace(rest, accepted=(*draft.new, *draft.signed))
        finally:
            _log_accepted(draft, self.now())

    def record(
        self, draft: Draft, policy: Policy, *, is_start: bool = False
    ) -> tuple[Policy, tuple[str, ...]]:
        """Records durably that a policy is in force; returns it and remarks.

        If the disk cannot be written, the policy gets a reserved serial, so that blocks still end on time.
        Raises `Refused` if none is left, and `OSError` at startup.
        """
        notes = (*draft.notes, *standing_notes(policy, draft.config, draft.accepted))
        notes = (*notes, *unsigned_notes(draft.config)) if is_start else notes
        for note in notes:
            event(logging.WARNING, note)
        snapshot = policy.snapshot
        try:
            self._book.copy_new()
            self._serials.keep(snapshot.serial, snapshot.digest, *self._book.position_and_root, policy.at)
        except OSError as err:
            if is_start:
                raise
            policy = policy.with_serial(self._serials.take_reserved(snapshot.digest))
            text = f"the checkpoint could not be written: {err.strerror}: {err.filename}"
            event(logging.ERROR, text, serial=policy.snapshot.serial)
        return policy, notes

    def record_effects(
        self,
        policy: Policy,
        former: Policy | None,
        lists: Lists,
        refused: Sequence[RefusedDocument] = (),
        *,
        is_start: bool = False,
    ) -> None:
        """Records what a publish has changed. If that fails, a later publish tries again."""
        if self.mismatch is not None:
            return
        is_alike = former is not None and former.issuers == policy.issuers and not self._misses_effects
        state = former.state if former is not None and is_alike else None
        snapshot = policy.snapshot
        facts: list[Fact] = [Started(__version__, snapshot.serial, snapshot.digest)] if is_start else []
        found = effects_of(policy.state, state, self.ledger.orders, snapshot.serial)
        facts += (one for one in found if one.issuer in policy.issuers)
        facts += self._new_versions(lists)
        self._misses_effects = not self.note(facts)
        self.record_refusals(refused, DAEMON)

    def _new_versions(self, lists: Lists) -> Iterator[ListAccepted]:
        """The versions of lists that the ledger does not have yet."""
        for zone, listed in lists.listed.items():
            version = listed.version
            if version is None or self._versions.get(zone) == version.number:
                continue
            numbers = (listed.report.entries, version.added, version.removed)
            yield ListAccepted(zone, version.number, *numbers, version.compiled.source_sha256)

    def record_refusals(self, refused: Iterable[RefusedDocument], by: Principal) -> None:
        """Records refused documents once each. Only so many an hour, since anybody may send anything."""
        now = time.monotonic()
        self._refusals = [at for at in self._refusals if now - at < REFUSALS_SECONDS]
        room = MAX_REFUSALS - len(self._refusals)
        facts = list(islice(refusals_of(refused, self._refused), max(0, room)))
        if self.note(facts, by):
            self._refusals += [now] * len(facts)

    def note(self, facts: Sequence[Fact], by: Principal = DAEMON) -> bool:
        """Records events that change nothing in force. False if that failed: it is logged."""
        if not facts or self.mismatch is not None:
            return True
        try:
            self._book.append(facts, by)
        except (LedgerUnwritable, Refused) as err:
            event(logging.ERROR, f"events of orders are not recorded yet: {err}")
            return False
        self._remember(facts)
        return True

    def _remember(self, facts: Iterable[Fact]) -> None:
        for fact in facts:
            if isinstance(fact, ListAccepted):
                self._versions[fact.zone] = fact.list_version
            elif isinstance(fact, Refusal):
                self._refused.add(fact.sha256)

    def state(self, policy: Policy) -> State:
        """The state of all orders by a policy, with the events that were recorded since."""
        self._last_state = _latest(policy, self.ledger, self._last_state)
        return self._last_state

    def settle(self) -> None:
        """Work after a policy took effect that must not delay orders."""
        try:
            self._book.sync_copy()
        except OSError as err:
            event(logging.ERROR, f"the copy of the ledger is not durable: {err.strerror}: {err.filename}")
        with contextlib.suppress(OSError):  # it only makes the next startup faster
            self.ledger.keep_parsed()

    # ------- The operator -------

    def accept_restore(self, reason: str, by: Principal) -> None:
        """Accepts the current ledger or clock. Raises `Refused`, `LedgerUnwritable` and `OSError`."""
        was = self.mismatch
        self._book.accept_restore(reason, by, self._forget)
        what = "the clock" if was is None else f"the ledger ({was})"
        event(logging.WARNING, f"accepted {what} as it is", reason=reason, by=by)
        self.watch_clock()

    def _forget(self) -> None:
        try:
            self._store.record(History.forget_positions)
        except (HistoryUnwritable, Refused):
            if self._witness is not None:
                raise


def _log_accepted(draft: Draft, now: datetime) -> None:
    _log_allowed(draft.allowed, now, draft.by)
    for one in draft.decisions:
        refused_or_approved = "refused entries of" if isinstance(one, EntriesRefused) else "approved"
        done = "annulled" if isinstance(one, Annulment) else refused_or_approved
        text = f"{done} order {one.order_id} of {one.issuer}: {one.reason}"
        event(logging.WARNING, text, order_id=one.order_id, issuer=one.issuer, by=draft.by)
    for order in draft.new:
        text = f"accepted order {order.order_id} of {order.issuer}: {order.action}"
        names = {"order_id": order.order_id, "issuer": order.issuer, "sha256": order.sha256}
        event(logging.INFO, text, **names, by=draft.by)


def _log_allowed(allowed: Iterable[Allowed], now: datetime, by: Principal) -> None:
    for one in allowed:
        what = f"{one.name} ({one.match})"
        text = f"allowed {what} until {one.until}: {one.reason}"
        if datetime.fromisoformat(one.until) <= now:
            text = f"ended the exception of {what}: {one.reason}"
        event(logging.WARNING, text, by=by)


def facts_of_ledger(recorder: Recorder) -> dict[str, Any]:
    """The ledger and the clock, for `status`."""
    position, mismatch, behind = recorder.ledger.position, recorder.mismatch, recorder.behind
    return {
        "records": position.records,
        "last_record": position.last,
        "mismatch": None
        if mismatch is None
        else {
            "reason": str(mismatch),
            "found": mismatch.found.records,
            "missing": [summary(record) for record in mismatch.missing[:SHOWN]],
            "missing_total": len(mismatch.missing),
        },
        "clock_behind_seconds": behind.total_seconds() if behind > BEHIND else 0.0,
        "as_of": utc(recorder.now()),
    }


def _latest(policy: Policy, ledger: Ledger, former: State | None) -> State:
    """The state at the last record, unless something starts or ends between the publish and then."""
    due = policy.state.next_change_at
    last = ledger.records[-1].at if ledger.records else policy.at
    at = last if last > policy.at and (due is None or last < due) else policy.at
    if former is not None and former.known is ledger.orders and former.at == at:
        return former
    return derive(ledger.orders, at, former or policy.state)
