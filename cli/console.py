"""What every command shares: progress on standard error, and errors in one line."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """Show progress on standard error: a line for each step, with the seconds since the start."""
    started = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"[{time.monotonic() - started:6.1f} s] {what}: {text}", err=True)

    yield say


def tidy_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn the errors that a user can do something about into one line; others keep their traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        from blkproof.analysis.errors import AnalysisError
        from blkproof.harness.errors import HarnessError
        from blkproof.images.errors import ImageError
        from blkproof.traces.errors import CaptureError

        try:
            return command(*args, **kwargs)
        except (ImageError, HarnessError, CaptureError, AnalysisError) as error:
            raise click.ClickException(str(error)) from error

    return wrapped
