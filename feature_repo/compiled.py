"""Loops as machine code, by numba: for a few hundred rows, numpy's cost per call is more than the work itself.

Compiled code is kept beside the module or in the user's cache, so only the first process ever waits for it. What a
loop takes from outside its own file must come in as an argument: numba notices changes of that file only.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of numbers and arrays when it is first called; it lets other threads run meanwhile.

    Arithmetic keeps its written order and precision, so a row is the same to the last bit in any number of rows.
    """
    try:
        loop = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # nowhere to keep it: a read-only installation without a home
        loop = njit(nogil=True)(function)
    return cast("Callable[P, R]", loop)
