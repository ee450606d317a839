"""Writes docs/conformance.md from the tests (`make conformance`), or to standard output with `-`.

A row is a test function whose docstring cites a source. The files are parsed, not imported, so that the page
can be written where nothing is installed but Python and PyYAML.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import differences

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "conformance.md"
FUZZING = HERE.parents[1] / "engine" / "fuzz" / "figures.md"

# Of each topic: its heading, the promise in a sentence, and where it comes from as a whole.
TOPICS = {
    0: (
        "The order of refusals",
        "What is refused before anything is decided: one reason each, in one order.",
        "RFC 1035 section 4.1.1, RFC 6891 section 6.1, RFC 9619",
    ),
    1: (
        "HTTPS and SVCB",
        "Every type of a blocked name is answered here, and no service record leads there.",
        "RFC 9460; blocky#165, blocky#450, smartdns#2466",
    ),
    2: (
        "AAAA",
        "A sinkhole with one family of addresses shows nothing of the other.",
        "RFC 2308 section 2.2; pdns#11806",
    ),
    3: (
        "EDNS is per hop",
        "OPT and its options belong to one hop, and are made anew for the next.",
        "RFC 6891 sections 6.1.1, 6.1.3 and 7, RFC 7871; AGH#8183, mihomo#3041, CVE-2026-42004",
    ),
    4: (
        "Case",
        "ASCII letters are folded where names are compared, and nothing is folded elsewhere.",
        "RFC 1035 section 2.3.3, RFC 4343, draft-vixie-dnsext-dns0x20; hickory#2683",
    ),
    5: (
        "Size",
        "What does not fit is left out whole and said to be, over UDP alone.",
        "RFC 2181 section 9, RFC 6891 section 6.2.5, RFC 9715",
    ),
    6: (
        "Header flags",
        "Each flag of an answer says what is true of this answer.",
        "RFC 1035 section 4.1.1, RFC 4035 section 3.2, RFC 6840 sections 5.7 and 5.8",
    ),
    7: (
        "Negative answers",
        "They carry the SOA by which they are cached.",
        "RFC 2308 sections 3 and 5; unbound#738",
    ),
    8: (
        "NXDOMAIN cut",
        "NXDOMAIN says that nothing exists below, so it is said only where that is so.",
        "RFC 8020 section 2",
    ),
    9: (
        "Wildcards, apex, label boundaries",
        "An entry covers what it says at any depth, and hides no other.",
        "RFC 4592 sections 2.2.2 and 3.3.1, draft-vixie-dnsop-dns-rpz section 5.3; StevenBlack/hosts#451",
    ),
    10: (
        "Spoofing",
        "Only the upstream answers, and only what it was asked.",
        "RFC 5452 section 9; sdns#470",
    ),
    11: (
        "Policy change",
        "What is ordered or lifted holds from the next answer on, whatever is under way.",
        "RFC 8767; pdns#14854",
    ),
    12: (
        "CNAME and DNAME",
        "An alias is no way around a block, and the block page is never blocked.",
        "draft-vixie-dnsop-dns-rpz sections 5.1 and 6.1, RFC 6672; CVE-2026-11331, blockconvert#48",
    ),
    13: (
        "DNSSEC",
        "A block does not depend on DO or CD, and a failure stays one.",
        "RFC 4035 section 3.2; CVE-2026-50243",
    ),
    14: (
        "Names",
        "Labels are octets; what people write is mapped once, at the door.",
        "RFC 2181 section 11, RFC 5890, RFC 5891; CVE-2026-33597, CVE-2026-40011, CVE-2026-0396, blocky#961",
    ),
    15: (
        "TCP",
        "Many queries on one connection, each answered when it is ready, within bounds.",
        "RFC 7766 sections 6.2.1, 7 and 8, RFC 9210, RFC 7828; systemd#11332, miekg/dns#1314",
    ),
    16: (
        "Kept answers",
        "What an upstream said is used again as long as it is true, and never in the place of the policy.",
        "RFC 1035 section 3.2.1, RFC 2308, RFC 8767, RFC 9520; pdns#14854",
    ),
    17: (
        "Overload",
        "Too many queries cost answers to some of them, and nothing else.",
        "RFC 9520 section 1, RFC 8767 section 5",
    ),
    18: (
        "Lists",
        "What a list says is enforced as a whole or not at all; what was refused, and why, is told.",
        "docs/lists.md, UTS 46, RFC 4180, RFC 9110",
    ),
}
FURTHER = (
    "Further promises",
    "What else an RFC, a draft or the report of a fault asks for.",
    "said in each row",
)
FAULTS = "Faults of others", "What other programs fell into, so that this one does not.", "their reports"

INTRODUCTION = """\
# Conformance

<!-- Written by `make conformance` from the tests in tests/conformance; what is wrong is mended there. -->

What dnsblock promises on the wire, who asks for it, and the test that holds it. Each test starts a real
daemon and speaks to it through sockets; its name is the promise. `make test` runs them all.

The tests in `tests/conformance/portable` know nothing of dnsblock but that it is a resolver with a policy.
They are run against two others as well, as Debian has them. Both get the same policy as one RPZ zone and
forward to the same scripted upstream. The last columns say what they do: `same`, what they do instead, or why
they cannot be asked; where a few parameters of a test are named, it is about those. That is no verdict: RPZ,
and what each program is made for, explain most of it. But where both agree against us, we are probably wrong.

## Aim it at another resolver

```sh
.venv/bin/python -m pytest tests/conformance --aim unbound    # or bind
.venv/bin/python -m pytest tests/conformance --aim 127.0.0.1:5300 --policy-hook ./load-policy
```

