"""What live tests share: the image and the accelerator, found once a session."""

import pytest
from blkproof.harness.accel import probe
from blkproof.images.build import build
from blkproof.images.recipe import load_recipe


@pytest.fixture(scope="session")
def image():
    return build(load_recipe("debian12"), progress=print)


@pytest.fixture(scope="session")
def accelerator(image):
    return probe(image)
