"""Expressions in C's words, to fetch arguments in the kernel's."""

import pytest
from blkproof.harness.probes.ctype import Aggregate, Array, Function, Member, Pointer, Scalar, Void
from blkproof.harness.probes.expression import evaluate
from blkproof.harness.probes.site import Site, entry
from blkproof.harness.probes.term import ExpressionError, Term

U8, U16, U32, U64 = (Scalar(f"u{8 * n}", n, signed=False) for n in (1, 2, 4, 8))
INT = Scalar("int", 4, signed=True)
CHAR = Scalar("char", 1, signed=True)


def struct(name, size, *members):
    made = tuple(
        Member(label, (lambda kind=kind: kind), 8 * offset + shift, width)
        for label, kind, offset, shift, width in (m if len(m) == 5 else (*m, 0, None) for m in members)
    )
    return Aggregate(f"struct {name}", size, lambda: made)


def to(kind):
    return Pointer(lambda: kind)


def array(kind, count):
    return Array(lambda: kind, count)


PAGE = struct("grant_page", 24, ("handle", U32, 16), ("gref", U32, 20))
BLKIF = struct("xen_blkif", 64, ("domid", U16, 0), ("persistent", U32, 8, 5, 1))
RING = struct("ring", 400, ("blkif", to(BLKIF), 360), ("count", INT, 152))
REQUEST = struct("request", 112, ("operation", U8, 0), ("id", U64, 8), ("seg", array(U64, 11), 24))
PENDING = struct(
    "pending_req", 500, ("ring", to(RING), 0), ("pages", array(to(PAGE), 4), 48), ("seg", array(PAGE, 4), 100)
)
TOKEN = struct("token", 4, ("id", U32, 0))
WIDE = struct("wide", 16, ("a", U64, 0), ("b", U64, 8))

FUNCTION = Function(
    "dispatch",
    (
        ("ring", to(RING)),
        ("req", to(REQUEST)),
        ("pending", to(PENDING)),
        ("data", to(Void())),
        ("t", TOKEN),
        ("name", to(CHAR)),
        ("seventh", INT),
    ),
    to(PAGE),
)


class Source:
    def variable(self, name):
        return {"limit": Term("&limit", INT, place=True), "last": Term("&last", to(RING), place=True)}.get(
            name
        )

    def aggregate(self, name):
        known = {"request": REQUEST, "grant_page": PAGE, "ring": RING, "pending_req": PENDING}
        return known.get(name)


def fetched(text, returns=False):
    return [term.render() for term in evaluate(text, entry(FUNCTION), Source(), returns=returns)]


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        ("ring", "%di"),
        ("req->operation", "+0(%si)"),
        ("req->id", "+8(%si)"),
        ("ring->blkif->domid", "+0(+360(%di))"),
        ("(*req).id", "+8(%si)"),
        ("*req->seg", "+24(%si)"),
        ("req->seg[3]", "+48(%si)"),
        ("pending->pages[1]->gref", "+20(+56(%dx))"),
        ("pending->seg[2].gref", "+168(%dx)"),
        ("((struct request *)data)->id", "+8(%cx)"),
        ("((struct request *)data)[2].id", "+232(%cx)"),
        ("((u64 *)req)[1]", "+8(%si)"),
        ("t.id", "%r8"),
        ("*name", "+0(%r9)"),
        ("ring->blkif", "+360(%di)"),
        ("ring -> count", "+152(%di)"),
        ("limit", "@limit"),
        ("last->count", "+152(@last)"),
        ("last->blkif->domid", "+0(+360(@last))"),
        ("container_of(data, struct pending_req, pages)->seg[1].gref", "+96(%cx)"),
        ("container_of(req, struct pending_req, seg)->ring->count", "+152(-100(%si))"),
        ("container_of(ring->blkif, struct ring, count)->count", "+0(+360(%di))"),
    ],
)
def test_one_value(text, argument):
    assert fetched(text) == [argument]


def test_the_result_of_a_function():
    assert fetched("$retval", returns=True) == ["$retval"]
    assert fetched("$retval->gref", returns=True) == ["+20($retval)"]
    assert fetched("(u16)$retval->gref", returns=True) == ["+20($retval)"]


