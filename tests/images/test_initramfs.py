import pytest
from blkproof.images.errors import PackageError
from blkproof.images.initramfs import system_archive
from blkproof.images.toolchain import Toolchain


@pytest.fixture
def tools(debian12, debian12_tree, tmp_path):
    return Toolchain(debian12_tree, debian12.driver.compiler, tmp_path)


def test_dom0_holds_the_toolstack_and_the_guest_does_not(debian12, debian12_tree, tools):
    dom0 = system_archive(debian12_tree, debian12.dom0, "dom0", tools)
    for path in ("init", "bin/xl", "bin/sh", "bin/xenstore-ls", "bin/dropbear", "lib64/ld-linux-x86-64.so.2"):
        assert path in dom0
    assert "lib/blkproof/brd.ko" in dom0
    assert "bin/fio" not in dom0


def test_the_guest_holds_fio_without_the_libraries_of_engines_not_used(debian12, debian12_tree, tools):
    guest = system_archive(debian12_tree, debian12.guest, "guest", tools)
    assert "bin/fio" in guest
    assert "lib/x86_64-linux-gnu/librbd.so.1" in guest, "the stand-in"
    assert "lib/x86_64-linux-gnu/libceph-common.so.2" not in guest
    assert "bin/xl" not in guest


def test_a_program_that_no_package_holds_is_told(debian12, debian12_tree, tools):
    system = debian12.guest.model_copy(update={"programs": ("usr/bin/nonesuch",)})
    with pytest.raises(PackageError, match="usr/bin/nonesuch: matches 0 files"):
        system_archive(debian12_tree, system, "guest", tools)
