"""Build an image from the command line, for work on this room: `python -m blkproof.images debian12`."""

import sys

from blkproof.images.build import build
from blkproof.images.recipe import load_recipe

if __name__ == "__main__":
    image = build(load_recipe(sys.argv[1]), progress=print, relock_if_stale=True)
    print(image.root)
