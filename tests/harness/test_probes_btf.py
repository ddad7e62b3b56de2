"""The reader of BTF, against an independent writer."""

import pytest
from blkproof.harness.probes.btf import Btf
from blkproof.harness.probes.ctype import Aggregate, Array, Pointer, Scalar, Void
from blkproof.harness.probes.errors import ProbeError

from tests.writers.btf_writer import CONST, ENUM, FLOAT, STRUCT, TYPEDEF, UNION, BtfWriter


@pytest.fixture
def btf(tmp_path):
    """Write what a BtfWriter holds and open it."""

    def open_it(writer):
        path = tmp_path / "kernel.btf"
        path.write_bytes(writer.data())
        return Btf(path)

    return open_it


def test_a_function_has_its_parameters_and_result(btf):
    w = BtfWriter()
    u16, int_ = w.integer("unsigned short", 2), w.integer("int", 4, signed=True)
    domid = w.add(TYPEDEF, "domid_t", u16)
    w.function("grant", int_, [("dom", w.add(CONST, "", domid)), ("data", w.pointer(0))])
    function = btf(w).function("grant")
    assert [name for name, _ in function.parameters] == ["dom", "data"]
    assert function.parameters[0][1] == Scalar("unsigned short", 2, signed=False)
    assert function.parameters[1][1].target() == Void()
    assert function.returns == Scalar("int", 4, signed=True)


def test_kinds_without_use_for_us_are_stepped_over(btf):
    w = BtfWriter()
    w.add(FLOAT, "double", 8)
    w.add(ENUM, "state", 4, b"\0" * 16, vlen=2)
    w.function("after", 0, [])
    assert btf(w).function("after").returns == Void()


def test_members_of_anonymous_members_are_found_where_they_are(btf):
    w = BtfWriter()
    u32, u8 = w.integer("unsigned int", 4), w.integer("unsigned char", 1)
    inner = w.aggregate(UNION, "", 8, [("count", u32, 32), ("op", u8, 0)])
    w.aggregate(STRUCT, "item", 16, [("first", u32, 0), ("", inner, 64)])
    found = btf(w).aggregate("item").find("count")
    assert (found.bit_offset, found.type().size, found.bit_size) == (96, 4, None)
    assert btf(w).aggregate("item").find("nothing") is None


def test_a_bitfield_has_its_width(btf):
    w = BtfWriter()
    u32 = w.integer("unsigned int", 4)
    w.aggregate(STRUCT, "flags", 8, [("a", u32, 0, 0), ("b", u32, 37, 1)], bitfields=True)
    flags = btf(w).aggregate("flags")
    assert (flags.find("b").bit_offset, flags.find("b").bit_size) == (37, 1)
    assert flags.find("a").bit_size is None


def test_a_struct_may_point_to_itself(btf):
    w = BtfWriter()
    pointer = w.pointer(2)
    w.aggregate(STRUCT, "list", 8, [("next", pointer, 0)])
    listed = btf(w).aggregate("list")
    target = listed.find("next").type()
    assert isinstance(target, Pointer)
    assert target.target() is listed


def test_arrays_have_element_and_count(btf):
    w = BtfWriter()
    array = w.array(w.integer("unsigned int", 4), 8)
    w.aggregate(STRUCT, "request", 32, [("gref", array, 0)])
    found = btf(w).aggregate("request").find("gref").type()
    assert isinstance(found, Array)
    assert (found.count, found.size, found.name) == (8, 32, "unsigned int[8]")


def test_a_name_of_another_kind_is_not_it(btf):
    w = BtfWriter()
    int_ = w.integer("int", 4, signed=True)
    w.aggregate(STRUCT, "twin", 4, [("x", int_, 0)])
    w.function("only", int_, [])
    opened = btf(w)
    assert opened.function("twin") is None
    assert opened.aggregate("only") is None
    assert opened.function("absent") is None
    assert isinstance(opened.aggregate("twin"), Aggregate)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: data[:10], "too short"),
        (lambda data: b"\x9f\xea" + data[2:], "no BTF section"),
        (lambda data: data[:-1], "cut off"),
    ],
)
def test_what_is_no_btf_is_refused(tmp_path, spoil, says):
    w = BtfWriter()
    w.integer("int", 4)
    path = tmp_path / "bad.btf"
    path.write_bytes(spoil(w.data()))
    with pytest.raises(ProbeError, match=says):
        Btf(path)


def test_a_module_goes_on_where_the_kernel_ends(tmp_path):
    kernel = BtfWriter()
    u32 = kernel.integer("unsigned int", 4)
    kernel.aggregate(STRUCT, "device", 8, [("count", u32, 0)])
    kernel.function("probe", 0, [("device", u32)])
    path = tmp_path / "kernel.btf"
    path.write_bytes(kernel.data())
    base = Btf(path)
    assert len(base.function("probe").parameters) == 1
    module = BtfWriter(kernel)
    ring = module.aggregate(STRUCT, "ring", 8, [("gnt_c", u32, 32)])
    module.function("probe", u32, [("ring", module.pointer(ring)), ("count", u32)])
    split = Btf(path, module.data(), base)
    assert [name for name, _ in split.function("probe").parameters] == ["ring", "count"]
    assert split.function("probe").parameters[0][1].target().find("gnt_c").bit_offset == 32
    assert split.function("probe").returns.name == "unsigned int"
    assert split.aggregate("device").find("count").type().size == 4
    assert split.function("absent") is None


def test_a_module_without_types_is_refused(tmp_path):
    path = tmp_path / "not.ko"
    path.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(ProbeError, match="is it a kernel module"):
        Btf.of_module(path, None)
