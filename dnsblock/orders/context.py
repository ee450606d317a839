"""The context in which new documents are judged."""

from dataclasses import dataclass
from datetime import datetime

from dnsblock.config import Config
from dnsblock.orders.orders import Orders
from dnsblock.orders.references import References


@dataclass(frozen=True, slots=True)
class Context:
    """The configuration, the files that it names, the orders in the ledger, and the time."""

    config: Config
    references: References
    known: Orders
    now: datetime
    is_trial: bool = False  # nothing is accepted: all problems at once, and signatures may be missing

    def judges_alike(self, issuer: str, other: "Context") -> bool:
        """Whether the verdicts on an issuer's documents are the same, except for the time."""
        options = ("zones", "issuers", "answers", "protected", "guards")
        return (
            self.known.of(issuer) is other.known.of(issuer)
            and self.references is other.references
            and all(getattr(self.config, one) is getattr(other.config, one) for one in options)
        )
