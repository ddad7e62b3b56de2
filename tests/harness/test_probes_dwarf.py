"""The reader of DWARF, against what gcc made of objects/driver.c."""

import gzip
from pathlib import Path

import pytest
from blkproof.harness.probes.ctype import Array, Scalar, Void
from blkproof.harness.probes.dwarf import Dwarf
from blkproof.harness.probes.errors import ProbeError

OBJECT = Path(__file__).parent / "objects" / "driver.o.gz"


@pytest.fixture
def driver(tmp_path):
    path = tmp_path / "driver.ko"
    path.write_bytes(gzip.decompress(OBJECT.read_bytes()))
    return Dwarf(path, OBJECT.parent)


def place(aggregate, name):
    member = aggregate.find(name)
    return member.bit_offset, member.bit_size


def parameters(driver, function):
    (site,) = driver.sites(function, "")
    return {name: located().type for name, located in site.variables.items()}


def test_a_parameter_may_be_a_small_struct_or_point_to_nothing(driver):
    found = parameters(driver, "store")
    assert found["t"].size == 4
    assert found["data"].target() == Void()
    assert found["dir"].target() == Scalar("char", 1, signed=True)


def test_members_are_where_gcc_put_them(driver):
    request = driver.aggregate("request")
    assert place(request, "operation") == (0, None)
    assert place(request, "anonymous") == (8 * 112, None)
    packed = request.find("u").type().find("rw").type()
    assert place(packed, "id") == (8, None)
    assert place(packed, "seg") == (72, None)


def test_bitfields_have_place_and_width(driver):
    vbd = driver.aggregate("vbd")
    first, persistent = place(vbd, "first"), place(vbd, "persistent")
    assert persistent == (first[0] + 4, 1)
    assert first[1] == 4


def test_qualifiers_are_looked_through(driver):
    shared = driver.aggregate("vbd").find("shared").type().target()
    assert shared == Scalar("short unsigned int", 2, signed=False)


def test_arrays_of_all_shapes(driver):
    request = driver.aggregate("request")
    matrix = request.find("matrix").type()
    assert isinstance(matrix, Array)
    assert (matrix.count, matrix.element().count, matrix.size) == (3, 2, 12)
    assert request.find("tail").type().count == 0
    assert driver.aggregate("pending").find("all").type().element().target().name == "struct request"


def test_an_enumeration_is_a_number(driver):
    state = driver.aggregate("pending").find("state").type()
    assert (state.name, state.size, state.signed) == ("enum state", 4, False)


def test_what_is_no_module_is_refused(tmp_path):
    path = tmp_path / "not.ko"
    path.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(ProbeError, match="is it a kernel module"):
        Dwarf(path, tmp_path)
