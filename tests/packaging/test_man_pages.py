"""The man pages of `make man`: without errors, and with every command and option."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dnsblock.cli import main

ROOT = Path(__file__).parents[2]
PAGES = ("dnsblock.8", "dnsblock.yaml.5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("man") / "pages"
    command = ["make", "--no-print-directory", "man", f"MAN={made}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(file.name for file in made.iterdir()) == sorted(PAGES)
    return made


def shown(page: Path, width: int) -> str:
    """A page as man(1) shows it, and nothing on standard error."""
    done = subprocess.run(
        ["man", "--warnings", "--local-file", page],
        env={
            **os.environ,
            "MANWIDTH": str(width),
            "LC_ALL": "C.UTF-8",
            "MANPAGER": "cat",
            "GROFF_NO_SGR": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return re.sub(".\b", "", done.stdout)  # bold is a letter, a backspace and the letter again


@pytest.mark.parametrize("page", PAGES)
def test_man_shows_the_page_without_a_warning(folder: Path, page: str):
    """On a terminal of 80 columns; whatis(1) reads its first line."""
    text = shown(folder / page, 80)
    assert f"\nNAME\n       {page[:-2]} - " in text


@pytest.mark.parametrize("page", PAGES)
def test_mandoc_finds_no_error(folder: Path, page: str):
    """Alpine and the BSDs show man pages with mandoc."""
    assert shutil.which("mandoc"), "mandoc is missing: apt-get install mandoc"
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "error", folder / page], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")


def commands(group: click.Group, *before: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield " ".join([*before, name]), command


def test_the_page_of_the_program_has_every_command_and_every_option(folder: Path):
    """An administrator reads it without Internet access."""
    text = shown(folder / "dnsblock.8", 400)
    for name, command in commands(main):
        section = text.split(f"\n   dnsblock {name}\n", 1)[1].split("\n   dnsblock ")[0]
        options = [one for one in command.params if isinstance(one, click.Option)]
        for option in options:
            place = text if option.name in ("config_path", "as_json") else section
            assert all(one in place for one in option.opts), f"{name}: {option.name}"


@pytest.mark.parametrize(
    "heading", ["SYNOPSIS", "DESCRIPTION", "EXIT CODES", "ENVIRONMENT", "FILES", "SEE ALSO"]
)
def test_the_page_of_the_program_has_the_usual_sections(folder: Path, heading: str):
    """man-pages(7)."""
    assert f"\n{heading}\n" in shown(folder / "dnsblock.8", 80)


def test_the_page_of_the_configuration_has_every_option_of_the_file(folder: Path):
    """It is built from config/dnsblock.yaml."""
    text = " ".join(shown(folder / "dnsblock.yaml.5", 400).split())
    keys = re.findall(r"^ *([a-z0-9_]+):", (ROOT / "config" / "dnsblock.yaml").read_text(), re.MULTILINE)
    assert len(keys) > 60
    assert [key for key in keys if f"{key}:" not in text and key not in text.split()] == []
