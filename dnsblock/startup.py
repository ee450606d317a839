"""Reads, compiles and records the first policy, before any query is answered.

Startup is strict: an error stops it, unless a previous good version or the ledger defines what to enforce.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from dnsblock.access import read_access
from dnsblock.clock import utc_now
from dnsblock.config import Config
from dnsblock.errors import HistoryUnwritable, Refused
from dnsblock.lists import records
from dnsblock.lists.lists import Lists
from dnsblock.lists.store import Store
from dnsblock.lists.transfer.keys import transferred_zones
from dnsblock.log import event, fault
from dnsblock.orders.intake import RefusedDocument
from dnsblock.orders.order import Order
from dnsblock.orders.parsed import ParsedOrders
from dnsblock.orders.references import read_references
from dnsblock.policy.engine_settings import engine_rules, read_secrets
from dnsblock.policy.recorder import Recorder
from dnsblock.policy.snapshot import NO_REFERENCES, Draft, OrdersAt, Policy, compile_parsed, read


@dataclass(frozen=True, slots=True)
class Startup:
    """The first policy, and its records."""

    recorder: Recorder
    store: Store
    draft: Draft
    policy: Policy
    at: datetime  # when the process started
    inbox: tuple[RefusedDocument, ...]  # refused order documents

    @classmethod
    def prepare(
        cls, config: Config, recorder: Recorder, store: Store, at: datetime, ahead: "CompiledAhead"
    ) -> "Startup":
        """Reads and compiles. Raises `Refused`."""
        access = {option: read_access(files, of=option) for option, files in config.https.items()}
        draft = _read(config, recorder, store).with_access(access)
        inbox = _inbox(draft, has_ledger=bool(recorder.ledger.records))
        return cls(recorder, store, draft, recorder.compile(draft, known=ahead.result()), at, inbox)

    def record(self) -> "Startup":
        """Records it. Lists that cannot be recorded stay at their previous versions."""
        policy = self.policy
        with self.recorder.appended(self.draft) as recorded:
            draft = recorded
            try:
                records.accept(draft.lists)
            except (HistoryUnwritable, OSError, Refused) as err:
                text = f"new lists could not be recorded, and the previous versions stay in force: {err}"
                event(logging.ERROR, text)
                draft = replace(draft, lists=draft.lists.last_enforced(draft.config, utc_now()))
                policy = self.recorder.compile(draft, policy.lists)
            policy, _ = self.recorder.record(draft, policy, is_start=True)
        return replace(self, draft=draft, policy=policy)


class CompiledAhead:
    """Compiles the orders that were parsed before, while modules, the ledger and the inbox are read.

    An order of which the ledger says more is compiled again, such as one that is lifted.
    """

    def __init__(self, config: Config, parsed: ParsedOrders) -> None:
        """Begins to compile these orders in another thread."""
        self.parsed, thread = parsed, ThreadPoolExecutor(1)
        self._orders = list(parsed.orders)
        self._compiled = thread.submit(_compile, config, self._orders)
        thread.shutdown(wait=False)

    def result(self) -> OrdersAt | None:
        """Waits for it. None if anything was compiled that the ledger did not prove.

        A document that somebody has put there may have any names, also ones that the engine reads as others.
        """
        compiled = self._compiled.result()
        return compiled if all(order.sha256 in self.parsed.proven for order in self._orders) else None


def _compile(config: Config, orders: Sequence[Order]) -> OrdersAt | None:
    try:
        return compile_parsed(config, orders, utc_now())
    except Exception:  # whatever is in that file, the ledger decides
        fault("the parsed orders could not be compiled before the ledger was read")
        return None


def _read(config: Config, recorder: Recorder, store: Store) -> Draft:
    """Reads the configured input; after a mismatch of the ledger, the state that was in force last."""
    now, lists = recorder.now(), Lists(store)
    if recorder.mismatch is None:
        return read(config, recorder.ledger.orders, lists, now)
    secrets = tuple(read_secrets(config.cookies.secrets))
    transferred, _ = transferred_zones(config)
    rules = engine_rules(config, secrets, transferred)
    references, _ = read_references(config, NO_REFERENCES)
    enforced = lists.last_enforced(config, now)
    return Draft(config, enforced, rules, (), references=references, secrets=secrets)


def _inbox(draft: Draft, *, has_ledger: bool) -> tuple[RefusedDocument, ...]:
    """The documents that are refused. Raises `Refused` if the folder itself cannot be read at a first start.

    The path may be wrong. Without a ledger, no accepted order shows that, and nothing would be blocked.
    """
    inbox: Sequence[RefusedDocument] = draft.refused or ()
    if not has_ledger and any(one.file == str(draft.config.orders) for one in inbox):
        raise Refused(inbox[0].problems)
    if inbox:
        error = Refused(problem for one in inbox for problem in one.problems)
        event(logging.ERROR, f"orders are refused: {error}", problems=error.as_json())
    return tuple(inbox)
