"""What a machine does before and without a boot; the live tests have the rest."""

import contextlib
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from blkproof.harness import machine as module
from blkproof.harness import shape as options
from blkproof.harness.errors import (
    HostError,
    MachineLost,
    QemuError,
    SnapshotError,
    WaitError,
    WrongStateError,
)
from blkproof.harness.host import Accelerator
from blkproof.harness.machine import Machine, State
from blkproof.harness.snapshot import Snapshot

TCG = Accelerator("tcg", "a test", "max", 1.0)


@pytest.fixture
def image(tmp_path):
    files = {name: tmp_path / name for name in ("xen", "kernel", "initramfs", "ssh_key", "host_key")}
    return SimpleNamespace(**files)


@pytest.fixture(autouse=True)
def private_root(tmp_path, monkeypatch):
    root = tmp_path / "private"
    root.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    return root


@pytest.fixture
def machine(image, private_root):
    with Machine(image, TCG) as machine:
        yield machine
    assert list(private_root.iterdir()) == []


def fake_qemu(tmp_path, monkeypatch, script):
    program = tmp_path / "fake-qemu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(options, "QEMU", str(program))


@pytest.mark.parametrize(
    "ask",
    [
        lambda machine: machine.wait_ready(),
        lambda machine: machine.save(Path("/nonexistent")),
        lambda machine: machine.ssh.run("true"),
    ],
    ids=["wait_ready", "save", "ssh"],
)
def test_a_new_machine_is_not_a_running_one(machine, ask):
    with pytest.raises(WrongStateError, match="this one is new"):
        ask(machine)


@pytest.mark.parametrize("ask", [Machine.boot, lambda machine: machine.restore(Snapshot(Path("/x")))])
def test_a_closed_machine_starts_no_more(machine, ask):
    machine.close()
    machine.close()
    assert machine.states == [State.NEW, State.CLOSED]
    with pytest.raises(WrongStateError, match="needs a new machine, this one is closed"):
        ask(machine)


def test_a_qemu_that_refuses_to_start_is_quoted(machine, tmp_path, monkeypatch):
    fake_qemu(tmp_path, monkeypatch, "echo 'qemu: no such machine' >&2; exit 1")
    with pytest.raises(QemuError, match=r"exited with status 1\): qemu: no such machine") as caught:
        machine.boot()
    assert "\n" not in str(caught.value)


def test_a_qemu_that_is_not_there(machine, monkeypatch):
    monkeypatch.setattr(options, "QEMU", "/nonexistent/qemu")
    with pytest.raises(QemuError, match="could not be executed"):
        machine.boot()


def test_a_real_qemu_that_finds_no_kernel(machine):
    with pytest.raises(QemuError, match="could not open kernel file"):
        machine.boot()


def test_a_damaged_snapshot_is_refused_before_qemu_starts(machine, tmp_path):
    with pytest.raises(SnapshotError):
        machine.restore(Snapshot(tmp_path))
    assert machine.qemu_pid is None


def test_too_little_memory_is_told_before_anything_is_made(image, private_root, monkeypatch):
    def no_memory():
        raise HostError("memory: a machine needs more")

    monkeypatch.setattr(module, "check_memory", no_memory)
    with pytest.raises(HostError):
        Machine(image, TCG)
    assert list(private_root.iterdir()) == []


def test_logs_are_copied_even_if_nobody_spoke(machine, tmp_path):
    machine.consoles["xen"].path.write_text("(XEN) hello\n")
    machine.copy_logs(tmp_path / "run" / "consoles")
    copied = {path.name: path.read_text() for path in (tmp_path / "run" / "consoles").iterdir()}
    assert copied == {"xen.log": "(XEN) hello\n", "dom0.log": "", "guest1.log": "", "qemu.log": ""}


@pytest.mark.parametrize("error", [WaitError("dom0", 1.0), None], ids=["a wait in vain", "no error"])
def test_consoles_are_kept_when_something_failed(image, tmp_path, error):
    rescue = tmp_path / "rescue"
    with contextlib.suppress(WaitError), Machine(image, TCG, rescue=rescue) as machine:
        machine.consoles["dom0"].path.write_text("last words\n")
        if error:
            raise error
    assert rescue.exists() == bool(error)
    assert not error or (rescue / "dom0.log").read_text() == "last words\n"


def test_time_limits_are_stretched_for_a_slow_accelerator(image):
    slow = Accelerator("tcg", "a test", "max", 3.0)
    with Machine(image, slow) as machine, pytest.raises(module.HarnessError) as caught:
        machine.wait_until(lambda: None, 0.1, "nothing", console="xen")
    assert caught.value.waited_s >= 0.3
    assert not isinstance(caught.value, MachineLost)
