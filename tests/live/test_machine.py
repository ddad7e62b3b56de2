"""A real Xen: boot, save, restore, and every way to lose a machine."""

import inspect
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from blkproof.harness.errors import Loss, MachineLost, SnapshotError
from blkproof.harness.machine import Machine, State
from blkproof.harness.pool import Pool, Preparation
from blkproof.harness.process import SELF_ENDED
from blkproof.harness.snapshot import Snapshot
from blkproof.harness.waiting import wait_until

pytestmark = pytest.mark.live

PARKED = "blkproof-guest: parked"
GUEST = "169.254.77.2 4000"  # the root shell of the guest, over its network line to dom0


def start_guest(machine):
    machine.ssh.put(b"left by the preparation\n", "/root/note", 0o600)
    machine.ssh.check_run("xl create /etc/xen/guest.cfg")
    guest = machine.consoles["guest1"]
    machine.wait_until(lambda: PARKED in guest.text(), 20, "parking of the guest", console="guest1")


def in_guest(machine, command):
    return machine.ssh.run(f"nc {GUEST}", f"{command}\n".encode(), timeout_s=60)


PREPARATION = Preparation(f"tests of the machine: {inspect.getsource(start_guest)}", start_guest)


@pytest.fixture(scope="session")
def pool(image, accelerator):
    return Pool(image, accelerator, progress=print)


@pytest.fixture
def parked(pool, tmp_path):
    with pool.parked(PREPARATION, tmp_path / "rescue") as machine:
        yield machine


def left_behind(machine):
    """Return what there still is of a closed machine."""
    return [thing for thing in (Path(f"/proc/{machine.qemu_pid}"), machine.directory) if thing.exists()]


def test_boot_save_restore_goes_through_its_states(image, accelerator, tmp_path):
    saved = tmp_path / "state"
    saved.mkdir()
    with Machine(image, accelerator) as machine:
        machine.boot()
        machine.wait_ready()
        assert "Domain-0" in machine.ssh.check_run("xl list").text()
        machine.save(saved)
        assert machine.ssh.run("echo still here").text() == "still here"
        boot_console = machine.consoles["xen"].text()
    assert machine.states == [
        State.NEW, State.BOOTING, State.RUNNING, State.PAUSED, State.RUNNING, State.CLOSED,
    ]  # fmt: skip
    assert "Xen version" in boot_console
    assert left_behind(machine) == []

    with Machine(image, accelerator) as copy:
        copy.restore(Snapshot(saved))
        assert copy.ssh.run("echo restored").text() == "restored"
        # The server and the session that asks: what was connected while saving has hung up.
        sessions = "ps | grep -c '[d]ropbear'"
        copy.wait_until(
            lambda: copy.ssh.run(sessions).text() == "2", 5, "end of old sessions", console="dom0"
        )
    assert copy.states == [State.NEW, State.PAUSED, State.RUNNING, State.CLOSED]
    assert left_behind(copy) == []
    os.truncate(saved / "memory", 1 << 20)
    with Machine(image, accelerator) as broken, pytest.raises(SnapshotError):
        broken.restore(Snapshot(saved))


def test_a_parked_machine_has_what_the_preparation_left(parked):
    assert parked.ssh.run("cat /root/note").text() == "left by the preparation"
    assert parked.ssh.run("stat -c %a /root/note").text() == "600"
    assert "guest1" in parked.ssh.run("xl list").text()
    assert in_guest(parked, "echo I am $(cat /sys/hypervisor/type)").text() == "I am xen"


def test_what_one_machine_does_another_never_sees(parked, image, accelerator):
    told = []
    parked.ssh.check_run("echo changed > /root/note")
    with Pool(image, accelerator, progress=told.append).parked(PREPARATION) as other:
        assert parked.ssh.run("cat /root/note").text() == "changed"
        assert other.ssh.run("cat /root/note").text() == "left by the preparation"
    assert told == []  # the saved machine was still good: nothing had to be made anew


def test_bulk_data_arrives_whole(parked):
    size = 8 << 20
    make = f"head -c {size} /dev/urandom > /tmp/data"
    send = "cat /tmp/data > /dev/virtio-ports/blkproof.bulk"
    sums = parked.ssh.check_run(f"{make}; {send}; sha256sum /tmp/data")
    parked.wait_until(lambda: parked.bulk.stat().st_size >= size, 10, "bulk data", console="dom0")
    here = subprocess.run(["sha256sum", parked.bulk], capture_output=True, text=True, check=True).stdout
    assert here.split()[0] == sums.text().split()[0]


def test_the_world_outside_cannot_be_reached(parked):
    with socket.create_server(("0.0.0.0", 0)) as listener:  # the host itself, as slirp would show it to dom0
        port = listener.getsockname()[1]
        refused = parked.ssh.run(f"nc -w 2 10.0.2.2 {port} < /dev/null", timeout_s=60)
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert refused.rc != 0


