"""The half-step of alternating least squares for one person, as a compiled loop: what their decisions add up to."""

import numpy as np
from numpy.typing import NDArray

from infra.compiled import compiled
from registry.models.arrays import Floats, Ids

Doubles = NDArray[np.float64]


@compiled
def _add(left: Doubles, factor: Floats, weight: float) -> None:
    """Add `weight * y y'` to float64[d, d]."""
    for i in range(len(factor)):
        scaled = weight * float(factor[i])
        for j in range(len(factor)):
            left[i, j] += scaled * float(factor[j])


@compiled
def normal_equations(
    factors: Floats, liked: Ids, passed: Ids, gram: Doubles, prior: Doubles, alpha: float, pass_confidence: float,
    penalty: float,
) -> tuple[Doubles, Doubles]:  # fmt: skip
    """Return left float64[d, d] and right float64[d] of `(Y'Y + sum (c-1) y y' + penalty I) x = sum_liked c y + prior`.

    `liked` and `passed` are rows of `factors`, -1 for the unknown, who are left out; `gram` is Y'Y.
    """
    left, right = gram.copy(), prior.copy()
    for row in liked:
        if row >= 0:
            _add(left, factors[row], alpha - 1.0)
            for i in range(len(right)):
                right[i] += alpha * float(factors[row, i])
    for row in passed:
        if row >= 0:
            _add(left, factors[row], pass_confidence - 1.0)
    for i in range(len(right)):
        left[i, i] += penalty
    return left, right
