"""The Debian package of `make deb`: what is in it, and what must not be."""

import configparser
import gzip
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from debian import make_deb, run, unpack
from running import ROOT

pytestmark = pytest.mark.timeout(3600)
LIBRARY = "usr/lib/dnsblock"


@pytest.fixture(scope="module")
def content(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(package, tmp_path_factory.mktemp("content") / "files")


def control(content: Path) -> dict[str, str]:
    text = (content / "DEBIAN" / "control").read_text()
    parser = configparser.RawConfigParser(delimiters=(":",))
    parser.read_string(f"[package]\n{text}")
    return dict(parser["package"])


def test_lintian_finds_no_error_and_no_warning(package: Path):
    """Debian's own check. Each override has its reason beside it."""
    done = run("lintian", "--profile=debian", "--fail-on=error,warning", "--allow-root", package)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_version_is_that_of_the_project_for_this_debian_release(content: Path):
    """The next Debian release needs another package: for its Python, and with a higher version."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    found = control(content)["version"]
    assert found.startswith(version)
    for higher in (f"{version}+deb99", "99"):
        assert run("dpkg", "--compare-versions", found, "lt", higher).returncode == 0
    python = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True
    )
    major, minor = map(int, python.stdout.split())
    assert f"python3 (>= {major}.{minor}~), python3 (<< {major}.{minor + 1})" in control(content)["depends"]
    assert "libc6 (>= " in control(content)["depends"]


def test_the_configuration_is_a_conffile(content: Path):
    """dpkg keeps an administrator's changes of conffiles. Nothing else is in /etc."""
    listed = (content / "DEBIAN" / "conffiles").read_text().splitlines()
    installed = [f"/{file.relative_to(content)}" for file in (content / "etc").rglob("*") if file.is_file()]
    assert listed == installed == ["/etc/dnsblock/dnsblock.yaml"]
    assert (content / "etc/dnsblock/orders").is_dir()
    assert (content / "etc/dnsblock/lists").is_dir()


def test_the_unit_is_that_of_the_project_with_the_path_of_the_package(content: Path):
    """One source: a change of the unit reaches both ways to install."""
    (unit,) = content.rglob("dnsblock.service")
    ours = (ROOT / "config" / "dnsblock.service").read_text()
    assert unit.read_text() == ours.replace("/opt/dnsblock/bin/dnsblock", "/usr/bin/dnsblock")
    assert (content / "usr/bin/dnsblock").readlink() == Path("../lib/dnsblock/bin/dnsblock")


@pytest.mark.parametrize(
    "path",
    [
        "usr/lib/sysctl.d/10-dnsblock.conf",
        "usr/lib/sysusers.d/dnsblock.conf",
        "usr/share/bash-completion/completions/dnsblock",
        "usr/share/doc/dnsblock/CHANGELOG.md.gz",
        "usr/share/doc/dnsblock/README.Debian",
        "usr/share/doc/dnsblock/changelog.gz",
        "usr/share/doc/dnsblock/copyright",
        "usr/share/doc/dnsblock/examples/alerts.yaml",
        "usr/share/doc/dnsblock/examples/dnsblock.json",
        "usr/share/doc/dnsblock/examples/dnsblock.yaml",
        "usr/share/doc/dnsblock/examples/isp.yaml",
        "usr/share/fish/vendor_completions.d/dnsblock.fish",
        "usr/share/man/man5/dnsblock.yaml.5.gz",
        "usr/share/man/man8/dnsblock.8.gz",
        "usr/share/zsh/vendor-completions/_dnsblock",
    ],
)
def test_the_package_has_what_a_package_of_debian_has(content: Path, path: str):
    """In the folders where Debian's programs look for it."""
    assert (content / path).stat().st_size > 0


def test_no_file_names_a_folder_of_the_build(content: Path, package: Path, wheel: Path):
    """Such a path would be wrong on every other machine, and it tells about the one of the build."""
    folders = [str(folder).encode() for folder in (ROOT, package.parent, wheel.parents[1])]
    for file in content.rglob("*"):
        if file.is_file() and not file.is_symlink():
            found = file.read_bytes()
            assert not any(folder in found for folder in folders), file


def test_nothing_that_builds_is_in_the_package(content: Path):
    """pip and compiled Python files: apt installs here, and the package compiles on the server."""
    (packages,) = (content / LIBRARY / "lib").glob("python3*/site-packages")
    names = {path.name.split("-")[0] for path in packages.glob("*.dist-info")}
    assert {"click", "cryptography", "dnsblock", "pydantic"} <= names
    assert not names & {"maturin", "pip", "setuptools", "wheel"}
    assert not [*content.rglob("*.pyc"), *content.rglob("direct_url.json")]
    assert {path.name for path in (content / LIBRARY / "bin").iterdir()} == {"dnsblock", "python3"}


def test_the_copyright_file_names_every_python_package_and_its_licence(content: Path):
    """The package distributes them all."""
    text = (content / "usr/share/doc/dnsblock/copyright").read_text()
    for metadata in content.rglob("*.dist-info/METADATA"):
        name = next(line for line in metadata.read_text().splitlines() if line.startswith("Name: ")).split()[
            1
        ]
        (row,) = [line for line in text.splitlines() if line.startswith(f"  {name} ")]
        assert row.partition(": ")[2], row


def test_a_second_build_in_another_folder_makes_the_same_package(package: Path, wheel: Path, tmp_path: Path):
    """Anyone can build it again and compare. The man pages are not built again here: see the next test."""
    for folder in ("man", "completion"):
        shutil.copytree(package.parent / folder, tmp_path / folder)
    again = make_deb(tmp_path, wheel, "--old-file=man", "--old-file=completion")
    assert again.name == package.name
    assert again.read_bytes() == package.read_bytes()


def test_the_date_in_the_package_is_that_of_the_commit(content: Path):
    """Otherwise a build of another day would differ."""
    form = ["--format=%cd", "--date=format-local:%b %d, %Y|%a, %d %b %Y %H:%M:%S +0000"]
    committed = subprocess.run(
        ["git", "log", "-1", *form], cwd=ROOT, env=os.environ | {"TZ": "UTC"}, capture_output=True, text=True
    )
    day, time = committed.stdout.strip().split("|")
    with gzip.open(content / "usr/share/man/man8/dnsblock.8.gz", "rt") as page:
        assert f'.TH "DNSBLOCK" "8" "{day}"' in page.read()
    with gzip.open(content / "usr/share/doc/dnsblock/changelog.gz", "rt") as changelog:
        assert changelog.read().rstrip().endswith(f"  {time}")