CRASH = {
    Loss.XEN_PANIC: lambda machine: machine.qmp.execute("inject-nmi"),
    Loss.DOM0_PANIC: lambda machine: machine.ssh.run("echo c > /proc/sysrq-trigger"),
    Loss.GUEST_PANIC: lambda machine: in_guest(machine, "echo c > /proc/sysrq-trigger"),
    Loss.QEMU_DIED: lambda machine: os.kill(machine.qemu_pid, 9),
}
SIGN = {
    Loss.XEN_PANIC: "(XEN) Panic on CPU 0: (XEN) FATAL TRAP: vec 2, NMI",
    Loss.DOM0_PANIC: "Kernel panic - not syncing: sysrq triggered crash",
    Loss.GUEST_PANIC: "Kernel panic - not syncing: sysrq triggered crash",
    Loss.QEMU_DIED: "QEMU was ended by SIGKILL",
}


@pytest.mark.parametrize("kind", CRASH, ids=lambda kind: kind.value)
def test_a_crash_is_told_apart_and_its_evidence_saved(parked, tmp_path, kind):
    parked.supervisor.phase("the test")
    with pytest.raises(MachineLost) as caught:
        CRASH[kind](parked)
        parked.wait_until(lambda: None, 5, "the end of the world", console="xen")
    assert (caught.value.kind, caught.value.phase) == (kind, "the test")
    assert SIGN[kind] in str(caught.value)
    rescued = {path.name for path in (tmp_path / "rescue").iterdir()}
    assert {"xen.log", "dom0.log", "guest1.log", "qemu.log", "loss.json"} <= rescued
    assert ("registers.txt" in rescued) == (kind is not Loss.QEMU_DIED)
    if kind.dom0_lives:
        with parked.supervisor.salvage():
            assert parked.ssh.run("echo dom0 lives").text() == "dom0 lives"
    else:
        assert parked.supervisor.loss is caught.value


def test_a_machine_that_resets_itself_is_not_booted_again(parked):
    with pytest.raises(MachineLost) as caught:
        parked.ssh.run("xl debug-keys R")
        parked.wait_until(lambda: None, 5, "the reset", console="xen")
    assert (caught.value.kind, caught.value.sign) == (Loss.XEN_PANIC, SELF_ENDED)


def test_a_guest_that_stands_still_is_a_stall_and_dom0_can_be_asked(parked, tmp_path):
    parked.ssh.check_run("xl pause guest1")
    with pytest.raises(MachineLost) as caught, parked.supervisor.expect_progress("guest", stall_s=0.5):
        parked.supervisor.beat("paused")
        parked.wait_until(lambda: None, 20, "nothing", console="guest1")
    assert caught.value.kind is Loss.STALL
    assert (tmp_path / "rescue" / "registers.txt").stat().st_size
    with parked.supervisor.salvage():
        assert "--p---" in parked.ssh.run("xl list guest1").text()


def test_an_interrupted_session_leaves_nothing(pool):
    with pytest.raises(KeyboardInterrupt), pool.parked(PREPARATION) as machine:
        raise KeyboardInterrupt
    assert left_behind(machine) == []


def test_two_machines_at_once_have_ports_of_their_own(parked, pool):
    with pool.ready() as other:
        parked.ssh.check_run("echo parked > /root/name")
        other.ssh.check_run("echo ready > /root/name")
        assert parked.ssh.run("cat /root/name").text() == "parked"
        assert other.ssh.run("cat /root/name").text() == "ready"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda how: how.name)
def test_a_killed_harness_leaves_nothing(pool, how):
    with pool.parked(PREPARATION):
        pass  # make sure that it is saved: the harness below is killed in its run, not in its preparation
    # A suite that runs in the background ignores Ctrl-C, and so would its children.
    command = ["env", "--default-signal=INT", sys.executable, "-c", HARNESS]
    harness = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with harness.stdout, harness.stderr:
        try:
            pid, directory = harness.stdout.readline().split()
            assert Path(f"/proc/{pid}").exists()
            assert Path(directory, "dom0.log").exists()
        finally:
            harness.send_signal(how)
        harness.wait()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 20, "end of QEMU")
    wait_until(lambda: not Path(directory).exists(), 20, "removal of the private directory")


HARNESS = """
import time
from blkproof.harness.accel import probe
from blkproof.harness.pool import Pool
from blkproof.images.build import build
from blkproof.images.recipe import load_recipe

image = build(load_recipe("debian12"), progress=lambda _: None)
with Pool(image, probe(image), progress=lambda _: None).ready() as machine:
    machine.ssh.check_run("true")
    print(machine.qemu_pid, machine.directory, flush=True)
    time.sleep(1000)
"""
