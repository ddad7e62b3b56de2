from pathlib import Path

import pytest
from blkproof.harness.consoles import QEMU_LOG, Console, diagnose
from blkproof.harness.errors import Loss

SAMPLES = Path(__file__).parent / "consoles"


@pytest.mark.parametrize(
    ("sample", "kind", "sign"),
    [
        ("xen-panic.xen", Loss.XEN_PANIC, "(XEN) Panic on CPU 0:"),
        ("dom0-panic.dom0", Loss.DOM0_PANIC, "Kernel panic - not syncing: sysrq triggered crash"),
        ("dom0-panic.xen", Loss.DOM0_PANIC, "(XEN) Hardware Dom0 crashed: 'noreboot' set - not rebooting."),
        ("dom0-reboot.xen", Loss.DOM0_PANIC, "(XEN) Hardware Dom0 shutdown: rebooting machine"),
        ("guest-panic.guest1", Loss.GUEST_PANIC, "Kernel panic - not syncing: sysrq triggered crash"),
    ],
)
def test_a_real_crash_is_known_by_one_line(sample, kind, sign):
    """Consoles of machines that were really crashed: by NMI, by sysrq, by reboot."""
    console = sample.partition(".")[2]
    lines = (SAMPLES / f"{sample}.log").read_text().splitlines()
    found = [told for line in lines if (told := diagnose(console, line))]
    assert [told.kind for told in found][:1] == [kind]
    assert sign in found[0].line


@pytest.mark.parametrize(
    "line",
    [
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "BUG: unable to handle page fault for address: ffffc90040203000",
        "Oops: 0002 [#1] PREEMPT SMP NOPTI",
        "Oops: Oops: 0002 [#1] SMP",
        "general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP",
        "kernel BUG at drivers/block/xen-blkfront.c:1234!",
        "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI",
        "Kernel panic - not syncing: Fatal exception in interrupt",
    ],
)
@pytest.mark.parametrize("before", ["", "[    7.123456] ", "fio: [12.5%] [   17.123456] "])
def test_every_way_to_oops(line, before):
    gone = Loss.DOM0_PANIC if "panic" in line else Loss.DOM0_OOPS
    assert diagnose("dom0", before + line).kind is gone
    assert diagnose("guest1", before + line).kind is Loss.GUEST_PANIC
    assert diagnose("xen", before + line) is None


@pytest.mark.parametrize(
    "line",
    [
        "[    1.000000] RIP: 0010:xen_blkif_schedule+0x1/0x2",
        "[    1.000000] WARNING: CPU: 0 PID: 1 at drivers/block/xen-blkback/blkback.c:1 f+0x1/0x2",
        "[    1.000000] Call Trace:",
        "[    1.000000] ------------[ cut here ]------------",
        "[   60.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [fio:99]",
        "[   60.000000] rcu: INFO: rcu_sched self-detected stall on CPU",
        "[    0.000000] Kernel command line: panic=0 oops=panic",
        "blkproof-guest: no Kernel panic - not syncing: here",
        "[    4.588083] virtio: Unknown symbol virtio_break_device (err -2)",
        "(XEN) Panic on CPU 0:",
        "",
    ],
)
def test_what_only_looks_like_a_crash(line):
    assert diagnose("dom0", line) is None
    assert diagnose("guest1", line) is None


@pytest.mark.parametrize(
    "line",
    [
        "(XEN) RIP:    e033:[<ffffffff8109d4e4>]",
        "(XEN) Scrubbing Free RAM in background",
        "(XEN) d1v0: Panic on CPU 0:",
        "(XEN) grant_table.c:1877:d1v0 Expanding d1 grant table from 1 to 2 frames",
        "Panic on CPU 0:",
    ],
)
def test_what_xen_says_every_day(line):
    assert diagnose("xen", line) is None


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("(XEN) Domain 0 (vcpu#1) crashed on cpu#1:", Loss.DOM0_PANIC),
        ("(XEN) Domain 3 (vcpu#0) crashed on cpu#0:", Loss.GUEST_PANIC),
        ("(XEN) Xen BUG at grant_table.c:1234", Loss.XEN_PANIC),
        ("(XEN) Assertion 'rc == 0' failed at common/grant_table.c:99", Loss.XEN_PANIC),
    ],
)
def test_xen_tells_whose_crash_it_is(line, kind):
    assert diagnose("xen", line).kind is kind


def test_a_kvm_that_gives_up_is_the_end_of_qemu():
    assert diagnose(QEMU_LOG, "KVM internal error. Suberror: 1").kind is Loss.QEMU_DIED
    assert diagnose(QEMU_LOG, "qemu-system-x86_64: warning: host doesn't support requested feature") is None


def test_lines_come_once_and_only_when_whole(tmp_path):
    file = tmp_path / "xen.log"
    console = Console("xen", file)
    assert console.new_lines() == []
    file.write_bytes(b"one\r\ntw")
    assert console.new_lines() == ["one"]
    with file.open("ab") as handle:
        handle.write(b"o\n\xff\n")
    assert console.new_lines() == ["two", "\N{REPLACEMENT CHARACTER}"]
    assert console.new_lines() == []
    assert console.text() == "one\ntwo\n\N{REPLACEMENT CHARACTER}\n"
    assert console.size() == len(file.read_bytes())


def test_a_console_that_never_spoke_is_empty(tmp_path):
    console = Console("xen", tmp_path / "none")
    assert (console.text(), console.size()) == ("", 0)
