"""How near somebody comes to what each of many people liked, as a compiled loop."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.compiled import compiled

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
_LINE = 16  # float32 in a line of the cache


@compiled
def _largest_read(factors: Float32, rows: Int64) -> float:
    """Return the largest of one value per cache line of the factors at `rows`, 0 if none is above it.

    These reads do not wait for each other, so they bring the factors near sooner than sums over one after the other.
    """
    largest = np.float32(0.0)
    for row in rows.flat:
        if row >= 0:
            for d in range(0, factors.shape[1], _LINE):
                largest = max(largest, factors[row, d])
    return float(largest)


@compiled
def _cosine(factor: Float32, chosen: Float32, own: float) -> np.float32:
    """Return the cosine of two factors, of which the second has the norm `own`."""
    # Four sums of each kind: a single one would wait for itself at every step.
    dot0 = dot1 = dot2 = dot3 = np.float32(0.0)
    norm0 = norm1 = norm2 = norm3 = np.float32(0.0)
    whole = len(chosen) - len(chosen) % 4
    for d in range(0, whole, 4):
        a, b, c, e = factor[d], factor[d + 1], factor[d + 2], factor[d + 3]
        dot0 += a * chosen[d]
        dot1 += b * chosen[d + 1]
        dot2 += c * chosen[d + 2]
        dot3 += e * chosen[d + 3]
        norm0 += a * a
        norm1 += b * b
        norm2 += c * c
        norm3 += e * e
    for d in range(whole, len(chosen)):
        dot0 += factor[d] * chosen[d]
        norm0 += factor[d] * factor[d]
    norm = math.sqrt((norm0 + norm1) + (norm2 + norm3)) * own
    return np.float32(((dot0 + dot1) + (dot2 + dot3)) / max(norm, 1e-12))


@compiled
def highest_cosines(
    factors: Float32, rows: Int64, liked: NDArray[Any], chosen: Float32, last: int, but: int
) -> Float32:
    """Return float32[n]: the highest cosine of `chosen` to any of the factors of the first `last` people liked.

    `liked` int[n, w] ids, latest first, -1 where there are no more, `rows` their rows in `factors`, -1 for the unknown.
    A like of `but` does not count; NaN where none is left. Most of the time goes into reading a thousand factors that
    no cache holds.
    """
    out = np.full(len(rows), np.nan, dtype=np.float32)
    if math.isinf(_largest_read(factors, rows)):  # used, or the compiler would leave the reads out
        return out
    own = max(math.sqrt((chosen * chosen).sum()), 1e-12)
    for i in range(len(rows)):
        left = last
        for j in range(rows.shape[1]):
            if left <= 0 or liked[i, j] < 0:
                break
            if liked[i, j] != but:
                left -= 1
                if rows[i, j] >= 0:
                    cosine = _cosine(factors[rows[i, j]], chosen, own)
                    out[i] = cosine if math.isnan(out[i]) else max(out[i], cosine)
    return out
