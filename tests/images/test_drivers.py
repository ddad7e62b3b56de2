import difflib
import io
import shutil

import pytest
from blkproof.images.drivers import Variant, build_drivers, build_variants, stripped
from blkproof.images.errors import DriverError
from blkproof.images.patches import read_patches
from blkproof.images.source import read_source
from elftools.elf.elffile import ELFFile

BLKBACK = "drivers/block/xen-blkback/blkback.c"
BLKFRONT = "drivers/block/xen-blkfront.c"


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


def variant(*files, driver="xen_blkback", source=None):
    patches = tuple(patch for file in files for patch in read_patches(file))
    return Variant(driver, patches, read_source(driver, source) if source else None)


def build(recipe, tree, *variants, progress=print):
    return build_variants(recipe, tree, progress, variants)


def test_a_patch_reaches_the_module_and_leaves_the_plain_build_alone(debian12, own_builds, patch):
    mine = variant(patch('MODULE_INFO(blkproof, "patched");\n'))
    patched = build(debian12, own_builds, mine)["xen_blkback"]
    for path in (patched.module, patched.loadable):
        assert b"blkproof=patched" in sections(path)[".modinfo"].data()
    assert ".debug_info" in sections(patched.module)
    assert ".debug_info" not in sections(patched.loadable)
    plain = build_drivers(debian12, own_builds, print)
    assert b"blkproof=patched" not in sections(plain["xen_blkback"])[".modinfo"].data()
    assert build(debian12, own_builds, mine, progress=pytest.fail) == {"xen_blkback": patched}, "cached"


def test_what_a_driver_was_made_of_is_described(debian12, own_builds, patch, tmp_path):
    one = patch("/* one */\n").read_text()
    doc = "--- a/Documentation/x.rst\n+++ b/Documentation/x.rst\n@@ -1 +1 @@\n-a\n+b\n"
    series = tmp_path / "series.mbox"
    head = "From 0123 Mon Sep 17 00:00:00 2001\nFrom: a@example.org\nSubject: [PATCH {}] {}\n\n{}"
    series.write_text(head.format("1/2", "say one", one) + head.format("2/2", "tell", doc))
    said = []
    made_of = build(debian12, own_builds, variant(series), progress=said.append)["xen_blkback"].made_of
    (told,) = made_of["patches"]
    assert (told["file"], told["subject"], len(told["sha256"])) == ("series.mbox", "say one", 64)
    assert made_of["left_out"] == ["Documentation/x.rst"]
    assert any("not applied: Documentation/x.rst" in line for line in said)


def test_each_side_takes_its_part_of_a_series(debian12, own_builds, tmp_path):
    both = tmp_path / "both.patch"
    text = ""
    for path in (BLKBACK, BLKFRONT):
        before = (own_builds / "driver-source" / path).read_text().splitlines(keepends=True)
        after = [*before, 'MODULE_INFO(blkproof, "patched");\n']
        text += "".join(difflib.unified_diff(before, after, f"a/{path}", f"b/{path}"))
    both.write_text(text)
    names = ("xen_blkback", "xen_blkfront")
    made = build(debian12, own_builds, *(variant(both, driver=name) for name in names))
    for name in names:
        assert b"blkproof=patched" in sections(made[name].module)[".modinfo"].data()
        assert made[name].made_of["left_out"] == []
    alone = build(debian12, own_builds, variant(both))["xen_blkback"]
    assert alone.made_of["left_out"] == [BLKFRONT]


def test_a_patch_for_the_other_driver_alone_is_refused(debian12, own_builds, patch):
    with pytest.raises(DriverError, match=rf"changes nothing of xen-blkfront, only {BLKBACK}"):
        build(debian12, own_builds, variant(patch("/* one */\n"), driver="xen_blkfront"))


def test_a_patch_that_does_not_compile_is_named_in_the_compilers_words(debian12, own_builds, patch, tmp_path):
    good = tmp_path / "good.patch"
    good.write_text(f"--- /dev/null\n+++ b/{BLKBACK.replace('blkback.c', 'new.h')}\n@@ -0,0 +1 @@\n+/* */\n")
    bad = patch("nonsense here;\n")
    with pytest.raises(
        DriverError,
        match=r"(?s)xen-blkback with 2 patches, .*fault\.patch: does not compile for the kernel of debian12:"
        rf"\n{BLKBACK}:\d+:\d+: error: unknown type name",
    ):
        build(debian12, own_builds, variant(good, bad))


def test_a_warning_is_passed_on_each_time(debian12, own_builds, patch):
    mine = variant(patch("static void nobody_calls_it(void) {}\n"))
    for _ in range(2):
        said = []
        build(debian12, own_builds, mine, progress=said.append)
        assert any(f"{BLKBACK}:" in line and "nobody_calls_it" in line for line in said)


def test_a_patch_that_does_not_apply_is_told_in_patchs_words(debian12, own_builds, tmp_path):
    path = tmp_path / "other.patch"
    path.write_text(f"--- a/{BLKBACK}\n+++ b/{BLKBACK}\n@@ -1 +1 @@\n-no such line\n+another\n")
    with pytest.raises(
        DriverError,
        match=rf"(?s)other\.patch: does not apply to {BLKBACK} of linux-source-6.1 of debian12:.*FAILED",
    ):
        build(debian12, own_builds, variant(path))
    tree = own_builds / "driver-source"
    with pytest.raises(DriverError, match=rf"does not apply to {BLKBACK} of {tree}"):
        build(debian12, own_builds, variant(path, source=tree))


def test_a_tree_of_ones_own_takes_the_place_of_the_images_source(debian12, own_builds, tmp_path):
    tree = tmp_path / "linux"
    shutil.copytree(own_builds / "driver-source", tree)
    for path, mark in ((BLKBACK, "own back"), (BLKFRONT, "own front")):
        with (tree / path).open("a") as file:
            file.write(f'MODULE_INFO(blkproof, "{mark}");\n')
    made = build(
        debian12,
        own_builds,
        variant(source=tree / "drivers/block/xen-blkback"),
        variant(driver="xen_blkfront", source=tree),
    )
    assert b"blkproof=own back" in sections(made["xen_blkback"].module)[".modinfo"].data()
    assert b"blkproof=own front" in sections(made["xen_blkfront"].module)[".modinfo"].data()
    assert made["xen_blkfront"].made_of["source"]["directory"] == "linux"


def test_a_cache_that_make_cannot_work_in_is_told(debian12, tmp_path):
    with pytest.raises(
        DriverError, match="my cache/tree: make cannot work below such a name: set BLKPROOF_CACHE"
    ):
        build_drivers(debian12, tmp_path / "my cache/tree", print)
