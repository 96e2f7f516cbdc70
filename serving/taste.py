"""How near somebody comes to what each of many people liked, as a compiled loop."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.compiled import compiled

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


@compiled
def highest_cosines(
    factors: Float32, rows: Int64, liked: NDArray[Any], chosen: Float32, last: int, but: int
) -> Float32:
    """Return float32[n]: the highest cosine of `chosen` to any of the factors of the first `last` people liked.

    `liked` int[n, w] ids, latest first, -1 where there are no more, `rows` their rows in `factors`, -1 for the unknown.
    A like of `but` does not count; NaN where none is left. Nothing is gathered: most of the time goes into reading
    a thousand factors that no cache holds.
    """
    out = np.full(len(rows), np.nan, dtype=np.float32)
    size = len(chosen)
    own = 0.0
    for d in range(size):
        own += chosen[d] * chosen[d]
    own = max(math.sqrt(own), 1e-12)
    for i in range(len(rows)):
        left = last
        for j in range(rows.shape[1]):
            if left <= 0 or liked[i, j] < 0:
                break
            if liked[i, j] == but:
                continue
            left -= 1
            row = rows[i, j]
            if row < 0:
                continue
            # Four sums of each kind: a single one would wait for itself at every step.
            dot0 = dot1 = dot2 = dot3 = np.float32(0.0)
            norm0 = norm1 = norm2 = norm3 = np.float32(0.0)
            whole = size - size % 4
            for d in range(0, whole, 4):
                a, b, c, e = factors[row, d], factors[row, d + 1], factors[row, d + 2], factors[row, d + 3]
                dot0 += a * chosen[d]
                dot1 += b * chosen[d + 1]
                dot2 += c * chosen[d + 2]
                dot3 += e * chosen[d + 3]
                norm0 += a * a
                norm1 += b * b
                norm2 += c * c
                norm3 += e * e
            for d in range(whole, size):
                dot0 += factors[row, d] * chosen[d]
                norm0 += factors[row, d] * factors[row, d]
            norm = math.sqrt((norm0 + norm1) + (norm2 + norm3)) * own
            cosine = np.float32(((dot0 + dot1) + (dot2 + dot3)) / max(norm, 1e-12))
            if not out[i] >= cosine:
                out[i] = cosine
    return out
