import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
from blkproof.harness import shape as options
from blkproof.harness.host import Accelerator
from blkproof.harness.shape import Shape

TCG = Accelerator("tcg", "a test", "max", 1.0)
IMAGE = SimpleNamespace(xen=Path("/i/xen"), kernel=Path("/i,1/vmlinux"), initramfs=Path("/i/initramfs"))


def test_the_network_is_closed_except_for_a_port_that_the_kernel_picks():
    (network,) = [word for word in options.devices(Shape(), Path("/d")) if word.startswith("user,")]
    assert "restrict=on" in network.split(",")
    assert "hostfwd=tcp:127.0.0.1:0-:22" in network.split(",")


def test_qemu_is_confined():
    words = options.control(7)
    sandbox = words[words.index("-sandbox") + 1]
    assert sandbox == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def test_no_disk_anywhere():
    shape = Shape()
    words = [*options.devices(shape, Path("/d")), *options.hardware(shape, TCG), *options.boot(shape, IMAGE)]
    assert not [word for word in words if "drive" in word or "blk" in word.replace("blkproof", "")]


def test_each_guest_has_a_console_port_of_its_own():
    words = options.devices(Shape(guests=("guest1", "guest2")), Path("/d"))
    assert "file,id=guest2,path=/d/guest2.log" in words
    assert "virtserialport,chardev=guest2,name=blkproof.console.guest2" in words


def test_commas_are_doubled_in_boot_modules():
    words = options.boot(Shape(), IMAGE)
    assert words[-1] == "/i,,1/vmlinux console=ttyS1,,115200 nokaslr,/i/initramfs"


@pytest.mark.parametrize(
    "change",
    [
        {"memory_mb": 4096},
        {"dom0_memory_mb": 512},
        {"vcpus": 4},
        {"dom0_vcpus": 2},
        {"guests": ("guest1", "guest2")},
        {"xen_options": ("com1=115200,8n1",)},
        {"dom0_options": ("quiet",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_of_a_shape_is_in_its_fingerprint(change):
    other = dataclasses.replace(Shape(), **change)
    assert options.fingerprint(other, TCG) != options.fingerprint(Shape(), TCG)


def test_every_field_of_a_shape_is_tried_above():
    assert {field.name for field in dataclasses.fields(Shape)} == {
        "memory_mb", "dom0_memory_mb", "vcpus", "dom0_vcpus", "guests", "xen_options", "dom0_options",
    }  # fmt: skip


def test_a_deterministic_machine_counts_instructions_on_one_processor():
    words = options.hardware(Shape(), dataclasses.replace(TCG, name="icount", deterministic=True))
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    assert pairs["-icount"] == "shift=0,sleep=off"
    assert (pairs["-accel"], pairs["-smp"], pairs["-seed"]) == ("tcg", "1", "1")
    assert pairs["-rtc"].endswith("clock=vm")
    assert "-icount" not in options.hardware(Shape(), TCG)


@pytest.mark.parametrize("change", [{"name": "kvm"}, {"cpu_model": "host"}, {"deterministic": True}])
def test_the_accelerator_is_in_the_fingerprint(change):
    other = dataclasses.replace(TCG, **change)
    assert options.fingerprint(Shape(), other) != options.fingerprint(Shape(), TCG)
