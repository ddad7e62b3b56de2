"""The front door: help without heavy imports, and exit codes that are never mixed up."""

import subprocess
import sys
from pathlib import Path

import pytest
from blkproof.cli import exits
from blkproof.cli.main import COMMANDS

BLKPROOF = Path(sys.executable).with_name("blkproof")


def blkproof(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BLKPROOF, *args], capture_output=True, text=True, check=False)


def test_help_lists_every_command():
    done = blkproof("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


def test_help_imports_nothing_heavy():
    """Help is instant because it imports none of these; the seconds themselves belong to benchmarks."""
    script = (
        "import sys; sys.argv = ['blkproof', '--help']\n"
        "from blkproof.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('HEAVY', sorted({'numpy','pandas','numba','pyarrow','paramiko','rich','pydantic','jinja2'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_teaches(command: str):
    done = blkproof(command, "--help")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 4


@pytest.mark.parametrize(
    "args",
    [
        ["no-such-command"],
        ["run"],
        ["run", "no-such-scenario"],
        ["run", "basic", "--set", "persistent"],
        ["run", "basic", "--set", "persistent=perhaps"],
        ["run", "basic", "--set", "no-such-setting=on"],
        ["run", "basic", "--accel", "magic"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_64_and_says_what_is_legal(args: list[str]):
    done = blkproof(*args)
    assert done.returncode == exits.USAGE
    assert done.stdout == ""
    assert "Error" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], exits.HARNESS),
        (["pass"], exits.PASS),
        (["pass", "inconclusive"], exits.INCONCLUSIVE),
        (["inconclusive", "harness"], exits.HARNESS),
        (["harness", "crash"], exits.CRASH),
        (["pass", "fail", "crash", "harness"], exits.FAIL),
    ],
)
def test_the_worst_outcome_names_the_exit_code(outcomes: list[str], code: int):
    assert exits.of(outcomes) == code
