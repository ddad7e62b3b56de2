"""Unpacking evidence that a hostile guest may have had its hands on."""

import io
import tarfile

import pytest
from blkproof.harness.errors import SessionError
from blkproof.harness.unpacking import unpack


def tar(*entries):
    """Each entry is (name, data) or (name, type, link)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, *rest in entries:
            info = tarfile.TarInfo(name)
            data = rest[0] if len(rest) == 1 else b""
            if len(rest) > 1:
                info.type, info.linkname = rest
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_files_land_below_the_target(tmp_path):
    unpack(tar(("./trace", tarfile.DIRTYPE, ""), ("./trace/cpu0.raw", b"page"), ("top", b"1")), tmp_path)
    assert (tmp_path / "trace" / "cpu0.raw").read_bytes() == b"page"
    assert (tmp_path / "top").read_bytes() == b"1"


def test_words_behind_the_end_do_not_matter(tmp_path):
    unpack(tar(("a", b"1")) + b"blkproof-end-of-bulk\n", tmp_path)
    assert (tmp_path / "a").read_bytes() == b"1"


@pytest.mark.parametrize(
    "entry",
    [
        ("../out", b"x"),
        ("a/../../out", b"x"),
        ("/out", b"x"),
        ("link", tarfile.SYMTYPE, "/etc/passwd"),
        ("hard", tarfile.LNKTYPE, "/etc/passwd"),
        ("pipe", tarfile.FIFOTYPE, ""),
    ],
)
def test_what_leads_elsewhere_is_refused(tmp_path, entry):
    target = tmp_path / "in"
    target.mkdir()
    with pytest.raises(SessionError, match="not unpacked"):
        unpack(tar(("first", b"1"), entry), target)
    assert (target / "first").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("keep", [0, 100, 700])
def test_a_cut_off_archive_is_told(tmp_path, keep):
    with pytest.raises(SessionError, match="cut off or damaged"):
        unpack(tar(("a", b"x" * 4096))[:keep], tmp_path)