The hook is called as `./load-policy ZONEFILE UPSTREAM`. It makes the resolver enforce the RPZ zone
`policy.rpz` of that file, forward everything else to `UPSTREAM` (`127.0.0.1:PORT`, which answers while the
tests run) and refuse whoever asks from another address than 127.0.0.1 and ::1. It returns 0 when that is so.
Without a hook, the policy must be in force already. What fails is what the resolver does differently.

What the two are known to do differently is in `tests/conformance/differences.yaml`. A run against them fails
when it meets another difference, and when one of those is gone.

Where a docstring says "Trap 4", it means section 4 of this page. A row without a source of its own has that
of its section.
"""


@dataclass(frozen=True, slots=True)
class Row:
    file: str  # relative to tests/conformance
    function: str
    sources: tuple[str, ...]
    topics: tuple[str, ...]  # headings

    @property
    def is_portable(self) -> bool:
        return self.file.startswith("portable/")

    @property
    def promise(self) -> str:
        words = [ACRONYMS.get(word, word) for word in self.function.removeprefix("test_").split("_")]
        if words[0] == "do":  # the flag; elsewhere in a name it is the verb
            words[0] = "DO"
        sentence = " ".join(words)
        return sentence[0].upper() + sentence[1:]


ACRONYMS = {
    word.lower(): word
    for word in (
        *(
            "AA",
            "AAAA",
            "AD",
            "BADCOOKIE",
            "BADVERS",
            "BIND",
            "CNAME",
            "DNAME",
            "DNS",
            "DNSSEC",
            "EDNS",
            "HTTPS",
        ),
        *(
            "IPv4",
            "IPv6",
            "NODATA",
            "NOTIFY",
            "NXDOMAIN",
            "OPT",
            "RA",
            "RRset",
            "SERVFAIL",
            "SOA",
            "SVCB",
            "TC",
        ),
        *("TCP", "TTL", "TTLs", "UDP", "Unbound", "YXDOMAIN"),
    )
}

SECTIONS = r"(?: (?:sections?|appendix) [\w.]+(?:(?:, | and )[\d.]+\b)*)?"
SOURCES = re.compile(
    rf"""RFC\ \d+{SECTIONS.replace(" ", chr(92) + " ")}
    | draft-[a-z0-9-]*[a-z0-9]{SECTIONS.replace(" ", chr(92) + " ")}
    | RPZ(?:\ draft)?\ sections?\ [\d.]*\d
    | CVE-\d+-\d+
    | DNS\ Flag\ Day\ \d+
    | sd_notify\(3\)
    | [A-Za-z][\w./-]*\#\d+""",
    re.VERBOSE,
)
TRAPS = re.compile(r"\btraps? (\d+)(?:(?:, | and )(\d+))*", re.IGNORECASE)


def topics_of(text: str) -> list[str]:
    found = []
    for mention in TRAPS.finditer(text):
        found += [TOPICS[int(number)][0] for number in re.findall(r"\d+", mention[0])]
    if "fault of others" in text.lower():
        found.append(FAULTS[0])
    return list(dict.fromkeys(found))


def rows(folder: Path = HERE) -> Iterator[Row]:
    """The tests that cite a source, in the order of files and lines."""
    for path in sorted(folder.rglob("test_*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        of_file = topics_of(ast.get_docstring(module) or "")
        for node in module.body:
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            text = re.sub(r"\s+", " ", ast.get_docstring(node) or "")
            sources = tuple(dict.fromkeys(match[0].rstrip(".") for match in SOURCES.finditer(text)))
            topics = topics_of(text)
            if sources or topics or of_file:
                heading = topics or of_file or [FURTHER[0]]
                yield Row(str(path.relative_to(folder)), node.name, sources, tuple(heading))


def verdict(known: Iterable[differences.Difference]) -> str:
    """What a peer's cell says."""
    said = []
    for difference in known:
        what = (
            difference.sentence
            if difference.is_expressible
            else f"cannot be expressed: {difference.sentence}"
        )
        if difference.when:
            what = f"{', '.join(f'`{pattern}`' for pattern in difference.when)}: {what}"
        said.append(what)
    return "; ".join(said) or "same"


def page() -> str:
    """The text of docs/conformance.md."""
    peers, known = differences.read()
    everything = list(rows())
    portable = {row.function for row in everything if row.is_portable}
    unknown = sorted({difference.test for difference in known} - portable)
    if unknown:
        sys.exit(f"{differences.SOURCE}: no portable test is called {', '.join(unknown)}")
    text = INTRODUCTION
    headings = [(f"{number} {topic[0]}", *topic) for number, topic in TOPICS.items()]
    headings += [(topic[0], *topic) for topic in (FURTHER, FAULTS)]
    for heading, title, why, sources in headings:
        text += f"\n## {heading}\n\n{why} Sources: {sources}.\n\n"
        text += f"| promise | source | test | {' | '.join(peers.values())} |\n"
        text += "|---|---|---|" + "---|" * len(peers) + "\n"
        mine = [row for row in everything if title in row.topics]
        for row in sorted(mine, key=lambda row: not row.is_portable):
            cells = [row.promise, ", ".join(row.sources), f"`{row.file}` `{row.function}`"]
            for peer in peers:
                about = [one for one in known if (one.test, one.peer) == (row.function, peer)]
                cells.append(verdict(about) if row.is_portable else "")
            text += "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    return text + "\n" + FUZZING.read_text(encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        sys.stdout.write(page())
    else:
        PAGE.write_text(page(), encoding="utf-8")
