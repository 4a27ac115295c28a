"""The door to numba's compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = {"nogil": True, "error_model": "numpy"}  # divisions by zero give inf and NaN, as NumPy's do

BYTES = numba.types.Array(numba.uint8, 2, "C", readonly=True)
"""(H, W) uint8, writable or not."""


def compiled(*signature: Any, **options: Any) -> Callable[[F], F]:
    """Compile a function, and keep the machine code for later processes where there is a place for it.

    Args:
        signature: of a function that is called from Python: compiled when its module is imported, so that input of
            another type is an error and not another compilation. None for a function that compiled ones call.
        options: of ``numba.njit``.
    """

    if not signature:  # no door for Python, which takes a third of the compiler's time
        options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

    def wrap(function: F) -> F:
        try:
            kernel: F = numba.njit(*signature, cache=True, **_OPTIONS, **options)(function)
        except (RuntimeError, OSError):  # neither the package's directory nor the user's cache can be written
            kernel = numba.njit(*signature, **_OPTIONS, **options)(function)
        return kernel

    return wrap
