"""Sparse matrices by rows as three arrays that can be mapped, and the sums of some of their rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.compiled import compiled, fixed
from registry.errors import InvalidVectors
from registry.models.arrays import Floats, Ids

Rows = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class SparseRows:
    """A sparse matrix by rows: `start` int64[n + 1], `column` int32[m], `weight` float32[m]."""

    start: Ids
    column: Rows
    weight: Floats

    def __post_init__(self) -> None:
        whole = self.start.ndim == 1 and len(self.start) > 0 and self.column.shape == self.weight.shape
        if not whole or int(self.start[-1]) != len(self.column) or int(self.start[0]) != 0:
            raise InvalidVectors("A sparse matrix does not hold together: its starts, columns and weights disagree.")

    def spread(self, rows: Ids, weights: Floats) -> "NeighbourScores":
        """Return the sum of some rows, each times its weight, as dense scores and the columns that were met."""
        scores, met = _spread(fixed(self.start), fixed(self.column), fixed(self.weight), rows, weights)
        return NeighbourScores(scores, met)


@dataclass(frozen=True, eq=False)
class NeighbourScores:
    """Dense scores float32[n], zero where nothing was met, and the columns int64[k] that were met."""

    scores: Floats
    met: Ids

    def best(self, n: int) -> Ids:
        """Return up to `n` met columns with a positive score, best first."""
        scores = self.scores[self.met]
        kept = np.flatnonzero(scores > 0)
        if len(kept) > n:
            kept = kept[np.argpartition(-scores[kept], n - 1)[:n]]
        return np.asarray(self.met[kept[np.lexsort((self.met[kept], -scores[kept]))]])


@compiled
def _spread(start: Ids, column: Rows, weight: Floats, rows: Ids, weights: Floats) -> tuple[Floats, Ids]:
    """Return the dense sum of weighted rows and the columns met, in order of first meeting."""
    n = len(start) - 1
    scores = np.zeros(n, dtype=np.float32)
    seen = np.zeros(n, dtype=np.bool_)
    most = 0
    for row in rows:
        most += start[row + 1] - start[row]
    met = np.empty(min(most, n), dtype=np.int64)
    count = 0
    for i in range(len(rows)):
        for at in range(start[rows[i]], start[rows[i] + 1]):
            other = column[at]
            scores[other] += weights[i] * weight[at]
            if not seen[other]:
                seen[other] = True
                met[count] = other
                count += 1
    return scores, met[:count]
