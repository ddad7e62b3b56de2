"""What DWARF says of where a variable is, as something that a probe can fetch.

A location expression is run on a stack of what is known before anything runs: a register plus a constant,
a word fetched from such a place, the address of a symbol, or a number.

Reference: DWARF 5, 2.5 (expressions), 2.6 (locations).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

from blkproof.harness.probes.ctype import CType, Scalar
from blkproof.harness.probes.term import ExpressionError, Piece, Term

_REGISTERS: Final = (
    *("%ax", "%dx", "%cx", "%bx", "%si", "%di", "%bp", "%sp"),
    *(f"%r{number}" for number in range(8, 16)),
)
"""Of DWARF's numbers on AMD64, in the words of ``kprobe_events``."""
_PIECE: Final = "DW_OP_piece"
_ADDRESS: Final = (1 << 64) - 1


class Operation(Protocol):
    """One operation of a location expression, as pyelftools gives it."""

    op_name: str
    args: list[Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """What expressions refer to.

    ``base`` is the expression of the frame's base, ``canonical`` the register and offset of its canonical
    address, ``symbol`` gives name and offset of an address, ``variable`` what a DIE at an offset describes.
    """

    base: Callable[[], Sequence[Operation]]
    canonical: Callable[[], tuple[int, int]]
    symbol: Callable[[int], tuple[str, int]]
    variable: Callable[[int], Term]


@dataclass(frozen=True, slots=True)
class _Word:
    """``offset`` plus what ``fetch`` gives: a register, a word from memory, ``&symbol``; or just a number."""

    fetch: str
    offset: int = 0

    def plus(self, number: int) -> _Word:
        return replace(self, offset=_signed(self.offset + number))

    def loaded(self, kind: CType) -> _Word:
        return _Word(Term(self.fetch, kind, place=True, offset=self.offset).render())


def locate(operations: Sequence[Operation], kind: CType, frame: Frame) -> Term:
    """Return a variable of type ``kind`` as a place or value.

    :raise ExpressionError: when it's nowhere, or where a probe can't fetch it.
    """
    if not operations:
        raise ExpressionError("was optimised away")
    if any(operation.op_name == _PIECE for operation in operations):
        return Term("", kind, place=True, pieces=tuple(_pieces(operations, frame)))
    return _Machine(kind, frame).run(operations)


def _pieces(operations: Sequence[Operation], frame: Frame) -> Iterator[Piece]:
    start, pending = 0, list[Operation]()
    for operation in operations:
        if operation.op_name != _PIECE:
            pending.append(operation)
            continue
        size = operation.args[0]
        kind = Scalar(f"{size} bytes", size, signed=False)
        yield Piece(start, size, _Machine(kind, frame).run(pending) if pending else None)
        start, pending = start + size, []


class _Machine:
    def __init__(self, kind: CType, frame: Frame) -> None:
        self._kind, self._frame = kind, frame
        self._stack: list[_Word] = []

    def run(self, operations: Sequence[Operation]) -> Term:
        first = operations[0]
        if (number := _numbered(first, "DW_OP_reg")) is not None and len(operations) == 1:
            return Term(_register(number), self._kind)
        if first.op_name == "DW_OP_implicit_value":
            return self._value(_Word("", int.from_bytes(bytes(first.args[0]), "little")))
        if first.op_name.endswith("implicit_pointer"):
            return self._pointer(*first.args)
        last = operations[-1].op_name == "DW_OP_stack_value"
        for operation in operations[:-1] if last else operations:
            self._step(operation)
        top = self._pop()
        return self._value(top) if last else self._place(top)

    def _value(self, word: _Word) -> Term:
        if word.fetch:
            return Term(word.fetch, self._kind, offset=word.offset)
        return Term(f"\\{_signed(word.offset)}", self._kind)

    def _pointer(self, variable: int, offset: int) -> Term:
        return Term("", self._kind, offset=offset, pointee=partial(self._frame.variable, variable))

    def _place(self, word: _Word) -> Term:
        if not word.fetch:
            raise ExpressionError("is at a fixed address that is no symbol's")
        return Term(word.fetch, self._kind, place=True, offset=word.offset)

    def _step(self, operation: Operation) -> None:
        name, args = operation.op_name.removeprefix("DW_OP_"), operation.args
        if (number := _numbered(operation, "DW_OP_lit")) is not None:
            self._push(_Word("", number))
        elif (number := _numbered(operation, "DW_OP_breg")) is not None:
            self._push(_Word(_register(number), args[0]))
        elif name.startswith("const") and isinstance(args[0], int):
            self._push(_Word("", args[0]))
        elif name in _STEPS:
            _STEPS[name](self, *args)
        else:
            raise ExpressionError(_WHY.get(name, f"is computed in a way that a probe can't follow ({name})"))

    def _push(self, word: _Word) -> None:
        self._stack.append(word)

    def _pop(self) -> _Word:
        if not self._stack:
            raise ExpressionError("has a location that makes no sense")
        return self._stack.pop()

    def _constant(self) -> int:
        word = self._pop()
        if word.fetch:
            raise ExpressionError("is computed from two variables, which a probe can't")
        return word.offset

    def _addr(self, address: int) -> None:
        name, offset = self._frame.symbol(address)
        self._push(_Word(f"&{name}", offset))

    def _bregx(self, number: int, offset: int) -> None:
        self._push(_Word(_register(number), offset))

    def _fbreg(self, offset: int) -> None:
        for operation in self._frame.base():
            self._step(operation)
        self._push(self._pop().plus(offset))

    def _call_frame_cfa(self) -> None:
        number, offset = self._frame.canonical()
        self._push(_Word(_register(number), offset))

    def _plus_uconst(self, number: int) -> None:
        self._push(self._pop().plus(number))

    def _plus(self) -> None:
        one, other = self._pop(), self._pop()
        if one.fetch and other.fetch:
            raise ExpressionError("is computed from two variables, which a probe can't")
        self._push(one.plus(other.offset) if one.fetch else other.plus(one.offset))

    def _minus(self) -> None:
        number = self._constant()
        self._push(self._pop().plus(-number))

    def _deref(self) -> None:
        self._push(self._pop().loaded(self._kind))

    def _and(self) -> None:
        """Mask with what keeps all bits of the variable, which changes nothing: only those are fetched."""
        mask, wide = self._constant(), (1 << 8 * self._kind.size) - 1
        if mask & wide != wide:
            raise ExpressionError("is computed in a way that a probe can't follow (and)")

    def _nothing(self, *_: object) -> None:
        pass


_STEPS: Final[dict[str, Callable[..., None]]] = {
    "addr": _Machine._addr,
    "bregx": _Machine._bregx,
    "fbreg": _Machine._fbreg,
    "call_frame_cfa": _Machine._call_frame_cfa,
    "plus_uconst": _Machine._plus_uconst,
    "plus": _Machine._plus,
    "minus": _Machine._minus,
    "deref": _Machine._deref,
    "and": _Machine._and,
    "nop": _Machine._nothing,
}
_CALLERS: Final = "was passed in and overwritten since: only the caller knows it"
_WHY: Final = {
    "entry_value": _CALLERS,
    "GNU_entry_value": _CALLERS,
    "bit_piece": "is kept in pieces of bytes",
}
"""In plain words, what a probe can't fetch."""


def _numbered(operation: Operation, family: str) -> int | None:
    digits = operation.op_name.removeprefix(family)
    if operation.op_name.startswith(family) and digits.isdigit():
        return int(digits)
    return None


def _register(number: int) -> str:
    if number >= len(_REGISTERS):
        raise ExpressionError(f"is in DWARF's register {number}, which a probe can't fetch")
    return _REGISTERS[number]


def _signed(number: int) -> int:
    number &= _ADDRESS
    return number - (1 << 64) if number >> 63 else number
