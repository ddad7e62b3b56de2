"""The lock: exactly which package files make an image, each pinned by its sha256."""

import hashlib
import json
import tomllib
from pathlib import Path

from blkproof.images.errors import LockError
from blkproof.images.recipe import Recipe
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class LockedPackage(BaseModel):
    """One package file: `filename` is its place in the archive's pool, `size` is in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    arch: str
    filename: str
    size: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Lock(BaseModel):
    """The whole closure of a recipe, sorted by name; `requested` is what the recipe named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    requested: tuple[str, ...]
    packages: tuple[LockedPackage, ...]

    @property
    def digest(self) -> str:
        """Return a sha256 over the content: equal for equal package files."""
        return hashlib.sha256("\n".join(f"{p.name} {p.sha256}" for p in self.packages).encode()).hexdigest()

    def version(self, name: str) -> str:
        """Return the locked version of a package."""
        for package in self.packages:
            if package.name == name:
                return package.version
        raise LockError(f"the lock has no package {name}: run `blkproof image lock` to make it anew")


def write_lock(lock: Lock, path: Path) -> None:
    """Write a lock as TOML, one line a package, so that changes read well in a diff."""
    rows = (", ".join(f"{key} = {json.dumps(value)}" for key, value in package) for package in lock.packages)
    lines = [
        "# Written by `blkproof image lock`: do not edit.",
        f"suite = {json.dumps(lock.suite)}",
        f"requested = {json.dumps(lock.requested)}",
        "packages = [",
        *(f"    {{ {row} }}," for row in rows),
        "]",
        "",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def read_lock(path: Path, recipe: Recipe) -> Lock:
    """Read the lock at `path` and hold it against the recipe that it is for."""
    remedy = f"run `blkproof image lock {recipe.name}`"
    try:
        lock = Lock.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        raise LockError(f"{path}: no lock for image {recipe.name}: {remedy}") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LockError(f"{path}: cannot be read as a lock: {error}: {remedy}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise LockError(
            f"{path}: key {'.'.join(map(str, first['loc']))}: {first['msg']}: {remedy}"
        ) from error
    if (lock.suite, lock.requested) != (recipe.suite, recipe.packages.all()):
        raise LockError(f"{path}: made for another version of {recipe.path.name}: {remedy}")
    return lock
