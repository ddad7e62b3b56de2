"""What comes packed in a kernel package: the kernel itself, and on newer suites its modules."""

import lzma
import struct
import zlib
from pathlib import Path

from blkproof.images.errors import PackageError
from blkproof.images.toolchain import Toolchain

_XZ, _GZIP, _ZSTD, _ELF = b"\xfd7zXZ", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x7fELF"
_GZIP_WINDOW = 31


def unpacked(name: str, data: bytes, tools: Toolchain) -> bytes:
    """Return the ELF file that `data` holds, packed or not; what follows an xz or gzip stream is ignored."""
    if data.startswith(_ELF):
        return data
    if data.startswith(_XZ):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)
    if data.startswith(_GZIP):
        return zlib.decompressobj(_GZIP_WINDOW).decompress(data)
    if data.startswith(_ZSTD):
        return _unzstd(name, data, tools)
    raise PackageError(f"{name}: packed in a way blkproof cannot unpack ({data[:4].hex()})")


def kernel_of(vmlinuz: Path, tools: Toolchain) -> bytes:
    """Return the ELF kernel inside a bzImage.

    Xen would unpack it by itself, but slowly on an emulated CPU.
    Layout: Linux, Documentation/arch/x86/boot.rst, setup_sects, payload_offset, payload_length.
    """
    image = vmlinuz.read_bytes()
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if payload.startswith(_ZSTD):
        # The last four bytes are the unpacked size, no part of the stream.
        payload = payload[:-4]
    return unpacked(vmlinuz.name, payload, tools)


def _unzstd(name: str, data: bytes, tools: Toolchain) -> bytes:
    try:
        done = tools.run(["zstd", "-dc"], tools.work, data)
    except FileNotFoundError:
        raise PackageError(f"{name}: packed with zstd: add the package zstd to the recipe") from None
    if done.returncode != 0:
        raise PackageError(f"{name}: zstd: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
