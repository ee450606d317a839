"""Counts refused order documents by code, for the metric."""

from collections import Counter
from collections.abc import Iterable
from typing import get_args

from dnsblock.errors import INVALID
from dnsblock.orders.intake import RefusedDocument
from dnsblock.signatures.verify import SignatureCode

# Every code of a refused document: a label of a metric has no other values.
CODES = (
    INVALID,
    *("ANNULLED", "ANSWER", "EXPIRED", "FORBIDDEN", "INCOMPLETE", "INTERNAL", "NOT_ENOUGH_SIGNATURES"),
    *("PROTECTED", "PUBLIC_SUFFIX", "REUSED", "SYNTAX", "TOO_LARGE", "UNKNOWN_ENTRY", "UNKNOWN_ISSUER"),
    *("UNKNOWN_ORDER", "WRONG_ROLE", "WRONG_SEQ"),
    *get_args(SignatureCode),
)


class Refusals:
    """The refused documents since the start of the daemon, whichever way they came."""

    def __init__(self) -> None:
        self.by_code: Counter[str] = Counter(dict.fromkeys(CODES, 0))

    def count(self, refused: Iterable[RefusedDocument]) -> None:
        """Counts each document once for each code of its problems."""
        for one in refused:
            codes = {problem.code for problem in one.problems}
            self.by_code.update({code if code in self.by_code else INVALID for code in codes})
