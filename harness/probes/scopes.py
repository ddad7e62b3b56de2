"""Functions, their inlined copies, and what is visible at an instruction of one: the code half of DWARF.

Reference: DWARF 5, 3.3 (subroutines and their inlined instances), 6.2 (lines), 6.4 (call frames).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

from blkproof.harness.probes.ctype import CType
from blkproof.harness.probes.location import Frame, locate
from blkproof.harness.probes.object import KernelObject
from blkproof.harness.probes.site import Site
from blkproof.harness.probes.source import lines_with
from blkproof.harness.probes.term import ExpressionError, Term
from elftools.dwarf.callframe import FDE
from elftools.dwarf.dwarf_expr import DWARFExprParser
from elftools.dwarf.locationlists import BaseAddressEntry, LocationExpr, LocationParser

Die = Any  # pyelftools has no types

_VARIABLES: Final = frozenset({"DW_TAG_formal_parameter", "DW_TAG_variable"})
_NESTED: Final = frozenset({"DW_TAG_lexical_block", "DW_TAG_inlined_subroutine"})


@dataclass(frozen=True, slots=True)
class Copy:
    """The code of a function: of its own, or inlined into ``inside``, which is a subprogram with code."""

    die: Die
    inside: Die

    @property
    def inlined(self) -> bool:
        """Tell whether it's no function of its own."""
        return self.die is not self.inside


