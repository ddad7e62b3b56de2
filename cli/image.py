"""``blkproof image``: build, list, lock and prune."""

from __future__ import annotations

import click
from blkproof.cli.console import progress, tidy_errors


@click.group()
def image() -> None:
    """Build, list, lock and prune images.

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
    from blkproof.images.build import build as build_image
    from blkproof.images.recipe import load_recipe

    with progress("image") as say:
        built = build_image(load_recipe(name), progress=say, relock_if_stale=relock_if_stale)
    click.echo(f"{built.name} {built.digest[:12]}  {built.root}")


@image.command(name="list")
@tidy_errors
def list_() -> None:
    """List the recipes, which of them are built, and what the cache holds besides."""
    from blkproof.images.build import list_images, needed
    from blkproof.images.pruning import size_of, spare
    from blkproof.images.recipe import known_recipes

    built = list_images()
    for name in known_recipes():
        of_name = [image for image in built if image.name == name]
        if not of_name:
            click.echo(f"{name:<12} not built: blkproof image build {name}")
        for image in of_name:
            versions = ", ".join(f"{what} {version}" for what, version in image.versions.items())
            size = size_of(image.root) >> 20
            click.echo(f"{name:<12} {image.digest[:12]}  {versions}  {size} MB  {image.root}")
    if old := spare(needed()):
        size = sum(map(size_of, old)) >> 20
        click.echo(f"{len(old)} old images, package trees and drivers, {size} MB: blkproof image prune")


@image.command()
@click.argument("name", default="debian12")
@tidy_errors
def lock(name: str) -> None:
    """Resolve the packages of NAME anew and write its lock file."""
    from blkproof.images.build import relock
    from blkproof.images.recipe import load_recipe

    recipe = load_recipe(name)
    with progress("lock") as say:
        relock(recipe, progress=say)
    click.echo(recipe.lock_path)


@image.command()
@tidy_errors
def prune() -> None:
    """Remove images, package trees and drivers that no lock needs, but for the last that were used.

    Whenever an image is built, this happens by itself.
    """
    from blkproof.images.build import prune_cache

    with progress("prune") as say:
        freed = prune_cache(say)
    click.echo(f"{freed >> 20} MB are free again")
