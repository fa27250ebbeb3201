"""The base class of output dataclasses that behave like a tuple of their fields."""

import functools
from collections.abc import Iterator
from typing import Any, TypeVar, overload

Kind = TypeVar("Kind", bound="type[Record]")


class Record:
    """A dataclass with iteration, unpacking, indexing and `len` like a tuple of its fields.

    It is not a tuple: two records are equal only if they are the same object.
    """

    __slots__ = ()
    __dataclass_fields__: Any

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self._values()[index]


def gatherable(kind: Kind) -> Kind:
    """Let a record be constructed from a `map` over its fields, as `nn.DataParallel` does."""
    made: Any = kind
    make = made.__init__

    def __init__(self: Record, *values: Any, **named: Any) -> None:
        if len(values) == 1 and isinstance(values[0], map):
            values = tuple(values[0])
        make(self, *values, **named)

    made.__init__ = functools.wraps(make)(__init__)
    return kind
