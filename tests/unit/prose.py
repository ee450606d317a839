"""How the project writes: a list of phrases with their replacements, and a limit for sentences.

No maintained linter did this in November 2026: `vale` on PyPI downloads its program at the first run, so it
needs a network, and `proselint` has neither word lists of your own nor a limit for sentences.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MOST_WORDS = 30

# Phrases that must not come back, with what to write instead. Patterns match whole words, in any case.
INSTEAD = {
    # Phrases
    r"of before": "previous",
    r"anew": "again; restarts",
    r"(every )?(how|so) ?-?manieth": "every Nth",
    r"all the same": "anyway, or still",
    r"by itself": "automatically, or on its own",
    r"as ever": "as usual, or still",
    r"in the place of": "instead of",
    r"(who|whoever) (may )?asks?": "the client; for who may query, the access control list (ACL)",
    r"(whom|whoever)": "name the client, server or person",
    r"(thereof|whereof|therein|wherein|thereby|whereby|hitherto|lest|whilst)": "a modern word",
    r"(is|are|be|being) told": "say where: is logged, `COMMAND` reports it, METRIC counts it",
    r"(says|say|said) so(?! that)": "say where: is logged, `COMMAND` reports it, METRIC counts it",
    r"(is|are) (noted|put on record)": "say where: is logged, is recorded in FILE",
    r"the (more|less|fewer) the (better|worse)": "say what is better, and what to do",
    # Terms
    r"packet threads?": "worker thread(s)",
    r"fall(s|en)? silent|fell silent": "times out",
    r"unwilling": "refused, or returns errors",
    r"patience": "timeout",
    r"(old answers?|answers? whose time is over)": "stale answer (serve-stale)",
    r"(what is kept|kept answers?|answers? that (is|are) kept)": "cached responses; the cache",
    r"cut off": "truncated (TC=1), or interrupted",
    r"ask again over TCP": "truncated (TC=1)",
    r"(questions?|queries) (that are )?under way": "outstanding queries",
    r"(waits?|waited) for the same question": "is coalesced",
    r"(answers?|it) leads? to|where (an|the|its) answers? leads?": "CNAME, DNAME, HTTPS or SVCB target",
    r"holes?|excepted": "exemption, exempt",
    r"cannot be meant": "invalid, malformed",
    r"(hold|holds|held|holding) back": "delay, block, keep",
    r"(that|which) (is|are) not taken|is not taken": "is rejected",
    r"(enforced|served) on(?=[.,;:)]|$)": "remains in force; keeps serving",
    r"(gone|go|goes|went) back (to|from)": "roll back",
    r"names are sold": "a public suffix (registry)",
    r"damaged": "corrupt",
    r"mend(s|ed|ing)?": "fix, repair",
    r"(dnsblock|anycast|all|other|several|the) nodes": "servers, instances",
    r"half a line": "a truncated line",
    r"not covered|also covered by": "not blocked; also matches",
    r"(rooms|doors|bells)": "modules, adapters, wakeups",
}
FORBIDDEN = [(re.compile(rf"\b(?:{phrase})(?!\w)", re.IGNORECASE), use) for phrase, use in INSTEAD.items()]
OCTETS = re.compile(r"\boctets?\b", re.IGNORECASE)
PROTOCOL = re.compile(r"RFC|\b(fields?|labels?|option|RDATA)\b")
HEADLESS = re.compile(r"(Who|Whom|What|That of) (?!to\b)")

# A sentence ends at one of these, with what closes a parenthesis or quotation after it.
END = re.compile(r"(?<=[.!?])[\"'”)\]]*(?=[ \n])")
NO_END = re.compile(r"(\b(e\.g|i\.e|etc|vs|cf|approx|resp|sec|no|art|fig)|^[0-9]+)\.$", re.IGNORECASE)
CODE = re.compile(r"`[^`]*`")


@dataclass(frozen=True)
class Passage:
    """A paragraph, list item, cell, heading or comment. Inline code is one word: its spaces do not break."""

    line: int
    text: str
    is_title: bool = False


@dataclass(frozen=True)
class Offence:
    line: int
    sentence: str
    what_to_do: str


def unbroken(code: str) -> str:
    return re.sub(r"\s", "\N{NO-BREAK SPACE}", code)


def sentences(passage: Passage) -> Iterator[tuple[int, str]]:
    """Each sentence of a passage, with the line where it begins."""
    start = 0
    for end in [*(found.end() for found in END.finditer(passage.text)), len(passage.text)]:
        sentence = passage.text[start:end]
        if end < len(passage.text) and NO_END.search(sentence.strip()):
            continue
        lead = len(sentence) - len(sentence.lstrip(" \n"))
        if sentence.strip():
            yield (
                passage.line + passage.text.count("\n", 0, start + lead),
                re.sub(r"[ \n]+", " ", sentence.strip(" \n")),
            )
        start = end


def offences_of(passages: Iterable[Passage]) -> list[Offence]:
    """The sentences that a technical editor would mark at once."""
    found = []
    for passage in passages:
        for line, sentence in sentences(passage):
            prose = CODE.sub("`…`", sentence)
            words = sum(any(map(str.isalnum, word)) or "`" in word for word in prose.split(" "))
            if words > MOST_WORDS:
                found.append(Offence(line, sentence, f"{words} words: make it two sentences, or a list"))
            for pattern, instead in FORBIDDEN:
                found += [
                    Offence(line, sentence, f"'{hit[0]}': write {instead}") for hit in pattern.finditer(prose)
                ]
            if OCTETS.search(prose) and not PROTOCOL.search(prose):
                found.append(
                    Offence(line, sentence, "'octet': write byte, except for a field of the protocol")
                )
            if HEADLESS.match(prose) and not passage.is_title and not prose.endswith("?"):
                found.append(
                    Offence(line, sentence, f"'{prose.split(' ')[0]} …': begin with the noun that is meant")
                )
    return found


def report(file: str, found: Iterable[Offence]) -> str:
    return "\n".join(f"{file}:{one.line}: {one.what_to_do}\n    {one.sentence}" for one in found)
