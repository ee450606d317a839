"""A mapping of which copies share what they have not changed.

The orders in the ledger and their state are immutable objects. One more order makes new ones, which must not
cost a copy of the ten thousand orders before it.
"""

from collections.abc import ItemsView, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_GONE: Any = object()  # the value of a key that is in the base and was removed
_LEAST = 64  # changes that a copy copies; more are combined with the base


class SharedDict(MutableMapping[K, V]):
    """A dict in the sequence of its keys. A change of it changes no copy."""

    __slots__ = ("_count", "_parts")

    def __init__(self, content: Mapping[K, V] | None = None) -> None:
        base: dict[K, V] = {} if content is None else dict(content)
        # One attribute, so that other threads see both or neither.
        self._parts: tuple[dict[K, V], dict[K, V]] = (base, {})
        self._count = len(base)

    @classmethod
    def of(cls, content: Mapping[K, V]) -> "SharedDict[K, V]":
        """A copy of a mapping, which shares everything with it if it is one of these, too."""
        return content.copy() if isinstance(content, SharedDict) else cls(content)

    def copy(self) -> "SharedDict[K, V]":
        """A copy. Costs the changes since the last one that combined them, not the whole content."""
        base, own = self._parts
        if len(own) > max(_LEAST, len(base) // 32):
            base, own = self._combined(), {}
            self._parts = (base, own)
        new: SharedDict[K, V] = SharedDict()
        new._parts, new._count = (base, dict(own)), self._count
        return new

    def _combined(self) -> dict[K, V]:
        base, own = self._parts
        if not own:
            return base
        whole = {**base, **own}
        return {key: value for key, value in whole.items() if value is not _GONE}

    def __getitem__(self, key: K) -> V:
        base, own = self._parts
        if key in own:
            value = own[key]
            if value is _GONE:
                raise KeyError(key)
            return value
        return base[key]

    def get(self, key: K, default: Any = None) -> Any:
        """The value of a key."""
        base, own = self._parts
        value = own.get(key, base.get(key, default)) if own else base.get(key, default)
        return default if value is _GONE else value

    def __contains__(self, key: object) -> bool:
        base, own = self._parts
        if key in own:
            return own[key] is not _GONE
        return key in base

    def __setitem__(self, key: K, value: V) -> None:
        self._count += key not in self
        self._parts[1][key] = value

    def __delitem__(self, key: K) -> None:
        if key not in self:
            raise KeyError(key)
        base, own = self._parts
        if key in base:
            own[key] = _GONE
        else:
            del own[key]
        self._count -= 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[K]:
        return iter(self._combined())

    def keys(self) -> KeysView[K]:
        """The keys, as they are now."""
        return self._combined().keys()

    def values(self) -> ValuesView[V]:
        """The values, as they are now."""
        return self._combined().values()

    def items(self) -> ItemsView[K, V]:
        """The keys and values, as they are now."""
        return self._combined().items()

    def __repr__(self) -> str:
        return f"SharedDict({self._combined()!r})"


def editable(content: Mapping[K, V]) -> MutableMapping[K, V]:
    """A copy to change. A plain dict if there is nothing to share: faster for all the orders of a startup."""
    return SharedDict.of(content) if content else {}


def shared(content: MutableMapping[K, V]) -> SharedDict[K, V]:
    """An `editable` copy after its last change. Copies of it share its content."""
    return content if isinstance(content, SharedDict) else SharedDict(content)


class Lineage:
    """How a version of some orders came from earlier ones: the keys that each step has touched.

    Two versions differ at most in the keys that were touched since their last common one.
    """

    __slots__ = ("_steps",)
    _KEPT = 512  # steps

    def __init__(self, steps: tuple[tuple[object, frozenset[str]], ...] = ()) -> None:
        self._steps = steps or ((object(), frozenset[str]()),)  # the latest one first

    def then(self, touched: frozenset[str]) -> "Lineage":
        """The lineage of the next version."""
        return Lineage(((object(), touched), *self._steps[: self._KEPT - 1]))

    def between(self, other: "Lineage") -> set[str] | None:
        """The keys that may differ between two versions; None: they have no known version in common."""
        places = {id(token): place for place, (token, _) in enumerate(other._steps)}
        for own, (token, _) in enumerate(self._steps):
            if (place := places.get(id(token))) is not None:
                steps = (*self._steps[:own], *other._steps[:place])
                return {key for _, touched in steps for key in touched}
        return None
