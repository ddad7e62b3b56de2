"""The file of a kernel module, its sections laid out so that an address says which section it is in."""

from __future__ import annotations

import bisect
import struct
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from blkproof.harness.probes.errors import ProbeError
from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

_SYMBOL: Final = struct.Struct("<IBBHQQ")
"""Elf64_Sym: name, info, other, section, value, size."""
_PAGE: Final = 0x1000


@dataclass(frozen=True, slots=True, order=True)
class Symbol:
    """A function or variable of the module: its address in our layout, its size in bytes and its name."""

    address: int
    size: int
    name: str


class KernelObject:
    """Symbols and DWARF of one module built with ``-g``.

    In a module's file all sections start at address 0.  Here each gets a page of its own, as if loaded, by
    a change of the symbol table before relocations are applied.

    :raise ProbeError: when the file is no ELF or has no debug information.
    """

    def __init__(self, path: Path) -> None:
        try:
            elf = ELFFile(BytesIO(_laid_out(path)))
            symbols: Any = elf.get_section_by_name(".symtab")
            if symbols is None or not elf.has_dwarf_info():
                raise ProbeError(f"{path}: no symbols and DWARF; build the module with -g")
            self.dwarf: Any = elf.get_dwarf_info()
        except ELFError as broken:
            raise ProbeError(f"{path}: {broken}; is it a kernel module?") from broken
        named = [s for s in symbols.iter_symbols() if s.name]
        self._copies = Counter(s.name for s in named)
        self._functions = _by_address(named, "STT_FUNC")
        self._variables = _by_address(named, "STT_OBJECT")

    def function_at(self, address: int) -> Symbol | None:
        """Return the function symbol whose code an instruction is in."""
        return _around(self._functions, address)

    def variable_at(self, address: int) -> Symbol | None:
        """Return the symbol of the variable that an address is in."""
        return _around(self._variables, address)

    def copies(self, name: str) -> int:
        """Return how many symbols have that name; a kernel looks up just one."""
        return self._copies[name]


def _by_address(symbols: list[Any], kind: str) -> list[Symbol]:
    return sorted(
        Symbol(s["st_value"], s["st_size"], s.name)
        for s in symbols
        if s["st_info"]["type"] == kind and s["st_shndx"] != "SHN_UNDEF"
    )


def _around(symbols: list[Symbol], address: int) -> Symbol | None:
    at = bisect.bisect_right(symbols, address, key=lambda symbol: symbol.address) - 1
    if at < 0 or address >= symbols[at].address + max(symbols[at].size, 1):
        return None
    return symbols[at]


def _laid_out(path: Path) -> bytes:
    """Return a module's file with addresses in its symbol table instead of places in sections."""
    data = bytearray(path.read_bytes())
    elf = ELFFile(BytesIO(data))
    symbols = elf.get_section_by_name(".symtab")
    if elf["e_type"] != "ET_REL" or elf["e_machine"] != "EM_X86_64" or symbols is None:
        return bytes(data)
    bases, free = {}, _PAGE
    for number, section in enumerate(elf.iter_sections()):
        if section["sh_flags"] & SH_FLAGS.SHF_ALLOC:
            bases[number] = free
            free += -(-section["sh_size"] // _PAGE) * _PAGE + _PAGE
    start, size = symbols["sh_offset"], symbols["sh_size"]
    for at in range(start, start + size - size % _SYMBOL.size, _SYMBOL.size):
        *head, section_number, value, length = _SYMBOL.unpack_from(data, at)
        if section_number in bases:
            _SYMBOL.pack_into(data, at, *head, section_number, value + bases[section_number], length)
    return bytes(data)
