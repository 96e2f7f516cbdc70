"""Finds, gathers and chooses rows of people, as compiled loops.

A position beyond the last row of a base is one of a tail that follows it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.compiled import compiled

Int64 = NDArray[np.int64]


@compiled
def here(positions: Int64, alive: NDArray[np.bool_], late: Int64, n_base: int) -> Int64:
    """Return positions in base and tail: the tail's for whoever is in it, -1 for those of the base who are gone."""
    out = np.empty(len(positions), dtype=np.int64)
    for i in range(len(positions)):
        if len(late) and late[i] >= 0:
            out[i] = late[i] + n_base
        else:
            out[i] = positions[i] if positions[i] >= 0 and alive[positions[i]] else -1
    return out


@compiled
def gathered(base: NDArray[Any], tail: NDArray[Any], positions: Int64) -> NDArray[Any]:
    """Return the rows [m, width] at `positions`, all of which must be there."""
    out = np.empty((len(positions), base.shape[1]), dtype=base.dtype)
    for i in range(len(positions)):
        late = positions[i] - len(base)
        row = base[positions[i]] if late < 0 else tail[late]
        for column in range(len(row)):
            out[i, column] = row[column]
    return out


@compiled
def _comes_after(scores: NDArray[Any], i: int, j: int) -> bool:
    return scores[i] < scores[j] or (scores[i] == scores[j] and i > j)


@compiled
def _sink(heap: Int64, size: int, scores: NDArray[Any]) -> None:
    """Restore the order of a heap whose root may not be the last of all."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            return
        if child + 1 < size and _comes_after(scores, heap[child + 1], heap[child]):
            child += 1
        if not _comes_after(scores, heap[child], heap[place]):
            return
        heap[place], heap[child] = heap[child], heap[place]
        place = child


@compiled
def best_first(scores: NDArray[Any], n: int) -> Int64:
    """Return the rows int64[<=n] of the highest of float32[m] scores, best first, ties by row."""
    size = min(n, len(scores))
    # A heap of the best so far, the last of them at its root.
    heap = np.empty(size, dtype=np.int64)
    for i in range(size):
        place = i
        while place > 0 and _comes_after(scores, i, heap[(place - 1) // 2]):
            heap[place] = heap[(place - 1) // 2]
            place = (place - 1) // 2
        heap[place] = i
    if size:
        for i in range(size, len(scores)):
            if _comes_after(scores, heap[0], i):
                heap[0] = i
                _sink(heap, size, scores)
    for last in range(size - 1, 0, -1):
        heap[0], heap[last] = heap[last], heap[0]
        _sink(heap, last, scores)
    return heap
