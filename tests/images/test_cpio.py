import io
import stat
import subprocess

from blkproof.images.cpio import Archive
from hypothesis import given
from hypothesis import strategies as st


def read(data):
    """Read a newc archive the slow way: {name: (mode, body)} and the number of bytes used."""
    entries, at = {}, 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_at = at + 110
        name = data[name_at : name_at + fields[11] - 1].decode()
        body_at = (name_at + fields[11] + 3) // 4 * 4
        body = data[body_at : body_at + fields[6]]
        at = (body_at + fields[6] + 3) // 4 * 4
        if name == "TRAILER!!!":
            return entries, at
        assert name not in entries
        assert fields[2:4] == [0, 0], "owner"
        assert fields[5] == 0, "date"
        entries[name] = (fields[1], body)


def written(archive):
    out = io.BytesIO()
    archive.write(out)
    return out.getvalue()


names = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=9).filter(
    lambda name: name not in {".", ".."}
)


@given(st.dictionaries(names.map("dir/{}".format), st.binary(max_size=50), max_size=8))
def test_files_read_back(files):
    archive = Archive()
    for name, body in files.items():
        archive.file(name, body)
    data = written(archive)
    entries, end = read(data)
    wanted = {name: (stat.S_IFREG | 0o644, body) for name, body in files.items()}
    if files:
        wanted["dir"] = (stat.S_IFDIR | 0o755, b"")
    assert entries == wanted
    assert len(data) % 512 == 0
    assert not data[end:].strip(b"\0")


@given(st.permutations(["b/x", "a", "b/c/d", "z"]))
def test_the_order_of_adding_does_not_show(order):
    archive, reference = Archive(), Archive()
    for name in order:
        archive.file(name, name.encode())
    for name in sorted(order):
        reference.file(name, name.encode())
    assert written(archive) == written(reference)


def test_directories_come_before_what_they_hold():
    archive = Archive()
    archive.file("a/b/c", b"")
    archive.directory("a", 0o700)
    entries, _ = read(written(archive))
    assert list(entries) == ["a", "a/b", "a/b/c"]
    assert entries["a"][0] == stat.S_IFDIR | 0o700


def test_a_tree_keeps_only_whether_a_file_is_executable(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/run").write_text("x")
    (tmp_path / "bin/run").chmod(0o750)
    (tmp_path / "text").write_text("y")
    (tmp_path / "text").chmod(0o600)
    archive = Archive()
    archive.tree(tmp_path)
    entries, _ = read(written(archive))
    assert entries["bin/run"] == (stat.S_IFREG | 0o755, b"x")
    assert entries["text"] == (stat.S_IFREG | 0o644, b"y")


def test_busybox_unpacks_two_segments_and_the_later_file_wins(debian12_tree, tmp_path):
    first, second = Archive(), Archive()
    first.file("etc/one", b"old")
    first.symlink("etc/link", "one")
    second.file("etc/one", b"new")
    for archive in (first, second):
        unpack = [debian12_tree / "bin/busybox", "cpio", "-idu"]
        subprocess.run(unpack, input=written(archive), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "etc/one").read_text() == "new"
    assert (tmp_path / "etc/link").readlink().name == "one"
