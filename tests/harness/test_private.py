import os
import stat
import subprocess
import sys
import tempfile

import pytest
from blkproof.harness.private import PrivateDirectory, sweep


@pytest.fixture(autouse=True)
def temporary_root(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_only_the_owner_may_look_inside():
    directory = PrivateDirectory.create()
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    directory.remove()


def test_remove_leaves_nothing(temporary_root):
    directory = PrivateDirectory.create()
    (directory.path / "xen.log").write_text("x")
    directory.remove()
    assert list(temporary_root.iterdir()) == []


def test_a_sweep_spares_what_is_alive():
    directory = PrivateDirectory.create()
    assert sweep() == []
    assert directory.path.is_dir()
    directory.remove()


def test_the_next_machine_sweeps_what_a_killed_harness_forgot(temporary_root):
    script = (
        "import os, signal, tempfile\n"
        "from blkproof.harness.private import PrivateDirectory\n"
        f"tempfile.tempdir = {str(temporary_root)!r}\n"
        "PrivateDirectory.create()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    (forgotten,) = temporary_root.iterdir()
    directory = PrivateDirectory.create()
    assert not forgotten.exists()
    directory.remove()


def test_a_sweep_spares_a_directory_that_is_just_being_made(temporary_root):
    unfinished = temporary_root / "blkproof-machine-new"
    unfinished.mkdir()
    os.close(os.open(unfinished / "lock.new", os.O_CREAT | os.O_RDWR))
    assert sweep() == []
    assert unfinished.is_dir()
