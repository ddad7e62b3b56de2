import pytest
from blkproof.harness import supervisor as module
from blkproof.harness.consoles import Console
from blkproof.harness.errors import Loss, MachineLost
from blkproof.harness.process import SELF_ENDED
from blkproof.harness.supervisor import Supervisor
from blkproof.harness.waiting import wait_until


class Machine:
    """Consoles that are written by hand, a QEMU that ends on demand, and a log of what was done to it."""

    def __init__(self, directory):
        self.directory = directory
        self.qemu_end = None
        self.done = []
        names = ("xen", "dom0", "guest1", "qemu")
        consoles = {name: Console(name, directory / f"{name}.log") for name in names}
        self.supervisor = Supervisor(
            consoles,
            lambda: self.qemu_end,
            lambda loss: self.done.append(f"saved {loss.kind.value}"),
            lambda: self.done.append("ended"),
        )

    def say(self, console, text):
        with (self.directory / f"{console}.log").open("a") as handle:
            handle.write(text)

    def wait_for_loss(self):
        return wait_until(lambda: self.supervisor.loss, 20, "loss")


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    machine.supervisor.start()
    yield machine
    machine.supervisor.stop()


PANIC = "Kernel panic - not syncing: sysrq triggered crash\n"
XEN_PANIC = "(XEN) Panic on CPU 0:\n(XEN) FATAL TRAP: vec 2, NMI[0000]\n"


@pytest.mark.parametrize(
    ("console", "text", "kind", "done"),
    [
        ("xen", XEN_PANIC, Loss.XEN_PANIC, ["saved xen-panic", "ended"]),
        ("dom0", PANIC, Loss.DOM0_PANIC, ["saved dom0-panic", "ended"]),
        ("guest1", PANIC, Loss.GUEST_PANIC, ["saved guest-panic"]),
        ("qemu", "KVM internal error. Suberror: 1\n", Loss.QEMU_DIED, ["saved qemu-died", "ended"]),
    ],
)
def test_state_is_saved_first_and_dom0_spared_if_it_lives(machine, console, text, kind, done):
    machine.say(console, text)
    assert machine.wait_for_loss().kind is kind
    assert machine.done == done


def test_the_end_of_qemu_is_a_loss(machine):
    machine.qemu_end = "QEMU was ended by SIGKILL"
    loss = machine.wait_for_loss()
    assert (loss.kind, loss.sign) == (Loss.QEMU_DIED, "QEMU was ended by SIGKILL")


def test_the_end_of_qemu_quotes_its_complaint_but_no_warning(machine):
    machine.say("qemu", "kvm_buf_set_msrs: Assertion failed.\nqemu: warning: no such feature\n")
    machine.qemu_end = "QEMU was ended by SIGABRT"
    assert machine.wait_for_loss().sign == "QEMU was ended by SIGABRT: kvm_buf_set_msrs: Assertion failed."


def test_a_machine_that_resets_itself_was_crashed_by_xen(machine):
    machine.qemu_end = SELF_ENDED
    assert machine.wait_for_loss().kind is Loss.XEN_PANIC


def test_last_words_count_more_than_the_end_of_qemu(machine):
    machine.say("xen", XEN_PANIC)
    machine.qemu_end = "QEMU exited with status 0"
    assert machine.wait_for_loss().kind is Loss.XEN_PANIC


def test_the_deepest_crash_is_the_cause(machine, monkeypatch):
    """dom0 dies first on the consoles, but Xen's panic, printed a moment later, is why."""
    monkeypatch.setattr(module, "QUIET_S", 0.0)
    original = machine.supervisor._sizes

    def xen_speaks_meanwhile():
        if not (machine.directory / "xen.log").exists():
            machine.say("xen", XEN_PANIC)
        return original()

    monkeypatch.setattr(machine.supervisor, "_sizes", xen_speaks_meanwhile)
    machine.say("dom0", PANIC)
    assert machine.wait_for_loss().kind is Loss.XEN_PANIC


def test_a_sign_that_only_announces_brings_the_next_line(machine):
    machine.say("xen", f"(XEN) all well\n{XEN_PANIC}(XEN) Manual reset required\n")
    loss = machine.wait_for_loss()
    assert loss.sign == "(XEN) Panic on CPU 0: (XEN) FATAL TRAP: vec 2, NMI[0000]"
    assert loss.console_tail.endswith("Manual reset required")


def test_a_loss_names_the_phase(machine):
    machine.supervisor.phase("attach")
    machine.say("guest1", PANIC)
    assert machine.wait_for_loss().phase == "attach"


def test_a_lost_machine_raises_at_every_check(machine):
    machine.supervisor.check()
    machine.say("guest1", PANIC)
    machine.wait_for_loss()
    for _ in range(2):
        with pytest.raises(MachineLost):
            machine.supervisor.check()


def test_salvage_is_for_machines_whose_dom0_lives(machine):
    machine.say("guest1", PANIC)
    machine.wait_for_loss()
    with machine.supervisor.salvage():
        machine.supervisor.check()
    with pytest.raises(MachineLost):
        machine.supervisor.check()


def test_nothing_can_be_salvaged_from_a_dead_dom0(machine):
    machine.say("dom0", PANIC)
    machine.wait_for_loss()
    with machine.supervisor.salvage(), pytest.raises(MachineLost):
        machine.supervisor.check()


def test_work_that_does_not_move_is_a_stall(machine):
    told = r"fio: no progress for 0.3 s \(last: 7\)"
    with (
        pytest.raises(MachineLost, match=told) as caught,
        machine.supervisor.expect_progress("fio", stall_s=0.3),
    ):
        machine.supervisor.beat(7)
        wait_until(machine.supervisor.check, 20, "stall")
    assert caught.value.kind is Loss.STALL
    assert machine.done == ["saved stall"]


def test_output_and_repeated_tokens_are_no_progress(machine):
    def noise():
        machine.say("guest1", "still here\n")
        machine.supervisor.beat("same")
        return machine.supervisor.loss

    machine.supervisor.beat("before any work")
    with pytest.raises(MachineLost), machine.supervisor.expect_progress("fio", stall_s=0.3):
        wait_until(noise, 20, "stall")


def test_work_that_moves_is_no_stall(machine):
    with machine.supervisor.expect_progress("fio", stall_s=1.5):
        begin = module.time.monotonic()
        count = 0
        while module.time.monotonic() - begin < 2.0:
            machine.supervisor.beat(count := count + 1)
            module.time.sleep(0.02)
    assert machine.supervisor.loss is None


def test_no_stall_outside_of_watched_work(machine):
    with machine.supervisor.expect_progress("fio", stall_s=0.2):
        pass
    module.time.sleep(0.5)
    assert machine.supervisor.loss is None


def test_a_save_that_fails_hides_nothing(tmp_path, monkeypatch):
    def save(_):
        raise OSError("No space left on device")

    machine = Machine(tmp_path)
    monkeypatch.setattr(machine.supervisor, "_save", save)
    machine.supervisor.start()
    machine.say("dom0", PANIC)
    loss = machine.wait_for_loss()
    machine.supervisor.stop()
    assert loss.kind is Loss.DOM0_PANIC
    assert str(loss).endswith("its evidence could not be saved: No space left on device")
    assert machine.done == ["ended"]
