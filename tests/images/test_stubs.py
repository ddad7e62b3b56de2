import ctypes

import pytest
from blkproof.images.elf import Libraries, undefined_symbols
from blkproof.images.stubs import stand_ins
from blkproof.images.toolchain import Toolchain
from elftools.elf.elffile import ELFFile


@pytest.fixture
def librbd(debian12, debian12_tree, tmp_path):
    tools = Toolchain(debian12_tree, debian12.driver.compiler, tmp_path)
    fio = debian12_tree / "usr/bin/fio"
    made = stand_ins(Libraries(debian12_tree), [fio], ["librbd.so.1"], tools)
    path = tmp_path / "made.so"
    path.write_bytes(made["librbd.so.1"])
    return path


def test_a_stand_in_has_what_the_program_asks_for_and_needs_nothing_itself(librbd, debian12_tree):
    with librbd.open("rb") as handle:
        elf = ELFFile(handle)
        dynamic = elf.get_section_by_name(".dynamic")
        names = {symbol.name for symbol in elf.get_section_by_name(".dynsym").iter_symbols() if symbol.name}
        assert next(dynamic.iter_tags("DT_SONAME")).soname == "librbd.so.1"
        assert not list(dynamic.iter_tags("DT_NEEDED"))
    asked = {name for name in undefined_symbols(debian12_tree / "usr/bin/fio") if name.startswith("rbd_")}
    assert asked
    assert names == asked
    ctypes.CDLL(str(librbd))
