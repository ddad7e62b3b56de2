"""The capture: one sealed directory with everything that a run recorded.

The manifest is written last and names every file with its size and hash, so a capture that was cut off,
altered or mixed with another one is seen when it is opened.  Nothing is decoded here.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, Self

from blkproof.traces import fio, gnttab, xenstore
from blkproof.traces.errors import (
    CaptureAltered,
    CaptureError,
    CaptureVersion,
    DecodeError,
    NotACapture,
    shown,
)
from blkproof.traces.xenstore import Change

SCHEMA: Final = 1
"""Version of the layout of the directory."""
MANIFEST: Final = "manifest.json"
END: Final = "blkproof-capture-end"
XENTRACE: Final = "xentrace.bin"
_HASH_BLOCK_BYTES: Final = 1 << 20
_RECORD_AGAIN: Final = "record it again with blkproof run"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the manifest says about one file: sha256 in hex, size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Window:
    """Time between arming and disarming, in TSC ticks."""

    armed_tsc: int
    disarmed_tsc: int


@dataclass(frozen=True)
class Capture:
    """A sealed capture whose every byte was checked against its manifest.

    ``run`` is the manifest's account of the run, ``files`` maps each relative path to its entry, and
    ``digest`` is the sha256 of the manifest: it names the capture.
    """

    path: Path
    run: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    digest: str

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Check the directory ``path`` against its manifest; raise CaptureError for the first thing wrong."""
        directory = Path(path)
        raw, manifest = _read_manifest(directory)
        files = _entries(directory / MANIFEST, manifest.get("files"))
        present = {name for name in _walk(directory) if name != MANIFEST}
        for name in sorted(files.keys() | present):
            if name not in present:
                raise CaptureAltered(
                    directory / name, expected="the file", got="nothing: it is missing", advice=_RECORD_AGAIN
                )
            if name not in files:
                raise CaptureAltered(
                    directory / name,
                    expected="only files of the manifest",
                    got="an extra file",
                    advice="move it out of the capture",
                )
            _check_file(directory / name, files[name])
        run = manifest.get("run")
        if not isinstance(run, dict):
            raise NotACapture(
                directory / MANIFEST, expected="a table 'run'", got=shown(run), advice=_RECORD_AGAIN
            )
        return cls(directory, run, files, hashlib.sha256(raw).hexdigest())

    @classmethod
    def unsealed(cls, path: Path) -> Self:
        """Look into a directory that a run has filled, before (or without regard to) its sealing."""
        files = {name: FileEntry("", (path / name).stat().st_size) for name in _walk(path)}
        return cls(path, {}, files, "")

    def has(self, name: str) -> bool:
        """Tell whether the capture holds the file ``name`` (relative path)."""
        return name in self.files

    def file(self, name: str) -> Path:
        """Return where the file ``name`` is; raise CaptureError when the capture has none."""
        if name not in self.files:
            raise CaptureAltered(
                self.path / name,
                expected="the file",
                got=f"a run that ended {shown(self.run.get('ended'))} without recording it",
                advice=_RECORD_AGAIN,
            )
        return self.path / name

    def text(self, name: str) -> str:
        """Return the file ``name`` as text; bytes that are no UTF-8 are escaped."""
        return self.file(name).read_text(encoding="utf-8", errors="backslashreplace")

    def below(self, folder: str) -> list[str]:
        """Return the names of all files below ``folder``, sorted."""
        return sorted(name for name in self.files if name.startswith(folder + "/"))

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains with a trace of their own: dom0, guest1, ..."""
        return tuple(sorted({n.split("/")[0] for n in self.files if n.split("/")[1:2] == ["trace"]}))

    @property
    def domids(self) -> Mapping[str, int]:
        """Domain id of each guest, by its name."""
        return dict(self.run.get("domids", {}))

    @property
    def window(self) -> Window | None:
        """The armed time, when the run knew it."""
        window = self.run.get("window") or {}
        if "armed_tsc" not in window or "disarmed_tsc" not in window:
            return None
        return Window(int(window["armed_tsc"]), int(window["disarmed_tsc"]))

    def parameters(self, domain: str) -> Mapping[str, Mapping[str, str]]:
        """Return the module parameters as they really were in ``domain``: ``{module: {name: value}}``."""
        name = f"{domain}/parameters.json"
        loaded = _json(self.file(name), self.text(name), DecodeError)
        if not isinstance(loaded, dict) or not all(isinstance(v, dict) for v in loaded.values()):
            raise DecodeError(
                self.path / name,
                expected="{module: {parameter: value}}",
                got=shown(loaded),
                advice=_RECORD_AGAIN,
            )
        return {module: {k: str(v) for k, v in values.items()} for module, values in loaded.items()}

    def xenstore(self, moment: Literal["before", "attached", "after"]) -> Mapping[str, str]:
        """Return the contents of xenstore by full path.

        That is all of it before the attach, and the disk's part while attached and after the detach.
        """
        name = f"xenstore/{moment}.txt"
        return xenstore.parse_listing(self.text(name), self.path / name)

    def xenstore_changes(self) -> list[Change]:
        """Return what xenstored logged of requests to change something."""
        return xenstore.parse_changes(self.text("xenstore/access.log"))

    def grants(self, moment: Literal["attached", "detached"]) -> gnttab.GrantDump:
        """Return Xen's own list of mapped grants, while the disk was attached or after its detaching."""
        name = "gnttab_attached.txt" if moment == "attached" else "gnttab.txt"
        return gnttab.parse_dump(self.text(name), self.path / name)

    def fio(self, guest: str) -> fio.FioResult:
        """Return what fio reported in ``guest``."""
        name = f"{guest}/fio.json"
        return fio.parse_result(self.text(name), self.path / name)


