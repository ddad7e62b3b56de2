"""The schema is legal: every decoder and the table are made from it."""

import pytest
from blkproof.traces.columns import KINDS, column_type, of_field
from blkproof.traces.events import BASE, EVENTS
from blkproof.traces.rows import row_type


@pytest.mark.parametrize("name", KINDS)
def test_every_field_has_a_legal_type_and_its_own_name(name):
    fields = EVENTS[name].fields
    names = [field.name for field in (*BASE, *fields)]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and not name.startswith("_") for name in names)
    assert all(of_field(field).empty(2).shape[0] == 2 for field in fields)
    assert row_type(name)._fields == tuple(names)


@pytest.mark.parametrize("name", KINDS)
def test_a_numbered_part_never_looks_like_another_field(name):
    names = {field.name for field in EVENTS[name].fields}
    assert not [n for n in names if n.rstrip("0123456789") != n and n.rstrip("0123456789") in names]


def test_a_kprobe_can_carry_every_field():
    """Linux allows 128 arguments, 64 elements per array and 3072 bytes per event."""
    for kind in EVENTS.values():
        types = [of_field(field) for field in kind.fields]
        assert sum(max(t.length, 1) * t.dtype.itemsize for t in types if t.dtype.kind != "O") < 3072


@pytest.mark.parametrize("dtype", ["u7", "u64[0]", "u64[]", "f32", "str[3]", "", "u64[-1]"])
def test_other_types_are_refused(dtype):
    with pytest.raises(ValueError, match="no dtype of the schema"):
        column_type(dtype)
