import gzip
import lzma
import struct

import pytest
from blkproof.images.errors import PackageError
from blkproof.images.packing import kernel_of, unpacked
from blkproof.images.toolchain import Toolchain

KERNEL = b"\x7fELF and the rest of the kernel"


def bzimage(payload):
    """Return the shortest file that the boot protocol calls a bzImage: one setup sector, then the payload."""
    setup = bytearray(2 * 512)
    setup[0x1F1] = 1
    struct.pack_into("<II", setup, 0x248, 16, len(payload))
    return bytes(setup) + bytes(16) + payload + b"behind"


def zstd_frame(data):
    """Return a frame of one block that is not compressed (RFC 8878, 3.1.1)."""
    single_segment = 0x20
    last_raw_block = (len(data) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + bytes([single_segment, len(data)]) + last_raw_block + data


@pytest.fixture
def tools(debian13, debian13_tree, tmp_path):
    return Toolchain(debian13_tree, debian13.driver.compiler, tmp_path / "tools")


class NoTools:
    """Stands for a recipe whose packages have no zstd."""

    work = "."

    def run(self, command, *_args):
        raise FileNotFoundError(command[0])


SIZE = struct.pack("<I", len(KERNEL))


@pytest.mark.parametrize(
    "payload", [lzma.compress(KERNEL) + SIZE, gzip.compress(KERNEL), gzip.compress(KERNEL) + SIZE]
)
def test_the_kernel_is_taken_out_of_its_image(tmp_path, payload):
    (tmp_path / "vmlinuz").write_bytes(bzimage(payload))
    assert kernel_of(tmp_path / "vmlinuz", NoTools()) == KERNEL


def test_a_newer_kernel_needs_its_suites_zstd(tools, tmp_path):
    (tmp_path / "vmlinuz").write_bytes(bzimage(zstd_frame(KERNEL) + SIZE))
    assert kernel_of(tmp_path / "vmlinuz", tools) == KERNEL
    with pytest.raises(PackageError, match="vmlinuz: packed with zstd: add the package zstd to the recipe"):
        kernel_of(tmp_path / "vmlinuz", NoTools())


def test_a_broken_module_is_told_in_zstds_words(tools):
    with pytest.raises(PackageError, match=r"a\.ko\.zst: zstd: .*premature"):
        unpacked("a.ko.zst", zstd_frame(KERNEL)[:-1], tools)


def test_a_module_may_come_unpacked():
    assert unpacked("a.ko", KERNEL, NoTools()) == KERNEL


def test_an_unknown_packing_is_told(tmp_path):
    (tmp_path / "vmlinuz").write_bytes(bzimage(b"\x01\x02\x03\x04rest"))
    with pytest.raises(PackageError, match=r"vmlinuz: packed in a way .*01020304"):
        kernel_of(tmp_path / "vmlinuz", NoTools())
