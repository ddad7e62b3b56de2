"""Location expressions: what a probe fetches is what DWARF's own stack machine would find."""

import re
from types import SimpleNamespace

import pytest
from blkproof.harness.probes.ctype import Aggregate, Member, Pointer, Scalar
from blkproof.harness.probes.location import Frame, locate
from blkproof.harness.probes.term import ExpressionError, Term
from hypothesis import given
from hypothesis import strategies as st

U8, U32, U64 = (Scalar(f"u{8 * n}", n, signed=False) for n in (1, 4, 8))
NAMES = ("ax", "dx", "cx", "bx", "si", "di", "bp", "sp", *(f"r{n}" for n in range(8, 16)))
REGISTERS = {f"%{name}": 0x1000_0000 * (n + 1) for n, name in enumerate(NAMES)}
RING = Aggregate(
    "struct ring",
    16,
    lambda: (
        Member("id", lambda: U64, 0),
        Member("op", lambda: U8, 64),
        Member("pad", lambda: U8, 72),
        Member("status", lambda: U32, 96),
    ),
)


def op(name, *args):
    return SimpleNamespace(op_name=f"DW_OP_{name}", args=list(args))


def frame(**known):
    def variable(number):
        return known["variables"][number]

    return Frame(
        lambda: [op("call_frame_cfa")],
        lambda: (7, 64),
        lambda address: ("symbol", address - 0x5000),
        variable,
    )


def word(address):
    """What is in memory there: any function of the address will do."""
    return (address * 0x9E3779B97F4A7C15 + 0x1234567) & ((1 << 64) - 1)


def machine(operations):
    """DWARF's stack machine with registers and memory: (address or value, whether it's a place)."""
    stack = []
    for each in operations:
        name, args = each.op_name.removeprefix("DW_OP_"), each.args
        if name.startswith("breg"):
            stack.append(REGISTERS[f"%{NAMES[int(name[4:])]}"] + args[0])
        elif name == "fbreg":
            stack.append(REGISTERS["%sp"] + 64 + args[0])
        elif name == "deref":
            stack.append(word(stack.pop()))
        elif name == "plus_uconst":
            stack[-1] += args[0]
        elif name == "consts":
            stack.append(args[0])
        elif name in ("plus", "minus"):
            second, first = stack.pop(), stack.pop()
            stack.append(first + second if name == "plus" else first - second)
        elif name == "stack_value":
            return stack.pop() & ((1 << 64) - 1), False
        stack[-1] &= (1 << 64) - 1
    return stack.pop(), True


def fetched(argument):
    """What the kernel makes of a fetch argument."""
    if match := re.fullmatch(r"([+-]\d+)\((.*)\)", argument):
        return word((fetched(match[2]) + int(match[1])) & ((1 << 64) - 1))
    return REGISTERS[argument]


START = st.one_of(
    st.builds(lambda n, off: [op(f"breg{n}", off)], st.integers(0, 15), st.integers(-4096, 4096)),
    st.builds(lambda off: [op("fbreg", off)], st.integers(-4096, 4096)),
)
STEP = st.one_of(
    st.just([op("deref")]),
    st.builds(lambda n: [op("plus_uconst", n)], st.integers(0, 4096)),
    st.builds(
        lambda n, how: [op("consts", n), op(how)],
        st.integers(-4096, 4096),
        st.sampled_from(["plus", "minus"]),
    ),
)


@given(START, st.lists(STEP, max_size=6), st.booleans())
def test_a_probe_fetches_what_dwarf_says(start, steps, value):
    operations = [*start, *(each for step in steps for each in step), *([op("stack_value")] if value else [])]
    expected, place = machine(operations)
    term = locate(operations, U64, frame())
    assert term.place == place
    if place:
        assert fetched(term.render()) == word(expected)
        return
    plain, plus = term.split()
    assert (fetched(plain.render()) + plus) & ((1 << 64) - 1) == expected


@given(st.integers(0, 15))
def test_a_register_holds_the_value_itself(number):
    assert locate([op(f"reg{number}")], U32, frame()) == Term(f"%{NAMES[number]}", U32)


@given(st.integers(-(1 << 31), (1 << 31) - 1))
def test_constants(number):
    for operations in ([op("consts", number), op("stack_value")],):
        assert locate(operations, U32, frame()).render() == f"\\{number}"


def test_a_symbol_is_fetched_by_its_name():
    assert locate([op("addr", 0x5000)], U32, frame()).render() == "@symbol"
    assert locate([op("addr", 0x5008)], U32, frame()).render() == "@symbol+8"
    pointer = locate([op("addr", 0x5000), op("stack_value")], Pointer(lambda: RING), frame())
    assert pointer.target().member("status").render() == "@symbol+12"


def test_a_mask_of_all_bits_changes_nothing():
    masked = [op("breg0", 0), op("const4u", 0xFFFFFFFF), op("and"), op("stack_value")]
    assert locate(masked, U32, frame()).render() == "%ax"
    with pytest.raises(ExpressionError, match=r"can't follow \(and\)"):
        locate(masked, U64, frame())


PIECES = [
    *(op("reg15"), op("piece", 8)),
    *(op("reg8"), op("piece", 1)),
    op("piece", 3),
    *(op("fbreg", -16), op("piece", 4)),
]


def test_a_struct_in_pieces_gives_its_members():
    ring = locate(PIECES, RING, frame())
    assert ring.member("id").render() == "%r15"
    assert ring.member("op").render() == "%r8"
    assert ring.member("status").render() == "+48(%sp)"
    with pytest.raises(ExpressionError, match="was optimised away"):
        ring.member("pad")
    with pytest.raises(ExpressionError, match="is kept in pieces"):
        ring.render()


def test_a_pointer_that_is_gone_leads_to_what_it_points_to():
    pointer = Pointer(lambda: RING)
    known = frame(variables={77: locate(PIECES, RING, frame())})
    term = locate([op("implicit_pointer", 77, 0)], pointer, known)
    assert term.target().member("status").render() == "+48(%sp)"
    with pytest.raises(ExpressionError, match="a pointer that was optimised away"):
        term.render()


@pytest.mark.parametrize(
    ("operations", "says"),
    [
        ([], "was optimised away"),
        ([op("entry_value", [op("reg5")]), op("stack_value")], "only the caller knows it"),
        ([op("breg0", 0), op("breg1", 0), op("plus"), op("stack_value")], "computed from two variables"),
        ([op("breg0", 0), op("breg1", 0), op("minus"), op("stack_value")], "computed from two variables"),
        ([op("breg0", 0), op("lit2"), op("mul"), op("stack_value")], r"can't follow \(mul\)"),
        ([op("plus")], "makes no sense"),
        ([op("reg33")], "DWARF's register 33"),
        ([op("lit5")], "fixed address"),
    ],
)
def test_what_a_probe_can_not_fetch_is_said(operations, says):
    with pytest.raises(ExpressionError, match=says):
        locate(operations, U64, frame())
