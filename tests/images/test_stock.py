"""The stock drivers, and whether their twins have the same code."""

import lzma
import struct

import pytest
from blkproof.images.drivers import build_drivers
from blkproof.images.elf import elf_of
from blkproof.images.stock import stock_drivers
from blkproof.images.twin import build_id, difference


@pytest.fixture(scope="module")
def drivers(debian12, debian12_tree):
    return stock_drivers(debian12, debian12_tree, print)


@pytest.mark.parametrize("name", ["xen_blkback", "xen_blkfront"])
def test_debians_modules_are_loaded_and_their_twins_are_the_same(drivers, debian12_tree, name):
    (packaged,) = debian12_tree.glob(f"lib/modules/*/kernel/**/{name.replace('_', '-')}.ko")
    driver = drivers[name]
    assert driver.loadable.read_bytes() == packaged.read_bytes()
    assert driver.made_of["stock"]["differs"] is None
    assert driver.made_of["stock"]["build_id"] == build_id(packaged.read_bytes())
    assert elf_of(driver.module.read_bytes()).has_dwarf_info()
    assert not elf_of(driver.loadable.read_bytes()).has_dwarf_info()


def test_packed_modules_are_unpacked(debian13, debian13_tree):
    drivers = stock_drivers(debian13, debian13_tree, print)
    (packed,) = debian13_tree.glob("lib/modules/*/kernel/**/xen-blkfront.ko.xz")
    assert drivers["xen_blkfront"].loadable.read_bytes() == lzma.decompress(packed.read_bytes())
    assert drivers["xen_blkfront"].made_of["stock"]["differs"] is None


def test_a_twin_with_other_flags_is_another_driver(debian12, debian12_tree, drivers):
    other = build_drivers(debian12, debian12_tree, print)["xen_blkfront"].read_bytes()
    found = difference(drivers["xen_blkfront"].loadable.read_bytes(), other)
    assert found.startswith(".text+0x")
    assert "in the stock module" in found


def test_a_stock_module_that_differs_is_probed_by_what_it_says_itself(
    debian12, debian12_tree, monkeypatch, tmp_path
):
    monkeypatch.setattr("blkproof.images.stock.difference", lambda *_: ".text+0x10: code: 90 is not 91")
    monkeypatch.setattr("blkproof.images.stock.cache_root", lambda: tmp_path)
    said = []
    driver = stock_drivers(debian12, debian12_tree, said.append)["xen_blkback"]
    assert driver.module == driver.loadable
    assert driver.made_of["stock"]["differs"] == ".text+0x10: code: 90 is not 91"
    assert any("probed at function entries only" in text and ".text+0x10" in text for text in said)


def changed(module, section, at, data):
    start = elf_of(module).get_section_by_name(section)["sh_offset"] + at
    return module[:start] + data + module[start + len(data) :]


def test_one_byte_or_one_relocation_is_enough(drivers):
    module = drivers["xen_blkfront"].loadable.read_bytes()
    assert difference(module, module) is None
    code = changed(module, ".text", 0x20, b"\xcc")
    assert difference(module, code).startswith(".text+0x20: code: ")
    relocation = elf_of(module).get_section_by_name(".rela.text").get_relocation(0)
    moved = changed(module, ".rela.text", 16, struct.pack("<q", relocation["r_addend"] + 1))
    assert difference(module, moved).startswith(f".text+{relocation['r_offset']:#x}: relocation: ")


def test_texts_in_read_only_data_may_lie_elsewhere(drivers):
    module = drivers["xen_blkfront"].loadable.read_bytes()
    texts = elf_of(module).get_section_by_name(".rodata.str1.1")
    other = changed(module, ".rodata.str1.1", 0, bytes(texts["sh_size"]))
    assert difference(module, other) is None
