"""The lists that ship say what they say they do, in the format that their names tell."""

from dataclasses import replace
from pathlib import Path

import pytest

from dnsblock._engine import CompiledList
from dnsblock.lists.compile import Options, formats_of
from dnsblock.policy import ReadingProgress

LISTS = Path(__file__).parents[2] / "blocklists" / "lists"
EXAMPLES = sorted(path for path in LISTS.iterdir() if path.name != "plain-example.txt")


def compiled(path: Path) -> CompiledList:
    kind = path.name.partition("-")[0]
    options = Options.for_impact_run("subtree" if kind in ("hosts", "csv") else None)
    # A CSV file needs the format and column; all other formats are recognised.
    options = replace(options, format="csv", column=2) if kind == "csv" else options
    return options.compile([(path.name, str(path))], folder=None, before=None, progress=ReadingProgress())


def test_each_format_has_an_example():
    """Operators compare their list with the example."""
    assert len(EXAMPLES) == 8


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_all_examples_have_the_same_names_in_their_own_format(path: Path):
    """The same list in each format compiles to the same digest."""
    made = compiled(path)
    assert (formats_of(made), made.rejected) == (path.name.partition("-")[0], 0)
    assert made.names.entries == 2
    assert {made.names.scope(name) for name in ("example.com", "example.net")} == {"subtree"}
    assert made.names.digest == compiled(EXAMPLES[0]).names.digest


def test_every_line_of_the_plain_example_is_valid():
    """An example with invalid lines would teach them."""
    made = compiled(LISTS / "plain-example.txt")
    assert (formats_of(made), made.rejected) == ("plain", 0)
