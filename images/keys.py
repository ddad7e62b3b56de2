"""SSH keys of one image build: the harness's way in, and dom0's own identity."""

import struct
from pathlib import Path

from blkproof.images.cpio import Archive
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

_KIND = b"ssh-ed25519"


def make_keys(directory: Path) -> Archive:
    """Make both key pairs, keep in `directory` what the harness needs, return what dom0 needs.

    Kept are `ssh_key` (private, mode 0600) and `host_key.pub` (dom0's, one line).
    """
    user, host = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    secret = directory / "ssh_key"
    secret.touch(mode=0o600)
    secret.write_bytes(user.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    (directory / "host_key.pub").write_bytes(_public_line(host))
    archive = Archive()
    archive.directory("root", 0o700)
    archive.directory("root/.ssh", 0o700)
    archive.file("root/.ssh/authorized_keys", _public_line(user), 0o600)
    archive.file("etc/dropbear/host_key", _dropbear_key(host), 0o600)
    return archive


def _public_line(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n"


def _dropbear_key(key: Ed25519PrivateKey) -> bytes:
    """Return a key as dropbear stores it: two SSH strings, the name and seed + public key."""
    seed = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return b"".join(struct.pack(">I", len(part)) + part for part in (_KIND, seed + public))
