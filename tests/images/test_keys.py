import io
import stat
import struct
import subprocess

import paramiko
from blkproof.images.elf import LOADER
from blkproof.images.keys import make_keys


def files_of(archive):
    out = io.BytesIO()
    archive.write(out)
    return out.getvalue()


def test_the_private_key_is_private_and_its_public_half_is_let_in(tmp_path):
    data = files_of(make_keys(tmp_path))
    secret = tmp_path / "ssh_key"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    public = paramiko.Ed25519Key.from_private_key_file(str(secret)).get_base64()
    assert f"ssh-ed25519 {public}".encode() in data


def test_dropbear_reads_the_host_key_and_agrees_on_its_public_half(tmp_path, debian12_tree):
    data = files_of(make_keys(tmp_path))
    start = data.index(struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", 64))
    (tmp_path / "host").write_bytes(data[start : start + 4 + 11 + 4 + 64])
    # With its own suite's loader and libc: those of this host may be of another.
    libraries = debian12_tree / "usr/lib/x86_64-linux-gnu"
    run = [libraries / LOADER, "--library-path", libraries]
    show = [*run, debian12_tree / "usr/bin/dropbearkey", "-y", "-f", tmp_path / "host"]
    shown = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    assert (tmp_path / "host_key.pub").read_text().split()[1] in shown


def test_each_build_has_keys_of_its_own(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert files_of(make_keys(tmp_path / "a")) != files_of(make_keys(tmp_path / "b"))
