"""Which accelerator this host can really use: KVM only after Xen has booted under it.

/dev/kvm that opens proves nothing. There are hosts where it opens and a virtual machine can be
made, and yet QEMU asserts, or Xen dies on an instruction that the nested KVM can't emulate.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Literal

from blkproof.harness.errors import HarnessError, HostError
from blkproof.harness.host import Accelerator, qemu_version
from blkproof.harness.machine import Machine
from blkproof.harness.shape import QEMU
from blkproof.images.build import Image
from blkproof.images.cache import cache_root

Want = Literal["auto", "kvm", "tcg", "icount"]

KVM_DEVICE = Path("/dev/kvm")
KVM_CPU_MODEL = "host"
# `max` alone: dom0 dies of SMAP in early boot. With AVX and XSAVE, user processes crash at random,
# since extended register state gets lost over Xen's context switches. Seen with QEMU 7.2.
TCG_CPU_MODEL = "max,-smap,-avx,-xsave"
TCG_SLOWNESS = 4.0
# Numbers from the host's processor would be other ones each time.  QEMU 10.0 ends with "Bad icount read"
# when Xen sets a timer through a register that is none of memory's: x2APIC, TSC deadline.
ICOUNT_CPU_MODEL = f"{TCG_CPU_MODEL},-rdrand,-rdseed,-x2apic,-tsc-deadline"
ICOUNT_SLOWNESS = 8.0
PROBE_LIMIT_S = 20.0
# The first lines that dom0's kernel prints: Xen came through its own start and launched it.
_DOM0_ALIVE = "Linux version "


def probe(
    image: Image, want: Want = "auto", *, device: Path = KVM_DEVICE, fresh: bool = False
) -> Accelerator:
    """Return the accelerator to use; with `want` "kvm", raise HostError if it can't be used.

    "icount" is TCG with a clock that counts instructions: slower, but each run is like the last.

    What a boot of Xen under KVM showed is remembered for this host kernel, QEMU and image until the
    host boots again; `fresh` boots anyway.
    """
    if want == "tcg":
        return _tcg("asked for")
    if want == "icount":
        return Accelerator("icount", "asked for", ICOUNT_CPU_MODEL, ICOUNT_SLOWNESS, deterministic=True)
    why_not = _why_not_openable(device) or _why_not_bootable(image, fresh)
    if why_not is None:
        return Accelerator("kvm", "Xen boots under it", KVM_CPU_MODEL, 1.0)
    if want == "kvm":
        raise HostError(
            f"KVM can't be used: {why_not}; use --accel tcg, or a host with nested virtualisation"
        )
    return _tcg(f"KVM can't be used: {why_not}")


def _tcg(why: str) -> Accelerator:
    return Accelerator("tcg", why, TCG_CPU_MODEL, TCG_SLOWNESS)


def _why_not_openable(device: Path) -> str | None:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no {device}"
    except OSError as error:
        return f"{device} can't be opened ({error.strerror})"
    return None


def _why_not_bootable(image: Image, fresh: bool) -> str | None:
    """Return why KVM can't run Xen, None if it can; from the last probe if one fits and may be used."""
    facts = [
        os.uname().release,
        Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        qemu_version(QEMU),
        KVM_CPU_MODEL,
        image.digest,
    ]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
    kept = cache_root() / "accelerators" / f"{key}.json"
    try:
        if fresh:
            kept.unlink(missing_ok=True)
        answer = json.loads(kept.read_text())["why_not"]
    except (OSError, ValueError, KeyError, TypeError):
        answer = _boot_under_kvm(image)
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps({"why_not": answer}))
        unfinished.rename(kept)
    return None if answer is None else str(answer)


def _boot_under_kvm(image: Image) -> str | None:
    """Boot Xen under KVM until dom0's kernel prints; return why it did not, None if it did."""
    with Machine(image, Accelerator("kvm", "probe", KVM_CPU_MODEL, 1.0)) as machine:
        try:
            machine.boot()
            machine.wait_until(
                lambda: _DOM0_ALIVE in machine.consoles["dom0"].text() or None,
                PROBE_LIMIT_S,
                "Xen's launch of dom0 under KVM",
                console="xen",
            )
        except HarnessError as error:
            return str(error)
    return None
