import os
import subprocess
import sys

import pytest
from blkproof.images import pruning
from blkproof.images.build import needed
from blkproof.images.cache import once
from blkproof.images.pruning import prune, spare
from blkproof.images.recipe import known_recipes

IMAGE_BYTES = 100_000


@pytest.fixture
def images(cache, monkeypatch):
    """Six images, used a day after one another."""
    monkeypatch.setattr(pruning, "KEPT", {"images": 2, "trees": 0})
    paths = [cache / "images" / str(number) for number in range(6)]
    for number, path in enumerate(paths):
        path.mkdir(parents=True)
        (path / "initramfs").write_bytes(b"x" * IMAGE_BYTES)
        os.utime(path, (86400 * number, 86400 * number))
    return paths


def left(cache):
    return sorted(path.name for path in (cache / "images").iterdir())


def test_what_was_not_used_for_long_goes_but_for_what_is_needed(cache, images):
    said = []
    assert spare([images[0]]) == [images[3], images[2], images[1]]
    freed = prune([images[0]], said.append)
    assert left(cache) == ["0", "4", "5"]
    assert 3 * IMAGE_BYTES <= freed < 4 * IMAGE_BYTES
    assert said == ["removed 3 old images, package trees and drivers: 0 MB"]
    assert prune([images[0]], pytest.fail) == 0


def test_a_use_makes_it_recent(cache, images):
    code = "import sys; from pathlib import Path; from blkproof.images.cache import once; "
    code += "once(Path(sys.argv[1]), print, print)"
    subprocess.run([sys.executable, "-c", code, images[0]], check=True, env=environment())
    prune([], print)
    assert left(cache) == ["0", "5"]


def test_what_another_process_uses_stays_until_it_ends(cache, images):
    code = "import sys; from pathlib import Path; from blkproof.images.cache import once; "
    code += "once(Path(sys.argv[1]), print, print); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, images[0]]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(), **pipes) as user:
        assert user.stdout.readline() == "held\n"
        os.utime(images[0], (0, 0))
        prune([], print)
        assert left(cache) == ["0", "4", "5"]
        user.communicate()
    prune([], print)
    assert left(cache) == ["4", "5"]


def test_what_this_process_uses_stays(cache, images):
    once(images[0], print, pytest.fail)
    os.utime(images[0], (0, 0))
    prune([], print)
    assert left(cache) == ["0", "4", "5"]


def test_builds_under_way_and_links_are_let_alone_and_what_a_killed_pruning_left_is_swept(cache):
    (cache / "trees/.key.building").mkdir(parents=True)
    (cache / "trees/.doomed-1-key").mkdir()
    (cache / "trees/link").symlink_to("/")
    prune([], pytest.fail)
    assert sorted(path.name for path in (cache / "trees").iterdir()) == [".key.building", "link"]


def test_every_recipes_image_and_packages_are_needed(cache):
    assert len(needed()) == 2 * len(known_recipes())
    assert {path.parent for path in needed()} == {cache / "images", cache / "trees"}


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])}
