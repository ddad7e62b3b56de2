import io

import pytest
from blkproof.images.errors import PackageError
from blkproof.images.modules import Modules
from blkproof.images.toolchain import Toolchain
from elftools.elf.elffile import ELFFile


@pytest.fixture(params=["debian12", "debian13"])
def modules(request, tmp_path):
    recipe, tree = (request.getfixturevalue(f"{request.param}{part}") for part in ("", "_tree"))
    return Modules(tree, Toolchain(tree, recipe.driver.compiler, tmp_path))


def test_a_module_comes_after_all_it_needs(modules):
    order = modules.load_order(["virtio_net", "xen-privcmd", "xenfs"])
    for before, after in [
        ("failover", "net_failover"),
        ("net_failover", "virtio_net"),
        ("xen_privcmd", "xenfs"),
    ]:
        assert order.index(before) < order.index(after)
    assert len(order) == len(set(order))


def test_a_module_of_any_suite_is_read_as_insmod_wants_it(modules):
    elf = ELFFile(io.BytesIO(modules.read("brd")))
    assert elf.get_section_by_name(".modinfo")


def test_what_one_suite_has_as_modules_another_has_built_in(debian12_tree, debian13_tree, tmp_path):
    old, new = (
        Modules(tree, Toolchain(tree, compiler, tmp_path / compiler)).load_order(["virtio_pci"])
        for tree, compiler in ((debian12_tree, "gcc-12"), (debian13_tree, "gcc-14"))
    )
    assert old[-1] == "virtio_pci"
    assert old.index("virtio_ring") < old.index("virtio")
    assert new == []


def test_a_module_that_the_kernel_lacks_is_told(modules):
    with pytest.raises(PackageError, match="no module warp_drive"):
        modules.load_order(["warp-drive"])
