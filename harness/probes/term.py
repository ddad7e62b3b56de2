"""Values and places that a probe can fetch, and what C does with them: ``->``, ``.``, ``[]``, casts.

Reference: Linux Documentation/trace/kprobetrace.rst (fetch arguments).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from blkproof.harness.probes.ctype import Aggregate, Array, CType, Pointer


class ExpressionError(Exception):
    """The expression doesn't parse or doesn't fit the types; says what is wrong, the caller says where."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a variable that is kept in pieces: its first byte, how many, and where they are."""

    start: int
    size: int
    term: Term | None


@dataclass(frozen=True, slots=True)
class Term:
    """A value, or a place in memory that holds one.

    ``fetch`` is what the kernel fetches first, ``&symbol``, or a number behind a backslash.  A place is the
    memory ``offset`` bytes behind the address fetched; a value that isn't a place is what was fetched plus
    ``offset``.  ``bits`` is (shift, width) of a bitfield.  Of a variable in ``pieces``, ``offset`` counts
    from its own start.  ``pointee`` stands for a pointer that is nowhere, to a variable that is known.
    """

    fetch: str
    type: CType
    place: bool = False
    offset: int = 0
    bits: tuple[int, int] | None = None
    pieces: tuple[Piece, ...] = ()
    pointee: Callable[[], Term] | None = field(default=None, compare=False)

    def render(self) -> str:
        """Return the fetch argument, without its type."""
        if self.pointee:
            raise ExpressionError("is a pointer that was optimised away, though not what it points to")
        if self.pieces:
            raise ExpressionError("is kept in pieces")
        if self.place and self.fetch.startswith("&"):
            return f"@{self.fetch[1:]}" + (f"{self.offset:+d}" if self.offset else "")
        if self.place:
            return f"{self.offset:+d}({self.fetch})"
        if self.fetch.startswith("&"):
            raise ExpressionError("is the address of a variable, which can't be fetched as a value")
        if self.offset:
            raise ExpressionError("is an address inside a struct, which can't be fetched as a value")
        return self.fetch

    def split(self) -> tuple[Term, int]:
        """Return an address inside a struct as what can be fetched, and what is to be added to that."""
        if self.place or not self.offset or self.pointee or self.fetch.startswith("&"):
            return self, 0
        return replace(self, offset=0), self.offset

    def target(self, offset: int = 0) -> Term:
        """Return the place that a pointer points to or at which an array starts."""
        if isinstance(self.type, Array) and self.place:
            return replace(self, type=self.type.element(), offset=self.offset + offset)._settled()
        if not isinstance(self.type, Pointer):
            raise ExpressionError(f"{self.type.name} is no pointer")
        if self.pointee:
            return replace(self.pointee(), type=self.type.target())._behind(self.offset + offset)
        if self.fetch.startswith("\\"):
            raise ExpressionError("is a constant here and points to nothing")
        if self.place:
            return Term(self.render(), self.type.target(), place=True, offset=offset)
        return Term(self.fetch, self.type.target(), place=True, offset=self.offset + offset)

    def member(self, name: str) -> Term:
        """Return a member of a struct or union."""
        if not isinstance(self.type, Aggregate):
            raise ExpressionError(f"{self.type.name} has no members, so no {name!r}")
        member = self.type.find(name)
        if member is None:
            known = ", ".join(m.name for m in self.type.members() if m.name)
            raise ExpressionError(f"{self.type.name} has no member {name!r}; it has {known}")
        if not self.place:
            if member.bit_offset or member.bit_size:
                raise ExpressionError(f"{self.type.name} is in a register: only its first member can be had")
            return replace(self, type=member.type())
        at = self.offset + member.bit_offset // 8
        bits = None if member.bit_size is None else (member.bit_offset % 8, member.bit_size)
        return replace(self, type=member.type(), offset=at, bits=bits)._settled()

    def element(self, index: int) -> Term:
        """Return one element of an array or of what a pointer points to."""
        return self.target(index * self.target().type.size)

    def container(self, kind: Aggregate, name: str) -> Term:
        """Return a pointer to the struct whose member ``name`` this pointer points to."""
        member = kind.find(name)
        if member is None or member.bit_size is not None:
            raise ExpressionError(f"{kind.name} has no member {name!r} that can be pointed to")
        target = self.target()
        if target.pieces or not target.place:
            raise ExpressionError("is in no memory, so no struct contains it")
        return Term(target.fetch, Pointer(lambda: kind), offset=target.offset - member.bit_offset // 8)

    def _behind(self, offset: int) -> Term:
        """Return what is so many bytes further on."""
        if offset and not self.place:
            raise ExpressionError("is in the middle of a register")
        return replace(self, offset=self.offset + offset)._settled()

    def _settled(self) -> Term:
        """Return where a number is that is part of a variable in pieces; a struct may still lead to one."""
        if not self.pieces or isinstance(self.type, Aggregate | Array):
            return self
        for piece in self.pieces:
            within = self.offset - piece.start
            if within >= 0 and within + self.type.size <= piece.size:
                if piece.term is None:
                    raise ExpressionError("was optimised away")
                return replace(piece.term, type=self.type, bits=self.bits)._behind(within)
        raise ExpressionError("is kept in pieces")

    def cast(self, to: CType) -> Term:
        """Return the same value as another type of at most the same size."""
        if self.bits is not None:
            raise ExpressionError("a bitfield can't be cast")
        if isinstance(self.type, Array) and isinstance(to, Pointer):
            return replace(self, type=to, place=False)
        if to.size > self.type.size and not self.fetch.startswith("\\"):
            raise ExpressionError(f"{self.type.name} can't be cast to the wider {to.name}")
        return replace(self, type=to)


Terms = tuple[Term, ...]
