"""Compiling the hot loops of the decoders once and for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` by numba when first called, and keep the code on disk.

    numba keeps it beside the source or, when that is read-only, in the user's cache directory
    (``NUMBA_CACHE_DIR`` moves it).  With nowhere to write it compiles anew in every process.  numba sees when
    the function's file changes, but not a layout table that it takes constants from: touch both.
    """
    try:
        return cast("Callable[P, R]", numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:
        return cast("Callable[P, R]", numba.njit(nogil=True)(function))
