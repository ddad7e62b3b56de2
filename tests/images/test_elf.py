import pytest
from blkproof.images.elf import (
    Libraries,
    module_dependencies,
    needed_libraries,
    section_of,
    undefined_symbols,
)
from blkproof.images.errors import PackageError


def test_a_program_is_followed_through_all_its_libraries(debian12_tree):
    libraries = Libraries(debian12_tree)
    program = next(debian12_tree.glob("usr/lib/xen-*/bin/xl"))
    closure = libraries.closure([program])
    assert {"libc.so.6", "ld-linux-x86-64.so.2"} < set(closure)
    direct = set(needed_libraries(program))
    assert direct < set(closure)
    for path in closure.values():
        assert set(needed_libraries(path)) <= set(closure)


def test_a_library_left_out_takes_along_what_only_it_needs(debian12_tree):
    libraries = Libraries(debian12_tree)
    fio = debian12_tree / "usr/bin/fio"
    whole = libraries.closure([fio])
    assert "libceph-common.so.2" in whole
    rest = libraries.closure([fio], without=["librados.so.2", "librbd.so.1"])
    assert "libceph-common.so.2" not in rest
    assert "libaio.so.1" in rest


def test_a_library_that_no_package_holds_is_told(debian12_tree):
    with pytest.raises(PackageError, match=r"no unpacked package holds the library libnone\.so"):
        Libraries(debian12_tree).closure([], also=["libnone.so"])


def test_symbols_come_with_their_versions(debian12_tree):
    wanted = undefined_symbols(debian12_tree / "usr/bin/fio")
    assert wanted["io_submit"] == "LIBAIO_0.1"


def test_a_static_program_needs_no_library(debian12_tree):
    assert needed_libraries(debian12_tree / "bin/busybox") == []


def test_module_dependencies_come_from_the_module(debian12_tree):
    module = next(debian12_tree.rglob("virtio_net.ko"))
    assert set(module_dependencies(module.read_bytes())) == {"virtio", "virtio_ring", "net_failover"}


def test_a_file_that_is_no_kernel_is_told():
    with pytest.raises(PackageError, match="kernel: not an ELF file"):
        section_of(b"not ELF", ".BTF")
