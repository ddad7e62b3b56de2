"""The arrows between the rooms, and what packaging must not forget."""

import ast
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "images": {"images"},
    "traces": {"traces"},
    "harness": {"harness", "images", "traces"},
    "analysis": {"analysis", "traces"},
    "cli": {"cli", "images", "harness", "traces", "analysis"},
}
SOURCES = [path for room in ALLOWED for path in sorted((ROOT / room).rglob("*.py"))]


def rooms_imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("blkproof.")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path):
    room = path.relative_to(ROOT).parts[0]
    assert rooms_imported(path) <= ALLOWED[room]


def test_every_package_is_packaged():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        "blkproof." + ".".join(path.parent.relative_to(ROOT).parts)
        for path in SOURCES
        if path.name == "__init__.py"
    }
    assert found == set(settings["packages"]) == set(settings["package-dir"])


def test_every_data_file_is_packaged():
    """A file that is not Python must be named by package-data, or an installed blkproof lacks it."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"].get("package-data", {})
    for room in ALLOWED:
        for path in (ROOT / room).rglob("*"):
            if path.is_dir() or path.suffix in {".py", ".pyc"} or "__pycache__" in path.parts:
                continue
            owners = [parent for parent in path.parents if (parent / "__init__.py").exists()]
            package = "blkproof." + ".".join(owners[0].relative_to(ROOT).parts)
            assert any(path in owners[0].glob(pattern) for pattern in data.get(package, [])), path


def test_no_absolute_path_of_a_developer_and_no_registry_host_is_committed():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    forbidden = [
        "/work/" + "main",
        "../sha" + "red",
        "deb.debian" + ".org",
        "pypi" + ".org",
        "/root/" + ".pyenv",
    ]
    for name in tracked.stdout.splitlines():
        path = ROOT / name
        if path.is_symlink() or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        for word in forbidden:
            assert word not in text, f"{name} names {word}"
