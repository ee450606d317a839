"""Files that orders are judged by: the keys of the issuers, and the list of popular names.

A file that cannot be used costs only what depends on it: the orders of one issuer, or a change of the list.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dnsblock.config import Config
from dnsblock.errors import Problem, Refused
from dnsblock.orders.popular import Popular, load, shipped
from dnsblock.signatures.allowed_signers import AllowedSigners

Keys = Mapping[str, AllowedSigners | tuple[Problem, ...]]  # by issuer; problems: the file cannot be used


@dataclass(frozen=True, slots=True)
class References:
    """The content of these files."""

    keys: Keys = field(default_factory=dict)
    own_popular: Popular | None = None  # None: the list in the package

    @property
    def popular(self) -> Popular:
        """The list of popular names. The one in the package is read when it is first needed."""
        return self.own_popular or shipped()


def read_references(config: Config, former: References) -> tuple[References, tuple[Problem, ...]]:
    """Reads the files, and returns the problems. A file with a problem keeps its former content."""
    problems: list[Problem] = []
    keys: dict[str, AllowedSigners | tuple[Problem, ...]] = {}
    for issuer in config.issuers:
        try:
            signers = AllowedSigners.load(issuer.keys)
            problems.extend(signers.problems)  # of lines, which count for nothing
            if not signers.lines:
                reason = "has no valid line, so no order of this issuer can be verified with it"
                raise Refused([Problem(str(issuer.keys), None, issuer.id, reason)])
            keys[issuer.id] = signers
        except Refused as err:
            problems.extend(err.problems)
            before = former.keys.get(issuer.id)
            keys[issuer.id] = before if isinstance(before, AllowedSigners) else err.problems
    popular = None
    if config.guards.popular is not None:
        try:
            popular = load(config.guards.popular, former.own_popular)
        except Refused as err:
            problems.extend(err.problems)
            popular = former.own_popular
    return References(keys, popular), tuple(problems)
