"""``--blkback-patch`` and its kin: from files on the command line to drivers of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from blkproof.images.drivers import Driver, Variant
    from blkproof.images.recipe import Recipe

SIDES: Final = {"blkback": "xen_blkback", "blkfront": "xen_blkfront"}
"""How the options name the drivers, and the names of their modules."""

REBUILT: Final = "rebuilt"
STOCK: Final = "stock"

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_DIRECTORY: Final = click.Path(exists=True, file_okay=False, path_type=Path)


def driver_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that put other drivers in the place of the image's."""
    for side, module in reversed(SIDES.items()):
        name = module.replace("_", "-")
        command = click.option(
            f"--{side}-src",
            type=_DIRECTORY,
            help=f"Take {name} from this kernel tree, or from the directory with its sources.",
        )(command)
        command = click.option(
            f"--{side}-patch",
            type=_FILE,
            multiple=True,
            help=f"Patch {name}: a diff, a mail or an mbox series (git format-patch), in order.",
        )(command)
    return click.option(
        "--drivers",
        type=click.Choice([REBUILT, STOCK]),
        default=REBUILT,
        show_default=True,
        help="The image's drivers: rebuilt so that probes see each step, or the kernel package's own.",
    )(command)


def variants(
    patches: Mapping[str, Sequence[Path]], sources: Mapping[str, Path | None]
) -> tuple[Variant, ...]:
    """Read what was given for each side, ``blkback`` and ``blkfront``; none for a side that got nothing."""
    from blkproof.images.drivers import Variant
    from blkproof.images.patches import read_patches
    from blkproof.images.source import read_source

    found = []
    for side, module in SIDES.items():
        source = sources[side]
        if source or patches[side]:
            given = tuple(patch for file in patches[side] for patch in read_patches(file))
            found.append(Variant(module, given, read_source(module, source) if source else None))
    return tuple(found)


def built(
    recipe: Recipe, base: str, wanted: Sequence[Variant], say: Callable[[str], None]
) -> dict[str, Driver]:
    """Build what takes the place of rebuilt drivers; DriverError in the words of patch or of the compiler."""
    from blkproof.images.build import package_tree
    from blkproof.images.drivers import build_variants
    from blkproof.images.stock import stock_drivers

    if base == REBUILT and not wanted:
        return {}
    tree = package_tree(recipe, progress=say)
    others = stock_drivers(recipe, tree, say) if base == STOCK else {}
    return {**others, **build_variants(recipe, tree, say, wanted)}
