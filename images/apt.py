"""apt in a directory of our own: resolves and downloads for any suite, as any user.

The host's packages are never touched. What the host's apt.conf says of proxies and the like applies.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blkproof.images.cache import Progress, builder_lock, cache_root
from blkproof.images.errors import FetchError
from blkproof.images.lock import Lock, LockedPackage
from blkproof.images.recipe import Recipe

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SECURITY_POOL = "pool/updates/"
_HELPER = "/usr/lib/apt/apt-helper"
_CONNECTIONS = 4
_PROGRESS_SECONDS = 2
_ENGLISH = {**os.environ, "LC_ALL": "C"}


@dataclass(frozen=True)
class Mirror:
    """Base addresses of the Debian archive and of its security archive, without a slash at the end."""

    main: str
    security: str

    def url(self, filename: str) -> str:
        """Return the address of a pool file."""
        base = self.security if filename.startswith(_SECURITY_POOL) else self.main
        return f"{base}/{filename.replace('+', '%2b').replace('~', '%7e')}"


def host_mirror() -> Mirror:
    """Return BLKPROOF_MIRROR ("main [security]"), or the mirror that the host's apt is set to."""
    if own := os.environ.get("BLKPROOF_MIRROR", "").split():
        return _mirror(own[0], own[1] if len(own) > 1 else None)
    codename = _host_codename()
    # What apt would fetch for an update: it says so without fetching, locking or needing its lists.
    planned = re.findall(
        r"^'(\S+)/dists/(\S+)/main/binary-amd64/Packages",
        _run(["apt-get", "update", "--print-uris"]),
        re.MULTILINE,
    )
    for name in (codename, "stable"):
        archives = [base for base, dist in planned if dist == name]
        # Third parties use Debian's code names too, but have no updates of Debian's.
        whole = [base for base in archives if (base, f"{name}-updates") in planned]
        security = [base for base, dist in planned if dist == f"{name}-security"]
        if archives:
            return _mirror((whole or archives)[0], next(iter(security), None))
    raise FetchError(
        f"apt's sources name no mirror for {codename} main: set BLKPROOF_MIRROR to a Debian mirror's address"
    )


def resolve(recipe: Recipe, progress: Progress) -> Lock:
    """Let apt resolve the closure of the recipe's packages and return it as a lock.

    The package lists come from the mirror, their signatures checked by apt.
    """
    progress(f"resolving packages of {recipe.name} ({recipe.suite})")
    if not _KEYRING.is_file():
        raise FetchError(f"{_KEYRING} is missing: install debian-archive-keyring")
    requested = recipe.packages.all()
    with builder_lock(f"apt-{recipe.suite}", progress):
        options = _options(recipe, host_mirror())
        _run(["apt-get", *options, "--error-on=any", "update"])
        plan = _run(["apt-get", *options, "--simulate", "--no-install-recommends", "install", *requested])
        chosen = re.findall(r"^Inst (\S+) \((\S+) ", plan, re.MULTILINE)
        shown = _run(["apt-cache", *options, "show", *(f"{name}={version}" for name, version in chosen)])
    packages = sorted(_stanzas(shown), key=lambda package: package.name)
    return Lock(suite=recipe.suite, requested=requested, packages=tuple(packages))


def download(files: Mapping[Path, LockedPackage], mirror: Mirror, progress: Progress) -> str:
    """Download package files to the paths given, which share a directory; return apt's complaints.

    A file that fails is simply not there afterwards.
    """
    batches: list[list[str]] = [[] for _ in range(_CONNECTIONS)]
    for number, (path, package) in enumerate(sorted(files.items(), key=lambda item: -item[1].size)):
        order = [mirror.url(package.filename), str(path), f"SHA256:{package.sha256}"]
        batches[number % _CONNECTIONS] += order
    total = sum(package.size for package in files.values())
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        running = [pool.submit(_helper, batch) for batch in batches if batch]
        while wait(running, timeout=_PROGRESS_SECONDS).not_done:
            progress(f"downloaded {_size(next(iter(files)).parent) / 1e6:.0f} of {total / 1e6:.0f} MB")
    return "".join(each.result() for each in running)


