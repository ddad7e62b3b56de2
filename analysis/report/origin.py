"""Where runs come from: what they were made with, and the commands that make them again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blkproof.analysis.report.model import Run, patches_of, source_of, stock_of
from blkproof.analysis.report.view import Row


def environment(runs: Sequence[Run]) -> list[Row]:
    """Give the fingerprint of what the runs were made with; runs of one environment share it."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in runs:
        groups.setdefault(tuple(_facts(run)), []).append(run.title)
    return [{"labels": ", ".join(labels), "facts": facts} for facts, labels in groups.items()]


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    image = run.table("image")
    versions = image.get("versions")
    if isinstance(versions, Mapping):
        first = sorted(versions, key=lambda name: (name != "xen", name != "linux", name))
        yield from ((str(name), str(versions[name])) for name in first)
    yield "QEMU", str(run.info.get("qemu", "unknown"))
    yield "CPU model", str(run.info.get("cpu_model", "unknown"))
    yield "accelerator", run.accelerator
    yield "why", run.why
    yield "image", f"{image.get('name', 'unknown')} {image.get('digest', '')}".strip()
    yield from ((f"driver {name}", str(digest)) for name, digest in sorted(run.table("drivers").items()))
    for name, made_of in sorted(run.variants.items()):
        if stock := stock_of(made_of):
            how = f"by function entries: {stock['differs']}" if stock.get("differs") else "by a twin's DWARF"
            yield f"{name} stock", f"build-id {stock.get('build_id')}, probed {how}"
        if source := source_of(made_of):
            yield f"{name} from", f"{source}, sha256 {made_of['source'].get('sha256')}"
        for patch in patches_of(made_of):
            words = (patch.get("file"), patch.get("subject"), f"sha256 {patch.get('sha256')}")
            yield f"{name} with", ", ".join(str(word) for word in words if word)
        if left_out := made_of.get("left_out"):
            yield f"{name} without", f"{left_out}, which are no part of it"


def reproduce(runs: Sequence[Run]) -> list[Row]:
    """Give the commands that repeat every run, and that check its capture again."""
    return [{"label": run.title, "command": "\n".join(_commands(run))} for run in runs]


def _commands(run: Run) -> Iterator[str]:
    words = ["blkproof", "run", run.scenario]
    for key, value in run.settings.items():
        words += ["--set", f"{key}={value}"]
    image = run.table("image").get("name")
    words += ["--accel", run.accelerator, *(["--image", str(image)] if image else [])]
    if any(map(stock_of, run.variants.values())):
        words += ["--drivers", "stock"]
    for name, made_of in sorted(run.variants.items()):
        words += _driver_options(name, made_of)
    yield shlex.join(words)
    if run.capture:
        yield shlex.join(["blkproof", "explain", run.capture])


def _driver_options(name: str, made_of: Mapping[str, Any]) -> Iterator[str]:
    """Give the options that put a driver of the user's own in its place."""
    option = f"--{name.removeprefix('xen_')}"
    source = made_of.get("source")
    if isinstance(source, Mapping):
        yield from (f"{option}-src", str(source.get("directory")))
    for file in dict.fromkeys(str(patch.get("file")) for patch in patches_of(made_of)):
        yield from (f"{option}-patch", file)
