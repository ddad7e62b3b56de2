"""Unpacking what dom0 sent; every name in it may be the work of a hostile guest."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath
from typing import Final

from blkproof.harness.errors import SessionError

END_OF_BULK: Final = b"blkproof-end-of-bulk\n"
"""Last line behind dom0's tar: it is whole."""


def unpack(data: bytes, target: Path) -> None:
    """Write the regular files of a tar below ``target``.

    :raise SessionError: when it is cut off, or holds a name that leads out of ``target``.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                path = PurePosixPath(member.name)
                content = archive.extractfile(member) if member.isreg() else None
                if content is None or path.is_absolute() or ".." in path.parts:
                    raise SessionError(
                        f"evidence from the machine holds {member.name!r}, which is not unpacked"
                    )
                _write(target / path, content.read())
    except (tarfile.TarError, EOFError) as error:
        raise SessionError(f"evidence from the machine is cut off or damaged: {error}") from error


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
