"""The navigation of the site, and the generated parts of its pages.

A page has a comment `<!-- generated: NAME -->` where the site has a generated part. On a plain Git host, the
comment is not visible, and the sentence above it says where the content is.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

from dnsblock.cli import main

from . import commands, interface, options

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)  # on a line of its own

# The pages of each reader, in the order of the navigation.
NAVIGATION = {
    "Start": ["README", "docs/comparison"],
    "For operators": [
        "docs/operations",
        "docs/kubernetes",
        "docs/runbook",
        "docs/console",
        "docs/dashboard",
        "docs/dnstap",
        "docs/lists",
        "docs/guards",
        "docs/policy-zones",
        "docs/zone-transfer",
        "docs/export",
        "docs/landing",
        "docs/query-counts",
        "docs/probe",
        "docs/ledger",
        "docs/fleet-tree",
        "docs/completion",
    ],
    "For ministries": [
        "docs/ministries",
        "docs/orders",
        "docs/signatures",
        "docs/api",
        "docs/webhooks",
        "docs/telegram",
        "blocklists/README",
    ],
    "Bahasa Indonesia": ["docs/id/index", "docs/id/kementerian"],
    "Reference": ["docs/configuration", "docs/commands", "docs/api-reference", "docs/metrics", "CHANGELOG"],
    "Security and privacy": ["docs/threat-model", "docs/privacy", "docs/transparency", "SECURITY"],
    "For developers": ["CONTRIBUTING", "docs/architecture", "docs/conformance", "docs/performance"],
}
TITLES = {"README": "Quick start", "docs/id/index": "Halaman awal"}  # if not the heading of the page
INDEX = "docs/index"
OTHER = "For operators"  # where a page appears that is not listed


def sources() -> list[str]:
    """Every page of the site, without its extension."""
    files = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("docs/*/*.md"),
        ROOT / "blocklists/README.md",
    ]
    return sorted(str(file.relative_to(ROOT).with_suffix("")) for file in files)


def navigation() -> str:
    """A table of contents for each reader. Every page is in one."""
    there = sources()
    listed = {page for pages in NAVIGATION.values() for page in pages} | {INDEX}
    blocks = []
    for reader, pages in NAVIGATION.items():
        shown = [page for page in pages if page in there]
        shown += [page for page in there if page not in listed and reader == OTHER]
        lines = "\n".join(f"{TITLES[page]} </{page}>" if page in TITLES else f"/{page}" for page in shown)
        blocks.append(f"```{{toctree}}\n:hidden:\n:caption: {reader}\n\n{lines}\n```\n")
    return "\n".join(blocks)


PARTS: dict[str, Callable[[], str]] = {
    "commands": lambda: commands.reference(main),
    "common-options": lambda: commands.common_options(main),
    "exit-codes": commands.exit_codes,
    "options": lambda: options.reference((ROOT / "config" / "dnsblock.yaml").read_text()),
    "api": lambda: interface.reference(json.loads((ROOT / "docs" / "openapi.json").read_text())),
    "navigation": navigation,
}


def filled(text: str) -> str:
    """A page with its generated parts."""
    return PLACE.sub(lambda found: PARTS[found[1]](), text)
