"""Scenarios: each is one TOML file, found by being there."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

from blkproof.harness.errors import ScenarioError
from blkproof.harness.settings import SETTINGS
from blkproof.traces.marks import JOB_BEGINS, JOB_ENDS
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

DIRECTORY: Final = Path(__file__).parent / "scenarios"
_OURS: Final = frozenset({"filename", "randseed", "output", "output-format"})
"""What fio is told by us."""
_MARKS: Final = MappingProxyType({"prerun": JOB_BEGINS, "postrun": JOB_ENDS})

_Text = Annotated[str, Field(min_length=1)]


class Scenario(BaseModel):
    """What is run: the load and the settings to run it with.  Pure data, which names no path of a host.

    ``seed`` makes the load the same each time; ``fio`` is one job of fio, option by option;
    ``stall_s`` is how long the backend's counters may rest while the load runs, in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Text
    description: _Text
    seed: int = Field(ge=0, lt=1 << 32)
    settings: Mapping[str, str] = Field(default_factory=lambda: MappingProxyType({}))
    fio: Mapping[str, str | int]
    stall_s: int = Field(default=5, ge=1, le=600)

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, settings: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in settings.items():
            if wrong := _wrong(name, value):
                raise ValueError(wrong)
        return MappingProxyType(dict(settings))

    @field_validator("fio")
    @classmethod
    def _fio_options(cls, fio: Mapping[str, str | int]) -> Mapping[str, str | int]:
        for name, value in fio.items():
            if name in _OURS:
                raise ValueError(f"{name} is set by blkproof itself")
            if "\n" in f"{name}{value}" or "=" in name or name.startswith("["):
                raise ValueError(f"{name} is no single option of fio")
        return MappingProxyType(dict(fio))

    def resolve(self, asked: Mapping[str, str]) -> dict[str, str]:
        """Return the value of every setting: as asked, else the scenario's, else the default.

        :raise ScenarioError: for a setting or a value that there is not.
        """
        for name, value in asked.items():
            if wrong := _wrong(name, value):
                raise ScenarioError(f"scenario {self.name}: {wrong}")
        defaults = {name: setting.default for name, setting in SETTINGS.items()}
        return {**defaults, **self.settings, **asked}

    def job(self, disk: str) -> str:
        """Return fio's job file for a disk; where the job begins and ends, it marks the guest's trace."""
        marks = {f"exec_{when}": self._marked(f"exec_{when}", mark) for when, mark in _MARKS.items()}
        options = {"filename": disk, "randseed": self.seed, **self.fio, **marks}
        return "\n".join([f"[{self.name}]", *(f"{name}={value}" for name, value in options.items()), ""])

    def _marked(self, option: str, mark: str) -> str:
        """Return a command of the job's with the mark behind it, as fio hands it to a shell."""
        # Fio adds where the output of the last command goes to, and takes a semicolon for a comment.
        put = f"echo {mark} > /sys/kernel/tracing/trace_marker || :"
        return f"{self.fio[option]} && ({put})" if option in self.fio else put


def list_scenarios() -> list[Scenario]:
    """Return the scenarios that come with blkproof, by name."""
    return [_read(path) for path in sorted(DIRECTORY.glob("*.toml"))]


def load_scenario(name_or_path: str | Path) -> Scenario:
    """Return the scenario of that name, or the one in that file (a path ends in ``.toml``).

    :raise ScenarioError: when there is none, or for the first key that is wrong, with file and key.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        return _read(path)
    known = sorted(file.stem for file in DIRECTORY.glob("*.toml"))
    if str(name_or_path) not in known:
        raise ScenarioError(f"no scenario {str(name_or_path)!r}; there are {', '.join(known)}")
    return _read(DIRECTORY / f"{name_or_path}.toml")


def _read(path: Path) -> Scenario:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return Scenario.model_validate({**table, "name": path.stem})
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}; give a scenario's name or its file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: no TOML: {error}") from error
    except ValidationError as error:
        raise ScenarioError(f"{path}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """Return the first thing wrong: the key, and what is the matter with it."""
    wrong = error.errors()[0]
    key = ".".join(str(part) for part in wrong["loc"])
    if wrong["type"] == "extra_forbidden":
        keys = ", ".join(name for name in Scenario.model_fields if name != "name")
        return f"{key}: no such key; there are {keys}"
    return f"{key}: {wrong['msg'].removeprefix('Value error, ')}"


def _wrong(name: str, value: str) -> str | None:
    setting = SETTINGS.get(name)
    if setting is None:
        return f"no setting {name!r}; there are {', '.join(SETTINGS)}"
    if not setting.accepts(value):
        return f"{name} can't be {value!r}; it takes {setting.values()}"
    return None
