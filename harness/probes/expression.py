"""From a C expression over the variables at some place to what ``kprobe_events`` can fetch.

A subset of C, with C's meaning: ``->``, ``.``, ``*``, constant indices, casts, bitfields, numbers, and the
kernel's ``container_of``.  Three additions: ``$retval`` is the function's result; ``a[:11]`` or ``a[11:43]``
stands for those elements of an array (or of what a pointer points to), member access then going to each of
them; ``caller::name`` is, as in gdb, a variable of a function that this one was inlined into.  Offsets are
worked out here and nowhere written down.

Reference: Linux Documentation/trace/kprobetrace.rst (fetch arguments).
"""

from __future__ import annotations

import re
from typing import Final

from blkproof.harness.probes.ctype import Aggregate, CType, Pointer, Scalar
from blkproof.harness.probes.site import Site, TypeSource
from blkproof.harness.probes.term import ExpressionError, Term, Terms

_BUILTIN: Final = {
    f"{letter}{bits}": Scalar(f"{letter}{bits}", bits // 8, letter == "s")
    for letter in "us"
    for bits in (8, 16, 32, 64)
}
"""Type names for casts besides struct and union tags."""
_INT: Final = Scalar("int", 4, signed=True)
_TOKEN: Final = re.compile(r"\s*(\$retval|[A-Za-z_]\w*(?:::[A-Za-z_]\w*)?|-?\d+|->|[.,()*\[\]:])")


def evaluate(text: str, site: Site, source: TypeSource, *, returns: bool) -> Terms:
    """Return the places that an expression names: one, or one for each element of a slice.

    ``returns``: the probe fires when the function returns, where only ``$retval`` is left of it.
    """
    return _Parser(text, site, source, returns).parse()


class _Parser:
    """Recursive descent over one expression."""

    def __init__(self, text: str, site: Site, source: TypeSource, returns: bool) -> None:
        self._tokens = _tokens(text)
        self._site, self._source, self._returns = site, source, returns

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
        first = 0 if self._peek() == ":" else self._number()
        if self._peek() != ":":
            self._next("]")
            return tuple(term.element(first) for term in terms)
        self._next(":")
        end = self._number()
        self._next("]")
        if len(terms) > 1:
            raise ExpressionError("a slice of a slice")
        return tuple(terms[0].element(i) for i in range(first, end))

    def _number(self) -> int:
        number = self._next()
        if not number.isdigit():
            raise ExpressionError(f"{number!r} is no constant index")
        return int(number)

    def _container_of(self) -> Terms:
        """Parse the kernel's ``container_of(pointer, struct tag, member)``."""
        self._next("(")
        terms = self._unary()
        self._next(",")
        kind = self._type_name()
        self._next(",")
        name = self._next()
        self._next(")")
        if not isinstance(kind, Aggregate):
            raise ExpressionError(f"{kind.name} is no struct that could contain {name!r}")
        return tuple(term.container(kind, name) for term in terms)

    def _primary(self) -> Terms:
        word = self._next()
        if word == "(":
            inner = self._unary()
            self._next(")")
            return inner
        if word.lstrip("-").isdigit():
            return (Term(f"\\{word}", _INT),)
        if word == "$retval":
            if not self._returns or self._site.returns is None:
                raise ExpressionError("$retval needs a probe on the function's return")
            return (Term("$retval", self._site.returns),)
        if word == "container_of":
            return self._container_of()
        return (self._variable(word),)

    def _variable(self, name: str) -> Term:
        local = None if self._returns else self._site.variable(name)
        found = self._source.variable(name) if local is None else local
        if found is not None:
            return found
        if self._returns and name in self._site.variables:
            raise ExpressionError(f"{name!r} is gone when the function returns; only $retval is left")
        known = ", ".join(each for each in self._site.variables if "::" not in each)
        raise ExpressionError(
            f"{self._site.function}() has no parameter or variable {name!r}; it has {known}"
        )


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
