"""Writes docs/conformance.md from the tests (`make conformance`), or to standard output with `-`.

Each test function whose docstring cites a source is a row. The files are parsed and not imported, so that
Python and PyYAML are enough to write the page.
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
RPZ = HERE / "rpz_differences.md"
FUZZING = HERE.parents[1] / "engine" / "fuzz" / "figures.md"

# Each topic has a heading, its promise in one sentence, and the sources of the whole section.
TOPICS = {
    0: (
        "The order of refusals",
        "Each invalid query is refused for one reason, and the reasons are checked in one order.",
        "RFC 1035 section 4.1.1, RFC 6891 section 6.1, RFC 9619",
    ),
    1: (
        "HTTPS and SVCB",
        "Every type of a blocked name is answered locally, and no service record points to a blocked name.",
        "RFC 9460; blocky#165, blocky#450, smartdns#2466",
    ),
    2: (
        "AAAA",
        "A sinkhole with addresses of one family returns none of the other.",
        "RFC 2308 section 2.2; pdns#11806",
    ),
    3: (
        "EDNS is per hop",
        "OPT and its options belong to one hop, and are created again for the next.",
        "RFC 6891 sections 6.1.1, 6.1.3 and 7, RFC 7871; AGH#8183, mihomo#3041, CVE-2026-42004",
    ),
    4: (
        "Case",
        "Names match in any case of ASCII letters, and are returned unchanged.",
        "RFC 1035 section 2.3.3, RFC 4343, draft-vixie-dnsext-dns0x20; hickory#2683",
    ),
    5: (
        "Size",
        "An RRset that does not fit is left out as a whole and TC is set, over UDP only.",
        "RFC 2181 section 9, RFC 6891 section 6.2.5, RFC 9715",
    ),
    6: (
        "Header flags",
        "Each header flag describes this response.",
        "RFC 1035 section 4.1.1, RFC 4035 section 3.2, RFC 6840 sections 5.7 and 5.8",
    ),
    7: (
        "Negative answers",
        "They have the SOA that makes them cacheable.",
        "RFC 2308 sections 3 and 5; unbound#738",
    ),
    8: (
        "NXDOMAIN cut",
        "NXDOMAIN denies every name below, so it is sent only if none exists.",
        "RFC 8020 section 2",
    ),
    9: (
        "Wildcards, apex, label boundaries",
        "An entry covers what its match says, at any depth, and hides no other entry.",
        "RFC 4592 sections 2.2.2 and 3.3.1, draft-vixie-dnsop-dns-rpz section 5.3; StevenBlack/hosts#451",
    ),
    10: (
        "Spoofing",
        "Only the upstream can answer, and only the query that was sent.",
        "RFC 5452 section 9; sdns#470",
    ),
    11: (
        "Policy change",
        "An order applies from the next response on, also to outstanding queries.",
        "RFC 8767; pdns#14854",
    ),
    12: (
        "CNAME and DNAME",
        "No alias bypasses a block, and the landing page is never blocked.",
        "draft-vixie-dnsop-dns-rpz sections 5.1 and 6.1, RFC 6672; CVE-2026-11331, blockconvert#48",
    ),
    13: (
        "DNSSEC",
        "DO and CD do not bypass a block, and a validation failure stays a failure.",
        "RFC 4035 section 3.2; CVE-2026-50243",
    ),
    14: (
        "Names",
        "Labels are bytes. Names as people write them are converted once, when they are read.",
        "RFC 2181 section 11, RFC 5890, RFC 5891; CVE-2026-33597, CVE-2026-40011, CVE-2026-0396, blocky#961",
    ),
    15: (
        "TCP",
        "Many queries on one connection, each answered when ready, within limits.",
        "RFC 7766 sections 6.2.1, 7 and 8, RFC 9210, RFC 7828; systemd#11332, miekg/dns#1314",
    ),
    16: (
        "Cached responses",
        "A response is reused while it is valid, and the policy is checked first.",
        "RFC 1035 section 3.2.1, RFC 2308, RFC 8767, RFC 9520; pdns#14854",
    ),
    17: (
        "Overload",
        "Excess queries cost some of their own responses, and nothing else.",
        "RFC 9520 section 1, RFC 8767 section 5",
    ),
    18: (
        "Lists",
        "A list is enforced as a whole or not at all. Rejected lines and lists are reported with the reason.",
        "docs/lists.md, UTS 46, RFC 4180, RFC 9110",
    ),
    19: (
        "Policy zones",
        "The records of a policy zone (RPZ) say what is matched and how it is answered, as in BIND.",
        "draft-vixie-dnsop-dns-rpz sections 3 to 5, docs/policy-zones.md",
    ),
}
FURTHER = (
    "Further promises",
    "Other requirements of RFCs, drafts and bug reports.",
    "given in each row",
)
FAULTS = "Faults of others", "Bugs of other programs that this one must not have.", "their reports"

INTRODUCTION = """\
# Conformance

<!-- Written by `make conformance` from the tests in tests/conformance: correct it there. -->

This page lists what dnsblock promises on the wire, the source of each promise, and the test that holds it.
Each test starts a real daemon and talks to it through sockets; its name is the promise. `make test` runs them
all.

The tests in `tests/conformance/portable` know only that dnsblock is a resolver with a policy. They also run
against two other resolvers, as packaged by Debian. Both get the same policy as one RPZ zone, and forward to
the same scripted upstream.

The last columns show the result: `same`, the difference, or why the test cannot be expressed there. If a cell
names parameters of the test, the difference concerns only those. A difference is not a verdict: most follow
from RPZ, and from the purpose of each program. But where both agree against dnsblock, dnsblock is probably
wrong.

## Run the tests against another resolver

```sh
.venv/bin/python -m pytest tests/conformance --aim unbound    # or bind
.venv/bin/python -m pytest tests/conformance --aim 127.0.0.1:5300 --policy-hook ./load-policy
```

The hook is called as `./load-policy ZONEFILE UPSTREAM`. It must make the resolver

* enforce the RPZ zone `policy.rpz` of that file,
* forward all other names to `UPSTREAM` (`127.0.0.1:PORT`, which answers while the tests run), and
* refuse clients with other addresses than 127.0.0.1 and ::1.

It returns 0 when that is in effect. Without a hook, the policy must be in effect already. Each failing test
is a difference.

`tests/conformance/differences.yaml` lists the known differences of the two. A run against them fails on an
unknown difference, and on a known one that is gone.

"Trap 4" in a docstring refers to section 4 of this page. A row without sources has those of its section.
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
            "DS",
            "ECS",
            "IPv4",
            "IPv6",
            "JSON",
            "NAT64",
            "NSEC",
            "NODATA",
            "NOTIFY",
            "NXDOMAIN",
            "OPT",
            "RA",
            "RCODE",
            "RESINFO",
            "RRset",
            "SERVFAIL",
            "SIGHUP",
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
    """The content of a peer's cell."""
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
    """The content of docs/conformance.md."""
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
    parts = [part.read_text(encoding="utf-8") for part in (RPZ, FUZZING)]
    return "\n".join([text, *parts])


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        sys.stdout.write(page())
    else:
        PAGE.write_text(page(), encoding="utf-8")
