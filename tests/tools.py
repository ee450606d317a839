"""Names the programs that the tests need and this machine lacks, and what to install. Run by `make test`."""

import os
import shutil
import sys

# Program: the Debian package that has it.
TOOLS = {
    "curl": "curl",
    "dig": "bind9-dnsutils",
    "dnsdist": "dnsdist",
    "dnsperf": "dnsperf",
    "faketime": "faketime",
    "kdig": "knot-dnsutils",
    "named": "bind9",
    "pdns_recursor": "pdns-recursor",
    "promtool": "prometheus",
    "unbound": "unbound",
}

# An ordinary user's PATH often lacks the folders of servers.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
if missing:
    packages = " ".join(sorted(TOOLS[tool] for tool in missing))
    sys.exit(f"The tests need {', '.join(missing)}: apt-get install --no-install-recommends {packages}")