def test_slices():
    assert fetched("req->seg[:3]") == ["+24(%si)", "+32(%si)", "+40(%si)"]
    assert fetched("pending->pages[:2]->gref") == ["+20(+48(%dx))", "+20(+56(%dx))"]
    assert fetched("pending->seg[:2].handle") == ["+116(%dx)", "+140(%dx)"]
    assert fetched("((u64 *)pending->seg)[:2]") == ["+100(%dx)", "+108(%dx)"]
    assert fetched("req->seg[9:11]") == ["+96(%si)", "+104(%si)"]


def test_a_bitfield_knows_its_bits():
    (term,) = evaluate("ring->blkif->persistent", entry(FUNCTION), Source(), returns=False)
    assert (term.render(), term.bits) == ("+8(+360(%di))", (5, 1))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rnig", r"dispatch\(\) has no parameter or variable 'rnig'; it has ring, req"),
        ("req->op", "struct request has no member 'op'; it has operation, id, seg"),
        ("req.id", "has no members, so no 'id'"),
        ("req->id->x", "u64 is no pointer"),
        ("ring->", "unexpected 'the end'"),
        ("ring)", r"unexpected '\)'"),
        ("req->seg[x]", "'x' is no constant index"),
        ("req->seg[:2][:2]", "a slice of a slice"),
        ("req->seg[2:x]", "'x' is no constant index"),
        ("container_of(req, struct ring, cnt)", "struct ring has no member 'cnt' that can be pointed to"),
        ("container_of(req, u64, x)", "u64 is no struct that could contain 'x'"),
        ("container_of(req struct ring, count)", "unexpected 'struct', expected ','"),
        ("((struct no *)data)->id", "there is no struct no"),
        ("(u64)req->operation", "can't be cast to the wider u64"),
        ("(u8)ring->blkif->persistent", "a bitfield can't be cast"),
        ("$retval", "needs a probe on the function's return"),
        ("seventh", "passed on the stack"),
        ("ring + 8", r"'\+' is no part of an expression"),
        ("", "unexpected 'the end'"),
    ],
)
def test_what_is_wrong_is_said(text, says):
    with pytest.raises(ExpressionError, match=says):
        fetched(text)


def test_parameters_are_gone_when_a_function_returns():
    with pytest.raises(ExpressionError, match=r"'ring' is gone .* only \$retval"):
        fetched("ring", returns=True)


def test_an_address_inside_a_struct_is_no_value():
    with pytest.raises(ExpressionError, match="address inside a struct"):
        fetched("(u64 *)pending->seg")


def test_of_a_struct_in_a_register_only_the_start_can_be_had():
    pair = struct("pair", 8, ("a", U32, 0), ("b", U32, 4))
    function = Function("f", (("p", pair),), Void())
    assert evaluate("p.a", entry(function), Source(), returns=False)[0].render() == "%di"
    with pytest.raises(ExpressionError, match="only its first member"):
        evaluate("p.b", entry(function), Source(), returns=False)


def test_a_struct_that_fills_two_registers_is_refused():
    function = Function("f", (("w", WIDE), ("x", INT)), Void())
    with pytest.raises(ExpressionError, match="not passed in one register"):
        evaluate("x", entry(function), Source(), returns=False)


def test_a_global_variable_can_be_had_when_a_function_returns():
    assert fetched("limit", returns=True) == ["@limit"]


def test_a_local_variable_hides_a_global_one():
    site = Site("f", "f+12", {"limit": lambda: Term("%bx", U64)})
    assert evaluate("limit", site, Source(), returns=False)[0].render() == "%bx"


def test_members_of_a_global_struct_and_constants():
    def rendered(term, text="it"):
        return evaluate(text, Site("f", "f", {"it": lambda: term}), Source(), returns=False)[0].render()

    assert rendered(Term("&pool", REQUEST, place=True), "it.id") == "@pool+8"
    assert rendered(Term("&pool", to(REQUEST)), "it->id") == "@pool+8"
    assert rendered(Term("\\5", INT)) == "\\5"
    with pytest.raises(ExpressionError, match="constant here and points to nothing"):
        rendered(Term("\\0", to(REQUEST)), "it->id")
    with pytest.raises(ExpressionError, match="the address of a variable"):
        rendered(Term("&pool", to(REQUEST)))
