"""What a machine is made of, and the QEMU command line that makes it so.

Everything here that reaches the guest side shapes a saved state, so it is part of the
state's key; paths and descriptors, which differ from run to run, are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blkproof.harness.host import Accelerator
from blkproof.images.build import Image

QEMU = "qemu-system-x86_64"
SSH_PORT = 22
BULK_PORT = "blkproof.bulk"
GUEST_CONSOLE_PORT = "blkproof.console."
# The clock counts instructions, and nothing else that differs between two runs gets in.
_DETERMINISTIC = ("-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01,clock=vm", "-seed", "1")
# No program, no other user, no other priority: QEMU needs none of it for these devices.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True)
class Shape:
    """The size of a machine and the command lines of its Xen and dom0.

    `guests` are the names of the guests that get a console. Memory is in MB; what `memory_mb`
    has beyond dom0's is Xen's own (about 100 MB) and the guests'. `vcpus` are Xen's processors.
    """

    memory_mb: int = 2048
    dom0_memory_mb: int = 1024
    vcpus: int = 2
    # With one processor each, dom0 and guest still run side by side, but nothing within dom0 has to wait
    # for its own other processor: on a busy host that one is not running, and the wait takes all.
    # Measured under TCG beside two busy programs: 8 s for a scenario instead of 28.
    dom0_vcpus: int = 1
    guests: tuple[str, ...] = ("guest1",)
    xen_options: tuple[str, ...] = (
        "com1=115200,8n1",
        "console=com1",
        "loglvl=all",
        "guest_loglvl=all",
        "noreboot=true",
        "bootscrub=off",  # scrubbing would touch, and so make us save, every page of memory
        "nmi=fatal",  # lets an injected NMI stop a Xen that hangs, with its registers on the console
    )
    dom0_options: tuple[str, ...] = ("console=ttyS1,115200", "nokaslr")

    @property
    def consoles(self) -> tuple[str, ...]:
        """Return the names of all consoles: Xen's (com1), dom0's (com2), one of each guest."""
        return ("xen", "dom0", *self.guests)

    @property
    def xen_command_line(self) -> str:
        """Return Xen's command line."""
        memory = f"dom0_mem={self.dom0_memory_mb}M,max:{self.dom0_memory_mb}M"
        return " ".join((memory, f"dom0_max_vcpus={self.dom0_vcpus}", *self.xen_options))

    @property
    def dom0_command_line(self) -> str:
        """Return the command line of dom0's kernel."""
        return " ".join(self.dom0_options)


def hardware(shape: Shape, accelerator: Accelerator) -> list[str]:
    """Return the options that fix what the guest side sees."""
    return [
        *("-machine", "q35,memory-backend=ram"),
        *("-accel", "tcg" if accelerator.deterministic else accelerator.name),
        *(_DETERMINISTIC if accelerator.deterministic else ()),
        *("-cpu", accelerator.cpu_model),
        *("-smp", "1" if accelerator.deterministic else str(shape.vcpus)),
        *("-m", str(shape.memory_mb)),
    ]


def memory(shape: Shape, file: Path | str, *, shared: bool) -> list[str]:
    """Return the options that put the machine's memory into a file, or a private copy of it."""
    share = "on" if shared else "off"
    return [
        "-object",
        f"memory-backend-file,id=ram,size={shape.memory_mb}M,mem-path={_quote(file)},share={share}",
    ]


def devices(shape: Shape, directory: Path) -> list[str]:
    """Return the options for consoles, network and bulk port, their host ends in `directory`."""
    options = ["-nodefaults", "-display", "none"]
    for console in shape.consoles:
        options += ["-chardev", f"file,id={console},path={_quote(directory / console)}.log"]
    options += ["-device", "isa-serial,chardev=xen", "-device", "isa-serial,chardev=dom0"]
    # Port 0: the kernel picks a free one while it binds, so that none can be taken in between.
    options += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:{SSH_PORT}"]
    options += ["-device", "virtio-net-pci,netdev=net,romfile="]
    options += ["-device", "virtio-serial-pci"]
    options += ["-chardev", f"file,id=bulk,path={_quote(directory / 'bulk')}"]
    options += ["-device", f"virtserialport,chardev=bulk,name={BULK_PORT}"]
    for guest in shape.guests:
        options += ["-device", f"virtserialport,chardev={guest},name={GUEST_CONSOLE_PORT}{guest}"]
    return options


def boot(shape: Shape, image: Image) -> list[str]:
    """Return the options that boot Xen by multiboot with dom0 as its first module."""
    modules = [f"{image.kernel} {shape.dom0_command_line}", str(image.initramfs)]
    return [
        *("-kernel", str(image.xen), "-append", shape.xen_command_line),
        *("-initrd", ",".join(_quote(module) for module in modules)),
    ]


def control(qmp_fd: int) -> list[str]:
    """Return the options for the monitor and the confinement of QEMU."""
    return [
        *("-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control"),
        *("-sandbox", _SANDBOX, "-no-user-config"),
        "-no-reboot",  # a machine that resets itself ends, and does not boot unseen a second time
    ]


def fingerprint(shape: Shape, accelerator: Accelerator) -> Sequence[str]:
    """Return all that shapes the guest side beside the image: a part of a saved state's key."""
    return [
        *hardware(shape, accelerator),
        *devices(shape, Path("/")),
        shape.xen_command_line,
        shape.dom0_command_line,
    ]


def _quote(value: Path | str) -> str:
    """Double the commas, as QEMU's option syntax wants."""
    return str(value).replace(",", ",,")
