"""Recipes: which packages make an image, and which of their files go where."""

import tomllib
from pathlib import Path
from typing import Annotated

from blkproof.images.errors import RecipeError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

RECIPES = Path(__file__).parent / "recipes"
"""Where the recipes that come with blkproof live, each with its lock beside it."""

Names = Annotated[tuple[str, ...], Field(min_length=1)]


class _Part(BaseModel):
    """A table of a recipe: immutable, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Packages(_Part):
    """Package names by the role they play; apt adds what they depend on."""

    xen: Names
    kernel: Names
    dom0: Names
    guest: Names
    toolchain: Names

    def all(self) -> tuple[str, ...]:
        """Return every named package once, sorted."""
        return tuple(sorted({*self.xen, *self.kernel, *self.dom0, *self.guest, *self.toolchain}))


class Boot(_Part):
    """Files of the unpacked packages, as globs that match exactly one file."""

    xen: str
    kernel: str
    source: str


class System(_Part):
    """What one initramfs holds besides its overlay.

    `programs` are globs of ELF files, put into /bin with the libraries they need; `libraries`
    are names of further ones, which programs ask for only while they run; `stand_ins` are linked
    libraries that nobody calls, replaced by empty ones (see stubs.py);
    `load` are modules loaded at boot and `carry` are modules that only lie ready,
    both with what they depend on.
    """

    programs: Names
    libraries: tuple[str, ...] = ()
    stand_ins: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    carry: tuple[str, ...] = ()


class Driver(_Part):
    """How the drivers under test are rebuilt."""

    compiler: str
    flags: tuple[str, ...]


class Recipe(_Part):
    """One image: `name` is the file's stem, `path` the file that was read.

    `backports` are patterns of the packages that come from the suite's backports.
    """

    name: str
    path: Path
    suite: str
    backports: tuple[str, ...] = ()
    packages: Packages
    versions: dict[str, str]
    boot: Boot
    dom0: System
    guest: System
    driver: Driver

    @property
    def lock_path(self) -> Path:
        """Return the file that pins this recipe's packages."""
        return self.path.with_suffix(".lock.toml")


def known_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that come with blkproof."""
    return tuple(sorted(p.stem for p in RECIPES.glob("*.toml") if not p.stem.endswith(".lock")))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by its name or from a file of one's own."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = RECIPES / f"{name_or_path}.toml"
        if not path.is_file():
            raise RecipeError(f"no image recipe {name_or_path!s}: known are {', '.join(known_recipes())}")
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from error
    try:
        return Recipe.model_validate({**data, "name": path.stem, "path": path.resolve()})
    except ValidationError as error:
        faults = "; ".join(f"key {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"{path}: {faults}") from error
