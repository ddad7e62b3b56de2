"""Reader of BTF, the kernel's own compact type format (a raw ``.BTF`` section).

References: Linux Documentation/bpf/btf.rst; ``include/uapi/linux/btf.h`` (names below are from there).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Final, Self

from blkproof.harness.probes.ctype import Aggregate, Array, CType, Function, Member, Pointer, Scalar, Void
from blkproof.harness.probes.errors import ProbeError
from blkproof.harness.probes.site import Site, entry
from blkproof.harness.probes.term import ExpressionError
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("<HBBIIIII")
"""struct btf_header: magic, version, flags, hdr_len, type_off, type_len, str_off, str_len."""
_TYPE: Final = struct.Struct("<III")
"""struct btf_type: name_off, info, and size or type."""
_PAIR: Final = struct.Struct("<II")
"""struct btf_param: name_off, type."""
_TRIPLE: Final = struct.Struct("<III")
"""struct btf_array: type, index_type, nelems; struct btf_member: name_off, type, offset."""

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD = range(1, 8)
_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO = range(8, 14)
_VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(14, 20)

_EXTRA: Final = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
"""Bytes that follow the struct btf_type of a kind."""
_EXTRA_EACH: Final = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
"""The same for kinds with ``vlen`` entries: bytes of one entry."""
_TRANSPARENT: Final = frozenset({_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG, _FUNC})
_INT_SIGNED: Final = 1


class Btf:
    """Types and functions of one kernel image, or of one of its modules, looked up by name.

    :raise ProbeError: when the file is no little-endian BTF or is cut off.
    """

    def __init__(self, path: Path, data: bytes | None = None, base: Btf | None = None) -> None:
        data = path.read_bytes() if data is None else data
        try:
            magic, _version, _flags, length, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
        except struct.error:
            raise ProbeError(f"{path}: too short to be a BTF section") from None
        if magic != _MAGIC:
            raise ProbeError(f"{path}: no BTF section (magic {magic:#x} instead of {_MAGIC:#x})")
        if len(data) < length + max(type_off + type_len, str_off + str_len):
            raise ProbeError(f"{path}: BTF section is cut off")
        # A module's section goes on where the kernel's ends, in its types and in its strings.
        self._first = len(base._offsets) if base else 0
        before = (base._types, base._strings) if base else (b"", b"")
        self._types: bytes = before[0] + data[length + type_off : length + type_off + type_len]
        self._strings: bytes = before[1] + data[length + str_off : length + str_off + str_len]
        self._made: dict[int, CType] = {}

    @classmethod
    def of_module(cls, path: Path, kernel: Btf) -> Self:
        """Read the section of a module, which only says what the kernel's does not."""
        try:
            with path.open("rb") as file:
                section = ELFFile(file).get_section_by_name(".BTF")
                data = None if section is None else bytes(section.data())
        except ELFError as broken:
            raise ProbeError(f"{path}: {broken}; is it a kernel module?") from broken
        if data is None:
            raise ProbeError(f"{path}: neither DWARF nor BTF, so nothing says where anything is in it")
        return cls(path, data, kernel)

    def function(self, name: str) -> Function | None:
        """Return the function of that name, or None; of a module's section, only a function of its own."""
        found = self._find(name, (_FUNC,), range(self._first, len(self._offsets)))
        if found is None:
            return None
        return self._prototype(name, self._raw(self._raw(found)[4])[0])

    def sites(self, function: str, at: str) -> tuple[Site, ...]:
        """Return the entry of a function; BTF knows no other place."""
        found = self.function(function)
        if found is None:
            raise ExpressionError(f"there is no function {function}() in BTF; was it renamed or inlined?")
        if at:
            raise ExpressionError(f"{function}() can only be probed at its entry: BTF knows no lines")
        return (entry(found),)

    def variable(self, name: str) -> None:
        """Return None: BTF has no types of global variables."""

    def aggregate(self, name: str) -> Aggregate | None:
        """Return the struct or union of that tag, or None."""
        found = self._find(name, (_STRUCT, _UNION), range(len(self._offsets)))
        made = None if found is None else self._type(found)
        return made if isinstance(made, Aggregate) else None

    @cached_property
    def _offsets(self) -> list[int]:
        """Where each type starts in the type section, by its id; id 0 is void."""
        offsets = [0]
        at, end, types = 0, len(self._types), self._types
        unpack = _TYPE.unpack_from
        while at < end:
            offsets.append(at)
            info = unpack(types, at)[1]
            kind = info >> 24 & 0x1F
            at += 12 + _EXTRA.get(kind, 0) + _EXTRA_EACH.get(kind, 0) * (info & 0xFFFF)
        return offsets

    def _find(self, name: str, kinds: tuple[int, ...], among: range) -> int | None:
        where = self._strings.find(b"\0" + name.encode() + b"\0") + 1
        if not where:
            return None
        unpack, types, offsets = _TYPE.unpack_from, self._types, self._offsets
        for number in among:
            name_off, info, _ = unpack(types, offsets[number])
            if name_off == where and number and info >> 24 & 0x1F in kinds:
                return number
        return None

    def _raw(self, number: int) -> tuple[int, int, int, int, int]:
        """Return (id, offset after struct btf_type, kind, info, size or type) of a type."""
        at = self._offsets[number]
        _, info, size_or_type = _TYPE.unpack_from(self._types, at)
        return number, at + _TYPE.size, info >> 24 & 0x1F, info, size_or_type

    def _name(self, number: int) -> str:
        return self._string(_TYPE.unpack_from(self._types, self._offsets[number])[0])

    def _string(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()

    def _prototype(self, name: str, number: int) -> Function:
        _, at, _, info, returns = self._raw(number)
        pairs = [_PAIR.unpack_from(self._types, at + i * _PAIR.size) for i in range(info & 0xFFFF)]
        return Function(
            name,
            tuple((self._string(label), self._type(kind)) for label, kind in pairs),
            self._type(returns),
        )

    def _lazy(self, number: int) -> Callable[[], CType]:
        return lambda: self._type(number)

    def _type(self, number: int) -> CType:
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def _make(self, number: int) -> CType:  # noqa: PLR0911 - one return per kind of type
        if number == 0:
            return Void()
        _, at, kind, info, size_or_type = self._raw(number)
        if kind in _TRANSPARENT:
            return self._type(size_or_type)
        if kind == _INT:
            signed = self._types[at + 3] & _INT_SIGNED
            return Scalar(self._name(number), size_or_type, bool(signed))
        if kind in (_ENUM, _ENUM64):
            return Scalar(f"enum {self._name(number)}", size_or_type, bool(info >> 31))
        if kind == _PTR:
            return Pointer(self._lazy(size_or_type))
        if kind == _ARRAY:
            element, _, count = _TRIPLE.unpack_from(self._types, at)
            return Array(self._lazy(element), count)
        if kind in (_STRUCT, _UNION):
            word = "struct" if kind == _STRUCT else "union"
            name = f"{word} {self._name(number)}"
            return Aggregate(name, size_or_type, lambda: self._members(at, info))
        return Void(self._name(number) or f"BTF kind {kind}")

    def _members(self, at: int, info: int) -> tuple[Member, ...]:
        members = []
        for i in range(info & 0xFFFF):
            label, kind, offset = _TRIPLE.unpack_from(self._types, at + i * _TRIPLE.size)
            # kind_flag: the upper 8 bits hold the width of a bitfield
            width = offset >> 24 if info >> 31 else 0
            place = offset & 0xFFFFFF if info >> 31 else offset
            members.append(Member(self._string(label), self._lazy(kind), place, width or None))
        return tuple(members)
