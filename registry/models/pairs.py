"""What factors say of pairs of people, as compiled loops: inner products, and how near somebody comes to a taste.

An inner product is summed in one written order, so a pair has the same bits wherever and beside whomever it is scored.
A cosine is only ever compared, so the compiler may sum it as the machine likes best.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.compiled import compiled, compiled_freely, fixed
from registry.models.arrays import Floats, Ids

_LEAST_NORM = 1e-12


def row_dot(left: Floats, right: Floats) -> Floats:
    """Return the inner product of each pair of rows, float32[n]; one row is broadcast against many."""
    return _row_dots(fixed(np.ascontiguousarray(left)), fixed(np.ascontiguousarray(right)))


@compiled
def _dot(a: Floats, b: Floats) -> np.float32:
    # Four sums: a single one would wait for itself at every step.
    sum0 = sum1 = sum2 = sum3 = np.float32(0.0)
    whole = len(a) - len(a) % 4
    for d in range(0, whole, 4):
        sum0 += a[d] * b[d]
        sum1 += a[d + 1] * b[d + 1]
        sum2 += a[d + 2] * b[d + 2]
        sum3 += a[d + 3] * b[d + 3]
    for d in range(whole, len(a)):
        sum0 += a[d] * b[d]
    return np.float32((sum0 + sum1) + (sum2 + sum3))


@compiled
def _row_dots(left: Floats, right: Floats) -> Floats:
    n = max(len(left), len(right)) if min(len(left), len(right)) else 0
    out = np.empty(n, dtype=np.float32)
    for i in range(n):
        out[i] = _dot(left[min(i, len(left) - 1)], right[min(i, len(right) - 1)])
    return out


@compiled
def _copy(out: Floats, i: int, factors: Floats, row: int) -> None:
    for d in range(out.shape[1]):  # numba takes five times as long to assign one row to another
        out[i, d] = factors[row, d]


@compiled
def scores_of(
    chooser: Floats, chosen: Floats, rows: Ids, content_chooser: Floats, content_chosen: Floats, p: Floats, q: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return s(u->v), s(v->u) float32[n] and Q_v float32[n, d] of one person, `p` and `q`, with those at `rows`.

    A row of -1 takes the next one of the factors from profiles, which are as many as there are such rows.
    """
    n = len(rows)
    p_v, q_v = np.empty((n, len(p)), dtype=np.float32), np.empty((n, len(q)), dtype=np.float32)
    unknown = 0
    for i in range(n):  # copies do not wait for each other, as sums over factors that no cache holds would
        if rows[i] >= 0:
            _copy(p_v, i, chooser, rows[i])
            _copy(q_v, i, chosen, rows[i])
        else:
            _copy(p_v, i, content_chooser, unknown)
            _copy(q_v, i, content_chosen, unknown)
            unknown += 1
    forward, backward = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.float32)
    for i in range(n):
        forward[i], backward[i] = _dot(p, q_v[i]), _dot(p_v[i], q)
    return forward, backward, q_v


@compiled_freely
def _cosine(a: Floats, b: Floats, own: float) -> np.float32:
    """Return the cosine of two factors, of which the second has the norm `own`."""
    product = squares = np.float32(0.0)
    for d in range(len(a)):
        product += a[d] * b[d]
        squares += a[d] * a[d]
    return np.float32(product / max(math.sqrt(squares) * own, _LEAST_NORM))


@compiled_freely
def _product(a: Floats, b: Floats) -> np.float32:
    product = np.float32(0.0)
    for d in range(len(a)):
        product += a[d] * b[d]
    return product


@compiled_freely
def _norm(a: Floats) -> float:
    squares = np.float32(0.0)
    for d in range(len(a)):
        squares += a[d] * a[d]
    return math.sqrt(squares)


@compiled_freely
def nearest_to_liked(chosen_liked: Floats, chosen: Floats) -> Floats:
    """Return the highest cosine of each of `chosen` float32[n, d] to any of `chosen_liked`, NaN where there is none."""
    out = np.full(len(chosen), np.nan, dtype=np.float32)
    liked = np.empty_like(chosen_liked)
    for j in range(len(liked)):
        liked[j] = chosen_liked[j] / np.float32(max(_norm(chosen_liked[j]), _LEAST_NORM))
    for i in range(len(chosen)):
        highest = np.float32(-np.inf)
        for j in range(len(liked)):
            highest = max(highest, _product(chosen[i], liked[j]))
        if len(liked):
            out[i] = highest / np.float32(max(_norm(chosen[i]), _LEAST_NORM))
    return out


@compiled_freely
def nearest_of_liked(factors: Floats, rows: Ids, liked: NDArray[Any], chosen: Floats, last: int, but: int) -> Floats:
    """Return float32[n]: the highest cosine of `chosen` to any of the factors of the first `last` people liked.

    `liked` int64[n, w] ids, latest first, -1 where there are no more, `rows` their rows in `factors`, -1 for the
    unknown. A like of `but` does not count; NaN where none is left.
    """
    out = np.full(len(rows), np.nan, dtype=np.float32)
    own = _norm(chosen)
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
