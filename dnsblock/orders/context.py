"""What new documents are judged by."""

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
