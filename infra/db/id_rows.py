"""Where each id of an ascending array stands, for thousands of look-ups per request.

While ids are dense a table says it in one step; a binary search walks through memory that no cache holds.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infra.compiled import compiled, fixed

Int64 = NDArray[np.int64]
_MANY: Final = 8192  # from so many ids on a table is worth its making
_DENSE: Final = 8  # and only while ids go no higher than so many times their number


@dataclass(frozen=True, eq=False)
class IdRows:
    """`ids` int64[n] strictly ascending; `table` int32 the row of every id up to the largest, or empty."""

    ids: Int64
    table: NDArray[np.int32]

    @classmethod
    def of(cls, ids: Int64) -> Self:
        """Make the table, where it pays, of ids that ascend strictly."""
        table = np.empty(0, dtype=np.int32)
        if len(ids) >= _MANY and int(ids[0]) > 0 and int(ids[-1]) <= _DENSE * len(ids):
            table = np.full(int(ids[-1]) + 1, -1, dtype=np.int32)
            table[ids] = np.arange(len(ids), dtype=np.int32)
        return cls(fixed(ids), fixed(table))

    def find(self, wanted: ArrayLike) -> Int64:
        """Return the row of each id, int64 of the same shape, -1 for the unknown."""
        every = np.asarray(wanted, dtype=np.int64)
        return found(self.ids, self.table, every.ravel()).reshape(every.shape)


@compiled
def found(ids: Int64, table: NDArray[Any], wanted: Int64) -> Int64:
    """Return int64[m] rows of the ids `wanted`, -1 for the unknown."""
    out = np.empty(len(wanted), dtype=np.int64)
    if len(table):
        for i in range(len(wanted)):
            out[i] = table[wanted[i]] if 0 <= wanted[i] < len(table) else -1
        return out
    for i in range(len(wanted)):
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            if ids[middle] < wanted[i]:
                low = middle + 1
            else:
                high = middle
        out[i] = low if low < len(ids) and ids[low] == wanted[i] else -1
    return out
