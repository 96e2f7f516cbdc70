"""Names for compiled loops: where a packed row holds which column, and small sets of named numbers.

A loop takes them as arrays of one record, `names[0].column`: a compiled loop would not notice that a layout has
changed, and a record costs a microsecond less to hand over than a named tuple does.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.compiled import fixed


def places(columns: Mapping[str, int]) -> NDArray[Any]:
    """Return one record of int64: the place of each column by its name."""
    return _record(columns, np.int64)


def numbers(values: Mapping[str, float]) -> NDArray[Any]:
    """Return one record of float64: each value by its name."""
    return _record(values, np.float64)


def _record(values: Mapping[str, float], dtype: type[np.generic]) -> NDArray[Any]:
    return fixed(np.array([tuple(values.values())], dtype=[(name, dtype) for name in values]))
