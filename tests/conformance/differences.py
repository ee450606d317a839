"""Known differences of other resolvers, from differences.yaml: for an aimed run and for the table.

A test's entry has for each peer one difference or a list of them: `differs` says what the peer does instead,
`cannot` why it is not asked at all. `when` names the parameters that it is about, as pytest shows them in
brackets; without it, all.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

SOURCE = Path(__file__).with_name("differences.yaml")


@dataclass(frozen=True, slots=True)
class Difference:
    test: str
    peer: str
    sentence: str
    is_expressible: bool
    when: tuple[str, ...]  # shell patterns of parameter ids; empty for all

    def is_about(self, parameters: str) -> bool:
        """Whether it concerns the test with these parameters, as pytest shows them in brackets."""
        return not self.when or any(fnmatchcase(parameters, pattern) for pattern in self.when)


def read() -> tuple[dict[str, str], list[Difference]]:
    """The peers by their `--aim`, with the names they have in the table; and all differences."""
    document = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    found = []
    for test, by_peer in document["differences"].items():
        for peer, entries in by_peer.items():
            for entry in entries if isinstance(entries, list) else [entries]:
                when = tuple(entry.pop("when", ()))
                ((kind, sentence),) = entry.items()  # a comma in an unquoted sentence makes a second key
                found.append(Difference(test, peer, sentence, kind == "differs", when))
    return document["peers"], found