def _helper(order: list[str]) -> str:
    options = ["-oAPT::Sandbox::User=root", "-oAcquire::Retries=2"]
    done = subprocess.run(
        [_HELPER, *options, "download-file", *order],
        capture_output=True,
        text=True,
        check=False,
        env=_ENGLISH,
    )
    return done.stderr


def _size(directory: Path) -> int:
    """Return the bytes of all files in a directory that apt is still busy in."""
    total = 0
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _mirror(main: str, security: str | None) -> Mirror:
    main = main.rstrip("/")
    # Debian's mirrors have the security archive, if at all, beside the main one.
    beside = f"{main}-security" if main.endswith("/debian") else main
    return Mirror(main, (security or beside).rstrip("/"))


def _host_codename() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise FetchError(
        "/etc/os-release names no VERSION_CODENAME: set BLKPROOF_MIRROR to a Debian mirror's address"
    )


def _options(recipe: Recipe, mirror: Mirror) -> list[str]:
    base = cache_root() / "apt" / recipe.suite
    shutil.rmtree(base, ignore_errors=True)
    for part in ("lists/partial", "cache/archives/partial", "empty"):
        (base / part).mkdir(parents=True)
    (base / "status").touch()
    source = f"deb [arch=amd64 signed-by={_KEYRING}]"
    sources = "".join(f"{source} {archive} main\n" for archive in _archives(recipe, mirror))
    (base / "sources.list").write_text(sources)
    # Backports are taken for the named packages only: apt itself would take none of them.
    pins = (
        f"Package: {names}\nPin: release n={recipe.suite}-backports\nPin-Priority: 990\n\n"
        for names in recipe.backports
    )
    (base / "preferences").write_text("".join(pins))
    settings = {
        "APT::Architecture": "amd64",
        "APT::Architectures::": "amd64",
        "APT::Sandbox::User": "root",
        "APT::Update::Post-Invoke-Success": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Dir::State": base,
        "Dir::State::lists": base / "lists",
        "Dir::State::status": base / "status",
        "Dir::Cache": base / "cache",
        "Dir::Etc::sourcelist": base / "sources.list",
        "Dir::Etc::sourceparts": base / "empty",
        "Dir::Etc::preferences": base / "preferences",
        "Dir::Etc::preferencesparts": base / "empty",
    }
    return [f"-o{key}={value}" for key, value in settings.items()]


def _archives(recipe: Recipe, mirror: Mirror) -> list[str]:
    suite = recipe.suite
    archives = [f"{mirror.main} {suite}"]
    if suite != "sid":
        archives += [f"{mirror.main} {suite}-updates", f"{mirror.security} {suite}-security"]
    if recipe.backports:
        archives += [f"{mirror.main} {suite}-backports"]
    return archives


def _stanzas(shown: str) -> Iterable[LockedPackage]:
    seen: set[str] = set()
    for stanza in shown.split("\n\n"):
        field = dict(re.findall(r"^(\S+): (.*)$", stanza, re.MULTILINE))
        # A version that is in two archives is shown twice: the first is apt's own choice.
        if field and field["Package"] not in seen:
            seen.add(field["Package"])
            yield LockedPackage(
                name=field["Package"],
                version=field["Version"],
                arch=field["Architecture"],
                filename=field["Filename"],
                size=int(field["Size"]),
                sha256=field["SHA256"],
            )


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_ENGLISH)
    except FileNotFoundError as error:
        raise FetchError(f"{command[0]}: not found: blkproof builds its images on Debian only") from error
    if done.returncode != 0:
        words = [line for line in done.stderr.splitlines() if line.startswith("E:")] or [done.stderr.strip()]
        verb = next(word for word in command[1:] if not word.startswith("-"))
        raise FetchError(
            f"{command[0]} {verb} failed: {' '.join(words)}: check the network, "
            "or set BLKPROOF_MIRROR to a Debian mirror that can be reached"
        )
    return done.stdout
