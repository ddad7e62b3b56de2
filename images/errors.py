"""What can go wrong between a recipe and a bootable image.

    ImageError
    |-- RecipeError      the recipe's text is wrong
    |-- LockError        the lock is missing, broken or belongs to another recipe
    |   `-- StaleLockError   the mirror no longer has what the lock names
    |-- FetchError       apt cannot resolve or download
    |-- SpaceError       too little disk or memory
    |-- PackageError     a package lacks a file that the recipe needs
    `-- DriverError      a driver's patch does not apply or does not compile

Every message is one statement fit for a user: what, where, and what to do.
"""


class ImageError(Exception):
    """Root of everything this room raises on purpose."""


class RecipeError(ImageError):
    """A recipe that cannot be read: names file, key and expected type."""


class LockError(ImageError):
    """A lock that is missing, broken, or was made for another recipe."""


class StaleLockError(LockError):
    """The mirror dropped a locked version; only a new lock helps."""


class FetchError(ImageError):
    """apt could not resolve or download, for a reason told in apt's words."""


class SpaceError(ImageError):
    """Too little disk or memory to build."""


class PackageError(ImageError):
    """The packages do not hold a file, library or module that the recipe names."""


class DriverError(ImageError):
    """A driver that cannot be patched or compiled, told in the tool's words."""
