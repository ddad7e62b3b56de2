"""Whether two modules have the same code: then debug information of one holds for the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from blkproof.images.elf import elf_of
from elftools.elf.constants import SH_FLAGS
from elftools.elf.relocation import RelocationSection


def difference(stock: bytes, twin: bytes) -> str | None:
    """Return the first thing in which the executable sections of two modules differ, or None.

    These are their bytes, the functions in them, and what is filled in when they are loaded; not where in
    read-only data something lies, since texts in there hold the builder's directories.
    """
    mine, other = _Code(stock), _Code(twin)
    if mine.sections.keys() != other.sections.keys():
        names = sorted(mine.sections.keys() ^ other.sections.keys())
        return f"only one of them has {', '.join(names)}"
    for name, section in mine.sections.items():
        for what, at, here, there in (*_bytes(section, other.sections[name]), *_tables(mine, other, name)):
            return f"{name}+{at:#x}: {what}: {here} in the stock module, {there} in the twin"
    return None


def build_id(module: bytes) -> str:
    """Return the module's GNU build-id in hex, empty if it has none."""
    section: Any = elf_of(module).get_section_by_name(".note.gnu.build-id")
    return "" if section is None else next((str(note["n_desc"]) for note in section.iter_notes()), "")


class _Code:
    """The executable part of a module: bytes, functions and relocations, by section and offset."""

    def __init__(self, module: bytes) -> None:
        elf = elf_of(module)
        self._all: list[Any] = list(elf.iter_sections())
        executable = SH_FLAGS.SHF_ALLOC | SH_FLAGS.SHF_EXECINSTR
        numbers = [n for n, s in enumerate(self._all) if s["sh_flags"] & executable == executable]
        self.sections: dict[str, bytes] = {self._all[n].name: self._all[n].data() for n in numbers}
        self._symbols: list[Any] = list(elf.get_section_by_name(".symtab").iter_symbols())  # type: ignore[union-attr] # a module has one
        self.functions: dict[str, dict[int, str]] = {self._all[n].name: {} for n in numbers}
        for symbol in self._symbols:
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] in numbers:
                of = self.functions[self._all[symbol["st_shndx"]].name]
                of[symbol["st_value"]] = f"{symbol.name}, {symbol['st_size']} bytes"
        self.relocations = {
            self._all[section["sh_info"]].name: {
                r["r_offset"]: self._target(r) for r in section.iter_relocations()
            }
            for section in self._all
            if isinstance(section, RelocationSection) and section["sh_info"] in numbers
        }

    def _target(self, relocation: Any) -> str:
        symbol = self._symbols[relocation["r_info_sym"]]
        kind, addend = relocation["r_info_type"], relocation["r_addend"]
        if symbol["st_info"]["type"] != "STT_SECTION":
            return f"type {kind} {symbol.name}{addend:+#x}"
        section = self._all[symbol["st_shndx"]]
        constant = not section["sh_flags"] & (SH_FLAGS.SHF_WRITE | SH_FLAGS.SHF_EXECINSTR)
        return f"type {kind} read-only data" if constant else f"type {kind} {section.name}{addend:+#x}"


_Difference = tuple[str, int, str, str]


def _bytes(mine: bytes, other: bytes) -> Iterator[_Difference]:
    if mine != other:
        at = next((n for n, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), None)
        if at is None:
            yield "length", min(len(mine), len(other)), f"{len(mine)} bytes", f"{len(other)} bytes"
        else:
            yield "code", at, mine[at : at + 8].hex(" "), other[at : at + 8].hex(" ")


def _tables(mine: _Code, other: _Code, name: str) -> Iterator[_Difference]:
    for what, here, there in (
        ("function", mine.functions, other.functions),
        ("relocation", mine.relocations, other.relocations),
    ):
        one, two = here.get(name, {}), there.get(name, {})
        for at in sorted(one.keys() | two.keys()):
            if one.get(at) != two.get(at):
                yield what, at, one.get(at, "none"), two.get(at, "none")
