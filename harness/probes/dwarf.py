"""Types of a rebuilt driver from its DWARF, by pyelftools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from blkproof.harness.probes.ctype import Aggregate, Array, CType, Function, Member, Pointer, Scalar, Void
from blkproof.harness.probes.errors import ProbeError
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

Die = Any  # pyelftools has no types

_SIGNED: Final = frozenset({0x05, 0x06})
"""DW_ATE_signed, DW_ATE_signed_char."""
_AGGREGATES: Final = {"DW_TAG_structure_type": "struct", "DW_TAG_union_type": "union"}
_TRANSPARENT: Final = frozenset(
    {"DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_restrict_type"}
)


class Dwarf:
    """Functions and structs of one kernel module built with ``-g``.

    :raise ProbeError: when the file is no ELF or has no debug information.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made: dict[int, CType] = {}
        self._functions: dict[str, Die] = {}
        self._aggregates: dict[str, Die] = {}
        try:
            with path.open("rb") as file:
                self._load(ELFFile(file))
        except ELFError as broken:
            raise ProbeError(f"{path}: {broken}; is it a kernel module?") from broken

    def _load(self, elf: Any) -> None:
        symbols = elf.get_section_by_name(".symtab")
        if symbols is None or not elf.has_dwarf_info():
            raise ProbeError(f"{self._path}: no symbols and DWARF; build the module with -g")
        self._symbols = {s.name for s in symbols.iter_symbols() if s["st_info"]["type"] == "STT_FUNC"}
        for unit in elf.get_dwarf_info().iter_CUs():
            for die in unit.get_top_DIE().iter_children():
                self._index(die)

    def _index(self, die: Die) -> None:
        if die.tag in _AGGREGATES and "DW_AT_declaration" not in die.attributes:
            self._aggregates.setdefault(_name(die), die)
        elif die.tag == "DW_TAG_subprogram" and (
            "DW_AT_low_pc" in die.attributes or "DW_AT_ranges" in die.attributes
        ):
            self._functions.setdefault(_name(die), die)

    def function(self, name: str) -> Function | None:
        """Return the function of that name if it is a symbol that can be probed, or None."""
        die = self._functions.get(name)
        if die is None or name not in self._symbols:
            return None
        parameters = [c for c in die.iter_children() if c.tag == "DW_TAG_formal_parameter"]
        return Function(name, tuple((_name(c), self._of(c)) for c in parameters), self._of(die))

    def aggregate(self, name: str) -> Aggregate | None:
        """Return the struct or union of that tag, or None."""
        die = self._aggregates.get(name)
        made = None if die is None else self._type(die)
        return made if isinstance(made, Aggregate) else None

    def _of(self, die: Die) -> CType:
        """Return the type that a DIE refers to; no reference means void."""
        for holder in _origins(die):
            if "DW_AT_type" in holder.attributes:
                return self._type(holder.get_DIE_from_attribute("DW_AT_type"))
        return Void()

    def _lazy(self, die: Die) -> Callable[[], CType]:
        return lambda: self._of(die)

    def _type(self, die: Die) -> CType:
        if die.offset not in self._made:
            self._made[die.offset] = self._make(die)
        return self._made[die.offset]

    def _make(self, die: Die) -> CType:  # noqa: PLR0911 - one return per kind of type
        if die.tag in _TRANSPARENT:
            return self._of(die)
        if die.tag == "DW_TAG_base_type":
            signed = die.attributes["DW_AT_encoding"].value in _SIGNED
            return Scalar(_name(die), die.attributes["DW_AT_byte_size"].value, signed)
        if die.tag == "DW_TAG_enumeration_type":
            under = self._of(die)
            signed = isinstance(under, Scalar) and under.signed
            return Scalar(f"enum {_name(die)}", die.attributes["DW_AT_byte_size"].value, signed)
        if die.tag == "DW_TAG_pointer_type":
            return Pointer(self._lazy(die))
        if die.tag == "DW_TAG_array_type":
            return self._array(die, [c for c in die.iter_children() if c.tag == "DW_TAG_subrange_type"])
        if die.tag in _AGGREGATES:
            return self._aggregate(die)
        return Void(_name(die) or die.tag)

    def _array(self, die: Die, ranges: list[Die]) -> Array:
        count = _count(ranges[0]) if ranges else 0
        if len(ranges) > 1:
            return Array(lambda: self._array(die, ranges[1:]), count)
        return Array(self._lazy(die), count)

    def _aggregate(self, die: Die) -> CType:
        name = _name(die)
        if "DW_AT_declaration" in die.attributes:
            complete = self._aggregates.get(name)
            return Void(f"incomplete {name}") if complete is None else self._type(complete)
        size = die.attributes["DW_AT_byte_size"].value
        return Aggregate(f"{_AGGREGATES[die.tag]} {name}", size, lambda: tuple(self._members(die)))

    def _members(self, die: Die) -> Iterator[Member]:
        for child in die.iter_children():
            if child.tag != "DW_TAG_member":
                continue
            attributes = child.attributes
            if "DW_AT_data_bit_offset" in attributes:
                place = attributes["DW_AT_data_bit_offset"].value
            else:
                located = attributes.get("DW_AT_data_member_location")
                place = 8 * (located.value if located else 0)
            width = attributes.get("DW_AT_bit_size")
            yield Member(_name(child), self._lazy(child), place, width.value if width else None)


def _origins(die: Die) -> Iterator[Die]:
    """Yield a DIE and what it's a copy of: an out-of-line copy keeps name and type in its origin."""
    yield die
    for link in ("DW_AT_abstract_origin", "DW_AT_specification"):
        if link in die.attributes:
            yield from _origins(die.get_DIE_from_attribute(link))


def _name(die: Die) -> str:
    for holder in _origins(die):
        if "DW_AT_name" in holder.attributes:
            return str(holder.attributes["DW_AT_name"].value.decode())
    return ""


def _count(subrange: Die) -> int:
    for attribute, more in (("DW_AT_count", 0), ("DW_AT_upper_bound", 1)):
        found = subrange.attributes.get(attribute)
        if found is not None and isinstance(found.value, int):
            return found.value + more
    return 0
