from pathlib import Path

from blkproof.harness import warden


def test_remove_takes_files_and_directory(tmp_path):
    directory = tmp_path / "machine"
    directory.mkdir()
    (directory / "xen.log").write_text("x")
    warden.remove(str(directory))
    assert not directory.exists()


def test_it_needs_nothing_beyond_the_standard_library():
    """It runs without site packages, so an import of ours would end it at once."""
    lines = Path(warden.__file__).read_text().splitlines()
    assert [line for line in lines if line.startswith(("import", "from"))] == [
        "import contextlib",
        "import ctypes",
        "import os",
        "import select",
        "import signal",
        "import sys",
    ]