class Scopes:
    """All code of one module, by the functions that it comes from.

    ``type_of`` gives the type of a DIE; ``sources`` is the directory of the text that was compiled.
    """

    def __init__(self, module: KernelObject, type_of: Callable[[Die], CType], sources: Path) -> None:
        self._module, self._type_of, self._sources = module, type_of, sources
        self._dwarf = module.dwarf
        self._locations = LocationParser(self._dwarf.location_lists())
        self._parser = DWARFExprParser(self._dwarf.structs)
        self._copies: dict[str, list[Copy]] = {}

    def add(self, subprogram: Die) -> None:
        """Take in a subprogram of the top level, with all that was inlined into it."""
        if _has_code(subprogram):
            self._copies.setdefault(name_of(subprogram), []).append(Copy(subprogram, subprogram))
            self._add_inlined(subprogram, subprogram)

    def _add_inlined(self, die: Die, inside: Die) -> None:
        for child in die.iter_children():
            if child.tag in _NESTED:
                if child.tag == "DW_TAG_inlined_subroutine" and _has_code(child):
                    self._copies.setdefault(name_of(child), []).append(Copy(child, inside))
                self._add_inlined(child, inside)

    def sites(self, function: str, at: str) -> tuple[Site, ...]:
        """Return where a function is entered, or has the words ``at`` in its source; in all its copies.

        :raise ExpressionError: when there is no such place.
        """
        copies = self._copies.get(function)
        if not copies:
            raise ExpressionError(
                f"there is no function {function}() to be probed; was it renamed, or is nothing of it left?"
            )
        found = {
            address: self._site(function, copy, address, entered=not at)
            for copy in copies
            for address in (self._places(copy, at) if at else self._entries(copy))
        }
        if not found:
            raise ExpressionError(f"nothing is left of the lines of {function}() with {at!r}")
        return tuple(found[address] for address in sorted(found))

    def _site(self, function: str, copy: Copy, address: int, *, entered: bool) -> Site:
        symbol = self._module.function_at(address)
        if symbol is None:
            raise ExpressionError(f"the code of {function}() is in no symbol")
        offset = address - symbol.address
        if entered and not copy.inlined and offset:
            raise ExpressionError(f"{function}() has no symbol of its own")
        place = f"{symbol.name}+{offset}" if offset else symbol.name
        visible = {
            (f"{name_of(around.die)}::" if around is not copy else "") + name_of(die): partial(
                self._variable, around, die, address
            )
            for around in _outward(copy)
            for die in self._visible(around.die, address)
        }
        returns = self._type_of(copy.die) if entered and not copy.inlined else None
        return Site(function, place, visible, returns)

    def variable(self, die: Die) -> Term:
        """Return a global variable; one that's declared only is another's, and has its symbol there."""
        if self._operations(die, 0):
            return locate(self._operations(die, 0), self._type_of(die), self._frame(Copy(die, die), 0))
        return Term(f"&{name_of(die)}", self._type_of(die), place=True)

    # Section: where

    def _entries(self, copy: Copy) -> list[int]:
        """Return where a function is entered; where it was inlined, that may be in several places.

        DWARF has one entry for each inlined copy, but a compiler may lay out the beginning of a copy several
        times, for several ways to it.  It marks each with the line on which the function is defined.
        """
        attributes = copy.die.attributes
        entry = attributes.get("DW_AT_entry_pc") or attributes.get("DW_AT_low_pc")
        if entry is None:
            first = self._ranges(copy.die)[0][0]
        else:
            first = int(entry.value) + (0 if entry.form == "DW_FORM_addr" else self._low(copy.die))
        if not copy.inlined:
            return [first]
        line = origin_of(copy.die).attributes["DW_AT_decl_line"].value
        return sorted({first, *(row.address for row in self._rows(copy, {line}) if row.is_stmt)})

    def _places(self, copy: Copy, at: str) -> list[int]:
        """Return the instructions that begin a line with the words ``at``; none when all of it is gone.

        A compiler may lay a line out several times as well.  It marks where a statement begins; a line
        without a mark begins with its first instruction.
        """
        attributes = origin_of(copy.die).attributes
        program = self._dwarf.line_program_for_CU(copy.die.cu)
        file = _path(program, attributes["DW_AT_decl_file"].value)
        rows = self._rows(copy, lines_with(self._sources, file, attributes["DW_AT_decl_line"].value, at))
        found = {row.address for row in rows if row.is_stmt}
        marked = {row.line for row in rows if row.is_stmt}
        for line in {row.line for row in rows} - marked:
            found.add(min(row.address for row in rows if row.line == line))
        return sorted(found)

    def _rows(self, copy: Copy, lines: Collection[int]) -> list[Any]:
        """Return the line table's rows for some lines of the function's file, within the copy's code.

        Of several lines at one address only the last has code there: it is where the others have ended.
        They count where nothing else is left of them.
        """
        file = origin_of(copy.die).attributes["DW_AT_decl_file"].value
        ranges = self._ranges(copy.die)
        states = (entry.state for entry in self._dwarf.line_program_for_CU(copy.die.cu).get_entries())
        rows = [
            state
            for state in states
            if state is not None
            and not state.end_sequence
            and state.file == file
            and any(low <= state.address < high for low, high in ranges)
        ]
        owner = {row.address: row.line for row in rows}
        wanted = [row for row in rows if row.line in lines]
        return [row for row in wanted if owner[row.address] == row.line] or wanted

    def _low(self, die: Die) -> int:
        low = die.attributes.get("DW_AT_low_pc")
        return 0 if low is None else int(low.value)

    def _ranges(self, die: Die) -> list[tuple[int, int]]:
        """Return the stretches of code of a DIE: first address, and the one behind the last."""
        attributes = die.attributes
        if "DW_AT_ranges" not in attributes:
            high = attributes["DW_AT_high_pc"]
            low = self._low(die)
            return [(low, high.value if high.form == "DW_FORM_addr" else low + high.value)]
        base = self._low(die.cu.get_top_DIE())
        found = []
        for entry in self._dwarf.range_lists().get_range_list_at_offset(
            attributes["DW_AT_ranges"].value, die.cu
        ):
            if hasattr(entry, "base_address"):
                base = entry.base_address
            else:
                start = 0 if getattr(entry, "is_absolute", False) else base
                found.append((start + entry.begin_offset, start + entry.end_offset))
        return found

    # Section: what

    def _visible(self, die: Die, address: int) -> Iterator[Die]:
        """Yield variables from the outermost block to the innermost, each of which hides those before."""
        for child in die.iter_children():
            if child.tag in _VARIABLES and name_of(child):
                yield child
        for child in die.iter_children():
            if child.tag == "DW_TAG_lexical_block" and (
                not _has_code(child) or any(low <= address < high for low, high in self._ranges(child))
            ):
                yield from self._visible(child, address)

    def _variable(self, copy: Copy, die: Die, address: int) -> Term:
        name, kind = name_of(die), self._type_of(die)
        try:
            if (constant := die.attributes.get("DW_AT_const_value")) is not None:
                if not isinstance(constant.value, int):
                    raise ExpressionError("is a constant that is no number")  # noqa: TRY301 - named below
                return Term(f"\\{constant.value}", kind)
            return locate(self._operations(die, address), kind, self._frame(copy, address))
        except ExpressionError as wrong:
            what = "parameter" if die.tag == "DW_TAG_formal_parameter" else "variable"
            where = (
                f"{name_of(copy.die)}() was inlined and its" if copy.inlined else f"{name_of(copy.die)}()'s"
            )
            raise ExpressionError(f"{where} {what} {name} {wrong}") from None

    def _operations(self, die: Die, address: int, attribute: str = "DW_AT_location") -> Sequence[Any]:
        """Return the location expression that holds at an address; empty when the variable is nowhere."""
        located = die.attributes.get(attribute)
        if located is None:
            return ()
        parsed = self._locations.parse_from_attribute(located, die.cu["version"], die)
        if isinstance(parsed, LocationExpr):
            return self._parser.parse_expr(parsed.loc_expr)
        base = self._low(die.cu.get_top_DIE())
        entry: Any
        for entry in parsed:
            if isinstance(entry, BaseAddressEntry):
                base = entry.base_address
                continue
            start = 0 if entry.is_absolute else base
            if start + entry.begin_offset <= address < start + entry.end_offset:
                return self._parser.parse_expr(entry.loc_expr)
        return ()

    def _frame(self, copy: Copy, address: int) -> Frame:
        def variable(offset: int) -> Term:
            return self._variable(copy, self._dwarf.get_DIE_from_refaddr(offset), address)

        return Frame(
            partial(self._operations, copy.inside, address, "DW_AT_frame_base"),
            partial(self._canonical, address),
            self._named,
            variable,
        )

    def _named(self, address: int) -> tuple[str, int]:
        symbol = self._module.variable_at(address)
        if symbol is None or self._module.copies(symbol.name) > 1:
            raise ExpressionError("is at an address that no symbol names, or several of that name")
        return symbol.name, address - symbol.address

    def _canonical(self, address: int) -> tuple[int, int]:
        """Return register and offset of the call frame's address at an instruction."""
        rule = None
        for entry in self._calls:
            start = entry["initial_location"]
            if start <= address < start + entry["address_range"]:
                for row in entry.get_decoded().table:
                    if row["pc"] <= address:
                        rule = row["cfa"]
        if rule is None or rule.reg is None:
            raise ExpressionError("is in a stack frame that debug information does not describe")
        return rule.reg, rule.offset

    @cached_property
    def _calls(self) -> list[Any]:
        entries = self._dwarf.CFI_entries() if self._dwarf.has_CFI() else self._dwarf.EH_CFI_entries()
        return [entry for entry in entries if isinstance(entry, FDE)]


