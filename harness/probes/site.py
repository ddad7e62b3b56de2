"""Where a probe may sit, and what can be read there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from blkproof.harness.probes.ctype import Aggregate, CType, Function
from blkproof.harness.probes.term import ExpressionError, Term

_REGISTERS: Final = ("%di", "%si", "%dx", "%cx", "%r8", "%r9")
"""Where the first six integer or pointer parameters are at function entry (System V ABI, AMD64)."""
_WORD: Final = 8
"""Bytes of a register."""


@dataclass(frozen=True, slots=True)
class Site:
    """One instruction of a function or of an inlined copy of it.

    ``place`` is a symbol, or a symbol and an offset in bytes that was read from debug information.
    ``variables`` are those that the source shows there; one may raise ExpressionError when asked for,
    since the compiler keeps it nowhere.  ``returns`` is the function's type, and None where no return can
    be probed.
    """

    function: str
    place: str
    variables: Mapping[str, Callable[[], Term]]
    returns: CType | None = None

    def variable(self, name: str) -> Term | None:
        """Return where a parameter or local variable is, None if there is none of that name."""
        found = self.variables.get(name)
        return None if found is None else found()


class TypeSource(Protocol):
    """Debug information of the kernel or of one module, in whichever format."""

    def sites(self, function: str, at: str) -> Sequence[Site]:
        """Return where to probe a function: its entry, or where it has the words ``at``; all its copies.

        :raise ExpressionError: when there is no such place; says why.
        """

    def aggregate(self, name: str) -> Aggregate | None:
        """Return the complete struct or union of that tag, or None."""

    def variable(self, name: str) -> Term | None:
        """Return a global variable, or None."""


def entry(function: Function) -> Site:
    """Return the entry of a function that is a symbol, its parameters where the ABI puts them."""
    places = {name: partial(_parameter, function, name) for name, _ in function.parameters}
    return Site(function.name, function.name, places, function.returns)


def _parameter(function: Function, name: str) -> Term:
    for at, (label, kind) in enumerate(function.parameters):
        if kind.size > _WORD:
            raise ExpressionError(f"parameter {label!r} of {kind.size} bytes is not passed in one register")
        if label == name:
            if at >= len(_REGISTERS):
                raise ExpressionError(f"parameter {name!r} is passed on the stack")
            return Term(_REGISTERS[at], kind)
    raise KeyError(name)
