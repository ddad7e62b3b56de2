import difflib
import io

import pytest
from blkproof.images.drivers import build_drivers, stripped
from blkproof.images.errors import DriverError
from elftools.elf.elffile import ELFFile

BLKBACK = "drivers/block/xen-blkback/blkback.c"


@pytest.fixture
def own_builds(cache, debian12_tree):
    """Build into an empty cache, from the packages that the user's own cache holds."""
    (cache / "trees").mkdir(parents=True)
    (cache / "trees" / debian12_tree.name).symlink_to(debian12_tree)
    return cache / "trees" / debian12_tree.name


@pytest.fixture
def patch(debian12_tree, tmp_path):
    """Make a patch that appends a line to the backend."""

    def make(line):
        before = (debian12_tree / "driver-source" / BLKBACK).read_text().splitlines(keepends=True)
        changed = difflib.unified_diff(before, [*before, line], f"a/{BLKBACK}", f"b/{BLKBACK}")
        path = tmp_path / "fault.patch"
        path.write_text("".join(changed))
        return path

    return make


def sections(path):
    elf = ELFFile(io.BytesIO(path.read_bytes()))
    return {section.name: section for section in elf.iter_sections()}


@pytest.fixture(params=["debian12", "debian13"])
def built(request):
    """Return the drivers of an older and of a newer suite."""
    recipe, tree = (request.getfixturevalue(f"{request.param}{part}") for part in ("", "_tree"))
    return build_drivers(recipe, tree, print)


def test_each_step_of_the_protocol_is_a_function_that_a_probe_can_name(built):
    for driver, functions in {
        "xen_blkback": {"dispatch_rw_block_io", "xen_blkbk_map", "make_response", "add_persistent_gnt"},
        "xen_blkfront": {"blkif_completion", "blkif_queue_rw_req", "get_grant", "blkfront_connect"},
    }.items():
        for path in (built[driver], stripped(built[driver])):
            symbols = {symbol.name for symbol in sections(path)[".symtab"].iter_symbols()}
            assert functions <= symbols, path


def test_only_the_copy_for_the_machine_is_without_dwarf(built):
    for path in built.values():
        assert ".debug_info" in sections(path)
        assert ".debug_info" not in sections(stripped(path))


def test_same_inputs_give_same_bytes_that_name_no_directory(debian12, own_builds, monkeypatch, tmp_path):
    first = build_drivers(debian12, own_builds, print)
    monkeypatch.setenv("BLKPROOF_CACHE", str(tmp_path / "another cache"))
    again = build_drivers(debian12, own_builds.resolve(), print)
    for name, path in first.items():
        assert path != again[name]
        assert path.read_bytes() == again[name].read_bytes()
        assert str(own_builds.resolve()).encode() not in path.read_bytes()


def test_a_patch_reaches_the_module_and_leaves_the_plain_build_alone(debian12, own_builds, patch):
    fault = patch('MODULE_INFO(blkproof, "patched");\n')
    patched = build_drivers(debian12, own_builds, print, [fault])
    assert b"blkproof=patched" in sections(patched["xen_blkback"])[".modinfo"].data()
    plain = build_drivers(debian12, own_builds, print)
    assert b"blkproof=patched" not in sections(plain["xen_blkback"])[".modinfo"].data()
    assert build_drivers(debian12, own_builds, pytest.fail, [fault]) == patched, "from the cache"


def test_a_patch_that_does_not_compile_is_told_in_the_compilers_words(debian12, own_builds, patch):
    with pytest.raises(
        DriverError, match=rf"(?s)do not compile: {BLKBACK}:\d+:\d+: error: unknown type name"
    ):
        build_drivers(debian12, own_builds, print, [patch("nonsense here;\n")])


def test_a_patch_that_does_not_apply_is_told_in_patchs_words(debian12, own_builds, tmp_path):
    path = tmp_path / "other.patch"
    path.write_text(f"--- a/{BLKBACK}\n+++ b/{BLKBACK}\n@@ -1 +1 @@\n-no such line\n+another\n")
    with pytest.raises(DriverError, match=r"other\.patch: does not apply .*Hunk #1 FAILED"):
        build_drivers(debian12, own_builds, print, [path])


def test_a_patch_that_is_not_there(debian12, own_builds, tmp_path):
    with pytest.raises(DriverError, match=r"absent\.patch: cannot be read as a patch: No such file"):
        build_drivers(debian12, own_builds, print, [tmp_path / "absent.patch"])


def test_a_cache_that_make_cannot_work_in_is_told(debian12, tmp_path):
    with pytest.raises(
        DriverError, match="my cache/tree: make cannot work below such a name: set BLKPROOF_CACHE"
    ):
        build_drivers(debian12, tmp_path / "my cache/tree", print)
