"""Makes the source folder of the Debian package: the files that debian/rules puts in place (`make deb`).

It runs in an environment of Debian's own Python, whose pip installs the dependencies. It needs nothing but
the standard library.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from email.parser import HeaderParser
from email.utils import format_datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = "/opt/dnsblock/bin/dnsblock"  # in the unit
MAINTAINER = "The dnsblock maintainers <dnsblock@localhost>"
EXAMPLES = ("config/dnsblock.yaml", "config/isp.yaml", "config/alerts.yaml", "config/grafana/dnsblock.json")
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


def main(tree: Path, wheel: Path, made: Path) -> None:
    """`made` has the folders `man` and `completion`, which other targets write."""
    shutil.copytree(
        ROOT / "config" / "debian", tree / "debian", ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    install(wheel, tree / "dnsblock")
    control = tree / "debian" / "control"
    control.write_text(control.read_text().replace(MAINTAINER, maintainer()))
    (tree / "debian" / "changelog").write_text(changelog())
    (tree / "debian" / "copyright").write_text(copyrights(tree / "dnsblock"))
    unit = (ROOT / "config" / "dnsblock.service").read_text()
    (tree / "debian" / "dnsblock.service").write_text(unit.replace(PROGRAM, "/usr/bin/dnsblock"))
    shutil.move(tree / "debian" / "dnsblock.yaml", tree)
    shutil.copy(ROOT / "CHANGELOG.md", tree)
    (tree / "examples").mkdir()
    for example in EXAMPLES:
        shutil.copy(ROOT / example, tree / "examples")
    for folder in ("man", "completion"):
        shutil.copytree(made / folder, tree / folder)


def install(wheel: Path, prefix: Path) -> None:
    """An environment without pip, with no path of this machine: it is used at /usr/lib/dnsblock."""
    packages = prefix / "lib" / PYTHON / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", packages]
    # By name and version: pip would record the path of a file.
    name, version = wheel.name.split("-")[:2]
    command = [*pip, "--find-links", wheel.parent, f"{name}=={version}"]
    subprocess.run(command, check=True)  # noqa: S603  # pip, with our own arguments
    shutil.rmtree(packages / "bin")
    for file in packages.rglob("*.*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    for record in packages.glob("*.dist-info/RECORD"):
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if (packages / line.split(",")[0]).exists()))
    for bill in packages.glob("dnsblock-*/sboms/*.json"):
        bill.write_text(re.sub(r'path\+file://[^"#]*/', "path+file:///", bill.read_text()))
    (prefix / "bin").mkdir()
    program = prefix / "bin" / "dnsblock"
    program.write_text("#!/usr/lib/dnsblock/bin/python3 -I\nfrom dnsblock.start import main\n\nmain()\n")
    program.chmod(0o755)
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")


def changelog() -> str:
    """One entry. The Makefile sets the date: that of the commit, so that builds are equal."""
    at = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    return (
        f"dnsblock ({version(at)}) unstable; urgency=medium\n\n"
        "  * The changes are in /usr/share/doc/dnsblock/CHANGELOG.md.gz.\n\n"
        f" -- {maintainer()}  {format_datetime(at)}\n"
    )


def maintainer() -> str:
    """Who builds the package: dpkg's variables, or the project, which has no public address yet."""
    name, address = os.environ.get("DEBFULLNAME"), os.environ.get("DEBEMAIL")
    return f"{name} <{address}>" if name and address else MAINTAINER


def version(at: datetime) -> str:
    """Of the project, and of the Debian release. What is not released sorts by time, before the release.

    A package is for the Python of one Debian release. An upgrade to the next release needs the next package.
    """
    upstream = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    upstream = re.sub(r"(?<=\d)\.?(a|b|rc|dev)(?=\d)", r"~\1", upstream)
    heading = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if heading and "not released" in heading[1]:
        upstream += f"~{at:%Y%m%d.%H%M%S}"
    release = dict(re.findall(r'^(\w+)="?(.*?)"?$', Path("/etc/os-release").read_text(), re.MULTILINE))
    return f"{upstream}+{release['ID'].replace('debian', 'deb')}{release.get('VERSION_ID', '')}"


def copyrights(prefix: Path) -> str:
    """The licences of dnsblock and of all Python packages beside it."""
    rows = []
    for metadata in sorted(prefix.rglob("*.dist-info/METADATA")):
        fields = HeaderParser().parsestr(metadata.read_text())
        named = [
            text.split(" :: ")[-1] for text in fields.get_all("Classifier", []) if text.startswith("License")
        ]
        licence = (
            fields["License-Expression"]
            or ", ".join(named)
            or (fields["License"] or "see the files").split("\n")[0]
        )
        rows.append(f"  {fields['Name']} {fields['Version']}: {licence}")
    head = (ROOT / "config" / "debian" / "copyright").read_text()
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
