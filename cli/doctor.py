"""``blkproof doctor``: what this host can do, and why not."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import click
from blkproof.cli import exits
from blkproof.cli.console import progress, tidy_errors

TOOLS = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "gpgv": "gpgv",
    "patch": "patch",
    "qemu-system-x86_64": "qemu-system-x86",
    "xz": "xz-utils",
}
"""Programs that blkproof calls, and the Debian package that has each."""


@dataclass(frozen=True)
class Check:
    """One thing looked at: its name, whether it will do, and what was seen or what to do."""

    name: str
    ok: bool
    text: str


@click.command()
@click.option("--image", "image_name", default="debian12", show_default=True, help="Image to try Xen with.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@tidy_errors
def doctor(image_name: str, as_json: bool) -> int:
    """Say what this host can do, and why not.

    Looks at packages, memory, disk and images, and finds the accelerator by really booting Xen
    under KVM with a time limit: a /dev/kvm that opens proves nothing.
    """
    with progress("doctor") as say:
        checks = list(_checks(image_name, say))
    ready = all(check.ok for check in checks)
    if as_json:
        click.echo(json.dumps({"ready": ready, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        for check in checks:
            click.echo(f"{'ok ' if check.ok else 'NO '} {check.name:<12} {check.text}")
        click.echo("ready: `blkproof run basic`" if ready else "not ready: see the lines marked NO")
    return exits.PASS if ready else exits.HARNESS


def _checks(image_name: str, say: Callable[[str], None]) -> Iterator[Check]:
    yield Check("python", True, f"{platform.python_version()} ({sys.executable})")
    found = importlib.util.find_spec("bt2") is not None
    yield Check(
        "bt2",
        found,
        "babeltrace2's bindings import"
        if found
        else "missing: apt-get install python3-bt2, and a venv with --system-site-packages",
    )
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    yield Check(
        "packages",
        not missing,
        f"missing: apt-get install {' '.join(missing)}" if missing else ", ".join(sorted(TOOLS)),
    )
    yield _memory()
    yield _disk()
    yield from _machine(image_name, say)


def _memory() -> Check:
    from blkproof.harness import host
    from blkproof.harness.errors import HostError

    try:
        host.check_memory()
    except HostError as error:
        return Check("memory", False, str(error))
    return Check("memory", True, f"{host.available_memory_mb()} MB available")


def _disk() -> Check:
    from blkproof.harness import host
    from blkproof.harness.errors import HostError
    from blkproof.images.cache import cache_root

    try:
        host.check_disk(cache_root())
    except HostError as error:
        return Check("disk", False, str(error))
    return Check("disk", True, f"{host.free_disk_mb(cache_root())} MB free in {cache_root()}")


def _machine(image_name: str, say: Callable[[str], None]) -> Iterator[Check]:
    """Look at QEMU, the image and the accelerator, each of which needs the one before."""
    from blkproof.harness.accel import probe
    from blkproof.harness.errors import HarnessError
    from blkproof.harness.host import qemu_version
    from blkproof.harness.shape import QEMU
    from blkproof.images.build import list_images

    try:
        yield Check("qemu", True, qemu_version(QEMU))
    except HarnessError as error:
        yield Check("qemu", False, str(error))
        return
    built = [image for image in list_images() if image.name == image_name]
    if not built:
        yield Check("image", False, f"{image_name} is not built: blkproof image build {image_name}")
        yield Check("accelerator", False, "not tried: it takes an image to boot Xen")
        return
    image = built[-1]
    versions = ", ".join(f"{name} {version}" for name, version in image.versions.items())
    yield Check("image", True, f"{image.name} {image.digest[:12]} ({versions})")
    say("finding the accelerator: booting Xen under KVM if it opens")
    accelerator = probe(image, fresh=True)
    yield Check("accelerator", True, f"{accelerator.name}: {accelerator.why}")
