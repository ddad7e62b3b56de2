"""Types, functions and variables of a driver from its DWARF, by pyelftools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from blkproof.harness.probes.ctype import Aggregate, Array, CType, Member, Pointer, Scalar, Void
from blkproof.harness.probes.object import KernelObject
from blkproof.harness.probes.scopes import Scopes, name_of, origin_of
from blkproof.harness.probes.site import Site
from blkproof.harness.probes.term import ExpressionError, Term

Die = Any  # pyelftools has no types

_SIGNED: Final = frozenset({0x05, 0x06})
"""DW_ATE_signed, DW_ATE_signed_char."""
_AGGREGATES: Final = {"DW_TAG_structure_type": "struct", "DW_TAG_union_type": "union"}
_TRANSPARENT: Final = frozenset(
    {"DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_restrict_type"}
)


class Dwarf:
    """Debug information of one kernel module built with ``-g``, and of the text in ``sources``.

    :raise ProbeError: when the file is no ELF or has no debug information.
    """

    def __init__(self, path: Path, sources: Path) -> None:
        self._made: dict[int, CType] = {}
        self._aggregates: dict[str, Die] = {}
        self._variables: dict[str, Die] = {}
        self._module = KernelObject(path)
        self._scopes = Scopes(self._module, self._of, sources)
        for unit in self._module.dwarf.iter_CUs():
            for die in unit.get_top_DIE().iter_children():
                self._index(die)

    def _index(self, die: Die) -> None:
        if die.tag in _AGGREGATES and "DW_AT_declaration" not in die.attributes:
            self._aggregates.setdefault(name_of(die), die)
        elif die.tag == "DW_TAG_subprogram":
            self._scopes.add(die)
        elif die.tag == "DW_TAG_variable":
            known = self._variables.get(name_of(die))
            if known is None or "DW_AT_location" not in known.attributes:
                self._variables[name_of(die)] = die

    def sites(self, function: str, at: str) -> tuple[Site, ...]:
        """Return where a function is entered, or has the words ``at`` in its source; in all its copies.

        :raise ExpressionError: when there is no such place; says why.
        """
        return self._scopes.sites(function, at)

    def variable(self, name: str) -> Term | None:
        """Return a variable of the module, or one of the kernel that the module uses, or None.

        :raise ExpressionError: when the kernel could not tell which one is meant.
        """
        if name not in self._variables or not (copies := self._module.copies(name)):
            return None
        if copies > 1:
            raise ExpressionError(f"there are {copies} variables {name}, and a probe can't say which")
        return self._scopes.variable(self._variables[name])

    def aggregate(self, name: str) -> Aggregate | None:
        """Return the struct or union of that tag, or None."""
        die = self._aggregates.get(name)
        made = None if die is None else self._type(die)
        return made if isinstance(made, Aggregate) else None

    def _of(self, die: Die) -> CType:
        """Return the type that a DIE refers to; no reference means void."""
        for holder in (die, origin_of(die)):
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
            return Scalar(name_of(die), die.attributes["DW_AT_byte_size"].value, signed)
        if die.tag == "DW_TAG_enumeration_type":
            under = self._of(die)
            signed = isinstance(under, Scalar) and under.signed
            return Scalar(f"enum {name_of(die)}", die.attributes["DW_AT_byte_size"].value, signed)
        if die.tag == "DW_TAG_pointer_type":
            return Pointer(self._lazy(die))
        if die.tag == "DW_TAG_array_type":
            return self._array(die, [c for c in die.iter_children() if c.tag == "DW_TAG_subrange_type"])
        if die.tag in _AGGREGATES:
            return self._aggregate(die)
        return Void(name_of(die) or die.tag)

    def _array(self, die: Die, ranges: list[Die]) -> Array:
        count = _count(ranges[0]) if ranges else 0
        if len(ranges) > 1:
            return Array(lambda: self._array(die, ranges[1:]), count)
        return Array(self._lazy(die), count)

    def _aggregate(self, die: Die) -> CType:
        name = name_of(die)
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
            yield Member(name_of(child), self._lazy(child), place, width.value if width else None)


def _count(subrange: Die) -> int:
    for attribute, more in (("DW_AT_count", 0), ("DW_AT_upper_bound", 1)):
        found = subrange.attributes.get(attribute)
        if found is not None and isinstance(found.value, int):
            return found.value + more
    return 0
