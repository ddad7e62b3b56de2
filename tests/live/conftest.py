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


def pytest_collection_modifyitems(config, items):
    """Leave out the images that must be asked for."""
    if "images" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("images")])
        items[:] = [item for item in items if not item.get_closest_marker("images")]
