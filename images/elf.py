"""Reading ELF files: needed libraries, module dependencies, kernels and their BTF."""

import gzip
import lzma
import struct
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from blkproof.images.errors import PackageError
from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

_LIBRARY_DIRS = (
    "lib/x86_64-linux-gnu",
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

    def closure(self, programs: Iterable[Path], also: Iterable[str] = ()) -> dict[str, Path]:
        """Return all libraries that `programs` and the ones in `also` need, directly or not, by name."""
        found: dict[str, Path] = {}
        queue = [*also, *(name for program in programs for name in needed_libraries(program))]
        while queue:
            name = queue.pop()
            if name in found:
                continue
            if name not in self._by_name:
                raise PackageError(f"no unpacked package holds the library {name}, which a program needs")
            found[name] = self._by_name[name]
            queue += needed_libraries(found[name])
        return dict(sorted(found.items()))


def needed_libraries(path: Path) -> list[str]:
    """Return the names in an ELF file's DT_NEEDED entries; none for a static one."""
    with path.open("rb") as handle:
        section = ELFFile(handle).get_section_by_name(".dynamic")
        if not isinstance(section, DynamicSection):
            return []
        return [str(tag.needed) for tag in section.iter_tags("DT_NEEDED")]  # type: ignore[attr-defined] # set by name


def module_dependencies(module: bytes) -> list[str]:
    """Return the modules that must be loaded before this one, as its .modinfo says."""
    section = ELFFile(BytesIO(module)).get_section_by_name(".modinfo")
    if section is None:
        return []
    fields = (entry.partition(b"=") for entry in section.data().split(b"\0"))
    return [
        name for key, _, value in fields if key == b"depends" for name in value.decode().split(",") if name
    ]


def kernel_of(vmlinuz: Path) -> bytes:
    """Return the ELF kernel inside a bzImage.

    Xen would unpack it by itself, but slowly on an emulated CPU.
    Layout: Linux, Documentation/arch/x86/boot.rst, setup_sects, payload_offset, payload_length.
    """
    image = vmlinuz.read_bytes()
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if payload.startswith(b"\xfd7zXZ"):
        # The payload's last four bytes are its unpacked size, no part of the stream.
        kernel = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    elif payload.startswith(b"\x1f\x8b"):
        kernel = gzip.decompress(payload[:-4])
    else:
        raise PackageError(f"{vmlinuz.name}: packed in a way blkproof cannot unpack ({payload[:4].hex()})")
    return kernel


def section_of(kernel: bytes, name: str) -> bytes:
    """Return the bytes of one section."""
    try:
        section = ELFFile(BytesIO(kernel)).get_section_by_name(name)
    except ELFError as error:
        raise PackageError(f"the kernel is no ELF file: {error}") from error
    if section is None:
        raise PackageError(f"the kernel has no section {name}")
    data: bytes = section.data()
    return data
