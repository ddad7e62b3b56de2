"""C types as the probe compiler sees them, whichever debug format they were read from.

A type that contains others holds functions that make them, not the types: kernel types form cycles and
run to thousands, and a probe needs a few.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Scalar:
    """An integer, boolean, character or enumeration: its C name, size in bytes and signedness."""

    name: str
    size: int
    signed: bool


@dataclass(frozen=True, slots=True)
class Void:
    """No type: the target of ``void *`` and the result of a function that returns nothing."""

    name: str = "void"
    size: int = 0


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer to ``target()``."""

    target: Callable[[], CType]
    size: int = 8

    @property
    def name(self) -> str:
        """C name of the type."""
        return f"{self.target().name} *"


@dataclass(frozen=True, slots=True)
class Array:
    """``count`` elements; a flexible array member has 0."""

    element: Callable[[], CType]
    count: int

    @property
    def name(self) -> str:
        """C name of the type."""
        return f"{self.element().name}[{self.count}]"

    @property
    def size(self) -> int:
        """Bytes of the whole array."""
        return self.element().size * self.count


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or union: where it starts, in bits, and its width in bits if it's a bitfield."""

    name: str
    type: Callable[[], CType]
    bit_offset: int
    bit_size: int | None = None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A struct or union, with ``members()`` in their order; a member without a name is looked through."""

    name: str
    size: int
    members: Callable[[], tuple[Member, ...]] = field(repr=False)

    def find(self, wanted: str) -> Member | None:
        """Return the member of that name, also of an anonymous member, with its offset from the start."""
        for member in self.members():
            if member.name == wanted:
                return member
            if member.name or not isinstance(inner := member.type(), Aggregate):
                continue
            found = inner.find(wanted)
            if found is not None:
                return Member(found.name, found.type, member.bit_offset + found.bit_offset, found.bit_size)
        return None


CType: TypeAlias = "Scalar | Void | Pointer | Array | Aggregate"


@dataclass(frozen=True, slots=True)
class Function:
    """A function's parameters by name, in their order, and what it returns."""

    name: str
    parameters: tuple[tuple[str, CType], ...]
    returns: CType
