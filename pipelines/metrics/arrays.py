"""The arrays that measures take and return."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]
"""Real numbers or truth values of any width."""
Hits = npt.NDArray[np.bool_]
"""Ranked lists bool[n, k], best first: whether each place holds a relevant person; padded with False."""