def seal(directory: Path | str, run: Mapping[str, Any]) -> Path:
    """Write the manifest of ``directory`` with the account ``run`` of the run, and return its path.

    The manifest appears whole or not at all.  A sealed directory is never sealed again.
    """
    root = Path(directory)
    target = root / MANIFEST
    if target.exists():
        raise NotACapture(
            target, expected="an unsealed directory", got="a manifest", advice="write to a new directory"
        )
    partial = root / f"{MANIFEST}.partial"
    partial.unlink(missing_ok=True)  # of a sealing that was killed
    files = {}
    for name in _walk(root):
        path = root / name
        files[name] = {"sha256": _sha256(path), "size": path.stat().st_size}
    manifest = {"schema": SCHEMA, "sealed": True, "run": dict(run), "files": files, "end": END}
    try:
        with partial.open("w", encoding="utf-8") as out:
            json.dump(manifest, out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _read_manifest(directory: Path) -> tuple[bytes, dict[str, Any]]:
    path = directory / MANIFEST
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        got = (
            "none: the run was cut off, or this is another directory"
            if directory.is_dir()
            else "no such directory"
        )
        raise NotACapture(
            directory,
            expected=f"a capture with {MANIFEST}",
            got=got,
            advice="give the directory of a finished run",
        ) from error
    manifest = _json(path, raw.decode("utf-8", errors="replace"), NotACapture)
    if not isinstance(manifest, dict):
        raise NotACapture(path, expected="a manifest", got=shown(manifest), advice=_RECORD_AGAIN)
    if manifest.get("schema") != SCHEMA:
        raise CaptureVersion(
            path,
            expected=f"schema {SCHEMA}",
            got=f"schema {shown(manifest.get('schema'))}",
            advice="read it with the version of blkproof that recorded it",
        )
    if manifest.get("sealed") is not True or manifest.get("end") != END:
        raise NotACapture(
            path, expected=f"a sealed capture that ends in {END!r}", got="no end mark", advice=_RECORD_AGAIN
        )
    return raw, manifest


def _json(path: Path, text: str, error_type: type[CaptureError]) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        offset = error.pos if isinstance(error, json.JSONDecodeError) else None
        raise error_type(
            path, offset=offset, expected="whole JSON", got="a cut-off or damaged file", advice=_RECORD_AGAIN
        ) from error


def _entries(manifest: Path, files: object) -> dict[str, FileEntry]:
    if not isinstance(files, dict):
        raise NotACapture(manifest, expected="a table 'files'", got=shown(files), advice=_RECORD_AGAIN)
    return {name: _entry(manifest, name, entry) for name, entry in files.items()}


def _entry(manifest: Path, name: str, entry: object) -> FileEntry:
    pure = PurePosixPath(name)
    if pure.is_absolute() or not pure.parts or ".." in pure.parts or str(pure) != name or "\0" in name:
        raise CaptureAltered(
            manifest,
            expected="relative names of files inside the capture",
            got=shown(name),
            advice="do not trust this capture",
        )
    match entry:
        case {"sha256": str(sha256), "size": int(size)}:
            return FileEntry(sha256, size)
    raise NotACapture(manifest, expected=f"sha256 and size of {name}", got=shown(entry), advice=_RECORD_AGAIN)


def _walk(directory: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(directory):
        for name in sorted(names + [f for f in folders if (Path(folder) / f).is_symlink()]):
            path = Path(folder) / name
            if not stat.S_ISREG(path.lstat().st_mode):
                raise CaptureAltered(
                    path,
                    expected="regular files only",
                    got="a link, socket or device",
                    advice="move it out of the capture",
                )
            yield path.relative_to(directory).as_posix()


def _check_file(path: Path, entry: FileEntry) -> None:
    size = path.stat().st_size
    if size != entry.size:
        raise CaptureAltered(
            path,
            expected=f"{entry.size} bytes",
            got=f"{size} bytes: the file was {'cut off' if size < entry.size else 'appended to'}",
            advice=_RECORD_AGAIN,
        )
    sha256 = _sha256(path)
    if sha256 != entry.sha256:
        raise CaptureAltered(
            path,
            expected=f"sha256 {entry.sha256[:16]}...",
            got=f"{sha256[:16]}...: the file was altered",
            advice=_RECORD_AGAIN,
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
