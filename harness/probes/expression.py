"""From a C expression over a function's parameters to what ``kprobe_events`` can fetch.

A subset of C, with C's meaning: ``->``, ``.``, ``*``, constant indices, casts, bitfields.  Two additions:
``$retval`` is the function's result, and ``a[:11]`` stands for the first 11 elements of an array (or of
what a pointer points to), member access then going to each of them.  Offsets are worked out here and
nowhere written down.

References: Linux Documentation/trace/kprobetrace.rst (fetch arguments); System V ABI, AMD64 (registers).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from blkproof.harness.probes.ctype import Aggregate, Array, CType, Function, Pointer, Scalar, TypeSource

_REGISTERS: Final = ("%di", "%si", "%dx", "%cx", "%r8", "%r9")
"""Where the first six integer or pointer parameters are at function entry."""
_WORD: Final = 8
"""Bytes of a register."""
_BUILTIN: Final = {
    f"{letter}{bits}": Scalar(f"{letter}{bits}", bits // 8, letter == "s")
    for letter in "us"
    for bits in (8, 16, 32, 64)
}
"""Type names for casts besides struct and union tags."""
_TOKEN: Final = re.compile(r"\s*(\$retval|[A-Za-z_]\w*|\d+|->|[.()*\[\]:])")


class ExpressionError(Exception):
    """The expression doesn't parse or doesn't fit the types; says what is wrong, the caller says where."""


@dataclass(frozen=True, slots=True)
class Term:
    """A value, or a place in memory that holds one.

    ``fetch`` is what the kernel fetches first.  A place is the memory ``offset`` bytes behind the address
    fetched; a value that isn't a place is what was fetched plus ``offset``.  ``bits`` is (shift, width) of
    a bitfield.
    """

    fetch: str
    type: CType
    place: bool = False
    offset: int = 0
    bits: tuple[int, int] | None = None

    def render(self) -> str:
        """Return the fetch argument, without its type."""
        if self.place:
            return f"{self.offset:+d}({self.fetch})"
        if self.offset:
            raise ExpressionError("is an address inside a struct, which can't be fetched as a value")
        return self.fetch

    def target(self, offset: int = 0) -> Term:
        """Return the place that a pointer points to or at which an array starts."""
        if isinstance(self.type, Array) and self.place:
            return replace(self, type=self.type.element(), offset=self.offset + offset)
        if not isinstance(self.type, Pointer):
            raise ExpressionError(f"{self.type.name} is no pointer")
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
        return replace(self, type=member.type(), offset=at, bits=bits)

    def element(self, index: int) -> Term:
        """Return one element of an array or of what a pointer points to."""
        return self.target(index * self.target().type.size)

    def cast(self, to: CType) -> Term:
        """Return the same value as another type of at most the same size."""
        if self.bits is not None:
            raise ExpressionError("a bitfield can't be cast")
        if isinstance(self.type, Array) and isinstance(to, Pointer):
            return replace(self, type=to, place=False)
        if to.size > self.type.size:
            raise ExpressionError(f"{self.type.name} can't be cast to the wider {to.name}")
        return replace(self, type=to)


Terms = tuple[Term, ...]


def evaluate(text: str, function: Function, source: TypeSource, *, returns: bool) -> Terms:
    """Return the places that an expression names: one, or one for each element of a slice.

    ``returns``: the probe fires when the function returns, where only ``$retval`` is left of it.
    """
    return _Parser(text, function, source, returns).parse()


def parameter(function: Function, name: str) -> Term:
    """Return where a parameter is at function entry."""
    for at, (label, kind) in enumerate(function.parameters):
        if kind.size > _WORD:
            raise ExpressionError(f"parameter {label!r} of {kind.size} bytes is not passed in one register")
        if label == name:
            if at >= len(_REGISTERS):
                raise ExpressionError(f"parameter {name!r} is passed on the stack")
            return Term(_REGISTERS[at], kind)
    known = ", ".join(label for label, _ in function.parameters)
    raise ExpressionError(f"{function.name}() has no parameter {name!r}; it has {known}")


class _Parser:
    """Recursive descent over one expression."""

    def __init__(self, text: str, function: Function, source: TypeSource, returns: bool) -> None:
        self._tokens = _tokens(text)
        self._function, self._source, self._returns = function, source, returns

    def parse(self) -> Terms:
        terms = self._unary()
        if self._tokens:
            raise ExpressionError(f"unexpected {self._tokens[0]!r}")
        return terms

    def _next(self, wanted: str | None = None) -> str:
        found = self._tokens.pop(0) if self._tokens else "the end"
        if found == "the end" or (wanted is not None and found != wanted):
            raise ExpressionError(f"unexpected {found!r}" + (f", expected {wanted!r}" if wanted else ""))
        return found

    def _peek(self, ahead: int = 0) -> str:
        return self._tokens[ahead] if len(self._tokens) > ahead else ""

    def _unary(self) -> Terms:
        if self._peek() == "*":
            self._next()
            return tuple(term.target() for term in self._unary())
        if self._peek() == "(" and (self._peek(1) in ("struct", "union") or self._peek(1) in _BUILTIN):
            self._next()
            kind = self._type_name()
            self._next(")")
            return tuple(term.cast(kind) for term in self._unary())
        return self._postfix()

    def _type_name(self) -> CType:
        word = self._next()
        kind: CType | None = _BUILTIN.get(word)
        if kind is None:
            tag = self._next()
            kind = self._source.aggregate(tag)
            if kind is None:
                raise ExpressionError(f"there is no {word} {tag}")
        while self._peek() == "*":
            self._next()
            kind = _pointer(kind)
        return kind

    def _postfix(self) -> Terms:
        terms = self._primary()
        while self._peek() in ("->", ".", "["):
            operator = self._next()
            if operator == "[":
                terms = self._subscript(terms)
                continue
            name = self._next()
            if operator == "->":
                terms = tuple(term.target() for term in terms)
            terms = tuple(term.member(name) for term in terms)
        return terms

    def _subscript(self, terms: Terms) -> Terms:
        sliced = self._peek() == ":"
        if sliced:
            self._next()
        number = self._next()
        if not number.isdigit():
            raise ExpressionError(f"{number!r} is no constant index")
        self._next("]")
        if not sliced:
            return tuple(term.element(int(number)) for term in terms)
        if len(terms) > 1:
            raise ExpressionError("a slice of a slice")
        return tuple(terms[0].element(i) for i in range(int(number)))

    def _primary(self) -> Terms:
        word = self._next()
        if word == "(":
            inner = self._unary()
            self._next(")")
            return inner
        if word == "$retval":
            if not self._returns:
                raise ExpressionError("$retval needs a probe on the function's return")
            return (Term("$retval", self._function.returns),)
        if self._returns:
            raise ExpressionError(f"{word!r} is gone when the function returns; only $retval is left")
        return (parameter(self._function, word),)


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"{text[at:].strip()[:1]!r} is no part of an expression")
        found.append(match[1])
        at = match.end()
    return found


def _pointer(kind: CType) -> Pointer:
    return Pointer(lambda: kind)
