import threading
from pathlib import Path

import pytest
from blkproof.images.cache import cache_root, need_disk, need_memory, once
from blkproof.images.errors import SpaceError


def test_where_the_cache_is(monkeypatch):
    monkeypatch.delenv("BLKPROOF_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_root() == Path("/home/someone/.cache/blkproof")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/xdg")
    assert cache_root() == Path("/var/xdg/blkproof")
    monkeypatch.setenv("BLKPROOF_CACHE", "/srv/own")
    assert cache_root() == Path("/srv/own")


def test_once_makes_a_directory_once(cache):
    made = []

    def make(work):
        made.append(work)
        (work / "file").touch()

    for _ in range(2):
        assert (once(cache / "things/x", print, make) / "file").exists()
    assert len(made) == 1


def test_a_failed_make_leaves_nothing(cache):
    def make(work):
        (work / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        once(cache / "things/x", print, make)
    assert list((cache / "things").iterdir()) == []


def test_what_a_killed_builder_left_is_swept(cache):
    (cache / "things/.x.killed").mkdir(parents=True)
    (cache / "things/.y.other").mkdir()
    once(cache / "things/x", print, lambda _work: None)
    assert sorted(path.name for path in (cache / "things").iterdir()) == [".y.other", "x"]


def test_two_builders_at_once_build_once_and_the_second_says_that_it_waits(cache):
    inside, go_on, said = threading.Event(), threading.Event(), []
    makers = []

    def make(work):
        makers.append(work)
        inside.set()
        go_on.wait()

    def say(line):
        said.append(line)
        go_on.set()

    first = threading.Thread(target=once, args=(cache / "things/x", print, make))
    first.start()
    inside.wait()
    once(cache / "things/x", say, make)
    first.join()
    assert len(makers) == 1
    assert said == ["waiting for another builder of things-x"]


def test_too_little_disk_says_how_much_and_where(cache):
    with pytest.raises(SpaceError, match=r"cache: unpacking needs \d+ MB of disk and \d+ MB are free"):
        need_disk(cache, 1 << 60, "unpacking")
    need_disk(cache, 1, "unpacking")


def test_too_little_memory_says_how_much():
    with pytest.raises(SpaceError, match=r"building needs \d+ MB of memory and \d+ MB are available"):
        need_memory(1 << 60, "building")
    need_memory(1, "building")
