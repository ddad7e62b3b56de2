import os
import threading

import pytest
from blkproof.harness.errors import SnapshotError
from blkproof.harness.snapshot import Snapshot, copy_sparse, read_to_end, write_all
from hypothesis import given, settings
from hypothesis import strategies as st

PAGE = 4096
MEMORY_PAGES = 64


def memory_with(pages):
    fd = os.memfd_create("memory")
    os.ftruncate(fd, MEMORY_PAGES * PAGE)
    for page, value in pages.items():
        os.pwrite(fd, bytes([value]) * PAGE, page * PAGE)
    return fd


@pytest.fixture
def snapshot(tmp_path):
    fd = memory_with({0: 1, 9: 2})
    snapshot = Snapshot(tmp_path)
    snapshot.write(fd, b"devices")
    os.close(fd)
    return snapshot


def test_what_was_written_passes_the_check(snapshot):
    snapshot.check()
    assert snapshot.memory.stat().st_size == MEMORY_PAGES * PAGE
    assert snapshot.memory.read_bytes()[9 * PAGE : 10 * PAGE] == bytes([2]) * PAGE


def cut_memory(snapshot):
    os.truncate(snapshot.memory, PAGE)


def alter_memory(snapshot):
    with snapshot.memory.open("r+b") as memory:
        memory.write(b"x")


def alter_devices(snapshot):
    snapshot.devices.write_bytes(b"Devices")


def cut_devices(snapshot):
    snapshot.devices.write_bytes(b"dev")


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (cut_memory, "size"),
        (alter_memory, "changed_ns"),
        (alter_devices, "devices"),
        (cut_devices, "devices"),
        (lambda snapshot: snapshot.memory.unlink(), "No such file"),
        (lambda snapshot: snapshot.devices.unlink(), "No such file"),
        (lambda snapshot: (snapshot.directory / "state.json").unlink(), "No such file"),
        (lambda snapshot: (snapshot.directory / "state.json").write_text("{"), "can't be read"),
        (lambda snapshot: (snapshot.directory / "state.json").write_text("[]"), "altered"),
    ],
)
def test_a_damaged_one_is_refused(snapshot, damage, word):
    damage(snapshot)
    with pytest.raises(SnapshotError, match=word):
        snapshot.check()


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(0, MEMORY_PAGES - 1), st.integers(1, 255)))
def test_a_sparse_copy_has_the_same_bytes(pages):
    source, target = memory_with(pages), os.memfd_create("copy")
    try:
        copied = copy_sparse(source, target)
        size = MEMORY_PAGES * PAGE
        assert os.pread(target, size + 1, 0) == os.pread(source, size + 1, 0)
        assert copied == len(pages) * PAGE
    finally:
        os.close(source)
        os.close(target)


def test_a_pipe_carries_more_than_it_holds():
    read_fd, write_fd = os.pipe()
    data = os.urandom(1 << 20)
    writer = threading.Thread(target=write_all, args=(write_fd, data))
    writer.start()
    assert read_to_end(read_fd) == data
    writer.join()


def test_a_reader_that_goes_early_is_no_error_of_the_writer():
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    write_all(write_fd, b"x" * (1 << 20))
