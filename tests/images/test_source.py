"""A user's own source of a driver; the files are the test's own."""

import subprocess

import pytest
from blkproof.images.errors import DriverError
from blkproof.images.source import read_source


@pytest.fixture
def tree(tmp_path):
    """Return a kernel tree that holds little but the drivers."""
    block = tmp_path / "linux/drivers/block"
    (block / "xen-blkback").mkdir(parents=True)
    (block / "xen-blkfront.c").write_text("int front;\n")
    (block / "brd.c").write_text("int brd;\n")
    for name in ("blkback.c", "common.h", "Makefile", "blkback.o", "xen-blkback.mod.c"):
        (block / "xen-blkback" / name).write_text(f"{name}\n")
    return tmp_path / "linux"


@pytest.mark.parametrize(
    ("driver", "below"),
    [
        ("xen_blkback", "."),
        ("xen_blkback", "drivers/block"),
        ("xen_blkback", "drivers/block/xen-blkback"),
        ("xen_blkfront", "."),
        ("xen_blkfront", "drivers/block"),
    ],
)
def test_the_driver_is_found_in_a_tree_or_in_its_own_directory(tree, driver, below):
    source = read_source(driver, tree / below)
    names = {"xen_blkback": ["Makefile", "blkback.c", "common.h"], "xen_blkfront": ["xen-blkfront.c"]}
    assert [name for name, _ in source.files] == names[driver]
    assert source.digest == read_source(driver, tree).digest
    assert source.described() == {
        "directory": (tree / below).name,
        "sha256": source.digest,
        "git": None,
        "dirty": None,
    }


def test_a_directory_without_the_driver_is_told_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(DriverError, match=r"no source of xen-blkback there: .*xen-blkback/blkback\.c"):
        read_source("xen_blkback", tmp_path)


def test_the_digest_follows_the_files_and_git_says_what_they_are(tree):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", *who, *words], cwd=tree, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    git("add", "*.c", "*.h", "*Makefile")
    git("commit", "-qm", "all")
    head = git("rev-parse", "HEAD")
    clean = read_source("xen_blkback", tree)
    assert (clean.head, clean.dirty) == (head, False)
    assert str(clean) == f"{tree}, git {head[:12]}"
    (tree / "drivers/block/xen-blkfront.c").write_text("int other;\n")
    assert read_source("xen_blkback", tree) == clean, "the other driver's file is none of this one's"
    (tree / "drivers/block/xen-blkback/common.h").write_text("int changed;\n")
    dirty = read_source("xen_blkback", tree)
    assert dirty.dirty
    assert dirty.digest != clean.digest
    assert str(dirty).endswith("with changes")


def test_the_files_take_the_place_of_all_that_a_copy_has(tree, tmp_path):
    block = tmp_path / "copy"
    (block / "xen-blkback").mkdir(parents=True)
    (block / "xen-blkback/old.h").touch()
    (block / "xen-blkfront.c").write_text("old\n")
    for driver in ("xen_blkback", "xen_blkfront"):
        read_source(driver, tree).put(block)
    assert sorted(path.name for path in (block / "xen-blkback").iterdir()) == [
        "Makefile",
        "blkback.c",
        "common.h",
    ]
    assert (block / "xen-blkfront.c").read_text() == "int front;\n"
