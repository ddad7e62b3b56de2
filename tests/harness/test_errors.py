import pytest
from blkproof.harness.errors import EXIT_CRASH, EXIT_HARNESS, Loss, MachineLost, QemuError, WaitError


@pytest.mark.parametrize(
    ("kind", "exit_code", "dom0_lives"),
    [
        (Loss.XEN_PANIC, EXIT_CRASH, False),
        (Loss.DOM0_PANIC, EXIT_CRASH, False),
        (Loss.DOM0_OOPS, EXIT_CRASH, True),
        (Loss.GUEST_PANIC, EXIT_CRASH, True),
        (Loss.QEMU_DIED, EXIT_HARNESS, False),
        (Loss.STALL, EXIT_HARNESS, True),
    ],
)
def test_each_loss_has_its_exit_code(kind, exit_code, dom0_lives):
    lost = MachineLost(kind, "fio", 1.5, "the sign")
    assert (lost.exit_code, kind.dom0_lives) == (exit_code, dom0_lives)
    assert str(lost) == f"{kind.value} after 1.5 s of fio: the sign"


def test_every_loss_is_covered_above():
    assert len(Loss) == 6


def test_a_wait_error_quotes_the_last_console_line():
    error = WaitError("boot of dom0", 3.04, "one\ntwo\n")
    assert str(error) == "boot of dom0: did not happen within 3.0 s; last on the console: 'two'"


def test_messages_are_one_line():
    assert "\n" not in str(QemuError("QEMU did not start", "one\ntwo\n"))
    assert str(QemuError("QEMU did not start", "one\ntwo\n")).endswith(": two")