def _outward(copy: Copy) -> Iterator[Copy]:
    """Yield a copy, and what it was inlined into, up to the function of its own."""
    die = copy.die
    while True:
        if die.tag == "DW_TAG_inlined_subroutine" or die is copy.inside:
            yield copy if die is copy.die else Copy(die, copy.inside)
        if die.offset == copy.inside.offset:
            return
        die = die.get_parent()


def origin_of(die: Die) -> Die:
    """Return the DIE that says what the source says of a function or variable."""
    for link in ("DW_AT_abstract_origin", "DW_AT_specification"):
        if link in die.attributes:
            return origin_of(die.get_DIE_from_attribute(link))
    return die


def name_of(die: Die) -> str:
    """Return the name in the source, empty if it has none."""
    name = die.attributes.get("DW_AT_name") or origin_of(die).attributes.get("DW_AT_name")
    return "" if name is None else str(name.value.decode())


def _has_code(die: Die) -> bool:
    return "DW_AT_low_pc" in die.attributes or "DW_AT_ranges" in die.attributes


def _path(program: Any, number: int) -> Path:
    """Return a file of the line table, as the compiler recorded it; numbers began at 1 before DWARF 5."""
    header = program.header
    early = header.version < 5
    entry = header.file_entry[number - early]
    folders = [b"", *header.include_directory] if early else header.include_directory
    return Path(str(folders[entry.dir_index].decode()), str(entry.name.decode()))
