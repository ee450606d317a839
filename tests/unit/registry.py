"""A ledger, and officers who submit signed documents to it: the intake without a daemon."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dnsblock.config import Config
from dnsblock.orders.accepted import facts_of
from dnsblock.orders.approval import approval_of, refusal_of
from dnsblock.orders.context import Context
from dnsblock.orders.facts import Annulment
from dnsblock.orders.intake import Intake
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.orders import Orders
from dnsblock.orders.records import Fact
from dnsblock.orders.references import References
from dnsblock.orders.state import OrderState, derive
from dnsblock.orders.submission import Submitted, examine_submitted
from dnsblock.principal import Principal
from dnsblock.signatures.allowed_signers import AllowedSigners

from .ssh_keys import Key, make_key

OPERATOR = Principal("local", 1000, "operator")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Registry:
    """The orders of the issuer `a`. Without officers, its unsigned orders are accepted."""

    def __init__(self, folder: Path, *officers: str, **issuer: object) -> None:
        self.folder, self.now = folder, BEGIN
        self.keys: dict[str, Key] = {name: make_key() for name in officers}
        zone = {"name": "za", "issuer": "a", "answer": "nxdomain"}
        options = [{"id": "a", "keys": "keys", **issuer}] if officers else []
        self.config = Config.model_validate(
            {
                "upstream": {"servers": ["192.0.2.1"]},
                "issuers": options,
                "zones": [
                    zone if officers else {**zone, "unsigned": "accept"},
                    {"name": "zb", "issuer": "b", "unsigned": "accept", "answer": "nxdomain"},
                ],
            }
        )
        self.set_keys(*(f"{name} {key.public_line}" for name, key in self.keys.items()))
        self.ledger = Ledger.open(folder)

    def set_keys(self, *lines: str) -> None:
        """The file of keys."""
        self.references = References({"a": AllowedSigners.parse("keys", "\n".join(lines).encode())})

    @property
    def orders(self) -> Orders:
        return self.ledger.orders

    # ------- What is submitted -------

    def judge(self, *documents: str, by: Iterable[str] = (), entries: bytes | None = None) -> Intake:
        """The verdicts on these documents with the signatures of these officers. Nothing is accepted.

        `entries`: the content of their entries file.
        """
        return self.judge_signed(*((text, *by) for text in documents), entries=entries)

    def judge_signed(self, *documents: Sequence[str], entries: bytes | None = None) -> Intake:
        """The same for documents that each have signatures of their own: a text, then its officers."""
        sent = [self._signed(f"{number}.yaml", text, by) for number, (text, *by) in enumerate(documents)]
        sent = [replace(one, entries=entries) for one in sent]
        context = Context(self.config, self.references, self.orders, self.now)
        return examine_submitted(sent, context).intake

    def _signed(self, file: str, text: str, by: Iterable[str]) -> Submitted:
        data = text.encode()
        armour = b"".join(self.keys[name].sign(data) for name in by)
        return Submitted(file, data, signatures=armour or None)

    def submit(self, *documents: str, by: Iterable[str] = (), entries: bytes | None = None) -> list[str]:
        """Accepts these documents, and returns the reasons against those that are refused."""
        intake = self.judge(*documents, by=by, entries=entries)
        self.record(facts_of(intake.new, intake.signed, self.orders))
        return [problem.reason for problem in intake.problems]

    def record(self, facts: Iterable[Fact]) -> None:
        """Writes to the ledger; a second passes."""
        if found := list(facts):
            self.ledger.append(found, OPERATOR, self.now)
        self.now += timedelta(seconds=1)

    def annul(self, order_id: str) -> None:
        fact = Annulment("a", order_id, "wrong")
        self.orders.decided([fact], self.now, OPERATOR)  # there is such an order
        self.record([fact])

    def approve(self, order_id: str, *names: str) -> None:
        self.record([approval_of(self.orders.of("a"), "a", order_id, names, "checked")[0]])

    def refuse(self, order_id: str, *names: str) -> None:
        self.record([refusal_of(self.orders.of("a"), "a", order_id, names, "not meant")[0]])

    # ------- What is in force -------

    def in_force(self, orders: Orders | None = None) -> list[str]:
        """The entries in force, such as `t.me of b-1`, after a restart, too."""
        found = self._in_force(self.orders if orders is None else orders)
        assert found == self._in_force(self.restarted())
        return found

    def _in_force(self, orders: Orders) -> list[str]:
        entries = derive(orders, self.now).entries_of("a")
        return sorted(f"{item.entry.name} of {item.order_id}" for item in entries)

    def restarted(self) -> Orders:
        """The orders as the next process reads them."""
        with Ledger.open(self.folder, read_only=True) as ledger:
            return ledger.orders

    def states(self) -> Mapping[str, OrderState]:
        """The states by number, the same after a restart."""
        both = [derive(orders, self.now).orders for orders in (self.orders, self.restarted())]
        assert both[0] == both[1]
        return {one.order_id: one for one in both[0]}

    def state(self, order_id: str) -> str:
        return self.states()[order_id].state


def codes(reasons: Sequence[str]) -> list[str]:
    """The codes at the beginning of reasons."""
    return [reason.partition(":")[0] for reason in reasons]
