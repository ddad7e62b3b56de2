"""The Vagrantfile is one that vagrant accepts, and vagrant's opinion can be lost."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def validate(folder: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("vagrant") is None:
        pytest.fail("vagrant is missing: `make test` installs it, so run the tests through make once")
    return subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=folder,
        env={**os.environ, "VAGRANT_HOME": str(folder / "home"), "VAGRANT_CHECKPOINT_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Vagrantfile", tmp_path)
    return tmp_path


def test_valid(folder: Path):
    done = validate(folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mistake_is_found(folder: Path):
    path = folder / "Vagrantfile"
    path.write_text(path.read_text().replace("config.vm.hostname", "config.vm.hostnam"))
    assert validate(folder).returncode != 0
