import pytest
from blkproof.images.errors import PackageError
from blkproof.images.initramfs import load_order, system_archive


@pytest.fixture
def modules(debian12_tree):
    return {path.stem.replace("-", "_"): path for path in debian12_tree.rglob("*.ko")}


def test_a_module_comes_after_all_it_needs(modules):
    order = load_order(modules, [], ["virtio_net", "virtio_pci", "xenfs"])
    for before, after in [
        ("virtio_ring", "virtio"),
        ("virtio", "virtio_net"),
        ("failover", "net_failover"),
        ("net_failover", "virtio_net"),
        ("virtio_pci_modern_dev", "virtio_pci"),
        ("xen_privcmd", "xenfs"),
    ]:
        assert order.index(before) < order.index(after)
    assert len(order) == len(set(order))


def test_a_built_in_module_is_not_loaded(modules):
    assert "virtio_ring" not in load_order(modules, ["virtio_ring"], ["virtio_net"])


def test_a_module_that_the_kernel_lacks_is_told(modules):
    with pytest.raises(PackageError, match="no module warp_drive"):
        load_order(modules, [], ["warp-drive"])


def test_dom0_holds_the_toolstack_and_the_guest_does_not(debian12, debian12_tree):
    dom0 = system_archive(debian12_tree, debian12.dom0, "dom0", debian12.driver.compiler)
    for path in ("init", "bin/xl", "bin/sh", "bin/xenstore-ls", "bin/dropbear", "lib64/ld-linux-x86-64.so.2"):
        assert path in dom0
    assert "lib/blkproof/brd.ko" in dom0
    assert "bin/fio" not in dom0


def test_the_guest_holds_fio_without_the_libraries_of_engines_that_we_do_not_use(debian12, debian12_tree):
    guest = system_archive(debian12_tree, debian12.guest, "guest", debian12.driver.compiler)
    assert "bin/fio" in guest
    assert "lib/x86_64-linux-gnu/librbd.so.1" in guest, "the stand-in"
    assert "lib/x86_64-linux-gnu/libceph-common.so.2" not in guest
    assert "bin/xl" not in guest


def test_a_program_that_no_package_holds_is_told(debian12, debian12_tree):
    system = debian12.guest.model_copy(update={"programs": ("usr/bin/nonesuch",)})
    with pytest.raises(PackageError, match="usr/bin/nonesuch: matches 0 files"):
        system_archive(debian12_tree, system, "guest", debian12.driver.compiler)
