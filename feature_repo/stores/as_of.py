"""An as-of join of many lookups against a sorted stream of rows: each row is seen once, one block in memory.

This beats one index lookup per pair where a table is not much larger than the number of lookups.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Block = tuple[Int64, Int64, Float32]

LARGEST_EXACT = 2**53  # keys and microseconds are compared as the two halves of complex numbers, which sort in order


def as_of_join(
    keys: Int64, micros: Int64, blocks: Iterable[Block], width: int, ttl_micros: int
) -> tuple[Float32, NDArray[np.bool_]]:
    """Return, for each (key, instant), the latest row of that key at or before it: float32[n, width], bool[n].

    `blocks` hold (keys, event times in microseconds, values), ascending by key and then time throughout; of equal
    rows the last wins. A row older than `ttl_micros` (0: no limit) does not count. Missing rows are zeros.
    """
    n = len(keys)
    values, present = np.zeros((n, width), dtype=np.float32), np.zeros(n, dtype=np.bool_)
    order = np.lexsort((micros, keys))
    wanted = keys[order] + 1j * micros[order]
    carried: Block | None = None
    done = 0

    def settle(rows: Block, instants: NDArray[np.complex128], end: int) -> None:
        """Answer the lookups from `done` to `end`, all of which lie at or after the first row's predecessor."""
        row_keys, row_micros, row_values = rows
        place = np.searchsorted(instants, wanted[done:end], side="right") - 1
        lookups = order[done:end]
        at = np.maximum(place, 0)
        found = (place >= 0) & (row_keys[at] == keys[lookups])
        if ttl_micros:
            found &= row_micros[at] >= micros[lookups] - ttl_micros
        values[lookups[found]] = row_values[at[found]]
        present[lookups[found]] = True

    for block in blocks:
        rows: Block = block
        if carried is not None:
            rows = (
                np.concatenate([carried[0], block[0]]),
                np.concatenate([carried[1], block[1]]),
                np.concatenate([carried[2], block[2]]),
            )
        instants = rows[0] + 1j * rows[1]
        # Lookups at or after the last row may have their answer in the next block.
        end = int(np.searchsorted(wanted, instants[-1], side="left"))
        if end > done:
            settle(rows, instants, end)
            done = end
        carried = (rows[0][-1:], rows[1][-1:], rows[2][-1:])
    if carried is not None:
        settle(carried, carried[0] + 1j * carried[1], n)
    return values, present
