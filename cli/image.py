"""``blkproof image``: build, list and lock."""

from __future__ import annotations

import click
from blkproof.cli.console import progress, tidy_errors


@click.group()
def image() -> None:
    """Build, list and lock images.

    An image is a Xen, a kernel and two initramfs (dom0's and the guest's), made from the Debian
    packages that its recipe names, in the versions that its lock pins.
    """


@image.command()
@click.argument("name", default="debian12")
@click.option(
    "--relock-if-stale",
    is_flag=True,
    help="When the mirror has dropped a locked version, resolve anew for this build and say so.",
)
@tidy_errors
def build(name: str, relock_if_stale: bool) -> None:
    """Build the image NAME, or find it built already."""
    from blkproof.images import build as images_build

    with progress("image") as say:
        built = images_build.build(
            images_build.load_recipe(name), progress=say, relock_if_stale=relock_if_stale
        )
    click.echo(f"{built.name} {built.digest[:12]}  {built.root}")


@image.command(name="list")
@tidy_errors
def list_() -> None:
    """List the recipes, and which of them are built."""
    from blkproof.images import build as images_build

    for line in images_build.describe_images():
        click.echo(line)


@image.command()
@click.argument("name", default="debian12")
@tidy_errors
def lock(name: str) -> None:
    """Resolve the packages of NAME anew and write its lock file."""
    from blkproof.images import build as images_build

    with progress("lock") as say:
        path = images_build.relock(images_build.load_recipe(name), progress=say)
    click.echo(f"wrote {path}")
