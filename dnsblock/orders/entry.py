"""The entries of an order: a name each, and what an order says about it."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import NamedTuple, overload

from dnsblock.orders.schema import Match


class Entry(NamedTuple):
    """A name that an order blocks or exempts. A tuple, since there may be millions."""

    name: str  # canonical
    match: Match
    note: str | None = None
    answer: str | None = None  # an answer profile; None: that of the zone

    @property
    def is_plain(self) -> bool:
        """Whether it says nothing but the name and all below it."""
        return self[1:] == ("subtree", None, None)


class PlainEntries(Sequence[Entry]):
    """Entries that are all plain, as one text. Equal to a tuple of the same entries.

    Nearly all orders have only such ones. A million of them take the memory of their names, and a startup
    makes no object for each.
    """

    __slots__ = ("_count", "_names", "text")

    def __init__(self, text: str) -> None:
        """`text`: the canonical names, one per line, without a line end after the last one."""
        self.text = text
        self._count = text.count("\n") + 1 if text else 0
        self._names: list[str] | None = None  # made at the first look at a single entry

    @property
    def names(self) -> list[str]:
        """The names, in order."""
        return self.text.split("\n") if self.text else []

    def __iter__(self) -> Iterator[Entry]:
        plain = zip(self.names, repeat("subtree"), repeat(None), repeat(None), strict=False)
        return map(partial(tuple.__new__, Entry), plain)  # without a call in Python for each name

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if self._names is None:
            self._names = self.names
        if isinstance(index, slice):
            return tuple(Entry(name, "subtree") for name in self._names[index])
        return Entry(self._names[index], "subtree")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PlainEntries):
            return self.text == other.text
        return isinstance(other, tuple) and len(self) == len(other) and tuple(self) == other

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


OrderEntries = tuple[Entry, ...] | PlainEntries


def entries_of(entries: Iterable[Entry]) -> OrderEntries:
    """These entries, as one text if all are plain."""
    found = tuple(entries)
    if all(entry.is_plain for entry in found):
        return PlainEntries("\n".join(entry.name for entry in found))
    return found
