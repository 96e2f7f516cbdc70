"""Loops as machine code, by numba: for a few hundred rows, numpy's cost per call is more than the work itself.

Compiled code is kept beside the module or in the user's cache, so only the first process ever waits for it. What a
loop takes from outside its own file must come in as an argument: numba notices changes of that file only.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")
Scalar = TypeVar("Scalar", bound=np.generic)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of numbers and arrays when it is first called; it lets other threads run meanwhile.

    Arithmetic keeps its written order and precision, so a row is the same to the last bit in any number of rows.
    """
    return _compiled(function)


def compiled_freely(function: Callable[P, R]) -> Callable[P, R]:
    """Compile like `compiled`, but let sums be taken in any order: four times as fast, and the last bits may differ."""
    return _compiled(function, fastmath={"reassoc", "nsz"})


def _compiled(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    try:
        loop = njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # nowhere to keep it: a read-only installation without a home
        loop = njit(nogil=True, **options)(function)
    return cast("Callable[P, R]", loop)


def fixed(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return a read-only view: mapped pages are read-only, which to the compiler is another type than memory is.

    What may be either goes through here, so that each loop is compiled for one of them only.
    """
    same: NDArray[Any] = array.view(np.ndarray)
    same.flags.writeable = False
    return same
