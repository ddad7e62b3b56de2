"""The whole table on real modules: the drivers that blkproof builds, and the distribution's own."""

from dataclasses import replace

import pytest
from blkproof.harness.probes.btf import Btf
from blkproof.harness.probes.compiler import KERNEL, compile_rows
from blkproof.harness.probes.dwarf import Dwarf
from blkproof.harness.probes.errors import ProbeError
from blkproof.harness.probes.load import load_probes
from blkproof.harness.probes.rows import ROWS
from blkproof.images.build import build, package_tree
from blkproof.images.drivers import sources_of
from blkproof.images.recipe import load_recipe
from blkproof.images.stock import stock_drivers
from blkproof.traces.events import EVENTS

IMAGE = "debian12"


@pytest.fixture(scope="module")
def image():
    return build(load_recipe(IMAGE), progress=print)


@pytest.fixture(scope="module")
def rebuilt(image):
    drivers = {name: Dwarf(path, sources_of(path)) for name, path in image.modules.items()}
    return {KERNEL: Btf(image.btf), **drivers}


@pytest.fixture(scope="module")
def stock(image, tmp_path_factory):
    recipe = load_recipe(IMAGE)
    drivers = stock_drivers(recipe, package_tree(recipe, progress=print), print)
    modules = {name: driver.module for name, driver in drivers.items()}
    return load_probes(image.btf, modules, tmp_path_factory.mktemp("probes"), modules)


def test_rows_fit_our_own_drivers_without_anything_that_stands_in(rebuilt):
    plain = [replace(row, callers={}, otherwise=()) for row in ROWS]
    found = compile_rows(plain, rebuilt)
    assert found.missing == {}
    assert {definition.event for definition in found.definitions} == {row.event for row in ROWS}


def test_every_event_can_be_had_of_the_stock_drivers(stock):
    assert stock.missing == {}
    assert {definition.event for definition in stock.definitions} == {row.event for row in ROWS}


def test_without_dwarf_entries_are_had_by_btf_and_the_rest_is_named(image, tmp_path):
    recipe = load_recipe(IMAGE)
    drivers = stock_drivers(recipe, package_tree(recipe, progress=print), print)
    modules = {name: driver.loadable for name, driver in drivers.items()}
    probes = load_probes(image.btf, modules, tmp_path, modules)
    had = {definition.event: definition.line for definition in probes.definitions}
    assert {"be_map", "be_map_ret", "fe_irq", "gt_map"} <= had.keys()
    assert had.keys() | probes.missing.keys() == {row.event for row in ROWS}
    assert "no function get_persistent_gnt() in BTF; was it renamed or inlined?" in probes.missing["be_get"]
    assert all("+" not in line.split()[1] for line in had.values())


def test_btf_and_dwarf_of_a_stock_module_give_the_same_entries(image, stock, tmp_path):
    recipe = load_recipe(IMAGE)
    drivers = stock_drivers(recipe, package_tree(recipe, progress=print), print)
    modules = {name: driver.loadable for name, driver in drivers.items()}
    entries = {
        definition.line for definition in load_probes(image.btf, modules, tmp_path, modules).definitions
    }
    assert entries <= {definition.line for definition in stock.definitions}


def test_an_inlined_function_is_probed_wherever_it_is_entered(stock):
    # The compiler laid out the beginning of dispatch_rw_block_io() twice, which DWARF's entry does not say.
    entries = [each.line.split()[1] for each in stock.definitions if each.event == "be_request"]
    assert len(entries) == len(set(entries)) == 2
    assert all(entry.startswith("xen_blkback:xen_blkif_schedule+") for entry in entries)


def test_probes_fetch_all_fields_of_their_events(stock):
    for definition in stock.definitions:
        fetched = {argument.partition("=")[0] for argument in definition.line.split()[2:]}
        for field in EVENTS[definition.event].fields:
            assert {field.name, f"{field.name}0"} & fetched, definition


@pytest.mark.parametrize(
    ("event", "field", "expression", "says"),
    [
        (
            "be_map",
            "pgc",
            "ring->persistent_gnts_count",
            r"^probe be_map \(xen_blkback:xen_blkbk_map\), pgc = ring->persistent_gnts_count: "
            r"struct xen_blkif_ring has no member 'persistent_gnts_count'; it has .*persistent_gnt_c, ",
        ),
        (
            "be_get",
            "gref",
            "grefs",
            r"gref = grefs: get_persistent_gnt\(\) has no parameter or variable 'grefs'; it has ring, gref",
        ),
        (
            "fe_irq",
            "rinfo",
            "(struct blkfront_ring *)dev_id",
            r"^probe fe_irq \(xen_blkfront:blkif_interrupt\), .*there is no struct blkfront_ring",
        ),
        ("gt_grant", "ref", "gref", r"^probe gt_grant \(gnttab_grant_foreign_access_ref\), ref = gref: .*"),
    ],
)
def test_a_row_that_names_what_is_not_there_says_so_to_a_kernel_developer(
    rebuilt, event, field, expression, says
):
    row = next(row for row in ROWS if row.event == event)
    with pytest.raises(ProbeError, match=says):
        compile_rows([replace(row, fields={**row.fields, field: expression})], rebuilt)


def test_a_row_whose_function_was_renamed_says_so(rebuilt):
    row = next(row for row in ROWS if row.event == "be_put")
    with pytest.raises(
        ProbeError, match=r"^probe be_put: xen_blkback: there is no function give_persistent_gnt\(\)"
    ):
        compile_rows([replace(row, function="give_persistent_gnt", callers={})], rebuilt)


def test_a_module_parameter_can_be_fetched_anywhere(rebuilt):
    row = next(row for row in ROWS if row.event == "be_add_ret")
    row = replace(row, fields={"rc": "(s32)max_pgrants"}, returns=False, otherwise=())
    (found,) = compile_rows([row], rebuilt).definitions
    assert found.line.endswith(" rc=@max_pgrants:s32")
