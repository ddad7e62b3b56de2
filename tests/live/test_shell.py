"""A visit to a running scenario, by script and from a terminal."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from blkproof.cli.verdicts import judged

pytestmark = pytest.mark.live

BLKPROOF = Path(sys.executable).with_name("blkproof")


@pytest.mark.parametrize(("where", "disk"), [("dom0", "ram0"), ("guest1", "xvda")])
def test_a_script_sees_the_disk_and_an_armed_trace(where: str, disk: str, tmp_path: Path):
    done = subprocess.run(
        [BLKPROOF, "shell", "basic", "--in", where],
        input="ls /sys/block; echo tracing $(cat /sys/kernel/tracing/tracing_on)\n",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert disk in done.stdout.split()
    assert "tracing 1" in done.stdout
    (capture,) = (tmp_path / "runs").iterdir()
    assert judged(capture).outcome == "pass"


@pytest.mark.parametrize("where", ["dom0", "guest1"])
def test_a_person_gets_a_prompt(where: str, tmp_path: Path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [BLKPROOF, "shell", "basic", "--in", where], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    while b"# " not in seen:
        seen += os.read(ours, 4096)
    os.write(ours, b"echo it is $((6*7))\nexit\n")
    try:
        while data := os.read(ours, 4096):
            seen += data
    except OSError:
        pass  # the other end of a terminal is closed like this
    assert process.wait() == 0
    assert b"it is 42" in seen
