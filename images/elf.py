"""Reading ELF files: needed libraries, symbols, module dependencies, sections."""

from collections.abc import Collection, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from blkproof.images.errors import PackageError
from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection, GNUVerSymSection
from elftools.elf.sections import Symbol, SymbolTableSection

LOADER = "ld-linux-x86-64.so.2"
"""The program that loads the libraries of another; itself among the libraries."""

_LIBRARY_DIRS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/*",
    "usr/lib/xen-*/lib/x86_64-linux-gnu",
)


class Libraries:
    """The shared libraries of a tree of unpacked packages, by the name they are asked for."""

    def __init__(self, tree: Path) -> None:
        self._by_name: dict[str, Path] = {}
        for pattern in _LIBRARY_DIRS:
            for path in sorted(tree.glob(f"{pattern}/*.so*")):
                self._by_name.setdefault(path.name, path)

    def find(self, name: str) -> Path:
        """Return the file of one library."""
        if name not in self._by_name:
            raise PackageError(f"no unpacked package holds the library {name}, which a program needs")
        return self._by_name[name]

    def closure(
        self, programs: Iterable[Path], also: Iterable[str] = (), without: Collection[str] = ()
    ) -> dict[str, Path]:
        """Return all libraries that `programs` and the ones in `also` need, directly or not, by name.

        Those in `without` are left out, and with them what only they need.
        """
        found: dict[str, Path] = {}
        queue = [*also, *(name for program in programs for name in needed_libraries(program))]
        while queue:
            name = queue.pop()
            if name not in found and name not in without:
                found[name] = self.find(name)
                queue += needed_libraries(found[name])
        return dict(sorted(found.items()))


def is_elf(path: Path) -> bool:
    """Tell whether a file is a program, a library or a module."""
    with path.open("rb") as handle:
        return handle.read(4) == b"\x7fELF"


def needed_libraries(path: Path) -> list[str]:
    """Return the names in an ELF file's DT_NEEDED entries; none for a static one."""
    with path.open("rb") as handle:
        section = _elf(handle, path.name).get_section_by_name(".dynamic")
        if not isinstance(section, DynamicSection):
            return []
        return [tag.needed for tag in section.iter_tags("DT_NEEDED")]  # type: ignore[attr-defined] # set by tag


def undefined_symbols(program: Path) -> dict[str, str]:
    """Return the symbols that a program takes from its libraries, with their versions ("" for none)."""
    with program.open("rb") as handle:
        elf = _elf(handle, program.name)
        symbols = elf.get_section_by_name(".dynsym")
        indices = elf.get_section_by_name(".gnu.version")
        needs = elf.get_section_by_name(".gnu.version_r")
        if not (
            isinstance(symbols, SymbolTableSection)
            and isinstance(indices, GNUVerSymSection)
            and isinstance(needs, GNUVerNeedSection)
        ):
            raise PackageError(f"{program.name}: has no versioned symbols")
        versions = {
            aux["vna_other"]: aux.name for _, auxiliaries in needs.iter_versions() for aux in auxiliaries
        }
        return {
            symbol.name: versions.get(indices.get_symbol(number)["ndx"], "")
            for number, symbol in enumerate(symbols.iter_symbols())
            if symbol["st_shndx"] == "SHN_UNDEF"
        }


def defined_functions(library: Path) -> set[str]:
    """Return the functions that a library offers."""
    return {
        symbol.name
        for symbol in _dynamic_symbols(library)
        if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["type"] == "STT_FUNC"
    }


def module_dependencies(module: bytes) -> list[str]:
    """Return the modules that must be loaded before this one, as its .modinfo says."""
    section = elf_of(module).get_section_by_name(".modinfo")
    if section is None:
        return []
    fields = (entry.partition(b"=") for entry in section.data().split(b"\0"))
    return [
        name for key, _, value in fields if key == b"depends" for name in value.decode().split(",") if name
    ]


def section_of(kernel: bytes, name: str) -> bytes:
    """Return the bytes of one section."""
    section = _elf(BytesIO(kernel), "kernel").get_section_by_name(name)
    if section is None:
        raise PackageError(f"the kernel has no section {name}")
    return bytes(section.data())


def elf_of(module: bytes) -> ELFFile:
    """Return a module, opened; raise PackageError when it is no ELF file."""
    return _elf(BytesIO(module), "module")


def _dynamic_symbols(path: Path) -> Iterator[Symbol]:
    with path.open("rb") as handle:
        section = _elf(handle, path.name).get_section_by_name(".dynsym")
        if isinstance(section, SymbolTableSection):
            yield from section.iter_symbols()


def _elf(handle: BinaryIO, name: str) -> ELFFile:
    try:
        return ELFFile(handle)
    except ELFError as error:
        raise PackageError(f"{name}: not an ELF file: {error}") from error
