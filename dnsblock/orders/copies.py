"""Copies of frozen objects with other values, in less than half the time of `dataclasses.replace`.

A startup makes several for each of ten thousand orders.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from itertools import repeat
from operator import attrgetter, call
from typing import Any, TypeVar

T = TypeVar("T")


def replaced(value: T, **changes: Any) -> T:
    """The same as `dataclasses.replace`, for a dataclass with slots and without `__post_init__`.

    Raises `TypeError` for a field that does not exist.
    """
    new = object.__new__(type(value))
    kind: Any = type(value)
    read, writers = _slots(kind)
    # All fields without a step in Python for each, then the others once more.
    deque(map(call, writers.values(), repeat(new), read(value)), maxlen=0)
    for name, changed in changes.items():
        if name not in writers:
            raise TypeError(f"no field of {kind.__name__}: {name}")
        writers[name](new, changed)
    return new


@cache
def _slots(kind: type) -> tuple[Callable[[Any], tuple[Any, ...]], dict[str, Callable[[Any, Any], None]]]:
    """How all fields are read at once, and how each is written. The class has at least two."""
    names = [field.name for field in fields(kind)]
    return attrgetter(*names), {name: kind.__dict__[name].__set__ for name in names}
