"""What goes into the parked state, and what a kernel says against a probe."""

import pytest
from blkproof.harness.parking import agent_files, buffer_kb, preparation, refusal
from blkproof.harness.probes.compiler import Definition

BACK = Definition(
    "be_map_ret", "xen_blkback", "r64:blkproof/be_map_ret xen_blkback:xen_blkbk_map rc=$retval:s32"
)
FRONT = Definition("fe_free", "xen_blkfront", "r64:blkproof/fe_free xen_blkfront:get_id id=$retval:u32")
BOTH = Definition("ev_notify", "vmlinux", "p:blkproof/ev_notify notify irq=%di:s32", "irq > 3")
WAKER = Definition("gt_unmap", "vmlinux", "p:blkproof/gt_unmap unmap n=%cx:u32")
SLEEPER = Definition(
    "gt_unmap_more",
    "vmlinux",
    "p:blkproof/gt_unmap_more unmap n=%cx:u32",
    "n > 11",
    "gt_unmap enable_event:blkproof:gt_unmap_more if n > 11\n",
)

# As Linux 6.1 writes it.
ERROR_LOG = """\
[   12.345678] trace_kprobe: error: Unknown register name
  Command: p:blkproof/be_map xen_blkback:xen_blkbk_map ring=%dj:u64 n=%dx:s32
                                                            ^
"""


def test_each_side_gets_its_own_probes():
    files = agent_files([BACK, FRONT, BOTH, WAKER, SLEEPER])
    assert files["dom0.probes"].decode().splitlines() == [BACK.line, BOTH.line, WAKER.line, SLEEPER.line]
    assert files["guest.probes"].decode().splitlines() == [FRONT.line, BOTH.line]
    assert files["dom0.filters"] == b"ev_notify irq > 3\ngt_unmap_more n > 11\n"
    assert files["guest.filters"] == b"ev_notify irq > 3\n"
    assert files["dom0.asleep"] == b"gt_unmap enable_event:blkproof:gt_unmap_more if n > 11\n"
    assert files["guest.asleep"] == b""
    assert {"run.sh", "park.sh", "guest.sh", "salvage.sh", "arm.sh", "lib.sh"} <= files.keys()


def test_a_probe_that_nothing_could_wake_stays_awake():
    assert agent_files([SLEEPER])["dom0.asleep"] == b""


def test_other_probes_make_another_state():
    keys = {preparation(rows).key for rows in ([BACK], [FRONT], [BACK, FRONT], [BACK])}
    assert len(keys) == 3


def test_a_guest_of_other_size_makes_another_state():
    assert preparation([BACK], guest_vcpus=2).key != preparation([BACK]).key


@pytest.mark.parametrize(("who", "memory_mb"), [("dom0", 1024), ("guest", 384)])
def test_trace_buffers_leave_most_memory_to_others(who, memory_mb):
    assert buffer_kb(who, 1) == 16384
    assert all(vcpus * buffer_kb(who, vcpus) <= memory_mb * 1024 / 3 for vcpus in range(1, 25))


def test_a_refusal_names_probe_argument_and_reason():
    said = f"cat: write error\n{ERROR_LOG}"
    assert refusal(said, [BACK]) == "probe be_map: the kernel refused 'ring=%dj:u64': Unknown register name"


def test_a_refused_function_is_named():
    log = (
        "[    1.000000] trace_kprobe: error: Invalid probed address or symbol\n"
        "  Command: p:blkproof/gt_map no_such_function n=%cx:u32\n"
        "                             ^\n"
    )
    assert (
        refusal(log, [BACK])
        == "probe gt_map: the kernel refused 'no_such_function': Invalid probed address or symbol"
    )


@pytest.mark.parametrize("said", ["", "sh: out of memory", "[1.0] trace_kprobe: error: cut off"])
def test_other_words_are_no_refusal(said):
    assert refusal(said, [BACK]) is None


def test_a_refusal_names_the_row_and_its_expression():
    line = "p:blkproof/be_map xen_blkback:xen_blkbk_map ring=%dj:u64 n=%dx:s32"
    row = Definition(
        "be_map", "xen_blkback", line, row="xen_blkbk_map()", fields={"ring": "ring", "n": "num"}
    )
    words = "the kernel refused 'ring=%dj:u64' (ring = ring in xen_blkbk_map()): Unknown register name"
    assert refusal(ERROR_LOG, [row]) == f"probe be_map: {words}"
    of_the_place = ERROR_LOG.replace(" " * 60 + "^", " " * 31 + "^")
    assert "'xen_blkback:xen_blkbk_map' (xen_blkbk_map())" in refusal(of_the_place, [row])


def test_an_array_in_parts_is_named_by_its_field():
    row = Definition("e", "m", "p", row="f(), lines with 'x'", fields={"seg": "req->seg[:99]"})
    assert row.written("seg1=+8(%di):u64[35]") == "seg = req->seg[:99] in f(), lines with 'x'"
